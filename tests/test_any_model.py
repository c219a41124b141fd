"""Any model: what a task takes, against a replay in plain torch; or refused in a sentence."""

import collections
import copy
import dataclasses
import functools
import pickle
import random
import threading
import types
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_pre_hook

from revlib import Task, backward, reset, switch, tail, trajectory, windowed
from revlib.runs.engine import Plan
from revlib.training import batches, dense, mementos, sweep
from revlib.training.maps import Trainer

STEPS = 6
ORDERS = [backward(), windowed(3)]
SGD = functools.partial(torch.optim.SGD, lr=0.3)

pytestmark = pytest.mark.usefixtures("one_thread")


def data(steps=STEPS, size=4, examples=20):
    generator = torch.Generator().manual_seed(1)

    def some(count):
        x = torch.randn(count, 3, generator=generator, dtype=torch.float64)
        return x, torch.randint(2, (count,), generator=generator)

    return [some(size) for _ in range(steps)], some(examples)


def plain(between=nn.Tanh):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), between(), nn.Linear(4, 2)).double()


def of(kind):
    def make():
        torch.manual_seed(0)
        return kind().double()

    return make


def gradient(model, criterion, optimizer, x, y):
    optimizer.zero_grad()
    value = criterion(model(x), y)
    value.backward()
    return value


def replayed(make, optimizer, order, loss=lambda: F.cross_entropy, steps=STEPS, seed=0):
    """The test loss at each step: everything made anew for each of them, and a plain loop."""
    found, (stream, (x_test, y_test)) = [], data()
    for n in range(steps + 1):
        model, criterion = make(), loss()
        made = optimizer(model.parameters())
        for i in order.applied(n):
            drawn = (seed * 1_000_003 + i) % 2**64
            torch.manual_seed(drawn)
            random.seed(drawn)
            np.random.seed([drawn % 2**32, drawn >> 32])
            x, y = (tensor.clone() for tensor in stream[i - 1])

            closure = functools.partial(gradient, model, criterion, made, x, y)
            if isinstance(made, torch.optim.LBFGS):
                made.step(closure)
            else:
                closure()
                made.step()
        model.eval()
        found.append(criterion(model(x_test.clone()), y_test).item())
    return found


def task(model=None, optimizer=SGD, loss=F.cross_entropy, stream=None, evaluation=None, **more):
    made, test = data()
    sets = {"test": test} if evaluation is None else evaluation
    return Task(model or plain(), loss, made if stream is None else stream, optimizer, sets, **more)


def same(make=plain, optimizer=SGD, loss=lambda: F.cross_entropy, given=None):
    """Assert that the curves are those of the replay, and that they are no straight lines."""
    for order in ORDERS:
        problem = task((given or make)(), optimizer, loss())
        curve = trajectory(problem, order, STEPS)["test_loss"].tolist()
        assert curve == pytest.approx(replayed(make, optimizer, order, loss), rel=1e-12)
        assert len(set(curve)) > STEPS / 2


# Hooks, schedules, closures.


def clipping(parameters):
    parameters = list(parameters)
    optimizer = torch.optim.SGD(parameters, lr=0.5)
    optimizer.register_step_pre_hook(lambda *_: nn.utils.clip_grad_norm_(parameters, 0.05) and None)
    return optimizer


def scheduled(parameters):
    optimizer = torch.optim.SGD(parameters, lr=0.5)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.1)
    optimizer.register_step_post_hook(lambda *_: schedule.step())
    return optimizer


def unfreezing(parameters):
    """Train the last layer first, as fine-tuning does."""
    parameters = list(parameters)
    optimizer = torch.optim.Adam(parameters, lr=0.05)
    parameters[0].requires_grad_(False)
    steps = []

    def after(*_):
        steps.append(None)
        parameters[0].requires_grad_(len(steps) >= 2)

    optimizer.register_step_post_hook(after)
    return optimizer


def in_half(parameters):
    """Momentum that is kept in another precision than the parameters."""
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)

    def rounded(*_):
        for state in optimizer.state.values():
            state["momentum_buffer"] = state["momentum_buffer"].bfloat16()

    def back(*_):
        for state in optimizer.state.values():
            state["momentum_buffer"] = state["momentum_buffer"].double()

    optimizer.register_step_post_hook(rounded)
    optimizer.register_step_pre_hook(back)
    return optimizer


def lbfgs(parameters):
    return torch.optim.LBFGS(parameters, lr=0.1, max_iter=3)


@pytest.mark.parametrize("between", [nn.ReLU, nn.Tanh])
@pytest.mark.parametrize("optimizer", [clipping, scheduled, unfreezing, in_half, lbfgs])
def test_what_hangs_on_an_optimizer_is_part_of_the_replay(optimizer, between):
    same(lambda: plain(between), optimizer)


def shrink(parameter):
    parameter.grad *= 0.1


def hooked(hook):
    model = plain(nn.ReLU)
    hook(model)
    return model


@pytest.mark.parametrize(
    "hook",
    [
        lambda model: model[2].register_full_backward_hook(lambda m, i, o: (2 * i[0],)),
        lambda model: model[2].register_full_backward_pre_hook(lambda m, o: (3 * o[0],)),
        lambda model: model[0].weight.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01)),
        lambda model: model[0].weight.register_post_accumulate_grad_hook(shrink),
        lambda model: model[0].register_forward_hook(lambda m, i, o: o.clamp(-1, 1)),
    ],
    ids=["backward", "backward pre", "tensor", "accumulated", "forward"],
)
def test_hooks_of_modules_and_parameters_are_called(hook):
    same(lambda: hooked(hook))


# State that is neither a parameter nor a buffer.


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.calls = nn.Linear(3, 2), 0

    def forward(self, x):
        self.calls += self.training
        return self.f(x) * min(1.0, (1 + self.calls) / 5)


class Carries(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out, self.h = nn.RNNCell(3, 4), nn.Linear(4, 2), None

    def forward(self, x):
        if not self.training:
            return self.out(self.cell(x))
        h = self.cell(x, self.h)
        self.h = h.detach()
        return self.out(h)


class Grows(nn.Module):
    """Buffers that come, grow, and are views with one entry in several places."""

    def __init__(self):
        super().__init__()
        self.f = nn.Linear(3, 2)
        self.register_buffer("mean", None)
        self.register_buffer("seen", torch.zeros(0))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x):
        if self.training:
            now = x.detach().mean(0)
            self.mean = now if self.mean is None else 0.9 * self.mean + 0.1 * now
            self.seen.resize_(len(self.seen) + 1).fill_(0.1)
            self.scale = self.scale.flatten()[:1].expand(3) * 0.9
        return self.f((x if self.mean is None else x - self.mean) * self.scale + self.seen.sum())


@dataclasses.dataclass
class Remembered:
    __slots__ = ("best", "history")
    best: float
    history: collections.deque


