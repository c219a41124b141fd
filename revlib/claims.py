"""Claims as data: what the paper says of each experiment, and verdicts from the stored results.

The claims stand in ``book/claims.yml``. A verdict is computed from the stored results of the
preset ``paper`` each time it is asked for, and from nothing else: results that are missing, stale
or not complete give *not yet run*.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.stats
import yaml

from revlib import experiments, results, runs, stability

VERDICTS = {
    "reproduced": "what the criterion asks for holds on every seed, and on at least three.",
    "partly": "it holds on part of the seeds or windows only, or on fewer than three seeds.",
    "not reproduced": "it does not hold.",
    "under-specified": "the paper leaves open what was measured, and the readings disagree.",
    "not yet run": "the results that it takes are not stored, or not in full.",
}
"""The verdicts, and what each means."""

QUANTITIES = {
    f"{part}_{kind}{suffix}": f"{kind} on {where}{how}"
    for part, where in (("train", "a fixed training sample"), ("test", "the test set"))
    for kind in ("loss", "accuracy")
    for suffix, how in (("", ""), ("_by_batch", ", normalised by the evaluated examples"))
} | {f"batch_{kind}": f"{kind} on the batch applied last" for kind in ("loss", "accuracy")}
"""What can be measured of an iterate, in words."""

ENOUGH_SEEDS = 3
SIGN_TEST_SEEDS = 5  # with fewer, even if all agree, a coin toss is not ruled out at 5 %


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, and how it is judged.

    Parameters
    ----------
    id
        Its name, in lower case with hyphens.
    place
        Where the paper makes it.
    statement
        What is claimed, in our words.
    experiment
        Name of the experiment that it is about.
    quantity
        What is measured: names in :data:`QUANTITIES`. Several are the *readings* of a statement
        that leaves open which one is meant.
    orders
        Names of the orders that are compared.
    windows
        Ranges of steps, as ``(first, last)``, both included.
    criterion
        A name in :data:`CRITERIA`.
    chapter
        The chapter that shows it.
    """

    id: str
    place: str
    statement: str
    experiment: str
    quantity: tuple[str, ...]
    orders: tuple[str, ...]
    windows: tuple[tuple[int, int], ...]
    criterion: str
    chapter: str


@dataclass(frozen=True)
class Verdict:
    """What the stored results say of a claim.

    Parameters
    ----------
    claim
        The claim.
    verdict
        A name in :data:`VERDICTS`.
    seeds
        How many seeds it rests on: those whose windows are recorded in full.
    steps
        How many steps of these seeds are recorded.
    length
        How many there are, the start included.
    evidence
        What was found, or why nothing could be, in a sentence or two.
    per_seed
        One row for each reading, seed and window: ``quantity``, ``seed``, ``first``, ``last``,
        ``value`` (what the criterion compares) and ``holds``.
    file
        The result file, without suffix, seen from the folder of all results; None without one.
    """

    claim: Claim
    verdict: str
    seeds: int
    steps: int
    length: int
    evidence: str
    per_seed: pd.DataFrame
    file: str | None


def load(path: Path | None = None) -> list[Claim]:
    """Read the claims and check that each can be judged.

    Parameters
    ----------
    path
        The file; by default ``claims.yml`` in the nearest book above the current folder. The
        chapters are looked for in the folder ``notebooks`` beside the book.

    Raises
    ------
    ValueError
        If something in it is not valid, or there is no such file.
    """
    path = results.root().with_name("claims.yml") if path is None else path
    try:
        entries = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"There are no claims at {path}; call this inside the project.") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(entries, list):
        raise ValueError(f"{path} must hold a list of claims, each beginning with '- id: …'.")
    chapters = {file.stem for file in (path.parent.parent / "notebooks").glob("*.md")}
    claims: list[Claim] = []
    for entry in entries:
        claim = _claim(entry, chapters)
        if claim.id in {earlier.id for earlier in claims}:
            raise _invalid(claim.id, "is there twice; give one of them another id")
        claims.append(claim)
    return claims


