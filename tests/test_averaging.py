"""Averages along a path: each formula against the average itself, in double precision."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from revlib.theory import averaging, near_minimum
from revlib.theory.random_quadratics import RandomQuadratics
from revlib.training.averaging import SCHEDULES, ema, forward_path, swa, two_points
from revlib.training.tasks import Task

HESSIAN = np.array([[1.0, 0.3, 0.0], [0.3, 0.5, -0.1], [0.0, -0.1, 0.2]])
NOISE = np.array([[1.0, -0.4, 0.2], [-0.4, 0.8, 0.0], [0.2, 0.0, 0.3]])  # does not commute with it
KERNELS = {
    "one": np.array([1.0]),
    "two points": averaging.points(2, 5),
    "SWA": averaging.points(7),
    "several points": averaging.points(4, 3),
    "EMA": averaging.exponential(0.2, 12),
}
every_kernel = pytest.mark.parametrize("weights", KERNELS.values(), ids=KERNELS)


# Weights and schedules.


@every_kernel
def test_weights_sum_to_one(weights):
    assert weights.sum() == pytest.approx(1, abs=1e-14)


def test_the_points_lie_where_they_should():
    assert averaging.points(3, 2).tolist() == pytest.approx([1 / 3, 0, 1 / 3, 0, 1 / 3])
    assert averaging.points(4).tolist() == [0.25] * 4


def test_the_exponential_weights_are_those_of_the_recursion():
    average = np.eye(7)[0]  # the contribution of each of seven iterates
    for newest in np.eye(7)[1:]:
        average = 0.7 * average + 0.3 * newest
    np.testing.assert_allclose(averaging.exponential(0.3, 6), average[::-1], atol=1e-15)


@every_kernel
def test_a_schedule_reaches_the_average_where_gradients_do_not_change(weights):
    k = len(weights) - 1
    steps = np.random.default_rng(0).normal(size=(k, 3))
    iterates = np.cumsum(np.vstack([np.ones(3), steps]), axis=0)
    reached = iterates[0] + averaging.schedule(weights) @ steps
    np.testing.assert_allclose(reached, weights @ iterates[::-1], atol=1e-13)


def test_table_1():
    """With steps counted from i = 1; the table's EMA counts them from 0."""
    k, i, decay = 9, np.arange(1, 10), 0.3
    half = averaging.schedule(averaging.points(2, k))
    np.testing.assert_allclose(half, 1 / 2)
    window = averaging.schedule(np.append(averaging.points(k), 0))  # the last k of k + 1 iterates
    np.testing.assert_allclose(window, (k + 1 - i) / k)
    moving = averaging.schedule(averaging.exponential(decay, k))
    np.testing.assert_allclose(moving, 1 - (1 - decay) ** (k + 1 - i))
    assert np.abs(moving - (1 - (1 - decay) ** (k - i))).max() > 0.2


def test_swa_over_k_steps_is_worth_a_linear_decay_over_them():
    k = 6
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    rates = SCHEDULES["linear"](optimizer, k)
    taken = []
    for _ in range(k):
        taken.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        rates.step()
    expected = averaging.schedule(np.append(averaging.points(k), 0))
    np.testing.assert_allclose(taken, expected, atol=1e-12)


def test_the_cosine_ends_at_zero_and_the_constant_stays():
    for name, last in (("cosine", 0.0), ("constant", 1.0)):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        rates = SCHEDULES[name](optimizer, 5)
        for _ in range(5):
            optimizer.step()
            rates.step()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(last, abs=1e-12)


# Covariances.


def explicit(weights, rate, length=400):
    """Sum the covariance of an average over the weights of every noise, without any lag."""
    pull = np.eye(3) - rate * HESSIAN
    powers = [np.eye(3)]
    for _ in range(length):
        powers.append(pull @ powers[-1])
    total = np.zeros((3, 3))
    for age in range(length):  # of the noise, seen from the newest iterate
        reach = min(age, len(weights) - 1)
        gain = sum(weights[j] * rate * powers[age - j] for j in range(reach + 1))
        total += gain @ NOISE @ gain.T
    return total


@every_kernel
@pytest.mark.parametrize("changed", [False, True])
def test_the_covariance_is_the_sum_over_all_noises(weights, changed):
    weights = averaging.change(weights) if changed else weights
    found = averaging.covariance(weights, 0.4, HESSIAN, NOISE)
    np.testing.assert_allclose(found, explicit(weights, 0.4), rtol=1e-10, atol=1e-12)


