"""Running experiments: compute what is missing, keep it, show it, check it again later."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd

from revlib import audits, datasets, experiments, growth, provenance, results, stability, sweep
from revlib.experiments import Experiment, Preset
from revlib.orders import Order
from revlib.results import Identity, ResultFile, Store
from revlib.sweep import Job
from revlib.tasks import Setting, Task, build


def run(
    name: str,
    preset: str = "paper",
    seeds: Iterable[int] | None = None,
    every: int | None = None,
    last: int | None = None,
    workers: int = 1,
    cluster: str | None = None,
    progress: bool = True,
    **changes: Any,
) -> pd.DataFrame:
    """Compute what is missing of an experiment, store it, and return all of its table.

    Rows are stored as they are computed, coarse to fine; a run that is killed goes on where it
    was when it is called again. Each worker uses one thread, so that the numbers do not depend on
    how many there are.

    Parameters
    ----------
    name, preset
        Which experiment in which size (:mod:`revlib.experiments`).
    seeds
        The seeds to run; by default those of the preset.
    every
        Spacing of the grid of recorded steps; by default that of the preset.
    last
        A step after which nothing is recorded; by default the run's last.
    workers
        Processes that compute side by side, on this machine.
    cluster
        Address of a Dask scheduler, whose workers are used instead.
    progress
        Whether to show a progress bar with the time left.
    **changes
        Fields of the setting with other values than the preset's, ``learning_rate=0.01`` say.
        Such results have a store of their own.

    Raises
    ------
    ValueError
        If a name or a value is not valid.
    revlib.datasets.DataNotFoundError
        If the data is not on this machine and cannot be downloaded.
    revlib.results.StoreInUseError
        If another process is computing the same.
    """
    plan = _Run.of(name, preset, seeds, every, changes, last)
    identity = plan.identity(data=True)
    with plan.store.writing(identity, plan.orders, plan.steps, workers) as writer:
        jobs = plan.jobs(writer.file.table())
        for rows in sweep.compute(jobs, workers, progress, cluster):
            writer.add(rows)
    return plan.store.table(identity, plan.orders)


def compute(
    name: str,
    preset: str = "ci",
    seeds: Iterable[int] | None = None,
    every: int | None = None,
    **changes: Any,
) -> pd.DataFrame:
    """Compute an experiment afresh and return its table; nothing is read or stored.

    The parameters are those of :func:`run`.
    """
    plan = _Run.of(name, preset, seeds, every, changes)
    jobs = plan.jobs(pd.DataFrame(columns=results.KEYS))
    rows = [row for rows in sweep.compute(jobs) for row in rows]
    return pd.DataFrame(rows).sort_values(results.KEYS, ignore_index=True)


def measure(
    name: str,
    preset: str = "paper",
    seeds: Iterable[int] | None = None,
    workers: int = 1,
    progress: bool = True,
    **changes: Any,
) -> pd.DataFrame:
    """Measure what is missing of an experiment's motion, store it, and return all of its table.

    Motion is what :mod:`revlib.growth` measures: growth rates, and how far iterates move. The
    parameters, and what is raised, are those of :func:`run`.
    """
    plan = _Run.of(name, preset, seeds, None, changes).motion()
    identity = plan.identity(data=True)
    with plan.store.writing(identity, plan.orders, plan.steps, workers) as writer:
        jobs = plan.jobs(writer.file.table())
        for rows in plan.compute(jobs, workers, progress):
            writer.add(rows)
    return plan.store.table(identity, plan.orders)


def motion(name: str, preset: str = "ci", **changes: Any) -> tuple[pd.DataFrame, str]:
    """Return what a chapter shows of an experiment's motion, and what that is, in a sentence.

    Preset ``ci`` is measured on the spot; preset ``paper`` shows what is stored, and where nothing
    is falls back on ``ci`` and says so.

    Returns
    -------
    table : pandas.DataFrame
        One row for each seed, order and step with the columns of :func:`revlib.growth.motion`.
    note : str
        What is shown and why.
    """
    plan = _Run.of(name, preset, None, None, changes).motion()
    if preset == "ci":
        jobs = plan.jobs(pd.DataFrame(columns=results.KEYS))
        rows = [row for rows in plan.compute(jobs) for row in rows]
        table = pd.DataFrame(rows).sort_values(results.KEYS, ignore_index=True)
        return table, f"Preset ci: measured just now, {_seeds(table)}."
    table = stored_motion(name, preset, **changes)
    if table.empty:
        table, note = motion(name, "ci", **changes)
        return table, f"{note} It stands in for the preset paper, of which no motion is stored."
    return table, f"Preset {preset}: stored results, {_seeds(table)}."


def stale(name: str, preset: str = "paper", **changes: Any) -> list[str]:
    """Return for each stored result that does not hold today how many rows and why, in words."""
    plan = _Run.of(name, preset, None, None, changes)
    return [words for part in (plan, plan.motion()) for words in part.stale(part.identity())]


def stored(name: str, preset: str = "paper", **changes: Any) -> pd.DataFrame:
    """Return the rows that are stored of an experiment and hold today; none if there are none."""
    plan = _Run.of(name, preset, None, None, changes)
    return plan.store.table(plan.identity(), plan.orders)


def stored_motion(name: str, preset: str = "paper", **changes: Any) -> pd.DataFrame:
    """Return what is stored of an experiment's motion and holds today; no rows if nothing is."""
    plan = _Run.of(name, preset, None, None, changes).motion()
    return plan.store.table(plan.identity(), plan.orders)