def judge(claim: Claim) -> Verdict:
    """Return what the stored results say of a claim.

    Only seeds count of which every recorded step of the preset ``paper`` inside the windows is
    stored, for all orders of the claim. Where the quantity has several readings, each is judged;
    if they differ, the claim is *under-specified*.
    """
    preset = experiments.get(claim.experiment).preset("paper")
    file = runs.source(claim.experiment)
    table = pd.DataFrame(columns=results.KEYS) if file is None else file.table()
    table = table[table["order"].isin(claim.orders)]
    complete = _complete(table, claim)
    table = table[table["seed"].isin(complete)]
    readings = {
        quantity: CRITERIA[claim.criterion].judge(claim, quantity, table)
        if quantity in table and table[quantity].notna().any()
        else _Reading("not yet run", "not recorded.")
        for quantity in claim.quantity
        if complete
    }
    told = {reading.verdict for reading in readings.values()} - {"not yet run"}
    if not complete:
        evidence = _missing(claim)
    elif len(claim.quantity) == 1:
        evidence = readings[claim.quantity[0]].evidence
    else:
        evidence = " ".join(
            f"*{QUANTITIES[quantity]}* – {reading.verdict}: {reading.evidence}"
            for quantity, reading in readings.items()
        )
    return Verdict(
        claim=claim,
        verdict=told.pop() if len(told) == 1 else "under-specified" if told else "not yet run",
        seeds=len(complete),
        steps=table["step"].nunique(),
        length=preset.steps + 1,
        evidence=evidence,
        per_seed=pd.concat(
            [r.cases.assign(quantity=name) for name, r in readings.items() if r.cases is not None]
            or [pd.DataFrame(columns=[*_CASE, "quantity"])],
            ignore_index=True,
        )[["quantity", *_CASE]],
        file=None if file is None else str(file.stem.relative_to(results.root())),
    )


def table(chapter: str | None = None) -> pd.DataFrame:
    """Return all claims, or those of a chapter, with their verdicts.

    Returns
    -------
    pandas.DataFrame
        One row for each claim: ``id``, ``claim``, ``place``, ``verdict``, ``seeds``, ``steps``
        (recorded), ``length`` (of the run, in steps, the start included), ``evidence``,
        ``chapter`` and ``file``.
    """
    return pd.DataFrame(
        {
            "id": found.claim.id,
            "claim": found.claim.statement,
            "place": found.claim.place,
            "verdict": found.verdict,
            "seeds": found.seeds,
            "steps": found.steps,
            "length": found.length,
            "evidence": found.evidence,
            "chapter": found.claim.chapter,
            "file": found.file,
        }
        for found in _verdicts(chapter)
    )


def front() -> str:
    """Return the table of all claims for the book's front page, in Markdown."""
    rows = list(_verdicts(None))
    counts = {name: sum(row.verdict == name for row in rows) for name in VERDICTS}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return "\n".join(
        [
            f"Claims about the experiments: {len(rows)}. Verdicts: {told}.",
            "",
            "| claim | place and chapter | verdict | seeds | steps recorded |",
            "| --- | --- | --- | --- | --- |",
            *(
                f"| {row.claim.statement} "
                f"| {{doc}}`{row.claim.place} <chapters/{row.claim.chapter}>` "
                f"| {_named(row)} | {row.seeds} | {_recorded(row)} |"
                for row in rows
            ),
            "",
            *(f"- **{name}**: {meaning}" for name, meaning in VERDICTS.items()),
            "",
        ]
    )


def of_chapter(chapter: str) -> str:
    """Return the claims of a chapter with verdicts, evidence and criteria, in Markdown."""
    rows = list(_verdicts(chapter))
    used = dict.fromkeys(row.claim.criterion for row in rows)
    files = dict.fromkeys(row.file for row in rows if row.file)
    return "\n".join(
        [
            "| claim | verdict | seeds | steps recorded | what was found |",
            "| --- | --- | --- | --- | --- |",
            *(
                f"| {row.claim.statement} ({row.claim.place}) | {_named(row)} | {row.seeds} "
                f"| {_recorded(row)} | {row.evidence} |"
                for row in rows
            ),
            "",
            *(f"- **{name}**: {_rule(name)}" for name in used),
            "",
            f"Judged from the stored results {', '.join(f'`{file}`' for file in files)}."
            if files
            else "No results are stored from which they could be judged.",
        ]
    )