class Hangs(nn.Module):
    """Objects, containers and closures that change while it trains."""

    def __init__(self):
        super().__init__()
        self.f = nn.Linear(3, 2)
        self.of_own = Remembered(9.0, collections.deque(maxlen=3))
        self.of_others = types.SimpleNamespace(seen=set(), table={}, raw=bytearray(b"\0"))
        self.array = np.zeros(2)
        count = 0

        def counted():
            nonlocal count
            count += 1
            return count

        self.counted = counted

    def forward(self, x):
        if self.training:
            level = x.mean().item()
            self.of_own.best = min(self.of_own.best, level)
            self.of_own.history.append(level)
            self.of_others.seen.add(round(level, 1))
            self.of_others.table.setdefault("levels", []).append(level)
            self.of_others.raw[0] += 1
            self.array += level
            step = self.counted()
            terms = [self.of_own.best, *self.of_own.history, len(self.of_others.seen), step]
            terms += [*self.of_others.table["levels"], self.of_others.raw[0], self.array.sum()]
            return self.f(x) * (1 + 0.01 * float(sum(terms)))
        return self.f(x)


class Draws(nn.Module):
    """Random numbers from everywhere."""

    def __init__(self):
        super().__init__()
        self.f = nn.Linear(3, 2)
        self.torchs = torch.Generator().manual_seed(1)
        self.numpys = np.random.default_rng(2)
        self.olds = np.random.RandomState(3)
        self.pythons = random.Random(4)

    def forward(self, x):
        if not self.training:
            return self.f(x)
        drawn = torch.rand(1, generator=self.torchs).item() + self.numpys.random()
        drawn += self.olds.rand() + self.pythons.random() + np.random.rand() + random.random()
        return self.f(F.dropout(x, 0.2) * drawn)


@pytest.mark.parametrize("kind", [Counts, Carries, Grows, Hangs, Draws])
@pytest.mark.parametrize("optimizer", [SGD, functools.partial(torch.optim.Adam, lr=0.05)])
def test_what_a_module_holds_is_part_of_the_replay(kind, optimizer):
    same(of(kind), optimizer)


