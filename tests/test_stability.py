"""Statistics of paths, against numbers worked out by hand and their sampling laws."""

import numpy as np
import pandas as pd
import pytest

from revlib.verdicts.stability import (
    about_trend,
    compare,
    covered,
    divergence,
    fluctuation,
    geometric_mean,
    ratio_error,
    ratios,
    rounded,
    structure,
    summary,
)


def table(paths, steps=None):
    """A tidy table from ``{(seed, order): values}``."""
    rows = [
        {"seed": seed, "order": order, "step": n, "test_loss": value}
        for (seed, order), values in paths.items()
        for n, value in zip(steps or range(len(values)), values, strict=True)
    ]
    return pd.DataFrame(rows)


def test_the_error_of_a_ratio_is_that_of_many_made_up_paths():
    rng = np.random.default_rng(0)
    steps = np.arange(23)
    draws = [about_trend(steps, rng.normal(size=23)) for _ in range(4000)]
    found = np.array(draws[:2000]) / draws[2000:]
    assert np.log(found).std() == pytest.approx(ratio_error(23), rel=0.1)


def test_spread_and_change_by_hand():
    found = fluctuation(table({(0, "forward"): [9, 1, 3, 2, 9]}), "test_loss", 1, 3).iloc[0]
    assert (found["points"], found["pairs"]) == (3, 2)
    assert found["mean"] == 2
    assert found["spread"] == 1  # of 1, 3, 2
    assert found["change"] == 1.5  # of 2 and 1


def test_change_counts_consecutive_steps_only():
    coarse = table({(0, "forward"): [0.0, 5.0, 6.0, 20.0]}, steps=[0, 10, 11, 20])
    found = fluctuation(coarse, "test_loss", 0, 20).iloc[0]
    assert found["pairs"] == 1
    assert found["change"] == 1


def test_rows_may_come_in_any_order():
    rows = table({(s, o): [1, 4, 2, 8] for s in (0, 1) for o in ("backward", "forward")})
    shuffled = rows.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(
        fluctuation(shuffled, "test_loss", 0, 3), fluctuation(rows, "test_loss", 0, 3)
    )


def test_a_single_point_has_no_spread():
    found = fluctuation(table({(0, "forward"): [1.0, 2.0]}), "test_loss", 1, 1).iloc[0]
    assert found["points"] == 1
    assert np.isnan(found["spread"])
    assert np.isnan(found["change"])


def test_the_comparison_is_the_geometric_mean_over_seeds():
    paths = {(s, "backward"): [0.0, 1.0] for s in (0, 1)}
    paths |= {(0, "forward"): [0.0, 2.0], (1, "forward"): [0.0, 8.0]}
    found = compare(table(paths), "test_loss", 0, 1, "change")
    assert found.tolist() == pytest.approx([2, 8])
    # Student's t with one degree of freedom: 12.706 standard errors, here log(2) each.
    ends = 4 / 2**12.7062, 4 * 2**12.7062
    assert geometric_mean(found) == pytest.approx((4, *ends), rel=1e-3)


def test_what_differs_by_rounding_alone_is_a_tie_on_every_processor():
    rng = np.random.default_rng(0)
    n, values = np.arange(5), rng.normal(size=5)
    assert about_trend(n, 0.1 + 0.3 * n - 0.7 * n**2) == 0
    assert about_trend(n, 0.1 + 0.3 * n - 0.7 * n**2 + 1e-9 * values) > 0
    mirrored = {(0, "forward"): values, (0, "backward"): values[::-1]}
    for statistic in ("trend", "spread", "change"):
        found = compare(table(mirrored), "test_loss", 0, 4, statistic)
        assert found.tolist() == [1]
        nudged = mirrored | {(0, "backward"): values[::-1] * (1 - 1e-9)}
        assert compare(table(nudged), "test_loss", 0, 4, statistic)[0] > 1
    still = {(0, "forward"): np.full(3, 0.1), (0, "backward"): np.full(3, 0.1 + 1e-16)}
    assert summary(ratios(table(still), [(0, 2)])).startswith("There is no ratio")