# Criteria: each is told to the reader by the first paragraph of its docstring.

_CASE = ["seed", "first", "last", "value", "holds"]


class _Reading(NamedTuple):
    """What one reading of a claim gives."""

    verdict: str
    evidence: str
    cases: pd.DataFrame | None = None


def calmer(claim: Claim, quantity: str, table: pd.DataFrame) -> _Reading:
    """On each seed and window, the standard deviation along the first path is divided by that along the second. Reproduced: all ratios are above 1, on at least three seeds, and so is the 95 % interval of their geometric mean in each window. Partly: all ratios are above 1, or the interval is in one of the windows. A path that has diverged is the less calm one.

    Source: "less variability", "decreased variance" (Section 4, Appendix A).
    """  # noqa: E501
    first_order, second_order = claim.orders
    cases, means = [], []
    for first, last in claim.windows:
        spread = _pivot(table, quantity, first, last, "spread").fillna(np.inf)
        # Where neither moves or both have diverged, the ratio is not a number, and not above 1.
        ratio = spread[first_order] / spread[second_order]
        cases.append(_cases(first, last, ratio, ratio > 1))
        means.append(stability.compare(table, quantity, first, last, orders=claim.orders))
    found = pd.concat(cases, ignore_index=True)
    sure = [mean.low > 1 for mean in means]
    if found["holds"].all() and all(sure) and found["seed"].nunique() >= ENOUGH_SEEDS:
        verdict = "reproduced"
    else:
        verdict = "partly" if found["holds"].all() or any(sure) else "not reproduced"
    windows = [
        f"{mean.ratio:.2g}"
        + (f" ({mean.low:.2g} to {mean.high:.2g})" if np.isfinite(mean.low) else "")
        + f" over {_steps(first, last)}"
        for (first, last), mean in zip(claim.windows, means, strict=True)
    ]
    return _Reading(
        verdict,
        f"spread of {first_order} divided by that of {second_order}, geometric mean over seeds: "
        f"{', '.join(windows)}; above 1 in {_count(found)}.",
        found,
    )


def lower_at_a_step(claim: Claim, quantity: str, table: pd.DataFrame) -> _Reading:
    """At the last recorded step of each window, the second order has the lower value on more seeds than a coin toss explains (one-sided sign test at 5 %, which takes at least five seeds). Reproduced: at each of these steps. Partly: at some. No expectation at a step can differ where all orders of the batches are equally likely, so this is the part of "faster" that can only come about by chance.

    Source: "converges faster" (Section 4, A.2 to A.4, A.6), read as a statement about a step.
    """  # noqa: E501
    first_order, second_order = claim.orders
    cases, sure, told = [], [], []
    for first, last in claim.windows:
        step = table.loc[table["step"].between(first, last), "step"].max()
        at = table[table["step"] == step].pivot(index="seed", columns="order", values=quantity)
        at = at.where(np.isfinite(at), np.inf)  # a path that has diverged is not the lower one
        lower, tied = at[second_order] < at[first_order], at[second_order] == at[first_order]
        with np.errstate(invalid="ignore"):
            cases.append(_cases(step, step, at[second_order] - at[first_order], lower))
        decided = int((~tied).sum())
        p = scipy.stats.binomtest(int(lower.sum()), decided, alternative="greater").pvalue if (
            decided
        ) else 1.0
        sure.append(p <= 0.05)
        told.append(f"on {lower.sum()} of {len(at)} at step {step} (p = {p:.2g})")
    found = pd.concat(cases, ignore_index=True)
    told = f"of the seeds, {second_order} is lower {', '.join(told)}."
    if len(at) < SIGN_TEST_SEEDS:
        return _Reading(
            "not yet run", f"{told} The sign test takes {SIGN_TEST_SEEDS} seeds.", found
        )
    verdict = "reproduced" if all(sure) else "partly" if any(sure) else "not reproduced"
    return _Reading(verdict, told, found)


