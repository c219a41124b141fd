"""The usual remedies for a restless path, against the backward order: what each reaches, and costs.

Learning-rate decay, averages of the iterates, larger batches and longer training are compared with
the backward and a windowed order, on the tasks of Figures 4 to 7. All of them start from the same
point; those with batches of the same size see the same batches. The unit of cost is the gradient
of one batch of the task's size, and everything is told in forward runs, N of them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from revlib.experiments import figures_2_to_11
from revlib.experiments.study import Size, Study, Whole
from revlib.orders import Order, backward, forward, windowed
from revlib.training import averaging, sweep
from revlib.training.settings import Setting, build
from revlib.training.tasks import Task


@dataclass(frozen=True)
class Parameters:
    """What the numbers of one study depend on.

    Parameters
    ----------
    setting
        What is trained.
    steps
        Length N of the run, in steps.
    last
        How many steps at its end are all recorded: there the fluctuation is measured.
    window
        Size of the windows of the windowed order.
    decay
        Weight of the newest iterate in the exponential moving average.
    span
        Over how many of the last steps SWA averages, and how far the two points are apart.
    larger
        How many times as large the larger batches are.
    """

    setting: Setting
    steps: int
    last: int
    window: int
    decay: float
    span: int
    larger: int


@dataclass(frozen=True)
class Training:
    """One way to train, and what is done with its iterates.

    Parameters
    ----------
    name
        How it is called in tables and figures.
    order
        The order of iteration, at a constant rate; None for the forward trainings that differ in
        what follows.
    schedule
        A name in `revlib.training.averaging.SCHEDULES`.
    average
        ``"ema"``, ``"swa"``, ``"two points"`` or ``"orders"``: the mean of the forward and the
        backward iterate.
    batches
        How many times as large the batches are.
    rate
        How many times as large the learning rate is.
    length
        How many times as many steps are taken.
    """

    name: str
    order: Order | None = None
    schedule: str = "constant"
    average: str | None = None
    batches: int = 1
    rate: float = 1.0
    length: float = 1.0


FEWER = 8
"""How many times as large the batches are of which a forward run sees as many times fewer."""


def trainings(parameters: Parameters) -> list[Training]:
    """Return the trainings that are compared."""
    larger, order = parameters.larger, windowed(parameters.window)
    return [
        Training("forward", order=forward()),
        Training("backward", order=backward()),
        Training(order.name, order=order),
        Training("mean of both orders", average="orders"),
        Training("linear decay", schedule="linear"),
        Training("cosine decay", schedule="cosine"),
        Training("EMA", average="ema"),
        Training("SWA", average="swa"),
        Training("two points", average="two points"),
        Training("fewer, larger batches", batches=FEWER, rate=FEWER, length=1 / FEWER),
        Training("larger batches", batches=larger),
        Training("longer, linear decay", schedule="linear", length=parameters.last),
    ]


def window(parameters: Parameters) -> tuple[int, int]:
    """Return the first and the last of the steps in which the fluctuation is measured."""
    return parameters.steps - parameters.last + 1, parameters.steps


def _taken(parameters: Parameters, training: Training, step: int) -> int:
    """Return how many steps a training has taken where `step` is recorded.

    A longer or shorter training is recorded at the same parts of its length, and at its end at
    each of its last steps.
    """
    first, last = window(parameters)
    total = round(last * training.length)
    return total - (last - step) if step >= first else round(step * training.length)


def compute(parameters: Parameters, seed: int, name: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of one of `trainings`, by its name: losses and accuracies along it.

    Yields
    ------
    dict
        ``step``, and what `revlib.training.tasks.Task.evaluate` measures on the training and test
        examples. The mean of both orders also has ``outputs_test_loss``: that of the mean of the
        two networks' outputs. A training whose loss is not finite ends there.
    """
    (training,) = (each for each in trainings(parameters) if each.name == name)
    task = _task(parameters.setting, training, seed)
    recorded = _recorded(parameters)
    for step, measured in _measured(parameters, training, task, recorded):
        yield {"step": step} | measured
        if not np.isfinite(measured["train_loss"]):
            return


def _task(setting: Setting, training: Training, seed: int) -> Task:
    return build(
        setting.changed(
            batch_size=setting.batch_size * training.batches,
            learning_rate=setting.learning_rate * training.rate,
        ),
        seed,
    )


