"""The criteria, against effects worked out by hand on made-up paths."""

import numpy as np
import pandas as pd
import pytest

from revlib.verdicts.effects import CRITERIA, Asked, averaged

STEPS = range(1, 13)


def measured(criterion, paths, orders=None, windows=((1, 12),), levels=(), steps=STEPS):
    """The effects of paths {(seed, order): values at STEPS}: by part, a list over the seeds."""
    table = pd.DataFrame(
        {"seed": seed, "order": order, "step": n, "test_loss": float(value)}
        for (seed, order), values in paths.items()
        for n, value in zip(steps, values, strict=True)
    )
    orders = orders or tuple(dict.fromkeys(order for _, order in paths))
    found = CRITERIA[criterion].measure(table, "test_loss", Asked(orders, windows, levels))
    return averaged(found).to_dict("list")


def of(*orders):
    """Paths of one seed, in orders a, b, c."""
    return {(0, name): values for name, values in zip("abc", orders, strict=False)}


NOISE = np.random.default_rng(0).normal(size=12)
N = np.arange(1, 13)
GONE = [1.0] * 6 + [np.nan] * 6


def test_calmer_takes_the_spread_about_a_quadratic():
    paths = of(3 * NOISE + 5 - N + 0.2 * N**2, NOISE + 2 * N)
    assert measured("calmer", paths)[""] == pytest.approx([np.log(3)])


def test_calmer_step_by_step_takes_neighbours():
    paths = of([0, 2, 0, 99], [0, 1, 0, -99])
    found = measured("calmer_step_by_step", paths, steps=(1, 2, 3, 9))
    assert found[""] == pytest.approx([np.log(2)])


@pytest.mark.parametrize("criterion", ["calmer", "calmer_step_by_step"])
@pytest.mark.parametrize(
    ("paths", "effect"),
    [
        (of(GONE, NOISE), np.inf),
        (of(NOISE, GONE), -np.inf),
        (of(GONE, GONE), 0),
        (of(NOISE, 0 * NOISE), np.inf),
        (of(0 * NOISE, 0 * NOISE), 0),
        (of(NOISE, 0 * NOISE + 0.1), np.inf),  # whatever rounding leaves of a fit
    ],
)
def test_a_path_that_has_diverged_is_the_less_calm_one(criterion, paths, effect):
    assert measured(criterion, paths)[""] == [effect]


def test_windows_are_averaged_within_the_seed():
    paths = of([*(2 * NOISE), *(8 * NOISE)], [*NOISE, *NOISE])
    found = measured("calmer", paths, windows=((1, 12), (13, 24)), steps=range(1, 25))
    assert found[""] == pytest.approx([np.log(4)])
    opposite = of([*GONE, *NOISE], [*NOISE, *GONE])
    found = measured("calmer", opposite, windows=((1, 12), (13, 24)), steps=range(1, 25))
    assert found[""] == [0]


def ending(*values):
    return of(*([0] * 11 + [value] for value in values))


def test_lower_compares_neighbours_at_the_last_step():
    assert measured("lower", ending(3, 2, 4)) == {"b instead of a": [1], "c instead of b": [-2]}
    found = measured("lower_ratio", ending(3, 2, 4))
    assert found["b instead of a"] == pytest.approx([np.log(1.5)])
    assert found["c instead of b"] == pytest.approx([-np.log(2)])
    assert measured("lower", ending(3, np.nan, np.nan)) == {
        "b instead of a": [-np.inf],
        "c instead of b": [0],
    }
    assert measured("lower", ending(3, 2, 4), windows=((1, 11),))["b instead of a"] == [0]


def test_lower_than_each_compares_with_the_last():
    found = measured("lower_than_each", ending(4, 1, 2))
    assert found["instead of a"] == pytest.approx([np.log(2)])
    assert found["instead of b"] == pytest.approx([-np.log(2)])


def test_grows_compares_the_leads_of_pairs():
    paths = {(0, name): [end] * 12 for name, end in zip("abcd", (2, 1, 9, 1.5), strict=True)}
    assert measured("grows", paths)["d instead of b"] == pytest.approx([np.log(6 / 2)])


def test_the_step_from_which_a_path_stays_below():
    falling = np.linspace(1, 0, 12)  # at or below 0.5 from the 7th step on
    touching = [1, 1, 0.4, *[1] * 8, 0.4]  # from the 12th on
    paths = of(touching, falling)
    assert measured("stays_below", paths, levels=(0.5,))[""] == pytest.approx([np.log(12 / 7)])
    assert measured("first_below", paths, levels=(0.5,))[""] == pytest.approx([np.log(3 / 7)])
    found = measured("stays_below", paths, levels=(0.5, 0.01, 0.0001))[""]
    # The falling path reaches the other two levels with its last step, the touching one neither.
    later = (np.log(12 / 7) + 2 * np.log(13 / 12)) / 3
    assert found == pytest.approx([later])


