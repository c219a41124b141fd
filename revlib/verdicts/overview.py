"""All experiments side by side: contraction against calm, and what unstated choices do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from revlib import experiments, runs
from revlib.verdicts import findings, stability
from revlib.verdicts.effects import CRITERIA

ORDERS = ("forward", "backward")

STATISTICS = {"trend": "calmer", "change": "calmer_step_by_step"}
"""The statistics of :mod:`revlib.verdicts.stability` that are compared, the primary one first, and
the criterion of each."""

SHOWN = {
    "paper": ("figure-2", *(f"figure-{n}" for n in range(4, 10)), "figure-11"),
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
        One row for each seed of which the motion at the last step, or enough of the second half of
        the run, is there for both orders; the other one may be not a number. No row where no seed
        has both:

        - ``experiment``, ``seed``, ``step`` (at which motion was measured);
        - ``contraction_rate`` and ``tangent_contraction_rate``: rate along the backward chain
          (:func:`revlib.training.motion.contraction_rate`), a map;
        - ``stretch``: how far consecutive backward iterates lie apart, in lengths of the step
          that sets their chains apart;
        - ``moved`` and ``predictions_moved``: how far one step moves the backward iterate in
          theta, and its predictions, divided by the same for the forward iterate;
        - ``calm``: the spread of the test loss about its trend over the second half of the run
          along the forward path, divided by that along the backward path.
    """
    have = runs.compute if preset == "sample" else runs.looks
    table, motion = have(name, preset), in_both(have(f"motion-{name}", preset))
    half = second_half(name, preset)
    late = recorded(table, half, "trend")
    if late.empty or motion.empty:
        return pd.DataFrame()
    at = motion[motion["step"] == motion["step"].max()]
    forward, backward = (at[at["order"] == order].set_index("seed") for order in ORDERS)
    found = backward[["step", "contraction_rate", "tangent_contraction_rate"]].assign(
        stretch=backward["moved"] / backward["step_length"],
        moved=backward["moved"] / forward["moved"],
        predictions_moved=backward["predictions_moved"] / forward["predictions_moved"],
    )
    # A tangent vector's rate may be none: it can grow beyond all numbers.
    found = found.dropna(subset=[c for c in found if c != "tangent_contraction_rate"])
    calm = stability.compare(late, "test_loss", *half, "trend").rename("calm")
    if not set(found.index) & set(calm.index):
        return pd.DataFrame()
    found = found.join(calm, how="outer").sort_index().reset_index()
    found.insert(0, "experiment", name)
    return found


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
        A row for each variant, each of :data:`LOSSES` that was measured, and each of
        :data:`STATISTICS`: ``experiment``, ``variant`` (the values of the fields in question),
        ``default`` (whether it is that), ``quantity``, ``statistic`` and

        - ``state``: ``"ran"``; ``"diverged"`` where an order diverged on most seeds, or there is no
          finite ratio; ``"stood still"`` where neither order moves; ``"not recorded"`` where too
          few steps are stored for the statistic, and ``"not yet run"`` where none is;
        - ``ratio``, ``low``, ``high``, ``calmer`` and ``seeds``: the statistic of the forward path
          over the second half of the run divided by that of the backward path, as in
          :func:`revlib.verdicts.stability.ratios`; a seed that diverged counts;
        - ``side``: that of :class:`revlib.verdicts.findings.Times`, what the seeds decide;
        - ``forward_left`` and ``backward_left``: the test loss at the last step that is recorded of
          all, divided by that at the start (geometric mean over the seeds on which it is finite),
          and ``forward_left_low`` and ``backward_left_low``, the lower ends of their intervals;
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


_OUTCOME = ["quantity", "statistic", "state", "ratio", "low", "high", "calmer", "seeds", "side"]
_OUTCOME += [
    "run",
    *(f"{order}_{what}" for what in ("left", "left_low", "diverged") for order in ORDERS),
]


