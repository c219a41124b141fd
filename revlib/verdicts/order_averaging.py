"""What became of the order-averaging regulariser (Figures 14 to 19)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import pandas as pd

from revlib import runs
from revlib.experiments.figures_14_to_19 import FIGURES, PIECES, START
from revlib.runs import Shown
from revlib.verdicts import intervals

STARTS = {"He's weights": {}, "Haiku's weights": START}
"""The starts that are compared, by what they are called: the fields of the setting that differ."""


def shown(preset: str) -> dict[str, Shown]:
    """Return what the chapter shows from each start: the figures together, with a column ``c``.

    Stored results are shown whether or not all trainings of a seed are there: each comparison is
    made on the seeds of which both trainings are.
    """
    names = {str(c): name for c, name in FIGURES.items()}
    pages = {}
    for start, changes in STARTS.items():
        found = runs.together(names, preset, **changes)
        tables = [
            (each.table if each.preset == "sample" else runs.looks(names[c], **changes)).assign(
                c=int(c)
            )
            for c, each in found.items()
        ]
        table = pd.concat(tables, ignore_index=True)
        pages[start] = dataclasses.replace(found[str(PIECES[0])], table=table)
    return pages


def lower(table: pd.DataFrame, names: Iterable[str], against: str) -> tuple[int, int]:
    """Return of how many trainings the test loss ends lower than another's, and of how many.

    One counts for each name and number of pieces, where the seeds are enough to tell, and as lower
    if the whole 95% interval over the seeds is.
    """
    rows = pd.concat([difference(table, "test_loss", name, against) for name in names])
    rows = rows[rows["seeds"] >= intervals.FEWEST]
    return int(rows["less"].sum()), len(rows)


def difference(table: pd.DataFrame, quantity: str, training: str, against: str) -> pd.DataFrame:
    """Return by how much a quantity ends higher in one training than in another, seed by seed.

    Parameters
    ----------
    table
        As `shown` returns it.
    quantity
        A column of it, ``"test_loss"`` say.
    training, against
        Names of trainings: the difference is that of the first minus the second, at the last step
        of each seed. A training that has diverged (a loss that is not finite) ends at infinity.

    Returns
    -------
    pandas.DataFrame
        One row for each c: ``mean`` and ``spread`` (standard deviation over the seeds) of the
        differences, ``seeds`` and in how many of them it is ``lower``; ``less`` tells whether the
        whole 95% interval over the seeds lies below zero (:mod:`revlib.verdicts.intervals`).
    """
    last, rows = table["step"].max(), _both(table, training, against)
    ends = rows[rows["step"] == last].pivot(index=["c", "seed"], columns="order", values=quantity)
    seeds = rows[["c", "seed"]].drop_duplicates().sort_values(["c", "seed"])
    ends = ends.reindex(pd.MultiIndex.from_frame(seeds), columns=[training, against])
    ends = ends.where(np.isfinite(ends), np.inf)
    with np.errstate(invalid="ignore"):  # both have diverged: no difference can be told
        grouped = (ends[training] - ends[against]).groupby("c")
        found = pd.DataFrame({"mean": grouped.mean(skipna=False), "spread": grouped.std()})
    found["seeds"], found["lower"] = grouped.size(), grouped.agg(lambda d: int((d < 0).sum()))
    found["less"] = grouped.agg(_less)
    found = found.reindex(sorted(table["c"].unique()))
    return found.fillna({"seeds": 0, "lower": 0, "less": False}).astype(
        {"seeds": int, "lower": int, "less": bool}
    )


def _both(table: pd.DataFrame, one: str, other: str) -> pd.DataFrame:
    """Return the rows of two trainings, on the seeds of which both are there."""
    rows = table[table["order"].isin([one, other])]
    there = rows.groupby(["c", "seed"])["order"].transform("nunique")
    return rows[there == len({one, other})]


def gaps(table: pd.DataFrame, names: Iterable[str], against: str) -> pd.DataFrame:
    """Return the rows of some trainings, with the ``gap`` of their test loss to another's.

    The gap is that of the same seed, number of pieces and step.
    """
    keys = ["c", "seed", "step"]
    other = table[table["order"] == against].set_index(keys)["test_loss"]
    own = pd.concat([table[table["order"] == name] for name in names]).set_index(keys)
    return own.assign(gap=own["test_loss"] - other.reindex(own.index)).reset_index()


def _less(differences: pd.Series) -> bool:
    """Return whether differences lie below zero as far as the seeds tell; not a number is a tie."""
    effect = intervals.of_seeds(-differences.fillna(0.0))
    return intervals.judge({"": effect}).verdict == "reproduced"


def at_equal_train_loss(table: pd.DataFrame, training: str, against: str) -> pd.DataFrame:
    """Return how much higher the test loss of one training is than another's, at equal train loss.

    Along each curve the test loss is interpolated, as a function of the training loss, at the
    lowest level that both curves of a seed reach: however fast each of the two got there, they
    are compared at equal progress.

    Parameters
    ----------
    table, training, against
        As for `difference`.

    Returns
    -------
    pandas.DataFrame
        One row for each c: ``mean`` and ``spread`` over the seeds, and whether it is ``less``, as
        in `difference`. Not a number where on some seed one of the two does not get below its
        start.
    """
    found = []
    for (c, seed), own in _both(table, training, against).groupby(["c", "seed"]):
        curves = [
            own[own["order"] == name].sort_values("step")[["train_loss", "test_loss"]].to_numpy()
            for name in (training, against)
        ]
        level = max(np.nanmin(curve[:, 0]) for curve in curves)
        tests = [_test_loss_at(level, curve) for curve in curves]
        found.append({"c": c, "seed": seed, "difference": tests[0] - tests[1]})
    grouped = pd.DataFrame(found, columns=["c", "seed", "difference"]).groupby("c")["difference"]
    found = pd.DataFrame({"mean": grouped.mean(skipna=False), "spread": grouped.std()})
    found["less"] = grouped.agg(_less)
    found = found.reindex(sorted(table["c"].unique()))
    return found.fillna({"less": False}).astype({"less": bool})


def _test_loss_at(level: float, curve: np.ndarray) -> float:
    """Return the test loss where the training loss first falls to a level."""
    train, test = curve.T
    i = int(np.argmax(train <= level))
    if i == 0:
        return np.nan
    part = (train[i - 1] - level) / (train[i - 1] - train[i])
    return test[i - 1] + part * (test[i] - test[i - 1])
