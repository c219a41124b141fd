"""The strategy for graphics cards against the definition, in double precision, on the processor."""

from functools import partial

import pytest
import torch
from cases import defined
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

from revlib import Task, backward, trajectory
from revlib.orders import tail, windowed
from revlib.training import stacks, sweep
from revlib.training.maps import Trainer

SGD = partial(torch.optim.SGD, lr=0.1)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def on_the_processor(monkeypatch):
    monkeypatch.setattr(stacks, "DEVICES", ("cpu",))


def examples(count, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 2, 6, 5, generator=generator, dtype=dtype)
    return x, torch.randint(0, 3, (count,), generator=generator)


def task(*modules, optimizer=SGD):
    """A task with ragged batches of images of two colours in three classes."""
    batches = [examples(3 if n % 3 == 2 else 5, seed=n) for n in range(12)]
    return Task(
        nn.Sequential(*modules).double(),
        F.cross_entropy,
        batches,
        optimizer,
        {"test": examples(6, 20)},
        seed=3,
    )


def head(channels):
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)


class Attention(nn.Module):
    """A transformer's layer over the positions of an image."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(2, 1, 8, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.layer(x.flatten(2).mT).mean(1)


NETWORKS = {
    "convolutions": lambda: (
        nn.Conv2d(2, 4, 3, padding=1, stride=2),
        nn.Tanh(),
        nn.Conv2d(4, 6, (2, 3), padding=(0, 2), dilation=(1, 2), bias=False),
        nn.ReLU(inplace=True),
        *head(6),
    ),
    "residual": lambda: (
        nn.Conv2d(2, 4, 3, 2, 1, bias=False),
        nn.BatchNorm2d(4),
        nn.MaxPool2d(3, 2, 1),
        BasicBlock(4, 4),
        *head(4),
    ),
    "groups": lambda: (
        nn.Conv2d(2, 4, 3, groups=2, padding="same", padding_mode="circular"),
        nn.GroupNorm(2, 4),
        nn.ReLU(),
        *head(4),
    ),
    "dropout": lambda: (nn.Flatten(), nn.Linear(60, 8), nn.Dropout(0.3), nn.Linear(8, 3)),
    "attention": lambda: (Attention(), nn.Linear(2, 3)),
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("order", [backward(), windowed(3), tail(3)], ids=lambda o: o.name)
def test_all_chains_are_those_of_the_definition(network, order):
    torch.manual_seed(0)
    made = task(*NETWORKS[network]())
    assert stacks.applies(made)
    found = trajectory(made, order, 9, strategy="stacks")
    expected = defined(made, order, 9)
    for name in found.columns.intersection(expected.columns).drop("order"):
        assert found[name].to_numpy() == pytest.approx(
            expected[name].to_numpy(), rel=1e-9, nan_ok=True
        )


def test_it_is_chosen_where_the_two_others_do_not_apply():
    assert sweep._strategy(task(*NETWORKS["attention"]()), None) is stacks.StackTrainer


def test_frozen_parameters_stay_as_they_are():
    made = task(nn.Flatten(), nn.Linear(60, 8), nn.Tanh(), nn.Linear(8, 3))
    made.model[1].weight.requires_grad_(False)
    assert stacks.applies(made)
    trainer = stacks.StackTrainer(made)
    trainer.apply(1, 2)
    assert torch.equal(trainer.model(1)[1].weight, made.model[1].weight)
    assert not torch.equal(trainer.model(1)[1].bias, made.model[1].bias)


def test_a_layer_that_was_frozen_by_eval_stays_frozen():
    made = task(*NETWORKS["residual"]())
    made.model[1].eval()
    assert stacks.applies(made)
    found = trajectory(made, backward(), 5, strategy="stacks")
    expected = defined(made, backward(), 5)
    assert found["test_loss"].to_numpy() == pytest.approx(expected["test_loss"].to_numpy())


class Counting(nn.Module):
    """A module whose steps depend on how often it was used, which is no tensor."""

    def __init__(self):
        super().__init__()
        self.uses = 0

    def forward(self, x):
        self.uses += self.training
        return x / self.uses if self.training else x


class Deciding(nn.Module):
    """A module that looks at the numbers, which cannot be done for many chains at once."""

    def forward(self, x):
        return x if x.sum() > 0 else 2 * x


@pytest.mark.parametrize(
    "made",
    [
        task(nn.Flatten(), Counting(), nn.Linear(60, 3)),
        task(nn.Flatten(), nn.Linear(60, 3), Deciding()),
        task(nn.Flatten(), nn.Linear(60, 3), optimizer=partial(SGD, momentum=0.9)),
    ],
    ids=["counts", "decides", "momentum"],
)
def test_it_does_not_apply(made):
    assert not stacks.applies(made)


def test_it_does_not_apply_on_the_processor_by_itself(monkeypatch):
    monkeypatch.undo()
    made = task(*NETWORKS["attention"]())
    assert not stacks.applies(made)
    assert sweep._strategy(made, None) is Trainer
    with pytest.raises(ValueError, match="'stacks' does not apply"):
        trajectory(made, backward(), 3, strategy="stacks")
