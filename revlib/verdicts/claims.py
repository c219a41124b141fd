"""Claims as data: what the paper says of each experiment, and verdicts from the stored results.

The claims stand in ``book/claims.yml``. A verdict is computed from the stored results of the
preset ``paper`` each time it is asked for, and from nothing else: results that are missing, stale
or not complete give *not yet run*.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.stats
import yaml

from revlib import experiments, runs
from revlib.experiments import Size
from revlib.store import results
from revlib.verdicts import stability

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
SETTLED = 0.1  # the part of an early fall that a settled path may still move
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
        Name of the experiment or the study that it is about.
    quantity
        What is measured: names in :data:`QUANTITIES` or of the study's own. Several are the
        *readings* of a statement that leaves open which one is meant.
    orders
        Names of the orders, or of the study's cases, that are compared.
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
        entries = yaml.safe_load(path.read_bytes())
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
    if they differ, the claim is *under-specified*. A reading that was not recorded is left out,
    and the evidence says so.
    """
    file = runs.source(claim.experiment)
    rows = runs.stored(claim.experiment)
    rows = rows[rows["order"].isin(claim.orders)]
    seeds = _complete(rows, claim)
    rows = rows[rows["seed"].isin(seeds)]
    criterion = CRITERIA[claim.criterion]
    recorded = [name for name in claim.quantity if seeds and name in rows]
    paths = rows[rows["step"].isin(_needed(claim))]  # the same steps of all seeds and orders
    readings = {name: criterion.judge(claim, name, _finite(paths, name)) for name in recorded}
    words = QUANTITIES | dict(experiments.get(claim.experiment).quantities)
    told = {reading.verdict for reading in readings.values()} - {"not yet run"}
    if not seeds:
        evidence = _missing(claim, file is not None)
    elif len(claim.quantity) == 1 and readings:
        [evidence] = (reading.evidence for reading in readings.values())
    else:
        evidence = " ".join(
            f"*{words[name].capitalize()}*: "
            + (
                f"{found.verdict}. {found.evidence}"
                if (found := readings.get(name))
                else "not recorded."
            )
            for name in claim.quantity
        )
    cases = [found.cases.assign(quantity=name) for name, found in readings.items()]
    return Verdict(
        claim=claim,
        verdict=told.pop() if len(told) == 1 else "under-specified" if told else "not yet run",
        seeds=len(seeds),
        steps=rows["step"].nunique(),
        length=_paper(claim.experiment).steps + 1,
        evidence=evidence,
        per_seed=pd.concat(cases, ignore_index=True)[["quantity", *_CASE]]
        if cases
        else pd.DataFrame(columns=["quantity", *_CASE]),
        file=None if file is None else file.stem.relative_to(results.root()).as_posix(),
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


def page() -> Path:
    """Return the file that pages of the book include: :func:`front`, written down."""
    return results.root().with_name("verdicts.md")


FULL_TABLE = "<!-- claim by claim -->"
"""The line of :func:`front` between the summary and the table of all claims."""


def front() -> str:
    """Return what the book's front page shows of all claims, and the table of all, in Markdown.

    First the counts and a row for each chapter, which names its claims by their verdict; then,
    after :data:`FULL_TABLE`, a row for each claim.
    """
    rows = list(_verdicts(None))
    paper = [row for row in rows if row.claim.experiment.startswith("figure-")]
    beyond = [row for row in rows if not row.claim.experiment.startswith("figure-")]
    chapters: dict[str, list[Verdict]] = {}
    for row in rows:
        chapters.setdefault(row.claim.chapter, []).append(row)
    return "\n".join(
        [
            f"Claims of the paper about its experiments: {_counted(paper)}.",
            "",
            "Statements beyond it (its conjectures, those of companion papers, comparisons with "
            f"other methods): {_counted(beyond)}.",
            "",
            "| chapter | claims by verdict | seeds |",
            "| --- | --- | --- |",
            *(
                f"| {{doc}}`chapters/{chapter}` | {_by_verdict(own)} | {_seeds(own)} |"
                for chapter, own in chapters.items()
            ),
            "",
            FULL_TABLE,
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
            *(f"- **{name}**: {CRITERIA[name].rule}" for name in used),
            "",
            f"Judged from the stored results {', '.join(f'`{file}`' for file in files)}."
            if files
            else "No results are stored from which they could be judged.",
        ]
    )


# Criteria


class _Reading(NamedTuple):
    """What one reading of a claim gives: the verdict, the evidence, and each seed and window."""

    verdict: str
    evidence: str
    cases: pd.DataFrame


def _at_the_end(
    paths: pd.DataFrame, quantity: str, first: int, last: int
) -> tuple[int, pd.DataFrame]:
    """Return the last step that is recorded in a window, and the quantity there by seed, order."""
    step = paths.loc[paths["step"].between(first, last), "step"].max()
    at = paths[paths["step"] == step].pivot(index="seed", columns="order", values=quantity)
    return step, at


def _calmer(claim: Claim, quantity: str, paths: pd.DataFrame) -> _Reading:
    first_order, second_order = claim.orders
    cases, means = [], []
    for first, last in claim.windows:
        spread = _statistic(paths, quantity, first, last, "spread").fillna(np.inf)
        # Where neither moves or both have diverged, the ratio is not a number, and not above 1.
        ratio = spread[first_order] / spread[second_order]
        cases.append(_cases(first, last, ratio, ratio > 1))
        means.append(stability.compare(paths, quantity, first, last, orders=claim.orders))
    found = pd.concat(cases, ignore_index=True)
    # Where the second path never moves there is no finite ratio, and nothing is calmer.
    sure = [
        mean.low > 1 or (mean.ratios.empty and case["holds"].all())
        for mean, case in zip(means, cases, strict=True)
    ]
    if found["holds"].all() and all(sure) and found["seed"].nunique() >= ENOUGH_SEEDS:
        verdict = "reproduced"
    else:
        verdict = "partly" if found["holds"].all() or any(sure) else "not reproduced"
    windows = [
        (stability.rounded(mean.ratio) if len(mean.ratios) else "not finite")
        + (
            f" ({stability.rounded(mean.low)} to {stability.rounded(mean.high)})"
            if np.isfinite(mean.low)
            else ""
        )
        + f" over steps {first} to {last}"
        for (first, last), mean in zip(claim.windows, means, strict=True)
    ]
    return _Reading(
        verdict,
        f"Spread of {first_order} divided by that of {second_order}: {', '.join(windows)}; "
        f"above 1 in {_count(found)}.",
        found,
    )


def _lower_at_a_step(claim: Claim, quantity: str, paths: pd.DataFrame) -> _Reading:
    first_order, second_order = claim.orders
    cases, sure, words = [], [], []
    for first, last in claim.windows:
        step, at = _at_the_end(paths, quantity, first, last)
        at = at.fillna(np.inf)  # a path that has diverged is not the lower one
        lower = at[second_order] < at[first_order]
        decided = int((at[second_order] != at[first_order]).sum())
        p = 1.0
        if decided:
            p = scipy.stats.binomtest(int(lower.sum()), decided, alternative="greater").pvalue
        cases.append(_cases(step, step, at[second_order] - at[first_order], lower))
        sure.append(p <= 0.05)
        words.append(f"at step {step} on {lower.sum()} of {len(at)} seeds (p = {p:.2g})")
    evidence = f"Lower with {second_order}: {', '.join(words)}."
    if len(at) < SIGN_TEST_SEEDS:
        verdict = "not yet run"
        evidence += f" A sign test takes {SIGN_TEST_SEEDS} seeds."
    else:
        verdict = "reproduced" if all(sure) else "partly" if any(sure) else "not reproduced"
    return _Reading(verdict, evidence, pd.concat(cases, ignore_index=True))


def _apart(claim: Claim, quantity: str, paths: pd.DataFrame) -> _Reading:
    one, other = claim.orders
    cases = []
    for first, last in claim.windows:
        mean = _statistic(paths, quantity, first, last, "mean")
        spread = _statistic(paths, quantity, first, last, "spread")
        gap = (mean[one] - mean[other]).abs()
        noise = spread[one] + spread[other]
        cases.append(_cases(first, last, gap / noise, gap > noise))
    found = pd.concat(cases, ignore_index=True)
    return _Reading(
        _share(found),
        f"Difference of the levels of {one} and {other} divided by the sum of their spreads: "
        f"median {found['value'].median():.2g}; above 1 in {_count(found)}.",
        found,
    )


def _covers(claim: Claim, quantity: str, paths: pd.DataFrame) -> _Reading:
    wandering, *settled = claim.orders
    cases = []
    for first, last in claim.windows:
        mean = _statistic(paths, quantity, first, last, "mean")[settled]
        lowest, highest = mean.min(axis=1, skipna=False), mean.max(axis=1, skipna=False)
        inside = paths[(paths["order"] == wandering) & paths["step"].between(first, last)]
        path = inside.groupby("seed")[quantity]
        low, high = path.min(), path.max()
        holds = (low <= lowest) & (highest <= high)
        cases.append(_cases(first, last, (high - low) / (highest - lowest), holds))
    found = pd.concat(cases, ignore_index=True)
    return _Reading(
        _share(found),
        f"Range of {wandering} divided by the distance of the levels of {' and '.join(settled)}: "
        f"median {found['value'].median():.2g}; both levels lie inside in {_count(found)}.",
        found,
    )


def _lower_in_turn(claim: Claim, quantity: str, paths: pd.DataFrame) -> _Reading:
    cases, sure, words = [], [], []
    for (first, last), pair in itertools.product(claim.windows, itertools.pairwise(claim.orders)):
        step, at = _at_the_end(paths, quantity, first, last)
        at = at.fillna(np.inf)  # a path that has diverged is not the lower one
        with np.errstate(invalid="ignore"):  # both have diverged: no difference can be told
            change = at[pair[1]] - at[pair[0]]
        spread = change[np.isfinite(change)].std()
        mean = change.mean(skipna=False)
        cases.append(_cases(step, step, change, change < 0))
        sure.append(len(at) >= ENOUGH_SEEDS and bool(mean < -(spread if np.isfinite(mean) else 0)))
        words.append(
            f"{pair[1]} {mean:+.2g} ± {spread:.1g}" if np.isfinite(mean) else f"{pair[1]} diverged"
        )
    verdict = "reproduced" if all(sure) else "partly" if any(sure) else "not reproduced"
    return _Reading(
        verdict,
        f"Change at step {step} from each to the next, beginning with {claim.orders[0]}: "
        f"{', '.join(words)}; lower by more than the spread over seeds in {sum(sure)} of "
        f"{len(sure)}.",
        pd.concat(cases, ignore_index=True),
    )


def _nearer(claim: Claim, quantity: str, paths: pd.DataFrame) -> _Reading:
    own, near, far = claim.orders
    cases = []
    for first, last in claim.windows:
        step, at = _at_the_end(paths, quantity, first, last)
        distance = at.sub(at[own], axis=0).abs().fillna(np.inf)  # from or to one that has diverged
        ratio = distance[near] / distance[far]
        cases.append(_cases(step, step, ratio, distance[near] < distance[far]))
    found = pd.concat(cases, ignore_index=True)
    return _Reading(
        _share(found),
        f"Distance of {near} from {own} divided by that of {far} from it: "
        f"median {found['value'].median():.2g}; below 1 in {_count(found)}.",
        found,
    )


def _settles(claim: Claim, quantity: str, paths: pd.DataFrame) -> _Reading:
    (order,) = claim.orders
    changes = []
    for first, last in (claim.windows[0], claim.windows[-1]):
        inside = paths[paths["step"].between(first, last)].set_index("seed")
        ends = [inside["step"] == step for step in (inside["step"].max(), inside["step"].min())]
        changes.append(inside.loc[ends[0], quantity] - inside.loc[ends[1], quantity])
    early, late = changes
    share = late.abs() / early.abs()
    found = _cases(*claim.windows[-1], share, (early < 0) & (share < SETTLED))
    return _Reading(
        _share(found),
        f"Change of {order} over steps {claim.windows[-1][0]} to {claim.windows[-1][1]} divided by "
        f"its change over steps {claim.windows[0][0]} to {claim.windows[0][1]}: median "
        f"{share.median():.2g}; a fall, and below {SETTLED:g}, in {_count(found)}.",
        found,
    )


def _narrower(claim: Claim, quantity: str, paths: pd.DataFrame) -> _Reading:
    first_order, second_order = claim.orders
    cases, sure, words = [], [], []
    for first, last in claim.windows:
        step, at = _at_the_end(paths, quantity, first, last)
        at = at.where(np.isfinite(at))
        off = (at - at.mean()).abs()
        change = off[second_order] - off[first_order]
        cases.append(_cases(step, step, change, change < 0))
        spread, p = at.std(), 1.0
        if len(at) >= ENOUGH_SEEDS and at.notna().all(axis=None) and spread.min() > 0:
            # Pitman and Morgan: of two variables that come in pairs, the sum is correlated with
            # the difference if and only if their variances differ.
            total, gap = at[first_order] + at[second_order], at[first_order] - at[second_order]
            p = scipy.stats.pearsonr(total, gap, alternative="greater").pvalue
        sure.append(p <= 0.05)
        words.append(
            f"at step {step} {spread[first_order]:.2g} with {first_order}, "
            f"{spread[second_order]:.2g} with {second_order} (p = {p:.2g})"
        )
    verdict = "reproduced" if all(sure) else "partly" if any(sure) else "not reproduced"
    return _Reading(
        verdict,
        f"Standard deviation over {stability.counted(len(at), 'seed')}: {', '.join(words)}.",
        pd.concat(cases, ignore_index=True),
    )


class Criterion(NamedTuple):
    """How a claim is judged.

    Parameters
    ----------
    rule
        What is compared and what gives which verdict, for the reader.
    orders
        How many orders it takes; None for any number from two on.
    judge
        Judges one reading of a claim, from the paths of its complete seeds.
    """

    rule: str
    orders: int | None
    judge: Callable[[Claim, str, pd.DataFrame], _Reading]


CRITERIA = {
    "calmer": Criterion(
        "On each seed and window the standard deviation along the first path is divided by that "
        "along the second. *Reproduced*: all ratios are above 1, on at least three seeds, and in "
        "each window so is the 95 % interval of their geometric mean over seeds. *Partly*: all "
        "ratios are above 1, or the interval is in some window. A path that has diverged is the "
        "less calm one.",
        2,
        _calmer,
    ),
    "lower_at_a_step": Criterion(
        "At the last step of each window, the second order has the lower value on more seeds than "
        "a coin toss explains, by a one-sided sign test at 5 %. *Reproduced*: at each of these "
        "steps. *Partly*: at some. Where all orders of the batches are equally likely it is a coin "
        "toss, and can be reproduced by chance only.",
        2,
        _lower_at_a_step,
    ),
    "apart": Criterion(
        "On each seed and window, the mean levels of the two paths differ by more than the sum of "
        "their standard deviations. *Reproduced*: in all cases, on at least three seeds. "
        "*Partly*: in more than half.",
        2,
        _apart,
    ),
    "covers": Criterion(
        "On each seed and window, the mean levels of the second and the third path lie between "
        "the lowest and the highest value of the first. *Reproduced*: in all cases, on at least "
        "three seeds. *Partly*: in more than half.",
        3,
        _covers,
    ),
    "lower_in_turn": Criterion(
        "At the last step of each window, every order has a lower value than the one before it: "
        "the mean over seeds of the paired differences lies below zero by more than their "
        "standard deviation, on at least three seeds. *Reproduced*: for each pair of "
        "neighbours. *Partly*: for some. A path that has diverged is not the lower one.",
        None,
        _lower_in_turn,
    ),
    "nearer": Criterion(
        "On each seed, at the last step of each window, the value of the second order is nearer to "
        "that of the first than the value of the third is. *Reproduced*: in all cases, on at "
        "least three seeds. *Partly*: in more than half. A path that has diverged is infinitely "
        "far.",
        3,
        _nearer,
    ),
    "settles": Criterion(
        "On each seed the path falls over the first window, and from the first to the last step of "
        f"the last window it changes by less than {SETTLED:.0%} of that. *Reproduced*: on all "
        "seeds, at least three. *Partly*: on more than half.",
        1,
        _settles,
    ),
    "narrower": Criterion(
        "At the last step of each window, the values of the second order spread less over the "
        "seeds than those of the first: their variances differ by the one-sided test of Pitman "
        "and Morgan for paired values, at 5 %. *Reproduced*: at each of these steps. *Partly*: at "
        "some. A spread in which a path has diverged is not compared, nor one of zero.",
        2,
        _narrower,
    ),
}
"""The criteria by name."""


def _statistic(paths: pd.DataFrame, quantity: str, first: int, last: int, what: str):
    """Return a statistic of each path over a window: a row a seed, a column an order."""
    found = stability.fluctuation(paths, quantity, first, last)
    return found.pivot(index="seed", columns="order", values=what)


_CASE = ["seed", "first", "last", "value", "holds"]


def _cases(first: int, last: int, value: pd.Series, holds: pd.Series) -> pd.DataFrame:
    """Return a row for each seed."""
    columns = (value.index, first, last, value.to_numpy(), holds.to_numpy())
    return pd.DataFrame(dict(zip(_CASE, columns, strict=True)))


def _share(cases: pd.DataFrame) -> str:
    if cases["holds"].all() and cases["seed"].nunique() >= ENOUGH_SEEDS:
        return "reproduced"
    return "partly" if cases["holds"].mean() > 0.5 else "not reproduced"


def _count(cases: pd.DataFrame) -> str:
    seeds = cases["seed"].nunique()
    return (
        f"{cases['holds'].sum()} of {len(cases)} cases "
        f"({stability.counted(seeds, 'seed')}, {stability.counted(len(cases) // seeds, 'window')})"
    )


# Which data there are


def _paper(name: str) -> Size:
    """Return the size of a study that claims are about."""
    return experiments.get(name).size("paper")


def _needed(claim: Claim) -> set[int]:
    """Return the steps that the preset records in the windows of a claim."""
    recorded = _paper(claim.experiment).recorded()
    return {n for n in recorded if any(first <= n <= last for first, last in claim.windows)}


def _complete(table: pd.DataFrame, claim: Claim) -> list[int]:
    """Return the seeds of which all that a claim needs is stored."""
    wanted = set(itertools.product(claim.orders, _needed(claim)))
    return [
        seed
        for seed, rows in table.groupby("seed")
        if wanted <= set(zip(rows["order"], rows["step"], strict=True))
    ]


def _finite(rows: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Return rows in which a quantity is not a number wherever the path has diverged.

    The accuracy of a diverged network is a number, and a very calm one.
    """
    loss = rows.get(quantity.replace("accuracy", "loss"), rows[quantity])
    return rows.assign(**{quantity: rows[quantity].where(np.isfinite(loss.astype(float)))})


def _missing(claim: Claim, stored: bool) -> str:
    """Say why there is no verdict."""
    if stored:
        windows = " and ".join(f"{first} to {last}" for first, last in claim.windows)
        return f"Of no seed are {' and '.join(claim.orders)} stored in full over steps {windows}."
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
    return f"**{row.verdict}**" + f" ({stability.counted(row.seeds, 'seed')} only)" * few


def _counted(rows: list[Verdict]) -> str:
    counts = {name: sum(row.verdict == name for row in rows) for name in VERDICTS}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f"{len(rows)}" + (f", of which {told}" if told else "")


def _by_verdict(rows: list[Verdict]) -> str:
    """Return the names of claims, gathered by their verdict."""
    names = {
        verdict: [row.claim.id.replace("-", " ") for row in rows if row.verdict == verdict]
        for verdict in VERDICTS
    }
    return "; ".join(f"**{verdict}**: {', '.join(own)}" for verdict, own in names.items() if own)


def _seeds(rows: list[Verdict]) -> str:
    """Return on how many seeds verdicts rest."""
    fewest, most = (pick(row.seeds for row in rows) for pick in (min, max))
    return f"{fewest}" if fewest == most else f"{fewest} to {most}"


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
    _among(name, "experiment", [entry["experiment"]], experiments.STUDIES)
    study, size = experiments.get(entry["experiment"]), _paper(entry["experiment"])
    _among(name, "criterion", [entry["criterion"]], CRITERIA)
    _among(name, "chapter", [entry["chapter"]], chapters)
    quantity = entry["quantity"] if isinstance(entry["quantity"], list) else [entry["quantity"]]
    _among(name, "quantity", quantity, QUANTITIES | dict(study.quantities))
    _among(name, "order", entry["orders"], size.cases)
    asked, given = CRITERIA[entry["criterion"]].orders, len(entry["orders"])
    if given != asked and not (asked is None and given > 1):
        raise _invalid(
            name, f"has {given} orders; {entry['criterion']} compares {asked or 'two or more'}"
        )
    end = [] if study.method.by_step else [(size.steps, size.steps)]
    windows = entry.get("windows", size.windows or end)
    if not windows:
        raise _invalid(name, f"needs windows, since {entry['experiment']} has no bursts")
    for window in entry.get("windows", []):
        if not _is_window(window, size.recorded()):
            raise _invalid(
                name,
                f"has the window {window!r}; a window is [first, last], and "
                f"{entry['experiment']} must record at least two steps in it, the start not "
                "counted",
            )
    return Claim(
        **{f: entry[f] for f in _FIELDS if f not in ("quantity", "orders", "windows")},
        quantity=tuple(quantity),
        orders=tuple(entry["orders"]),
        windows=tuple(tuple(window) for window in windows),
    )


def _is_window(window: Any, recorded: list[int]) -> bool:
    if not isinstance(window, list) or [type(n) for n in window] != [int, int] or window[0] < 1:
        return False
    return sum(window[0] <= n <= window[1] for n in recorded) > 1


def _among(claim: str, what: str, names: list, known: Any) -> None:
    for name in names:
        if name not in list(known):
            valid = ", ".join(sorted(known))
            raise _invalid(claim, f"has the unknown {what} '{name}'. Valid are: {valid}")
