"""Figures 14 to 19: training with the order-averaging regulariser (Section D.2.1)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from revlib.experiments import figures_2_to_11
from revlib.experiments.study import Size, Study, Whole
from revlib.training.order_averaging import OrderAveraging, small_steps
from revlib.training.settings import Setting, build
from revlib.training.tasks import Task

FIGURES = {2: "figure-14", 3: "figure-16", 4: "figure-18"}
"""The paper's c and the figure of its training loss; the next figure shows the test loss."""

PIECES = tuple(FIGURES)

WEIGHTS = {"λ = 0.5h²": 0.5, "λ = h²": 1.0, "λ = 2h²": 2.0, "λ = 4h²": 4.0}
"""The paper's λ, in units of h², by the name of the training with it."""


@dataclass(frozen=True)
class Training:
    """One way of training on large batches.

    Parameters
    ----------
    name
        How it is called in tables and figures.
    rate
        Learning rate of a large step, in units of h.
    weight
        The regulariser's weight λ, in units of h².
    small
        Whether to take a small step on each piece instead of one large step.
    """

    name: str
    rate: float = 1.0
    weight: float = 0.0
    small: bool = False


def trainings(c: int) -> list[Training]:
    """Return the trainings that are compared for a number of pieces.

    Beside the paper's own (large and small batch at h', four λ): the large batch at h, which is
    the step that the regulariser is added to; the λ of the true order average; the opposite sign;
    and the smallest λ added to the large batch at h' instead.
    """
    return [
        Training("large batch, h/c", rate=1 / c),
        Training("large batch, h"),
        Training("small batches, h/c", small=True),
        Training("order average", weight=1 / (2 * c**2)),
        *(Training(name, weight=weight) for name, weight in WEIGHTS.items()),
        Training("λ = -h²", weight=-1.0),
        Training("λ = 0.5h², h/c", rate=1 / c, weight=0.5),
    ]


@dataclass(frozen=True)
class Parameters:
    """What the numbers of one figure depend on.

    Parameters
    ----------
    setting
        What is trained. Its batch size is rounded up to a multiple of c, its learning rate is h.
    c
        Number of pieces.
    every
        After how many large batches the losses are evaluated.
    steps
        How many large batches are taken.
    """

    setting: Setting
    c: int
    every: int
    steps: int


def compute(parameters: Parameters, seed: int, training: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of one training: losses and accuracies along it.

    Parameters
    ----------
    parameters
        What is trained.
    seed
        Start point and batches.
    training
        The name of one of `trainings`.

    Yields
    ------
    dict
        ``step``, ``train_loss``, ``test_loss``, ``train_accuracy``, ``test_accuracy``, and of the
        step last taken the regulariser's ``ratio`` and ``cosine`` (see `OrderAveraging`). A
        training whose loss is not finite ends there.
    """
    c, h = parameters.c, parameters.setting.learning_rate
    chosen = next(each for each in trainings(c) if each.name == training)
    task = large_batches(parameters.setting, c, seed)
    model, loss = copy.deepcopy(task.model).train(), task.loss
    with warnings.catch_warnings():  # the chapter says what ReLU means here
        warnings.simplefilter("ignore", UserWarning)
        step = OrderAveraging(model, loss, c, chosen.rate * h, chosen.weight * h**2)
    for n in range(parameters.steps + 1):
        if n and chosen.small:
            small_steps(model, loss, task.batch(n), c, chosen.rate * h)
        elif n:
            step(task.batch(n))
        if n % parameters.every == 0:
            measured = task.evaluate(model) | {"ratio": step.ratio, "cosine": step.cosine}
            yield {"step": n} | measured
            if not np.isfinite(measured["train_loss"]):
                return


def large_batches(setting: Setting, c: int, seed: int) -> Task:
    """Return the task of a setting, with batches that can be cut into c pieces."""
    return build(setting.changed(batch_size=-(-setting.batch_size // c) * c), seed)


def _size(
    preset: str, c: int, batch_size: int, examples: int, h: float, steps: int, every: int, seeds
) -> Size:
    """Return a size of the experiment: the setting of Figure 7 with other batches."""
    setting = figures_2_to_11.setting("figure-7", preset)
    setting = setting.changed(batch_size=batch_size, learning_rate=h, train_examples=examples)
    return Size(
        Parameters(setting.changed(test_examples=examples), c, every, steps),
        seeds,
        tuple(each.name for each in trainings(c)),
        steps,
        at=tuple(range(0, steps + 1, every)),
    )


def _figure(c: int) -> Study:
    """Return the study of one number of pieces."""
    return Study(
        name=FIGURES[c],
        title=f"MLP on Fashion-MNIST with the order-averaging regulariser, c = {c}",
        section="D.2.1",
        chapter="d-2-order-averaging",
        sizes={
            "sample": _size("sample", c, 120, 300, 0.005, steps=8, every=2, seeds=(0, 1)),
            "paper": _size("paper", c, 2048, 2000, 0.001, steps=30, every=3, seeds=(0, 1, 2)),
        },
        method=Whole(compute),
    )


STUDIES = tuple(map(_figure, PIECES))
"""The experiment as studies, one for each number of pieces."""
