"""What the usual remedies for a restless path reach, and what they cost."""

from __future__ import annotations

import numpy as np
import pandas as pd

from revlib import runs
from revlib.experiments.remedies import Parameters, trainings, window
from revlib.orders import backward, forward
from revlib.verdicts import findings, stability


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
    table : pandas.DataFrame
        The rows of a study, as `revlib.runs.shown` returns them.
    parameters : Parameters
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
        ``high`` (how many times less it moves than the forward training, with the 95 % interval),
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
    told = [
        f"{words} moves {findings.times_less(moves['forward'] / moves[name])} and ends with a test "
        f"loss of {table.loc[name, 'loss']:.2f}"
        for name, words in names.items()
    ]
    return (
        "If you want calm for less: from step to step at the end, against forward training, "
        f"{'; '.join(told)}. The first two cost one forward run, the whole backward path "
        f"{stability.rounded(table.loc['backward', 'path'])} (MLP on Fashion-MNIST)."
    )