def apart(claim: Claim, quantity: str, table: pd.DataFrame) -> _Reading:
    """On each seed and window, the mean levels of the two paths differ by more than the two paths fluctuate: by more than the sum of their standard deviations. Reproduced: in all cases, on at least three seeds. Partly: in more than half.

    Source: "converge again, but to a different point" (Section 4, Figure 3).
    """  # noqa: E501
    one, other = claim.orders
    cases = []
    for first, last in claim.windows:
        mean, spread = (_pivot(table, quantity, first, last, what) for what in ("mean", "spread"))
        gap = (mean[one] - mean[other]).abs()
        noise = spread[one] + spread[other]
        cases.append(_cases(first, last, gap / noise, gap > noise))
    found = pd.concat(cases, ignore_index=True)
    return _Reading(
        _share(found),
        f"difference of the levels of {one} and {other} divided by the sum of their spreads: "
        f"median {found['value'].median():.2g}; above 1 in {_count(found)}.",
        found,
    )


def covers(claim: Claim, quantity: str, table: pd.DataFrame) -> _Reading:
    """On each seed and window, the mean levels of the second and the third path lie between the lowest and the highest value of the first. Reproduced: in all cases, on at least three seeds. Partly: in more than half.

    Source: "forward SGD seems to oscillate between these two points" (Section 4, Figure 3).
    """  # noqa: E501
    wandering, *settled = claim.orders
    cases = []
    for first, last in claim.windows:
        mean = _pivot(table, quantity, first, last, "mean")[settled]
        inside = table[(table["order"] == wandering) & table["step"].between(first, last)]
        path = inside.groupby("seed")[quantity]
        low, high = path.min(), path.max()
        gap = mean.max(axis=1) - mean.min(axis=1)
        holds = (low <= mean.min(axis=1)) & (mean.max(axis=1) <= high) & mean.notna().all(axis=1)
        cases.append(_cases(first, last, (high - low) / gap, holds))
    found = pd.concat(cases, ignore_index=True)
    return _Reading(
        _share(found),
        f"range of {wandering} divided by the distance of the levels of {' and '.join(settled)}: "
        f"median {found['value'].median():.2g}; both levels are inside in {_count(found)}.",
        found,
    )


class Criterion(NamedTuple):
    """How a claim is judged, and how many orders it compares."""

    judge: Callable[[Claim, str, pd.DataFrame], _Reading]
    orders: int


CRITERIA = {
    "calmer": Criterion(calmer, 2),
    "lower_at_a_step": Criterion(lower_at_a_step, 2),
    "apart": Criterion(apart, 2),
    "covers": Criterion(covers, 3),
}


def _rule(criterion: str) -> str:
    """Return what a criterion asks for, as the reader is told it."""
    return inspect.getdoc(CRITERIA[criterion].judge).partition("\n\n")[0]


def _pivot(table: pd.DataFrame, quantity: str, first: int, last: int, what: str) -> pd.DataFrame:
    """Return a statistic of each path over a window: a row a seed, a column an order."""
    paths = stability.fluctuation(table, quantity, first, last)
    return paths.pivot(index="seed", columns="order", values=what)


def _cases(first: int, last: int, value: pd.Series, holds: pd.Series) -> pd.DataFrame:
    """Return a row for each seed."""
    return pd.DataFrame(
        {"seed": value.index, "first": first, "last": last, "value": value, "holds": holds}
    )[_CASE].reset_index(drop=True)


def _share(cases: pd.DataFrame) -> str:
    if cases["holds"].all() and cases["seed"].nunique() >= ENOUGH_SEEDS:
        return "reproduced"
    return "partly" if cases["holds"].mean() > 0.5 else "not reproduced"


def _count(cases: pd.DataFrame) -> str:
    seeds, windows = cases["seed"].nunique(), len(cases) // cases["seed"].nunique()
    return (
        f"{cases['holds'].sum()} of {len(cases)} cases ({seeds} seed{'s' * (seeds > 1)}, "
        f"{windows} window{'s' * (windows > 1)})"
    )


def _steps(first: int, last: int) -> str:
    return f"steps {first} to {last}"


# Which data there are


def _needed(claim: Claim) -> set[int]:
    """Return the steps that the preset records in the windows of a claim."""
    recorded = experiments.get(claim.experiment).preset("paper").recorded()
    return {n for n in recorded if any(first <= n <= last for first, last in claim.windows)}


