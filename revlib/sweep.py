"""Sweeps: the iterates of a trained model in any order, evaluated, as fast as they can be had.

What is computed is what :func:`revlib.iterates.iterates` defines. How:

- **Plan.** First comes the *spine*, the iterates from which others start, then the *leaves*, which
  nothing else depends on, coarse to fine: whenever a sweep is stopped, it has a whole curve.
- **Strategy.** Leaves with the same anchor are advanced together where the strategy can do that: at
  stage t, each chain that is still running applies the same map. ``"dense"``
  (:mod:`revlib.kernels`) does it for dense ReLU networks under plain SGD, with a step written by
  hand; ``"eager"`` (:class:`revlib.maps.Trainer`) takes any module and optimizer, one chain at a
  time. The first that applies is chosen.
- **Workers.** Pieces of the plan go to processes with one thread each. So the numbers do not depend
  on how many there are; and small networks, which cannot keep several threads busy, gain by it
  (the chapter on performance says how much). With Dask the processes may be on many machines.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import pandas as pd
from tqdm import tqdm

from revlib import kernels, processes
from revlib.iterates import check_recorded
from revlib.maps import Trainer, TrainingState
from revlib.orders import Order
from revlib.tasks import Task

Row = dict[str, Any]

SLICE_SECONDS = 0.1  # after which a worker hands over the rows it has, at the end of a step

STRATEGIES: dict[str, tuple[Callable[[Task], bool], type]] = {
    "dense": (kernels.applies, kernels.DenseTrainer),
    "eager": (lambda task: True, Trainer),
}


def trajectory(
    task: Task,
    order: Order,
    steps: int,
    record: Iterable[int] | None = None,
    *,
    workers: int = 1,
    strategy: str | None = None,
    device: str | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Train a task in the given order and return the curve as a tidy table.

    Parameters
    ----------
    task
        What is trained; its model is not changed.
    order
        The order of iteration, see :mod:`revlib.orders`.
    steps
        The length of the run, in optimizer steps.
    record
        The steps to evaluate, between 0 (the start point) and `steps`; all of them by default.
        A backward run costs about ``steps²/2`` optimizer steps if all are recorded, and
        ``order.cost(record)`` in general.
    workers
        Processes that compute side by side, with one thread each; 1 means in this process.
    strategy
        ``"dense"`` or ``"eager"``; by default the first that applies (see the module's text).
    device
        Where to compute, ``"cuda"`` say; by default where the task's tensors are.
    progress
        Whether to show a progress bar over the optimizer steps, with the time left.

    Returns
    -------
    pandas.DataFrame
        One row for each recorded step, ascending: ``seed``, ``order``, ``step``, then
        ``<set>_loss`` and, where defined, ``<set>_accuracy`` for each evaluation set and for
        ``batch``, the batch that was applied last (:meth:`revlib.tasks.Task.evaluate`; backward
        that is the batch after the anchor, the same at every step). A path that diverges is a
        result: its losses are ``inf`` or ``nan`` from then on.

    Raises
    ------
    ValueError
        Before any work is done: if a recorded step lies outside the run, there are too few
        batches, the order has an impossible anchor, the model's output does not fit the loss, the
        strategy does not apply, or the device is not there.
    """
    recorded = sorted(check_recorded(record, steps))
    order.closure(recorded)
    task = task if device is None else task.to(device)
    task.require(steps)
    with _source(task, workers) as source:
        jobs = [Job(source, task.seed, order, recorded, strategy)]
        rows = [row for rows in compute(jobs, workers, progress) for row in rows]
    return pd.DataFrame(rows).sort_values("step", ignore_index=True)


@dataclass(frozen=True)
class Job:
    """What is to be computed of one seed and order.

    Parameters
    ----------
    source
        Makes the task; hashable, and small when pickled: workers get it with every piece of work.
    seed, order
        Which run.
    recorded
        The steps to evaluate.
    strategy
        A name in ``STRATEGIES``, or None for the first that applies.
    """

    source: Callable[[], Task]
    seed: int
    order: Order
    recorded: list[int]
    strategy: str | None = None


def compute(
    jobs: Iterable[Job], workers: int = 1, progress: bool = False, cluster: str | None = None
) -> Iterator[list[Row]]:
    """Yield rows as they are computed: first along all spines, then the leaves, coarse to fine.

    Parameters
    ----------
    jobs
        What to compute.
    workers
        Processes on this machine, with one thread each; 1 means in this process.
    progress
        Whether to show a progress bar over the optimizer steps, with the time left.
    cluster
        Address of a Dask scheduler, whose workers are used instead.

    Raises
    ------
    ValueError
        If a strategy does not apply or the cluster does not answer; before any work is done.
    """
    try:
        yield from _compute([_Run(job) for job in jobs], workers, progress, cluster)
    finally:
        _working_copy.cache_clear()  # in this process; those of workers go with them


