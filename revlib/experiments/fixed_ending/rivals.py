"""What a look at an iterate can cost m more steps for: a fixed ending, and its rivals."""

from __future__ import annotations

import copy
import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from revlib.orders import forward, tail
from revlib.training import averaging, sweep
from revlib.training.settings import Setting, build
from revlib.training.tasks import Batch, Task

LARGER = 10
"""How many batches are one in the larger batches of a rival."""


@dataclass(frozen=True)
class Parameters:
    """What the numbers of a study of rivals depend on.

    Parameters
    ----------
    setting
        What is trained.
    length
        How many more steps a look may cost, m.
    steps
        The steps of the forward run at which one looks, ascending.
    """

    setting: Setting
    length: int
    steps: tuple[int, ...]


RIVALS = ("forward", "fixed ending", "cooldown", "EMA", "last iterates", "larger batches")
"""What a look at step n may be at: the forward iterate, or what comes of it in m more steps.

- *fixed ending*: the m first batches after the others, ``tail(m)``;
- *cooldown*: the m next batches, at a rate that falls to zero in a line;
- *EMA*: no more steps, but an exponential moving average in which the newest iterate has the
  weight ``2 / (m + 1)``, so that it looks back as far as a mean of m does;
- *last iterates*: the mean of the last m;
- *larger batches*: the m next batches, ten at a time, at the rate of one.
"""


def rival(parameters: Parameters, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield what one of :data:`RIVALS` shows at each look.

    Yields
    ------
    dict
        ``step``; losses and accuracies; and the loss on the m first batches and on the m newest of
        the forward run, ``first_loss`` and ``newest_loss``: whether an ending fits its own batches.
    """
    task, m = build(parameters.setting, seed), parameters.length
    first = joined(task, range(1, m + 1))
    for step, model in look(parameters, task, case):
        newest = joined(task, range(max(step - m, 0) + 1, max(step, m) + 1))
        measured = dataclasses.replace(
            task, evaluation={**task.evaluation, "first": first, "newest": newest}
        ).evaluate(model)
        yield {"step": step} | {k: v for k, v in measured.items() if told(k)}


def told(quantity: str) -> bool:
    """Return whether a column is kept: losses and accuracies, and those on first and newest."""
    return quantity.startswith(("train_", "test_")) or quantity in ("first_loss", "newest_loss")


def look(parameters: Parameters, task: Task, case: str) -> Iterator[tuple[int, nn.Module]]:
    """Yield each look of a case with its model."""
    steps, m = parameters.steps, parameters.length
    if case in ("forward", "fixed ending"):
        yield from sweep.models(task, forward() if case == "forward" else tail(m), steps)
        return
    path = averaging.forward_path(task, max(steps), averaging.SCHEDULES["constant"])
    if case == "EMA":
        path = averaging.ema(path, 2 / (m + 1))
    elif case == "last iterates":
        path = _means(path, m)
    for step, model in path:
        if step in steps:
            if case == "cooldown":
                model = _onward(task, model, step, m, averaging.SCHEDULES["linear"])
            elif case == "larger batches":
                larger = _Larger(task, step, LARGER)
                constant = averaging.SCHEDULES["constant"]
                model = _onward(
                    dataclasses.replace(task, batches=larger), model, 0, m // LARGER, constant
                )
            yield step, model


def _onward(task: Task, model: nn.Module, step: int, more: int, schedule) -> nn.Module:
    """Return a model after more steps from there, which leave the model itself as it is."""
    task = dataclasses.replace(task, model=model)
    *_, (_, trained) = averaging.forward_path(task, more, schedule, first=step)
    return trained


@dataclass(frozen=True)
class _Larger:
    """The batches after some step, several of them as one."""

    task: Task
    after: int
    together: int

    def __getitem__(self, index: int) -> Batch:
        begin = self.after + index * self.together
        return joined(self.task, range(begin + 1, begin + self.together + 1))


def joined(task: Task, numbers: Iterable[int]) -> Batch:
    """Return batches as one."""
    inputs, targets = zip(*map(task.batch, numbers), strict=True)
    return torch.cat(inputs), torch.cat(targets)


def _means(path: averaging.Path, length: int) -> Iterator[tuple[int, nn.Module]]:
    """Yield the mean of the last models along a path; of all of them as long as they are fewer."""
    kept: deque[list[torch.Tensor]] = deque()
    total: list[torch.Tensor] = []
    mean = None
    for step, model in path:
        mean = mean or copy.deepcopy(model)
        kept.append([p.detach().clone() for p in model.parameters()])
        total = total or [torch.zeros_like(p, dtype=torch.float64) for p in kept[0]]
        gone = kept.popleft() if len(kept) > length else [0.0] * len(total)
        with torch.no_grad():
            for p, of, new, old in zip(mean.parameters(), total, kept[-1], gone, strict=True):
                of += new.double() - old
                p.copy_(of / len(kept))
        yield step, mean
