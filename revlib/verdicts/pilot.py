"""What the pilot of this project found about unstated choices, judged by what is stored today."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from revlib import runs
from revlib.verdicts import findings, intervals, overview, stability


def judged() -> pd.DataFrame:
    """Return whether the stored results of the paper's setting confirm what the pilot found.

    Returns
    -------
    pandas.DataFrame
        ``finding``, ``verdict`` (``"confirmed"``, ``"refuted"``, ``"undecided"`` where an interval
        over seeds leaves it open or one seed gives none, or ``"not yet run"``) and ``evidence``,
        one row for each of :data:`FINDINGS`.
    """
    rows = []
    for words, judge in FINDINGS.items():
        try:
            holds, evidence = judge()
            verdict = {True: "confirmed", False: "refuted", None: "undecided"}[holds]
        except _NotRunError:
            verdict, evidence = "not yet run", ""
        rows.append({"finding": words, "verdict": verdict, "evidence": evidence})
    return pd.DataFrame(rows)


class _NotRunError(LookupError):
    """The results that a finding is judged by are not stored."""


def _run(name: str, statistic: str = "change", **changes: str) -> dict[str, Any]:
    """Return what became of a variant at preset paper.

    By default from step to step, which is recorded of all variants; about a trend by ``"trend"``.
    """
    rows = {row["statistic"]: row for row in reversed(overview.outcomes(name, "paper", changes))}
    if rows[statistic]["state"].startswith("not "):
        raise _NotRunError
    return rows[statistic]


def _calmer_backward(name: str, *statistic: str, **changes: str) -> tuple[bool | None, str]:
    run = _run(name, *statistic, **changes)
    return _below(_NOT_CALMER, run), _calmer(run)


def _regressions_calmer() -> tuple[bool | None, str]:
    found = {f"figure-{n}": _calmer_backward(f"figure-{n}", "trend") for n in (4, 5, 6)}
    words = "; ".join(f"{name}: {told}" for name, (_, told) in found.items())
    return _all([side for side, _ in found.values()]), words


def _normal_weights_diverge() -> tuple[bool | None, str]:
    found = {init: _run("figure-4", init=init) for init in ("lecun", "he")}
    holds = all(run["forward_diverged"] == run["run"] for run in found.values())
    return holds, "; ".join(f"{init}: {_diverged(run)}" for init, run in found.items())


def _backward_survives() -> tuple[bool | None, str]:
    run = _run("figure-4", init="lecun")
    return run["backward_diverged"] == 0, _diverged(run)


def _nothing_learned() -> tuple[bool | None, str]:
    run = _run("figure-7", init="pytorch")
    return run["forward_left"] > 0.99, f"{run['forward_left']:.1%} of the loss is left"


def _mlp_no_better() -> tuple[bool | None, str]:
    half = overview.second_half("figure-7", "paper")
    late = overview.recorded(runs.looks("figure-7"), half, "trend")
    if late.empty:
        raise _NotRunError
    per_seed = stability.fluctuation(late, "test_loss", *half)
    level = per_seed.pivot(index="seed", columns="order", values="mean")
    lower = int((level["backward"] < level["forward"]).sum())
    return lower < len(level), f"lower backward on {lower} of {len(level)} seeds"


def _slower_and_weaker() -> tuple[bool | None, str]:
    found = {init: _run("figure-7", init=init) for init in ("he", "lecun", "glorot")}
    he, *others = found.values()
    slower = all(run["forward_left"] > he["forward_left"] for run in others)
    weaker = [_below(run, he) for run in others]
    return _all([slower, *weaker]), "; ".join(
        f"{init}: {run['forward_left']:.0%} of the loss left, {_calmer(run)}"
        for init, run in found.items()
    )


def _standardised_stronger() -> tuple[bool | None, str]:
    found = {scaling: _run("figure-7", scaling=scaling) for scaling in ("unit", "standardised")}
    return _below(found["unit"], found["standardised"]), "; ".join(
        f"{scaling}: {_calmer(run)}" for scaling, run in found.items()
    )


def _resnet_not_calm() -> tuple[bool | None, str]:
    run = _run("figure-2", "trend")
    return _below(run, _NOT_CALMER), _calmer(run)


def _resnet_moves_further() -> tuple[bool | None, str]:
    apart = _apart()
    ratio = (apart["backward"] / apart["forward"]).groupby("seed").apply(_mean)
    steps = ", ".join(map(str, sorted(set(apart.index.get_level_values("step")))))
    told = findings.Times.of(ratio)
    words = f"backward divided by forward, geometric mean over steps {steps}: {told}"
    return _ABOVE_ONE.get(told.side), words


def _group_moves_less() -> tuple[bool | None, str]:
    batch, group = _apart(), _apart(normalisation="group")
    means = [each["backward"].groupby("seed").apply(_mean) for each in (batch, group)]
    ratio = (means[0] / means[1]).dropna()
    told = findings.Times.of(ratio)
    return _ABOVE_ONE.get(told.side), f"distance with batch divided by group normalisation: {told}"


FINDINGS = {
    "From PyTorch's initialisation the three regressions vary less backward.": _regressions_calmer,
    "From LeCun's or He's normal weights the forward run on x² diverges.": _normal_weights_diverge,
    "From LeCun's weights the backward run on x² does not diverge.": _backward_survives,
    "The MLP on Fashion-MNIST learns nothing from PyTorch's initialisation.": _nothing_learned,
    "From He's, it varies less backward on every seed.": partial(
        _calmer_backward, "figure-7", "trend"
    ),
    "Its loss is no lower for that: on some seed it is not lower backward.": _mlp_no_better,
    "From LeCun's and Glorot's it learns more slowly, and backward gains less.": _slower_and_weaker,
    "With standardised inputs backward gains more.": _standardised_stronger,
    "The ResNet-18 with batch normalisation does not vary less backward.": _resnet_not_calm,
    "Its consecutive backward iterates lie further apart in θ than the forward ones.": (
        _resnet_moves_further
    ),
    "With group normalisation they lie closer together.": _group_moves_less,
    "With group normalisation the ResNet-18 varies less backward.": partial(
        _calmer_backward, "figure-2", normalisation="group"
    ),
}
"""What the pilot found on one to five seeds, in the order in which it was looked at.