class Weighs(nn.Module):
    """A loss with state of its own."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.uses = 0

    def forward(self, output, targets):
        if torch.is_grad_enabled():
            self.scale = self.scale * 0.9 + 0.1 * output.detach().abs().mean()
            self.uses += 1
        return F.cross_entropy(output, targets) * self.scale / (1 + self.uses)


def test_what_a_loss_holds_is_part_of_the_replay_and_stays_the_callers():
    loss = Weighs()
    problem = task(loss=loss)
    curve = trajectory(problem, backward(), STEPS)["test_loss"]
    assert loss.uses == 0
    with_grad = replayed_without_counting_evaluation(Weighs)
    assert curve.tolist() == pytest.approx(with_grad, rel=1e-12)


def replayed_without_counting_evaluation(make_loss):
    found, (stream, (x, y)) = [], data()
    for n in range(STEPS + 1):
        model, loss = plain(), make_loss()
        optimizer = SGD(model.parameters())
        for i in backward().applied(n):
            optimizer.zero_grad()
            loss(model(stream[i - 1][0]), stream[i - 1][1]).backward()
            optimizer.step()
        with torch.no_grad():
            found.append(loss(model(x), y).item())
    return found


@pytest.mark.parametrize("room", [1, 2**30])
def test_states_travel_between_processes(room, monkeypatch):
    problem = task(of(Hangs)(), unfreezing)
    alone = trajectory(problem, windowed(3), STEPS)
    monkeypatch.setattr(sweep, "KEPT_BYTES", room)
    monkeypatch.setattr(sweep, "SLICE_SECONDS", -1)
    again = trajectory(problem, windowed(3), STEPS, workers=2)
    assert again.equals(alone)


def test_what_evaluation_leaves_behind_is_removed():
    class Counted(Counts):
        def forward(self, x):
            self.calls += 1
            return self.f(x) * min(1.0, self.calls / 20)

    problem = task(of(Counted)())
    whole = trajectory(problem, tail(2), STEPS)["test_loss"]
    part = trajectory(problem, tail(2), STEPS, [2, 4, 6])["test_loss"]
    assert part.tolist() == whole[[2, 4, 6]].tolist()


def test_the_callers_random_numbers_go_on_as_if_nothing_had_been_drawn():
    trainer = Trainer(task(of(Draws)()))
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    before = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    trainer.apply(1)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == before


CALLS = [0]


def test_what_no_object_holds_is_found_by_a_second_replay(monkeypatch):
    class Global(Counts):
        def forward(self, x):
            CALLS[0] += 1
            return self.f(x) * CALLS[0]

    monkeypatch.setattr(Trainer, "apply", lambda *_: pytest.fail("work was done"))
    with pytest.raises(ValueError, match=r"taken again from the same state: 'model\.\S+' differs"):
        trajectory(task(of(Global)()), backward(), 3)


def test_a_factory_that_makes_another_model_each_time_is_refused():
    generator = torch.Generator().manual_seed(0)

    def make():
        model = plain()
        nn.init.normal_(model[0].weight, generator=generator)
        return model

    with pytest.raises(ValueError, match="another one each time: 'model.0.weight' differs"):
        trajectory(task(make), backward(), 3)


# Batches that change, and of other shapes.


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(3, 2)

    def forward(self, x):
        return self.f(x.sub_(0.5).div_(2.0))


def test_batches_that_are_changed_in_place_are_seen_as_they_were():
    stream, test = data()
    for order in ORDERS:
        problem = task(of(InPlace)(), stream=stream, evaluation={"test": test})
        curve = trajectory(problem, order, STEPS)["test_loss"].tolist()
        assert curve == pytest.approx(replayed(of(InPlace), SGD, order), rel=1e-12)
    for given, fresh in zip([*stream, test], [*data()[0], data()[1]], strict=True):
        assert torch.equal(given[0], fresh[0])


def test_a_loader_that_fills_one_buffer_again_and_again():
    def refilled():
        x, y = torch.empty(4, 3, dtype=torch.float64), torch.empty(4, dtype=torch.long)
        for inputs, targets in data()[0]:
            x.copy_(inputs)
            y.copy_(targets)
            yield x, y

    curve = trajectory(task(stream=refilled()), backward(), STEPS)["test_loss"].tolist()
    assert curve == pytest.approx(replayed(plain, SGD, backward()), rel=1e-12)


class Takes(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(3, 2)

    def forward(self, x):
        if isinstance(x, dict):
            return self.f(x["a"])
        if isinstance(x, nn.utils.rnn.PackedSequence):
            return self.f(x.data)
        return self.f(x if isinstance(x, torch.Tensor) else x[0] + x[1])


Two = collections.namedtuple("Two", "one other")


@pytest.mark.parametrize(
    "shape",
    [
        lambda x: {"a": x, "name": "kept"},
        lambda x: (x / 2, x / 2),
        lambda x: Two(x / 2, x / 2),
        lambda x: x.numpy(),
        lambda x: {"a": x.numpy()},
        lambda x: x.flip(0).numpy()[::-1],
        lambda x: nn.utils.rnn.pack_sequence(list(x[:, None])),
    ],
    ids=["dict", "tuple", "named", "NumPy", "NumPy inside", "NumPy flipped", "packed"],
)
def test_inputs_of_any_structure(shape):
    stream, (x, y) = data()
    stream = [(shape(inputs), targets) for inputs, targets in stream]
    problem = task(of(Takes)(), stream=stream, evaluation={"test": (shape(x), y.numpy())})
    curve = trajectory(problem, backward(), STEPS)
    assert curve["test_loss"].tolist() == pytest.approx(replayed(of(Takes), SGD, backward()))
    assert "test_accuracy" in curve


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (lambda x, y: {"input": x, "labels": y}, r"a dict of 2 \(input, labels\), not a pair"),
        (lambda x, y: (x, y, y), "a tuple of 3, not a pair"),
        (lambda x, y: (x,), "a tuple of 1, not a pair"),
        (lambda x, y: x, "a Tensor, not a pair"),
    ],
)
def test_batches_whose_meaning_is_not_clear_are_refused(shape, message):
    stream = [shape(*batch) for batch in data()[0]]
    with pytest.raises(ValueError, match=f"Batch 1 is {message}.*revlib.Task.of"):
        trajectory(task(stream=stream), backward(), 3)


def test_a_batch_that_cannot_be_drawn_is_named():
    def ends_in_an_error():
        yield from data()[0][:2]
        raise OSError("file is corrupt")

    message = r"Batch 3 cannot be drawn from the generator \(OSError\): file is corrupt\."
    with pytest.raises(ValueError, match=message):
        trajectory(task(stream=ends_in_an_error()), backward(), 5)


def ragged(x):
    """An array of arrays of several lengths."""
    found = np.empty(len(x), dtype=object)
    found[:] = [row[: 1 + n % 3].numpy() for n, row in enumerate(x)]
    return found


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (ragged, "arrays of arrays or tensors cannot be compared. Give a list"),
        (lambda x: np.array(["text"] * len(x)), "of type <U4 no tensor can be made. Give numbers"),
        (lambda x: torch.nested.nested_tensor(list(x)), "Nested tensors .* Give a list"),
    ],
)
def test_what_cannot_be_compared_or_be_a_tensor_is_refused(shape, message):
    stream, (x, y) = data()
    with pytest.raises(ValueError, match=message):
        trajectory(task(stream=[({"a": shape(x)}, y) for x, y in stream]), backward(), 3)
    with pytest.raises(ValueError, match=message):
        task(evaluation={"test": (shape(x), y)})


class Labelled(torch.utils.data.Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, index):
        x, y = data()[1]
        return x[index], int(y[index])


@pytest.mark.parametrize("labelled", [False, True])
def test_a_data_set_of_single_examples_is_no_stream_of_batches(labelled):
    stream = Labelled() if labelled else torch.utils.data.TensorDataset(*data()[1])
    with pytest.raises(ValueError, match="single examples. Give a loader"):
        trajectory(task(stream=stream), backward(), 3)


def test_a_batch_that_is_another_one_each_time_is_refused():
    class Augmented(list):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return x + torch.randn_like(x), y

    with pytest.raises(ValueError, match="Batch 1 is another one each time"):
        trajectory(task(stream=Augmented(data()[0])), backward(), 3)


def test_a_batch_that_cannot_be_trained_on_is_named():
    stream = data()[0]
    stream[3] = tuple(part[:1] for part in stream[3])
    norm = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    with pytest.raises(ValueError, match=r"step on batch 4 failed .*more than 1 value"):
        trajectory(task(norm, stream=stream), backward(), STEPS)


# Evaluation.


def evaluated(model, loss, evaluation, **more):
    return Task(model, loss, [], SGD, {"test": evaluation}, **more).evaluate(model)


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 9.0], dtype=torch.float64)),
        nn.CrossEntropyLoss(ignore_index=1),
        nn.CrossEntropyLoss(reduction="sum"),
        lambda output, y: F.cross_entropy(output, y).sqrt(),
    ],
    ids=["weights", "ignored", "sum", "own"],
)
def test_the_loss_is_that_of_the_whole_set_whatever_it_averages_over(loss):
    x, y = data(examples=2300)[1]
    y[:1000] = 0
    model = plain()
    assert evaluated(model, loss, (x, y))["test_loss"] == pytest.approx(loss(model(x), y).item())


def test_accuracy_counts_the_labelled_only():
    x, y = data(examples=1500)[1]
    y[:900] = -100
    model = plain()
    right = (model(x).argmax(1) == y)[900:].double().mean().item()
    assert evaluated(model, F.cross_entropy, (x, y))["test_accuracy"] == pytest.approx(right)
    assert "test_accuracy" not in evaluated(model, lambda o, t: o.sum(), (x, y + 50))


@pytest.mark.parametrize("targets", [torch.float64, torch.long])
def test_one_logit_has_no_accuracy_but_a_metric_may_be_passed(targets):
    x, y = data()[1]
    model = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)).double()
    flat = evaluated(model, lambda o, t: F.binary_cross_entropy_with_logits(o, t.double()), (x, y))
    assert list(flat) == ["test_loss"]
    found = evaluated(
        model[0],
        lambda output, t: F.binary_cross_entropy_with_logits(output[:, 0], t.double()),
        (x, y.to(targets)),
        metrics={"right": lambda output, t: ((output[:, 0] > 0) == t.bool()).double().mean()},
    )
    assert list(found) == ["test_loss", "test_right"]
    assert found["test_right"] == ((model[0](x)[:, 0] > 0) == y.bool()).double().mean().item()


class TimeFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.RNN(3, 2)

    def forward(self, x):
        return self.f(x)[0]


def test_a_set_whose_first_axis_is_time_is_evaluated_at_once():
    model = of(TimeFirst)()
    x, y = torch.randn(2500, 2, 3).double(), torch.randn(2500, 2, 2).double()
    expected = F.mse_loss(model(x), y).item()
    assert evaluated(model, F.mse_loss, (x, y)) == {"test_loss": pytest.approx(expected, rel=1e-12)}


class Centred(nn.Module):
    """What it gives depends on which examples come together."""

    def __init__(self):
        super().__init__()
        self.f = nn.Linear(3, 2)

    def forward(self, x):
        return self.f(x - x.mean(0))


class AllAtOnce(Centred):
    def forward(self, x):
        return self.f(x.view(2500, 3))


class Backwards(TimeFirst):
    def forward(self, x):
        return self.f(x.flip(0)[:, None])[0].flip(0)[:, 0]


@pytest.mark.parametrize(
    ("kind", "same"),
    [
        (Centred, slice(0, 4)),
        (Centred, slice(0, 1000)),
        (Centred, slice(1000, 2500)),
        (Centred, slice(4, 2500)),
        (Backwards, slice(0, 900)),
        (AllAtOnce, slice(0, 0)),
    ],
)
def test_examples_that_look_at_each_other_are_evaluated_at_once_also_where_some_are_alike(
    kind, same
):
    model = of(kind)()
    x, y = torch.randn(2500, 3).double() + torch.arange(2500)[:, None] / 1000, torch.randn(2500, 2)
    x[same] = 1.0
    expected = F.mse_loss(model(x), y.double()).item()
    assert evaluated(model, F.mse_loss, (x, y.double())) == {
        "test_loss": pytest.approx(expected, rel=1e-12)
    }


class Output(collections.OrderedDict):
    __getattr__ = collections.OrderedDict.__getitem__


@pytest.mark.parametrize("form", [lambda y, x: Output(logits=y), lambda y, x: (y, x)])
def test_outputs_may_be_dictionaries_or_tuples(form):
    class Forms(Takes):
        def forward(self, x):
            return form(self.f(x), x)

    x, y = data(examples=2001)[1]
    model = of(Forms)()
    found = evaluated(model, lambda o, t: F.cross_entropy(next(iter(values(o))), t), (x, y))
    expected = F.cross_entropy(model.f(x), y).item()
    assert found == {"test_loss": pytest.approx(expected, rel=1e-12)}


def values(output):
    return output.values() if isinstance(output, dict) else output


@pytest.mark.parametrize("count", [1, 1001, 2001])
def test_batch_normalisation_of_one_example_has_no_statistics(count):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    found = evaluated(model, F.cross_entropy, data(examples=count)[1])
    assert ("test_loss_by_batch" in found) == (count > 1)


class Forces(nn.Module):
    """Its output is a derivative by the input."""

    def __init__(self):
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)[0][:, :2]


class Cached(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.table = nn.Linear(3, 2), None

    def forward(self, x):
        if self.table is None:
            self.table = torch.linspace(0.5, 1.5, 3, dtype=x.dtype)
        return self.f(x * self.table)


@pytest.mark.parametrize("kind", [Forces, Cached])
def test_gradients_inside_and_tables_that_are_made_in_evaluation(kind):
    same(of(kind))


@pytest.mark.parametrize("form", ["loader", "loader of one batch", "data set", "labelled", "NumPy"])
def test_an_evaluation_set_may_come_in_many_forms(form):
    x, y = data()[1]
    whole = torch.utils.data.TensorDataset(x, y)
    given = {
        "loader": torch.utils.data.DataLoader(whole, 7),
        "loader of one batch": torch.utils.data.DataLoader(whole, 20),
        "data set": whole,
        "labelled": Labelled(),
        "NumPy": (x.numpy(), y.numpy()),
    }[form]
    model = plain()
    expected = evaluated(model, F.cross_entropy, (x, y))
    assert evaluated(model, F.cross_entropy, given) == expected


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        (data()[1], r"come by name, \{'test': \(inputs, targets\)\}; got a tuple"),
        ({"test": tuple(part[:0] for part in data()[1])}, "'test' has no examples"),
        ({"test": (data()[1][0], data()[1][1][:-1])}, r"on 'test' failed: .*\(20, 3\), targets"),
        ({"test": data()[1][0]}, "'test' is a Tensor, not a pair"),
    ],
)
def test_an_evaluation_set_that_is_none_is_refused(evaluation, message):
    with pytest.raises(ValueError, match=message):
        trajectory(task(evaluation=evaluation), backward(), 3)


def test_a_metric_that_does_not_work_is_refused_but_a_path_may_diverge():
    def strict(output, targets):
        if not output.isfinite().all():
            raise ValueError("Input contains NaN")
        return 1.0

    problem = task(metrics={"strict": strict})
    assert problem.evaluate(problem.model)["test_strict"] == 1
    nn.init.constant_(problem.model[0].weight, np.nan)
    assert np.isnan(problem.evaluate(problem.model)["test_strict"])
    nn.init.constant_(problem.model[0].weight, 0)
    problem.metrics = {"broken": lambda output, targets: float("x")}
    with pytest.raises(ValueError, match="could not convert"):
        trajectory(problem, backward(), STEPS)


@pytest.mark.parametrize(
    "metric",
    [
        *(5, lambda output: 1, lambda output, y: 1 / 0, lambda output, y: None),
        *(lambda output, y: output, lambda output, y: "high", lambda output, y: [1, 2]),
    ],
)
def test_a_metric_that_is_none_is_named(metric):
    message = r"metric 'mine' failed on 'test' \(.*It must be a function of two arguments"
    with pytest.raises(ValueError, match=message):
        trajectory(task(metrics={"mine": metric}), backward(), 3)


@pytest.mark.parametrize(
    ("sets", "metric", "column"),
    [
        (("test", "test_a"), "a_loss", "test_a_loss"),
        (("test_a", "test"), "a_accuracy", "test_a_accuracy"),
        (("batch_a",), "a_loss", "batch_a_loss"),
    ],
)
def test_two_things_of_one_name_are_refused(sets, metric, column):
    problem = task(
        evaluation=dict.fromkeys(sets, data()[1]), metrics={metric: lambda output, y: -1.0}
    )
    message = f"column '{column}' would be both '.*' of the set '.*' and .*another name"
    with pytest.raises(ValueError, match=message):
        trajectory(problem, backward(), 3)


# Modes, copies, optimizers.


def frozen():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 2)
    ).double()
    model[1].running_mean.fill_(0.3)
    for layer in (model[1], model[3]):
        layer.eval()
    return model


def test_frozen_layers_stay_frozen():
    same(frozen)
    problem = task(frozen())
    trajectory(problem, backward(), 3)
    assert [module.training for module in problem.model] == [True, False, True, False, True]
    assert "test_loss_by_batch" not in problem.evaluate(problem.model)


class Holds(nn.Module):
    def __init__(self, thing):
        super().__init__()
        self.f, self.thing = nn.Linear(3, 2), thing

    def forward(self, x):
        return self.f(x)


def patched():
    model = plain()
    forward = model.forward
    model.forward = lambda x: forward(x)
    return model


def old_weight_norm():
    torch.manual_seed(0)
    return nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 4)), nn.Tanh(), nn.Linear(4, 2)).double()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: of(lambda: Holds(threading.Lock()))(), "cannot be copied: cannot pickle '_thread"),
        (lambda: of(lambda: Holds(i for i in ()))(), "cannot be copied: cannot pickle 'generator'"),
        (old_weight_norm, "cannot be copied: Only Tensors created explicitly"),
        (lambda: torch.jit.script(plain()), "cannot be copied: its parameters"),
    ],
    ids=["lock", "generator", "weight norm", "script"],
)
def test_what_cannot_be_copied_is_refused_and_may_come_as_a_function(make, message):
    with pytest.raises(ValueError, match=f"{message}.*make_model"):
        trajectory(task(make()), backward(), 3)
    same(make, given=lambda: make)


def with_observer():
    """A model whose hook closes over a list of the caller's, and over the model itself."""
    model, seen = plain(), []

    def observe(module, inputs, output):
        seen.append(1)
        return output / len(seen) + model[2].weight.mean()

    model[2].register_forward_hook(observe)
    return model


