"""The verdicts as the book shows them: tables in Markdown, and one of all of them."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from revlib import experiments, runs
from revlib.verdicts import claims, findings, intervals, overview
from revlib.verdicts.claims import AUTHORS, RATIO
from revlib.verdicts.effects import CRITERIA
from revlib.verdicts.judging import DECIDED, VERDICTS, Verdict, estimate, judge
from revlib.verdicts.stability import counted, factor

COUNTS = "<!-- the counts -->"
"""The line of :func:`front` between the table by setting and the counts."""

REGULARISER = "d-2-order-averaging"
"""The chapter on the regulariser, whose claims are judged from several starts."""

FULL_TABLE = "<!-- claim by claim -->"
"""The line of :func:`front` between the summary and the table of all claims."""

MARKS = {
    "reproduced": "✓",
    "holds": "✓",
    "proved": "✓",
    "contradicted": "✗",
    "does not hold": "✗",
    "excluded": "✗",
}
"""The marks of verdicts; what is open has a question mark."""


def front() -> str:
    """Return what the book's front page shows of all claims, and the table of all, in Markdown.

    First what became of the paper's main claims in each setting; then, after :data:`COUNTS`, how
    many came out how; then, after :data:`FULL_TABLE`, a row for each claim.
    """
    rows = list(verdicts())
    return "\n".join(
        [
            by_setting(rows),
            "",
            COUNTS,
            "",
            *(f"- {words}: {_counted(own)}." for words, own in _grouped(rows).items()),
            "",
            _by_chance(rows),
            "",
            FULL_TABLE,
            "",
            "A number without a sign is a ratio, above 1 where it is as claimed; one with a sign "
            "is a difference, above 0 where it is as claimed. Brackets give the 95% interval over "
            "the seeds: Student's, but for a ratio of standard deviations that of Pitman and "
            "Morgan, and where a path diverged or nothing varies that of the median, by the sign "
            "test.",
            "",
            "| claim | verdict | found | seeds | figure | chapter |",
            "| --- | --- | --- | --- | --- | --- |",
            *(
                f"| {row.claim.statement} | **{row.verdict}** | {_found(row)} | {row.seeds} "
                f"| {_figure(row.claim)} "
                f"| {{doc}}`{row.claim.place} <chapters/{row.claim.chapter}>` |"
                for row in rows
            ),
            "",
            *(f"- **{name}**: {meaning}" for name, meaning in VERDICTS.items()),
            "",
        ]
    )


def by_setting(rows: Iterable[Verdict]) -> str:
    """Return what became of the paper's main claims, a row a setting, in Markdown.

    Figures that train the same network on the same data in the same way are one setting: their
    runs are not independent of each other. Beside the paper's two claims stand whether the
    backward iterate has come to rest, and what an ending of fixed batches does.
    """
    found: dict[object, list[Verdict]] = {}
    endings: dict[object, list[Verdict]] = {}
    for row in rows:
        if row.claim.made_by == "paper" and row.claim.experiment[0].startswith("figure-"):
            found.setdefault(row.claim.setting, []).append(row)
        elif row.claim.experiment[0].startswith("endings-"):
            endings.setdefault(row.claim.setting, []).append(row)
    lines = []
    for own in found.values():
        calm = _cells(own, lambda c: c.criterion == "calmer" and c.quantity[0].startswith("test"))
        fast = _cells(own, lambda c: c.criterion == "stays_below")
        if calm or fast:
            asked = [row.claim for row in own if row.claim.orders == overview.ORDERS]
            rest = _at_rest(asked or [own[0].claim])
            cheaper = _cells(endings.get(own[0].claim.setting, []), _has_fixed_ending)
            name = own[0].claim.statement.partition(":")[0]
            lines.append(f"| {name} | {calm} | {fast} | {rest} | {cheaper} |")
    return "\n".join(
        [
            "| setting | varies less along its path? spread forward / backward "
            "| stays below a level first? step forward / backward "
            "| at rest? distance of a step backward / forward "
            "| calmer than forward at linear cost? spread forward / with a fixed ending |",
            "| --- | --- | --- | --- | --- |",
            *lines,
            "",
            "In brackets the 95% interval over the seeds. Spreads, of the test loss, and steps, "
            "of the training loss: above 1 speaks for the paper. Two numbers in a cell are two "
            "readings that must agree: batch normalisation with its running statistics, and with "
            "those of the evaluated examples. At rest: an iterate that moves by less than "
            f"{100 * findings.REST:g}% of a forward step. Fixed endings were run on other seeds "
            "than the figures.",
            "",
            f"The regulariser of Figures 14 to 19 ({{doc}}`chapters/{REGULARISER}`), by its start:",
            "",
            of_the_regulariser(rows),
        ]
    )


def _has_fixed_ending(claim: claims.Claim) -> bool:
    asked = claim.criterion == "calmer" and not claim.excluded_by
    return asked and claim.orders[-1].startswith("tail(")


def _at_rest(asked: list[claims.Claim]) -> str:
    """Return how far one more step still moves the second order's iterate, at the last look.

    Of the first of the studies that claims are about with the most seeds, of those that were looked
    at in the second half of the run if there are any: that an iterate moves before proves nothing.
    """
    orders = {claim.experiment[0]: claim.orders for claim in reversed(asked)}
    found = []
    for name in reversed(orders):
        times, step = findings.moved(runs.looks(f"motion-{name}"), orders[name])
        end = experiments.get(name).size("paper").steps
        if times is not None:
            found.append((step >= end / 2, times.seeds, times, f"{step:,} of {end:,}"))
    if not found:
        return "? not yet run"
    late, _, times, where = max(found, key=lambda each: each[:2])
    mark = {True: "✓", False: "✗", None: "?"}[findings.rests(times)] if late else "?"
    decides = times.seeds >= intervals.FEWEST
    ends = f" ({factor(times.low)} to {factor(times.high)})" if decides else ""
    found = f"{factor(times.mean)}{ends}, {counted(times.seeds, 'seed')}"
    return f"{mark} at step {where}: {found}"


def _cells(rows: list[Verdict], chosen: Callable[[claims.Claim], bool]) -> str:
    """Return the findings of some claims, the first of each experiment."""
    first: dict[str, Verdict] = {}
    for row in rows:
        if chosen(row.claim) and "loss" in row.claim.quantity[0]:
            first.setdefault(row.claim.experiment[0], row)
    told = []
    for name, row in first.items():
        figure = name.removeprefix("endings-").replace("-", " ")
        link = f"{{doc}}`{figure} <chapters/{row.claim.chapter}>`"
        values = " and ".join(estimate(judged) for judged in row.readings.values())
        of_start = [f"{100 * level:g}" for level in sorted(row.claim.levels)]
        levels = f" (below {of_start[0]} to {of_start[-1]}% of the start)" if of_start else ""
        words = f" {values}, {counted(row.seeds, 'seed')}{levels}" if values else " not yet run"
        told.append(f"{MARKS.get(row.verdict, '?')} {link}:{words}")
    return "<br>".join(told)


def of_the_regulariser(rows: Iterable[Verdict] | None = None) -> str:
    """Return what the paper's claims on Figures 14 to 19 come to from each start, as a list."""
    found: dict[str, list[str]] = {}
    for row in verdicts(REGULARISER) if rows is None else rows:
        if row.claim.chapter == REGULARISER and row.claim.made_by == "paper":
            for name, judged in row.readings.items():
                found.setdefault(row.claim.words(name), []).append(judged.verdict)
    lines = {}
    for start, said in found.items():
        numbers = ", ".join(f"{n} {word}" for word, n in Counter(said).most_common())
        lines[f"With {start}"] = f"of {counted(len(said), 'claim')}, {numbers}."
    return findings.listed(lines)


