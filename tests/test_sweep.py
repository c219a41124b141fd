"""Sweeps against the definition, in double precision, in everything that a state can hold."""

import copy
import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from cases import OPTIMIZERS, ORDERS, any_order, defined, network
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from revlib import Order, Task, backward, forward, tail, trajectory, windowed
from revlib.orders import tree
from revlib.training import sweep
from revlib.training.maps import Trainer
from revlib.training.sweep import coarse_to_fine, models, walk

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


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_every_order_and_optimizer_equals_the_definition(order, optimizer):
    problem = task(optimizer)
    pd.testing.assert_frame_equal(
        trajectory(problem, order, STEPS), defined(problem, order, STEPS), rtol=1e-12
    )


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_models_are_those_of_the_recorded_steps(order):
    problem = task("adam")
    found = {
        n: problem.evaluate(model)["test_loss"]
        for n, model in models(problem, order, [0, 3, 4, 7, 10])
    }
    expected = defined(problem, order, STEPS, [0, 3, 4, 7, 10])
    assert sorted(found) == expected["step"].tolist()
    np.testing.assert_allclose(
        [found[n] for n in expected["step"]], expected["test_loss"], rtol=1e-12
    )


@given(any_order, st.sets(st.integers(0, STEPS), max_size=6))
@settings(deadline=None, max_examples=20)
def test_models_of_the_orders_of_the_library_come_ascending(order, record):
    assert [n for n, _ in models(task(), order, record)] == sorted(record)


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
        (Order("odd", lambda n: [n]), STEPS, None, "at step 11 leaves out 1; it must hold each"),
    ],
)
def test_bad_input_is_refused_before_any_work(order, steps, record, message, monkeypatch):
    monkeypatch.setattr(Trainer, "apply", lambda *_: pytest.fail("work was done"))
    monkeypatch.setattr(Task, "evaluate", lambda *_: pytest.fail("work was done"))
    with pytest.raises(ValueError, match=message):
        trajectory(task(), order, steps, record)


SOURCE = sweep._Given(task())


@given(any_order | st.sampled_from(ORDERS), st.sets(st.integers(0, 60), min_size=1, max_size=12))
def test_a_plan_computes_each_node_once_and_what_others_start_from_first(order, recorded):
    run = sweep._Run(sweep.Job(SOURCE, 3, order, sorted(recorded)))
    nodes = tree(order, recorded)
    assert run.nodes == nodes
    places = run.spine + run.leaves
    assert sorted(places) == list(range(0 if 0 in nodes[0].steps else 1, len(nodes)))
    for position, place in enumerate(places):
        assert nodes[place].parent in {0, *places[:position]}
    assert not {node.parent for node in nodes[1:]} & set(run.leaves)
    firsts = [nodes[place].steps[0] for place in run.leaves]
    assert firsts == coarse_to_fine(firsts)


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


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_states_are_dropped_after_their_last_use(order):
    """One at a time suffices for orders with a single path on which others start."""
    trainer = Trainer(task())
    nodes = dict(enumerate(tree(order, range(1, STEPS + 1))))
    states = {0: trainer.state()}
    held = [len(states) for _ in walk(trainer, nodes, states)]
    assert len(held) == len(nodes)
    assert max(held) == 1
    assert not states


@given(st.lists(st.permutations(range(1, 7)), min_size=STEPS, max_size=STEPS))
@settings(deadline=None, max_examples=20)
def test_for_any_words_few_states_are_held(words):
    """Their iterates and those that are asked for, which stay until the end."""
    order = Order("any", lambda n: [i for i in words[n - 1] if i <= n], permutation=False)
    problem = task()
    trainer = Trainer(problem)
    start = trainer.state()
    nodes = dict(enumerate(tree(order, range(1, STEPS + 1))))
    few = math.log2(len(nodes))
    wanted = {1, len(nodes) - 1}
    for keep in (set(), wanted):
        states = {0: start}
        for place in walk(trainer, nodes, states, keep):
            assert len(states) <= few + len(keep & set(range(place + 1)))
        assert set(states) == keep
    pd.testing.assert_frame_equal(
        trajectory(problem, order, STEPS), defined(problem, order, STEPS), rtol=1e-12
    )