@pytest.mark.parametrize("make", [patched, with_observer])
def test_functions_that_close_over_the_model_are_copied_with_it(make):
    curve = trajectory(task(make()), backward(), STEPS)["test_loss"]
    again = trajectory(task(make), backward(), STEPS)["test_loss"]
    assert curve.tolist() == again.tolist()
    assert len(set(curve)) > 3
    if make is patched:
        same(patched)


def test_a_loss_may_close_over_the_model_but_not_use_a_global_one(monkeypatch):
    def penalised(model):
        return lambda output, y: F.cross_entropy(output, y) + model[0].weight.norm()

    model = plain()
    curve = trajectory(task(model, loss=penalised(model)), backward(), STEPS)["test_loss"]
    expected = []
    for n in range(STEPS + 1):
        fresh = plain()
        loss, optimizer = penalised(fresh), SGD(fresh.parameters())
        for i in backward().applied(n):
            gradient(fresh, loss, optimizer, *data()[0][i - 1])
            optimizer.step()
        expected.append(loss(fresh(data()[1][0]), data()[1][1]).item())
    assert curve.tolist() == pytest.approx(expected, rel=1e-12)

    monkeypatch.setitem(globals(), "GIVEN", model)
    with pytest.raises(ValueError, match=r"use the model that was given.*'loss\.\S+'.*make_model"):
        trajectory(task(model, loss=with_a_global), backward(), 3)


