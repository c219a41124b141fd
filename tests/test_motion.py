"""contraction rates against exact products of Jacobians, and the two methods against each other."""

from functools import partial

import pytest
import torch
from torch import nn

from revlib import Task, backward, forward, iterates, switch, tail, windowed
from revlib.training import motion
from revlib.training.maps import Trainer, TrainingStep

H = 0.07
STEPS = 30


def sgd(**options):
    return partial(torch.optim.SGD, lr=H, **options)


def linear(optimizer=None, scale=1.0):
    """Least squares: every map is affine, with the Jacobian ``1 - h H_n``."""
    generator = torch.Generator().manual_seed(0)
    shape = (STEPS, 3, 4)
    x = scale * torch.randn(shape, generator=generator, dtype=torch.float64)
    y = torch.randn((STEPS, 3, 1), generator=generator, dtype=torch.float64)
    model = nn.Linear(4, 1, bias=False).double()
    batches = list(zip(x, y, strict=True))
    return Task(
        model, nn.functional.mse_loss, batches, optimizer or sgd(), {"test": batches[0]}, seed=5
    )


def network(seed=5, optimizer=None):
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    batches = [
        (
            torch.randn(5, 4, generator=generator, dtype=torch.float64),
            torch.randint(0, 3, (5,), generator=generator),
        )
        for _ in range(STEPS)
    ]
    return Task(
        model,
        nn.functional.cross_entropy,
        batches,
        optimizer or sgd(),
        {"train": batches[3], "test": batches[0]},
        seed=seed,
    )


def exact(problem, maps):
    """The stretching of the perturbation by the product of the maps' Jacobians."""
    first = direction = motion._direction(problem)[0].flatten()
    for n in maps:
        x, _ = problem.batch(n)
        direction = direction - H * 2 / len(x) * x.T @ (x @ direction)
    return torch.log(direction.norm() / first.norm()).item() / len(maps)


@pytest.mark.parametrize("method", motion.METHODS)
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0], ids=["contracting", "mixed", "expanding"])
@pytest.mark.parametrize(
    ("order", "chain"),
    [
        (forward(), range(1, 26)),
        (backward(), range(25, 0, -1)),
        (switch(10), range(25, 10, -1)),
        (windowed(20), range(25, 20, -1)),
        (windowed(12), [*range(12, 0, -1), *range(24, 12, -1), 25]),
        (tail(8), range(8, 0, -1)),
    ],
    ids=str,
)
def test_on_affine_maps_the_rate_is_exact(order, chain, scale, method):
    problem = linear(scale=scale)
    expected = exact(problem, chain)
    assert motion.contraction_rate(problem, order, 25, method) == pytest.approx(expected, rel=1e-6)
    if scale != 1.0:
        assert (expected < 0) == (scale < 1)


def test_the_order_of_the_maps_matters():
    problem = linear()
    assert abs(exact(problem, range(1, 26)) - exact(problem, range(25, 0, -1))) > 1e-3


@pytest.mark.parametrize("order", [forward(), backward(), switch(10), tail(20)], ids=str)
def test_both_methods_agree_on_a_network(order):
    problem = network()
    two = [
        motion.contraction_rate(problem, order, STEPS, method, 1e-4) for method in motion.METHODS
    ]
    assert two[0] == pytest.approx(two[1], rel=2e-3)


def test_momentum_is_part_of_what_is_perturbed():
    """The state is the pair of theta and the momentum, and its map is linear too."""
    problem = linear(sgd(momentum=0.9))
    first = direction = motion._direction(problem)[0].flatten()
    velocity = torch.zeros_like(direction)
    for n in range(25, 0, -1):
        x, _ = problem.batch(n)
        velocity = 0.9 * velocity + 2 / len(x) * x.T @ (x @ direction)
        direction = direction - H * velocity
    expected = torch.log(direction.norm() / first.norm()).item() / 25
    assert motion.contraction_rate(problem, backward(), 25) == pytest.approx(expected, rel=1e-6)
    assert "tangent_contraction_rate" not in motion.motion(problem, backward(), 5)
    with pytest.raises(ValueError, match="for plain SGD.*use 'chains'"):
        motion.contraction_rate(problem, backward(), 25, "tangent")


@pytest.mark.parametrize(
    ("order", "before", "first"),
    [
        (forward(), [], 1),
        (backward(), [], 20),
        (switch(10), range(1, 11), 20),
        (windowed(8), [*range(8, 0, -1), *range(16, 8, -1)], 20),
        (tail(6), range(7, 21), 6),
    ],
    ids=str,
)
def test_motion_is_the_distance_of_consecutive_iterates(order, before, first):
    problem = network()
    trainer = Trainer(problem)
    maps = [TrainingStep(trainer, n) for n in range(1, STEPS + 1)]
    start = trainer.state()
    points = dict(iterates(maps, start, order, [19, 20]))

    def flat(state):
        return torch.cat([value.flatten() for value in state.model.values()])

    def outputs(state):
        trainer.load(state)
        return trainer.model()(problem.evaluation["train"][0]).detach()

    found = motion.motion(problem, order, 20)
    assert found["moved"] == pytest.approx((flat(points[20]) - flat(points[19])).norm().item())
    assert found["travelled"] == pytest.approx((flat(points[20]) - flat(start)).norm().item())
    change = outputs(points[20]) - outputs(points[19])
    assert found["predictions_moved"] == pytest.approx(change.square().mean().sqrt().item())
    assert found["contraction_rate"] == motion.contraction_rate(problem, order, 20)
    assert found["tangent_contraction_rate"] == motion.contraction_rate(
        problem, order, 20, "tangent"
    )
    at = start
    for n in before:
        at = maps[n - 1](at)
    length = (flat(maps[first - 1](at)) - flat(at)).norm().item()
    assert found["step_length"] == pytest.approx(length)


@pytest.mark.slow
def test_the_same_numbers_with_workers():
    jobs = [motion.Job(network, 5, order, [10, 20]) for order in (forward(), backward())]
    rows = [
        sorted((row for rows in motion.compute(jobs, workers) for row in rows), key=str)
        for workers in (1, 2)
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 4


def test_a_path_that_diverges_has_no_rate():
    problem = network(optimizer=partial(torch.optim.SGD, lr=1e200))
    assert motion.contraction_rate(problem, backward(), STEPS) != motion.contraction_rate(
        problem, backward(), STEPS
    )


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="not a method. Valid are: chains, tangent"):
        motion.contraction_rate(network(), backward(), 5, "guess")
