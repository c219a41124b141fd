"""What the studies of Section 5 come to."""

from __future__ import annotations

import numpy as np
import pandas as pd

from revlib import orders, runs
from revlib.experiments.section_5 import METHODS
from revlib.verdicts import findings, intervals, stability


def windows(table: pd.DataFrame, quantity: str = "test_loss") -> pd.DataFrame:
    """Return how calm each window is, and at what cost, seed by seed.

    Parameters
    ----------
    table
        Paths of the forward and of other orders, over the same run of consecutive steps (a step
        0 before it is not looked at).
    quantity
        What is to be calm.

    Returns
    -------
    pandas.DataFrame
        One row for each order and seed, cheapest first: ``order``, ``seed``, ``cost`` (maps for
        each of the steps, if all are evaluated), ``calm`` (mean change from one step to the next,
        forward divided by this order: borders of windows count like any other step), ``steady``
        (the same for the standard deviation about a smooth trend over all of the steps) and
        ``level`` (mean over the steps, in units of the quantity).
    """
    steps = sorted(set(table["step"]) - {0})
    found = stability.fluctuation(table, quantity, steps[0], steps[-1]).set_index("order")
    forward = found.loc[["forward"]].set_index("seed")
    rows = []
    for name, own in found.groupby("order"):
        own, order = own.set_index("seed"), orders.named(name)
        measured = {
            "cost": (order.cost(steps) - order.cost(steps[:1])) / len(steps[1:]),
            "calm": forward["change"] / own["change"],
            "steady": forward["trend"] / own["trend"],
            "level": own["mean"],
        }
        rows.append(pd.DataFrame(measured).reset_index().assign(order=name))
    return pd.concat(rows).sort_values(["cost", "seed"], ignore_index=True)


def slopes(measured: pd.DataFrame, what: str) -> pd.Series:
    """Return the power of its cost with which a window gains, from one line through all of them.

    On each seed a line through forward training, where cost and gain are 1, is fitted to the
    logarithms of the gain of all windows. A slope of 1: it gains as much as it costs.

    Parameters
    ----------
    measured
        What :func:`windows` returns.
    what
        The gain: ``"calm"`` or ``"steady"``.

    Returns
    -------
    pandas.Series
        The slope by seed.
    """
    inside = measured[measured["order"] != "forward"]
    x, y = np.log(inside["cost"]), np.log(inside[what])
    seed = inside["seed"]
    return (x * y).groupby(seed).sum() / (x * x).groupby(seed).sum()


def ends(table: pd.DataFrame, quantity: str, against: str) -> pd.DataFrame:
    """Return what a quantity comes to at the last step, and how that compares seed by seed.

    Parameters
    ----------
    table
        The rows of a study.
    quantity
        A column of it.
    against
        The case that the others are compared with.

    Returns
    -------
    pandas.DataFrame
        One row for each case: ``mean`` and ``spread`` (standard deviation) over the ``seeds``;
        ``difference`` and ``error``, the mean of the paired differences to the other case and its
        standard error; on which ``side`` of zero their whole 95 % interval lies, ``"lower"``,
        ``"higher"`` or none; and in how many seeds it is ``lower``.
    """
    last = table[table["step"] == table["step"].max()]
    values = last.pivot(index="seed", columns="order", values=quantity)
    gaps = values.sub(values[against], axis=0)
    return pd.DataFrame(
        {
            "mean": values.mean(),
            "spread": values.std(),
            "seeds": values.count(),
            "difference": gaps.mean(),
            "error": gaps.sem(),
            "side": gaps.apply(_side),
            "lower": (gaps < 0).sum(),
        }
    )


def _side(gaps: pd.Series) -> str:
    """Return on which side of zero differences lie, as far as the seeds tell."""
    effect = intervals.of_seeds(-gaps.fillna(0.0))
    verdict = intervals.judge({"": effect}).verdict
    return {"reproduced": "lower", "contradicted": "higher"}.get(verdict, "")


def optimism(table: pd.DataFrame) -> pd.Series:
    """Return by how much choosing on the validation set flatters what is chosen, seed by seed.

    That is the test minus the validation loss of the iterate that is kept at the end, minus the
    mean of the same difference over all checks of the run (the two sets differ, whatever is
    chosen).

    Parameters
    ----------
    table
        Rows of :func:`revlib.experiments.section_5.moving_start.policy` of one case, of one or
        more seeds.

    Returns
    -------
    pandas.Series
        By seed, in units of the loss. Above zero, the validation loss of the chosen one is too low.
    """
    table = table.sort_values("step").dropna(subset="kept_loss")
    found = table.assign(
        plain=table["test_loss"] - table["validation_loss"],
        kept=table["kept_loss"] - table["kept_validation_loss"],
    ).groupby("seed")
    return found["kept"].last() - found["plain"].mean()