def source(name: str, preset: str = "paper") -> ResultFile | None:
    """Return the result file that :func:`stored` reads, or None if there is none."""
    plan = _Run.of(name, preset, None, None, {})
    return plan.store.current(plan.identity(), plan.orders)


@dataclass(frozen=True)
class Study:
    """What a chapter shows of an experiment.

    Parameters
    ----------
    experiment
        The experiment.
    preset
        The preset that is really shown.
    setting
        Its setting, with the reader's changes.
    table
        The rows.
    note
        In a sentence or two, for the reader: what is shown and why.
    runs
        What is on record of the runs that stored the rows; none for rows computed on the spot.
    """

    experiment: Experiment
    preset: str
    setting: Setting
    table: pd.DataFrame
    note: str
    runs: list[dict[str, Any]]

    @property
    def orders(self) -> tuple[Order, ...]:
        """The orders that are compared."""
        return self.experiment.preset(self.preset).orders

    @property
    def windows(self) -> list[tuple[int, int]]:
        """The ranges of steps over which fluctuation is measured.

        The runs of consecutive steps that are recorded; where there are none as yet, the second
        half of what is recorded.
        """
        steps = self.table["step"]
        windows = self.experiment.preset(self.preset).windows
        last = int(steps.max())
        return [w for w in windows if steps.between(*w).any()] or [(last // 2, last)]

    def deviations(self) -> str:
        """Return in what the rows differ from the paper's own run, in Markdown."""
        paper = self.experiment.preset("paper")
        words = [] if self.preset == "paper" else ["this is a small experiment of another setting"]
        for order in self.experiment.preset(self.preset).orders:
            rows = self.table[self.table["order"] == order.name]
            steps = f"{rows['step'].nunique():,} of {paper.steps + 1:,} steps"
            reached = f" (up to {rows['step'].max():,})" if len(rows) else ""
            words.append(
                f"{order.name} is recorded on {rows['seed'].nunique()} of {len(paper.seeds)} "
                f"seeds at {steps}{reached}"
            )
        open_ = ", ".join(name.replace("_", " ") for name in self.experiment.unstated)
        words.append(f"what the paper leaves open is chosen as the table says ({open_})")
        return f"**Deviations from the paper's run**: {'; '.join(words)}."

    def cost(self) -> str:
        """Return what the rows cost, in optimizer steps and, where it is on record, in time."""
        steps = []
        for order in self.orders:
            rows = self.table[self.table["order"] == order.name]
            taken = sum(order.cost(path["step"]) for _, path in rows.groupby("seed"))
            steps.append(f"{order.name} {taken:,} for {len(rows):,} recorded points")
        words = f"**Cost** in optimizer steps, all seeds together: {'; '.join(steps)}."
        seconds = sum(run.get("seconds", 0) for run in self.runs)
        if seconds:
            workers = sorted({run["workers"] for run in self.runs})
            words += (
                f" Computing and evaluating them took {seconds / 60:.0f} minutes with "
                f"{' or '.join(map(str, workers))} processes on {self.runs[-1]['machine']}."
            )
        return words


def study(
    name: str,
    preset: str = "ci",
    seeds: Iterable[int] | None = None,
    every: int | None = None,
    **changes: Any,
) -> Study:
    """Return what a chapter shows: stored results, or new ones, and never the one as the other.

    - Preset ``ci`` is computed on the spot.
    - Preset ``paper`` with `every` computes what is missing of these steps, and stores it.
    - Preset ``paper`` without `every` shows what is stored. Where nothing is, it falls back on
      ``ci`` and says so.

    The parameters are those of :func:`run`.
    """
    plan = _Run.of(name, preset, seeds, every, changes)
    log: list[dict[str, Any]] = []
    if preset == "ci":
        table = compute(name, preset, seeds, every, **changes)
        note = "computed just now on the embedded sample, a small version of the experiment"
    elif every is not None:
        table = run(name, preset, seeds, every, progress=False, **changes)
        recorded = {n for steps in plan.recorded.values() for n in steps}
        table = table[table["seed"].isin(plan.seeds) & table["step"].isin(recorded)]
        table = table.reset_index(drop=True)
        note = "on the full data, computed for this page or found in the store"
    else:
        identity = plan.identity()
        table = plan.store.table(identity, plan.orders)
        if seeds is not None:
            table = table[table["seed"].isin(plan.seeds)].reset_index(drop=True)
        if table.empty:
            shown = study(name, "ci", seeds, every, **changes)
            reason = "no results of the paper's setting are stored yet"
            if old := plan.stale(identity):
                reason = f"the stored results of the paper's setting are stale ({'; '.join(old)})"
            note = f"{shown.note} This stands in for the preset paper: {reason}."
            return dataclasses.replace(shown, note=note)
        log = plan.store.current(identity, plan.orders).runs
        note = f"stored results, last added to on {log[-1]['date'][:10]}, {log[-1]['machine']}"
    count = f"{_seeds(table)}, {table['step'].nunique()} of {plan.steps + 1} steps"
    size = " with ".join([preset, *filter(None, [", ".join(plan.differs)])])
    note = f"Preset {size}: {note}; {count} recorded."
    return Study(plan.experiment, preset, plan.setting, table, note, log)


@dataclass(frozen=True)
class Audit:
    """The outcome of recomputing stored points.

    Parameters
    ----------
    draw
        The number with which the points were drawn; with it the same are drawn again.
    points
        One row for each point and quantity: ``seed``, ``order``, ``step``, ``quantity``,
        ``stored``, ``recomputed``, ``allowed`` (the difference that rounding explains), ``equal``.
    finished
        Whether the time was enough for all points that were asked for.
    renewed
        Whether stale rows were renewed because all points were equal.
    """

    draw: int
    points: pd.DataFrame
    finished: bool
    renewed: bool

    @property
    def passed(self) -> bool:
        """Whether all points were found equal."""
        return bool(self.points["equal"].all())


def audit(
    name: str,
    preset: str = "paper",
    points: int = 3,
    seconds: float | None = None,
    motion: bool = False,
    draw: int | None = None,
    **changes: Any,
) -> list[Audit]:
    """Recompute a few stored points from scratch, and renew stale rows that are found equal.

    Points are drawn at random, anew at each audit. How far rounding alone moves a point is
    measured on the spot (:mod:`revlib.audits`).

    Parameters
    ----------
    name, preset, **changes
        Which experiment, as for :func:`run`.
    points
        How many points of each result file.
    seconds
        The time to spend on each result file. The first point is then one of the cheapest, which
        is recomputed in any case; the others are drawn from those that the rest of the time is
        enough for, to judge by the points before. Rows are renewed only if it was enough for all.
    motion
        Whether to look at what :func:`measure` has stored instead of what :func:`run` has.
    draw
        The number of an earlier audit, to draw the same points again.

    Returns
    -------
    list of Audit
        One for each result file of the store, the current one and the stale ones.

    Raises
    ------
    ValueError
        If nothing is stored.
    """
    plan = _Run.of(name, preset, None, None, changes)
    if motion:
        plan = plan.motion()
    files = [file for file in plan.store.files() if len(plan.auditable(file))]
    if not files:
        command = "motion" if motion else "run"
        raise ValueError(
            f"Nothing is stored of {name} at preset {preset} in {plan.store.folder}. "
            f"Compute it: revlib {command} {name} --preset {preset}."
        )
    identity = plan.identity(data=True)
    found_in = []
    for file in files:
        found = _recomputed(plan, file, points, seconds, draw)
        if found.passed and found.finished and not file.stands_for(identity):
            record = {"draw": found.draw, "points": found.points.to_dict("records")}
            plan.store.renew(file, identity, record)
            found = dataclasses.replace(found, renewed=True)
        found_in.append(found)
    return found_in


def audited(
    name: str, preset: str = "paper", points: int = 4, seconds: float = 10, **changes: Any
) -> str:
    """Recompute a few of the points that a chapter shows, and return the outcome in Markdown.

    As :func:`audit`, but of the current result file only, and nothing is written or downloaded.
    Where nothing is stored or the data is missing, a sentence says so.
    """
    plan = _Run.of(name, preset, None, None, changes)
    data = plan.setting.data
    skipped = "**Audit.** Skipped: "
    if plan.store.current(plan.identity(), plan.orders) is None:
        return f"{skipped}of {name} at preset {preset} nothing is stored that could be compared."
    if data in datasets.NAMES and not plan.setting.sample and not datasets.path(data).exists():
        return f"{skipped}the data is not on this machine (`revlib data {data}` fetches it)."
    file = plan.store.current(plan.identity(data=True), plan.orders)
    if file is None:
        return f"{skipped}the stored results were computed on other data than is on this machine."
    known = plan.auditable(file)
    if known.empty:
        return f"{skipped}only start points are stored as yet."
    begun = time.monotonic()
    found = _recomputed(plan, file, points, seconds)
    done = len(found.points.drop_duplicates(results.KEYS))
    outcome = "all equal" if found.passed else "**not all equal**"
    lines = [
        f"**Audit.** Recomputed from scratch just now: {done} of {len(known):,} stored points, in "
        f"{time.monotonic() - begun:.0f} s (draw {found.draw}); {outcome}, up to what rounding "
        f"explains. {audits.EXPLAINED}",
        "",
        "| seed | order | step | quantity | stored | recomputed | allowed | equal |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {p.seed} | {p.order} | {p.step} | {p.quantity} | {p.stored:.6g} "
            f"| {p.recomputed:.6g} | {p.allowed:.1e} | {'yes' if p.equal else '**no**'} |"
            for p in found.points.itertuples()
        ),
    ]
    return "\n".join(lines)


def _recomputed(
    plan: _Run, file: ResultFile, points: int, seconds: float | None, draw: int | None = None
) -> Audit:
    """Recompute points of a file."""
    draw, chance = audits.drawn(draw)
    known = plan.auditable(file)
    rest = known.loc[chance.sample(list(known.index), len(known))]
    asked = min(points, len(known))
    compared, done = [], 0
    begun = time.monotonic()
    # From scratch, a point at step n takes n maps in any order: its word has n letters.
    affordable = np.inf if seconds is None else rest["step"].min()
    while done < asked and len(fitting := rest[rest["step"] <= affordable]):
        before = time.monotonic()
        [stored] = fitting.head(1).to_dict("records")
        rest = rest.drop(fitting.index[0])
        compared += _compared(plan, stored)
        done += 1
        if seconds is not None and done < asked:
            now = time.monotonic()
            left = (seconds - (now - begun)) / (asked - done)
            affordable = stored["step"] * left / (now - before)
    return Audit(draw, pd.DataFrame(compared), finished=done == asked, renewed=False)


def _compared(plan: _Run, stored: dict[str, Any]) -> list[dict[str, Any]]:
    """Recompute one stored row and compare each quantity."""
    key = {name: stored[name] for name in results.KEYS}
    seed, step = key["seed"], key["step"]
    [order] = (order for order in plan.orders if order.name == key["order"])
    # The plain training loop also adds in another order, at every step and not only at the start.
    jobs = (
        Job(_Built(plan.setting.changed(nudge=nudge), seed), seed, order, [step], strategy)
        for nudge, strategy in [(0, None), *((nudge, "eager") for nudge in audits.NUDGES)]
    )
    again, *moved = (row for job in jobs for rows in plan.compute([job]) for row in rows)
    return audits.compared(key, stored, again, moved)


def _seeds(table: pd.DataFrame) -> str:
    return stability.counted(table["seed"].nunique(), "seed")


@dataclass(frozen=True)
class _Run:
    """An experiment with everything decided: what `run` is asked to have computed at its end."""

    experiment: Experiment
    size: Preset
    setting: Setting
    seeds: list[int]
    recorded: dict[str, list[int]]
    differs: list[str]
    store: Store
    modules: tuple[str, ...] = ()  # those that determine the numbers, besides the usual ones
    rows: str = "rows"  # what is stored, in words
    compute: Callable[..., Iterator[list[dict[str, Any]]]] = sweep.compute

    @classmethod
    def of(cls, name, preset, seeds, every, changes, last=None) -> _Run:
        experiment = experiments.get(name)
        size = experiment.preset(preset)
        _check(changes)
        setting = size.setting.changed(**changes)
        seeds = sorted({int(seed) for seed in (size.seeds if seeds is None else seeds)})
        if seeds and seeds[0] < 0:
            raise ValueError(f"A seed must be a whole number, 0 or more; got {seeds[0]}.")
        differs = [
            f"{field.name}={getattr(setting, field.name)}"
            for field in dataclasses.fields(setting)
            if getattr(setting, field.name) != getattr(size.setting, field.name)
        ]
        return cls(
            experiment,
            size,
            setting,
            seeds,
            {order.name: size.recorded(order, every, last) for order in size.orders},
            differs,
            Store(results.root() / name / ",".join([preset, *differs])),
        )

    def motion(self) -> _Run:
        """Return the run that measures motion, in a store of its own."""
        measured = {
            name: [n for n in self.size.motion if n <= max(steps)]
            for name, steps in self.recorded.items()
        }
        store = Store(self.store.folder / "motion")
        return dataclasses.replace(
            self,
            recorded=measured,
            store=store,
            modules=("growth",),
            rows="rows of motion",
            compute=growth.compute,
        )

    @property
    def steps(self) -> int:
        return self.size.steps

    @property
    def orders(self) -> tuple[Order, ...]:
        return self.size.orders

    def identity(self, data: bool = False) -> Identity:
        """Return today's identity; with the digest of the data only where it is needed."""
        return Identity(
            results.as_json(self.setting),
            provenance.code(*self.modules),
            self.setting.digest() if data else None,
        )

    def stale(self, identity: Identity) -> list[str]:
        """Return for each result file that does not hold under `identity` why, in words."""
        return [
            f"{len(file.table()):,} {self.rows} with {file.identity.differences(identity)}"
            for file in self.store.stale(identity)
        ]

    def auditable(self, file: ResultFile) -> pd.DataFrame:
        """Return the rows of a file that tell something when they are computed again."""
        table = file.table()
        return table[table["order"].isin([o.name for o in self.orders]) & (table["step"] > 0)]

    def jobs(self, table: pd.DataFrame) -> list[Job]:
        """Return what is to be computed for each seed and order: what is not in the table."""
        have = set(zip(*(table[key] for key in results.KEYS), strict=True))
        asked = [
            Job(
                _Built(self.setting, seed),
                seed,
                order,
                [n for n in self.recorded[order.name] if (seed, order.name, n) not in have],
            )
            for seed in self.seeds
            for order in self.orders
        ]
        return [job for job in asked if job.recorded]


@dataclass(frozen=True)
class _Built:
    """The task of a setting and seed, as a source of work."""

    setting: Setting
    seed: int

    def __call__(self) -> Task:
        return build(self.setting, self.seed)


_KINDS = {
    "sample": (lambda value: isinstance(value, bool), "True or False"),
    "hidden": (lambda value: isinstance(value, list | tuple), "a list of widths, [100, 100] say"),
    "learning_rate": (lambda value: isinstance(value, Real) and value >= 0, "a number, 0 or more"),
} | dict.fromkeys(
    ("batch_size", "train_examples", "test_examples"),
    (lambda value: isinstance(value, Integral) and value >= 1, "a whole number, 1 or more"),
)


def _check(changes: dict[str, Any]) -> None:
    """Refuse fields of another kind before anything is stored; names are checked by their users."""
    for name, value in changes.items():
        valid, words = _KINDS.get(name, (None, None))
        if valid and value is not None and not valid(value):
            raise ValueError(f"The field '{name}' must be {words}; got {value!r}.")
