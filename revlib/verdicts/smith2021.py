"""What became of the trainings of Smith et al. (2021)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd

from revlib.experiments.smith2021 import Training


def levels(table: pd.DataFrame, quantity: str, trainings: Iterable[Training]) -> pd.DataFrame:
    """Return a column of a study at its end: ``mean`` and ``spread`` over the seeds.

    The rows are the trainings, by name. One that has diverged on a seed has no mean.
    """
    values = _ends(table, quantity)[[each.name for each in trainings]]
    return pd.DataFrame({"mean": values.mean(skipna=False), "spread": values.std(skipna=False)})


def distances(
    table: pd.DataFrame,
    quantity: str,
    trainings: Sequence[Training],
    same: Callable[[Training], float],
) -> pd.Series:
    """Return how far trainings that agree in something end from each other, seed by seed.

    For each seed the mean of the absolute differences at the end over all pairs that agree; not a
    number where one of the trainings has diverged. They agree in what `same` returns, the learning
    rate for example: ``lambda training: training.rate``.

    Raises
    ------
    ValueError
        If no two of the trainings agree.
    """
    values = _ends(table, quantity)
    pairs = [
        (one.name, other.name)
        for one, other in itertools.combinations(trainings, 2)
        if np.isclose(same(one), same(other), rtol=1e-9)
    ]
    if not pairs:
        raise ValueError("No two of these trainings agree in that, so nothing can be compared.")
    apart = pd.concat([(values[a] - values[b]).abs() for a, b in pairs], axis=1)
    return apart.mean(axis=1, skipna=False)


def _ends(table: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Return a quantity at the last step: a row a seed, a column a training.

    It is not a number where the training has diverged: the accuracy of such a network still is one.
    """
    last = table[table["step"] == table["step"].max()]
    last = last.assign(**{quantity: last[quantity].where(np.isfinite(last["train_loss"]))})
    return last.pivot(index="seed", columns="order", values=quantity)