def sentences() -> str:
    """Return when the order of iteration is worth a thought, as far as the stored results tell.

    Returns
    -------
    str
        Three sentences as a list in Markdown. All numbers come from the stored results of the
        preset ``paper``; a sentence for which they are missing says so.
    """
    return "\n".join(
        f"- {told}"
        for told in (
            _on_calm("windows-figure-4", 50) + _calm_too("windows-figure-7"),
            _on_loss("reset-figure-4", "reset when better")
            + _loss_too("reset-figure-7", "reset when better"),
            _on_judging("ranking-figure-4") + _judging_too("ranking-figure-5"),
        )
    )


def _on_calm(name: str, window: int) -> str:
    table = _stored(name)
    if table is None:
        return _missing(name)
    found = windows(table)
    own = found[found["order"] == f"windowed({window})"]
    spread = findings.less(
        "it", "varies", "about its trend over several windows", own["steady"], _windows(own)
    )
    return (
        "If you want a curve that does not jump from one step to the next, try backward in windows "
        f"of {window} steps: {_jumps(own)}; {spread} (MLP learning x²)."
    )


def _windows(own: pd.DataFrame) -> tuple[str, str]:
    return "forward", own["order"].iloc[0]


def _jumps(own: pd.DataFrame) -> str:
    """Return what a window does to the changes from step to step, and what it costs."""
    calm = findings.less(
        "the test loss", "changes", "from step to step", own["calm"], _windows(own)
    )
    return f"{calm}, at {stability.rounded(own['cost'].iloc[0])} times the cost"


def _on_loss(name: str, case: str) -> str:
    table = _stored(name)
    if table is None:
        return _missing(name)
    loss, cost = (ends(table, q, "forward") for q in ("kept_loss", "cost"))
    ratio, price = (
        found.loc[case, "mean"] / found.loc["forward", "mean"] for found in (loss, cost)
    )
    advice = "try" if loss.loc[case, "side"] == "lower" else "do not look for"
    return (
        f"If you want a lower loss, {advice} it in the order: "
        "backward from a start that moves only when that lowers the validation loss, the best "
        f"iterate has {stability.rounded(ratio)} times the test loss of the best iterate of "
        f"forward training, at {stability.rounded(price)} times the cost (MLP learning "
        f"x²; lower on {loss.loc[case, 'lower']} of "
        f"{stability.counted(int(loss.loc[case, 'seeds']), 'seed')})."
    )


def _on_judging(name: str) -> str:
    table = _stored(name)
    if table is None:
        return _missing(name)
    wrong = ends(table, "misranked", "forward")
    best, seeds = wrong["mean"].idxmin(), stability.counted(int(wrong["seeds"].max()), "seed")
    shares = ", ".join(f"{wrong.loc[method, 'mean']:.0%} by *{method}*" for method in METHODS)
    return (
        f"If you want to judge a setting early: at {table['step'].max()} maps for each learning "
        f"rate, of the pairs of learning rates {shares} are ranked other than after a long run "
        f"(MLP learning x², {seeds}), the fewest by *{best}*."
    )


def _calm_too(name: str) -> str:
    """Return the same of the longest window on the other task, so that neither stands alone."""
    table = _stored(name)
    if table is None:
        return ""
    found = windows(table)
    own = found[found["cost"] == found["cost"].max()]
    return f" On Fashion-MNIST, {_jumps(own)}."


def _loss_too(name: str, case: str) -> str:
    table = _stored(name)
    if table is None:
        return ""
    loss = ends(table, "kept_loss", "forward")
    ratio = loss.loc[case, "mean"] / loss.loc["forward", "mean"]
    return (
        f" On Fashion-MNIST it is {ratio:.2f} times, lower on {loss.loc[case, 'lower']} of "
        f"{stability.counted(int(loss.loc[case, 'seeds']), 'seed')}."
    )


def _judging_too(name: str) -> str:
    table = _stored(name)
    if table is None:
        return ""
    wrong = ends(table, "misranked", "forward")["mean"]
    shares = ", ".join(f"{wrong[method]:.0%} by *{method}*" for method in METHODS)
    return f" On cos 10x: {shares}."


def _stored(name: str) -> pd.DataFrame | None:
    found = runs.shown(name, "paper")
    return found.table if found.preset == "paper" else None


def _missing(name: str) -> str:
    return f"Not yet run: `revlib run {name}`."
