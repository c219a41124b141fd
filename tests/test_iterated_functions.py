"""Iterated function systems against what is known of them, coupling against exact laws."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import stats

from revlib import figures, orders
from revlib.iterates import iterates
from revlib.theory import iterated_functions as ifs
from revlib.theory.quadratic import stationary_variance

FALSE_ALARM = 1e-4  # of each statistical test here, had its seed not been fixed

SYSTEMS = {
    "fern": ifs.barnsley_fern(),
    "triangle": ifs.sierpinski_triangle(),
    "coin": ifs.bernoulli_convolution(0.7),
}
every_system = pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS)


def path(system, drawn, order, theta0):
    return np.array([theta for _, theta in iterates(system.maps(drawn), theta0, order)])


def test_factors_of_the_fern():
    """A matrix ((a, b), (c, d)) has the squared singular values (s ± sqrt(s² - 4 det²)) / 2."""
    system = ifs.barnsley_fern()
    for matrix, factor in zip(system.matrices, system.factors, strict=True):
        s, det = (matrix**2).sum(), np.linalg.det(matrix)
        assert factor == pytest.approx(math.sqrt((s + math.sqrt(s**2 - 4 * det**2)) / 2), rel=1e-12)
    assert system.factors.max() < 1


def test_places_of_the_fern():
    """Its tip is the fixed point of the second map; the others place a foot and two frond tips."""
    tip = np.array([2.6556, 9.9585])
    stem, lift, left, right = ifs.barnsley_fern().maps(range(4))
    np.testing.assert_allclose(lift(tip), tip, atol=1e-3)
    np.testing.assert_allclose(stem(tip), [0.0, 1.5934], atol=1e-3)
    np.testing.assert_allclose(left(tip), [-2.0581, 4.4017], atol=1e-3)
    np.testing.assert_allclose(right(tip), [2.3900, 3.5205], atol=1e-3)


def test_log_rate_is_the_mean_logarithm():
    system = ifs.IFS([[[2.0]], [[0.25]]], [[1.0], [0.0]], [0.25, 0.75])
    assert system.log_rate == pytest.approx(0.25 * math.log(2) - 0.75 * math.log(4), rel=1e-12)
    assert ifs.sierpinski_triangle().log_rate == pytest.approx(math.log(0.5), rel=1e-12)
    constant = ifs.IFS(np.zeros((2, 1, 1)), [[-1.0], [1.0]], [0.5, 0.5])
    assert constant.log_rate == -math.inf


def test_backward_iterates_converge_where_maps_contract_on_average_only():
    system = ifs.IFS([[[2.0]], [[0.25]]], [[1.0], [-1.0]], [0.25, 0.75])
    drawn = system.draw(np.random.default_rng(0), 200)
    backward = path(system, drawn, orders.backward(), np.zeros(1))[:, 0]
    forward = path(system, drawn, orders.forward(), np.zeros(1))[:, 0]
    assert np.ptp(backward[100:]) < 1e-12
    assert np.ptp(forward[100:]) > 1


@every_system
def test_maps_are_those_drawn(system):
    theta = np.full(system.shifts.shape[1], 0.3)
    drawn = [1, 0, 1]
    for i, update in zip(drawn, system.maps(drawn), strict=True):
        np.testing.assert_array_equal(update(theta), system.matrices[i] @ theta + system.shifts[i])


@every_system
def test_draws_have_the_given_probabilities(system):
    drawn = system.draw(np.random.default_rng(1), 20_000)
    counts = np.bincount(drawn, minlength=len(system.probabilities))
    assert stats.chisquare(counts, 20_000 * system.probabilities).pvalue > FALSE_ALARM


@every_system
def test_bound_holds_for_backward_iterates(system):
    drawn = system.draw(np.random.default_rng(2), 60)
    theta0 = np.full(system.shifts.shape[1], 2.5)
    changes = np.linalg.norm(
        np.diff(path(system, drawn, orders.backward(), theta0), axis=0), axis=1
    )
    bound = system.bound(drawn, theta0)
    assert bound.shape == (60,)
    assert (changes <= bound * (1 + 1e-9) + 1e-14).all()
    assert bound[0] == pytest.approx(changes[0], rel=1e-12)


@pytest.mark.parametrize("name", ["triangle", "coin"])
def test_similarities_attain_the_bound(name):
    system = SYSTEMS[name]
    drawn = system.draw(np.random.default_rng(3), 30)
    theta0 = np.full(system.shifts.shape[1], 2.5)
    changes = np.diff(path(system, drawn, orders.backward(), theta0), axis=0)
    np.testing.assert_allclose(
        np.linalg.norm(changes, axis=1), system.bound(drawn, theta0), rtol=1e-5
    )


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_sample_has_the_exact_mean_at_every_step(steps):
    """The mean m(n) of the iterates solves m(n) = E[A] m(n - 1) + E[b]."""
    system, size = ifs.barnsley_fern(), 20_000
    mean = np.zeros(2)
    for _ in range(steps):
        mean = np.einsum("m,mi->i", system.probabilities, system.matrices @ mean + system.shifts)
    sample = system.sample(size, steps, np.random.default_rng(4))
    assert sample.shape == (size, 2)
    error = sample.std(axis=0) / np.sqrt(size)
    limit = stats.norm.isf(FALSE_ALARM / 4)
    assert (np.abs(sample.mean(axis=0) - mean) <= limit * error + 1e-12).all()


def test_sierpinski_leaves_the_middle_triangle_empty():
    """In barycentric coordinates one of the three is at least a half, on the whole attractor."""
    sample = ifs.sierpinski_triangle().sample(2000, 50, np.random.default_rng(5))
    top = sample[:, 1] / np.sqrt(0.75)
    right = sample[:, 0] - top / 2
    weights = np.stack([top, right, 1 - top - right])
    assert weights.min() > -1e-12
    assert weights.max(axis=0).min() >= 0.5 - 1e-12


def test_bernoulli_convolution_of_one_half_is_uniform():
    sample = ifs.bernoulli_convolution(0.5).sample(5000, 50, np.random.default_rng(6))[:, 0]
    assert stats.kstest(sample, "uniform", args=(-1, 2)).pvalue > FALSE_ALARM


@pytest.mark.parametrize("ratio", [1 / 3, 0.618, 0.9])
def test_bernoulli_convolution_has_the_stationary_variance_of_section_3_1(ratio):
    system, size = ifs.bernoulli_convolution(ratio), 20_000
    sample = system.sample(size, 150, np.random.default_rng(7))[:, 0]
    squares = sample**2  # the mean is zero
    limit = stats.norm.isf(FALSE_ALARM / 2) * squares.std() / np.sqrt(size)
    assert squares.mean() == pytest.approx(stationary_variance(1 - ratio), abs=limit)


def test_bernoulli_convolution_of_one_third_is_the_cantor_set():
    sample = ifs.bernoulli_convolution(1 / 3).sample(2000, 40, np.random.default_rng(8))[:, 0]
    assert np.abs(sample).min() >= 1 / 3 - 1e-12
    assert np.abs(sample).max() <= 1 + 1e-12


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 1.2])
def test_ratio_lies_between_0_and_1(ratio):
    with pytest.raises(ValueError, match="between 0 and 1"):
        ifs.bernoulli_convolution(ratio)


@pytest.mark.parametrize(
    ("matrices", "shifts", "probabilities", "message"),
    [
        ([[0.5]], [[1.0]], [1.0], "need matrices of the shape"),
        ([[[0.5]]], [[1.0]], [0.9], "probabilities of sum 1"),
        ([[[0.5]]] * 2, [[1.0]] * 2, [1.0, 0.0], "positive probabilities"),
        ([[[0.5]]] * 2, [[1.0]] * 2, [1.0], "2 maps need as many"),
    ],
)
def test_what_does_not_fit_is_refused(matrices, shifts, probabilities, message):
    with pytest.raises(ValueError, match=message):
        ifs.IFS(matrices, shifts, probabilities)


def test_plane_shows_every_iterate_and_marks_the_ends():
    system = ifs.sierpinski_triangle()
    generator = np.random.default_rng(13)
    cloud, start = system.sample(50, 40, generator), np.zeros(2)
    drawn = [system.draw(generator, 20) for _ in range(3)]
    forward = path(system, drawn[0], orders.forward(), start)
    backward = [path(system, d, orders.backward(), start) for d in drawn]
    left, right = figures.plane(cloud, forward, backward).axes
    np.testing.assert_array_equal(left.lines[0].get_xydata(), forward)
    for line, expected in zip(right.lines, backward, strict=True):
        np.testing.assert_array_equal(line.get_xydata(), expected)
    assert len({line.get_marker() for line in right.lines}) == 3
    stars = np.concatenate([points.get_offsets() for points in right.collections[1:]])
    np.testing.assert_array_equal(stars, [b[-1] for b in backward])
    plt.close("all")


# ---- chains on finitely many states -------------------------------------------------------------

GENERAL = np.array([[0.1, 0.6, 0.3], [0.5, 0.0, 0.5], [0.25, 0.25, 0.5]])


@pytest.mark.parametrize("up", [0.3, 0.5, 0.8])
def test_stationary_law_of_the_walk_is_geometric(up):
    walk = ifs.reflected_walk(5, up)
    np.testing.assert_allclose(walk.sum(axis=1), 1)
    weights = (up / (1 - up)) ** np.arange(5)
    np.testing.assert_allclose(ifs.stationary_law(walk), weights / weights.sum(), rtol=1e-12)


def test_random_map_moves_each_state_by_its_own_row():
    grid = (np.arange(10_000) + 0.5) / 10_000  # each row's intervals are multiples of 1/10000
    moved = np.array([ifs.random_map(GENERAL, u) for u in grid])
    frequencies = (moved[:, :, None] == np.arange(3)).mean(axis=0)
    np.testing.assert_allclose(frequencies, GENERAL, atol=1e-12)


def test_random_map_never_takes_an_impossible_step():
    """A uniform number may be exactly 0 or exactly a sum of probabilities."""
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_array_equal(ifs.random_map(swap, 0.0), [1, 0])
    np.testing.assert_array_equal(ifs.random_map(GENERAL, 0.5)[1:], [2, 2])


def test_random_map_stays_inside_when_a_row_rounds_to_less_than_one():
    thirds = np.full((3, 3), 1 / 3 - 1e-15)
    assert ifs.random_map(thirds, np.nextafter(1, 0)).max() == 2


class Script:
    """Uniform numbers that are known beforehand."""

    def __init__(self, numbers):
        self.numbers = iter(numbers)

    def random(self):
        return next(self.numbers)


@pytest.mark.parametrize(
    ("couple", "order"),
    [
        (ifs.coupling_from_the_past, orders.backward()),
        (ifs.forward_coupling, orders.forward()),
    ],
)
def test_couplings_are_the_iterates_of_their_order_from_all_states(couple, order):
    walk = ifs.reflected_walk(4, 0.6)
    numbers = np.random.default_rng(9).random(200)
    maps = [lambda state, u=u: ifs.random_map(walk, u)[state] for u in numbers]
    state, steps = couple(walk, Script(numbers))
    for start in range(4):
        values = [theta for _, theta in iterates(maps, start, order, range(200))]
        assert values[steps] == state
        if order.name == "backward":
            assert set(values[steps:]) == {state}  # it has reached its limit
        else:
            assert set(values[steps:]) == {0, 1, 2, 3}
    before = [next(iterates(maps, start, order, [steps - 1]))[1] for start in range(4)]
    assert len(set(before)) > 1


@pytest.mark.parametrize("chain", [GENERAL, ifs.reflected_walk(5, 0.6)], ids=["general", "walk"])
def test_coupling_from_the_past_draws_from_the_stationary_law(chain):
    generator = np.random.default_rng(10)
    states = [ifs.coupling_from_the_past(chain, generator)[0] for _ in range(2000)]
    counts = np.bincount(states, minlength=len(chain))
    assert stats.chisquare(counts, 2000 * ifs.stationary_law(chain)).pvalue > FALSE_ALARM


def test_forward_coupling_of_the_walk_meets_only_at_the_ends():
    """All of 0 … 4 move the same way unless held back at an end, so they can meet only there."""
    generator, walk = np.random.default_rng(11), ifs.reflected_walk(5, 0.6)
    assert {ifs.forward_coupling(walk, generator)[0] for _ in range(200)} == {0, 4}


def test_starts_that_never_agree_are_told():
    swap = np.array([[0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(RuntimeError, match="After 50 maps the starts still do not agree"):
        ifs.coupling_from_the_past(swap, np.random.default_rng(12), limit=50)
