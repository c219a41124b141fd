"""The largest curvature against the whole Hessian, and what the chapter says of it."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from torch.nn import functional as F

from revlib import orders
from revlib.experiments.sharpness import Parameters, largest_curvature, sharpness
from revlib.training.maps import Trainer
from revlib.training.models import mlp
from revlib.training.settings import build
from revlib.verdicts import contraction

SETTING = dataclasses.replace(
    tiny.SETTING, data="x^2", hidden=(7, 5), learning_rate=0.1, train_examples=None
)


def hessian(model, loss, batch):
    """The whole Hessian of the loss, column by column."""
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss(model(batch[0]), batch[1]), parameters, create_graph=True)
    gradient = torch.cat([part.flatten() for part in gradients])
    rows = [torch.autograd.grad(entry, parameters, retain_graph=True) for entry in gradient]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_curvature_is_the_largest_eigenvalue(dtype, tolerance):
    model = mlp((4, 6, 3), "he", seed=1, dtype=dtype)
    generator = torch.Generator().manual_seed(2)
    batch = torch.randn(9, 4, generator=generator, dtype=dtype), torch.arange(9) % 3
    expected = torch.linalg.eigvalsh(hessian(model, F.cross_entropy, batch).double())[-1]
    found = largest_curvature(model, F.cross_entropy, batch, tolerance)
    assert found == pytest.approx(expected.item(), rel=1e-3)


def test_with_batch_normalisation_it_is_that_of_a_step():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3),
        torch.nn.BatchNorm2d(3),
        torch.nn.Flatten(),
        torch.nn.Linear(12, 2),
    ).double()
    batch = torch.randn(5, 1, 4, 4, dtype=torch.float64), torch.arange(5) % 2
    expected = torch.linalg.eigvalsh(hessian(model, F.cross_entropy, batch))[-1].item()
    assert largest_curvature(model, F.cross_entropy, batch, 1e-2) == pytest.approx(expected)
    apart = hessian(model.eval(), F.cross_entropy, batch)
    assert torch.linalg.eigvalsh(apart)[-1].item() != pytest.approx(expected, rel=0.1)


def test_a_model_that_diverged_has_none():
    model = mlp((4, 6, 3), "he", dtype=torch.float64)
    with torch.no_grad():
        model[1].weight.fill_(np.inf)
    batch = torch.ones(2, 4, dtype=torch.float64), torch.tensor([0, 1])
    assert np.isnan(largest_curvature(model, F.cross_entropy, batch, 1e-4))


@pytest.mark.parametrize("order", ["forward", "backward"])
def test_the_study_measures_the_iterates_of_the_order(order):
    found = pd.DataFrame(sharpness(Parameters(SETTING, (3, 8), 4, 1e-4), 1, order)).set_index(
        "step"
    )
    for step in (3, 8):
        task = build(SETTING, 1)
        trainer = Trainer(task)
        for n in orders.named(order).applied(step):
            trainer.apply(n)
        model = trainer.model()
        whole = hessian(model, task.loss, task.evaluation["train"])
        largest = 0.1 * torch.linalg.eigvalsh(whole)[-1].item()
        assert found.loc[step, "sharpness"] == pytest.approx(largest, rel=1e-3)
        own = [
            0.1 * torch.linalg.eigvalsh(hessian(model, task.loss, task.batch(step + k)))[-1].item()
            for k in range(1, 5)
        ]
        assert found.loc[step, "batch_sharpness"] == pytest.approx(np.mean(own), rel=1e-3)
        assert found.loc[step, "expanding"] == np.mean(np.array(own) > 2)


def table(**columns):
    return pd.DataFrame({"order": "forward", "step": 5, "seed": [0, 1]} | columns)


def test_the_chapter_says_how_often_a_batch_is_too_sharp():
    calm = table(sharpness=[0.5, 0.7], batch_sharpness=[0.6, 0.8], expanding=[0.0, 0.0])
    sharp = table(sharpness=[1.5, 2.5], batch_sharpness=[1.0, 3.0], expanding=[0.25, 0.75])
    first, second = contraction.expanding({"a": calm, "b": sharp}).splitlines()
    assert "below 2/h at 2 of 2 iterates; no batch is sharper" in first
    assert "below 2/h at 1 of 2 iterates; 50.0% of the batches are sharper than that" in second
    assert "their maps expand" in second
    shown = contraction.sharp({"a": calm, "b": sharp})
    assert shown["hλ of the training loss"].tolist() == [
        "0.60 (0.50 to 0.70)",
        "2.00 (1.50 to 2.50)",
    ]
    assert shown["batches above 2"].tolist() == ["0%", "50%"]