def with_a_global(output, y):
    return F.cross_entropy(output, y) + GIVEN[0].weight.norm()  # noqa: F821


MODELS = {}


def norm(*_):
    return sum(parameter.norm() for parameter in MODELS["given"].parameters())


class Penalised(nn.Module):
    def forward(self, output, y):
        return F.cross_entropy(output, y) + norm()


def clipping_the_given(parameters):
    optimizer = SGD(parameters)
    clip = functools.partial(nn.utils.clip_grad_norm_, max_norm=0.1)
    optimizer.register_step_pre_hook(lambda *_: clip(MODELS["given"].parameters()) and None)
    return optimizer


def patched_with_a_global():
    original = MODELS["given"].forward
    MODELS["forward"] = original
    return lambda x: MODELS["forward"](x)


class Child(nn.Module):
    def __init__(self, parent):
        super().__init__()
        self.parent = weakref.ref(parent)

    def forward(self, x):
        return x * self.parent()[0].weight.mean()


@pytest.mark.parametrize(
    "more",
    [
        lambda: {"loss": lambda output, y: F.cross_entropy(output, y) + norm()},
        lambda: {"loss": lambda output, y: F.cross_entropy(output, y) + sum(norm() for _ in "a")},
        lambda: {"loss": Penalised()},
        lambda: {"optimizer": clipping_the_given},
        lambda: {"metrics": {"norm": norm}},
        lambda: setattr(MODELS["given"], "forward", patched_with_a_global()) or {},
        lambda: MODELS["given"].append(Child(MODELS["given"])) and {},
    ],
    ids=["function", "generator", "module", "hook", "metric", "patched", "weak reference"],
)
def test_what_leads_to_the_given_model_is_refused(more, monkeypatch):
    model = plain()
    monkeypatch.setitem(MODELS, "given", model)
    with pytest.raises(ValueError, match="use the model that was given.*in one function"):
        trajectory(task(model, **more()), backward(), 3)
    assert all(parameter.grad is None for parameter in model.parameters())


class Somewhere:
    weight = torch.ones(1)


def test_gradients_on_the_given_model_are_refused_whatever_led_there(monkeypatch):
    model = plain()
    monkeypatch.setattr(Somewhere, "weight", model[0].weight)

    def loss(output, y):
        return F.cross_entropy(output, y) + Somewhere.weight.norm()

    with pytest.raises(ValueError, match="leaves gradients, or new values, on the model that was"):
        trajectory(task(model, loss=loss), backward(), 3)
    assert model[0].weight.grad is None


def test_an_optimizer_on_other_parameters_is_refused():
    model = plain()
    with pytest.raises(ValueError, match="does not hold the parameters it was given: 4 of 4"):
        trajectory(task(model, lambda _: SGD(model.parameters())), backward(), 3)
    same(optimizer=lambda p: torch.optim.SGD([{"params": [q], "lr": 0.1} for q in p], lr=1.0))
    with pytest.raises(ValueError, match="must be a function that makes one.*a NoneType"):
        trajectory(task(model, lambda _: None), backward(), 3)


def test_the_fast_way_takes_what_it_can_and_leaves_the_rest():
    stream, _ = data()
    for _, y in stream[1:]:
        y[::3] = -100
    stream[3][1][:] = -100  # none counts: a step of length zero
    problem = task(plain(nn.ReLU), stream=stream)
    assert dense.applies(problem)
    fast, slow = (
        trajectory(problem, windowed(3), STEPS, strategy=each) for each in ("dense", "eager")
    )
    assert fast["test_loss"].tolist() == pytest.approx(slow["test_loss"].tolist(), rel=1e-12)

    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    wide = [(x.float(), torch.stack([y, -y], 1).double()) for x, y in data()[0]]
    sets = {"test": wide[0]}
    problem = task(model, loss=F.mse_loss, stream=wide, evaluation=sets)
    assert dense.applies(problem)
    fast, slow = (trajectory(problem, backward(), STEPS, strategy=e) for e in ("dense", "eager"))
    assert fast["test_loss"].tolist() == pytest.approx(slow["test_loss"].tolist(), rel=1e-5)

    assert not dense.applies(task(patched()))
    assert not dense.applies(task(hooked(lambda m: m[0].weight.register_hook(lambda g: g))))


# Numbers.


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor])
def test_whole_numbers_of_any_kind(kind):
    problem = task()
    expected = trajectory(problem, windowed(3), 4, [0, 2, 4])
    assert trajectory(problem, windowed(kind(3)), kind(4), [kind(0), kind(2), kind(4)]).equals(
        expected
    )
    assert reset(kind(2), kind(4)).name == "reset(2, 4)"
    assert switch(kind(2)).name == "switch(2)"
    assert trajectory(problem, windowed(3), 4, torch.tensor([0, 2, 4, 4])).equals(expected)
    assert trajectory(problem, windowed(3), 4, np.linspace(0, 4, 3)).equals(expected)
    assert task(seed=kind(7)).seed == 7