def of_chapter(chapter: str) -> str:
    """Return the claims of a chapter with verdicts, evidence and criteria, in Markdown."""
    rows = list(verdicts(chapter))
    used = dict.fromkeys(row.claim.criterion for row in rows)
    files = dict.fromkeys(file for row in rows for file in row.files)
    why = {
        label: f"{{{'eq' if label.startswith('eq-') else 'prf:ref'}}}`{label}`"
        for row in rows
        if (label := row.claim.excluded_by or row.claim.proved_by)
    }
    return "\n".join(
        [
            "| claim | verdict | seeds | steps | what was found |",
            "| --- | --- | --- | --- | --- |",
            *(
                f"| {row.claim.statement} ({_source(row.claim)}) | **{row.verdict}** "
                f"{why.get(row.claim.excluded_by or row.claim.proved_by, '')} | {row.seeds} "
                f"| {_steps(row)} | {row.evidence}{_added(row)} |"
                for row in rows
            ),
            "",
            *(f"- **{name.replace('_', ' ')}**: {CRITERIA[name].rule}" for name in used),
            "",
            f"*Reproduced*: the whole 95% interval of the effect over the seeds lies above zero, "
            f"however small the effect. *Contradicted*: it lies below, or else inside the band of "
            f"no effect (ratios: 1/{RATIO:g} to {RATIO:g}, where nothing else is stated); a claim "
            f"of k parts is contradicted by one of them, at a level of 5%/k. Anything else is "
            f"*undecided*, and fewer than {intervals.FEWEST} seeds are *too few*.",
            "",
            f"Judged from the stored results {', '.join(f'`{file}`' for file in files)}."
            if files
            else "No results are stored from which they could be judged.",
        ]
    )


