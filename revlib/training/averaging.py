"""Averages of models along a training path, as `torch.optim.swa_utils` takes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from torch import nn
from torch.optim import Optimizer, lr_scheduler, swa_utils

from revlib.training.tasks import Task

SCHEDULES: dict[str, Callable[[Optimizer, int], lr_scheduler.LRScheduler]] = {
    "constant": lambda optimizer, steps: lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
    "linear": lambda optimizer, steps: lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps),
    "cosine": lambda optimizer, steps: lr_scheduler.CosineAnnealingLR(optimizer, steps),
}
"""Learning-rate schedules by name, made for an optimizer and a number of steps.

Linear: step i of k is taken at ``(k + 1 - i)/k`` of the rate, as SWA over k steps is worth.
"""


def forward_path(
    task: Task,
    steps: int,
    scheduler: Callable[[Optimizer, int], lr_scheduler.LRScheduler],
    first: int = 0,
) -> Iterator[tuple[int, nn.Module]]:
    """Train forward and yield each step with the model, the start included.

    Parameters
    ----------
    task
        What is trained; its own model is copied.
    steps
        How many steps.
    scheduler
        Makes the schedule from the optimizer and the number of steps: one of `SCHEDULES`.
    first
        How many batches of the task's stream are passed over before.

    Yields
    ------
    step : int
        0 for the start.
    model : torch.nn.Module
        The model that is being trained: it changes with the next step.
    """
    made = task.make()
    rates = scheduler(made.optimizer, steps)
    yield 0, made.model
    for step in range(1, steps + 1):
        task.step(made, task.batch(first + step), made.model)
        rates.step()
        yield step, made.model


Path = Iterable[tuple[int, nn.Module]]


def ema(path: Path, decay: float) -> Iterator[tuple[int, nn.Module]]:
    """Yield the exponential moving average along a path, begun with its first model.

    `decay` is the weight of the newest model, as for `exponential` (torch calls decay what is left
    to the older ones).
    """
    average = None
    for step, model in path:
        if average is None:
            average_of = swa_utils.get_ema_multi_avg_fn(1 - decay)
            average = swa_utils.AveragedModel(model, multi_avg_fn=average_of, use_buffers=True)
        average.update_parameters(model)
        yield step, average.module


def swa(path: Path, first: int) -> Iterator[tuple[int, nn.Module]]:
    """Yield the mean of all models from step `first` on; before it, the models themselves."""
    average = None
    for step, model in path:
        if step < first:
            yield step, model
            continue
        average = average or swa_utils.AveragedModel(model, use_buffers=True)
        average.update_parameters(model)
        yield step, average.module


def two_points(path: Path, spacing: int, steps: Collection[int]) -> Iterator[tuple[int, nn.Module]]:
    """Yield, at some steps, the mean of the model and the one `spacing` steps before.

    Steps before `spacing` have no such partner: there the model itself is yielded.
    """
    begun = {}
    for step, model in path:
        if step + spacing in steps:
            begun[step + spacing] = swa_utils.AveragedModel(model, use_buffers=True)
            begun[step + spacing].update_parameters(model)
        if step in begun:
            average = begun.pop(step)
            average.update_parameters(model)
            yield step, average.module
        elif step in steps:
            yield step, model
