"""Ensembles of small runs against torch and plain enumeration; the same law at every step."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch

from revlib import orders
from revlib.iterates import iterates
from revlib.theory import ensembles, laws
from revlib.theory.ensembles import HeavyBall, Network
from revlib.theory.gradient_steps import GradientStep
from revlib.training.maps import noisy_quadratic

EXAMPLES, SIZE = 24, 2
EPOCH = EXAMPLES // SIZE
INPUTS = np.linspace(-1, 1, EXAMPLES)
NETWORK = Network(INPUTS, np.cos(5 * INPUTS))
START = np.random.default_rng(3).normal(size=13)


def plain_loss(theta, x, y):
    """Return the loss of one network, written out once more in torch."""
    w, b, v, c = theta[:4], theta[4:8], theta[8:12], theta[12]
    outputs = torch.stack([c + torch.dot(v, torch.tanh(w * value + b)) for value in x])
    return torch.mean((outputs - y) ** 2) / 2


def test_network_is_that_of_torch():
    generator = np.random.default_rng(0)
    theta = generator.normal(size=(3, 13))
    batch = generator.integers(EXAMPLES, size=(3, 5))
    losses, gradients = NETWORK.loss(theta), NETWORK.gradient(theta, batch)
    x, y = torch.tensor(NETWORK.inputs), torch.tensor(NETWORK.targets)
    for r in range(3):
        own = torch.tensor(theta[r], requires_grad=True)
        assert losses[r] == pytest.approx(plain_loss(own, x, y).item(), rel=1e-12)
        plain_loss(own, x[batch[r]], y[batch[r]]).backward()
        np.testing.assert_allclose(gradients[r], own.grad, rtol=1e-12, atol=1e-15)


def test_least_squares_gradient_is_that_of_torch():
    generator = np.random.default_rng(1)
    theta, x, y = generator.normal(size=(4, 3)), generator.normal(size=(4, 3)), np.arange(4.0)
    own = torch.tensor(theta, requires_grad=True)
    (((torch.tensor(x) * own).sum(1) - torch.tensor(y)) ** 2 / 2).sum().backward()
    np.testing.assert_allclose(
        ensembles.least_squares_gradient(theta, (x, y)), own.grad, rtol=1e-12
    )


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_steps_are_those_of_torch(beta):
    generator = np.random.default_rng(2)
    examples = [(generator.normal(size=(2, 3)), generator.normal(size=2)) for _ in range(5)]
    own = torch.tensor(generator.normal(size=(2, 3)), requires_grad=True)
    optimizer = torch.optim.SGD([own], lr=0.1, momentum=beta)
    state = np.stack([own.detach().numpy().copy(), np.zeros((2, 3))])
    theta = state[0]
    for x, y in examples:
        optimizer.zero_grad()
        (((torch.tensor(x) * own).sum(1) - torch.tensor(y)) ** 2 / 2).sum().backward()
        optimizer.step()
        gradient = partial(ensembles.least_squares_gradient, batch=(x, y))
        state = HeavyBall(0.1, gradient, beta)(state)
        np.testing.assert_allclose(state[0], own.detach(), rtol=1e-12)
        if not beta:
            theta = GradientStep(0.1, gradient)(theta)
            np.testing.assert_allclose(theta, own.detach(), rtol=1e-12)


def test_shuffled_epochs_hold_every_example_once():
    batches = ensembles.shuffled_epochs(np.random.default_rng(0), 50, 2 * EPOCH + 3, EXAMPLES, SIZE)
    assert batches.shape == (2 * EPOCH + 3, 50, SIZE)
    for first in (0, EPOCH):
        seen = np.sort(batches[first : first + EPOCH].swapaxes(0, 1).reshape(50, -1), axis=1)
        assert (seen == np.arange(EXAMPLES)).all()
    assert not (batches[0] == batches[EPOCH]).all()
    assert not (batches[:, 0] == batches[:, 1]).all()
    with pytest.raises(ValueError, match="without a rest"):
        ensembles.shuffled_epochs(np.random.default_rng(0), 1, 1, 5, 2)


def test_independent_batches_repeat_examples():
    batches = ensembles.independent_batches(np.random.default_rng(0), 40, EPOCH, EXAMPLES, SIZE)
    assert batches.shape == (EPOCH, 40, SIZE)
    assert set(np.unique(batches)) == set(range(EXAMPLES))
    assert len(np.unique(batches[:, 0])) < EXAMPLES


@pytest.mark.parametrize("epoch", [2, 3])
def test_reshuffled_variances_are_exact(epoch):
    """Every order of three epochs, each as likely as the other."""
    h, steps, values = 0.3, 3 * epoch, np.arange(epoch) - (epoch - 1) / 2
    shuffles = list(itertools.permutations(values))
    noise = np.array([sum(three, ()) for three in itertools.product(shuffles, repeat=3)]).T
    each = orders.forward(), orders.backward(), orders.tail(epoch + 1)
    found = ensembles.reshuffled_variances(h, steps, epoch, each)
    for order in each:
        maps = noisy_quadratic(h, noise)
        start = np.zeros(noise.shape[1])
        exact = [theta.var() for _, theta in iterates(maps, start, order)]
        np.testing.assert_allclose(values.var() * found[order.name], exact, rtol=1e-12, atol=1e-15)
    # The proposition, and where it ends: equal in the first epoch and after whole epochs only.
    same = np.isclose(found["forward"], found["backward"], rtol=1e-12)
    expected = [n <= epoch or n % epoch == 0 for n in range(steps + 1)]
    assert same.tolist() == expected


def both(maps, start, n):
    """Return the forward and the backward iterate at step n."""
    return [
        dict(iterates(maps, start, order, [n]))[n]
        for order in (orders.forward(), orders.backward())
    ]


def network_maps(draw, runs, steps, seed, h=0.3):
    batches = draw(np.random.default_rng(seed), runs, steps, EXAMPLES, SIZE)
    rates = np.broadcast_to(h, steps)
    return [
        GradientStep(rate, partial(NETWORK.gradient, batch=batch))
        for batch, rate in zip(batches, rates, strict=True)
    ]


DRAWS = (ensembles.independent_batches, ensembles.shuffled_epochs)
CASES = [(d, n) for d, n in itertools.product(DRAWS, (2, 5, 2 * EPOCH))]


@pytest.mark.parametrize(("draw", "n"), CASES)
def test_both_orders_have_the_same_law(draw, n):
    """Each of these fails at one in 1000 seeds: as often as a p-value is that small."""
    start = np.tile(START, (400, 1))
    forward, backward = both(network_maps(draw, 400, n, seed=n), start, n)
    assert np.abs(forward - backward).max() > 0.01  # not the same numbers
    assert laws.same_law(forward, backward, paired=True).pvalue > 0.001
    losses = [NETWORK.loss(theta) for theta in (forward, backward)]
    assert laws.same_law(*losses, paired=True).pvalue > 0.001


def test_momentum_keeps_the_same_law_of_the_state():
    batches = ensembles.independent_batches(np.random.default_rng(0), 400, 10, EXAMPLES, SIZE)
    maps = [HeavyBall(0.05, partial(NETWORK.gradient, batch=batch), 0.8) for batch in batches]
    start = np.stack([np.tile(START, (400, 1)), np.zeros((400, 13))])
    states = [np.concatenate(state, axis=1) for state in both(maps, start, 10)]
    assert laws.same_law(*states, paired=True).pvalue > 0.001


def test_a_learning_rate_schedule_does_not():
    start = np.tile(START, (400, 1))
    rates = np.linspace(0.4, 0.02, 12)
    maps = network_maps(ensembles.shuffled_epochs, 400, 12, seed=0, h=rates)
    assert laws.same_law(*both(maps, start, 12), paired=True).pvalue == 1 / 1000


def test_the_change_from_one_step_to_the_next_does_not():
    start = np.tile(START, (400, 1))
    maps = network_maps(ensembles.independent_batches, 400, 31, seed=0)
    late, later = both(maps, start, 30), both(maps, start, 31)
    changes = [after - before for before, after in zip(late, later, strict=True)]
    assert laws.same_law(*changes, paired=True).pvalue == 1 / 1000
