"""Sweeps: the iterates of a trained model in any order, evaluated, without needless copies.

A sweep computes what :func:`revlib.iterates.iterates` defines. It first walks the *spine*, the
iterates from which others start, and then the *leaves*, which nothing else depends on, coarse to
fine: whenever it is stopped, what it has is a whole curve.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import pandas as pd
from tqdm import tqdm

from revlib.iterates import check_recorded
from revlib.maps import Trainer, TrainingState
from revlib.orders import Order
from revlib.tasks import Task

Measured = tuple[int, dict[str, float]]


def trajectory(
    task: Task,
    order: Order,
    steps: int,
    record: Iterable[int] | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Train a task in the given order and return the curve as a tidy table.

    Parameters
    ----------
    task
        What is trained; its model is not changed.
    order
        The order of iteration, see :mod:`revlib.orders`.
    steps
        The length of the run, in optimizer steps.
    record
        The steps to evaluate, between 0 (the start point) and `steps`; all of them by default.
        A backward run costs about ``steps²/2`` optimizer steps if all are recorded, and
        ``order.cost(record)`` in general.
    progress
        Whether to show a progress bar over the optimizer steps, with the time left.

    Returns
    -------
    pandas.DataFrame
        One row for each recorded step, ascending: ``seed``, ``order``, ``step``, then
        ``<set>_loss`` and, where defined, ``<set>_accuracy`` for each evaluation set. A path that
        diverges is a result: its losses are ``inf`` or ``nan`` from then on.

    Raises
    ------
    ValueError
        If a recorded step lies outside the run, there are too few batches, or the order has an
        impossible anchor; before any work is done.
    """
    recorded = check_recorded(record, steps)
    task.require(steps)
    with tqdm(total=order.cost(recorded), unit=" maps", disable=not progress) as bar:
        rows = []
        for n, measured in sweep(Trainer(task), order, recorded):
            rows.append({"seed": task.seed, "order": order.name, "step": n, **measured})
            bar.update(n - order.anchor(n) if n else 0)
    return pd.DataFrame(rows).sort_values("step", ignore_index=True)


def sweep(trainer: Trainer, order: Order, recorded: Iterable[int]) -> Iterator[Measured]:
    """Yield ``(n, measurements)`` for each recorded step, in the order they are computed."""
    recorded = set(recorded)
    plan = Plan.of(order, recorded)
    for n in walk(trainer, order, plan.spine + plan.leaves, {0: trainer.state()}):
        if n in recorded:
            yield n, trainer.task.evaluate(trainer.model)


@dataclass(frozen=True)
class Plan:
    """The steps that a sweep computes.

    Parameters
    ----------
    spine
        Steps from which other iterates start, ascending. Each needs the ones before it.
    leaves
        Recorded steps on which nothing depends, coarse to fine. They can be computed in any
        order, on any worker.
    """

    spine: list[int]
    leaves: list[int]

    @classmethod
    def of(cls, order: Order, recorded: Iterable[int]) -> Plan:
        """Return the plan for the recorded steps of an order."""
        recorded = list(recorded)
        needed = order.closure(recorded)
        anchors = {order.anchor(n) for n in needed}
        start = [0] if 0 in recorded else []
        return cls(
            start + [n for n in needed if n in anchors],
            coarse_to_fine(n for n in needed if n not in anchors),
        )


def coarse_to_fine(steps: Iterable[int]) -> list[int]:
    """Sort steps so that each beginning of the list is spread over the whole range.

    Steps divisible by a high power of two come first, then those between them, and so on.
    """
    return sorted(steps, key=lambda n: (-(n & -n), n))


def walk(
    trainer: Trainer,
    order: Order,
    steps: list[int],
    states: dict[int, TrainingState],
    keep: Collection[int] = (),
) -> Iterator[int]:
    """Bring the trainer to the iterate at each of `steps` in turn, and yield the step.

    States are large, so one is copied only where a later one of `steps` starts from it and is
    not simply the next.

    Parameters
    ----------
    trainer
        The working copy; after each yield it holds the iterate of the step yielded.
    order
        The order of iteration.
    steps
        The steps to compute. The anchor of each has to be in `states` or to stand before it;
        step 0 stands for the start itself.
    states
        States that are known, by step. This dictionary is kept up to date: anchors of later
        steps are added, and dropped after their last use.
    keep
        Steps whose states are wanted in `states` at the end.
    """
    anchors = [order.anchor(n) if n else 0 for n in steps]
    uses = Counter([*anchors, *keep])
    present = None
    for position, (n, anchor) in enumerate(zip(steps, anchors, strict=True)):
        if anchor != present:
            trainer.load(states[anchor])
        uses[anchor] -= 1
        if not uses[anchor]:
            states.pop(anchor, None)
        for t in range(n, anchor, -1):
            trainer.apply(t)
        present = n
        followed = anchors[position + 1 : position + 2] == [n]
        if n and uses[n] > followed:
            states[n] = trainer.state()
        yield n
