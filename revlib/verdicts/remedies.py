"""What the usual remedies for a restless path reach, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from revlib import runs
from revlib.experiments.remedies import Parameters, trainings, window
from revlib.orders import backward, forward
from revlib.verdicts import findings, stability
from revlib.verdicts.stability import rounded


def costs(parameters: Parameters) -> pd.DataFrame:
    """Return what each training costs, in forward runs: gradients of N batches.

    Returns
    -------
    pandas.DataFrame
        One row for each training, by name: ``end`` (its last iterate), ``last`` (all of its
        recorded last steps) and ``path`` (all of its steps). They differ only where iterates are
        not by-products of each other.
    """
    first, last = window(parameters)
    parts = {"end": [last], "last": range(first, last + 1), "path": range(1, last + 1)}
    rows = {}
    for training in trainings(parameters):
        orders = [training.order] if training.order else [forward()]
        orders += [backward()] if training.average == "orders" else []
        factor = training.batches * training.length
        rows[training.name] = {
            part: factor * sum(order.cost(steps) for order in orders) / last
            for part, steps in parts.items()
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def per_seed(table: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Return where each training of each seed ends, how much it moves there, and what that costs.

    Parameters
    ----------
    table
        The rows of a study, as `revlib.runs.shown` returns them.
    parameters
        What they were computed with.

    Returns
    -------
    pandas.DataFrame
        One row for each training and seed: ``training``, ``seed``, ``loss`` (the last test loss,
        infinite where the training has diverged), ``moves`` (the mean change of the test loss from
        one of the last recorded steps to the next), and the columns of `costs`.
    """
    first, last = window(parameters)
    found = stability.fluctuation(table, "test_loss", first, last)
    keys = ["seed", "order"]
    ends = table[table["step"] == last].set_index(keys)["test_loss"]
    found = found.join(ends.where(np.isfinite(ends), np.inf).rename("loss"), on=keys)
    found = found.rename(columns={"order": "training", "change": "moves"})
    found = found[["training", "seed", "loss", "moves"]].join(costs(parameters), on="training")
    places = {each.name: place for place, each in enumerate(trainings(parameters))}
    return found.sort_values("training", key=lambda names: names.map(places), kind="stable")


def summary(table: pd.DataFrame, parameters: Parameters) -> pd.DataFrame:
    """Return what `per_seed` does over all seeds, beside the forward training.

    Parameters
    ----------
    table, parameters
        As for `per_seed`.

    Returns
    -------
    pandas.DataFrame
        One row for each training, by name: ``loss`` and ``loss_spread`` (mean and standard
        deviation over the seeds), ``change`` and ``change_spread`` (the same of the paired
        differences to the forward training), ``moves`` (geometric mean), ``calmer``, ``low`` and
        ``high`` (how many times less it moves than the forward training, with the 95% interval),
        ``seeds`` (their number), and the columns of `costs`. Infinite is the loss of a training
        that has diverged on a seed; not a number is what cannot be told of it.
    """
    seeds = per_seed(table, parameters).pivot(index="seed", columns="training")
    rows = {}
    for name in (each.name for each in trainings(parameters)):
        loss, moves = seeds["loss"][name], seeds["moves"][name]
        with np.errstate(divide="ignore", invalid="ignore"):  # what does not move or has diverged
            ratio = stability.geometric_mean(seeds["moves"]["forward"] / moves)
            change = loss - seeds["loss"]["forward"]
            rows[name] = {
                "loss": loss.mean(),
                "loss_spread": loss.std(),
                "change": change.mean(),
                "change_spread": change.std(),
                "moves": float(np.exp(np.log(moves).mean(skipna=False))),
                **dict(zip(("calmer", "low", "high"), ratio, strict=True)),
                "seeds": len(seeds),
            }
    return pd.DataFrame.from_dict(rows, orient="index").join(costs(parameters))


CHEAP = ("linear decay", "cosine decay", "EMA", "SWA", "two points")
"""The remedies that cost one forward run and take batches of the same size."""


def rivals(found: pd.DataFrame) -> list[str]:
    """Return which of the cheap remedies of a `summary` move less than the backward order."""
    return [name for name in CHEAP if found.loc[name, "moves"] < found.loc["backward", "moves"]]


def better(found: pd.DataFrame) -> list[str]:
    """Return which of the :func:`rivals` also end with a lower mean loss than backward."""
    return [
        name for name in rivals(found) if found.loc[name, "loss"] < found.loc["backward", "loss"]
    ]


def finding(tasks: Mapping[str, pd.DataFrame]) -> str:
    """Return in a sentence what cheap remedies reach beside the backward order.

    Here and below, `tasks` are the `summary` of each task, by its name.
    """
    smoother = sum(bool(rivals(found)) for found in tasks.values())
    also = {name: better(found) for name, found in tasks.items()}
    names = "; ".join(f"{name}: {', '.join(both) or 'none'}" for name, both in also.items())
    costs = sorted({rounded(found.loc["backward", "last"]) for found in tasks.values()}, key=float)
    return (
        "At the cost of one forward run, some remedy varies less at the end than the backward "
        f"order on {smoother} of {len(tasks)} tasks, and on {sum(map(bool, also.values()))} some "
        f"remedy also ends with a lower mean test loss ({names}). To see the last backward steps "
        f"costs {' to '.join(costs[:: max(1, len(costs) - 1)])} forward runs. (These are means "
        "over seeds; the verdicts below say which differences are decided.)"
    )