def _compute(
    runs: list[_Run], workers: int, progress: bool, cluster: str | None
) -> Iterator[list[Row]]:
    total = sum(run.order.cost(run.recorded) for run in runs)
    with (
        processes.pool(workers, cluster) as parallel,
        tqdm(total=total, unit=" maps", disable=not progress, mininterval=1) as bar,
    ):
        while spines := [run for run in runs if run.spine]:
            # Pieces come back in any order, so each brings along which run it belongs to.
            for index, done in parallel(
                joblib.delayed(_advance)(run.piece([[n] for n in run.spine]), index)
                for index, run in enumerate(spines)
            ):
                spines[index].take(done)
                yield done.rows
                bar.update(done.maps)

        leaves = [(group, run) for run in runs for group in run.groups(4 * workers)]
        rank = {n: r for r, n in enumerate(coarse_to_fine({min(group) for group, _ in leaves}))}
        leaves.sort(key=lambda leaf: rank[min(leaf[0])])
        for _, done in parallel(
            joblib.delayed(_advance)(run.piece([group])) for group, run in leaves
        ):
            yield done.rows
            bar.update(done.maps)


@dataclass(frozen=True)
class Plan:
    """The steps that a sweep computes.

    Parameters
    ----------
    spine
        Steps from which other iterates start, ascending. Each needs the ones before it.
    leaves
        Recorded steps on which nothing depends, coarse to fine. They can be computed in any
        order, on any worker.
    """

    spine: list[int]
    leaves: list[int]

    @classmethod
    def of(cls, order: Order, recorded: Iterable[int]) -> Plan:
        """Return the plan for the recorded steps of an order."""
        recorded = list(recorded)
        needed = order.closure(recorded)
        anchors = {order.anchor(n) for n in needed}
        start = [0] if 0 in recorded else []
        return cls(
            start + [n for n in needed if n in anchors],
            coarse_to_fine(n for n in needed if n not in anchors),
        )


def coarse_to_fine(steps: Iterable[int]) -> list[int]:
    """Sort steps so that each beginning of the list is spread over the whole range.

    Steps divisible by a high power of two come first, then those between them, and so on.
    """
    return sorted(steps, key=lambda n: (-(n & -n), n))


def walk(
    trainer: Trainer,
    order: Order,
    groups: list[list[int]],
    states: dict[int, TrainingState],
    keep: Collection[int] = (),
) -> Iterator[dict[int, int]]:
    """Bring the trainer to the iterates at the steps of each group in turn.

    States are large, so one is copied only where a later group starts from it and is not simply
    the next.

    Parameters
    ----------
    trainer
        The working copy.
    order
        The order of iteration.
    groups
        The steps to compute. The steps of a group share an anchor and are advanced together, on
        a chain each; anchors have to be in `states`, or to stand before as groups of one. Step 0
        stands for the start itself.
    states
        States that are known, by step. This dictionary is kept up to date: anchors of later
        groups are added, and dropped after their last use.
    keep
        Steps whose states are wanted in `states` at the end.

    Yields
    ------
    dict
        For each step of the group the chain of the trainer that holds its iterate.
    """
    anchors = [order.anchor(group[0]) if group[0] else 0 for group in groups]
    uses = Counter([*anchors, *keep])
    present = None
    for position, (group, anchor) in enumerate(zip(groups, anchors, strict=True)):
        steps = sorted(group, reverse=True)  # at each stage, the chains still running come first
        if anchor != present:
            trainer.load(states[anchor], len(steps))
        uses[anchor] -= 1
        if not uses[anchor]:
            states.pop(anchor, None)
        running = 0
        for t in range(steps[0], anchor, -1):
            while running < len(steps) and steps[running] >= t:
                running += 1
            trainer.apply(t, running)
        present = steps[0] if len(steps) == 1 else None
        followed = anchors[position + 1 : position + 2] == [present]
        if present and uses[present] > followed:
            states[present] = trainer.state()
        yield {n: chain for chain, n in enumerate(steps)}