@pytest.mark.parametrize("seed", [1_762_000_000_000_000_000, 2**63, 2**64 + 3])
def test_long_seeds(seed):
    dropping = nn.Sequential(nn.Linear(3, 8), nn.Dropout(), nn.Linear(8, 2)).double()
    curves = [
        trajectory(task(copy.deepcopy(dropping), seed=each), backward(), 3)
        for each in (seed, seed, seed + 1)
    ]
    assert curves[0].equals(curves[1])
    assert curves[0]["seed"].tolist() == [seed] * 4
    assert curves[0]["test_loss"].tolist() != curves[2]["test_loss"].tolist()


@pytest.mark.parametrize("value", [3.0, True, "3", None, 0, -1])
def test_what_is_no_whole_number_of_steps_is_refused(value):
    with pytest.raises(ValueError, match="must be a whole number, 1 or more; got"):
        windowed(value)
    if value in (-1, "3", None):
        with pytest.raises(ValueError, match="number of steps must be a whole number"):
            trajectory(task(), backward(), value)
    with pytest.raises(ValueError, match="steps are whole numbers"):
        trajectory(task(), backward(), 3, [0.5])
    with pytest.raises(ValueError, match="seed must be a whole number; got 0.5"):
        task(seed=0.5)


def test_nothing_recorded_and_no_batches():
    columns = ["seed", "order", "step", "test_loss", "test_accuracy"]
    assert list(trajectory(task(), backward(), 3, [])) == columns
    assert len(trajectory(task(stream=[]), backward(), 0)) == 1


# Streams, devices, tasks of one's own.


def loader():
    whole = torch.utils.data.TensorDataset(*data(examples=40)[1])
    return torch.utils.data.DataLoader(
        whole, 4, shuffle=True, generator=torch.Generator().manual_seed(3)
    )


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        lambda problem: pickle.loads(pickle.dumps(problem)),
        lambda problem: dataclasses.replace(problem, optimizer=problem.optimizer),
    ],
    ids=["copy", "deepcopy", "pickle", "replace"],
)
def test_a_copy_of_a_task_has_the_same_batches(copied, drawn):
    expected = trajectory(task(stream=loader()), backward(), 5)
    problem = task(stream=loader(), optimizer=lambda p: SGD(p))
    if drawn:
        problem.require(5)
    other = copied(problem)
    assert trajectory(other, backward(), 5).equals(expected)


def test_a_generator_is_drawn_before_it_travels():
    problem = task(stream=(batch for batch in data()[0]))
    with pytest.raises(ValueError, match=r"Call task.require\(steps\) first"):
        pickle.dumps(problem)
    problem.require(2)
    assert torch.equal(pickle.loads(pickle.dumps(problem)).batch(2)[0], data()[0][1][0])


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(weight=torch.ones(2, dtype=torch.float64)),
        functools.partial(F.cross_entropy, weight=torch.ones(2, dtype=torch.float64)),
    ],
)
def test_a_loss_moves_with_its_task(loss):
    problem = task(loss=loss).to("meta")
    problem.check()
    assert {
        leaf.device.type for leaf in batches.leaves([problem.batch(1), problem.evaluation])
    } == {"meta"}
    assert (
        next(task(lambda: plain(), loss=loss).to("meta").model().parameters()).device.type == "meta"
    )


def test_a_task_of_ones_own_takes_whatever_its_step_takes():
    def make():
        model = plain()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        return {"model": model, "optimizer": optimizer, "seen": 0}

    def step(made, batch):
        made["seen"] += len(batch["labels"])
        made["optimizer"].zero_grad()
        loss = F.cross_entropy(made["model"](batch["input"]), batch["labels"])
        (loss / made["seen"]).backward()
        made["optimizer"].step()

    stream, (x, y) = data()
    given = [{"input": inputs, "labels": targets, "name": "kept"} for inputs, targets in stream]
    problem = Task.of(
        make, step, lambda made: {"loss": F.cross_entropy(made["model"](x), y)}, given, seed=2
    )
    for order in ORDERS:
        expected = []
        for n in range(STEPS + 1):
            made = make()
            for i in order.applied(n):
                step(made, given[i - 1])
            expected.append(F.cross_entropy(made["model"](x), y).item())
        curve = trajectory(problem, order, STEPS, workers=2 if order.name == "backward" else 1)
        assert curve["loss"].tolist() == pytest.approx(expected, rel=1e-12)
        assert list(curve) == ["seed", "order", "step", "loss"]
    with pytest.raises(ValueError, match="let make and step put things there"):
        problem.to("meta")


@pytest.mark.parametrize("seeds", [0, "[0]", "0", [0.5], ["0"]])
def test_seeds_that_are_no_list_are_refused_in_a_sentence(seeds):
    with pytest.raises(ValueError, match=r"parameter seeds must be a list of whole .*papermill"):
        Plan.of("figure-7", "sample", seeds)


# Mementos alone.


def test_a_memento_restores_in_place_what_was_there_and_makes_anew_what_was_not():
    shared = torch.zeros(2)
    held = {"a": [shared], "b": {"c": {1}}, "t": (1, [2]), "tensor": shared}
    inner = held["b"]
    inventory = mementos.Inventory({"held": held}, {})
    before = inventory.changes({})
    assert before == {}
    shared += 1
    inner["c"].add(5)
    held["t"][1].append(shared)
    new = [torch.ones(1), {"self": None}]
    new[1]["self"] = new
    held["new"] = held["again"] = new
    after = inventory.changes({})

    inventory.restore(before, {})
    assert held["b"] is inner
    assert inner == {"c": {1}}
    assert held["tensor"] is shared
    assert held["t"] == (1, [2])
    assert "new" not in held
    assert shared.tolist() == [0, 0]
    assert inventory.changes({}) == {}

    inventory.restore(after, {})
    assert shared.tolist() == [1, 1]
    assert held["t"][1][1] is shared
    assert held["new"] is held["again"]
    assert held["new"] is not new
    assert held["new"][1]["self"] is held["new"]
    assert mementos.difference(inventory.changes({}), after) is None
    shared += 1
    assert mementos.difference(inventory.changes({}), after)


# What could hide from a fast strategy, or from the trial.


def on_the_last_layer(parameters):
    return SGD(list(parameters)[-2:])


def freezing_the_first(parameters):
    parameters = list(parameters)
    parameters[0].requires_grad_(False)
    return SGD(parameters)


def clamping(parameters):
    parameters = list(parameters)
    parameters[0].register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
    return SGD(parameters)


def after_accumulation(parameters):
    def halve(parameter):
        parameter.grad.mul_(0.5)

    parameters = list(parameters)
    parameters[0].register_post_accumulate_grad_hook(halve)
    return SGD(parameters)