def _steps(row: Verdict) -> str:
    """Return at how many steps of which range a claim is judged."""
    steps = row.claim.needed()
    ends = f" from {steps[0]:,} to {steps[-1]:,}" if len(steps) > 1 else f" ({steps[0]:,})"
    return f"{row.steps:,}{ends if row.steps else ''}"


def _added(row: Verdict) -> str:
    """Say if there are more seeds than were planned: who looks and adds some errs more often."""
    sizes = [experiments.get(name).size("paper") for name in row.claim.experiment]
    planned = min(len(size.seeds) for size in sizes)
    more = row.seeds - planned
    return (
        f" Of the seeds, {planned} were planned, and {more} added after a look at them: so the "
        "level is not quite 95%."
        if more > 0
        else ""
    )


def _found(row: Verdict) -> str:
    """Return what each reading of a claim comes to, a line each."""
    return "<br>".join(
        (f"{words}: " if len(row.readings) > 1 and (words := row.claim.words(name)) else "")
        + estimate(judged, row.claim.how.ratio)
        for name, judged in row.readings.items()
    )


def _figure(claim: claims.Claim) -> str:
    """Return the number of the paper's figure in whose setting a claim is judged, if there is."""
    number = claim.experiment[0].rpartition("figure-")[-1]
    return number if number.isdigit() else ""


def _source(claim: claims.Claim) -> str:
    return "our question" if claim.made_by == "nobody" else claim.place


def verdicts(chapter: str | None = None) -> Iterator[Verdict]:
    """Return the verdicts on all claims, or on those of a chapter."""
    listed = claims.load()
    chosen = [claim for claim in listed if chapter in (None, claim.chapter)]
    if not chosen:
        known = ", ".join(dict.fromkeys(claim.chapter for claim in listed))
        raise ValueError(f"There are no claims of the chapter '{chapter}'. There are of: {known}.")
    return map(functools.partial(judge, stored=functools.cache(runs.looks)), chosen)


def _grouped(rows: list[Verdict]) -> dict[str, list[Verdict]]:
    """Return the verdicts by who makes the statements."""
    groups: dict[str, list[Verdict]] = {}
    for row in rows:
        words = {
            "paper": "The paper, of its experiments"
            if row.claim.experiment[0].startswith("figure-")
            else "The paper's conjectures (Sections 1 and 5)",
            "nobody": "Questions of our own",
        }.get(row.claim.made_by, AUTHORS[row.claim.made_by])
        groups.setdefault(words, []).append(row)
    return groups


def _by_chance(rows: list[Verdict]) -> str:
    """Say how many verdicts chance alone would give."""
    tested = sum(row.verdict in (*DECIDED, "undecided") for row in rows)
    error = 1 - intervals.CONFIDENCE
    return (
        f"{tested} of these claims are judged by an interval over seeds, each at a level of "
        f"{100 * error:.0f}%: if none of them had anything to it, chance alone would still make "
        f"up to {math.ceil(tested * error)} look as if they had, one way or the other. Claims "
        "about one setting rest on the same runs, and go wrong together."
    )


def _counted(rows: list[Verdict]) -> str:
    counts = {name: sum(row.verdict == name for row in rows) for name in VERDICTS}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    settings = len({row.claim.setting for row in rows})
    return f"{counted(len(rows), 'claim')} on {counted(settings, 'setting')}; {told}"
