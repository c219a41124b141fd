"""The verdict on a claim, from the stored results and from nothing else.

It is computed each time it is asked for. Results that are missing, stale or not complete give *not
yet run*. A referee can compute it again: ``Verdict.per_seed`` has a number for each seed and
range of steps, :data:`revlib.verdicts.effects.CRITERIA` says how it comes from the stored table,
and :mod:`revlib.verdicts.intervals` what becomes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from revlib import runs
from revlib.store import results
from revlib.verdicts import intervals
from revlib.verdicts.claims import Claim, invalid
from revlib.verdicts.effects import CRITERIA, described
from revlib.verdicts.intervals import Judged
from revlib.verdicts.stability import counted, factor

VERDICTS = {
    "reproduced": "the whole 95% interval of the effect over seeds lies on the claimed side, "
    "however small the effect.",
    "proved": "it must hold, by a proposition of this book, whatever is measured.",
    "contradicted": "the whole interval lies on the other side, or else inside the band of what "
    "counts as no effect (ratios: 1/1.25 to 1.25, where nothing else is stated).",
    "excluded": "it cannot hold, by a proposition of this book, whatever is measured.",
    "under-specified": "the statement leaves open what was measured; one reading of it is "
    "reproduced, another contradicted.",
    "holds": "as reproduced, of a question that nobody but this book asks.",
    "does not hold": "as contradicted, of such a question.",
    "undecided": "the seeds leave it open.",
    "too few": f"there are fewer than {intervals.FEWEST} seeds.",
    "not yet run": "the results that it takes are not stored, or not in full.",
}
"""The verdicts, and what each means."""

DECIDED = ("reproduced", "contradicted", "holds", "does not hold")
"""The verdicts that rest on an interval, and that chance can make."""

LAWS = ("prop-same-law", "cor-error-bars")
"""The propositions by which nothing differs between two orders but by chance."""

_OWN = {"reproduced": "holds", "contradicted": "does not hold"}


@dataclass(frozen=True)
class Verdict:
    """What the stored results say of a claim.

    Parameters
    ----------
    claim
        The claim.
    verdict
        A name in :data:`VERDICTS`.
    readings
        What each reading that is recorded comes to.
    seeds
        How many seeds it rests on, of each reading: those of which all that it takes is stored.
    steps
        At how many steps.
    evidence
        What was found, or why nothing could be, in a few sentences.
    per_seed
        One row for each reading, part, seed and range: ``reading``, ``part``, ``seed``, ``first``,
        ``last`` and ``effect``.
    files
        The result files, without suffix, seen from the folder of all results.
    """

    claim: Claim
    verdict: str
    readings: Mapping[str, Judged]
    seeds: int
    steps: int
    evidence: str
    per_seed: pd.DataFrame
    files: tuple[str, ...]


def judge(claim: Claim, stored: Callable[..., pd.DataFrame] | None = None) -> Verdict:
    """Return what the stored results say of a claim.

    Only seeds count of which all steps in the ranges are stored that the preset ``paper`` records
    for all orders of the claim. A reading that was not recorded is left out, and the evidence says
    so.

    Parameters
    ----------
    claim
        The claim.
    stored
        What gives the stored rows; by default :func:`revlib.runs.engine.looks`. For many claims
        on the same studies let it remember them.
    """
    steps = claim.needed()
    stored = runs.looks if stored is None else stored
    tables = [_complete(claim, steps, stored, changes) for changes in claim.settings]
    found = {
        name: reading(claim, quantity, tables[i])
        for name, (quantity, i) in claim.readings.items()
        if len(tables[i]) and tables[i].get(quantity) is not None
    }
    seeds = [table["seed"].nunique() for table in tables if len(table)]
    readings = {name: judged for name, (judged, *_) in found.items()}
    verdict = intervals.together([j.verdict for j in readings.values()]) if found else "not yet run"
    verdict = _worded(claim, verdict)
    if claim.excluded_by or claim.proved_by:
        verdict = "excluded" if claim.excluded_by else "proved"
    cases = [table.assign(reading=name) for name, (_, _, table) in found.items()]
    columns = ["reading", "part", "seed", "first", "last", "effect"]
    files = [
        runs.source(name, **changes) for name in claim.experiment for changes in claim.settings
    ]
    return Verdict(
        claim=claim,
        verdict=verdict,
        readings=readings,
        seeds=min(seeds, default=0),
        steps=len(steps) if seeds else 0,
        evidence=_evidence(claim, found) if seeds else _missing(claim),
        per_seed=pd.concat(cases, ignore_index=True)[columns]
        if cases
        else pd.DataFrame(columns=columns),
        files=tuple(f.stem.relative_to(results.root()).as_posix() for f in files if f),
    )


def reading(claim: Claim, quantity: str, paths: pd.DataFrame) -> tuple[Judged, str, pd.DataFrame]:
    """Judge one reading of a claim from the paths.

    Returns
    -------
    tuple
        What it comes to, in words too, and the effect of each part, seed and range.

    Raises
    ------
    ValueError
        If the orders are not recorded on the same seeds and steps.
    """
    points = paths.groupby("order").apply(
        lambda path: frozenset(zip(path["seed"], path["step"], strict=True)), include_groups=False
    )
    if set(points.index) != set(claim.asked.orders) or points.nunique() > 1:
        told = "; ".join(f"{o} has seeds {sorted({s for s, _ in p})}" for o, p in points.items())
        raise invalid(
            claim.id,
            f"compares {', '.join(claim.asked.orders)}, which must be recorded on the same seeds "
            f"and steps ({told})",
        )
    paths = _finite(paths, quantity)
    measured = claim.how.measure(paths, quantity, claim.asked)
    band = np.log(claim.band) if claim.how.ratio else claim.band
    judged = intervals.judge(claim.how.effects(measured), band)
    words = f"{described(claim.how, claim.asked)}: {estimate(judged, claim.how.ratio)}."
    if judged.verdict == "contradicted" and all(e.ends()[1] >= 0 for e in judged.effects.values()):
        words += " That counts as no effect."
    if judged.verdict == "reproduced" and all(e.ends()[1] < band for e in judged.effects.values()):
        words += " The effect is small: all of its interval lies within the band of no effect."
    if judged.verdict == "undecided":
        more = f"{judged.needed}" if judged.needed else f"more than {intervals.MOST}"
        words += f" With this spread {more} seeds would decide."
    words += claim.how.note(paths, quantity, claim.asked) + _beside(claim, quantity, paths)
    table = measured.rename_axis(columns="part").stack().rename("effect").reset_index()
    return judged, words, table


def _beside(claim: Claim, quantity: str, paths: pd.DataFrame) -> str:
    """Tell what another criterion sees in the same paths, if it can."""
    other = CRITERIA.get(claim.how.beside)
    steps = sorted(set(paths["step"]))
    if other is None or not other.enough.holds(steps, steps[0], steps[-1]):
        return ""
    judged = intervals.judge(other.effects(other.measure(paths, quantity, claim.asked)))
    return f" {described(other, claim.asked)}: {estimate(judged, other.ratio)}."


def estimate(judged: Judged, ratio: bool = True) -> str:
    """Return effects with their intervals in words: as ratios, or as differences."""
    return ", ".join(
        f"{part} {_told(effect, ratio)}".strip() for part, effect in judged.effects.items()
    )


def _told(effect: intervals.Effect, ratio: bool) -> str:
    low, high = effect.ends()
    method = f"; {effect.method}" if effect.method else ""
    if np.isinf(effect.mean) and ratio:
        seeds = counted(effect.seeds, "seed")
        number = _number(effect.mean, ratio, 0.0)
        return f"{number} on most of {seeds} (one of the two diverged there, or does not move)"
    if (low, high) == (-np.inf, np.inf):
        none = f"(no interval from {counted(effect.seeds, 'seed')}{method})"
        return f"{_number(effect.mean, ratio, abs(effect.mean))} {none}"
    known = [abs(end) for end in (low, high) if np.isfinite(end)]
    mean, *ends = (_number(x, ratio, max(known, default=0.0)) for x in (effect.mean, low, high))
    return f"{mean} ({' to '.join(ends)}{method})"


def _number(effect: float, ratio: bool, size: float) -> str:
    """Return an effect in words, near a ratio of 1 as exactly as effects of that size ask for."""
    if np.isnan(effect):
        return "not finite"
    if np.isinf(effect):
        return "infinite" if effect > 0 else "0" if ratio else "minus infinite"
    if not ratio:
        return f"{effect:+.2g}"
    if abs(effect) <= size < 0.1 and size > 0:  # two digits of what it differs from 1 by
        return f"{np.exp(effect):.{1 - int(np.floor(np.log10(size)))}f}"
    value = float(np.exp(effect))
    return factor(value) if 1e-3 < value < 1e6 else f"{value:.1e}"


def _complete(
    claim: Claim,
    steps: list[int],
    stored: Callable[..., pd.DataFrame],
    changes: Mapping[str, Any],
) -> pd.DataFrame:
    """Return the stored rows at some steps, of the seeds of which all are there."""
    tables = []
    for name in claim.experiment:
        rows = stored(name, **changes)
        names = {order: called for (of, order), called in claim.cases.items() if of == name}
        rows = rows[rows["order"].isin(names) & rows["step"].isin(steps)]
        tables.append(rows.assign(order=rows["order"].map(names)))
    table = pd.concat(tables, ignore_index=True)
    points = table.groupby("seed")["step"].transform("size")
    return table[points == len(steps) * len(claim.cases)]


def _finite(paths: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Return rows in which a quantity is not a number wherever the path has diverged.

    The accuracy of a diverged network is a number, and a very calm one.
    """
    loss = paths.get(quantity.replace("accuracy", "loss"), paths[quantity]).astype(float)
    return paths.assign(**{quantity: paths[quantity].astype(float).where(np.isfinite(loss))})


