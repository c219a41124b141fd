"""What a fixed ending comes to: calm against how many maps stay the same, and against rivals."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from revlib import experiments, runs
from revlib.experiments.fixed_ending.rivals import LARGER
from revlib.orders import Order
from revlib.runs.engine import Plan
from revlib.verdicts import findings, stability
from revlib.verdicts.stability import log_ratio, rounded


def fixed(order: Order, step: int) -> int:
    """Return how many of the last maps are the same, in the same sequence, a step before."""
    now, before = (order.applied(n)[::-1] for n in (step, step - 1))
    same = [one == other for one, other in zip(now, before, strict=False)]
    return same.index(False) if False in same else len(same)


def length(figure: int, preset: str) -> int:
    """Return the length of the ending that is looked at in the setting of a figure."""
    return experiments.get(f"rivals-figure-{figure}").size(preset).parameters.length


def calm(table: pd.DataFrame, first: int, last: int, quantity: str = "test_loss") -> pd.DataFrame:
    """Return how much less each case moves than forward training, seed by seed.

    Parameters
    ----------
    table
        The rows of a study, with forward training among its cases.
    first, last
        The range of steps, both included.
    quantity
        What is to be calm.

    Returns
    -------
    pandas.DataFrame
        One row for each case and seed: ``order``, ``seed``; ``trend`` and ``change``, how many
        times less it moves about a smooth trend and from step to step
        (:func:`revlib.verdicts.stability.fluctuation`); its ``mean``; ``level``, that divided by
        the mean of forward training; and ``below``, the share of the looks at which it lies below
        forward.
    """
    inside = table[table["step"].between(first, last)]
    paths = inside.pivot(index=["seed", "step"], columns="order", values=quantity)
    found = stability.fluctuation(table, quantity, first, last).set_index(["order", "seed"])
    forward = found.loc["forward"]
    rows = []
    for name, own in found.groupby(level="order", sort=False):
        own = own.droplevel("order")
        moves = {what: np.exp(log_ratio(forward[what], own[what])) for what in ("trend", "change")}
        levels = {"mean": own["mean"], "level": own["mean"] / forward["mean"]}
        below = (paths[name] < paths["forward"]).groupby("seed").mean()
        told = moves | levels | {"below": below}
        rows.append(pd.DataFrame(told).reset_index().assign(order=name))
    return pd.concat(rows, ignore_index=True)


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Return :func:`calm` over seeds: for each case the geometric means with their intervals.

    The columns are those of `calm` but for the mean, each with ``_low`` and ``_high``, and
    ``seeds``. Of the share of looks they are the mean over seeds, the lowest and the highest.
    """
    rows = {}
    for name, own in found.groupby("order", sort=False):
        row = {"seeds": len(own)}
        for what in ("trend", "change", "level"):
            ends = stability.geometric_mean(own[what])
            row |= dict(zip((what, f"{what}_low", f"{what}_high"), ends, strict=True))
        share = own["below"]
        row |= {"below": share.mean(), "below_low": share.min(), "below_high": share.max()}
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def steps_a_look(length: int) -> dict[str, float]:
    """Return what one look costs besides the forward run, in gradients of a batch, by rival."""
    return {
        "forward": 0,
        "fixed ending": length,
        "cooldown": length,
        "EMA": 0,
        "last iterates": 0,
        "larger batches": length // LARGER * LARGER,
    }


def finding(endings: pd.DataFrame, names: Iterable[str]) -> str:
    """Return in a sentence how much less the test loss varies than forward, if that is decided.

    Of the cases that are named, from what `calm` returns.
    """
    factors = endings.set_index("order")["trend"]
    return findings.sentence(
        findings.less(
            "the test loss", "varies", "about its trend", factors.loc[[name]], ("forward", name)
        )
        for name in names
    )


def rival(rivals: pd.DataFrame, names: Iterable[str]) -> str:
    """Return in a sentence how much lower than forward some rivals are, as `finding` does."""
    factors = 1 / rivals.set_index("order")["level"]
    return findings.sentence(
        findings.lower("the mean test loss", factors.loc[[name]], ("forward", name))
        for name in names
    )