def test_one_seed_has_no_interval():
    paths = {(0, "forward"): [0.0, 3.0], (0, "backward"): [0.0, 1.0]}
    mean, *ends = geometric_mean(compare(table(paths), "test_loss", 0, 1))
    assert mean == pytest.approx(3)
    assert np.isnan(ends).all()


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        logs = rng.normal(np.log(3), 0.5, size=5)
        paths = {(s, "forward"): [0.0, np.exp(x)] for s, x in enumerate(logs)}
        paths |= {(s, "backward"): [0.0, 1.0] for s in range(5)}
        _, low, high = geometric_mean(compare(table(paths), "test_loss", 0, 1, "change"))
        covered += low <= 3 <= high
    assert 0.92 < covered / 400 < 0.98  # 95%, give or take three standard errors


def test_diverged_seeds_are_counted():
    """The interval is then that of the sign test."""
    paths = {(s, "backward"): [0.0, 1.0] for s in range(6)}
    paths |= {(s, "forward"): [0.0, 2.0 + s] for s in range(5)}
    paths |= {(5, "forward"): [0.0, np.inf]}
    found = compare(table(paths), "test_loss", 0, 1)
    assert found.tolist() == pytest.approx([2, 3, 4, 5, 6, np.inf])
    mean, low, high = geometric_mean(found)
    assert mean == pytest.approx(np.sqrt(20))  # the median of the logarithms
    assert (low, high) == (pytest.approx(2), np.inf)
    opposite = compare(table(paths), "test_loss", 0, 1, orders=("backward", "forward"))
    assert opposite[5] == 0


def test_it_is_a_tie_where_both_diverge_or_stand_still():
    paths = {(0, o): [0.0, np.inf] for o in ("forward", "backward")}
    paths |= {(1, o): [1.0, 1.0] for o in ("forward", "backward")}
    assert compare(table(paths), "test_loss", 0, 1).tolist() == [1, 1]


def test_the_spread_about_a_trend_by_hand():
    n = np.arange(5.0)
    noise = np.array([1, -2, 0, 2, -1.0])  # at right angles to 1 and n, and to n²
    values = 3 - n + 0.5 * n**2 + noise
    found = fluctuation(table({(0, "forward"): values}), "test_loss", 0, 4).iloc[0]
    assert found["trend"] == pytest.approx(np.sqrt(noise @ noise / 2))
    assert np.isnan(about_trend(n[:3], noise[:3]))
    assert about_trend(n, noise * 0 + 0.1) == 0
    assert about_trend(n, np.array([1, 2, np.inf, 3, 4])) == np.inf


def test_the_spread_about_a_trend_is_that_of_the_noise_from_any_steps():
    rng = np.random.default_rng(0)
    steps = np.sort(rng.choice(2000, 20, replace=False))
    found = [about_trend(steps, 1e-3 * steps + 2 * rng.normal(size=20)) for _ in range(400)]
    assert np.sqrt(np.mean(np.square(found))) == pytest.approx(2, rel=0.05)
    assert np.std(found) / 2 == pytest.approx(1 / np.sqrt(2 * 17), rel=0.15)


def test_the_structure_function_by_hand():
    path = table({(0, "forward"): [0.0, 1.0, 3.0, 3.0]}, steps=[0, 1, 2, 5])
    found = structure(path, "test_loss", 0, 5)
    assert found.columns.tolist() == [1, 2, 4]
    expected = [np.sqrt((1 + 4) / 2), 3.0, 2.0]
    assert found.loc["forward"].tolist() == pytest.approx(expected)
    assert np.isnan(structure(path, "test_loss", 1, 5).loc["forward", 2])


def test_the_structure_function_is_the_mean_over_seeds_that_have_the_steps():
    path = table({(0, "forward"): [0.0, 1.0, 3.0], (1, "forward"): [0.0, 3.0, np.nan]})
    found = structure(path[path["test_loss"].notna()], "test_loss", 0, 2).loc["forward"]
    assert found.tolist() == pytest.approx([np.sqrt((2.5 + 9) / 2), 3.0])


def test_the_structure_function_of_noise_is_flat_and_of_a_walk_grows_as_the_root():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=4000)
    paths = table({(0, "noise"): noise, (0, "walk"): np.cumsum(noise)})
    found = structure(paths, "test_loss", 0, 3999)
    assert found.loc["noise", 16] / found.loc["noise", 1] == pytest.approx(1, rel=0.05)
    assert found.loc["walk", 16] / found.loc["walk", 1] == pytest.approx(4, rel=0.1)


