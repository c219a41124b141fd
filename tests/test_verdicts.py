"""Verdicts on paths whose truth is known: wrong in at most one of twenty, open ever more rarely."""

import functools

import numpy as np
import pandas as pd
import pytest

from revlib.verdicts import intervals
from revlib.verdicts.claims import RATIO
from revlib.verdicts.effects import CRITERIA, Asked, averaged
from revlib.verdicts.intervals import judge, of_seeds, of_spreads, together

ORDERS = ("forward", "backward")
DRAWS = 300  # of a table, for each number of seeds
BAND = np.log(RATIO)


def noise(rng, seeds, steps, memory):
    """Noise of variance 1 about which a step remembers so much of the one before."""
    found = rng.normal(size=(seeds, steps))
    for n in range(1, steps):
        found[:, n] = memory * found[:, n - 1] + np.sqrt(1 - memory**2) * found[:, n]
    return found


@functools.cache
def effects(criterion, ratio, steps, memory=0.0, differ=0.0):
    """The effects on many seeds, in which the first path moves so many times more than the second.

    Both are a smooth trend with noise, whose steps may be alike; and the ratio may differ from
    seed to seed, by a factor with this standard deviation of its logarithm. The effects of
    different seeds are independent, so that any of them make a table.
    """
    rng = np.random.default_rng([steps, round(100 * ratio), round(100 * memory)])
    seeds = DRAWS
    n = np.arange(1, steps + 1)
    trend = rng.normal(size=(seeds, 3)) @ np.vander(n / steps, 3).T
    own = ratio * np.exp(differ * rng.normal(size=(seeds, 1)))
    scale = {"forward": own, "backward": 1.0}
    table = pd.concat(
        pd.DataFrame(
            {
                "seed": np.repeat(np.arange(seeds), steps),
                "order": order,
                "step": np.tile(n, seeds),
                "test_loss": (trend + scale[order] * noise(rng, seeds, steps, memory)).ravel(),
            }
        )
        for order in ORDERS
    )
    asked = Asked(ORDERS, ((1, steps),))
    return averaged(CRITERIA[criterion].measure(table, "test_loss", asked))[""]


def verdicts(criterion, ratio, steps, seeds, draws=DRAWS, **how):
    """The verdicts on tables of so many seeds."""
    values = effects(criterion, ratio, steps, **how).to_numpy()
    rng = np.random.default_rng(seeds)
    for _ in range(draws):
        drawn = pd.Series(rng.choice(values, seeds, replace=False))
        yield judge({"": of_seeds(drawn)}, BAND).verdict


CASES = [
    ("calmer_step_by_step", 3),
    ("calmer_step_by_step", 8),
    ("calmer", 10),
    ("calmer", 40),
    ("calmer", 200),
]


def wrong(ratio):
    """What must not be said: *reproduced* without an effect, *contradicted* of a large one."""
    return {"reproduced"} if ratio <= 1 else {"contradicted"} if ratio > RATIO else set()


@pytest.mark.parametrize(
    "how",
    [{}, {"memory": 0.9}, {"differ": 0.5}],
    ids=["independent", "alike", "seeds differ"],
)
@pytest.mark.parametrize(("criterion", "steps"), CASES)
@pytest.mark.parametrize("ratio", [1 / 3, 1.0, 1.1, 1.3, 3.0])
def test_verdicts_are_wrong_in_at_most_one_of_twenty(criterion, steps, ratio, how):
    """Whether there is no effect, the opposite, one within the band, a small or a large one."""
    for seeds in (3, 5, 10):
        found = list(verdicts(criterion, ratio, steps, seeds, **how))
        assert sum(verdict in wrong(ratio) for verdict in found) <= 0.05 * DRAWS
        assert "too few" not in found
    for seeds in (1, 2):
        assert set(verdicts(criterion, ratio, steps, seeds, draws=10, **how)) == {"too few"}


@pytest.mark.parametrize(("criterion", "steps"), CASES)
def test_it_is_undecided_ever_more_rarely(criterion, steps):
    open_ = [
        list(verdicts(criterion, 3.0, steps, seeds)).count("undecided") for seeds in (3, 5, 10)
    ]
    assert open_[0] >= open_[1] >= open_[2]
    assert steps < 8 or open_[2] <= 0.05 * DRAWS


def test_no_effect_is_found_out_with_enough_steps_and_seeds():
    assert list(verdicts("calmer", 1.0, 200, 10)).count("contradicted") > 0.9 * DRAWS


