"""The bounds of Section 2 against what the maps do, and where they hold with equality."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from revlib import orders
from revlib.iterates import iterates
from revlib.theory import contractions, gradient_steps
from revlib.theory.near_minimum import LogisticRegression
from revlib.training.maps import Affine

FAMILIES = [contractions.similarities, contractions.affine, contractions.tanh]


def backward(maps, start):
    """Return the backward iterates 0 to N by the definition."""
    return np.array([theta for _, theta in iterates(maps, start, orders.backward())])


def family(make, k, steps=60, d=4, seed=0):
    generator = np.random.default_rng(seed)
    return make(np.full(steps, k), generator.normal(size=(steps, d)), generator)


# Theorem 2.2


@pytest.mark.parametrize("k", [0.0, 0.3, 0.9, 0.999])
def test_bound_is_attained_by_equal_steps_in_one_direction(k):
    """From 0 the maps k theta + D go to D/(1 - k), and at step n there is D k^n/(1 - k) left."""
    largest, steps = 3.0, 20
    path = backward([Affine(k, largest)] * steps, 0.0)
    left = largest / (1 - k) - path
    n = np.arange(steps + 1)
    np.testing.assert_allclose(contractions.bound(k, largest, n), left, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("k", [1.0, 1.5, -0.1, np.nan])
def test_no_bound_without_a_contraction(k):
    with pytest.raises(ValueError, match="0 <= k < 1"):
        contractions.bound(k, 1.0, 3)


@given(seed=st.integers(0, 10_000), steps=st.integers(1, 12))
def test_cauchy_bound_is_attained_in_one_direction(seed, steps):
    """With positive slopes and shifts every step adds up: the sum is the distance itself."""
    generator = np.random.default_rng(seed)
    slopes, shifts = generator.uniform(0, 2, steps), generator.uniform(0, 5, steps)
    path = backward([Affine(k, b) for k, b in zip(slopes, shifts, strict=True)], 0.0)
    expected = contractions.cauchy_bound(slopes, shifts)
    np.testing.assert_allclose(expected, path[-1] - path, rtol=1e-9, atol=1e-9)


def test_cauchy_bound_with_a_common_constant_is_below_the_theorem():
    k, largest, steps = 0.8, 2.0, 30
    n = np.arange(steps + 1)
    general = contractions.cauchy_bound(np.full(steps, k), np.full(steps, largest))
    simple = contractions.bound(k, largest, n)
    # m - n terms remain of the geometric series; with one more or less this would differ by k^N D.
    np.testing.assert_allclose(general, simple - contractions.bound(k, largest, steps), atol=1e-13)


@pytest.mark.parametrize("make", FAMILIES)
@pytest.mark.parametrize("k", [0.2, 0.7, 0.95])
def test_the_theorem_holds_from_any_start(make, k):
    maps = family(make, k)
    limits = []
    for start in (np.zeros(4), np.array([30.0, -20.0, 0.0, 5.0])):
        path = backward(maps, start)
        moved = contractions.displacements(maps, start)
        later = contractions.later_distance(path)
        slack = 1e-12 * (1 + moved.max())
        assert (later <= contractions.bound(k, moved.max(), np.arange(61)) + slack).all()
        assert (later <= contractions.cauchy_bound(np.full(60, k), moved) + slack).all()
        limits.append(path[-1])
    assert np.linalg.norm(limits[0] - limits[1]) <= k**60 * np.linalg.norm([30, 20, 0, 5]) + 1e-12


def test_displacements_and_later_distances():
    maps = [Affine(0.5, np.array([3.0, 4.0])), Affine(2.0, np.zeros(2))]
    np.testing.assert_allclose(contractions.displacements(maps, [0.0, 0.0]), [5.0, 0.0])
    np.testing.assert_allclose(contractions.displacements(maps, [0.0, 8.0])[1], 8.0)
    path = [[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]]
    np.testing.assert_allclose(contractions.later_distance(path), [5.0, np.sqrt(20), 0.0])


@pytest.mark.parametrize("d", [1, 2, 5])
def test_similarities_multiply_every_distance(d):
    generator = np.random.default_rng(0)
    constants = np.array([0.0, 0.5, 1.0, 1.7])
    maps = contractions.similarities(constants, generator.normal(size=(4, d)), generator)
    x, y = generator.normal(size=(2, d))
    for k, step in zip(constants, maps, strict=True):
        ratio = np.linalg.norm(step(x) - step(y)) / np.linalg.norm(x - y)
        assert ratio == pytest.approx(k, abs=1e-14)


@pytest.mark.parametrize("make", FAMILIES)
def test_families_have_the_constants_asked_for(make):
    """Close to zero along the leading direction the constant is attained."""
    generator = np.random.default_rng(1)
    constants = np.array([0.1, 0.9, 1.3])
    shifts = generator.normal(size=(3, 4))
    for k, b, step in zip(constants, shifts, make(constants, shifts, generator), strict=True):
        np.testing.assert_array_equal(step(np.zeros(4)), b)
        leading = np.linalg.svd(step.a)[2][0]
        pair = 1e-4 * np.array([leading, -leading])
        assert contractions.empirical_lipschitz(step, pair) == pytest.approx(k, rel=1e-6)
        spread = contractions.probes(60, 4, generator)
        assert contractions.empirical_lipschitz(step, spread) <= k * (1 + 1e-9)


def test_tanh_is_what_it_is_called():
    step = contractions.Tanh(np.array([[0.0, 2.0], [1.0, 0.0]]), np.array([1.0, -1.0]))
    np.testing.assert_allclose(step(np.array([50.0, 0.5])), [1 + 2 * np.tanh(0.5), 0.0])


def test_empirical_lipschitz_takes_the_largest_ratio_over_all_pairs():
    points = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    step = Affine(np.diag([3.0, 0.5]), np.ones(2))
    assert contractions.empirical_lipschitz(step, points) == pytest.approx(3.0)
    assert contractions.empirical_lipschitz(step, points[::2]) == pytest.approx(0.5)
    assert contractions.empirical_lipschitz(step, points[1:]) == pytest.approx(np.sqrt(9.25 / 2))


# Lemma 2.5


@given(m=st.floats(0.01, 1), ratio=st.floats(1, 50), h=st.floats(0, 3))
def test_the_lemma_is_an_equality_for_a_swirl(m, ratio, h):
    M = m * ratio
    field = gradient_steps.swirl(m, M)
    x = np.array([0.6, -0.8])
    assert x @ field @ x == pytest.approx(m, rel=1e-9)
    assert np.linalg.norm(field @ x) == pytest.approx(M, rel=1e-9)
    exact = np.linalg.norm(np.eye(2) - h * field, 2)
    # Both are a root: near zero an error of 1e-16 M² under it comes out as 1e-8 M.
    bound = gradient_steps.gradient_step_bound(h, m, M)
    assert exact == pytest.approx(bound, rel=1e-9, abs=1e-6 * (1 + h * M))


@given(m=st.floats(0, 1), ratio=st.floats(1, 50), h=st.floats(0, 3), seed=st.integers(0, 1000))
def test_the_sharp_constant_is_exact_for_quadratics_and_below_the_lemma(m, ratio, h, seed):
    M = max(m, 0.01) * ratio
    generator = np.random.default_rng(seed)
    turn = np.linalg.qr(generator.normal(size=(4, 4)))[0]
    hessian = turn @ np.diag([m, M, *generator.uniform(m, M, 2)]) @ turn.T
    exact = np.linalg.norm(np.eye(4) - h * hessian, 2)
    sharp = gradient_steps.gradient_step_constant(h, m, M)
    assert exact == pytest.approx(sharp, rel=1e-9, abs=1e-9)
    assert sharp <= gradient_steps.gradient_step_bound(h, m, M) + 1e-6


@given(m=st.floats(0.01, 1), ratio=st.floats(1.01, 50))
def test_limits_are_where_the_constants_pass_one(m, ratio):
    M = m * ratio
    for limit, constant in (
        (gradient_steps.bound_limit(m, M), gradient_steps.gradient_step_bound),
        (gradient_steps.sharp_limit(M), gradient_steps.gradient_step_constant),
    ):
        assert constant(limit, m, M) == pytest.approx(1, abs=1e-6)
        assert constant(0.99 * limit, m, M) < 1 < constant(1.01 * limit, m, M)


@pytest.mark.parametrize(
    "formula",
    [
        lambda m, M: gradient_steps.gradient_step_bound(0.1, m, M),
        lambda m, M: gradient_steps.gradient_step_constant(0.1, m, M),
        gradient_steps.bound_limit,
        gradient_steps.swirl,
    ],
)
def test_m_is_not_above_M(formula):
    with pytest.raises(ValueError, match="cannot be larger"):
        formula(2.0, 1.0)


def losses():
    """Return each gradient whose constants are known, with the loss that it should belong to."""
    generator = np.random.default_rng(0)
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    inputs, targets = generator.normal(size=(8, 3)), generator.normal(size=8)
    labels = np.sign(targets)
    few = inputs[:2], targets[:2]
    return {
        "least squares": (
            gradient_steps.Quadratic.least_squares(inputs, targets),
            lambda t: np.sum((inputs @ t - targets) ** 2) / 16,
        ),
        "least squares, few examples": (
            gradient_steps.Quadratic.least_squares(*few),
            lambda t: np.sum((few[0] @ t - few[1]) ** 2) / 4,
        ),
        "log cosh": (
            gradient_steps.LogCosh(0.5, 3.0, turn),
            lambda t: 0.25 * t @ t + 2.5 * np.log(np.cosh(turn @ t)).sum(),
        ),
        "logistic": (
            LogisticRegression(inputs, labels > 0, 0.2),
            lambda t: np.log1p(np.exp(-labels * (inputs @ t))).mean() + 0.1 * t @ t,
        ),
    }


@pytest.mark.parametrize("name", losses())
def test_gradients_are_those_of_the_losses(name):
    known, loss = losses()[name]
    gradient = getattr(known, "gradient", known)
    theta, step = np.array([0.3, -1.2, 0.7]), 1e-5
    differences = [
        (loss(theta + step * e) - loss(theta - step * e)) / (2 * step) for e in np.eye(3)
    ]
    np.testing.assert_allclose(gradient(theta), differences, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", losses())
@pytest.mark.parametrize("h", [0.05, 0.3, 0.9])
def test_constants_are_bounds_and_both_are_approached(name, h):
    """At zero the Hessian reaches M, far from it in most directions m."""
    known, _ = losses()[name]
    gradient, (m, M) = getattr(known, "gradient", known), known.constants
    step = gradient_steps.GradientStep(h, gradient)
    sharp = gradient_steps.gradient_step_constant(h, m, M)
    points = contractions.probes(100, 3, np.random.default_rng(1))
    assert contractions.empirical_lipschitz(step, points) <= sharp * (1 + 1e-9)
    for at, reached in ((np.zeros(3), M), (1e6 * np.array([0.5, -0.7, 0.4]), m)):
        slope = np.array([gradient(at + 1e-4 * e) - gradient(at - 1e-4 * e) for e in np.eye(3)])
        eigenvalues = np.linalg.eigvalsh((slope + slope.T) / 4e-4)
        assert np.abs(eigenvalues - reached).min() < 1e-5


def test_probes_cover_four_decades():
    points = contractions.probes(1000, 3, np.random.default_rng(0))
    sizes = np.log10(np.linalg.norm(points, axis=1))
    assert points.shape == (1000, 3)
    assert -2 <= sizes.min() < -1.9
    assert 1.9 < sizes.max() <= 2
