"""Section 3.2: the linear picture against the definition, the convex problem against torch."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from revlib import figures, orders
from revlib.iterates import iterates
from revlib.store import datasets
from revlib.theory import near_minimum, quadratic
from revlib.training.maps import Affine

ORDERS = {
    "forward": (orders.forward(), near_minimum.forward_iterates, quadratic.forward_iterates),
    "backward": (orders.backward(), near_minimum.backward_iterates, quadratic.backward_iterates),
}


def symmetric(generator, size, low=0.2, high=3.0):
    """Return a random symmetric matrix with eigenvalues between `low` and `high`."""
    basis = np.linalg.qr(generator.normal(size=(size, size)))[0]
    return basis @ np.diag(generator.uniform(low, high, size=size)) @ basis.T


@pytest.fixture(scope="module")
def problem():
    generator = np.random.default_rng(3)
    x = np.column_stack([np.ones(40), generator.normal(size=(40, 3)) * (2.0, 1.0, 0.5)])
    y = (x @ (0.3, 1.0, -2.0, 0.5) + generator.logistic(size=40) > 0).astype(float)
    return near_minimum.LogisticRegression(x, y, ridge=0.1)


@pytest.fixture(scope="module")
def minimum(problem):
    return problem.minimiser()


def torch_loss(problem, theta, rows=slice(None)):
    """Return the loss, written down once more, as torch differentiates it."""
    x, y = torch.tensor(problem.x)[rows], torch.tensor(problem.y)[rows]
    losses = torch.nn.functional.binary_cross_entropy_with_logits(x @ theta, y)
    return losses + problem.ridge / 2 * theta @ theta


# The closed forms


@pytest.mark.parametrize("name", ORDERS)
@settings(max_examples=30, deadline=None)
@given(h=st.floats(-0.3, 1.2), steps=st.integers(0, 15), size=st.integers(1, 4))
def test_closed_form_is_the_definition(name, h, steps, size):
    generator = np.random.default_rng(steps)
    hessian = symmetric(generator, size, low=-0.5)
    noise, minimum, theta0 = (generator.normal(size=s) for s in ((steps, size), size, size))
    order, closed, _ = ORDERS[name]
    pull = np.eye(size) - h * hessian
    maps = [Affine(pull, minimum - pull @ minimum + h * eps) for eps in noise]
    defined = [theta for _, theta in iterates(maps, theta0, order)]
    actual = closed(h, hessian, noise, minimum, theta0)
    np.testing.assert_allclose(actual, defined, rtol=0, atol=1e-12 * max(1, np.abs(defined).max()))


@pytest.mark.parametrize("name", ORDERS)
def test_realisations_are_independent(name):
    generator = np.random.default_rng(0)
    hessian, noise = symmetric(generator, 2), generator.normal(size=(20, 3, 4, 2))
    minimum, theta0 = generator.normal(size=2), generator.normal(size=(3, 4, 2))
    closed = ORDERS[name][1]
    together = closed(0.3, hessian, noise, minimum, theta0)
    assert together.shape == (21, 3, 4, 2)
    for i, j in np.ndindex(3, 4):
        alone = closed(0.3, hessian, noise[:, i, j], minimum, theta0[i, j])
        np.testing.assert_allclose(together[:, i, j], alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ORDERS)
def test_in_one_dimension_it_is_the_noisy_quadratic(name):
    noise = np.random.default_rng(0).normal(size=(30, 5))
    _, closed, scalar = ORDERS[name]
    actual = closed(0.3, [[1.0]], noise[..., None], [0.0], [2.0])
    np.testing.assert_allclose(actual[..., 0], scalar(0.3, noise, 2.0), rtol=0, atol=1e-13)
    variance = near_minimum.stationary_covariance(0.3, [[1.0]], [[1.5**2]])
    assert variance == pytest.approx(quadratic.stationary_variance(0.3, 1.5))


@pytest.mark.parametrize("shape", [(), (7,), (5, 3)])
def test_noise_is_a_vector_per_step(shape):
    with pytest.raises(ValueError, match="one vector of 2 entries"):
        near_minimum.forward_iterates(0.1, np.eye(2), np.zeros(shape), np.zeros(2), np.zeros(2))


# The stationary covariance


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.99])
def test_stationary_covariance_is_the_infinite_sum_and_kept_by_one_more_step(share):
    generator = np.random.default_rng(1)
    hessian, noise = symmetric(generator, 4), symmetric(generator, 4)
    h = share * 2 / np.linalg.eigvalsh(hessian)[-1]
    sigma = near_minimum.stationary_covariance(h, hessian, noise)
    pull = np.eye(4) - h * hessian
    np.testing.assert_allclose(pull @ sigma @ pull + h**2 * noise, sigma, rtol=1e-10)
    total, term = np.zeros((4, 4)), h**2 * noise
    for _ in range(20_000):
        total, term = total + term, pull @ term @ pull
    np.testing.assert_allclose(sigma, total, rtol=1e-9)


@pytest.mark.parametrize("name", ORDERS)
def test_many_closed_form_iterates_have_the_stationary_covariance(name):
    generator = np.random.default_rng(2)
    hessian, covariance = symmetric(generator, 2), symmetric(generator, 2)
    chains, steps = 20_000, 60
    noise = generator.multivariate_normal(np.zeros(2), covariance, size=(steps, chains))
    last = ORDERS[name][1](0.3, hessian, noise, np.ones(2), np.ones(2))[-1]
    sigma = near_minimum.stationary_covariance(0.3, hessian, covariance)
    # Five standard errors of each entry, for normal samples: false alarm below 1e-5.
    error = np.sqrt((sigma**2 + np.outer(np.diag(sigma), np.diag(sigma))) / chains)
    assert (np.abs(np.cov(last.T) - sigma) < 5 * error).all()


@pytest.mark.parametrize(
    ("h", "curvatures"),
    [(0.0, (1, 2)), (1.0, (1, 2)), (-0.1, (1, 2)), (0.5, (0, 2)), (np.nan, (1, 2))],
)
def test_no_stationary_law_without_contraction(h, curvatures):
    with pytest.raises(ValueError, match="all curvatures are positive"):
        near_minimum.stationary_covariance(h, np.diag(curvatures), np.eye(2))


# The convex problem


def test_derivatives_are_those_of_torch(problem):
    theta = np.array([0.2, -1.0, 0.7, 1.5])
    point = torch.tensor(theta)

    def loss(t):
        return torch_loss(problem, t)

    assert problem.loss(theta) == pytest.approx(loss(point).item(), rel=1e-13)
    gradient = torch.func.grad(loss)(point)
    np.testing.assert_allclose(problem.gradient(theta), gradient, rtol=0, atol=1e-14)
    hessian = torch.func.hessian(loss)(point)
    np.testing.assert_allclose(problem.hessian(theta), hessian, rtol=0, atol=1e-13)
    matrix = symmetric(np.random.default_rng(0), 4)
    third = torch.func.jacfwd(torch.func.hessian(loss))(point).numpy()
    expected = np.einsum("abc,bc->a", third, matrix)
    np.testing.assert_allclose(problem.third(theta, matrix), expected, rtol=0, atol=1e-13)


def test_batch_gradients_of_many_chains(problem):
    generator = np.random.default_rng(0)
    theta, batch = generator.normal(size=(5, 4)), generator.integers(40, size=(5, 3))
    together = problem.gradient(theta, batch)
    for chain in range(5):
        rows = torch.tensor(batch[chain])

        def loss(t, rows=rows):
            return torch_loss(problem, t, rows)

        expected = torch.func.grad(loss)(torch.tensor(theta[chain]))
        np.testing.assert_allclose(together[chain], expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(
        problem.gradient(theta), [problem.gradient(t) for t in theta], rtol=0, atol=1e-14
    )
    assert problem.loss(theta).shape == (5,)


def test_noise_covariance_is_that_of_all_batches(problem):
    """With 40 examples there are 1600 ordered batches of two: all of them are drawn once."""
    theta = np.array([0.2, -1.0, 0.7, 1.5])
    batches = np.array(list(itertools.product(range(40), repeat=2)))
    gradients = problem.gradient(np.tile(theta, (1600, 1)), batches)
    np.testing.assert_allclose(gradients.mean(axis=0), problem.gradient(theta), atol=1e-14)
    expected = np.cov(gradients.T, bias=True)
    np.testing.assert_allclose(problem.noise_covariance(theta, 2), expected, atol=1e-14)
    np.testing.assert_allclose(
        problem.noise_covariance(theta, 8), problem.noise_covariance(theta, 2) / 4, rtol=1e-13
    )


def test_the_minimum_is_one(problem, minimum):
    np.testing.assert_allclose(problem.gradient(minimum), 0, atol=1e-9)
    assert np.linalg.eigvalsh(problem.hessian(minimum))[0] > problem.ridge


def test_separable_classes_have_no_minimum_without_a_penalty():
    x, y = np.array([[-1.0], [1.0]]), np.array([0.0, 1.0])
    with pytest.raises(RuntimeError, match="least curvature is"):
        near_minimum.LogisticRegression(x, y).minimiser()
    held = near_minimum.LogisticRegression(x, y, ridge=0.1)
    np.testing.assert_allclose(held.gradient(held.minimiser()), 0, atol=1e-9)


def test_a_step_is_sgd_and_its_linear_part_is_linear_maps(problem, minimum):
    generator = np.random.default_rng(0)
    batches = generator.integers(40, size=(1, 6, 3))
    theta = minimum + 1e-4 * generator.normal(size=(6, 4))
    (step,), (linear,) = (
        problem.maps(0.5, batches),
        near_minimum.linear_maps(0.5, problem, minimum, batches),
    )
    gradient = problem.gradient(theta, batches[0])
    np.testing.assert_allclose(step(theta), theta - 0.5 * gradient, rtol=0, atol=1e-15)
    # At the minimum the two agree exactly, and away from it in the mean over all batches.
    at = np.tile(minimum, (6, 1))
    np.testing.assert_allclose(step(at), linear(at), rtol=0, atol=1e-14)
    every = np.arange(40)[:, None]
    many = np.tile(theta[0], (40, 1))
    means = [
        maps[0](many).mean(axis=0)
        for maps in (
            problem.maps(0.5, every[None]),
            near_minimum.linear_maps(0.5, problem, minimum, every[None]),
        )
    ]
    moved = np.linalg.norm(means[1] - theta[0])
    np.testing.assert_allclose(*means, rtol=0, atol=1e-3 * moved)


@pytest.mark.parametrize("name", ORDERS)
def test_sgd_has_the_covariance_and_the_mean_that_theory_gives(problem, minimum, name):
    h, chains, size, steps = 0.1, 4000, 4, 600
    hessian = problem.hessian(minimum)
    sigma = near_minimum.stationary_covariance(h, hessian, problem.noise_covariance(minimum, size))
    batches = np.random.default_rng(5).integers(40, size=(steps, chains, size), dtype=np.int16)
    start = np.tile(minimum, (chains, 1))
    order = ORDERS[name][0]
    both = problem.maps(h, batches), near_minimum.linear_maps(h, problem, minimum, batches)
    sgd, linear = (dict(iterates(maps, start, order, [steps]))[steps] for maps in both)
    error = np.sqrt((sigma**2 + np.outer(np.diag(sigma), np.diag(sigma))) / chains)
    assert (np.abs(np.cov(linear.T) - sigma) < 5 * error).all()
    # Measured as a difference to the linear chains, whose mean is the minimum.
    shift = near_minimum.mean_shift(hessian, problem.third(minimum, sigma))
    apart, uncertain = near_minimum.norm_of_mean(sgd - linear - shift)
    assert apart < 3 * uncertain + 0.1 * np.linalg.norm(shift)
    assert uncertain < 0.2 * np.linalg.norm(shift)


def test_norm_of_mean_and_its_error():
    generator = np.random.default_rng(0)
    samples = 3.0 + generator.normal(size=(2000, 50, 2, 2))
    norms, errors = zip(*(near_minimum.norm_of_mean(s) for s in samples), strict=True)
    distances = np.square(samples.mean(axis=1) - 3.0).sum(axis=(1, 2))
    assert np.mean(np.square(errors)) == pytest.approx(4 / 50, rel=0.02)
    assert distances.mean() == pytest.approx(np.mean(np.square(errors)), rel=0.1)
    assert np.mean(norms) == pytest.approx(6.0, rel=0.01)


@pytest.mark.parametrize(
    ("x", "y"), [(np.ones((3, 2)), np.ones(2)), (np.ones(3), np.ones(3)), (np.ones((2, 1)), [0, 2])]
)
def test_examples_have_features_and_a_class(x, y):
    with pytest.raises(ValueError, match="one row of features and one class, 0 or 1"):
        near_minimum.LogisticRegression(x, y)


def test_two_classes_are_principal_components():
    data = datasets.load("fashion_mnist", sample=True)
    x, y = near_minimum.two_classes(data, 0, 6, 4)
    chosen = np.isin(data.y_train, (0, 6))
    assert x.shape == (chosen.sum(), 5)
    np.testing.assert_array_equal(y, data.y_train[chosen] == 6)
    np.testing.assert_array_equal(x[:, 0], 1.0)
    pixels = data.x_train[chosen].reshape(len(y), -1) / 255.0
    leading = np.linalg.eigvalsh(np.cov(pixels.T))[::-1][:4]
    moments = np.cov(x[:, 1:].T, bias=True)
    np.testing.assert_allclose(moments, np.diag(leading / leading[0]), rtol=0, atol=1e-10)
    # Each component looks like its largest pixel, not like the negative of it.
    loadings = (pixels - pixels.mean(axis=0)).T @ x[:, 1:]
    assert (loadings[np.abs(loadings).argmax(axis=0), np.arange(4)] > 0).all()


# What is drawn


def test_clouds_have_the_ellipses_of_the_covariance():
    covariance, centre = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([3.0, -1.0])
    points = np.random.default_rng(0).normal(size=(10, 2))
    figure = figures.clouds({"forward": points, "backward": -points}, centre, covariance, "a", "b")
    for ax, expected in zip(figure.axes, (points, -points), strict=True):
        cloud, *ellipses = ax.lines
        np.testing.assert_array_equal(np.column_stack(cloud.get_data()), expected)
        for radius, line in zip((1, 2, 3), ellipses, strict=True):
            offset = np.column_stack(line.get_data()) - centre
            square = np.einsum("nb,bc,nc->n", offset, np.linalg.inv(covariance), offset)
            np.testing.assert_allclose(square, radius**2)
    plt.close(figure)


def test_scaling_has_logarithmic_axes_and_error_bars():
    x = np.array([1.0, 2.0, 4.0])
    marks = {"forward": (x, 2 * x, 0.1 * x), "backward": (x, 3 * x)}
    figure = figures.scaling({"exact": (x, x)}, marks, "h", "error")
    (ax,) = figure.axes
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "2", "4"]
    drawn = {line.get_label(): line.get_ydata() for line in ax.lines}
    np.testing.assert_allclose(drawn["forward"], 2 * x)
    np.testing.assert_allclose(drawn["backward"], 3 * x)
    (bars,) = ax.containers  # of those with errors
    (sticks,) = bars[2]
    np.testing.assert_allclose([s[:, 1] for s in sticks.get_segments()], np.outer(x, (1.9, 2.1)))
    plt.close(figure)
