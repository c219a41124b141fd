"""Tasks: the batches every order sees, and evaluation."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from revlib import Task
from revlib.training import evaluation, tasks
from revlib.training.tasks import ShuffledEpochs

SGD = partial(torch.optim.SGD, lr=0.1)


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
    monkeypatch.setattr(evaluation, "EVALUATION_CHUNK", 5)
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


def test_independent_batches_repeat_examples_and_can_be_had_again():
    stream = tasks.IndependentBatches(torch.arange(10), torch.arange(10) * 2, size=10, seed=1)
    batches = [stream[n][0].tolist() for n in range(50)]
    assert batches == [stream[n][0].tolist() for n in range(50)]
    assert any(len(set(batch)) < 10 for batch in batches)
    counts = torch.bincount(torch.tensor(batches).flatten(), minlength=10)
    assert counts.sum() == 500
    assert ((counts - 50).abs() < 5 * 45**0.5).all()  # each is binomial, with variance 45
