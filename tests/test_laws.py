"""The two-sample tests: their formula, their level under the null hypothesis, and their power.

Everything is seeded. The bounds of the tests of level are such that a correct test, at seeds drawn
at random, would overstep each of them less than once in 1000 times.
"""

import itertools

import numpy as np
import pytest
import scipy.stats

from revlib import figures
from revlib.theory import laws


def by_double_loop(x, y):
    """Return the energy distance by its definition, one pair of observations at a time."""

    def mean(first, second):
        return np.mean([np.linalg.norm(a - b) for a in first for b in second])

    return np.sqrt(2 * mean(x, y) - mean(x, x) - mean(y, y))


@pytest.mark.parametrize(("n", "m", "d"), [(7, 5, 1), (4, 9, 2), (6, 6, 5)])
def test_energy_distance_is_its_definition(n, m, d):
    generator = np.random.default_rng(d)
    x, y = generator.normal(size=(n, d)), 2 * generator.normal(size=(m, d)) + 1
    assert laws.energy_distance(x, y) == pytest.approx(by_double_loop(x, y), rel=1e-12)
    for paired in {False, n == m}:
        if d > 1 or paired:
            found = laws.same_law(x, y, paired, resamples=10).statistic
            assert found == pytest.approx(by_double_loop(x, y), rel=1e-12)


def test_energy_distance_of_numbers_is_that_of_scipy():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=30), generator.exponential(size=20)
    expected = scipy.stats.energy_distance(x, y)
    assert laws.energy_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_energy_distance_of_known_samples():
    assert laws.energy_distance([[0, 0], [0, 0]], [[3, 4], [3, 4]]) == pytest.approx(10**0.5)
    x = np.random.default_rng(1).normal(size=(50, 3))
    assert laws.energy_distance(x, x[::-1]) == pytest.approx(0, abs=1e-7)  # a root of rounding


def test_numbers_are_compared_by_kolmogorov_and_smirnov():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=60), generator.normal(size=50)
    assert laws.same_law(x, y) == tuple(scipy.stats.ks_2samp(x, y))
    assert laws.same_law(x[:, None], y[:, None]) == laws.same_law(x, y)


@pytest.mark.parametrize("paired", [False, True])
def test_pvalue_of_all_relabellings_is_exact(paired):
    """Small samples, for which every relabelling can be tried by hand."""
    generator = np.random.default_rng(3)
    x, y = generator.normal(size=(5, 2)), generator.normal(size=(5, 2)) + 0.8
    both = np.concatenate([x, y])
    if paired:
        firsts = [np.arange(5) + 5 * np.array(s) for s in itertools.product([0, 1], repeat=5)]
    else:
        firsts = [np.array(chosen) for chosen in itertools.combinations(range(10), 5)]
    distances = [
        by_double_loop(both[first], both[np.setdiff1d(range(10), first)]) for first in firsts
    ]
    expected = np.mean(np.array(distances) >= by_double_loop(x, y) - 1e-12)
    assert laws.same_law(x, y, paired).pvalue == pytest.approx(expected, abs=1e-12)


def pvalues(draw, repeats=300, **options):
    """Return the p-values of repeated tests on fresh samples."""
    generator = np.random.default_rng(7)
    return np.array(
        [laws.same_law(*draw(generator), seed=i, **options).pvalue for i in range(repeats)]
    )


def independent(generator):
    mix = np.array([[1.0, 0.9], [0.0, 0.3]])
    return generator.exponential(size=(25, 2)) @ mix, generator.exponential(size=(30, 2)) @ mix


def numbers(generator):
    # Sizes without a common divisor: then the distance takes many values, and so does p.
    return generator.exponential(size=50), generator.exponential(size=51)


def exchangeable(generator):
    """Return pairs that depend on each other, and whose law stays when they are swapped."""
    common = 3 * generator.normal(size=(25, 2))
    return common + generator.normal(size=(25, 2)), common + generator.normal(size=(25, 2))


