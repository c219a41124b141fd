"""The dense strategy against the definition, and when it applies."""

import copy
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from cases import ORDERS, defined
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from revlib import Task, backward, forward, tail, trajectory
from revlib.training import models, sweep
from revlib.training.dense import DenseTrainer, applies
from revlib.training.maps import StepError, Trainer

STEPS = 13
SGD = partial(torch.optim.SGD, lr=0.2)

pytestmark = pytest.mark.usefixtures("one_thread")


def task(kind="classes", widths=(5, 7, 6, 3), dtype=torch.float64):
    """A task with ragged batches of images of shape (5,) or (1, 5)."""
    generator = torch.Generator().manual_seed(4)

    def examples(count):
        x = torch.randn(count, 1, widths[0], generator=generator, dtype=dtype)
        if kind == "classes":
            return x, torch.randint(0, widths[-1], (count,), generator=generator)
        return x, torch.randn(count, widths[-1], generator=generator, dtype=dtype)

    batches = [examples(1 if n % 5 == 4 else 4) for n in range(STEPS)]
    loss = F.cross_entropy if kind == "classes" else F.mse_loss
    model = models.mlp(widths, "he", seed=1, dtype=dtype)
    return Task(model, loss, batches, SGD, {"train": examples(9), "test": examples(6)}, seed=3)


CASES = [
    task(),
    task("values"),
    task(widths=(5, 3)),
    task("values", (5, 1)),
    task(widths=(5, 8, 2)),
]


@pytest.mark.parametrize("problem", CASES, ids=["deep", "mse", "linear", "one", "shallow"])
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_every_order_equals_the_definition(problem, order):
    pd.testing.assert_frame_equal(
        trajectory(problem, order, STEPS, strategy="dense"),
        defined(problem, order, STEPS),
        rtol=1e-12,
    )


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(ORDERS),
    st.lists(st.integers(0, STEPS), min_size=1, max_size=6),
)
def test_the_bits_do_not_depend_on_what_else_is_recorded(order, record):
    problem = task(widths=(7, 61, 45, 3), dtype=torch.float32)
    whole = trajectory(problem, order, STEPS)
    part = trajectory(problem, order, STEPS, record)
    expected = whole[whole["step"].isin(record)].reset_index(drop=True)
    expected = expected.dropna(axis=1, how="all")  # at the start no batch has been applied
    pd.testing.assert_frame_equal(part, expected, check_exact=True)


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_the_bits_do_not_depend_on_the_room_for_states(order, monkeypatch):
    problem = task(widths=(7, 61, 45, 3), dtype=torch.float32)
    whole = trajectory(problem, order, STEPS)
    monkeypatch.setattr(sweep, "KEPT_BYTES", 1)
    pd.testing.assert_frame_equal(trajectory(problem, order, STEPS), whole, check_exact=True)


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_models_are_those_of_the_definition(order):
    problem = task()
    found = {n: problem.evaluate(model) for n, model in sweep.models(problem, order, range(STEPS))}
    expected = defined(problem, order, STEPS, range(STEPS)).set_index("step")
    for n, measured in found.items():
        assert measured["test_loss"] == pytest.approx(expected["test_loss"][n], rel=1e-12)
    assert sorted(found) == list(range(STEPS))


@pytest.mark.parametrize(
    ("order", "together"), [(backward(), STEPS - 1), (tail(3), STEPS - 2), (forward(), 1)], ids=str
)
def test_what_ends_alike_is_advanced_together(order, together, monkeypatch):
    """All but the word of one letter; and with a tail but the last, which is a path to its end."""
    most = []
    apply = DenseTrainer.apply

    def counted(trainer, n, chains=1):
        most.append(chains)
        apply(trainer, n, chains)

    monkeypatch.setattr(DenseTrainer, "apply", counted)
    groups = sweep._Run.groups
    monkeypatch.setattr(sweep._Run, "groups", lambda run, at_least: groups(run, 1))
    trajectory(task(), order, STEPS)
    assert max(most) == together


# Widths none of which fills a cache line. Many of them, since it takes some shapes to show.
WIDTHS = [(1, 50, 50, 1), (1, 300, 300, 1), (7, 61, 45, 3), (33, 100, 10), (30, 70, 130, 6)]


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("kind", ["classes", "values"])
def test_every_chain_of_a_stack_takes_the_same_steps_whatever_its_shape(widths, kind):
    problem = task(kind, widths, torch.float32)
    problem.optimizer = partial(torch.optim.SGD, lr=0.001)
    trainer = DenseTrainer(problem)
    start = trainer.state()
    outcomes = set()
    for chains in (1, 2, 3, trainer.chains):
        for chain in range(chains):
            trainer.load(start, chain)
        for n in range(1, STEPS + 1):
            trainer.apply(n, chains)
        for chain in range(chains):
            parameters = trainer.model(chain).parameters()
            outcomes.add(b"".join(p.detach().numpy().tobytes() for p in parameters))
    assert len(outcomes) == 1


def test_in_single_precision_the_difference_is_rounding():
    problem = task(dtype=torch.float32)
    dense = trajectory(problem, backward(), STEPS, strategy="dense")
    eager = trajectory(problem, backward(), STEPS, strategy="eager")
    np.testing.assert_allclose(dense["test_loss"], eager["test_loss"], rtol=1e-5)


def test_chains_that_have_not_started_are_left_alone():
    trainer = DenseTrainer(task())
    assert trainer.chains > 2
    start = trainer.state()
    for chain in range(3):
        trainer.load(start, chain)
    before = [p.clone() for p in trainer.model(2).parameters()]
    trainer.apply(1, 2)
    assert all(map(torch.equal, before, trainer.model(2).parameters()))
    moved = [p.clone() for p in trainer.model(0).parameters()]
    assert all(map(torch.equal, moved, trainer.model(1).parameters()))
    assert not torch.equal(moved[0], before[0])