def forgets(table: pd.DataFrame) -> str:
    """Return in a sentence how well both orders know the first batches, and the newest.

    From a study of forgetting, in which a seed counts with all its looks.
    """
    if table.empty:
        return "not yet run."
    points = table.groupby("seed")["step"].transform("size")
    table = table[points == points.max()]
    told = []
    for which in ("first", "newest"):
        at = table.pivot(index=["seed", "step"], columns="order", values=f"{which}_loss")
        factor = np.exp(log_ratio(at["forward"], at["backward"]).groupby("seed").mean())
        what = f"the loss on the {which} batches"
        told.append(findings.lower(what, factor, ("forward", "backward")))
    return findings.sentence(told)


def nudged(table: pd.DataFrame) -> pd.DataFrame:
    """Return what the nudges of a study have grown to at the end of the chain.

    One row for each case and seed: ``order``, ``seed``, ``after``, the number of maps that follow
    the nudge, and ``growth`` and ``random``, by how much a nudge along a training step and one in a
    random direction have grown.
    """
    ends = table[table["step"] == table["step"].max()]
    parts = ends["order"].str.extract(r"(?P<order>.+), before the last (?P<after>\d+)")
    return pd.DataFrame(
        {
            "order": parts["order"],
            "seed": ends["seed"],
            "after": parts["after"].astype(int),
            "growth": ends["step_growth"],
            "random": ends["random_growth"],
        }
    ).sort_values(["order", "after", "seed"], ignore_index=True)


def taken_in(nudges: pd.DataFrame, length: int) -> str:
    """Return how far a nudge moves the end where either order takes in a new batch, in a sentence.

    Backward that is before the first map, with a fixed ending of some length before its maps. The
    nudges are those of `nudged`.
    """
    ending = f"tail({length})"
    at = nudges.set_index(["order", "after", "seed"])["growth"]
    factors = at["backward", nudges["after"].max()] / at[ending, length]
    return findings.less(
        "the end of the chain",
        "moves",
        "after a small change where a new batch comes in",
        factors,
        ("backward", ending),
    )


def contracted(nudges: pd.DataFrame, length: int) -> str:
    """Return in a sentence whether a fixed ending shrinks a change that comes before its maps.

    The nudges are those of :func:`nudged`.
    """
    ending = f"tail({length})"
    own = nudges[(nudges["order"] == ending) & (nudges["after"] == length)]
    times = findings.Times.of(own["growth"])
    words = {
        "above": f"a change along a step has grown by their end, {times} times as large: they do "
        "not contract",
        "below": f"a change along a step has shrunk to {times} of its size by their end: they "
        "contract",
    }
    open_ = f"whether a change along a step grows or shrinks until their end is open: {times}"
    return findings.sentence([f"before the maps of `{ending}`, {words.get(times.side, open_)}"])


def costly(name: str, **changes: str) -> str:
    """Return the stored endings of a costly network as a table, or how they are computed.

    Batch normalisation has two ways to be evaluated, each with a table of its own. The changes are
    fields of the study's setting.
    """
    size = experiments.get(name).size("paper")
    table = runs.looks(name, "paper", **changes)
    looks = table.groupby("seed")["step"].transform("size")
    table = table[looks == len(size.cases) * len(size.at)]
    if table.empty:
        command = Plan.of(name, "paper", changes=changes).command
        return f"*Not yet run*: `revlib run {command}`."
    ways = {"test_loss": "", "test_loss_by_batch": "Normalised by the evaluated examples:"}
    tables = []
    for quantity, words in ways.items():
        if quantity in table and table[quantity].notna().any():
            found = summary(calm(table, size.at[0], size.at[-1], quantity))
            tables.append(f"{words}\n\n{table_of(found.loc[list(size.cases)])}")
    return "\n\n".join(tables)


def _interval(row: pd.Series, what: str) -> str:
    low, high = row[f"{what}_low"], row[f"{what}_high"]
    digits = rounded if what != "level" else "{:.2f}".format
    if np.isnan(low):
        return digits(row[what])
    return f"{digits(row[what])} ({digits(low)} to {digits(high)})"


def table_of(found: pd.DataFrame) -> str:
    """Return a summary as a table in Markdown, a row a case."""
    lines = [
        "| | about its trend | step to step | level | below forward at | seeds |",
        "| :-- | --: | --: | --: | --: | --: |",
    ]
    for name, row in found.iterrows():
        cells = " | ".join(_interval(row, what) for what in ("trend", "change", "level"))
        low, high = row["below_low"], row["below_high"]
        share = (
            ""
            if name == "forward"
            else f"{100 * row['below']:.0f}% ({100 * low:.0f} to {100 * high:.0f})"
        )
        lines.append(f"| {name} | {cells} | {share} | {int(row['seeds'])} |")
    return "\n".join(lines)
