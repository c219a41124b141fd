"""Decisions by looks that cost the same: when to stop, and which learning rate to keep."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from revlib.experiments.fixed_ending.rivals import Parameters, look
from revlib.experiments.section_5.held_out import held_out
from revlib.experiments.section_5.paths import stopped
from revlib.experiments.section_5.rankings import Ranking, misranked
from revlib.training.settings import build

WATCHED = ("forward", "fixed ending", "cooldown", "EMA")
"""The rivals whose looks early stopping watches."""


@dataclass(frozen=True)
class Watched(Parameters):
    """What the numbers of a study of early stopping depend on.

    Parameters
    ----------
    patience
        After how many looks without a better one the training ends.
    """

    patience: int


def stopping(parameters: Watched, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield the looks of one of :data:`WATCHED`, and what early stopping makes of them.

    Yields
    ------
    dict
        ``step``; loss on the validation and the test set; and the columns of
        :func:`revlib.experiments.section_5.paths.stopped`.
    """
    task = held_out(build(parameters.setting, seed))
    looks = look(parameters, task, case)
    curve = pd.DataFrame({"step": step} | task.evaluate(model) for step, model in looks)
    yield from curve.assign(**stopped(curve, parameters.patience)).to_dict("records")


JUDGES = (
    "forward",
    "forward, mean loss",
    "fixed ending",
    "fixed ending, mean loss",
    "cooldown",
    "EMA",
)
"""The ways to judge a learning rate for C maps: by one look at the end, or by the mean of ten.

One ending or cooldown takes m = C/4 of the maps, and the moving average looks back over as many.
Ten looks, or fewer where there are no ten steps, are spread over the last half of a path; of an
ending each takes C/20 maps, so that the path is as much shorter.
"""


def _bought(case: str, budget: int) -> tuple[str, int, tuple[int, ...]]:
    """Return what a budget buys: a rival, its m, and the steps at which one looks."""
    rival, _, many = case.partition(", ")
    if not many:
        m = budget // 4
        return rival, m, (budget - m if rival == "cooldown" else budget,)
    m = budget // 20
    length = budget - 9 * m if rival == "fixed ending" else budget
    return rival, m, tuple(sorted(range(length, length // 2, -max(1, length // 20))[:10]))


def judging(parameters: Ranking, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield how well one of :data:`JUDGES` ranks learning rates, at each budget.

    Yields
    ------
    dict
        ``step``, the budget, in maps for each learning rate; ``misranked``, the share of pairs that
        the long run ranks the other way round, by its mean loss over the last steps; ``excess``, by
        how much that loss at the rate which is ranked first lies above that at the best; and
        ``misranked_decayed`` and ``excess_decayed``, the same where the rate of the long run falls
        to zero in a line over the last steps, and its end counts.
    """
    long, last = parameters.long, parameters.last
    truths = {
        "": _scores(parameters, seed, "forward", 1, tuple(range(long - last + 10, long + 1, 10))),
        "_decayed": _scores(parameters, seed, "cooldown", last, (long - last,)),
    }
    for budget in parameters.budgets:
        scores = _scores(parameters, seed, *_bought(case, budget))
        row: dict[str, Any] = {"step": budget}
        for which, truth in truths.items():
            row[f"misranked{which}"] = misranked(scores, truth)
            row[f"excess{which}"] = truth[int(np.argmin(scores))] - min(truth)
        yield row


@functools.lru_cache(maxsize=8)
def _scores(
    parameters: Ranking, seed: int, rival: str, length: int, steps: tuple[int, ...]
) -> tuple[float, ...]:
    """Return the mean validation loss of the looks at each rate, infinite where one diverged."""
    scores = []
    for rate in parameters.rates:
        setting = parameters.setting.changed(learning_rate=rate)
        task = held_out(build(setting, seed))
        looks = look(Parameters(setting, length, steps), task, rival)
        loss = np.mean([task.evaluate(model)["validation_loss"] for _, model in looks])
        scores.append(float(loss) if np.isfinite(loss) else np.inf)
    return tuple(scores)