def clipping_from_outside(parameters):
    parameters = list(parameters)
    optimizer = SGD(parameters)
    step = optimizer.step

    def clipped(closure=None):
        nn.utils.clip_grad_norm_(parameters, 0.1)
        return step(closure)

    optimizer.step = clipped
    return optimizer


def initialising(parameters):
    parameters = list(parameters)
    with torch.no_grad():
        parameters[0].mul_(2)
    return SGD(parameters)


MAKERS = [
    on_the_last_layer,
    freezing_the_first,
    clamping,
    after_accumulation,
    clipping_from_outside,
    initialising,
]


@pytest.mark.parametrize("optimizer", MAKERS)
def test_what_makes_the_optimizer_may_do_more(optimizer):
    """The network is one that the dense strategy takes with a plain optimizer."""
    assert dense.applies(task(plain(nn.ReLU)))
    model = plain(nn.ReLU)
    before = copy.deepcopy(model.state_dict())
    same(lambda: plain(nn.ReLU), optimizer, given=lambda: model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), "the caller's model is not changed"


def test_hooks_on_all_optimizers_are_seen():
    def halve(optimizer, *_):
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad.mul_(0.5)

    hook = register_optimizer_step_pre_hook(halve)
    try:
        same(lambda: plain(nn.ReLU))
    finally:
        hook.remove()


def counting(counts):
    def make(parameters):
        optimizer = SGD(parameters)
        optimizer.register_step_post_hook(lambda *_: counts.append(None))
        return optimizer

    return make


def test_what_working_copies_share_is_refused_and_put_back():
    model = plain()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"changed another one: they share 'model\.0\.weight'"):
        trajectory(task(lambda: model), backward(), 3)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    counts = []
    with pytest.raises(ValueError, match="make it anew each time"):
        trajectory(task(optimizer=counting(counts)), backward(), 3)
    assert counts == []


class Warming(nn.Module):
    seen = 0

    def __init__(self):
        super().__init__()
        self.f = plain()

    def forward(self, x):
        type(self).seen += self.training
        return self.f(x) * min(1.0, 0.5 + self.seen // 4)


def test_a_state_that_is_not_the_models_is_refused_also_where_it_shows_after_some_steps():
    with pytest.raises(ValueError, match="first steps gave something else when they were taken"):
        trajectory(task(Warming()), backward(), STEPS)


def in_one_memory(share):
    def make():
        model = plain()
        share(model)
        return model

    return make


@pytest.mark.parametrize(
    "share",
    [
        lambda model: setattr(model[0].bias, "data", model[2].weight.data[0]),
        lambda model: setattr(model, "seen", model[0].weight.detach().numpy()),
    ],
    ids=["parameters", "an array"],
)
def test_what_lies_in_one_memory_is_refused_and_may_come_as_a_function(share):
    make = in_one_memory(share)
    with pytest.raises(ValueError, match=r"lie in the same memory\. .* a function that makes"):
        trajectory(task(make()), backward(), 3)
    assert len(trajectory(task(make), backward(), 3)) == 4


class Flipping(nn.Module):
    """It changes the batch that begins with a number."""

    def __init__(self, mark):
        super().__init__()
        self.f, self.mark = plain(), mark

    def forward(self, x):
        return self.f(x.neg_() if self.training and float(x[0, 0]) == self.mark else x)


def test_a_batch_that_is_changed_in_place_is_copied_or_refused():
    stream, _ = data()
    mark = float(stream[2][0][0, 0])
    same(lambda: Flipping(mark))
    long, _ = data(12)
    problem = task(Flipping(float(long[10][0][0, 0])), stream=long)
    with pytest.raises(ValueError, match="step on batch 11 changes that batch in place"):
        trajectory(problem, backward(), 12, [12])


class MadeOnTheWay(nn.Module):
    """It keeps things that are not there at the start."""

    def __init__(self, make, use):
        super().__init__()
        self.f, self.make, self.use, self.kept = plain(), make, use, None

    def forward(self, x):
        if self.training:
            self.kept = self.kept or self.make()
            return self.f(x) * self.use(self.kept)
        return self.f(x)


def of_a_window(kept):
    kept.append(len(kept) + 1.0)
    return sum(kept) / 4


def of_counts(kept):
    kept["a"] += 1
    return 1 / kept["a"]


class Window(collections.deque):
    """A deque by another name."""


class Choices(dict):
    """A dictionary whose items are attributes, as many keep their choices."""

    __getattr__ = dict.__getitem__


@pytest.mark.parametrize(
    ("make", "use"),
    [
        (lambda: collections.deque([0.5], maxlen=2), of_a_window),
        (lambda: Window([0.5], maxlen=2), of_a_window),
        (lambda: Choices(rate=0.5), lambda kept: kept.rate),
        (lambda: collections.defaultdict(int, {"b": 1}), of_counts),
        (lambda: np.random.Generator(np.random.Philox(3)), lambda kept: kept.uniform(0.5, 1)),
    ],
    ids=["deque", "its subclass", "choices", "defaultdict", "generator"],
)
def test_what_is_made_on_the_way_is_made_anew_for_a_replay(make, use):
    same(lambda: MadeOnTheWay(make, use))


def test_a_function_made_on_the_way_is_refused():
    problem = task(MadeOnTheWay(lambda: functools.partial(float, 1), lambda kept: kept()))
    with pytest.raises(ValueError, match="A partial that the training made on the way"):
        trajectory(problem, windowed(3), STEPS)


def test_one_may_ask_with_a_name_and_where_no_gradients_are_taken():
    problem = task()
    expected = trajectory(problem, windowed(3), 4)
    with torch.no_grad():
        assert trajectory(problem, "windowed(3)", 4).equals(expected)


class Few:
    """Batches that end, and do not say where."""

    def __getitem__(self, index):
        return data()[0][index]


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from data()[0]


def test_a_data_set_to_run_through_is_a_stream():
    assert trajectory(task(stream=Stream()), backward(), 3).equals(
        trajectory(task(), backward(), 3)
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: trajectory(task(), backward, 3), "order must be one of revlib's.*got <function"),
        (lambda: trajectory(task(), backward(), 3, 2), r"must be several, \[2\] say"),
        (lambda: trajectory(task(), backward(), 3, "10"), r"must be several, \[10\] say; got '10'"),
        (lambda: trajectory(plain(), backward(), 3), r"revlib.Task\(.*; got a Sequential"),
        (lambda: trajectory(task(), backward(), 3, [None]), "Step None cannot be recorded"),
        (lambda: trajectory(task(), backward(), 3, [np.nan]), "Step nan cannot be recorded"),
        (lambda: trajectory(task(), backward(), 3, workers=0), "number of workers must be"),
        (lambda: task(optimizer=SGD(plain().parameters())), "must be a function that makes one"),
        (lambda: task("net"), "model must be a module, or a function.*got 'net'"),
        (lambda: task(metrics=[abs]), "functions by name.*got a list"),
        (lambda: task(metrics={"loss": abs}), "may not be called loss: what is measured anyway"),
        (
            lambda: trajectory(
                Task.of(plain, lambda *_: None, lambda _: {"step": 1}, [1]), backward(), 1
            ),
            "may not be called step: the table has such a column",
        ),
        (lambda: task(loss=nn.MSELoss), r"loss is a class: give an object of it, MSELoss\(\)"),
        (lambda: task(stream={1: 2}), "sequence of pairs, and a dict has names"),
        (
            lambda: trajectory(task(stream=Few()), backward(), 9, [9]),
            "needs as many batches.*ends after 6",
        ),
        (lambda: trajectory(task(nn.Linear), backward(), 3), "makes the model failed.*in_features"),
        (
            lambda: trajectory(task(optimizer=lambda: None), backward(), 3),
            "optimizer cannot be made.*takes 0 positional arguments.*parameters alone",
        ),
        (lambda: Task.of({}, print, print, []), "a function as make; got a dict"),
        (
            lambda: trajectory(Task.of(list, list.append, lambda made: 1.0, [1]), backward(), 1),
            "must be numbers by name.*got 1.0",
        ),
        (
            lambda: pickle.dumps(task(loss=functools.partial(F.cross_entropy, x=threading.Lock()))),
            "cannot be sent to another process: cannot pickle.*workers=1",
        ),
    ],
)
def test_mistakes_are_told_in_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class Delegating(torch.optim.SGD):
    """An optimizer whose step takes anything, and clips."""

    def step(self, *args, **kwargs):
        nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 0.05)
        return super().step(*args, **kwargs)


