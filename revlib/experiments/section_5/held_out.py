"""Held-out data that is chosen by, and held-out data that is reported.

Whatever is chosen by looking at held-out data is chosen on the *validation* set, and reported on
the *test* set, which took no part in the choice: the two halves of the task's test examples.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import torch

from revlib.training.settings import Setting, build
from revlib.training.tasks import Task


def held_out(task: Task) -> Task:
    """Return the task with two evaluation sets, the halves of its test set.

    ``validation`` has the first, third, … test example, ``test`` the others.
    """
    inputs, targets = task.evaluation["test"]
    halves = {"validation": slice(0, None, 2), "test": slice(1, None, 2)}
    sets = {name: (inputs[half], targets[half]) for name, half in halves.items()}
    return dataclasses.replace(task, evaluation=sets)


def optimizers(rate: float) -> dict[str, Callable]:
    """Return what makes each of torch's optimizers that is tried, by name.

    Parameters
    ----------
    rate
        The learning rate of plain SGD. With momentum 0.9 it is divided by ten, since a constant
        gradient then moves ten times as far; Adam has its own default, 0.001.
    """
    return {
        "SGD": functools.partial(torch.optim.SGD, lr=rate),
        "momentum": functools.partial(torch.optim.SGD, lr=rate / 10, momentum=0.9),
        "Adam": functools.partial(torch.optim.Adam, lr=0.001),
    }


def task_of(setting: Setting, seed: int, optimizer: str = "SGD") -> Task:
    """Return the task of a setting and seed, evaluated on the two halves of its test set."""
    made = optimizers(setting.learning_rate)[optimizer]
    return dataclasses.replace(held_out(build(setting, seed)), optimizer=made)
