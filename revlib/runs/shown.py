"""What a chapter shows of a study: stored results, or new ones, and never the one as the other."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from revlib.experiments.study import Size, Study
from revlib.orders import named
from revlib.runs import engine
from revlib.runs.engine import Plan
from revlib.store import provenance, results
from revlib.training.settings import Setting


@dataclass(frozen=True)
class Shown:
    """What a chapter shows of a study.

    Parameters
    ----------
    study
        The study.
    preset
        The preset that is really shown.
    size
        Its size, with the reader's changes.
    changes
        The fields of the setting that differ from the preset's.
    table
        The rows that are judged: ``seed``, ``order`` (the case), ``step`` and what was measured, at
        the steps that the size records.
    whole
        All rows that are there, for curves: some seeds may have more steps.
    note
        In a sentence or two, for the reader: what is shown and why.
    runs
        What is on record of the runs that stored the rows; none for rows computed on the spot.
    """

    study: Study
    preset: str
    size: Size
    changes: dict[str, Any]
    table: pd.DataFrame
    whole: pd.DataFrame
    note: str
    runs: list[dict[str, Any]]

    @property
    def setting(self) -> Setting:
        """The setting, with the reader's changes."""
        return self.size.setting

    @property
    def windows(self) -> list[tuple[int, int]]:
        """The ranges of steps over which fluctuation is measured.

        The runs of consecutive steps that are recorded; where there are none as yet, the second
        half of what is recorded.
        """
        steps = self.table["step"]
        last = int(steps.max())
        return [w for w in self.size.windows if steps.between(*w).any()] or [(last // 2, last)]

    def deviations(self) -> str:
        """Return in what the rows differ from the paper's own run, in Markdown."""
        paper = self.study.size("paper")
        words = [] if self.preset == "paper" else ["this is a small experiment of another setting"]
        for case in self.size.cases:
            rows, more = (t[t["order"] == case] for t in (self.table, self.whole))
            steps = f"{rows['step'].nunique():,} of {paper.steps + 1:,} steps"
            reached = f" (up to {rows['step'].max():,})" if len(rows) else ""
            there, planned = rows["seed"].nunique(), len(paper.seeds)
            seeds = f"{there} of {planned} seeds"
            if there > planned:
                seeds = f"{there} seeds ({planned} were planned)"
            words.append(f"{case} is recorded on {seeds} at {steps}{reached}{_beyond(rows, more)}")
        open_ = ", ".join(name.replace("_", " ") for name in self.study.unstated)
        words.append(f"what the paper leaves open is chosen as the table says ({open_})")
        return f"**Deviations from the paper's run**: {'; '.join(words)}."

    def cost(self) -> str:
        """Return what the rows cost, in optimizer steps and, where it is on record, in time."""
        steps = []
        for case in self.size.cases:
            rows = self.whole[self.whole["order"] == case]
            taken = sum(named(case).cost(path["step"]) for _, path in rows.groupby("seed"))
            steps.append(f"{case} {taken:,} for {len(rows):,} recorded points")
        words = f"**Cost** in optimizer steps, all seeds together: {'; '.join(steps)}."
        seconds = sum(run.get("seconds", 0) for run in self.runs)
        if seconds:
            workers = sorted({run["workers"] for run in self.runs})
            words += (
                f" Computing and evaluating them took {seconds / 60:.0f} minutes with "
                f"{' or '.join(map(str, workers))} processes on "
                f"{' and on '.join(dict.fromkeys(map(provenance.place, self.runs)))}."
            )
        taken = Counter()
        for run in self.runs:
            taken.update(run.get("taken", {}))
        if taken:
            words += (
                f" Of the points, {taken.total():,} cost nothing here: they are the same iterates "
                f"as in {', '.join(taken)}, and were taken from there."
            )
        return words

    def audit(self) -> str:
        """Recompute a few of the points that are shown (:func:`revlib.runs.engine.audited`).

        Of convolutional networks a point takes a minute or more; the tests recompute theirs.
        """
        if self.preset == "paper" and self.setting.model != "mlp":
            command = Plan.of(self.study.name, self.preset, changes=self.changes).command
            return (
                "**Audit.** Left to `make test`, since one point takes a minute or more; "
                f"`revlib audit {command}` recomputes three."
            )
        return engine.audited(self.study.name, self.preset, **self.changes)


def shown(
    name: str,
    preset: str = "sample",
    seeds: Iterable[int] | None = None,
    every: int | None = None,
    **changes: Any,
) -> Shown:
    """Return what a chapter shows of a study.

    - Preset ``sample`` is computed on the spot.
    - Preset ``paper`` with `every` computes what is missing of these steps, and stores it.
    - Preset ``paper`` without `every` shows what is stored. Where nothing is, it falls back on
      ``sample`` and says so, and which command computes it. Of a study whose cases are computed
      whole, only seeds of which every case is there are shown.

    The parameters are those of :func:`revlib.runs.engine.run`.
    """
    plan = Plan.of(name, preset, seeds, every, None, changes)
    log: list[dict[str, Any]] = []
    if preset == "sample":
        table = plan.computed()
        note = "computed just now on the embedded sample, a small version of the experiment"
    elif every is not None:
        table = engine.run(name, preset, seeds, every, progress=False, **changes)
        table = plan.looks(table[table["seed"].isin(plan.seeds)])
        note = "on the full data, computed for this page or found in the store"
    else:
        identity = plan.identity()
        table = plan.table(identity)
        if seeds is not None:
            table = table[table["seed"].isin(plan.seeds)]
        if not plan.study.method.by_step:
            table = _whole_seeds(table, plan.size.cases)
        if table.empty:
            small = shown(name, "sample", seeds, None, **changes)
            old = "; ".join(engine.stale(name, preset, **changes))
            reason = f"the stored results are stale ({old})" if old else "none are stored"
            # `revlib renew` takes all that is stored of a study, whatever the reader has changed.
            way = f"renew {name}` renews" if old else f"run {plan.command}` computes"
            note = (
                f"{small.note} It is shown in place of the preset {preset}: {reason}. "
                f"`revlib {way} them."
            )
            return dataclasses.replace(small, note=note)
        log = plan.store.current(identity, plan.orders).runs
        folder = plan.store.folder.relative_to(results.root().parent)
        note = (
            f"results stored in `{folder}`, last added to by `revlib run {plan.command}` on "
            f"{log[-1]['date'][:10]}, {provenance.place(log[-1])}"
        )
    whole = table.reset_index(drop=True)
    table = plan.looks(whole).reset_index(drop=True)
    steps, seeds = table["step"].nunique(), table["seed"].nunique()
    changed = ", ".join(f"{field}={value}" for field, value in plan.changes.items())
    size = f"{preset} with {changed}" if changed else preset
    note = (
        f"Preset {size}: {note}; {seeds} seed{'s' * (seeds != 1)}, {steps} of "
        f"{plan.size.steps + 1} steps recorded{_beyond(table, whole)}."
    )
    return Shown(plan.study, preset, plan.size, plan.changes, table, whole, note, log)


def _beyond(table: pd.DataFrame, whole: pd.DataFrame) -> str:
    """Return which seeds have more steps than are judged, in words."""
    judged = set(table["step"])
    more = whole[~whole["step"].isin(judged)].groupby("seed")["step"].nunique()
    seeds_with: dict[int, list[str]] = {}
    for seed, steps in more.sort_values(ascending=False, kind="stable").items():
        seeds_with.setdefault(len(judged) + steps, []).append(str(seed))
    if not seeds_with:
        return ""
    words = (
        f"{steps:,} on seed{'s' * (len(seeds) > 1)} {' and '.join(seeds)}"
        for steps, seeds in seeds_with.items()
    )
    return f" ({', '.join(words)}, for the curves alone)"


def together(names: Mapping[str, str], preset: str, **changes: Any) -> dict[str, Shown]:
    """Return what a chapter shows of studies that belong together, all of them in one size.

    Where one has nothing stored that holds today, all are shown at ``sample``, and the notes say
    so: that of this one by which command it is computed.

    Parameters
    ----------
    names
        The names of the studies, by the words that stand for each on the page.
    preset
        Which size.
    **changes
        Fields of the setting that the reader has changed.
    """
    found = {words: shown(name, preset, **changes) for words, name in names.items()}
    if len({each.preset for each in found.values()}) > 1:
        for words, each in found.items():
            if each.preset != "sample":
                small = shown(names[words], "sample", **changes)
                where = f"in place of the preset {preset}, like those beside it"
                note = f"{small.note} It is shown {where}."
                found[words] = dataclasses.replace(small, note=note)
    return found


def _whole_seeds(table: pd.DataFrame, cases: Iterable[str]) -> pd.DataFrame:
    """Return the rows of those seeds of which every case is there."""
    cases = list(cases)
    table = table[table["order"].isin(cases)]
    return table[table.groupby("seed")["order"].transform("nunique") == len(cases)]