def test_a_level_that_neither_reaches_gives_nothing():
    paths = of([1.0] * 12, [1.0] * 11 + [0.5])
    assert measured("stays_below", paths, levels=(0.6, 0.1))[""] == pytest.approx([np.log(13 / 12)])
    assert measured("stays_below", paths, levels=(0.1,))[""] == [0]
    assert measured("stays_below", of(GONE, GONE), levels=(0.9,))[""] == [0]
    assert measured("stays_below", of(GONE, [0.5] * 12), levels=(1.0,))[""] == pytest.approx(
        [np.log(13)]
    )


def test_censoring_is_told():
    table = pd.DataFrame(
        {"seed": 0, "order": order, "step": n, "test_loss": value}
        for order, values in (("a", [1, 1, 1]), ("b", [1, 1, 0.5]))
        for n, value in enumerate(values)
    )
    asked = Asked(("a", "b"), ((0, 2),), (0.6, 0.1))
    told = CRITERIA["stays_below"].note(table, "test_loss", asked)
    assert told == " Of 2 cases of a seed and level, not below by the end: a in 2, b in 1."


def test_apart_compares_levels_with_spreads():
    paths = of(NOISE, NOISE + 9)
    spread = np.sqrt(np.polyfit(N, NOISE, 2, full=True)[1][0] / 9)
    assert measured("apart", paths)[""] == pytest.approx([np.log(9 / (2 * spread))])
    assert measured("apart", of(NOISE, GONE))[""] == [-np.inf]


def test_points_at_rest_are_further_apart_than_they_move():
    one, other = np.linspace(0, 1, 12), np.linspace(5, 3, 12)
    assert measured("rests_apart", of(one, other))[""] == pytest.approx([np.log(3.5 / 2)])
    assert measured("rests_apart", of(one, GONE))[""] == [-np.inf]


def test_crosses_asks_on_both_sides_at_the_same_steps():
    low, high = N, N + 2.0  # both rise, so that a range of values would tell nothing
    swinging = np.where(N % 2, low - 1, high + 3)
    assert measured("crosses", of(swinging, low, high))[""] == pytest.approx([0.5])
    assert measured("crosses", of(high + 1, low, high))[""] == pytest.approx([-1.5])
    assert measured("crosses", of(GONE, low, high))[""] == [-np.inf]


def test_nearer_compares_distances_from_the_first():
    assert measured("nearer", ending(1, 2, 5))[""] == pytest.approx([np.log(4)])
    assert measured("nearer", ending(1, 2, np.nan))[""] == [np.inf]
    assert measured("nearer", ending(1, np.nan, 2))[""] == [-np.inf]
    assert measured("nearer", ending(np.nan, 1, 2))[""] == [0]


def test_settles_compares_the_late_change_with_the_early_fall():
    path = [9.0, 8, 7, 6, 5, 4, 3.5, 3.4, 3.3, 3.2, 3.1, 3.0]  # 5 down, then 0.5
    asked = {"windows": ((1, 6), (7, 12)), "levels": (0.2,)}
    assert measured("settles", of(path), **asked)[""] == pytest.approx([np.log(0.2 * 5 / 0.5)])
    assert measured("settles", of(path[::-1]), **asked)[""] == [-np.inf]  # it has risen
    assert measured("settles", of([9, *GONE[1:]]), **asked)[""] == [-np.inf]
    both = measured("settles", of(path, path), **asked)
    assert both["a"] == both["b"] == pytest.approx([np.log(2)])


def test_narrower_is_about_the_spread_over_seeds():
    paths = {(s, o): [v * k] * 12 for s, v in enumerate((1, 2, 4)) for o, k in (("a", 3), ("b", 1))}
    table = pd.DataFrame(
        {"seed": s, "order": o, "step": n, "test_loss": float(v)}
        for (s, o), values in paths.items()
        for n, v in zip(STEPS, values, strict=True)
    )
    criterion = CRITERIA["narrower"]
    found = criterion.effects(criterion.measure(table, "test_loss", Asked(("a", "b"), ((1, 12),))))
    assert found[""].mean == pytest.approx(np.log(3))


def test_every_criterion_says_what_its_effect_is():
    for criterion in CRITERIA.values():
        assert criterion.rule.endswith(".")
        assert not criterion.beside or criterion.beside in CRITERIA
