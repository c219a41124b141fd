"""Paths in several orders: windows, late switches, other optimizers."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from revlib import orders
from revlib.experiments.section_5.held_out import task_of
from revlib.training import sweep
from revlib.training.settings import Setting
from revlib.training.sweep import Job


@dataclass(frozen=True)
class Path:
    """What the numbers of a study of paths depend on.

    Parameters
    ----------
    setting
        What is trained.
    steps
        The recorded steps, ascending.
    patience
        For early stopping: after how many recorded steps without a better one the training ends.
        None where that is not looked at.
    """

    setting: Setting
    steps: tuple[int, ...]
    patience: int | None = None


def path(parameters: Path, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield the iterates of one path, evaluated.

    The case is an order by name, after the name of an optimizer and a comma if it is not plain SGD.

    Yields
    ------
    dict
        ``step``, and loss and accuracy on the validation and the test set and the batch applied
        last, as they are computed, coarse to fine; with a patience in the order of the steps, and
        with the columns of :func:`stopped`.
    """
    *optimizer, name = case.split(", ")
    source = functools.partial(task_of, parameters.setting, seed, *optimizer)
    job = Job(source, seed, orders.named(name), list(parameters.steps))
    rows = (
        {key: value for key, value in row.items() if key not in ("seed", "order")}
        for rows in sweep.compute([job])
        for row in rows
    )
    if parameters.patience is None:
        yield from rows
    else:
        curve = pd.DataFrame(rows).sort_values("step", ignore_index=True)
        yield from curve.assign(**stopped(curve, parameters.patience)).to_dict("records")


def stopped(curve: pd.DataFrame, patience: int) -> pd.DataFrame:
    """Return what early stopping makes of a path, if it watches from the first row on.

    Training ends when the validation loss has not been lower than its lowest value for `patience`
    rows in turn; the iterate with that lowest value is then taken.

    Parameters
    ----------
    curve
        The rows of one path with ``step``, ``validation_loss`` and ``test_loss``, ascending.
    patience
        Counted in rows, 1 or more.

    Returns
    -------
    pandas.DataFrame
        For each row what would be taken if the path ended there: ``ended`` (the step at which the
        training ended, or that of the row if it still runs), ``stopped`` (the step of the iterate
        that is taken), ``stopped_loss`` (its test loss) and ``regret`` (by how much that lies above
        the lowest test loss of the rows so far).
    """
    loss = curve["validation_loss"].fillna(np.inf).to_numpy()
    taken, ended, found = 0, None, []
    lowest = curve["test_loss"].cummin()
    for i in range(len(curve)):
        if ended is None and loss[i] < loss[taken]:
            taken = i
        if ended is None and i - taken == patience:
            ended = i
        found.append((i if ended is None else ended, taken))
    last, best = np.array(found).T
    steps, test = curve["step"].to_numpy(), curve["test_loss"].to_numpy()
    return pd.DataFrame(
        {
            "ended": steps[last],
            "stopped": steps[best],
            "stopped_loss": test[best],
            "regret": test[best] - lowest,
        },
        index=curve.index,
    )