def test_a_chain_that_diverged_leaves_nothing_behind():
    problem = task("values", (1, 50, 50, 1))
    trainer = DenseTrainer(problem)
    start = trainer.state()
    wild = copy.deepcopy(start)
    for value in wild.model.values():
        value.mul_(1e200)
    found = []
    for state in (start, wild, start):
        for chain in range(2):
            trainer.load(state, chain)
        for _ in range(3):
            trainer.apply(1, 2)
        found.append([p.clone() for p in trainer.model(1).parameters()])
    assert not torch.isfinite(found[1][0]).all()
    assert all(map(torch.equal, found[0], found[2]))


def test_divergence_is_the_same_divergence():
    problem = task()
    problem.optimizer = partial(torch.optim.SGD, lr=1e40)
    dense = trajectory(problem, forward(), STEPS, strategy="dense")
    eager = trajectory(problem, forward(), STEPS, strategy="eager")
    assert not np.isfinite(dense["test_loss"]).all()
    pd.testing.assert_frame_equal(dense, eager, rtol=1e-12)


def changed(**fields):
    problem = task()
    for name, value in fields.items():
        setattr(problem, name, value)
    return problem


def network(*modules):
    return nn.Sequential(nn.Flatten(), *modules).double()


def shared():
    layer = nn.Linear(5, 5)
    return network(layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(5, 3))


def frozen():
    model = models.mlp((5, 4, 3), dtype=torch.float64)
    model[1].weight.requires_grad_(False)
    return model


def hooked():
    model = models.mlp((5, 4, 3), dtype=torch.float64)
    model.register_forward_hook(lambda module, inputs, output: 2 * output)
    return model


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss()])
@pytest.mark.parametrize("optimizer", [SGD, partial(torch.optim.SGD, lr=0.2, foreach=False)])
def test_it_applies_to_dense_networks_under_plain_sgd(loss, optimizer):
    assert applies(changed(loss=loss, optimizer=optimizer))
    assert sweep._strategy(changed(loss=loss, optimizer=optimizer), None) is DenseTrainer


@pytest.mark.parametrize(
    "fields",
    [
        {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)},
        {"loss": nn.CrossEntropyLoss(weight=torch.ones(3, dtype=torch.float64))},
        {"loss": nn.CrossEntropyLoss(reduction="sum")},
        {"loss": lambda output, target: F.cross_entropy(output, target)},
        {"optimizer": partial(torch.optim.SGD, lr=0.2, momentum=0.9)},
        {"optimizer": partial(torch.optim.SGD, lr=0.2, weight_decay=0.1)},
        {"optimizer": partial(torch.optim.SGD, lr=0.2, maximize=True)},
        {"optimizer": torch.optim.Adam},
        {"model": network(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))},
        {"model": network(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))},
        {"model": network(nn.Linear(5, 4, bias=False), nn.ReLU(), nn.Linear(4, 3))},
        {"model": network(nn.Linear(5, 3), nn.ReLU())},
        {"model": shared()},
        {"model": frozen()},
        {"model": hooked()},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_it_applies_to_nothing_else_and_the_eager_strategy_takes_over(fields):
    problem = changed(**fields)
    assert not applies(problem)
    assert sweep._strategy(problem, None) is Trainer
    trajectory(problem, backward(), 3)
    with pytest.raises(ValueError, match="'dense' does not apply to this task"):
        trajectory(problem, backward(), 3, strategy="dense")


def test_probabilities_as_targets_are_left_to_the_eager_strategy():
    x = torch.randn(4, 5, dtype=torch.float64)
    problem = changed(batches=[(x, torch.full((4, 3), 1 / 3, dtype=torch.float64))] * 3)
    assert not applies(problem)
    trajectory(problem, backward(), 3)


ODD = {
    "more features": lambda x, y: (torch.cat([x, x], -1), y),
    "fewer features": lambda x, y: (x[..., :3], y),
    "single precision": lambda x, y: (x.float(), y),
    "bytes": lambda x, y: (x.byte(), y),
    "labels as bytes": lambda x, y: (x, y.byte()),
    "soft labels": lambda x, y: (x, F.one_hot(y, 3).double()),
    "no such class": lambda x, y: (x, y + 7),
    "flat": lambda x, y: (x[:, 0], y),
    "no example": lambda x, y: (x[:0], y[:0]),
    "one label too few": lambda x, y: (x, y[:-1]),
    "one label for all": lambda x, y: (x, y[0]),
    "values without a column": lambda x, y: (x, y[:, 0]),
    "no values": lambda x, y: (x[:0], y[:0]),
    "one row of values for all": lambda x, y: (x, y[:1]),
    "no tensors": lambda x, y: ([x], y),
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("odd", ODD)
def test_a_later_batch_of_another_kind_is_taken_or_refused_as_the_plain_loop_does(odd):
    problem = task("values", (5, 4, 1)) if "values" in odd else task()
    problem.batches[10] = ODD[odd](*problem.batches[10])  # the first ones were tried

    def outcome(strategy):
        try:
            return trajectory(problem, backward(), STEPS, [8, 11, 12], strategy=strategy)
        except StepError as error:
            return str(error)

    dense, eager = outcome("dense"), outcome("eager")
    if isinstance(eager, str):
        assert dense == eager
    else:
        pd.testing.assert_frame_equal(dense, eager, rtol=1e-12)


def test_an_unknown_strategy_is_refused_with_the_valid_ones():
    valid = "dense, convolutions, stacks, eager"
    with pytest.raises(ValueError, match=f"'fast' is not a strategy. Valid are: {valid}"):
        trajectory(task(), backward(), 3, strategy="fast")