def _worded(claim: Claim, verdict: str) -> str:
    return _OWN.get(verdict, verdict) if claim.made_by == "nobody" else verdict


def _evidence(claim: Claim, found: Mapping[str, tuple]) -> str:
    """Return what was found, reading by reading."""
    told = []
    for name in claim.readings:
        judged, evidence, _ = found.get(name, (None, "not recorded.", None))
        if words := claim.words(name):
            verdict = f"{_worded(claim, judged.verdict)}. " if judged else ""
            evidence = f"*{words[0].upper()}{words[1:]}*: {verdict}{evidence}"
        told.append(evidence)
    decided = any(judged.verdict in DECIDED for judged, *_ in found.values())
    if decided and (claim.excluded_by or claim.proved_by) in LAWS:
        told.append("The orders have one law at this step: what the seeds seem to show is chance.")
    return " ".join(told)


def _missing(claim: Claim) -> str:
    """Say why there is no verdict."""
    for name in claim.experiment:
        if runs.source(name) is None:
            old = runs.stale(name)
            if old:
                return f"The stored results are stale and not used: {'; '.join(old)}."
            return "Nothing is stored." if len(claim.experiment) == 1 else f"No {name} is stored."
    ranges = " and ".join(f"{first} to {last}" for first, last in claim.windows)
    return f"Of no seed are {' and '.join(claim.orders)} stored in full over steps {ranges}."