def _measured(
    parameters: Parameters, training: Training, task: Task, recorded: Collection[int]
) -> Iterator[tuple[int, dict[str, float]]]:
    if training.average == "orders":
        yield from _both_orders(task, recorded)
        return
    if training.order is not None:
        path = sweep.models(task, training.order, recorded)
    else:
        path = _path(parameters, training, task, recorded)
    yield from ((step, task.evaluate(model)) for step, model in path)


def _path(
    parameters: Parameters, training: Training, task: Task, recorded: Collection[int]
) -> Iterator[tuple[int, nn.Module]]:
    """Yield the recorded steps of a forward training with their model, averaged or not."""
    steps = {step: _taken(parameters, training, step) for step in recorded}
    total = _taken(parameters, training, parameters.steps)
    path = averaging.forward_path(task, total, averaging.SCHEDULES[training.schedule])
    if training.average == "ema":
        path = averaging.ema(path, parameters.decay)
    elif training.average == "swa":
        path = averaging.swa(path, parameters.steps - parameters.span + 1)
    elif training.average == "two points":
        path = averaging.two_points(path, parameters.span, steps.values())
    for taken, model in path:
        yield from ((step, model) for step, its in steps.items() if its == taken)


def _both_orders(task: Task, recorded: Collection[int]) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield what is measured of the mean of the forward and the backward iterate."""
    iterates = [sweep.models(task, order, recorded) for order in (forward(), backward())]
    for (step, one), (_, other) in zip(*iterates, strict=True):
        outputs = task.evaluate(_Mean([one, other]))
        mean = copy.deepcopy(one)
        with torch.no_grad():
            for parameter, second in zip(mean.parameters(), other.parameters(), strict=True):
                parameter.lerp_(second, 0.5)
        yield step, task.evaluate(mean) | {"outputs_test_loss": outputs["test_loss"]}


class _Mean(nn.Module):
    """The mean of the outputs of some networks."""

    def __init__(self, models: list[nn.Module]):
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.stack([model(inputs) for model in self.models]).mean(0)


def affordable(steps: int) -> int:
    """Return how many steps of a whole backward path cost no more than a forward run."""
    return (math.isqrt(8 * steps + 1) - 1) // 2


def _recorded(parameters: Parameters) -> tuple[int, ...]:
    """Return the recorded steps: an early one, every fifth of the run, and all of the last."""
    first, last = window(parameters)
    grid = {affordable(last), *range(last // 5, first, last // 5)}
    return (0, *sorted(grid), *range(first, last + 1))


def _size(name: str, preset: str, last: int, **changes) -> Size:
    chosen = next(study for study in figures_2_to_11.STUDIES if study.name == name).size(preset)
    steps = changes.pop("steps", chosen.steps)
    setting = chosen.setting.changed(test_examples=changes.pop("test_examples", None))
    parameters = Parameters(setting, steps, last, **changes)
    cases = tuple(each.name for each in trainings(parameters))
    return Size(parameters, chosen.seeds, cases, steps, at=_recorded(parameters))


def _study(name: str, what: str, paper: dict, sample: dict) -> Study:
    return Study(
        name=f"remedies-{name}",
        title=f"{what}: decay, averages and larger batches against the backward order",
        section="5",
        chapter="against-the-usual-remedies",
        sizes={"sample": _size(name, "sample", **sample), "paper": _size(name, "paper", **paper)},
        method=Whole(compute),
        quantities={"outputs_test_loss": "test loss of the mean of both orders' outputs"},
    )


_REGRESSION = (
    {"last": 20, "window": 100, "decay": 0.01, "span": 350, "larger": 101},
    {"last": 8, "window": 20, "decay": 0.05, "span": 40, "larger": 101, "steps": 100},
)

STUDIES = (
    _study("figure-4", "MLP learning x²", *_REGRESSION),
    _study("figure-5", "MLP learning cos(10x)", *_REGRESSION),
    _study("figure-6", "MLP learning x³", *_REGRESSION),
    _study(
        "figure-7",
        "MLP on Fashion-MNIST",
        {"last": 8, "window": 100, "decay": 0.01, "span": 500, "larger": 16}
        | {"test_examples": 2000},
        {"last": 8, "window": 20, "decay": 0.05, "span": 40, "larger": 8, "steps": 100},
    ),
)
"""The comparison as studies, one for each task."""