def _complete(table: pd.DataFrame, claim: Claim) -> list[int]:
    """Return the seeds of which all that a claim needs is stored."""
    wanted = set(itertools.product(claim.orders, _needed(claim)))
    return [
        seed
        for seed, rows in table.groupby("seed")
        if wanted <= set(zip(rows["order"], rows["step"], strict=True))
    ]


def _missing(claim: Claim) -> str:
    """Say why there is no verdict."""
    if runs.source(claim.experiment):
        windows = " and ".join(_steps(first, last) for first, last in claim.windows)
        return f"On no seed are {' and '.join(claim.orders)} stored in full over {windows}."
    if old := runs.stale(claim.experiment):
        return f"The stored results are stale and not used: {'; '.join(old)}."
    return "Nothing is stored."


def _verdicts(chapter: str | None) -> Iterator[Verdict]:
    claims = load()
    chosen = [claim for claim in claims if chapter in (None, claim.chapter)]
    if not chosen:
        known = ", ".join(dict.fromkeys(claim.chapter for claim in claims))
        raise ValueError(f"There are no claims of the chapter '{chapter}'. There are of: {known}.")
    return map(judge, chosen)


def _named(row: Verdict) -> str:
    few = 0 < row.seeds < ENOUGH_SEEDS and row.verdict != "not yet run"
    return f"**{row.verdict}**" + f" ({row.seeds} seed{'s' * (row.seeds > 1)} only)" * few


def _recorded(row: Verdict) -> str:
    return f"{row.steps:,} of {row.length:,}"


# Reading the file

_FIELDS = [field.name for field in fields(Claim)]


def _invalid(name: Any, fault: str) -> ValueError:
    return ValueError(f"The claim '{name}' {fault}.")


def _claim(entry: Any, chapters: set[str]) -> Claim:
    """Return a claim from its entry in the file, or refuse it."""
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        raise ValueError(f"A claim is a mapping with an 'id', a text; got {entry!r}.")
    name = entry["id"]
    missing = [f for f in _FIELDS if f not in entry and f != "windows"]
    unknown = [str(f) for f in entry if f not in _FIELDS]
    if missing or unknown:
        faults = [f"lacks {f}" for f in missing] + [f"has an unknown field '{f}'" for f in unknown]
        raise _invalid(name, f"{', '.join(faults)}; its fields are: {', '.join(_FIELDS)}")
    _among(name, "experiment", [entry["experiment"]], experiments.EXPERIMENTS)
    _among(name, "criterion", [entry["criterion"]], CRITERIA)
    _among(name, "chapter", [entry["chapter"]], chapters)
    quantity = entry["quantity"] if isinstance(entry["quantity"], list) else [entry["quantity"]]
    _among(name, "quantity", quantity, QUANTITIES)
    experiment = experiments.get(entry["experiment"])
    _among(name, "order", entry["orders"], [order.name for order in experiment.orders])
    asked = CRITERIA[entry["criterion"]].orders
    if len(entry["orders"]) != asked:
        raise _invalid(
            name, f"has {len(entry['orders'])} orders; the criterion {entry['criterion']} "
            f"compares {asked}"
        )
    preset = experiment.preset("paper")
    bursts = [[first, first + n - 1] for first, n in preset.bursts]
    windows = tuple(tuple(window) for window in entry.get("windows", bursts))
    if not windows:
        raise _invalid(name, f"needs windows, since {experiment.name} has no bursts")
    for window in windows:
        inside = [n for n in preset.recorded() if window[0] <= n <= window[-1]]
        if len(window) != 2 or len(inside) < 2:
            raise _invalid(
                name, f"has the window {list(window)}; a window is [first, last], with at least "
                f"two steps between that {experiment.name} records"
            )
    return Claim(
        **{f: entry[f] for f in _FIELDS if f not in ("quantity", "orders", "windows")},
        quantity=tuple(quantity),
        orders=tuple(entry["orders"]),
        windows=windows,
    )


def _among(claim: str, what: str, names: list, known: Any) -> None:
    for name in names:
        if name not in known:
            valid = ", ".join(sorted(known))
            raise _invalid(claim, f"has the unknown {what} '{name}'. Valid are: {valid}")