Each has a function that returns whether the stored results confirm it, or None where they leave it
open, and what they say.
"""


def _apart(**changes: str) -> pd.DataFrame:
    """Return how far apart consecutive iterates of Figure 2 lie in theta: a column an order."""
    motion = overview.in_both(runs.looks("motion-figure-2", **changes))
    if motion.empty:
        raise _NotRunError
    return motion.pivot(index=["seed", "step"], columns="order", values="moved")


_NOT_CALMER = {"low": 1, "high": 1, "seeds": intervals.FEWEST}
"""A ratio of spreads that says nothing."""


def _below(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool | None:
    """Return whether a ratio of spreads is below another.

    None where their intervals overlap, or the seeds of one are too few.
    """
    if min(one["seeds"], other["seeds"]) < intervals.FEWEST:
        return None
    if one["high"] < other["low"]:
        return True
    return False if one["low"] > other["high"] else None


def _all(sides: list[bool | None]) -> bool | None:
    """Return whether all hold; None where none of them fails, but some are open."""
    return None if None in sides and False not in sides else all(sides)


def _mean(values: pd.Series) -> float:
    return stability.geometric_mean(values)[0]


_ABOVE_ONE = {"above": True, "below": False}
"""Whether the seeds decide that a factor is above 1, by the side on which it lies."""

_OVER = {"trend": "about a trend", "change": "from step to step"}


def _calmer(run: dict[str, Any]) -> str:
    if run["state"] != "ran":
        return run["state"]
    interval = f" ({run['low']:.2g} to {run['high']:.2g})" if np.isfinite(run["low"]) else ""
    return (
        f"{_OVER[run['statistic']]}, forward / backward {run['ratio']:.2g}{interval}, above 1 on "
        f"{run['calmer']} of {stability.counted(run['run'], 'seed')}"
    )


def _diverged(run: dict[str, Any]) -> str:
    counts = ", ".join(f"{order} on {run[f'{order}_diverged']}" for order in overview.ORDERS)
    return f"diverged {counts} of {run['run']} seeds"
