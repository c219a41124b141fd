"""Sweeps against the definition, in double precision, in everything that a state can hold."""

import copy
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_maps import OPTIMIZERS, network
from test_orders import orders as any_order
from torch import nn

from revlib import Order, Task, backward, forward, iterates, reset, switch, trajectory, windowed
from revlib.maps import Trainer, TrainingStep
from revlib.sweep import Plan, coarse_to_fine, walk

ORDERS = [
    forward(),
    backward(),
    windowed(3),
    reset(4, 6),
    switch(5),
    Order("doubling", lambda n: 1 << (n - 1).bit_length() - 1 if n > 1 else 0),
    Order("not monotone", lambda n: 2 if n % 2 and n > 2 else 0),
]
STEPS = 11

pytestmark = pytest.mark.usefixtures("one_thread")  # as a sweep computes


def task(optimizer="sgd"):
    generator = torch.Generator().manual_seed(1)

    def examples(count):
        x = torch.randn(count, 4, generator=generator, dtype=torch.float64)
        return x, torch.randint(0, 3, (count,), generator=generator)

    ragged = [examples(5 if n % 4 else 2) for n in range(1, STEPS + 1)]
    sets = {"train": examples(9), "test": examples(6)}
    return Task(network(), nn.functional.cross_entropy, ragged, OPTIMIZERS[optimizer], sets, seed=3)


def defined(problem, order, steps=STEPS, record=None):
    """The table straight from the definition."""
    trainer = Trainer(problem)
    maps = [TrainingStep(trainer, n) for n in range(1, steps + 1)]
    rows = []
    for n, state in iterates(maps, trainer.state(), order, record):
        evaluated = Trainer(problem)
        evaluated.load(state)
        last = order.anchor(n) + 1 if n else None
        measured = problem.evaluate(evaluated.model(), last)
        rows.append({"seed": problem.seed, "order": order.name, "step": n, **measured})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_every_order_and_optimizer_equals_the_definition(order, optimizer):
    problem = task(optimizer)
    pd.testing.assert_frame_equal(
        trajectory(problem, order, STEPS), defined(problem, order), rtol=1e-12
    )


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(ORDERS), st.lists(st.integers(0, STEPS), min_size=1, max_size=5))
def test_a_subset_in_any_order_equals_the_whole(order, record):
    problem = task("momentum")
    whole = trajectory(problem, order, STEPS)
    part = trajectory(problem, order, STEPS, record)
    expected = whole[whole["step"].isin(record)].reset_index(drop=True)
    expected = expected.dropna(axis=1, how="all")  # at the start no batch has been applied
    pd.testing.assert_frame_equal(part, expected, check_like=True)


def test_five_lines_train_a_model_of_ones_own_in_reverse():
    x = torch.linspace(-1, 1, 40).unsqueeze(1)
    data = torch.utils.data.TensorDataset(x, x**2)
    model = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1))
    before = copy.deepcopy(model.state_dict())

    loader = torch.utils.data.DataLoader(data, batch_size=2, shuffle=True)
    adam = partial(torch.optim.Adam, lr=0.01)
    problem = Task(model, nn.functional.mse_loss, loader, adam, evaluation={"test": (x, x**2)})
    curve = trajectory(problem, backward(), steps=20, record=range(0, 21, 5))

    assert list(curve.columns) == ["seed", "order", "step", "test_loss", "batch_loss"]
    assert curve["step"].tolist() == [0, 5, 10, 15, 20]
    assert curve["test_loss"].iloc[-1] < curve["test_loss"].iloc[0]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_divergence_is_a_result():
    problem = task()
    problem.optimizer = partial(torch.optim.SGD, lr=1e200)
    table = trajectory(problem, forward(), STEPS)
    assert table["step"].tolist() == list(range(STEPS + 1))
    assert np.isfinite(table["train_loss"][0])
    assert not np.isfinite(table["train_loss"].iloc[-1])


@pytest.mark.parametrize(
    ("order", "steps", "record", "message"),
    [
        (forward(), STEPS + 1, None, "needs as many batches"),
        (forward(), STEPS, [STEPS + 1], "cannot be recorded"),
        (Order("odd", lambda n: n), STEPS, None, "the anchor 11; an anchor must lie"),
    ],
)
def test_bad_input_is_refused_before_any_work(order, steps, record, message, monkeypatch):
    monkeypatch.setattr(Trainer, "apply", lambda *_: pytest.fail("work was done"))
    monkeypatch.setattr(Task, "evaluate", lambda *_: pytest.fail("work was done"))
    with pytest.raises(ValueError, match=message):
        trajectory(task(), order, steps, record)