def test_without_an_average_it_is_the_stationary_covariance():
    expected = near_minimum.stationary_covariance(0.4, HESSIAN, NOISE)
    np.testing.assert_allclose(averaging.covariance([1.0], 0.4, HESSIAN, NOISE), expected)


@every_kernel
def test_the_printed_covariance_holds_for_white_noise(weights):
    exact = averaging.covariance(weights, 0.4, HESSIAN, np.eye(3))
    np.testing.assert_allclose(averaging.printed_covariance(weights, 0.4, HESSIAN), exact)


def test_the_printed_covariance_fails_where_hessian_and_noise_do_not_commute():
    root = np.linalg.cholesky(NOISE)
    inverse = np.linalg.inv(root)
    weights = KERNELS["SWA"]
    white = averaging.printed_covariance(weights, 0.4, inverse @ HESSIAN @ root)
    exact = averaging.covariance(weights, 0.4, HESSIAN, NOISE)
    assert np.abs(root @ white @ root.T - exact).max() > 0.01 * np.abs(exact).max()
    assert np.abs(white - white.T).max() > 0.01 * np.abs(white).max()  # no covariance at all


def test_a_simulated_average_has_the_covariance():
    generator, rate, weights = np.random.default_rng(1), 0.4, KERNELS["SWA"]
    pull, root = np.eye(3) - rate * HESSIAN, np.linalg.cholesky(NOISE)
    theta, kept = np.zeros((40_000, 3)), []
    for _ in range(120):
        theta = theta @ pull + rate * generator.normal(size=theta.shape) @ root.T
        kept = [theta, *kept][: len(weights)]
    average = sum(weight * each for weight, each in zip(weights, kept, strict=True))
    exact = averaging.covariance(weights, rate, HESSIAN, NOISE)
    np.testing.assert_allclose(np.cov(average.T), exact, atol=0.03 * exact.max())


def test_two_points_far_apart_are_worth_half_the_rate():
    assert averaging.effective_rate(0.1, 2.0, 0) == 0.1
    assert averaging.effective_rate(0.1, 2.0, 1) == pytest.approx(0.1 * (1 + 0.8) / 2)
    assert averaging.effective_rate(0.1, 2.0, 1000) == pytest.approx(0.05)
    for spacing in (1, 4, 50):  # its variance is that share of the plain one
        weights = averaging.points(2, spacing)
        share = averaging.covariance(weights, 0.1, [[2.0]], [[1.0]]) / (
            averaging.covariance([1.0], 0.1, [[2.0]], [[1.0]])
        )
        assert share.item() == pytest.approx(averaging.effective_rate(0.1, 2.0, spacing) / 0.1)


def test_expected_losses_are_means_over_simulated_runs():
    rate, decay, curvatures = 0.3, 0.2, np.array([1.0, 0.1])
    generator = np.random.default_rng(2)
    plain, averaged = averaging.expected_losses(rate, curvatures, [2.0, 3.0], 30, decay)
    theta = average = np.tile([2.0, 3.0], (40_000, 1))
    for step in range(31):
        for found, exact in ((theta, plain), (average, averaged)):
            losses = curvatures * found**2 / 2
            error = losses.std(axis=0) / 200
            assert (np.abs(losses.mean(axis=0) - exact[step]) <= 5 * error + 1e-12).all()
        theta = theta * (1 - rate * curvatures) + rate * generator.normal(size=theta.shape)
        average = (1 - decay) * average + decay * theta


def test_expected_losses_end_in_the_stationary_covariance():
    rate, decay, curvatures = 0.3, 0.2, np.array([1.0, 0.1])
    found = averaging.expected_losses(rate, curvatures, [2.0, 3.0], 600, decay)
    for losses, weights in zip(found, ([1.0], averaging.exponential(decay, 300)), strict=True):
        spread = averaging.covariance(weights, rate, np.diag(curvatures), np.eye(2))
        np.testing.assert_allclose(losses[-1], curvatures * np.diag(spread) / 2, rtol=1e-8)


# Lemma 1.


@pytest.mark.parametrize(("dimension", "rows"), [(12, 4), (4, 12)])
def test_the_radius_of_the_shell(dimension, rows):
    model, rate = RandomQuadratics(dimension, rows, sigma=0.7), 0.2
    theta = np.zeros((4000, dimension))
    for step in model.maps(rate, 60, len(theta), seed=0):
        theta = step(theta)
    squares = (theta**2).sum(axis=1)
    error = squares.std() / np.sqrt(len(squares))
    assert abs(squares.mean() - model.squared_radius(rate)) < 4 * error
    assert abs(squares.mean() - rate * model.drift() / 2) > 6 * error  # the leading order alone


