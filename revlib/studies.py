"""Studies: comparisons of trainings that are more than one task iterated in several orders.

An experiment (:mod:`revlib.experiments`) is one task, and a grid of seeds, orders and steps. A
study is a grid of seeds and *cases*, each case a way to train or to measure that the study's own
module defines. Its rows are kept in the same store, with the case in the column ``order``; they
are shown, go stale and are audited by the same rules as those of an experiment
(:mod:`revlib.runs`).
"""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import joblib
import pandas as pd
from tqdm import tqdm

from revlib import audits, datasets, processes, provenance, results, stability
from revlib.results import Identity, ResultFile, Store


@dataclass(frozen=True)
class Size:
    """One size of a study.

    Parameters
    ----------
    parameters
        What the numbers depend on besides seed and case: a dataclass whose fields JSON can keep.
        All of it is part of the results' identity.
    seeds
        The seeds.
    cases
        The names of the cases, as they are called in tables, figures and claims.
    steps
        The steps at which each case is recorded, ascending; a single one for a study that only
        looks at the end.
    """

    parameters: Any
    seeds: tuple[int, ...]
    cases: tuple[str, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Study:
    """A comparison of trainings.

    Parameters
    ----------
    name
        How it is called on the command line, in the claims and in the store.
    title
        What it is, in a line.
    section
        Where the paper, or which paper, speaks of it.
    chapter
        The notebook that shows it.
    presets
        Its sizes, ``ci`` and ``paper``.
    compute
        ``compute(parameters, seed, case)`` yields the rows of a case, each with ``step`` and what
        was measured. It may end early where a training is lost: what was to come is then shown as
        not a number.
    code
        What determines the numbers: names of modules, or functions and classes of a module of
        which other parts are free to change.
    data
        The data set that is trained on, or None for a study that makes its own data.
    quantities
        What is measured besides losses and accuracies: in words, by column.
    """

    name: str
    title: str
    section: str
    chapter: str
    presets: Mapping[str, Size]
    compute: Callable[[Any, int, str], Iterable[dict[str, Any]]]
    code: tuple[str | Callable, ...]
    data: str | None = None
    quantities: Mapping[str, str] = field(default_factory=dict)

    def preset(self, name: str) -> Size:
        """Return a size by name.

        Raises
        ------
        ValueError
            If there is none of that name.
        """
        if name not in self.presets:
            raise ValueError(f"There is no preset '{name}'. Valid are: {', '.join(self.presets)}.")
        return self.presets[name]


@dataclass(frozen=True)
class Shown:
    """What a chapter shows of a study.

    Parameters
    ----------
    preset
        The preset that is really shown.
    size
        Its size.
    table
        The rows: ``seed``, ``order`` (the case), ``step`` and what was measured.
    note
        In a sentence, for the reader: what is shown and why.
    """

    preset: str
    size: Size
    table: pd.DataFrame
    note: str


def known() -> dict[str, Study]:
    """Return all studies by name."""
    from revlib import (  # they import this module
        implicit,
        practice,
        regularizers,
        remedies,
        trajectories,
    )

    modules = (regularizers, practice, implicit, trajectories, remedies)
    return {study.name: study for module in modules for study in module.STUDIES}


def get(name: str) -> Study:
    """Return a study by name.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    if name not in known():
        raise ValueError(f"There is no study '{name}'. Valid are: {', '.join(known())}.")
    return known()[name]


def run(
    name: str,
    preset: str = "paper",
    seeds: Iterable[int] | None = None,
    workers: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Compute what is missing of a study, store it, and return all of its table.

    Each case is stored when it is finished, seed by seed, so that a run that is stopped leaves
    whole comparisons.

    Parameters
    ----------
    name, preset
        Which study in which size.
    seeds
        The seeds to run; by default those of the preset.
    workers
        Processes that compute side by side, with one thread each.
    progress
        Whether to show a progress bar with the time left.

    Raises
    ------
    ValueError
        If a name is not valid.
    revlib.datasets.DataNotFoundError
        If the data is not on this machine and cannot be downloaded.
    revlib.results.StoreInUseError
        If another process is computing the same.
    """
    study = get(name)
    size, identity = study.preset(preset), _identity(study, preset, data=True)
    with _store(study, preset).writing(identity, (), max(size.steps), workers) as writer:
        table = writer.file.table()
        have = set(zip(table["seed"], table["order"], strict=True))
        wanted = itertools.product(size.seeds if seeds is None else seeds, size.cases)
        for rows in _computed(
            study, size, [key for key in wanted if key not in have], workers, progress
        ):
            writer.add(rows)
    return stored(name, preset)


def compute(name: str, preset: str = "ci") -> pd.DataFrame:
    """Compute a study afresh and return its table; nothing is read or stored."""
    study = get(name)
    size = study.preset(preset)
    cases = _computed(study, size, list(itertools.product(size.seeds, size.cases)))
    rows = [row for rows in cases for row in rows]
    return _filled(pd.DataFrame(rows), size)


def stored(name: str, preset: str = "paper") -> pd.DataFrame:
    """Return the rows that are stored of a study and hold today; none if there are none."""
    study = get(name)
    return _filled(_store(study, preset).table(_identity(study, preset)), study.preset(preset))


def source(name: str, preset: str = "paper") -> ResultFile | None:
    """Return the result file that :func:`stored` reads, or None if there is none."""
    study = get(name)
    return _store(study, preset).current(_identity(study, preset))


def stale(name: str, preset: str = "paper") -> list[str]:
    """Return for each stored result that does not hold today how many rows and why, in words."""
    study = get(name)
    identity = _identity(study, preset)
    return [
        f"{len(file.table()):,} rows with {file.identity.differences(identity)}"
        for file in _store(study, preset).stale(identity)
    ]


def shown(name: str, preset: str = "ci") -> Shown:
    """Return what a chapter shows: ``ci`` is computed on the spot, ``paper`` read from the store.

    Only seeds of which every case is there are shown. Where the store has none that holds today,
    ``ci`` stands in, and the note says so.
    """
    study = get(name)
    size = study.preset(preset)
    if preset == "ci":
        table = compute(name, preset)
        note = "computed just now, a small version of the study"
    else:
        table = _whole_seeds(stored(name, preset), size)
        if table.empty:
            old = "; ".join(stale(name, preset)) or "there are none of a whole seed"
            small = shown(name, "ci")
            note = f"{small.note} It stands in for stored results of preset {preset}: {old}."
            return dataclasses.replace(small, note=note)
        last = source(name, preset).runs[-1]
        note = f"stored results, last added to on {last['date'][:10]}, {last['machine']}"
    seeds = stability.counted(table["seed"].nunique(), "seed")
    return Shown(
        preset, size, table, f"Preset {preset}: {note}; {seeds}, {max(size.steps):,} steps."
    )


def audit(
    name: str, preset: str = "paper", cases: int = 1, draw: int | None = None
) -> pd.DataFrame:
    """Recompute the beginning of a few stored cases; renew stale rows that are found equal.

    The cases are drawn at random, anew at each audit; of each the rows up to the first step after
    the start are compared. What rounding does is measured on the spot (:mod:`revlib.audits`).

    Parameters
    ----------
    name, preset
        Which study in which size.
    cases
        How many cases of each result file.
    draw
        The number of an earlier audit, to draw the same cases again.

    Returns
    -------
    pandas.DataFrame
        The columns of :func:`revlib.audits.compared`, ``draw`` (the number with which the cases
        were drawn) and ``renewed`` (whether the file was stale and is renewed).

    Raises
    ------
    ValueError
        If nothing is stored.
    """
    study = get(name)
    store, identity = _store(study, preset), _identity(study, preset, data=True)
    files = [file for file in store.files() if len(file.table())]
    if not files:
        raise ValueError(
            f"Nothing is stored of {name} at preset {preset}. Compute it: revlib run {name}."
        )
    found = []
    for file in files:
        points = _recomputed(study, study.preset(preset), file.table(), cases, draw)
        renew = bool(points["equal"].all()) and not file.stands_for(identity)
        if renew:
            store.renew(file, identity, {"points": points.to_dict("records")})
        found.append(points.assign(renewed=renew))
    return pd.concat(found, ignore_index=True)


def audited(name: str, preset: str = "paper") -> str:
    """Recompute the beginning of one stored case that a chapter shows; return it in Markdown.

    As :func:`audit`, but of the current result file only, and nothing is written or downloaded.
    """
    study = get(name)
    skipped = "**Audit.** Skipped: "
    file = source(name, preset)
    if file is None:
        return f"{skipped}of {name} at preset {preset} nothing is stored that could be compared."
    if study.data and not datasets.path(study.data).exists():
        return f"{skipped}the data is not on this machine (`revlib data {study.data}` fetches it)."
    begun = time.monotonic()
    points = _recomputed(study, study.preset(preset), file.table(), 1, None)
    case = points.iloc[0]
    outcome = "all equal" if points["equal"].all() else "**not all equal**"
    return "\n".join(
        [
            f"**Audit.** Of the case {case['order']}, drawn at random, seed {case['seed']} was "
            f"computed again just now up to step {points['step'].max()}, in "
            f"{time.monotonic() - begun:.0f} s (draw {case['draw']}): {outcome}, up to what "
            f"rounding explains. {audits.EXPLAINED}",
            "",
            "| step | quantity | stored | recomputed | allowed | equal |",
            "| --- | --- | --- | --- | --- | --- |",
            *(
                f"| {p.step} | {p.quantity} | {p.stored:.6g} | {p.recomputed:.6g} "
                f"| {p.allowed:.1e} | {'yes' if p.equal else '**no**'} |"
                for p in points.itertuples()
            ),
        ]
    )


def _computed(
    study: Study,
    size: Size,
    wanted: list[tuple[int, str]],
    workers: int = 1,
    progress: bool = False,
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each wanted seed and case, as they are finished."""
    with (
        processes.pool(workers) as parallel,
        tqdm(total=len(wanted), unit=" cases", disable=not progress) as bar,
    ):
        for rows in parallel(joblib.delayed(_case)(study, size, *key) for key in wanted):
            yield rows
            bar.update()


def _case(study: Study, size: Size, seed: int, case: str) -> list[dict[str, Any]]:
    processes.end_with_parent()
    with processes.one_thread():
        return list(_keyed(study, size, seed, case))


def _keyed(study: Study, size: Size, seed: int, case: str) -> Iterator[dict[str, Any]]:
    for row in study.compute(size.parameters, seed, case):
        yield {"seed": seed, "order": case} | row


def _recomputed(
    study: Study, size: Size, table: pd.DataFrame, cases: int, draw: int | None
) -> pd.DataFrame:
    """Compute the beginning of some cases again and compare it with the table."""
    draw, chance = audits.drawn(draw)
    known = table[table["order"].isin(size.cases)][["seed", "order"]].drop_duplicates()
    keys = list(known.itertuples(index=False, name=None))
    found = []
    for seed, case in chance.sample(keys, min(cases, len(keys))):
        rows = table[(table["seed"] == seed) & (table["order"] == case)].set_index("step")
        starts = [size, *(_nudged(size, nudge) for nudge in audits.NUDGES)]
        with processes.one_thread():
            for again, *moved in zip(
                *(_keyed(study, start, seed, case) for start in starts), strict=False
            ):
                key = {name: again[name] for name in results.KEYS}
                stored = rows.loc[again["step"]].dropna().to_dict()
                found += audits.compared(key, stored, again, moved)
                if again["step"] > 0:
                    break
    return pd.DataFrame(found).assign(draw=draw)


def _nudged(size: Size, nudge: int) -> Size:
    """Return a size whose start is moved by rounding (:class:`revlib.tasks.Setting`)."""
    parameters = size.parameters
    if hasattr(parameters, "setting"):
        changes = {"setting": parameters.setting.changed(nudge=nudge)}
    else:
        changes = {"nudge": nudge}
    return dataclasses.replace(size, parameters=dataclasses.replace(parameters, **changes))


def _filled(table: pd.DataFrame, size: Size) -> pd.DataFrame:
    """Return a table with all recorded steps of the seeds and cases in it, sorted."""
    wanted = (
        table[["seed", "order"]]
        .drop_duplicates()
        .merge(pd.DataFrame({"step": size.steps}), how="cross")
    )
    return wanted.merge(table, how="left", on=results.KEYS).sort_values(
        results.KEYS, ignore_index=True
    )


def _whole_seeds(table: pd.DataFrame, size: Size) -> pd.DataFrame:
    """Return the rows of those seeds of which every case is there."""
    table = table[table["order"].isin(size.cases)]
    found = table.groupby("seed")["order"].nunique()
    whole = found.index[found == len(size.cases)]
    return table[table["seed"].isin(whole)].reset_index(drop=True)


def _store(study: Study, preset: str) -> Store:
    study.preset(preset)  # it is valid
    return Store(results.root() / study.name / preset)


def _identity(study: Study, preset: str, data: bool = False) -> Identity:
    """Return today's identity; with the digest of the data only where it is needed."""
    size = study.preset(preset)
    setting = results.as_json(size.parameters)
    sample = preset == "ci"
    digest = datasets.load(study.data, sample).digest if data and study.data else None
    return Identity(setting | {"recorded": list(size.steps)}, _code(study), digest)


def _code(study: Study) -> dict[str, str]:
    """Return a hash of each module, or part of one, that determines a study's numbers."""
    modules = [name for name in study.code if isinstance(name, str)]
    parts = [part for part in study.code if not isinstance(part, str)]
    hashes = {name: provenance.code(name)[name] for name in modules}
    for module in dict.fromkeys(part.__module__ for part in parts):
        own = "\n".join(inspect.getsource(part) for part in parts if part.__module__ == module)
        hashes[module.rpartition(".")[2]] = provenance.digest(provenance.meaning(own))
    return hashes