class Slots:
    __slots__ = ("__count",)

    def __init__(self):
        self.__count = 0

    def counted(self):
        self.__count += 1
        return self.__count


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.f, self.slots = nn.Linear(3, 2), Slots()

    def forward(self, x):
        return self.f(x) / (self.slots.counted() if self.training else 1)


class BuiltAtFirstUse(nn.Module):
    """A layer whose scale comes from what it sees first, also in evaluation."""

    def __init__(self):
        super().__init__()
        self.f, self.scale = nn.Linear(3, 2), None

    def forward(self, x):
        if self.scale is None:
            self.scale = x.abs().max()
        return self.f(x / self.scale)


class Graph(nn.Module):
    """A layer that multiplies by a sparse matrix."""

    def __init__(self, layout):
        super().__init__()
        near = torch.eye(3) / 2 + 0.1
        self.f = nn.Linear(3, 2)
        self.register_buffer("near", near.to_sparse(layout=layout))

    def forward(self, x):
        return self.f(torch.sparse.mm(self.near.to(x.dtype), x.T).T)


def test_an_optimizer_that_takes_any_arguments_takes_its_own_steps():
    same(optimizer=functools.partial(Delegating, lr=0.3))


@pytest.mark.parametrize(
    "make",
    [
        of(Counting),
        of(BuiltAtFirstUse),
        of(functools.partial(Graph, torch.sparse_coo)),
        of(functools.partial(Graph, torch.sparse_csr)),
    ],
    ids=["private slots", "built at first use", "COO", "CSR"],
)
def test_also_this_is_replayed(make):
    same(make, given=lambda: make)


def test_random_numbers_of_a_patched_forward_belong_to_the_map():
    def make():
        model = plain()
        forward = model.forward
        model.forward = lambda x: forward(x + 0.1 * np.random.randn() * model.training)
        return model

    same(make)


class Flat(torch.optim.SGD):
    """Momentum in one buffer, of which the parameters' are views: made in the first step."""

    def step(self, closure=None):
        parameters = self.param_groups[0]["params"]
        if not hasattr(self, "flat"):
            self.flat = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
            self.views = self.flat.split([p.numel() for p in parameters])
        self.flat.mul_(0.9)
        for parameter, view in zip(parameters, self.views, strict=True):
            view.add_(parameter.grad.flatten())
            parameter.data.sub_(0.1 * view.view_as(parameter))


def summing_over_two_batches(made, batch):
    loss = F.cross_entropy(made.model(batch[0]), batch[1])
    made.sum, made.count = made.sum + loss, made.count + 1
    if made.count % 2 == 0:
        made.optimizer.zero_grad()
        made.sum.backward()
        made.optimizer.step()
        made.sum = 0.0


def two_at_a_time():
    model = plain()
    return types.SimpleNamespace(model=model, optimizer=SGD(model.parameters()), sum=0.0, count=0)


def drawing_its_rate():
    rates = iter([0.1, 0.2, 0.3])
    return lambda parameters: torch.optim.SGD(parameters, lr=next(rates))


class TurnedRound:
    """Batches of which one in ten is turned round, another one each time."""

    def __init__(self):
        self.generator, self.batches = random.Random(0), data(40)[0]

    def __getitem__(self, index):
        x, y = self.batches[index]
        return (-x if self.generator.random() < 0.1 else x), y


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: task(optimizer=functools.partial(Flat, lr=0.1)), "memory that tensors share"),
        (
            lambda: Task.of(two_at_a_time, summing_over_two_batches, lambda made: {}, data()[0]),
            "a graph that it keeps",
        ),
        (
            lambda: Task.of(lambda: [0.0], lambda made, x: [made[0] + x], lambda made: {}, [1.0]),
            "1 steps changed nothing of what make.*works in place",
        ),
        (lambda: task(optimizer=drawing_its_rate()), "'optimizer.param_groups.0.lr' differs"),
        (lambda: task(stream=TurnedRound()), "Batch [1-6] is another one each time"),
    ],
    ids=["views", "graph", "nothing in place", "rate", "batches"],
)
def test_what_would_come_out_wrong_is_refused(make, message):
    problem = make()
    steps = min(STEPS, len(problem.batches)) if isinstance(problem.batches, list) else STEPS
    with pytest.raises(ValueError, match=message):
        trajectory(problem, windowed(3), steps)


def test_what_is_set_in_this_process_alone_is_refused_with_workers(tmp_path, monkeypatch):
    (tmp_path / "of_the_reader.py").write_text(
        "rate = 0.0\ndef loss(output, y):\n    return rate * output.mean() + output.pow(2).mean()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import of_the_reader

    problem = task(loss=of_the_reader.loss)
    with sweep._source(problem, 2) as source:
        assert source().loss is of_the_reader.loss
        of_the_reader.rate = 0.5
        with pytest.raises(ValueError, match="In another process the first steps give something"):
            source()


def test_the_default_precision_travels(monkeypatch):
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with sweep._source(task(), 2) as source:
            torch.set_default_dtype(torch.float32)
            source()
            assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(before)