def test_the_radius_begins_as_the_root_of_the_rate():
    model = RandomQuadratics(12, 4, 0.7)
    for rate, close in ((1e-3, 0.01), (1e-5, 1e-4)):
        assert model.squared_radius(rate) == pytest.approx(rate * model.drift() / 2, rel=close)
    assert model.squared_radius(2.0) == np.inf


def test_the_random_losses_have_unit_curvature_on_average():
    step = next(RandomQuadratics(3, 5).maps(1.0, 1, 200_000, seed=0))
    moved = step(np.tile([1.0, 0, 0], (200_000, 1))) - [1.0, 0, 0]
    np.testing.assert_allclose(moved.mean(axis=0), [-1, 0, 0], atol=0.02)


# Averages of models.


@pytest.fixture
def task():
    """A small regression in double precision."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    batches = [(torch.randn(3, 2).double(), torch.randn(3, 1).double()) for _ in range(14)]
    return Task(model, nn.functional.mse_loss, batches, partial(torch.optim.SGD, lr=0.1), {})


def path(task, steps=12, schedule="constant", **options):
    return forward_path(task, steps, SCHEDULES[schedule], **options)


def vector(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach().numpy().copy()


def plain(task):
    """Return the parameters along plain forward training, shape (13, P)."""
    model = copy.deepcopy(task.model)
    found = [vector(model)]
    for inputs, targets in task.batches[:12]:
        gradients = torch.autograd.grad(task.loss(model(inputs), targets), [*model.parameters()])
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
        found.append(vector(model))
    return np.array(found)


def test_the_forward_path_is_plain_training(task):
    found = np.array([vector(model) for _, model in path(task)])
    np.testing.assert_allclose(found, plain(task), atol=1e-14)


def test_batches_can_be_passed_over(task):
    later = [vector(model) for _, model in path(task, 3, first=11)]
    moved = copy.deepcopy(task)
    moved.batches = task.batches[11:]
    np.testing.assert_allclose(later, [vector(model) for _, model in path(moved, 3)])


def test_a_decayed_path_takes_the_rates_of_the_schedule(task):
    (_, first), (_, second) = ((s, vector(m)) for s, m in path(task, 1, "linear"))
    np.testing.assert_allclose(second, plain(task)[1])
    assert np.abs(first - second).max() > 0
    *_, last = (vector(model) for _, model in path(task, 2, "linear"))
    once = copy.deepcopy(task.model)
    nn.utils.vector_to_parameters(torch.tensor(plain(task)[1]), once.parameters())
    inputs, targets = task.batches[1]
    gradients = torch.autograd.grad(task.loss(once(inputs), targets), [*once.parameters()])
    half = np.concatenate([0.05 * gradient.flatten().numpy() for gradient in gradients])
    np.testing.assert_allclose(last, plain(task)[1] - half, atol=1e-14)


def test_averages_of_models_are_those_of_their_weights(task):
    iterates, steps = plain(task), (4, 9, 12)
    found = {step: vector(model) for step, model in ema(path(task), 0.3)}
    for step in steps:
        expected = averaging.exponential(0.3, step) @ iterates[step::-1]
        np.testing.assert_allclose(found[step], expected, atol=1e-13)
    found = {step: vector(model) for step, model in swa(path(task), 7)}
    np.testing.assert_allclose(found[6], iterates[6])
    np.testing.assert_allclose(found[12], iterates[7:].mean(axis=0), atol=1e-13)
    found = {step: vector(model) for step, model in two_points(path(task), 5, steps)}
    assert list(found) == list(steps)
    np.testing.assert_allclose(found[4], iterates[4])
    for step in (9, 12):
        expected = averaging.points(2, 5) @ iterates[step : step - 6 : -1]
        np.testing.assert_allclose(found[step], expected, atol=1e-13)


def test_a_change_is_the_difference_of_two_averages():
    path, weights = np.random.default_rng(3).normal(size=9), averaging.points(3, 2)
    before, after = (weights @ path[t : t - 5 : -1] for t in (7, 8))
    assert averaging.change(weights) @ path[8:2:-1] == pytest.approx(after - before)
    assert averaging.change(weights).sum() == pytest.approx(0)
