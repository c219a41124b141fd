"""What the pilot of this project found about unstated choices, judged by what is stored today."""

from __future__ import annotations

from collections.abc import Mapping
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


def _run(name: str, **changes: str) -> dict[str, Any]:
    """Return what became of a variant at preset paper.

    From step to step, which is recorded of all variants.
    """
    return _of(name, "change", changes)


def _late(name: str) -> dict[str, Any]:
    """Return what became of the default about a trend."""
    return _of(name, "trend", {})


def _of(name: str, statistic: str, changes: dict[str, str]) -> dict[str, Any]:
    rows = {row["statistic"]: row for row in reversed(overview.outcomes(name, "paper", changes))}
    if rows[statistic]["state"].startswith("not "):
        raise _NotRunError
    return rows[statistic]


def _regressions_calmer() -> tuple[bool | None, str]:
    found = {name: _late(name) for name in ("figure-4", "figure-5", "figure-6")}
    sides = [_below(_NOT_CALMER, run) for run in found.values()]
    return _all(sides), "; ".join(f"{name}: {_calmer(run)}" for name, run in found.items())


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


def _mlp_calmer() -> tuple[bool | None, str]:
    run = _late("figure-7")
    return _below(_NOT_CALMER, run), _calmer(run)


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
    run = _late("figure-2")
    return _below(run, _NOT_CALMER), _calmer(run)


def _resnet_moves_further() -> tuple[bool | None, str]:
    apart = _apart()
    ratio = (apart["backward"] / apart["forward"]).groupby("seed").apply(_mean)
    steps = ", ".join(map(str, sorted(set(apart.index.get_level_values("step")))))
    told = findings.Times.of(ratio)
    words = f"backward divided by forward, geometric mean over steps {steps}: {told}"
    return _above_one(ratio), words


def _group_moves_less() -> tuple[bool | None, str]:
    batch, group = _apart(), _apart(normalisation="group")
    means = [each["backward"].groupby("seed").apply(_mean) for each in (batch, group)]
    ratio = (means[0] / means[1]).dropna()
    told = findings.Times.of(ratio)
    return _above_one(ratio), f"distance with batch divided by group normalisation: {told}"


def _group_calmer() -> tuple[bool | None, str]:
    run = _run("figure-2", normalisation="group")
    return _below(_NOT_CALMER, run), _calmer(run)


FINDINGS = {
    "From PyTorch's initialisation the three regressions vary less backward.": _regressions_calmer,
    "From LeCun's or He's normal weights the forward run on x² diverges.": _normal_weights_diverge,
    "From LeCun's weights the backward run on x² does not diverge.": _backward_survives,
    "The MLP on Fashion-MNIST learns nothing from PyTorch's initialisation.": _nothing_learned,
    "From He's, it varies less backward on every seed.": _mlp_calmer,
    "Its loss is no lower for that: on some seed it is not lower backward.": _mlp_no_better,
    "From LeCun's and Glorot's it learns more slowly, and backward gains less.": _slower_and_weaker,
    "With standardised inputs backward gains more.": _standardised_stronger,
    "The ResNet-18 with batch normalisation does not vary less backward.": _resnet_not_calm,
    "Its consecutive backward iterates lie further apart in θ than the forward ones.": (
        _resnet_moves_further
    ),
    "With group normalisation they lie closer together.": _group_moves_less,
    "With group normalisation the ResNet-18 varies less backward.": _group_calmer,
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


def _above_one(ratios: pd.Series) -> bool | None:
    """Return whether ratios are above 1, one for each seed; None where the seeds leave it open."""
    verdict = intervals.judge({"": intervals.of_seeds(np.log(ratios))}).verdict
    return {"reproduced": True, "contradicted": False}.get(verdict)


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
