"""How well the iterates of an order know the first batches and the newest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from revlib.experiments.fixed_ending.rivals import Parameters, joined, told
from revlib.orders import named
from revlib.training import sweep
from revlib.training.settings import build


def remembered(parameters: Parameters, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield what the iterates of an order know of the first batches and of the newest.

    Yields
    ------
    dict
        ``step``; losses and accuracies; and ``first_loss`` and ``newest_loss``, on the
        ``parameters.length`` first batches of the run and on as many newest.
    """
    task, m = build(parameters.setting, seed), parameters.length
    first = joined(task, range(1, m + 1))
    for step, model in sweep.models(task, named(case), parameters.steps):
        both = {"first": first, "newest": joined(task, range(step - m + 1, step + 1))}
        measured = dataclasses.replace(task, evaluation=task.evaluation | both).evaluate(model)
        yield {"step": step} | {k: v for k, v in measured.items() if told(k)}
