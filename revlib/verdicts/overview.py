"""All experiments side by side: contraction against calm, and what unstated choices do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from revlib import experiments, runs
from revlib.verdicts import stability

ORDERS = ("forward", "backward")

SHOWN = {
    "paper": ("figure-2", *(f"figure-{n}" for n in range(4, 10))),
    "sample": tuple(f"figure-{n}" for n in range(4, 8)),
}
"""The experiments whose contraction is compared; at preset ``sample`` those that take seconds."""

LOSSES = ("test_loss", "test_loss_by_batch")
"""What the spread is taken of: where there is batch normalisation, both ways to evaluate it."""


def contractions(preset: str = "paper") -> tuple[pd.DataFrame, str]:
    """Return :func:`contraction` of all experiments in :data:`SHOWN`, and what is shown, in words.

    An experiment of which too little is stored is left out. If all are, the preset ``sample``
    stands in for them, and the sentence says so.
    """
    found = {name: contraction(name, preset) for name in SHOWN[preset]}
    there = [name for name, seeds in found.items() if len(seeds)]
    missing = [name for name in found if name not in there]
    if not there:
        table, note = contractions("sample")
        return table, f"{note} This stands in for the preset {preset}: too little of it is stored."
    how = "computed just now" if preset == "sample" else "stored results"
    note = f"Preset {preset}: {how} of {', '.join(there)}."
    if missing:
        note += f" Left out, because too little is stored as yet: {', '.join(missing)}."
    return pd.concat([found[name] for name in there], ignore_index=True), note


def contraction(name: str, preset: str = "paper") -> pd.DataFrame:
    """Return how much the maps of an experiment contract, beside how calm its backward path is.

    Preset ``sample`` is computed on the spot, ``paper`` is what is stored.

    Returns
    -------
    pandas.DataFrame
        One row for each seed of which the last step with motion, and the last window, are there
        for both orders (the last that are there for any seed):

        - ``experiment``, ``seed``, ``step`` (at which motion was measured);
        - ``contraction_rate`` and ``tangent_contraction_rate``: rate along the backward chain
          (:func:`revlib.training.motion.contraction_rate`), a map;
        - ``stretch``: how far consecutive backward iterates lie apart, in lengths of the step
          that sets their chains apart;
        - ``moved`` and ``predictions_moved``: how far one step moves the backward iterate in
          theta, and its predictions, divided by the same for the forward iterate;
        - ``calm``: the spread of the test loss along the forward path divided by that along the
          backward path, in the window.
    """
    have = runs.compute if preset == "sample" else runs.stored
    table, motion = have(name, preset), have(f"motion-{name}", preset)
    complete = last_window(table, experiments.get(name).size(preset).windows)
    motion = in_both(motion)
    if complete is None or motion.empty:
        return pd.DataFrame()
    at = motion[motion["step"] == motion["step"].max()]
    forward, backward = (at[at["order"] == order].set_index("seed") for order in ORDERS)
    found = backward[["step", "contraction_rate", "tangent_contraction_rate"]].assign(
        stretch=backward["moved"] / backward["step_length"],
        moved=backward["moved"] / forward["moved"],
        predictions_moved=backward["predictions_moved"] / forward["predictions_moved"],
        calm=stability.compare(complete[0], "test_loss", *complete[1:]).ratios,
    )
    found.insert(0, "experiment", name)
    # A tangent vector's rate may be none: it can grow beyond all numbers.
    known = [column for column in found if column != "tangent_contraction_rate"]
    return found.dropna(subset=known).sort_index().reset_index()


def sensitivity(
    name: str, preset: str = "paper", variants: Iterable[dict[str, str]] | None = None
) -> pd.DataFrame:
    """Return what became of an experiment under each of several choices of what is unstated.

    Preset ``sample`` is computed on the spot, ``paper`` is what is stored.

    Parameters
    ----------
    name, preset
        Which experiment in which size.
    variants
        Each the fields of the setting that differ from the default; by default the default and
        the experiment's own variants.

    Returns
    -------
    pandas.DataFrame
        One row for each variant, and for each of :data:`LOSSES` that was measured: ``experiment``,
        ``variant`` (the values of the fields in question), ``default`` (whether it is that),
        ``quantity`` and

        - ``state``: ``"ran"``; where the ratio is not finite ``"diverged"``, and ``"stood still"``
          where neither order moves; ``"not yet run"`` where no window is stored in full;
        - ``ratio``, ``low``, ``high``, ``calmer`` and ``seeds``: the spread of the forward path
          divided by that of the backward path in the last window that is stored in full, as in
          :func:`revlib.verdicts.stability.ratios`;
        - ``forward_left`` and ``backward_left``: the test loss at the last recorded step divided
          by that at the start (geometric mean over the seeds on which it is finite);
        - ``forward_diverged`` and ``backward_diverged``: on how many of the ``run`` seeds the
          order diverged.
    """
    experiment = experiments.get(name)
    variants = ({}, *experiment.variants) if variants is None else tuple(variants)
    default = experiment.size(preset).setting
    fields = [f for f in vars(default) if any(f in each for each in experiment.variants)]
    rows = []
    for changes in variants:
        chosen = default.changed(**changes)
        words = ", ".join(str(getattr(chosen, field)) for field in fields)
        for outcome in outcomes(name, preset, changes):
            rows.append({"experiment": name, "variant": words, "default": not changes} | outcome)
    table = pd.DataFrame(rows, columns=["experiment", "variant", "default", *_OUTCOME])
    return table.sort_values(["variant", "quantity"], ignore_index=True)


_OUTCOME = ["quantity", "state", "window", "ratio", "low", "high", "calmer", "seeds", "run"]
_OUTCOME += [f"{order}_{what}" for what in ("left", "diverged") for order in ORDERS]


def outcomes(name: str, preset: str, changes: dict[str, str]) -> list[dict[str, Any]]:
    """Return what became of one variant: a row for each loss that was measured."""
    size = experiments.get(name).size(preset)
    if preset == "sample":
        table = runs.compute(name, preset, every=size.steps, **changes)
    else:
        table = runs.stored(name, preset, **changes)
    complete = last_window(table, size.windows)
    if complete is None:
        return [{"quantity": LOSSES[0], "state": "not yet run"}]
    table, first, last = complete
    gone = stability.divergence(table)["order"].value_counts()
    found = stability.ratios(table[["seed", "order", "step", *_measured(table)]], [(first, last)])
    seeds = {"run": table["seed"].nunique()}
    seeds |= {f"{order}_diverged": int(gone.get(order, 0)) for order in ORDERS}
    return [
        {"state": _state(row, diverged=len(gone) > 0)}
        | row
        | seeds
        | {f"{order}_left": _left(table, order, row["quantity"]) for order in ORDERS}
        for row in found.to_dict("records")
    ]


def _state(row: dict[str, Any], diverged: bool) -> str:
    if row["seeds"] and 0 < row["ratio"] < np.inf:
        return "ran"
    return "diverged" if diverged else "stood still"


def _measured(table: pd.DataFrame) -> list[str]:
    return [loss for loss in LOSSES if loss in table]


def _left(table: pd.DataFrame, order: str, quantity: str) -> float:
    """Return what is left of a loss at the last recorded step, as a part of that at the start."""
    path = table[table["order"] == order].pivot(index="seed", columns="step", values=quantity)
    left = path[path.columns.max()] / path[0]
    return stability.geometric_mean(left[np.isfinite(left)])[0]


def last_window(
    table: pd.DataFrame, windows: list[tuple[int, int]]
) -> tuple[pd.DataFrame, int, int] | None:
    """Return the last window of which all steps are there on some seeds, and the rows of these."""
    both = table[table["order"].isin(ORDERS)]
    for first, last in reversed(windows):
        inside = both[both["step"].between(first, last)]
        points = inside.groupby(["seed", "order"]).size().unstack(fill_value=0)
        whole = points.reindex(columns=ORDERS, fill_value=0).eq(last - first + 1).all(axis=1)
        seeds = list(whole.index[whole])
        if seeds:
            return both[both["seed"].isin(seeds)], first, last
    return None


def in_both(motion: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of motion whose seed and step were measured in both orders."""
    both = motion[motion["order"].isin(ORDERS)]
    return both[both.groupby(["seed", "step"])["order"].transform("nunique") == len(ORDERS)]


