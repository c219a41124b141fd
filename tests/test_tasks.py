"""Tasks: the batches every order sees, evaluation, and the paper's tasks from settings."""

import copy
import dataclasses
import math
from functools import partial

import pytest
import torch
from torch import nn

from revlib import Task, experiments
from revlib.store import datasets
from revlib.training import tasks
from revlib.training.settings import build
from revlib.training.tasks import ShuffledEpochs

SGD = partial(torch.optim.SGD, lr=0.1)
SETTING = experiments.get("figure-7").preset("ci").setting


def pair(n, size=2):
    return torch.full((size, 3), float(n)), torch.zeros(size, dtype=torch.long)


def task(batches, evaluation=None):
    return Task(nn.Linear(3, 2), nn.functional.cross_entropy, batches, SGD, evaluation or {})


def numbers(problem, length):
    return [problem.batch(n)[0][0, 0].item() for n in range(1, length + 1)]


@pytest.mark.parametrize(
    "stream",
    [
        [pair(n) for n in range(4)],
        (pair(n) for n in range(4)),
        iter([pair(n) for n in range(4)]),
        {n: pair(n) for n in range(4)}.values(),
    ],
    ids=["list", "generator", "iterator", "view"],
)
def test_any_iterable_of_batches_will_do(stream):
    problem = task(stream)
    problem.require(4)
    assert numbers(problem, 4) == [0, 1, 2, 3]
    assert problem.batch(2)[0][0, 0] == 1  # again, and in any order
    with pytest.raises(ValueError, match=r"5 steps needs as many batches.* after 4"):
        problem.require(5)


def test_a_shuffling_loader_is_drawn_once():
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.arange(64.0).reshape(64, 1), torch.zeros(64)),
        batch_size=4,
        shuffle=True,
    )
    problem = task(loader)
    assert numbers(problem, 16) == numbers(problem, 16)


def test_an_endless_stream_is_drawn_no_further_than_needed():
    drawn = []

    def endless():
        while True:
            drawn.append(len(drawn))
            yield pair(len(drawn))

    task(endless()).require(3)
    assert len(drawn) == 3


def test_evaluation_in_chunks_is_the_mean_over_all_examples(monkeypatch):
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    x, y = torch.randn(23, 3, dtype=torch.float64), torch.randint(0, 2, (23,))
    problem = Task(model, nn.functional.cross_entropy, [], SGD, {"held_out": (x, y)})
    monkeypatch.setattr(tasks, "EVALUATION_CHUNK", 5)
    assert problem.evaluate(model) == {
        "held_out_loss": pytest.approx(nn.functional.cross_entropy(model(x), y).item(), rel=1e-12),
        "held_out_accuracy": (model(x).argmax(1) == y).double().mean().item(),
    }


def test_the_batch_applied_last_is_evaluated_where_it_is_named():
    problem = task([pair(n) for n in range(4)])
    assert problem.evaluate(problem.model) == {}
    x, y = pair(2)  # B_3
    loss = nn.functional.cross_entropy(problem.model(x), y).item()
    assert problem.evaluate(problem.model, last=3)["batch_loss"] == pytest.approx(loss)
    with pytest.raises(ValueError, match="cannot be called 'batch'.*another name"):
        task([pair(0)], {"batch": pair(0)}).check()


def test_batch_normalisation_is_evaluated_in_both_ways_and_left_as_it_was():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    x, y = 3 * torch.randn(23, 3) + 1, torch.randint(0, 2, (23,))
    problem = Task(model, nn.functional.cross_entropy, [(x, y)], SGD, {"test": (x, y)})
    before = copy.deepcopy(model.state_dict())
    measured = problem.evaluate(model, last=1)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert "batch_loss_by_batch" not in measured

    hidden = model[0](x)
    scaled = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + model[1].eps).sqrt()
    own = nn.functional.cross_entropy(model[3](scaled), y).item()
    model.eval()
    running = nn.functional.cross_entropy(model(x), y).item()
    assert measured["test_loss"] == pytest.approx(running, rel=1e-5)
    assert measured["test_loss_by_batch"] == pytest.approx(own, rel=1e-5)
    assert abs(own - running) > 0.01


def test_accuracy_is_left_out_where_it_is_not_defined():
    x = torch.randn(5, 3)
    problem = Task(nn.Linear(3, 1), nn.functional.mse_loss, [], SGD, {"test": (x, x[:, :1])})
    assert list(problem.evaluate(problem.model)) == ["test_loss"]


def test_an_epoch_holds_every_example_once_with_a_ragged_end():
    stream = ShuffledEpochs(torch.arange(10), torch.arange(10) * 2, size=4, seed=1)
    epochs = [[stream[3 * e + i] for i in range(3)] for e in range(3)]
    orders = [torch.cat([x for x, _ in epoch]).tolist() for epoch in epochs]
    for epoch, order in zip(epochs, orders, strict=True):
        assert [len(x) for x, _ in epoch] == [4, 4, 2]
        assert sorted(order) == list(range(10))
        assert all(torch.equal(2 * x, y) for x, y in epoch)
    assert orders[0] != orders[1] != orders[2]
    assert torch.equal(stream[7][0], epochs[2][1][0])


def test_seeds_change_the_start_and_the_batches():
    one, again, other = build(SETTING, 0), build(SETTING, 0), build(SETTING, 1)
    assert torch.equal(one.model[1].weight, again.model[1].weight)
    assert not torch.equal(one.model[1].weight, other.model[1].weight)
    assert torch.equal(one.batch(5)[0], again.batch(5)[0])
    assert not torch.equal(one.batch(5)[0], other.batch(5)[0])


