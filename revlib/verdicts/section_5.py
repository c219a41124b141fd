"""What the studies of Section 5 come to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from revlib import orders, runs
from revlib.experiments.section_5 import METHODS
from revlib.experiments.section_5.held_out import optimizers
from revlib.runs import Shown
from revlib.verdicts import findings, fixed_ending, intervals, stability


def windows(table: pd.DataFrame) -> pd.DataFrame:
    """Return how calm each window is, and at what cost, seed by seed.

    Parameters
    ----------
    table
        Paths of the forward and of other orders, over the same run of consecutive steps (a step
        0 before it is not looked at).

    Returns
    -------
    pandas.DataFrame
        What :func:`revlib.verdicts.fixed_ending.calm` returns, where borders of windows count like
        any other step; cheapest first, by ``cost``: maps for each of the steps, if all are
        evaluated.
    """
    steps = sorted(set(table["step"]) - {0})
    found = fixed_ending.calm(table, steps[0], steps[-1])
    known = {name: orders.named(name) for name in found["order"].unique()}
    costs = {
        name: (order.cost(steps) - order.cost(steps[:1])) / len(steps[1:])
        for name, order in known.items()
    }
    found["cost"] = found["order"].map(costs)
    return found.sort_values(["cost", "seed"], ignore_index=True)


def slopes(measured: pd.DataFrame, what: str) -> pd.Series:
    """Return the power of its cost with which a window gains, from one line through all of them.

    On each seed a line through forward training, where cost and gain are 1, is fitted to the
    logarithms of the gain of all windows, ``"change"`` or ``"trend"`` of :func:`windows`. A slope
    of 1: it gains as much as it costs.
    """
    inside = measured[measured["order"] != "forward"]
    x, y = np.log(inside["cost"]), np.log(inside[what])
    seed = inside["seed"]
    return (x * y).groupby(seed).sum() / (x * x).groupby(seed).sum()


def windows_finding(measured: Mapping[str, pd.DataFrame]) -> str:
    """Return in a sentence what a longer window brings and costs, from :func:`windows` by task."""
    words = []
    for where, each in measured.items():
        longest = each[each["cost"] == each["cost"].max()]
        words.append(
            f"{where}: the factor by which the test loss changes less from step to step grows with "
            f"{findings.power(slopes(each, 'change'))}; in the longest window, "
            f"`{longest['order'].iloc[0]}`, it is {findings.Times.of(longest['change'])} at "
            f"{longest['cost'].iloc[0]:.1f} times the cost of forward training"
        )
    return findings.sentence(words)


def windows_lines(measured: Mapping[str, pd.DataFrame]) -> str:
    """Return what the longest window of each task brings, and how that grows, as a list."""
    words = []
    for where, each in measured.items():
        longest = each[each["cost"] == each["cost"].max()]
        pair = ("forward", longest["order"].iloc[0])
        for what, how in (
            ("change", "from step to step"),
            ("trend", "about its trend over several windows"),
        ):
            clause = findings.less("the test loss", "varies", how, longest[what], pair)
            power = findings.power(slopes(each, what))
            words.append(
                f"{where}: {clause}, at {longest['cost'].iloc[0]:.1f} times the cost. Over all "
                f"windows the factor grows with {power}."
            )
    return findings.listed(words)


def summary(measured: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return what :func:`windows` does over all seeds: a row for each task and window.

    The columns are ``where``, ``order``, ``cost`` and those of
    :func:`revlib.verdicts.fixed_ending.summary`.
    """
    rows = [
        fixed_ending.summary(each).assign(where=where, cost=each.groupby("order")["cost"].first())
        for where, each in measured.items()
    ]
    return pd.concat(rows).rename_axis("order").reset_index().sort_values("cost", ignore_index=True)


def whole_run(name: str, preset: str) -> str:
    """Return how much less the plain backward path of a figure varies at its end, in words."""
    study = runs.shown(name, preset)
    first, last = study.windows[-1]
    found = windows(study.table[study.table["step"].between(first, last)])
    whole = found[found["order"] == "backward"]
    calm, steady = (stability.geometric_mean(whole[what])[0] for what in ("change", "trend"))
    return (
        f"over steps {first:,} to {last:,} the backward path changes {stability.rounded(calm)} "
        f"times less from step to step than forward, and spreads {stability.rounded(steady)} times "
        f"less, at {whole['cost'].iloc[0]:,.0f} maps a step (preset {study.preset}, "
        f"{stability.counted(len(whole), 'seed')})."
    )