HALF = (1000, 2000)
"""The second half of the runs of :func:`not_at_rest`."""


def not_at_rest() -> str:
    """Return how far paths of the MLP on Fashion-MNIST move while their law does, in Markdown.

    A row for each of Figures 3, 7 and 10, which share their setting, from what is stored of the
    preset ``paper``: the mean test loss over the seeds at both ends of the second half, and the
    spread over it of the forward path divided by that of the backward one, of the values as they
    are and about a smooth trend.
    """
    lines = [
        f"| | mean test loss at step {HALF[0]} | at step {HALF[1]} | spread, forward / other "
        "| about a trend |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, other in (
        ("figure-3", "backward"),
        ("figure-7", "backward"),
        ("figure-10", "switch(1000)"),
    ):
        table = runs.stored(name)
        table = table[table["order"].isin(("forward", other)) & table["step"].between(*HALF)]
        words = f"{name.replace('-', ' ').capitalize()}, forward and {other}"
        if not set(HALF) <= set(table["step"]):
            lines.append(f"| {words} | not yet run | | | |")
            continue
        means = table.groupby(["step", "order"])["test_loss"].mean().unstack()
        ends = [f"{means.loc[n, 'forward']:.2f} and {means.loc[n, other]:.2f}" for n in HALF]
        orders = ("forward", other)
        found = [
            stability.compare(table, "test_loss", *HALF, statistic, orders)
            for statistic in ("spread", "trend")
        ]
        lines.append(f"| {words} | {ends[0]} | {ends[1]} | {found[0]} | {found[1]} |")
    return "\n".join(lines)