class _Run:
    """A job, and how far it has come (in the process that hands out the work)."""

    def __init__(self, job: Job):
        plan = Plan.of(job.order, job.recorded)
        self.job, self.order, self.recorded = job, job.order, frozenset(job.recorded)
        self.chains = _trainer(job)[0].chains
        self.spine, self.leaves = plan.spine, plan.leaves
        self.keep = frozenset(self.order.anchor(n) for n in self.leaves)
        self.states: dict[int, TrainingState] = {}

    def take(self, done: _Done) -> None:
        """Take over what a piece of the spine has given."""
        self.spine = self.spine[done.groups :]
        needed = self.keep.union(self.order.anchor(n) for n in self.spine)
        known = self.states | done.states
        self.states = {n: state for n, state in known.items() if n in needed}

    def groups(self, at_least: int) -> list[list[int]]:
        """Return the leaves in groups that are advanced together, so many that all are busy."""
        size = max(1, min(self.chains, len(self.leaves) // at_least))
        by_anchor: dict[int, list[int]] = {}
        for n in self.leaves:
            by_anchor.setdefault(self.order.anchor(n), []).append(n)
        return [
            steps[start : start + size]
            for steps in by_anchor.values()
            for start in range(0, len(steps), size)
        ]

    def piece(self, groups: list[list[int]]) -> _Piece:
        """Return the work of computing some groups, with the states that it starts from."""
        steps = {n for group in groups for n in group}
        anchors = {self.order.anchor(n) for n in steps if n} - {0} - steps
        states = {a: self.states[a] for a in anchors}
        return _Piece(self.job, groups, self.recorded & steps, self.keep & steps, states)


@dataclass(frozen=True)
class _Piece:
    """Work for one worker.

    Parameters
    ----------
    job
        What it belongs to.
    groups
        Which iterates to compute, as :func:`walk` takes them.
    recorded
        Which of them to evaluate.
    keep
        Which of them others will start from.
    states
        The states that the piece starts from, but for step 0, which every worker knows.
    """

    job: Job
    groups: list[list[int]]
    recorded: frozenset[int]
    keep: frozenset[int]
    states: dict[int, TrainingState]


@dataclass(frozen=True)
class _Done:
    """What a worker hands over: rows, how many groups and maps it did, and states to keep."""

    rows: list[Row]
    groups: int
    maps: int
    states: dict[int, TrainingState]


def _advance(piece: _Piece, index: int = 0) -> tuple[int, _Done]:
    """Work on a piece for a while (in a worker), and hand over what there is."""
    processes.end_with_parent()
    job, order = piece.job, piece.job.order
    with processes.one_thread():
        trainer, start = _trainer(job)
        rows, maps, done = [], 0, 0
        states = {0: start, **piece.states}
        deadline = time.monotonic() + SLICE_SECONDS
        for chains in walk(trainer, order, piece.groups, states, piece.keep):
            done += 1
            for n, chain in chains.items():
                maps += n - order.anchor(n) if n else 0
                if n in piece.recorded:
                    key = {"seed": job.seed, "order": order.name, "step": n}
                    last = order.anchor(n) + 1 if n else None
                    rows.append(key | trainer.task.evaluate(trainer.model(chain), last))
            if time.monotonic() > deadline:
                break
        rest = piece.groups[done:]
        if rest and n not in states and n in {order.anchor(group[0]) for group in rest}:
            states[n] = trainer.state()
        given = {0, *piece.states}
        return index, _Done(rows, done, maps, {n: s for n, s in states.items() if n not in given})


def _trainer(job: Job) -> tuple[Trainer, TrainingState]:
    """Return this worker's working copy of a job's task, and the start state."""
    # A Dask worker may run several threads; each has copies of its own.
    return _working_copy(job.source, job.strategy, threading.get_ident())


@functools.lru_cache(maxsize=8)  # pieces of several seeds come by turns
def _working_copy(
    source: Callable[[], Task], strategy: str | None, thread: int
) -> tuple[Trainer, TrainingState]:
    task = source()
    task.check()
    trainer = _strategy(task, strategy)(task)
    return trainer, trainer.state()


def _strategy(task: Task, name: str | None) -> type:
    if name is None:
        return next(trainer for applies, trainer in STRATEGIES.values() if applies(task))
    if name not in STRATEGIES:
        raise ValueError(f"'{name}' is not a strategy. Valid are: {', '.join(STRATEGIES)}.")
    applies, trainer = STRATEGIES[name]
    if not applies(task):
        raise ValueError(
            f"The strategy '{name}' does not apply to this task ({trainer.__name__} says to which "
            "it does). Leave the strategy out to have one chosen."
        )
    return trainer


@dataclass(frozen=True, eq=False)
class _Given:
    """A task in this process, as a source."""

    task: Task

    def __call__(self) -> Task:
        return self.task


@dataclass(frozen=True)
class _Stored:
    """A task in a file, as a source: workers read it once."""

    path: str

    def __call__(self) -> Task:
        return cloudpickle.loads(Path(self.path).read_bytes())


@contextlib.contextmanager
def _source(task: Task, workers: int) -> Iterator[Callable[[], Task]]:
    if workers == 1:
        yield _Given(task)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "task")
        file.write_bytes(cloudpickle.dumps(task))
        yield _Stored(str(file))
