"""One engine for all studies: compute what is missing, keep it, show it, check it again later."""

from __future__ import annotations

import dataclasses
import math
import operator
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from revlib import experiments
from revlib.experiments.study import Size, Study, Wanted
from revlib.orders import Order, Word, named, tree
from revlib.runs import audits
from revlib.store import datasets, provenance, reachable, results
from revlib.store.results import Identity, ResultFile, Store

PATH_TOLERANCE = 1e-4
"""How far, relatively, a point of a path may be from the stored one to be taken for the same."""


def run(
    name: str,
    preset: str = "paper",
    seeds: Iterable[int] | None = None,
    every: int | None = None,
    last: int | None = None,
    workers: int = 1,
    cluster: str | None = None,
    device: str | None = None,
    progress: bool = True,
    **changes: Any,
) -> pd.DataFrame:
    """Compute what is missing of a study, store it, and return all of its table.

    Rows are stored as they are computed, coarse to fine; a run that is killed goes on where it
    was when it is called again. Each worker uses one thread, so that the numbers do not depend on
    how many there are. What another study has computed on this machine is taken from there, where
    it is the same iterate (:meth:`Plan.shared`).

    Parameters
    ----------
    name, preset
        Which study in which size (:mod:`revlib.experiments`).
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
    device
        Where to compute, ``"cuda"`` say; by default on the processor. The numbers are then the same
        up to rounding only.
    progress
        Whether to show a progress bar with the time left.
    **changes
        Fields of the setting with other values than the preset's, ``learning_rate=0.01`` say.
        Such results have a store of their own.

    Raises
    ------
    ValueError
        If a name or a value is not valid; or if rows are stored of a path that is another one here
        (:meth:`Plan.check_paths`).
    revlib.store.datasets.DataNotFoundError
        If the data is not on this machine and cannot be downloaded.
    revlib.store.results.StoreInUseError
        If another process is computing the same.
    """
    plan = Plan.of(name, preset, seeds, every, last, changes)
    identity = plan.identity()
    where = None if device is None else provenance.accelerator(device)
    with plan.store.writing(identity, plan.orders, plan.size.steps, workers, where) as writer:
        if not writer.file.has_rehearsal():
            writer.file.keep_rehearsal(plan.rehearsed())
        wanted = plan.missing(writer.file.table())
        plan.check_paths(wanted, writer.file, device)
        for command, rows in plan.shared(wanted, writer.file.runs[-1]):
            writer.take(rows, command)
            if progress:
                print(f"{len(rows):,} rows are taken from {command}: they are the same iterates.")
        wanted = plan.missing(writer.file.table())
        for rows in plan.compute(wanted, workers, progress, cluster, device):
            writer.add(rows)
    return plan.table(identity)


def compute(
    name: str,
    preset: str = "sample",
    seeds: Iterable[int] | None = None,
    every: int | None = None,
    **changes: Any,
) -> pd.DataFrame:
    """Compute a study afresh and return its table; nothing is read or stored.

    The parameters are those of :func:`run`.
    """
    return Plan.of(name, preset, seeds, every, None, changes).computed()


def stored(name: str, preset: str = "paper", **changes: Any) -> pd.DataFrame:
    """Return the rows that are stored of a study and hold today; none if there are none."""
    plan = Plan.of(name, preset, changes=changes)
    return plan.table(plan.identity())


def looks(name: str, preset: str = "paper", **changes: Any) -> pd.DataFrame:
    """Return the stored rows at the steps that the preset records: those that are judged.

    Which steps are looked at is fixed before a run. What else is stored, by ``revlib run NAME
    --every 1`` say, is drawn and not judged: no seed counts more closely than the others.
    """
    plan = Plan.of(name, preset, changes=changes)
    return plan.looks(plan.table(plan.identity()))


def source(name: str, preset: str = "paper", **changes: Any) -> ResultFile | None:
    """Return the result file that :func:`stored` reads, or None if there is none."""
    plan = Plan.of(name, preset, changes=changes)
    return plan.store.current(plan.identity(), plan.orders)