@given(any_order, st.sets(st.integers(0, 60), min_size=1, max_size=12))
def test_a_plan_computes_what_is_needed_once_and_anchors_first(order, recorded):
    plan = Plan.of(order, recorded)
    steps = plan.spine + plan.leaves
    assert sorted(steps) == sorted({*order.closure(recorded), *({0} & recorded)})
    for position, n in enumerate(steps):
        assert n == 0 or order.anchor(n) in {0, *steps[:position]}
    assert not {order.anchor(n) for n in steps if n} & set(plan.leaves)


@given(st.sets(st.integers(1, 500), min_size=1))
def test_coarse_to_fine_keeps_every_step(steps):
    assert sorted(coarse_to_fine(steps)) == sorted(steps)


@pytest.mark.parametrize("spacing", [1, 7, 100])
def test_each_beginning_of_coarse_to_fine_is_spread_out(spacing):
    grid = range(spacing, 32 * spacing, spacing)
    ordered = coarse_to_fine(grid)
    for size in (1, 3, 7, 15):
        gaps = np.diff([0, *sorted(ordered[:size]), 32 * spacing])
        assert gaps.max() == gaps.min()


@pytest.mark.parametrize(("order", "most"), [(forward(), 1), (backward(), 1), (windowed(4), 4)])
def test_states_are_dropped_after_their_last_use(order, most):
    """Forward keeps one state however long the run; windows of 4 over 11 steps keep 3 anchors."""
    trainer = Trainer(task())
    plan = Plan.of(order, range(1, STEPS + 1))
    states = {0: trainer.state()}
    groups = [[n] for n in plan.spine + plan.leaves]
    held = [len(states) for _ in walk(trainer, order, groups, states)]
    assert max(held) <= most
    assert not states


@pytest.mark.parametrize("order", [backward(), windowed(3)], ids=str)
def test_workers_compute_the_same_bits_from_a_stream_that_runs_once(order):
    """Also where model, loss and optimizer cannot be pickled by name."""
    problem = task("momentum")
    batches = list(problem.batches)
    problem.batches = (batch for batch in batches)
    problem.loss = lambda output, target: nn.functional.cross_entropy(output, target)
    alone = trajectory(problem, order, STEPS)
    pd.testing.assert_frame_equal(
        trajectory(problem, order, STEPS, workers=2), alone, check_exact=True
    )


def test_a_given_device_is_used():
    problem = task()
    on_meta = problem.to("meta")  # a device without data that every machine has
    assert {p.device.type for p in on_meta.model.parameters()} == {"meta"}
    assert {part.device.type for part in on_meta.batch(1)} == {"meta"}
    assert {part.device.type for part in on_meta.evaluation["test"]} == {"meta"}
    assert {p.device.type for p in problem.model.parameters()} == {"cpu"}
    pd.testing.assert_frame_equal(
        trajectory(problem, backward(), 4, device="cpu"), trajectory(problem, backward(), 4)
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("device", ["cuda", "nonsense"])
def test_a_device_that_is_not_there_is_refused(device, monkeypatch):
    monkeypatch.setattr(Trainer, "apply", lambda *_: pytest.fail("work was done"))
    with pytest.raises(
        ValueError, match=rf"'{device}' is not there \(.*this machine there is: cpu"
    ):
        trajectory(task(), backward(), 4, device=device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="it needs a GPU that PyTorch can use")
def test_on_a_gpu_the_difference_is_rounding():
    for optimizer in OPTIMIZERS:
        problem = task(optimizer)
        problem.model[4].p = 0.0  # a GPU draws other random numbers
        there, here = (trajectory(problem, backward(), 6, device=d) for d in ("cuda", "cpu"))
        np.testing.assert_allclose(there["test_loss"], here["test_loss"], rtol=1e-9)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nn.functional.mse_loss, "Using a target size"),
        (nn.functional.nll_loss, None),
        (lambda output, target: output, "not one value"),
        (lambda output, target: output @ torch.ones(99, dtype=output.dtype), "size mismatch"),
    ],
)
def test_an_output_that_does_not_fit_the_loss_is_refused(loss, message, monkeypatch):
    problem = task()
    problem.loss = loss
    if message is None:
        trajectory(problem, backward(), 2)
        return
    monkeypatch.setattr(Trainer, "apply", lambda *_: pytest.fail("work was done"))
    with pytest.raises(ValueError, match=f"does not fit the loss: .*{message}.*targets"):
        trajectory(problem, backward(), 2)


def test_progress_counts_the_maps_that_are_applied(capsys):
    trajectory(task(), backward(), STEPS, progress=True)
    assert f"{STEPS * (STEPS + 1) // 2}/{STEPS * (STEPS + 1) // 2}" in capsys.readouterr().err
