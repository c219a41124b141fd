"""Update maps: exact, pure, and complete in what they carry along."""

import copy

import numpy as np
import pytest
import torch
from cases import OPTIMIZERS, network
from torch import nn

from revlib import Task
from revlib.training.maps import Affine, Constant, Trainer, TrainingStep, noisy_quadratic


def task(optimizer="sgd", batches=12):
    generator = torch.Generator().manual_seed(1)
    drawn = [
        (
            torch.randn(5, 4, generator=generator, dtype=torch.float64),
            torch.randint(0, 3, (5,), generator=generator),
        )
        for _ in range(batches)
    ]
    return Task(network(), nn.functional.cross_entropy, drawn, OPTIMIZERS[optimizer], {}, seed=3)


def flat(value):
    """Return all tensors and numbers of a nested state, in a fixed order."""
    if isinstance(value, torch.Tensor):
        return [value.double().flatten()]
    if isinstance(value, dict):
        return [part for key in sorted(value, key=str) for part in flat(value[key])]
    if isinstance(value, (list, tuple)):
        return [part for one in value for part in flat(one)]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return [torch.tensor([float(value)], dtype=torch.float64)]
    return []


def same(one, other):
    return torch.equal(torch.cat(flat(vars(one))), torch.cat(flat(vars(other))))


def test_affine_and_constant():
    assert Affine(0.5, 1.0)(4.0) == 3.0
    matrix = np.array([[0.0, 1.0], [2.0, 0.0]])
    np.testing.assert_array_equal(Affine(matrix, np.ones(2))(np.array([3.0, 4.0])), [5.0, 7.0])
    np.testing.assert_array_equal(Affine(0.5, np.ones(3))(np.zeros(3)), np.ones(3))
    assert Constant(7)(object()) == 7


def test_noisy_quadratic_is_a_gradient_step():
    h, theta = 0.3, torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    (0.5 * theta**2).backward()
    for eps, T in zip([0.4, -1.0], noisy_quadratic(h, [0.4, -1.0]), strict=True):
        assert T(2.0) == pytest.approx(2.0 - h * (theta.grad.item() - eps), rel=1e-15)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_replayed_step_is_the_same_step(optimizer):
    trainer = Trainer(task(optimizer))
    maps = [TrainingStep(trainer, n) for n in range(1, 7)]
    state = trainer.state()
    for T in maps[:3]:
        state = T(state)
    once = maps[4](state)
    maps[5](once)  # whatever the working copy did in between
    assert same(maps[4](state), once)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_does_not_change_its_argument(optimizer):
    trainer = Trainer(task(optimizer))
    state = TrainingStep(trainer, 1)(trainer.state())
    before = copy.deepcopy(state)
    after = TrainingStep(trainer, 2)(state)
    assert same(state, before)
    assert not same(state, after)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_in_a_row_are_an_ordinary_training_loop(optimizer):
    problem = task(optimizer)
    model = copy.deepcopy(problem.model)
    plain = problem.optimizer(model.parameters())
    trainer = Trainer(problem)
    state = trainer.state()
    for n in range(1, 9):
        torch.manual_seed(problem.seed * 1_000_003 + n)
        x, y = problem.batches[n - 1]
        plain.zero_grad()
        problem.loss(model(x), y).backward()
        plain.step()
        state = TrainingStep(trainer, n)(state)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        assert torch.equal(state.model[name], value), name


def test_the_order_of_maps_matters_for_everything_that_is_carried():
    trainer = Trainer(task("momentum"))
    one, two = TrainingStep(trainer, 1), TrainingStep(trainer, 2)
    start = trainer.state()
    assert not same(one(two(start)), two(one(start)))
    assert start.model["2.calls"] == 0
    assert one(two(start)).model["2.calls"] == 2


def test_nothing_of_the_caller_is_touched():
    problem = task("momentum")
    before = copy.deepcopy(problem.model.state_dict())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trainer = Trainer(problem)
    TrainingStep(trainer, 1)(trainer.state())
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(before[name], v) for name, v in problem.model.state_dict().items())
    assert problem.model.training


def test_a_model_in_evaluation_mode_is_trained_in_training_mode():
    problem = task()
    problem.model.eval()
    trainer = Trainer(problem)
    trainer.apply(1)
    assert trainer.model()[1].num_batches_tracked == 1
    assert not problem.model.training
