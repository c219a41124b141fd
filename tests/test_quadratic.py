"""The closed forms of Section 3.1 against the definition and against exact linear algebra."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from revlib import orders
from revlib.iterates import iterates
from revlib.theory import quadratic
from revlib.training.maps import noisy_quadratic

CONTRACTING = (0.01, 0.1, 0.5, 1.0, 1.5, 1.99)
EVERY = (*CONTRACTING, 0.0, 2.0, 2.3, -0.2)
ORDERS = {
    "forward": (orders.forward(), quadratic.forward_iterates),
    "backward": (orders.backward(), quadratic.backward_iterates),
}


def define(order, h, noise, theta0):
    """Return all iterates by the definition."""
    return np.array([state for _, state in iterates(noisy_quadratic(h, noise), theta0, order)])


def response(order, h, steps):
    """Return the matrix that takes the noise to all iterates, from the definition.

    The iterates from 0 are linear in the noise; column j is what a noise of 1 at step j does. For
    independent noise of variance 1 the covariance of the iterates is this matrix times its
    transpose, exactly.
    """
    return define(order, h, np.eye(steps), np.zeros(steps))


@pytest.mark.parametrize("name", ORDERS)
@given(
    h=st.floats(-0.5, 2.5),
    noise=hnp.arrays(float, st.integers(0, 40), elements=st.floats(-10, 10)),
    theta0=st.floats(-10, 10),
)
def test_closed_form_is_the_definition(name, h, noise, theta0):
    order, closed = ORDERS[name]
    expected = define(order, h, noise, theta0)
    scale = 20 * max(1, abs(1 - h)) ** len(noise) * (len(noise) + 1)
    np.testing.assert_allclose(closed(h, noise, theta0), expected, rtol=0, atol=1e-14 * scale)


@pytest.mark.parametrize("name", ORDERS)
def test_realisations_are_independent_columns(name):
    closed = ORDERS[name][1]
    generator = np.random.default_rng(0)
    noise, theta0 = generator.normal(size=(30, 4, 3)), generator.normal(size=(4, 3))
    together = closed(0.3, noise, theta0)
    assert together.shape == (31, 4, 3)
    for i, j in np.ndindex(4, 3):
        alone = closed(0.3, noise[:, i, j], theta0[i, j])
        np.testing.assert_allclose(together[:, i, j], alone, rtol=1e-13, atol=1e-14)


def test_orders_agree_on_the_first_step_and_on_palindromes():
    noise = np.array([1.0, -2.0, 0.5, -2.0, 1.0])
    forward = quadratic.forward_iterates(0.3, noise, 2.0)
    backward = quadratic.backward_iterates(0.3, noise, 2.0)
    np.testing.assert_allclose(forward[[0, 1, 5]], backward[[0, 1, 5]], rtol=1e-14)
    assert abs(forward[3] - backward[3]) > 0.05


@pytest.mark.parametrize("h", EVERY)
@pytest.mark.parametrize("name", ORDERS)
def test_variance_is_exact_for_both_orders(name, h):
    matrix = response(ORDERS[name][0], h, 40)
    expected = np.sum(matrix**2, axis=1)
    actual = quadratic.variance(h, np.arange(41))
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("h", EVERY)
def test_variance_of_a_change_is_exact(h):
    n = np.arange(40)
    for name, formula in (
        ("forward", quadratic.forward_change_variance),
        ("backward", quadratic.backward_change_variance),
    ):
        changes = np.diff(response(ORDERS[name][0], h, 40), axis=0)
        expected = np.sum(changes**2, axis=1)
        np.testing.assert_allclose(formula(h, n, 1.5), 1.5**2 * expected, rtol=1e-9, atol=1e-20)


@pytest.mark.parametrize("h", CONTRACTING)
def test_remaining_variance_is_exact(h):
    """After 2000 steps nothing is left to come at these h, to double precision."""
    weights = response(orders.forward(), h, 2000)[-1, ::-1]  # the last backward row, cheaply
    expected = np.cumsum((weights**2)[::-1])[::-1]
    n = np.arange(30)
    np.testing.assert_allclose(
        quadratic.remaining_variance(h, n, 0.7), 0.7**2 * expected[n], rtol=1e-9, atol=1e-25
    )


@given(h=st.floats(1e-3, 1.999), n=st.integers(0, 5000), sigma=st.floats(0.01, 100))
def test_what_is_there_and_what_is_to_come_make_the_stationary_variance(h, n, sigma):
    total = quadratic.variance(h, n, sigma) + quadratic.remaining_variance(h, n, sigma)
    assert total == pytest.approx(quadratic.stationary_variance(h, sigma), rel=1e-9)


@given(h=st.floats(1e-3, 1.999), sigma=st.floats(0.01, 100))
def test_stationary_variance_is_kept_by_one_more_step(h, sigma):
    v = quadratic.stationary_variance(h, sigma)
    assert (1 - h) ** 2 * v + h**2 * sigma**2 == pytest.approx(v, rel=1e-12)


@pytest.mark.parametrize("name", ORDERS)
def test_mean_and_variance_of_many_samples(name):
    h, sigma, theta0, n, size = 0.2, 1.5, 3.0, 12, 20_000
    noise = np.random.default_rng(1).normal(scale=sigma, size=(n, size))
    last = ORDERS[name][1](h, noise, theta0)[-1]
    variance = quadratic.variance(h, n, sigma)
    # Four standard errors: of the mean, and of the variance of normal samples.
    assert last.mean() == pytest.approx(
        quadratic.mean(h, n, theta0), abs=4 * np.sqrt(variance / size)
    )
    assert last.var() == pytest.approx(variance, rel=4 * np.sqrt(2 / size))


def test_formulas_broadcast():
    h, n = np.array([[0.5], [2.0]]), np.arange(4)
    for formula in (
        quadratic.variance,
        quadratic.forward_change_variance,
        quadratic.backward_change_variance,
    ):
        values = formula(h, n)
        assert values.shape == (2, 4)
        assert values[1, 3] == formula(2.0, 3)
    assert quadratic.mean(h, n, 1.0).shape == (2, 4)
    assert quadratic.remaining_variance(h[:1], n).shape == (1, 4)
    np.testing.assert_allclose(quadratic.stationary_variance([0.5, 1.0]), [1 / 3, 1.0])


@pytest.mark.parametrize("h", [0.0, -0.1, 2.0, 2.5, np.nan, [0.5, 3.0]])
def test_no_limit_outside_the_contraction(h):
    with pytest.raises(ValueError, match="0 < h < 2"):
        quadratic.stationary_variance(h)
    with pytest.raises(ValueError, match="0 < h < 2"):
        quadratic.remaining_variance(h, 3)


@pytest.mark.parametrize("name", ORDERS)
def test_noise_has_an_entry_per_step(name):
    with pytest.raises(ValueError, match="one entry per step"):
        ORDERS[name][1](0.1, 1.0)