def stale(name: str, preset: str = "paper", **changes: Any) -> list[str]:
    """Return for each stored result that does not hold today how many rows and why, in words."""
    plan = Plan.of(name, preset, changes=changes)
    return plan.stale(plan.identity())


def _seed_list(given: Any) -> list[int]:
    """Return seeds, ascending.

    Raises
    ------
    ValueError
        If they are no list of whole numbers; papermill's ``-p seeds 0`` does not give one.
    """
    try:
        seeds = sorted({operator.index(seed) for seed in given})
    except TypeError:
        raise ValueError(
            "The parameter seeds must be a list of whole numbers, 0 or more, such as [0, 1]; got "
            f"{given!r}. For papermill: -y 'seeds: [0, 1]'."
        ) from None
    for seed in seeds:
        if not 0 <= seed < 2**63:
            raise ValueError(f"A seed must be a whole number from 0 to 2^63 - 1; got {seed}.")
    return seeds


@dataclass(frozen=True)
class Plan:
    """A study with everything decided: what :func:`run` is asked to have computed at its end.

    Parameters
    ----------
    study, preset
        Which study in which size.
    size
        That size, with the changes to its setting.
    seeds
        The seeds.
    recorded
        The steps to record of each case.
    changes
        The fields of the setting that differ from the preset's.
    store
        Where its results are.
    """

    study: Study
    preset: str
    size: Size
    seeds: list[int]
    recorded: dict[str, list[int]]
    changes: dict[str, Any]
    store: Store

    @classmethod
    def of(
        cls,
        name: str,
        preset: str,
        seeds: Iterable[int] | None = None,
        every: int | None = None,
        last: int | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> Plan:
        """Return the plan of what :func:`run` is asked for; its parameters are the same."""
        study = experiments.get(name)
        usual = study.size(preset)
        if (changes or {}).get("nudge"):
            raise ValueError("'nudge' is for audits, which look what rounding does; leave it out.")
        size = usual.changed(**(changes or {}))
        seeds = _seed_list(size.seeds if seeds is None else seeds)
        if (every or last) and not study.method.by_step:
            raise ValueError(
                f"The cases of {name} are computed whole: it takes neither a spacing of steps nor "
                "a last one."
            )
        differing = {
            field: value
            for field, value in vars(size.setting).items()
            if value != getattr(usual.setting, field)
        }
        folder = ",".join([preset, *(f"{field}={value}" for field, value in differing.items())])
        return cls(
            study,
            preset,
            size,
            seeds,
            dict.fromkeys(size.cases, size.recorded(every, last)),
            differing,
            Store(results.root() / name / folder),
        )

    @property
    def orders(self) -> list[Order]:
        """The orders that are compared, if the cases are orders."""
        return [named(case) for case in self.size.cases] if self.study.method.by_step else []

    @property
    def command(self) -> str:
        """What follows ``revlib run`` or ``revlib audit`` to mean this."""
        changes = [f"{field}={value}" for field, value in self.changes.items()]
        preset = [] if self.preset == "paper" else ["--preset", self.preset]
        return shlex.join([self.study.name, *preset, *(["--set", *changes] if changes else [])])

    def identity(self) -> Identity:
        """Return today's identity; the data need not be at hand."""
        method, parameters = self.study.method, self.size.parameters
        fields = results.as_json(parameters)
        if not method.by_step:
            fields["recorded"] = list(self.size.at)
        code = reachable.code(*method.roots(parameters, self.size.cases))
        return Identity(fields, code, self.size.setting.digest())

    @property
    def has_data(self) -> bool:
        """Whether the data is on this machine."""
        setting = self.size.setting
        there = setting.sample or setting.data not in datasets.NAMES
        return there or datasets.path(setting.data).exists()

    def missing(self, table: pd.DataFrame) -> list[Wanted]:
        """Return what a table lacks: steps, or whole cases where these are computed whole."""
        have: dict[tuple[int, str], set[int]] = {}
        for seed, case, step in table[results.KEYS].itertuples(index=False):
            have.setdefault((seed, case), set()).add(step)
        wanted = []
        for seed in self.seeds:
            for case, steps in self.recorded.items():
                done = have.get((seed, case), set())
                if self.study.method.by_step:
                    steps = [step for step in steps if step not in done]
                if steps and not (done and not self.study.method.by_step):
                    wanted.append(Wanted(seed, case, steps))
        return wanted

    def check_paths(self, wanted: Iterable[Wanted], file: ResultFile, device: str | None) -> None:
        """Make sure that rows which are added to stored ones belong to the same paths.

        Another version of PyTorch may draw other weights from a seed. And forward, an iterate goes
        on from the one before it, and steps multiply rounding: after a few hundred, another
        processor is somewhere else, and a curve of both would show jumps that are none. So where
        something was computed elsewhere, the start of each seed is computed once more, and the last
        stored point of each path that would be continued. Backward every iterate begins at the
        start, and there is nothing more to make sure of.

        Raises
        ------
        ValueError
            If it comes out otherwise.
        """
        *before, now = file.runs
        elsewhere = {provenance.place(run) for run in before if not provenance.alike(run, now)}
        if not elsewhere:
            return
        places = " or ".join(sorted(elsewhere))
        table = file.table().set_index(results.KEYS)
        wanted = list(wanted)
        for seed in sorted({each.seed for each in wanted}):
            begun = [case for s, case, n in table.index if (s, n) == (seed, 0)]
            if begun and (words := self._another(table, Wanted(seed, begun[0], [0]))):
                raise ValueError(
                    f"Of seed {seed} rows are stored that were computed on {places}. Here it "
                    f"begins somewhere else ({words}). Compute the rest there, or other --seeds "
                    "here."
                )
        for seed, case, steps in wanted if self.study.method.along_paths else []:
            stored = [n for s, c, n in table.index if (s, c) == (seed, case) and n]
            shared = any(node.parent for node in tree(named(case), [*steps, *stored]))
            if not (stored and shared):
                continue
            if words := self._another(table, Wanted(seed, case, [max(stored)]), device):
                raise ValueError(
                    f"Of {case}, seed {seed}, {len(stored):,} rows are stored that were computed "
                    f"on {places}. Here its path is another one ({words}), since steps multiply "
                    "rounding. Compute the rest there, or other --seeds here."
                )

    def shared(
        self, wanted: Iterable[Wanted], now: dict[str, Any]
    ) -> Iterator[tuple[str, list[dict[str, Any]]]]:
        """Yield wanted rows that other studies have, by the commands that computed them.

        An iterate is what its word makes of the start, whichever study and order asked for it:
        the same training is in Figures 3, 7 and 10, and ``reset(1000)`` is backward up to step
        1000. Left alone are rows that were computed elsewhere than the run `now`, since paths
        differ there by rounding, and studies that measure more than iterates.
        """
        if not self.study.method.along_paths:
            return
        words: dict[tuple[int, Word], list[tuple[str, int]]] = {}
        for seed, case, steps in wanted:
            order = named(case)
            for step in steps:
                words.setdefault((seed, order.runs(step)), []).append((case, step))
        for name, preset, changes in results.kept() if words else []:
            try:
                other = Plan.of(name, preset, changes=changes)
            except ValueError:  # a study or a field that is no more
                continue
            trained = (other.study.method, other.size.parameters)
            if name == self.study.name or trained != (self.study.method, self.size.parameters):
                continue
            file = other.store.current(other.identity(), other.orders)
            if file is None or not all(provenance.alike(run, now) for run in file.runs):
                continue
            rows = []
            for row in file.table().to_dict("records"):
                seed, case, step = (row[key] for key in results.KEYS)
                if case in other.size.cases:
                    places = words.pop((seed, named(case).runs(step)), [])
                    rows += [row | {"order": case, "step": step} for case, step in places]
            if rows:
                yield other.command, rows

    def _another(self, table: pd.DataFrame, point: Wanted, device: str | None = None) -> str:
        """Say in what a stored point comes out otherwise here; of a whole case, its first row."""
        if self.study.method.by_step:
            [[again]] = self.compute([point], device=device)
        else:
            again = next(self.study.method.rows(self.size.parameters, point.seed, point.case))
        for name, value in table.loc[(point.seed, point.case, again["step"])].dropna().items():
            if not math.isclose(again[name], value, rel_tol=PATH_TOLERANCE, abs_tol=1e-12):
                return f"{name} {again[name]:.6g} instead of {value:.6g} at step {again['step']:,}"
        return ""

    def compute(
        self,
        wanted: Iterable[Wanted],
        workers: int = 1,
        progress: bool = False,
        cluster: str | None = None,
        device: str | None = None,
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield rows as they are computed."""
        method = self.study.method
        yield from method.compute(self.size.parameters, wanted, workers, progress, cluster, device)

    def computed(self) -> pd.DataFrame:
        """Compute all that is planned, in this process, and return its table."""
        wanted = self.missing(pd.DataFrame(columns=results.KEYS))
        rows = [row for rows in self.compute(wanted) for row in rows]
        return self._whole(pd.DataFrame(rows).sort_values(results.KEYS, ignore_index=True))

    def stale(self, identity: Identity) -> list[str]:
        """Return what :func:`stale` does, of results that do not hold under an identity."""
        return [
            f"{len(file.table()):,} rows with {file.identity.differences(identity)}"
            for file in self.store.stale(identity)
        ]

    def table(self, identity: Identity) -> pd.DataFrame:
        """Return the stored rows that hold under an identity."""
        return self._whole(self.store.table(identity, self.orders))

    def looks(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a table at the recorded steps."""
        recorded = {step for steps in self.recorded.values() for step in steps}
        return table[table["step"].isin(recorded)]

    def _whole(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return a table in which a case that ended early has rows that are not a number."""
        if self.study.method.by_step:
            return table
        keys = table[["seed", "order"]].drop_duplicates()
        every = keys.merge(pd.DataFrame({"step": self.size.at}), how="cross")
        table = every.merge(table, how="left", on=results.KEYS)
        return table.sort_values(results.KEYS, ignore_index=True)

    def rehearsal(self) -> Plan:
        """Return the plan of its rehearsal: the first seed of the sample, with the same changes.

        It runs the same code in seconds. Where the code's text has changed and its rehearsal
        comes out as before, the results hold.
        """
        size = self.study.size("sample").changed(
            **{field: value for field, value in self.changes.items() if field != "sample"}
        )
        recorded = dict.fromkeys(size.cases, size.recorded())
        return dataclasses.replace(
            self, preset="sample", size=size, seeds=list(size.seeds[:1]), recorded=recorded
        )

    def rehearsed(self, nudge: int = 0) -> pd.DataFrame:
        """Return the rehearsal's table, computed now, from a start moved by rounding or not."""
        plan = self.rehearsal()
        return dataclasses.replace(plan, size=plan.size.changed(nudge=nudge)).computed()


@dataclass(frozen=True)
class Renewal:
    """What became of a stale result file.

    Parameters
    ----------
    rows
        How many it has.
    renewed
        Whether it holds again.
    words
        Why, in a sentence.
    """

    rows: int
    renewed: bool
    words: str


def renew(name: str, preset: str = "paper", **changes: Any) -> list[Renewal]:
    """Rehearse each stale result of a study, and renew those whose rehearsal comes out as before.

    Beside each result lies the small table that its code gave at the preset ``sample``
    (:meth:`Plan.rehearsal`). Where the same table comes out today, up to measured rounding, the
    code means the same, and the result is renewed; how, is written down with it. Nothing is
    downloaded: where the data is not on this machine, it is taken for what it was.

    Returns
    -------
    list of Renewal
        One for each stale result file.
    """
    plan = Plan.of(name, preset, changes=changes)
    files = plan.store.stale(plan.identity())
    identity = plan.identity()
    renewals = []
    for file in files:
        rows, different = len(file.table()), file.identity.other_study(identity)
        if different or not file.has_rehearsal():
            why = different or "it has no rehearsal"
            words = f"stale, and cannot be rehearsed: {why}. `revlib audit {plan.command}` may help"
            renewals.append(Renewal(rows, False, words))
            continue
        before, now = file.rehearsal(), plan.rehearsed()
        points = _rehearsal_compared(plan, before, now)
        first = next((point for point in points if not point["equal"]), None)
        if first:
            words = (
                f"stale: its rehearsal comes out otherwise, first {first['quantity']} of "
                f"{first['order']} at step {first['step']}, {first['stored']:.6g} then and "
                f"{first['recomputed']:.6g} now"
            )
        else:
            record = {"by": "rehearsal", "points": len(points)}
            added = now[~now["order"].isin(before["order"])]
            larger = pd.concat([before, added], ignore_index=True) if len(added) else None
            plan.store.renew(file, identity, record, larger)
            words = f"renewed by rehearsal: {len(points):,} numbers of the sample come out equal"
        renewals.append(Renewal(rows, first is None, words))
    return renewals


def _rehearsal_compared(
    plan: Plan, before: pd.DataFrame, now: pd.DataFrame
) -> list[dict[str, Any]]:
    """Compare an earlier rehearsal with today's, number by number.

    Cases that are new today have nothing to be compared with.
    """
    now = now[now["order"].isin(before["order"])].reset_index(drop=True)
    exact = set(before) == set(now) and before.equals(now[before.columns])
    tables = [now] if exact else [now, *(plan.rehearsed(nudge) for nudge in audits.NUDGES)]
    again, *moved = (table.set_index(results.KEYS) for table in tables)
    before = before.set_index(results.KEYS)
    points = []
    for key in dict.fromkeys([*before.index, *again.index]):
        rows = [
            table.loc[key].dropna().to_dict() if key in table.index else {}
            for table in (before, again, *moved)
        ]
        names = dict(zip(results.KEYS, key, strict=True))
        points += audits.compared(names, rows[0], rows[1], rows[2:])
    return points


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
    draw: int | None = None,
    **changes: Any,
) -> list[Audit]:
    """Recompute a few stored points from scratch, and renew stale rows that are found equal.

    Points are drawn at random, anew at each audit. Of a case that is computed whole, the beginning
    is computed again, up to the first step after the start. How far rounding alone moves a point is
    measured on the spot (:mod:`revlib.runs.audits`). Rows of a setting with other values are not
    renewed, however equal: what differs may show in other points.

    Parameters
    ----------
    name, preset, **changes
        Which study, as for :func:`run`.
    points
        How many points of each result file.
    seconds
        The time to spend on each result file. The first point is then one of the cheapest, which
        is recomputed in any case; the others are drawn from those that the rest of the time is
        enough for, to judge by the points before. Rows are renewed only if it was enough for all.
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
    plan = Plan.of(name, preset, changes=changes)
    files = [file for file in plan.store.files() if len(_auditable(plan, file))]
    if not files:
        raise ValueError(
            f"Nothing is stored of {name} at preset {preset} in {plan.store.folder}. "
            f"Compute it: revlib run {plan.command}."
        )
    identity = plan.identity()
    found = []
    for file in files:
        one = recomputed(plan, file, points, seconds, draw)
        differs = file.identity.other_study(identity)
        if one.passed and one.finished and not differs and not file.stands_for(identity):
            record = {"by": "audit", "draw": one.draw, "points": one.points.to_dict("records")}
            plan.store.renew(file, identity, record, plan.rehearsed())
            one = dataclasses.replace(one, renewed=True)
        found.append(one)
    return found


def audited(
    name: str, preset: str = "paper", points: int = 4, seconds: float = 3, **changes: Any
) -> str:
    """Recompute a few of the points that a chapter shows, and return the outcome in Markdown.

    As :func:`audit`, but of the current result file only, and nothing is written or downloaded.
    Where nothing is stored or the data is missing, a sentence says so.
    """
    plan = Plan.of(name, preset, changes=changes)
    data = plan.size.setting.data
    skipped = "**Audit.** Skipped: "
    file = plan.store.current(plan.identity(), plan.orders)
    if file is None:
        return f"{skipped}of {name} at preset {preset} nothing is stored that could be compared."
    if not plan.has_data:
        return f"{skipped}the data is not on this machine (`revlib data {data}` fetches it)."
    known = _auditable(plan, file)
    if known.empty:
        return f"{skipped}only start points are stored as yet."
    begun = time.monotonic()
    found = recomputed(plan, file, points if plan.study.method.by_step else 1, seconds)
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


def recomputed(
    plan: Plan, file: ResultFile, points: int, seconds: float | None, draw: int | None = None
) -> Audit:
    """Recompute points of a result file; the parameters are those of :func:`audit`."""
    draw, chance = audits.drawn(draw)
    known = _auditable(plan, file)
    if not plan.study.method.by_step:
        known = known.drop_duplicates(["seed", "order"])
    rest = known.loc[chance.sample(list(known.index), len(known))]
    asked = min(points, len(known))
    compared, done = [], 0
    begun = time.monotonic()
    # From scratch, a point at step n takes n maps in any order.
    affordable = np.inf if seconds is None else rest["step"].min()
    while done < asked and len(fitting := rest[rest["step"] <= affordable]):
        before = time.monotonic()
        [point] = fitting.head(1).to_dict("records")
        rest = rest.drop(fitting.index[0])
        compared += _compared(plan, file, point)
        done += 1
        if seconds is not None and done < asked:
            now = time.monotonic()
            left = (seconds - (now - begun)) / (asked - done)
            affordable = point["step"] * left / (now - before)
    return Audit(draw, pd.DataFrame(compared), finished=done == asked, renewed=False)


def _auditable(plan: Plan, file: ResultFile) -> pd.DataFrame:
    """Return the rows of a file that tell something when they are computed again."""
    table = file.table()
    return table[table["order"].isin(plan.size.cases) & (table["step"] > 0)]


def _compared(plan: Plan, file: ResultFile, point: dict[str, Any]) -> list[dict[str, Any]]:
    """Recompute a stored point, or the beginning of its case, and compare each quantity."""
    again = _again(plan, point)
    found = _against(file, again)
    moved = []
    for nudge in audits.NUDGES:
        if all(each["equal"] for each in found):  # further moves could only allow more
            break
        moved.append(_again(plan, point, nudge))
        found = _against(file, again, *moved)
    return found


def _again(plan: Plan, point: dict[str, Any], nudge: int = 0) -> list[dict[str, Any]]:
    """Return the row of a point as it is found today, or all rows up to the first after the start.

    From a moved start it is computed by the plain training loop, which also adds in another order.
    """
    method, parameters = plan.study.method, plan.size.changed(nudge=nudge).parameters
    seed, case, step = (point[name] for name in results.KEYS)
    if method.by_step:
        wanted = [Wanted(seed, case, [step])]
        [[row]] = method.compute(parameters, wanted, plain=nudge > 0)
        return [row]
    rows = []
    for row in method.rows(parameters, seed, case):
        rows.append(row)
        if row["step"] > 0:
            break
    return rows


def _against(
    file: ResultFile, again: list[dict[str, Any]], *moved: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Compare rows with those that are stored; moved ones tell what rounding does to them."""
    table = file.table().set_index(results.KEYS)
    card = any(run.get("device") for run in file.runs)
    unit = {"unit": audits.ON_A_CARD} if card else {}
    compared = []
    for now, *others in zip(again, *moved, strict=False):
        key = {name: now[name] for name in results.KEYS}
        place = tuple(key.values())
        old = table.loc[place].dropna().to_dict() if place in table.index else {}
        compared += audits.compared(key, old, now, others, **unit)
    return compared