@pytest.mark.parametrize(
    ("draw", "paired"), [(numbers, False), (independent, False), (exchangeable, True)]
)
def test_pvalues_are_uniform_under_the_null(draw, paired):
    found = pvalues(draw, paired=paired, resamples=199)
    # By Dvoretzky, Kiefer and Wolfowitz the empirical distribution function of 300 uniform numbers
    # is off by more than 0.113 with probability below 1/1000; p has steps of 1/200 on top.
    off = scipy.stats.kstest(found, "uniform").statistic
    assert off < np.sqrt(np.log(2 / 0.001) / (2 * 300)) + 1 / 200
    # At most binomial(300, 0.05): more than 28 has probability below 1/1000.
    assert np.sum(found <= 0.05) <= scipy.stats.binom.isf(0.001, 300, 0.05)


def test_pairs_that_depend_need_the_paired_test():
    """What goes wrong otherwise: dependent samples look alike, and p is far too large."""
    found = pvalues(exchangeable, repeats=100, resamples=99)
    assert np.mean(found) > 0.7


@pytest.mark.parametrize("paired", [False, True])
def test_differences_that_only_the_joint_law_shows_are_found(paired):
    """Equal means and marginals, opposite correlation."""
    generator = np.random.default_rng(5)
    x, y = generator.normal(size=(2, 150, 2))
    x[:, 1] = x[:, 0] + 0.5 * x[:, 1]
    y[:, 1] = -y[:, 0] + 0.5 * y[:, 1]
    assert laws.same_law(x, y, paired).pvalue == 1 / 1000


def test_a_small_shift_is_found_in_pairs():
    generator = np.random.default_rng(6)
    common = 3 * generator.normal(size=100)
    x, y = common + 0.1 * generator.normal(size=(2, 100))
    assert laws.same_law(x, y + 0.2, paired=True).pvalue < 0.01
    assert laws.same_law(x, y + 0.2).pvalue > 0.5


@pytest.mark.parametrize(
    ("x", "y", "paired", "message"),
    [
        ([1.0, 2.0], [1.0, 2.0, 3.0], True, "equally many rows"),
        ([[1.0, 2.0]] * 3, [1.0, 2.0, 3.0], False, "of the same length"),
        (np.zeros((2, 2, 2)), np.zeros((2, 2, 2)), False, "one row for each observation"),
        ([1.0], [1.0, 2.0], False, "at least two observations"),
        ([1.0, np.nan], [1.0, 2.0], False, "not finite"),
    ],
)
def test_samples_that_do_not_fit_are_refused(x, y, paired, message):
    with pytest.raises(ValueError, match=message):
        laws.same_law(x, y, paired)


def test_distribution_functions_are_drawn_as_shares_of_runs():
    samples = {"backward": np.array([3.0, 1.0, 2.0, 2.0]), "forward": np.array([1.0, 10.0])}
    figure = figures.distributions({"level": samples, "change": samples}, log=["change"])
    level, change = figure.axes
    assert [level.get_title(), change.get_title()] == ["level", "change"]
    assert [level.get_xscale(), change.get_xscale()] == ["linear", "log"]
    lines = {line.get_label(): line for line in level.lines}
    assert list(lines) == ["forward", "backward"]
    x, shares = lines["backward"].get_data()
    assert [shares[x <= value].max() for value in (1, 2, 3)] == [0.25, 0.75, 1.0]


def test_points_have_a_panel_each_and_the_look_of_their_order():
    clouds = {f"panel {i}": np.full((4, 2), float(i)) for i in range(3)}
    styles = {"panel 0": "forward", "panel 1": "forward", "panel 2": "backward"}
    axes = figures.points(clouds, "x", "y", styles).axes
    assert [ax.get_title() for ax in axes] == list(clouds)
    drawn = [ax.lines[0] for ax in axes]
    assert [line.get_marker() for line in drawn] == ["o", "o", "s"]
    assert drawn[0].get_color() == drawn[1].get_color() != drawn[2].get_color()
    np.testing.assert_array_equal(drawn[2].get_xydata(), clouds["panel 2"])
    (only,) = figures.points({"forward": np.zeros((2, 2))}, "x", "y").axes
    assert only.get_xlabel() == "x"
