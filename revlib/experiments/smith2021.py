"""Implicit regularisation: the experiment of Smith et al. (2021), Appendix D, made smaller."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from revlib.experiments import figures_2_to_11
from revlib.experiments.study import Size, Study, Whole
from revlib.training.settings import Setting, build
from revlib.training.tasks import Batch, Loss, ShuffledEpochs, Task


@dataclass(frozen=True)
class Training:
    """One way of training.

    Parameters
    ----------
    rate
        Learning rate of a single update: ε, and α where a batch has several updates.
    weight
        The coefficient λ of the explicit regulariser; with 0 the loss is the plain one.
    batch_size
        Examples in a batch.
    updates
        How many updates n are made on each batch before the next one.
    """

    rate: float
    weight: float = 0.0
    batch_size: int = 32
    updates: int = 1

    @property
    def name(self) -> str:
        """How it is called in tables, figures and claims; it tells all fields."""
        parts = [f"{'ε' if self.updates == 1 else 'α'} = {self.rate:g}"]
        parts += [f"λ = {self.weight:g}"] * (self.weight != 0)
        parts += [f"B = {self.batch_size}"] * (self.batch_size != 32)
        parts += [f"n = {self.updates}"] * (self.updates != 1)
        return ", ".join(parts)


@dataclass(frozen=True)
class Parameters:
    """What the numbers of the experiment depend on besides the training.

    Parameters
    ----------
    setting
        What is trained, on the first of its training examples and no others. Rates and batch sizes
        are those of the training.
    epochs
        How long is trained.
    every
        After how many epochs it is evaluated.
    """

    setting: Setting
    epochs: int
    every: int


def step(model: nn.Module, loss: Loss, batch: Batch, rate: float, weight: float) -> None:
    """Take one step on ``C_k + weight/4 ‖grad C_k‖²`` in place.

    Averaged over the batches this is ``C + weight/(4m) sum_k ‖grad C_k‖²``: the modified loss is
    itself a mean over batches, so SGD can descend it. It takes a second backward pass, through the
    first.
    """
    parameters = list(model.parameters())
    inputs, targets = batch
    value = loss(model(inputs), targets)
    gradient = torch.autograd.grad(value, parameters, create_graph=weight != 0)
    if weight:
        penalty = weight / 4 * sum(part.square().sum() for part in gradient)
        gradient = torch.autograd.grad(value + penalty, parameters)
    with torch.no_grad():
        torch._foreach_add_(parameters, gradient, alpha=-rate)


def compute(parameters: Parameters, seed: int, training: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of one of :data:`TRAININGS`: losses, accuracies and gradients along it.

    Yields
    ------
    dict
        ``step`` (the number of epochs), ``train_loss``, ``test_loss``, ``train_accuracy``,
        ``test_accuracy`` and ``gradient_square``, the mean of ``‖grad C_k‖²`` over the batches of
        the first epoch. A training whose loss is not finite ends there.
    """
    chosen = TRAININGS[training]
    task = _task(parameters.setting, chosen.batch_size, seed)
    batches = parameters.setting.train_examples // chosen.batch_size
    model = copy.deepcopy(task.model)
    for epoch in range(parameters.epochs + 1):
        for k in range(batches) if epoch else ():
            batch = task.batch((epoch - 1) * batches + k + 1)
            for _ in range(chosen.updates):
                step(model, task.loss, batch, chosen.rate, chosen.weight)
        if epoch % parameters.every == 0:
            squares = [_square(model, task.loss, task.batch(k + 1)) for k in range(batches)]
            measured = task.evaluate(model)
            yield {"step": epoch} | measured | {"gradient_square": float(np.mean(squares))}
            if not np.isfinite(measured["train_loss"]):
                return


def _square(model: nn.Module, loss: Loss, batch: Batch) -> float:
    inputs, targets = batch
    gradient = torch.autograd.grad(loss(model(inputs), targets), list(model.parameters()))
    return sum(part.square().sum() for part in gradient).item()


def _task(setting: Setting, batch_size: int, seed: int) -> Task:
    task = build(setting, seed)
    batches = ShuffledEpochs(*task.evaluation["train"], batch_size, seed)
    return dataclasses.replace(task, batches=batches)


SMALL_RATE = 0.01
"""The learning rate at which the explicit regulariser is tried, small beside the best ones."""

RATES = tuple(Training(rate) for rate in (SMALL_RATE, 0.02, 0.04, 0.08, 0.16))
"""SGD as it is, at growing learning rates."""

WEIGHTS = tuple(Training(SMALL_RATE, weight) for weight in (0.04, 0.08, 0.16, 0.32, 0.64))
"""The explicit regulariser at a small learning rate, with growing coefficients."""

BATCH_SIZES = (
    *(Training(rate, batch_size=8) for rate in (0.005, 0.02)),
    *(Training(rate, batch_size=128) for rate in (0.04, 0.16)),
)
"""Smaller and larger batches, at rates and ratios ε/B that `RATES` have too."""

UPDATES = tuple(Training(rate, updates=4) for rate in (0.01, 0.04))
"""Four updates on each batch, at bare rates α and effective rates 4α that `RATES` have too."""

TRAININGS = {each.name: each for each in (*RATES, *WEIGHTS, *BATCH_SIZES, *UPDATES)}
"""All trainings by name."""


def _size(preset: str, seeds: tuple[int, ...], epochs: int, every: int, **setting) -> Size:
    """Return a size: the data and the rules of Figure 7, with another network."""
    chosen = figures_2_to_11.setting("figure-7", preset).changed(
        scaling="image", batch_size=32, learning_rate=SMALL_RATE, **setting
    )
    steps = tuple(range(0, epochs + 1, every))
    return Size(Parameters(chosen, epochs, every), seeds, tuple(TRAININGS), epochs, at=steps)


STUDIES = (
    Study(
        name="implicit-regularization",
        title="MLP on Fashion-MNIST: learning rate, explicit regulariser, batch size, n-step SGD",
        section="Smith et al., Appendix D",
        chapter="implicit-regularization",
        sizes={
            "sample": _size(
                "sample",
                (0, 1),
                epochs=4,
                every=2,
                hidden=(16, 16, 16),
                train_examples=256,
                test_examples=500,
            ),
            "paper": _size(
                "paper",
                (0, 1, 2, 3),
                epochs=50,
                every=10,
                hidden=(128, 128, 128),
                train_examples=2048,
                test_examples=10_000,
            ),
        },
        method=Whole(compute),
        quantities={"gradient_square": "mean squared norm of the gradients of the batches"},
    ),
)
"""The experiment as a study; a step of it is an epoch."""