def test_a_walk_may_start_from_states_that_are_known():
    problem = task("momentum")
    trainer, order = Trainer(problem), windowed(3)
    nodes = dict(enumerate(tree(order, range(STEPS + 1))))
    states = {0: trainer.state()}
    whole = {}
    for place in walk(trainer, nodes, states, set(nodes)):
        whole[place] = problem.evaluate(trainer.model())
    middle = next(place for place, node in nodes.items() if node.steps == [6])
    later = {place: node for place, node in nodes.items() if node.parent == middle and place}
    assert len(later) == 3
    known = {middle: states[middle]}
    assert list(walk(Trainer(problem), later, known)) == list(later)
    assert not known
    again, known = Trainer(problem), {middle: states[middle]}
    for place in walk(again, later, known, {middle}):
        assert problem.evaluate(again.model()) == whole[place]
    assert set(known) == {middle}


# How many states there is room for in the process that hands out the work.


@pytest.fixture
def kept(monkeypatch):
    """The states that each run has kept: (those that leaves start from, all) at each hand-over."""
    found = []
    take = sweep._Run.take

    def watched(run, done):
        take(run, done)
        found.append((len(run.branching & run.states.keys()), len(run.states), run.room))

    monkeypatch.setattr(sweep._Run, "take", watched)
    return found


@pytest.mark.parametrize("seconds", [-1, 60], ids=["slices of one node", "no slices"])
@pytest.mark.parametrize("room", [1, 2])
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_with_room_for_few_states_the_numbers_are_the_same(order, room, seconds, monkeypatch, kept):
    problem = task("momentum")
    whole = trajectory(problem, order, STEPS)
    kept.clear()
    size = Trainer(problem).state().nbytes()
    monkeypatch.setattr(sweep, "KEPT_BYTES", 1 if room == 1 else room * size)
    monkeypatch.setattr(sweep, "SLICE_SECONDS", seconds)
    pd.testing.assert_frame_equal(trajectory(problem, order, STEPS), whole, check_exact=True)
    few = math.log2(len(tree(order, range(STEPS + 1))))
    assert kept
    for branching, states, allowed in kept:
        assert allowed == room
        assert branching <= room
        assert states <= room + few


def test_the_room_is_what_stands_between_few_states_and_many(monkeypatch, kept):
    problem = task()
    trajectory(problem, tail(1), STEPS)
    assert max(states for _, states, _ in kept) == STEPS - 2
    kept.clear()
    monkeypatch.setattr(sweep, "KEPT_BYTES", 1)
    trajectory(problem, tail(1), STEPS)
    assert max(states for _, states, _ in kept) == 1


def test_several_runs_share_the_room(monkeypatch, kept):
    problem = task()
    source = sweep._Given(problem)
    orders = [windowed(2), tail(2)]
    jobs = [sweep.Job(source, 3, order, list(range(STEPS + 1))) for order in orders]
    monkeypatch.setattr(sweep, "KEPT_BYTES", 4 * Trainer(problem).state().nbytes())
    rows = [row for rows in sweep.compute(jobs) for row in rows]
    assert {room for *_, room in kept} == {2}
    for order in orders:
        table = pd.DataFrame([row for row in rows if row["order"] == order.name])
        table = table.sort_values("step", ignore_index=True)
        pd.testing.assert_frame_equal(
            table, trajectory(problem, order, STEPS), check_like=True, check_exact=True
        )


@pytest.mark.parametrize("kept_bytes", [1, sweep.KEPT_BYTES])
@pytest.mark.parametrize("order", [backward(), windowed(3), tail(3)], ids=str)
def test_workers_compute_the_same_bits_from_a_stream_that_runs_once(order, kept_bytes, monkeypatch):
    """Also where model, loss and optimizer cannot be pickled by name."""
    problem = task("momentum")
    batches = list(problem.batches)
    problem.batches = (batch for batch in batches)
    problem.loss = lambda output, target: nn.functional.cross_entropy(output, target)
    alone = trajectory(problem, order, STEPS)
    monkeypatch.setattr(sweep, "KEPT_BYTES", kept_bytes)
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