def test_divergence_is_the_first_step_that_is_not_finite():
    rows = table(
        {
            (0, "forward"): [1, np.inf, np.nan],
            (0, "backward"): [1, 2, 3],
            (1, "forward"): [np.nan] * 3,
        }
    )
    found = divergence(
        rows.rename(columns={"test_loss": "train_loss"}).sample(frac=1, random_state=0)
    )
    assert found.to_dict("records") == [
        {"seed": 0, "order": "forward", "step": 1},
        {"seed": 1, "order": "forward", "step": 0},
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("loss", 0, 1), "no 'loss'. It has: test_loss"),
        (("test_loss", 7, 9), "No step between 7 and 9 is recorded; the table has steps 0 to 1"),
        (
            ("test_loss", 0, 1, "calm"),
            "'calm' is not a statistic. Valid are: trend, spread, change",
        ),
        (("test_loss", 0, 1, "spread", ("forward", "odd")), "no order 'odd'. It has: forward"),
    ],
)
def test_bad_input_is_a_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        compare(table({(0, "forward"): [0.0, 1.0]}), *arguments)


def test_ratios_are_the_comparisons_of_all_quantities_and_windows():
    rng = np.random.default_rng(0)
    paths = {(s, o): rng.normal(size=9) for s in (0, 1, 2) for o in ("forward", "backward")}
    rows = table(paths)
    rows["batch_accuracy"] = rows["test_loss"] ** 2
    windows = [(0, 3), (4, 8)]
    found = ratios(rows, windows)
    assert found["quantity"].tolist() == ["test_loss"] * 2 + ["batch_accuracy"] * 2
    for row in found.itertuples():
        expected = compare(rows, row.quantity, row.first, row.last)
        assert (row.ratio, row.low, row.high) == geometric_mean(expected)
        assert (row.calmer, row.seeds) == ((expected > 1).sum(), 3)


@pytest.mark.parametrize(
    ("value", "written"), [(264.2, "260"), (0.01234, "0.012"), (12345.0, "12,000"), (9.96, "10")]
)
def test_numbers_are_written_with_two_digits(value, written):
    assert rounded(value) == written


def test_the_summary_tells_as_many_digits_as_mean_something():
    paths = {(0, "forward"): [0.0, 3.0] * 6, (0, "backward"): [0.0, 1.0] * 6}
    found = ratios(table(paths), [(0, 1), (0, 11)])
    assert summary(found).splitlines() == [
        "The ratio, and on how many seeds it is above 1:",
        "           steps 0 to 1  steps 0 to 11",
        "test loss  1 of 1        3.0, 1 of 1",
    ]


def test_the_summary_has_a_column_for_each_way_to_look_at_a_window():
    paths = {(0, "forward"): [0.0, 3.0] * 6, (0, "backward"): [0.0, 1.0] * 6}
    each = [ratios(table(paths), [(0, 11)], statistic=how) for how in ("trend", "change")]
    assert summary(pd.concat(each)).splitlines()[1:] == [
        "           about a trend,  step to step,",
        "           steps 0 to 11   steps 0 to 11",
        "test loss  3.0, 1 of 1     3.0, 1 of 1",
    ]


def test_the_summary_says_nothing_of_what_does_not_move():
    still = {(0, order): [1.0, 1.0] for order in ("forward", "backward")}
    both = table(still).assign(train_loss=[0.0, 3.0, 0.0, 1.0])
    assert summary(ratios(both, [(0, 1)])).splitlines()[2:] == ["train loss  1 of 1"]
    assert summary(ratios(table(still), [(0, 1)])).startswith("There is no ratio")


def test_the_geometric_mean_and_its_interval_by_hand():
    mean, low, high = geometric_mean(pd.Series([2.0, 8.0]))
    assert mean == pytest.approx(4)
    # Student's t with one degree of freedom: 12.706 standard errors, here log(2) each.
    assert (low, high) == pytest.approx((4 / 2**12.7062, 4 * 2**12.7062), rel=1e-3)
    assert np.isnan(geometric_mean(pd.Series([3.0]))[1:]).all()
    assert np.isnan(geometric_mean(pd.Series([], dtype=float))).all()


@pytest.mark.parametrize(
    ("steps", "enough"),
    [
        (range(0, 101, 10), True),
        (range(0, 101, 12), False),  # too few
        (range(51), False),  # nothing of the second half
        ([*range(10), 30, 55, 80], True),
        ([*range(10), 30, 56, 80], False),  # a gap of 26 of 100
        ([*range(200, 300)], False),
    ],
)
def test_a_long_range_needs_steps_all_over_it(steps, enough):
    assert covered(steps, 0, 100) == enough