def outcomes(name: str, preset: str, changes: dict[str, str]) -> list[dict[str, Any]]:
    """Return what became of one variant: a row for each loss that was measured and statistic."""
    size = experiments.get(name).size(preset)
    if preset == "sample":
        table = runs.compute(name, preset, every=max(1, size.steps // 20), **changes)
    else:
        table = runs.looks(name, preset, **changes)
    half = second_half(name, preset)
    table = in_both(table)
    late = table[table["step"].between(*half)]
    if late.empty:
        return [{"quantity": LOSSES[0], "statistic": s, "state": "not yet run"} for s in STATISTICS]
    table = table[table["seed"].isin(late["seed"])]
    gone = stability.divergence(table)["order"].value_counts()
    seeds = {"run": table["seed"].nunique()}
    seeds |= {f"{order}_diverged": int(gone.get(order, 0)) for order in ORDERS}
    rows = []
    for quantity in (loss for loss in LOSSES if loss in table):
        left = {}
        for order in ORDERS:
            left[f"{order}_left"], left[f"{order}_left_low"] = _left(table, order, quantity)
        for statistic in STATISTICS:
            enough = recorded(late, half, statistic)
            row = {"quantity": quantity, "statistic": statistic, "state": "not recorded"}
            if len(enough):
                found = stability.compare(enough, quantity, *half, statistic)
                row |= _calmer(found, int(gone.max() if len(gone) else 0), seeds["run"])
            rows.append(row | seeds | left)
    return rows


def _calmer(ratios: pd.Series, diverged: int, run: int) -> dict[str, Any]:
    """Return how many times less a loss moves backward, and what the seeds decide.

    An order diverged on at most so many of the seeds.
    """
    times = findings.Times.of(ratios)
    ran = (ratios != 1).any() and times.side != "none" and diverged <= run / 2
    return {
        "state": "ran" if ran else "diverged" if diverged else "stood still",
        "ratio": times.mean,
        "low": times.low,
        "high": times.high,
        "calmer": int((ratios > 1).sum()),
        "seeds": times.seeds,
        "side": times.side,
    }


def _left(table: pd.DataFrame, order: str, quantity: str) -> tuple[float, float]:
    """Return what is left of a loss at the last common step, as a part of that at the start.

    The mean, and the lower end of its interval.
    """
    points = table.groupby("step").size()
    last = points.index[points == points.max()].max()
    path = table[table["order"] == order].pivot(index="seed", columns="step", values=quantity)
    left = path[last] / path[0]
    return stability.geometric_mean(left[np.isfinite(left)])[:2]


def second_half(name: str, preset: str) -> tuple[int, int]:
    """Return the steps over which an experiment is judged: the second half of its run."""
    steps = experiments.get(name).size(preset).steps
    return steps // 2, steps


def recorded(table: pd.DataFrame, steps: tuple[int, int], statistic: str) -> pd.DataFrame:
    """Return rows of a range at the steps of both orders, of seeds with enough for a statistic."""
    inside = in_both(table[table["step"].between(*steps)])
    enough = CRITERIA[STATISTICS[statistic]].enough.holds
    own = inside.groupby("seed")["step"].agg(lambda n: enough(sorted(set(n)), *steps))
    return inside[inside["seed"].isin(own.index[own.astype(bool)])]


def in_both(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose seed and step were measured in both orders."""
    both = table[table["order"].isin(ORDERS)]
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
        f"| | mean test loss at step {HALF[0]} | at step {HALF[1]} | spread between them, forward "
        "/ other | about a trend |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, other in (
        ("figure-3", "backward"),
        ("figure-7", "backward"),
        ("figure-10", "switch(1000)"),
    ):
        table = runs.looks(name)
        table = table[table["order"].isin(("forward", other)) & table["step"].between(*HALF)]
        words = f"{name.replace('-', ' ').capitalize()}, forward and {other}"
        if not set(HALF) <= set(table["step"]):
            lines.append(f"| {words} | not yet run | | | |")
            continue
        means = table.groupby(["step", "order"])["test_loss"].mean().unstack()
        ends = [f"{means.loc[n, 'forward']:.2f} and {means.loc[n, other]:.2f}" for n in HALF]
        orders = ("forward", other)
        found = [
            findings.Times.of(stability.compare(table, "test_loss", *HALF, statistic, orders))
            for statistic in ("spread", "trend")
        ]
        lines.append(f"| {words} | {ends[0]} | {ends[1]} | {found[0]} | {found[1]} |")
    return "\n".join(lines)
