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

START = {"init": "haiku", "scaling": "image"}
"""A start of smaller curvature than the default's; the paper states none."""


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
    the step that the regulariser is added to; the λ of the true order average; and, since the
    paper does not say which step the regulariser is added to and a sign is soon lost, the
    smallest and the largest weight at h' too, and two weights of the opposite sign at either.
    """
    slow, opposite = 1 / c, {"λ = -h²": -1.0, "λ = -4h²": -4.0}
    ends = {name: WEIGHTS[name] for name in ("λ = 0.5h²", "λ = 4h²")}
    return [
        Training("large batch, h/c", rate=slow),
        Training("large batch, h"),
        Training("small batches, h/c", small=True),
        Training("order average", weight=1 / (2 * c**2)),
        *(Training(name, weight=weight) for name, weight in (WEIGHTS | opposite).items()),
        *(
            Training(f"{name}, h/c", rate=slow, weight=weight)
            for name, weight in (ends | opposite).items()
        ),
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
    at
        After how many large batches the losses are evaluated; the last ends the training.
    """

    setting: Setting
    c: int
    at: tuple[int, ...]


def compute(
    parameters: Parameters, seed: int, training: str, device: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of one of `trainings`, by its name: losses and accuracies along it.

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
    task = task if device is None else task.to(device)
    model, loss = copy.deepcopy(task.model).train(), task.loss
    with warnings.catch_warnings():  # the chapter says what ReLU means here
        warnings.simplefilter("ignore", UserWarning)
        step = OrderAveraging(model, loss, c, chosen.rate * h, chosen.weight * h**2)
    for n in range(parameters.at[-1] + 1):
        if n and chosen.small:
            small_steps(model, loss, task.batch(n), c, chosen.rate * h)
        elif n:
            step(task.batch(n))
        if n in parameters.at:
            measured = task.evaluate(model) | {"ratio": step.ratio, "cosine": step.cosine}
            yield {"step": n} | measured
            if not np.isfinite(measured["train_loss"]):
                return


def large_batches(setting: Setting, c: int, seed: int) -> Task:
    """Return the task of a setting, with batches that can be cut into c pieces."""
    return build(setting.changed(batch_size=-(-setting.batch_size // c) * c), seed)


def _size(preset: str, c: int, at: tuple[int, ...], seeds: tuple[int, ...], **changes: Any) -> Size:
    """Return a size of the experiment: the setting of Figure 7 with other batches."""
    setting = figures_2_to_11.setting("figure-7", preset).changed(**changes)
    cases = tuple(each.name for each in trainings(c))
    return Size(Parameters(setting, c, at), seeds, cases, at[-1], at=at)


_SAMPLE = {"batch_size": 120, "learning_rate": 0.005, "train_examples": 300, "test_examples": 300}
_PAPER = {"batch_size": 2048, "learning_rate": 0.001, "train_examples": 2000, "test_examples": 2000}
_LENGTH = (0, 1, *range(10, 50, 10), *range(50, 1001, 50))


def _figure(c: int) -> Study:
    """Return the study of one number of pieces."""
    return Study(
        name=FIGURES[c],
        title=f"MLP on Fashion-MNIST with the order-averaging regulariser, c = {c}",
        section="D.2.1",
        chapter="d-2-order-averaging",
        sizes={
            "sample": _size("sample", c, (0, 1, 2, 4), (0, 1), **_SAMPLE),
            "paper": _size("paper", c, _LENGTH, (0, 1, 2), **_PAPER),
        },
        method=Whole(compute),
        variants=(START,),
    )


STUDIES = tuple(map(_figure, PIECES))
"""The experiment as studies, one for each number of pieces."""
