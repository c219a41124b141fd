"""Learning rates judged early: what each method ranks, and how often otherwise than a long run."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from revlib import orders
from revlib.experiments.section_5.held_out import task_of
from revlib.orders import Order
from revlib.training import sweep
from revlib.training.settings import Setting

METHODS = ("forward", "forward, mean loss", "backward", "backward path")
"""The ways to judge a setting early, at a cost of C maps.

``forward`` and ``backward`` read the loss off the one iterate that this buys: in either order the
iterate at step C costs C maps. ``forward, mean loss`` takes the mean over ten points of the last
half of the forward path. ``backward path`` buys a whole path, each of its steps, so that it can be
seen to have come to rest, and reads off its end: C maps make a path of about the square root of 2C
steps.
"""


@dataclass(frozen=True)
class Ranking:
    """What the numbers of a study of early judgement depend on.

    Parameters
    ----------
    setting
        What is trained, but for the learning rate.
    rates
        The learning rates that are to be ranked.
    long
        Length of the long run that decides what the right ranking is, in steps.
    last
        Over how many of its last steps its loss is averaged (at every tenth of them).
    budgets
        What may be spent on the early judgement of each rate, in maps; ascending.
    """

    setting: Setting
    rates: tuple[float, ...]
    long: int
    last: int
    budgets: tuple[int, ...]


def ranking(parameters: Ranking, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield how well one of :data:`METHODS` ranks learning rates, at each budget.

    Start point and batches are the same for all learning rates.

    Yields
    ------
    dict
        ``step`` (the budget, in maps for each learning rate), ``length`` (the step of the iterate
        that this buys), ``misranked`` (:func:`misranked`), and ``excess`` (by how much the long
        run's loss at the rate that is ranked first lies above that at the best rate).
    """
    truth = _long_runs(parameters, seed)
    for budget in parameters.budgets:
        length = _path_length(budget) if case == "backward path" else budget
        recorded = [length]
        if case.endswith("mean loss"):
            recorded = range(length, length // 2, -max(1, length // 20))
        order = orders.backward() if case.startswith("backward") else orders.forward()
        scores = [
            _mean_loss(parameters.setting, rate, seed, order, recorded) for rate in parameters.rates
        ]
        chosen = truth[int(np.argmin(scores))]
        yield {
            "step": budget,
            "length": length,
            "misranked": misranked(scores, truth),
            "excess": chosen - min(truth),
        }


def misranked(scores: Iterable[float], truth: Iterable[float]) -> float:
    """Return the share of pairs that scores rank the other way round than the truth does.

    It is ``(1 - tau) / 2`` with Kendall's tau (tau-b): 0 for the same ranking, 1/2 for no relation,
    1 for the reverse. Runs that diverged share the last place; scores that are all equal say
    nothing, and count 1/2.
    """
    ranks = [scipy.stats.rankdata(_finite(values)) for values in (scores, truth)]
    tau = scipy.stats.kendalltau(*ranks).statistic
    return (1 - float(np.nan_to_num(tau))) / 2


@functools.lru_cache(maxsize=1)
def _long_runs(parameters: Ranking, seed: int) -> tuple[float, ...]:
    """Return the loss that each learning rate comes to in the end."""
    recorded = range(parameters.long - parameters.last + 10, parameters.long + 1, 10)
    return tuple(
        _mean_loss(parameters.setting, rate, seed, orders.forward(), recorded)
        for rate in parameters.rates
    )


def _mean_loss(
    setting: Setting, rate: float, seed: int, order: Order, recorded: Iterable[int]
) -> float:
    """Return the mean validation loss over the recorded steps; infinite if the run diverged."""
    task = task_of(setting.changed(learning_rate=rate), seed)
    recorded = list(recorded)
    curve = sweep.trajectory(task, order, max(recorded), recorded)
    return float(_finite(curve["validation_loss"]).mean())


def _finite(values: Iterable[float]) -> np.ndarray:
    return np.nan_to_num(np.array(list(values), float), nan=np.inf, posinf=np.inf)


def _path_length(budget: int) -> int:
    """Return the length n of the longest backward path that costs at most that many maps.

    It costs ``n (n + 1) / 2`` (Section 1).
    """
    return (math.isqrt(8 * budget + 1) - 1) // 2