def fluctuation(row: pd.Series) -> str:
    """Return how many times less a training moves than forward, with its interval if known."""
    if not np.isfinite([row["calmer"], row["loss"]]).all():
        return "diverged"
    known = row["seeds"] > 2 and not np.isnan(row["low"])
    interval = f" ({rounded(row['low'])} to {rounded(row['high'])})" if known else ""
    return f"{rounded(row['calmer'])}{interval}"


def change(row: pd.Series) -> str:
    """Return the last test loss minus that of the forward training, with its spread."""
    if not np.isfinite(row["change"]):
        return "diverged"
    return f"{row['change']:+.2g} ± {row['change_spread']:.1g}"


def side_by_side(tasks: Mapping[str, pd.DataFrame], cell: Callable[[pd.Series], str]) -> str:
    """Return a table in Markdown: a row a training, with its cost on each task, a column a task."""
    first = next(iter(tasks.values()))
    lines = [f"| | cost | {' | '.join(tasks)} |", "| --- " * (2 + len(tasks)) + "|"]
    for name in first.index:
        prices = dict.fromkeys(rounded(found.loc[name, "last"]) for found in tasks.values())
        cells = " | ".join(cell(found.loc[name]) for found in tasks.values())
        lines.append(f"| {name} | {' or '.join(prices)} | {cells} |")
    return "\n".join(lines)


def at_the_cost_of_backward(tasks: Mapping[str, pd.DataFrame]) -> str:
    """Return what longer training and larger batches reach beside the backward order, as a list."""
    lines = {}
    for name, found in tasks.items():
        clauses = []
        for training, what in (
            ("backward", "The last backward steps"),
            ("longer, linear decay", "Longer training with decay"),
            ("larger batches", "Larger batches"),
        ):
            row = found.loc[training]
            clauses.append(
                f"{what}, at {rounded(row['last'])} forward runs: {fluctuation(row)}, test loss "
                f"{row['loss']:.2g}."
            )
        lines[name] = " ".join(clauses)
    return findings.listed(lines)


def averages(tasks: Mapping[str, pd.DataFrame]) -> str:
    """Return whether the mean of both orders is better than either, and than cheap averages."""
    both = {name: found.loc["mean of both orders", "loss"] for name, found in tasks.items()}
    lower = sum(
        both[name] < found.loc[["forward", "backward"], "loss"].min()
        for name, found in tasks.items()
    )
    cheap = sum(
        found.loc[["EMA", "SWA"], "loss"].min() < both[name] for name, found in tasks.items()
    )
    return (
        f"On average over seeds, the mean of the parameters ends lower than either order on "
        f"{lower} of {len(tasks)} tasks. EMA or SWA, which need one forward run and no other "
        f"order, ends lower than that mean on {cheap}."
    )


def luck(tasks: Mapping[str, pd.DataFrame]) -> str:
    """Return how much more the last test loss differs from seed to seed backward than with EMA."""
    ratios = {
        name: found.loc["backward", "loss_spread"] / found.loc["EMA", "loss_spread"]
        for name, found in tasks.items()
    }
    words = ", ".join(
        f"{rounded(ratio)} on {name}" if np.isfinite(ratio) else f"no number on {name}"
        for name, ratio in ratios.items()
    )
    return (
        "It shows in how much the last test loss differs from seed to seed: the standard deviation "
        f"over seeds, backward divided by EMA, is {words}."
    )


def lines(tasks: Mapping[str, pd.DataFrame]) -> str:
    """Return what each task comes to, as a list: the backward order beside the cheap remedies."""
    words = {}
    for name, found in tasks.items():
        back, best = found.loc["backward"], found.loc[list(CHEAP), "loss"].idxmin()
        rival = found.loc[best]
        words[name] = (
            f"fluctuation forward / backward {fluctuation(back)}, test loss {back['loss']:.3g}; "
            f"the last backward steps cost {rounded(back['last'])} forward runs. Varying "
            f"less than backward at the cost of one: {', '.join(rivals(found)) or 'none'}. The "
            f"cheap remedy with the lowest loss is *{best}*: fluctuation forward / {best} "
            f"{fluctuation(rival)}, test loss {rival['loss']:.3g}."
        )
    return findings.listed(words)


def sentence() -> str:
    """Return what decay and averages do for less, for the front page, in Markdown.

    All numbers come from the stored results of the preset ``paper``; where they are missing, the
    sentence says so.
    """
    name = "remedies-figure-7"
    found = runs.shown(name, "paper")
    if found.preset != "paper":
        return f"Not yet run: `revlib run {name}`."
    table = summary(found.table, found.size.parameters)
    moves = per_seed(found.table, found.size.parameters).pivot(
        index="seed", columns="training", values="moves"
    )
    names = {
        "EMA": "an exponential moving average of the iterates",
        "linear decay": "linear decay of the learning rate",
        "backward": "backward training",
    }
    ends = [
        f"{words} moves {findings.times_less(moves['forward'] / moves[name])} and ends with a test "
        f"loss of {table.loc[name, 'loss']:.2f}"
        for name, words in names.items()
    ]
    return (
        "If you want a smooth curve for less: from step to step at the end, against forward "
        f"training, which ends with a test loss of {table.loc['forward', 'loss']:.2f}, "
        f"{'; '.join(ends)}. The first two cost one forward run; the whole backward path "
        f"costs {stability.rounded(table.loc['backward', 'path'])} forward runs (MLP on "
        "Fashion-MNIST)."
    )