def levels(measured: Mapping[str, pd.DataFrame]) -> str:
    """Return the mean loss of each window beside that of forward, as a table in Markdown."""
    lines = ["| | order | mean test loss | minus forward |", "| --- | --- | --- | --- |"]
    for where, each in measured.items():
        level = each.pivot(index="seed", columns="order", values="mean")
        gap = level.sub(level["forward"], axis=0)
        lines += [
            f"| {where} | {order} | {level[order].mean():.3g} "
            f"| {gap[order].mean():+.1g} ± {gap[order].sem():.1g} |"
            for order in each["order"].unique()
            if order != "forward"
        ]
    return "\n".join(lines)


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
        standard error; on which ``side`` of zero their whole 95% interval lies, ``"lower"``,
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
    chosen); in units of the loss. Above zero, the validation loss of the chosen one is too low. The
    rows are those of one case of :func:`revlib.experiments.section_5.moving_start.policy`.
    """
    table = table.sort_values("step").dropna(subset="kept_loss")
    found = table.assign(
        plain=table["test_loss"] - table["validation_loss"],
        kept=table["kept_loss"] - table["kept_validation_loss"],
    ).groupby("seed")
    return found["kept"].last() - found["plain"].mean()


def flattery(studies: Mapping[str, Shown]) -> str:
    """Return :func:`optimism` of all cases of some studies, as a table in Markdown."""
    lines = ["| | way to go on | flattered by | of a test loss of |", "| --- | --- | --- | --- |"]
    for where, each in studies.items():
        kept = ends(each.table, "kept_loss", "forward")["mean"]
        for name in each.size.cases:
            flattered = optimism(each.table[each.table["order"] == name])
            lines.append(
                f"| {where} | {name} | {flattered.mean():+.2g} ± {flattered.sem():.1g} "
                f"| {kept[name]:.3g} |"
            )
    return "\n".join(lines)


RESET = "reset when better"
"""The case whose start moves only when the new iterate is better."""


def reset_lines(studies: Mapping[str, Shown]) -> list[str]:
    """Return how a start that moves only when it pays compares with its rivals: a line a rival."""
    return [
        f"{where}: {_reset(each.table, rival)[1]}"
        for where, each in studies.items()
        for rival in ("forward", "forward when better")
    ]


def _reset(table: pd.DataFrame, rival: str) -> tuple[findings.Times, str]:
    """Return how many times lower the loss ends with such a start, and that in words."""
    last = table[table["step"] == table["step"].max()]
    loss, cost = (
        last.pivot(index="seed", columns="order", values=q) for q in ("kept_loss", "cost")
    )
    factors, prices = loss[rival] / loss[RESET], cost.mean()
    pair = (f"that of *{rival}*", "with such a start")
    clause = findings.lower("the test loss of the best iterate", factors, pair)
    words = f"{clause}, at {stability.rounded(prices[RESET] / prices[rival])} times the cost"
    return findings.Times.of(factors), words


def kept(study: Shown) -> str:
    """Return what each way to go on keeps at the end, against forward: a line each."""
    cases = list(study.size.cases)
    loss = ends(study.table, "kept_loss", "forward").loc[cases]
    cost = ends(study.table, "cost", "forward").loc[cases, "mean"]
    checks = study.table[study.table["step"] > 0]
    moved = (checks["anchor"] == checks["step"]).groupby(checks["order"]).mean()
    unit = loss.loc["forward", "mean"]
    return "\n".join(
        f"  {name:20} {row['difference'] / unit:+.0%} ± {row['error'] / unit:.0%}, lower on "
        f"{row['lower']:.0f} of {row['seeds']:.0f} seeds; moved at {moved[name]:4.0%} of the "
        f"checks; {cost[name] / cost['forward']:.1f} times the cost"
        for name, row in loss.drop("forward").iterrows()
    )


def by_optimizer(studies: Mapping[str, Shown]) -> pd.DataFrame:
    """Return how much less the test loss varies backward with each optimizer.

    Parameters
    ----------
    studies
        Those of the optimizers, by the name of the task.

    Returns
    -------
    pandas.DataFrame
        A row for each task (``where``), way to look at it (``how``: about its trend, if enough
        steps are there, and from step to step) and ``optimizer``: ``times``, how many times less
        (:class:`revlib.verdicts.findings.Times`), with its ``ratio``, ``low`` and ``high``; on how
        many of the ``seeds`` it is ``above`` 1; the mean test loss at the ``start``, and
        ``forward`` and ``backward`` at the last step, with the paired ``difference`` and its
        standard ``error``.
    """
    rows = []
    for where, each in studies.items():
        steps = sorted(set(each.size.at) - {0})
        span = steps[0], steps[-1]
        ways = {f"{where}, about its trend": "trend", f"{where}, from step to step": "change"}
        for how, statistic in ways.items():
            if statistic == "trend" and not stability.covered(steps, *span):
                continue
            for name in optimizers(1.0):
                pair = f"{name}, forward", f"{name}, backward"
                ratios = stability.compare(each.table, "test_loss", *span, statistic, pair)
                times = findings.Times.of(ratios)
                last = ends(each.table, "test_loss", pair[0]).loc[list(pair)]
                rows.append(
                    {
                        "where": where,
                        "how": how,
                        "optimizer": name,
                        "times": times,
                        "ratio": times.mean,
                        "low": times.low,
                        "high": times.high,
                        "above": int((ratios > 1).sum()),
                        "seeds": len(ratios),
                        "start": each.table.loc[each.table["step"] == 0, "test_loss"].mean(),
                        "forward": last["mean"].iloc[0],
                        "backward": last["mean"].iloc[1],
                        "difference": last["difference"].iloc[1],
                        "error": last["error"].iloc[1],
                    }
                )
    return pd.DataFrame(rows)


_SIDES = {
    "above": "varies less backward",
    "below": "varies *more* backward",
    "alike": "varies as much in both orders",
    "open": "undecided",
    "few": "too few seeds",
    "none": "no ratio",
}


def optimizers_finding(measured: pd.DataFrame) -> str:
    """Return of :func:`by_optimizer` where the test loss varies less backward, as a list."""
    lines = {}
    for name, own in measured.groupby("optimizer", sort=False):
        sides = own["times"].map(lambda times: _SIDES[times.side])
        clauses = []
        for side, rows in own.groupby(sides, sort=False):
            where = ", ".join(f"{row.how} {row.times}" for row in rows.itertuples())
            clauses.append(f"{side}: {where}")
        lines[name] = findings.sentence(clauses)
    return findings.listed(lines)


def optimizers_levels(measured: pd.DataFrame) -> str:
    """Return the test loss at the last step with each optimizer, as a table in Markdown."""
    lines = [
        "| | optimizer | at the start | forward | backward | difference |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row.where} | {row.optimizer} | {row.start:.3g} | {row.forward:.2g} "
        f"| {row.backward:.2g} | {row.difference:+.2g} ± {row.error:.1g} |"
        for row in measured.drop_duplicates(["where", "optimizer"]).itertuples()
    ]
    return "\n".join(lines)


def sentences() -> str:
    """Return when the order of iteration is worth a thought, as far as the stored results tell.

    Three sentences as a list in Markdown. All numbers come from the stored results of the preset
    ``paper``; a sentence for which they are missing says so.
    """
    lines = []
    for tell, study, figures in (
        (_on_calm, "endings", (4, 7)),
        (_on_loss, "reset", (4, 7)),
        (_on_judging, "ranking", (4, 5)),
    ):
        shown = {figure: runs.shown(f"{study}-figure-{figure}", "paper") for figure in figures}
        stored = {figure: each.table for figure, each in shown.items() if each.preset == "paper"}
        missing = f"Not yet run: `revlib run {study}-figure-{figures[0]}`."
        lines.append(tell(stored) if stored else missing)
    return findings.listed(lines)


WHERE = {4: "learning x²", 5: "learning cos 10x", 7: "on Fashion-MNIST"}
"""What is trained in the setting of a figure."""


def _on_calm(tables: Mapping[int, pd.DataFrame]) -> str:
    clauses = []
    for figure, table in tables.items():
        length, last = fixed_ending.length(figure, "paper"), table["step"].max()
        changes = fixed_ending.calm(table, last // 2, last).set_index("order")["change"]
        pair = ("forward", f"tail({length})")
        calm = findings.less("the test loss", "changes", "", changes.loc[[pair[1]]], pair)
        clauses.append(f"{WHERE[figure]}, {calm}, and a look costs {length} steps")
    return (
        "If you need iterates of the constant rate, and none that jumps, let the same batches come "
        f"last before every look: from one look to the next, {'; '.join(clauses)} "
        "({doc}`chapters/fixed-ending`)."
    )


def _on_loss(tables: Mapping[int, pd.DataFrame]) -> str:
    found = {figure: _reset(table, "forward") for figure, table in tables.items()}
    lower = all(times.side == "above" for times, _ in found.values())
    clauses = [f"{WHERE[figure]}, {words}" for figure, (_, words) in found.items()]
    return (
        f"If you want a lower loss, {'try' if lower else 'do not look for'} it in the order. "
        "Going backward from a start that moves only when that lowers the validation loss: "
        f"{'; '.join(clauses)}."
    )


def _on_judging(tables: Mapping[int, pd.DataFrame]) -> str:
    found = {figure: ends(table, "misranked", "forward") for figure, table in tables.items()}
    worse = [m for m in METHODS if all(each.loc[m, "side"] == "higher" for each in found.values())]
    clauses = []
    for figure, each in found.items():
        shares = ", ".join(f"*{m}* {100 * each.loc[m, 'mean']:.0f}%" for m in METHODS)
        clauses.append(
            f"{WHERE[figure]} {shares} ({stability.counted(int(each['seeds'].max()), 'seed')})"
        )
    maps = max(table["step"].max() for table in tables.values())
    advice = "we cannot tell you in which order"
    if worse:
        names = " or ".join(f"*{m}*" for m in worse)
        advice = f"do not do it by {names}, which does worse than *forward*; beyond that, {advice}"
    return (
        f"If you want to rank learning rates early, {advice}. With {maps} maps for each rate, so "
        f"many pairs come out the wrong way round (50% by guessing): {'; '.join(clauses)}."
    )