def judged(values, band=BAND):
    return judge({"": of_seeds(pd.Series(values, dtype=float))}, band)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1, 1.1, 1.2], "reproduced"),
        ([-1, -1.1, -1.2], "contradicted"),
        ([0.01, 0, -0.01], "contradicted"),  # inside the band
        ([0.1, 0.11, 0.12], "reproduced"),  # inside the band, but above zero
        ([1, 3, -1], "undecided"),
        ([1, 1.1], "too few"),
        ([1], "too few"),
        ([np.inf] * 5, "undecided"),  # by the sign test, five heads are no proof
        ([np.inf] * 6, "reproduced"),
        ([np.inf, 1, 2, 1, 3, 1], "reproduced"),
        ([np.inf, 1, 2, 1, 3, -1], "undecided"),
        ([-np.inf] * 6, "contradicted"),
        ([np.inf, -np.inf, 0, 0, 0, 0], "undecided"),
        ([0] * 5, "undecided"),  # neither moves: there is no spread to judge by
        ([1] * 3, "undecided"),
        ([1, 1 + 1e-15, 1 - 1e-15], "undecided"),
        ([1] * 6, "reproduced"),
    ],
)
def test_the_ladder(values, verdict):
    assert judged(values).verdict == verdict


def test_the_interval_is_students():
    low, high = of_seeds(pd.Series([1.0, 2.0, 3.0])).ends()
    assert (low, high) == pytest.approx(
        (2 - 4.3027 / np.sqrt(3), 2 + 4.3027 / np.sqrt(3)), rel=1e-4
    )


def test_the_interval_of_the_median_is_that_of_the_sign_test():
    values = pd.Series([5.0, 1, 2, 3, 4, 6, np.inf, 7, 8, 9])
    assert of_seeds(values).ends() == (2, 9)  # of ten, one may be on the other side
    assert of_seeds(values).mean == 5.5
    assert of_seeds(values[:5]).ends()[1] < np.inf  # by Student
    assert of_seeds(pd.Series([np.inf, 1, 2, 3, 4])).ends() == (-np.inf, np.inf)


def test_seeds_that_would_decide():
    values = np.array([-1.0, 0, 1, 2, 3])  # mean 1
    needed = judged(values).needed
    spread = values.std(ddof=1)
    more = np.arange(6, 100)
    half = intervals._quantiles(0.05)[more] * spread / np.sqrt(more)
    assert needed == more[half < 1][0]
    assert judged([1, 1.1, 1.2]).needed is None
    assert judged([-1, 0, 1], band=0).needed is None  # more than can be told
    assert judged([-0.5, 0, 0.5]).needed > 3  # until it lies in the band
    assert judged([1, 1.1]).needed == 3
    assert judged([1]).needed is None


def test_all_parts_must_hold_and_one_contradicts_at_bonferronis_level():
    good, bad = pd.Series([1.0, 1.1, 1.2]), pd.Series([-1.0, -1.1, -1.2])
    slightly = pd.Series([-1.0, -1.5, -0.8])  # below zero at 95%, and not at 97.5%
    both = {"a": of_seeds(good), "b": of_seeds(good)}
    assert judge(both).verdict == "reproduced"
    assert judge(both | {"b": of_seeds(bad)}).verdict == "contradicted"
    assert judge({"": of_seeds(slightly)}).verdict == "contradicted"
    assert judge(both | {"b": of_seeds(slightly)}).verdict == "undecided"


@pytest.mark.parametrize(
    ("verdicts", "verdict"),
    [
        (["reproduced", "reproduced"], "reproduced"),
        (["contradicted", "contradicted"], "contradicted"),
        (["reproduced", "contradicted", "undecided"], "under-specified"),
        (["reproduced", "undecided"], "undecided"),
        (["contradicted", "undecided"], "undecided"),
        (["too few", "too few"], "too few"),
    ],
)
def test_readings_come_together(verdicts, verdict):
    assert together(verdicts) == verdict


def test_the_interval_of_pitman_and_morgan_covers_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        common = rng.normal(size=6)
        first, second = (pd.Series(s * (common + rng.normal(size=6))) for s in (2, 1))
        low, high = of_spreads(first, second).ends()
        covered += low <= np.log(2) <= high
    assert 0.92 < covered / 400 < 0.98


def test_pitman_and_morgan_agree_with_their_test():
    """The interval excludes equal spreads where sum and difference are correlated."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        first, second = pd.Series(rng.normal(size=7)), pd.Series(2 * rng.normal(size=7))
        low, high = of_spreads(first, second).ends()
        r = (first + second).corr(first - second)
        t = abs(r) * np.sqrt(5 / (1 - r**2))
        assert (low > 0 or high < 0) == (t > 2.5706)


def test_a_spread_that_is_not_finite_or_zero_has_no_interval():
    for values in ([1, 2, np.inf, 4], [1, 1, 1, 1]):
        first, second = pd.Series(values, dtype=float), pd.Series([1.0, 2, 4, 3])
        assert judge({"": of_spreads(first, second)}).verdict == "undecided"
