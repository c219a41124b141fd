"""What the pilot of this project found about unstated choices, judged by what is stored today."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from revlib import runs
from revlib.verdicts import (
    intervals,
    overview,
    stability,
)


class Finding(NamedTuple):
    """A finding of the pilot runs, each of them on one to five seeds.

    Parameters
    ----------
    words
        What was found.
    judge
        Returns whether the stored results confirm it, or None where they leave it open, and what
        they say; or None if they are missing.
    """

    words: str
    judge: Callable[[], tuple[bool | None, str] | None]


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
    for finding in FINDINGS:
        found = finding.judge()
        holds, evidence = found or (None, "")
        verdict = {True: "confirmed", False: "refuted", None: "undecided"}[holds]
        rows.append(
            {
                "finding": finding.words,
                "verdict": verdict if found else "not yet run",
                "evidence": evidence,
            }
        )
    return pd.DataFrame(rows)


def _run(name: str, **changes: str) -> dict[str, Any] | None:
    """Return what became of a variant at preset paper, or None if it was not run.

    From step to step, which is recorded of all variants.
    """
    return _of(name, "change", changes)


def _late(name: str) -> dict[str, Any] | None:
    """Return what became of the default about a trend, or None if that is not recorded."""
    return _of(name, "trend", {})


def _of(name: str, statistic: str, changes: dict[str, str]) -> dict[str, Any] | None:
    rows = {row["statistic"]: row for row in reversed(overview.outcomes(name, "paper", changes))}
    found = rows[statistic]
    return None if found["state"].startswith("not ") else found


def _regressions_calmer() -> tuple[bool | None, str] | None:
    found = {name: _late(name) for name in ("figure-4", "figure-5", "figure-6")}
    if None in found.values():
        return None
    sides = [_below(_NOT_CALMER, run) for run in found.values()]
    return _all(sides), "; ".join(f"{name}: {_calmer(run)}" for name, run in found.items())


def _normal_weights_diverge() -> tuple[bool | None, str] | None:
    found = {init: _run("figure-4", init=init) for init in ("lecun", "he")}
    if None in found.values():
        return None
    holds = all(run["forward_diverged"] == run["run"] for run in found.values())
    return holds, "; ".join(f"{init}: {_diverged(run)}" for init, run in found.items())


def _backward_survives() -> tuple[bool | None, str] | None:
    run = _run("figure-4", init="lecun")
    return run and (run["backward_diverged"] == 0, _diverged(run))


def _nothing_learned() -> tuple[bool | None, str] | None:
    run = _run("figure-7", init="pytorch")
    return run and (run["forward_left"] > 0.99, f"{run['forward_left']:.1%} of the loss is left")


def _mlp_calmer() -> tuple[bool | None, str] | None:
    run = _late("figure-7")
    return run and (_below(_NOT_CALMER, run), _calmer(run))


def _mlp_no_better() -> tuple[bool | None, str] | None:
    half = overview.second_half("figure-7", "paper")
    late = overview.recorded(runs.stored("figure-7"), half, "trend")
    if late.empty:
        return None
    per_seed = stability.fluctuation(late, "test_loss", *half)
    level = per_seed.pivot(index="seed", columns="order", values="mean")
    lower = int((level["backward"] < level["forward"]).sum())
    return lower < len(level), f"lower backward on {lower} of {len(level)} seeds"


def _slower_and_weaker() -> tuple[bool | None, str] | None:
    found = {init: _run("figure-7", init=init) for init in ("he", "lecun", "glorot")}
    if None in found.values():
        return None
    he, *others = found.values()
    slower = all(run["forward_left"] > he["forward_left"] for run in others)
    weaker = [_below(run, he) for run in others]
    return _all([slower, *weaker]), "; ".join(
        f"{init}: {run['forward_left']:.0%} of the loss left, {_calmer(run)}"
        for init, run in found.items()
    )


def _standardised_stronger() -> tuple[bool | None, str] | None:
    found = {scaling: _run("figure-7", scaling=scaling) for scaling in ("unit", "standardised")}
    if None in found.values():
        return None
    return _below(found["unit"], found["standardised"]), "; ".join(
        f"{scaling}: {_calmer(run)}" for scaling, run in found.items()
    )


def _resnet_not_calm() -> tuple[bool | None, str] | None:
    run = _late("figure-2")
    return run and (_below(run, _NOT_CALMER), _calmer(run))


def _resnet_moves_further() -> tuple[bool | None, str] | None:
    apart = _apart()
    if apart is None:
        return None
    ratio = (apart["backward"] / apart["forward"]).groupby("seed").apply(_mean)
    steps = ", ".join(map(str, sorted(set(apart.index.get_level_values("step")))))
    words = f"backward divided by forward, geometric mean over steps {steps}: {_told(ratio)}"
    return _above_one(ratio), words


def _group_moves_less() -> tuple[bool | None, str] | None:
    batch, group = _apart(), _apart(normalisation="group")
    if batch is None or group is None:
        return None
    means = [each["backward"].groupby("seed").apply(_mean) for each in (batch, group)]
    ratio = (means[0] / means[1]).dropna()
    return _above_one(ratio), f"distance with batch divided by group normalisation: {_told(ratio)}"


def _group_calmer() -> tuple[bool | None, str] | None:
    run = _run("figure-2", normalisation="group")
    return run and (_below(_NOT_CALMER, run), _calmer(run))


FINDINGS = (
    Finding(
        "From PyTorch's initialisation the three regressions vary less backward.",
        _regressions_calmer,
    ),
    Finding(
        "From LeCun's or He's normal weights the forward run on x² diverges.",
        _normal_weights_diverge,
    ),
    Finding("From LeCun's weights the backward run on x² does not diverge.", _backward_survives),
    Finding(
        "The MLP on Fashion-MNIST learns nothing from PyTorch's initialisation.", _nothing_learned
    ),
    Finding("From He's, it varies less backward on every seed.", _mlp_calmer),
    Finding(
        "Its loss is no lower for that: on some seed it is not lower backward.", _mlp_no_better
    ),
    Finding(
        "From LeCun's and Glorot's it learns more slowly, and backward gains less.",
        _slower_and_weaker,
    ),
    Finding("With standardised inputs backward gains more.", _standardised_stronger),
    Finding(
        "The ResNet-18 with batch normalisation does not vary less backward.", _resnet_not_calm
    ),
    Finding(
        "Its consecutive backward iterates lie further apart in θ than the forward ones.",
        _resnet_moves_further,
    ),
    Finding("With group normalisation they lie closer together.", _group_moves_less),
    Finding("With group normalisation the ResNet-18 varies less backward.", _group_calmer),
)
"""What the pilot found, in the order in which it was looked at."""


def _apart(**changes: str) -> pd.DataFrame | None:
    """Return how far apart consecutive iterates of Figure 2 lie in theta: a column an order."""
    motion = overview.in_both(runs.stored("motion-figure-2", **changes))
    if motion.empty:
        return None
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


def _told(ratios: pd.Series) -> str:
    mean, *ends = stability.geometric_mean(ratios)
    words = f"{stability.rounded(mean)}{stability.interval(*ends)}"
    return f"{words}, {stability.counted(len(ratios), 'seed')}"


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