def test_the_sample_is_computed_in_double_precision():
    """What chapters print must be the same on every processor."""
    for setting in (experiments.get(name).preset("ci").setting for name in experiments.EXPERIMENTS):
        problem = build(setting, 0)
        tensors = [*problem.model.state_dict().values(), problem.batch(1)[0]]
        assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.float64}
    full = build(SETTING.changed(data="x^2", model="mlp", sample=False), 0)
    assert {p.dtype for p in full.model.parameters()} == {torch.float32}


def test_a_nudge_moves_every_number_of_the_start_by_one_unit_of_rounding():
    plain, one, again, other = (
        build(SETTING.changed(nudge=nudge), 0).model.state_dict() for nudge in (0, 1, 1, 2)
    )
    for name, value in plain.items():
        if value.is_floating_point() and value.any():
            eps = torch.finfo(value.dtype).eps
            moved = (one[name] / value - 1).abs()
            assert ((moved > 0) & (moved < 2.1 * eps)).all()
            assert torch.equal(one[name], again[name])
            assert not torch.equal(one[name], other[name])


def test_a_setting_means_what_it_says():
    data = datasets.load("fashion_mnist", sample=True)
    problem = build(dataclasses.replace(SETTING, hidden=(7, 5), train_examples=30), 0)
    assert [p.shape[0] for p in problem.model.parameters() if p.ndim == 2] == [7, 5, 10]
    x, y = problem.evaluation["train"]
    assert (len(x), len(problem.evaluation["test"][0])) == (30, len(data.x_test))
    torch.testing.assert_close(x, torch.tensor(data.x_train[:30]).double() / 255)
    assert y.tolist() == data.y_train[:30].tolist()
    assert len(problem.batch(1)[0]) == SETTING.batch_size
    optimizer = problem.optimizer(problem.model.parameters())
    assert type(optimizer) is torch.optim.SGD
    assert optimizer.param_groups[0]["lr"] == SETTING.learning_rate
    assert optimizer.param_groups[0]["weight_decay"] == 0


def test_standardised_inputs_have_mean_0_and_deviation_1():
    problem = build(dataclasses.replace(SETTING, scaling="standardised"), 0)
    x = problem.batches.inputs
    assert abs(x.mean()) < 1e-4
    assert abs(x.std() - 1) < 1e-4


def test_a_changed_setting_names_its_fields():
    assert SETTING.changed(learning_rate=0.5, init=None) == dataclasses.replace(
        SETTING, learning_rate=0.5
    )
    with pytest.raises(ValueError, match="no 'rate'. It has: data, sample, model"):
        SETTING.changed(rate=1)


@pytest.mark.parametrize(
    ("field", "wrong", "message"),
    [
        ("scaling", "odd", "'odd' is not a scaling. Valid are: unit, standardised"),
        ("sampling", "odd", "'odd' is not a sampling. Valid are: epochs, independent"),
        ("model", "odd", "no model 'odd'. Valid are: mlp, resnet18, resnet50, vgg19"),
    ],
)
def test_a_wrong_choice_is_refused(field, wrong, message):
    with pytest.raises(ValueError, match=message):
        build(SETTING.changed(**{field: wrong}), 0)


def test_independent_batches_repeat_examples_and_can_be_had_again():
    stream = tasks.IndependentBatches(torch.arange(10), torch.arange(10) * 2, size=10, seed=1)
    batches = [stream[n][0].tolist() for n in range(50)]
    assert batches == [stream[n][0].tolist() for n in range(50)]
    assert any(len(set(batch)) < 10 for batch in batches)
    counts = torch.bincount(torch.tensor(batches).flatten(), minlength=10)
    assert counts.sum() == 500
    assert ((counts - 50).abs() < 5 * 45**0.5).all()  # each is binomial, with variance 45


@pytest.mark.parametrize(
    ("figure", "value"), [(4, lambda x: x**2), (5, lambda x: math.cos(10 * x)), (6, lambda x: x**3)]
)
def test_regressions_are_those_of_section_a_1(figure, value):
    setting = experiments.get(f"figure-{figure}").preset("paper").setting
    problem = build(setting, 0)
    x, y = problem.evaluation["train"]
    assert len(x) == 101
    for i in (0, 7, 50, 100):
        assert x[i].item() == pytest.approx(-1 + 2 * i / 100, abs=1e-6)
        assert y[i].item() == pytest.approx(value(-1 + 2 * i / 100), abs=1e-5)
    between, at = problem.evaluation["test"]
    assert len(between) == 100
    torch.testing.assert_close(between, (x[:-1] + x[1:]) / 2)
    assert at[3].item() == pytest.approx(value(between[3].item()), abs=1e-5)
    assert problem.loss is nn.functional.mse_loss


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_colour_images_have_their_channels_first_and_are_scaled_one_by_one(name):
    setting = experiments.get("figure-2").preset("ci").setting.changed(data=name)
    raw = datasets.load(name, sample=True)
    problem = build(setting, 0)
    x = problem.batches.inputs
    assert x.shape[1:] == (3, 32, 32)
    assert x[5, 2, 10, 20].item() == pytest.approx(raw.x_train[5, 10, 20, 2] / 255)
    standardised = build(setting.changed(scaling="standardised"), 0).batches.inputs
    assert standardised.mean((0, 2, 3)).abs().max() < 1e-4
    assert (standardised.std((0, 2, 3)) - 1).abs().max() < 1e-4
    assert problem.model(x[:2]).shape == (2, len(raw.classes))
    with pytest.raises(ValueError, match="'he' is not an initialisation of resnet18"):
        build(setting.changed(init="he"), 0)
