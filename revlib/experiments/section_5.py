"""What might come of iteration order in practice: the conjectures of Section 5, measured.

The paper ends with proposals: (a) a backward window of fixed size; (b) a start that moves only when
the new trajectory does better; (c) backward switched on late, for (d) more reliable early stopping;
(e) backward at the very start, to judge a setting early; (f) any gradient-based optimizer. Each
becomes a study here: at the paper's setting of a figure, which its name
ends with, on several seeds, with what it costs.

Whatever is chosen by looking at held-out data is chosen on the *validation* set, and reported on
the *test* set, which took no part in the choice: the two halves of the task's test examples.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.stats
import torch

from revlib import orders
from revlib.experiments import figures_2_to_11
from revlib.experiments.study import Size, Study, Whole
from revlib.orders import Order
from revlib.training import sweep
from revlib.training.maps import Trainer
from revlib.training.settings import Setting, build
from revlib.training.sweep import Job
from revlib.training.tasks import Task

# What all studies share.


def held_out(task: Task) -> Task:
    """Return the task with two evaluation sets, the halves of its test set.

    ``validation`` has the first, third, … test example, ``test`` the others.
    """
    inputs, targets = task.evaluation["test"]
    halves = {"validation": slice(0, None, 2), "test": slice(1, None, 2)}
    sets = {name: (inputs[half], targets[half]) for name, half in halves.items()}
    return dataclasses.replace(task, evaluation=sets)


def optimizers(rate: float) -> dict[str, Callable]:
    """Return what makes each of torch's optimizers that is tried, by name.

    Parameters
    ----------
    rate
        The learning rate of plain SGD. With momentum 0.9 it is divided by ten, since a constant
        gradient then moves ten times as far; Adam has its own default, 0.001.
    """
    return {
        "SGD": functools.partial(torch.optim.SGD, lr=rate),
        "momentum": functools.partial(torch.optim.SGD, lr=rate / 10, momentum=0.9),
        "Adam": functools.partial(torch.optim.Adam, lr=0.001),
    }


def _task(setting: Setting, seed: int, optimizer: str = "SGD") -> Task:
    made = optimizers(setting.learning_rate)[optimizer]
    return dataclasses.replace(held_out(build(setting, seed)), optimizer=made)


# Paths in several orders: windows (a), late switches (c, d), other optimizers (f).


@dataclass(frozen=True)
class Path:
    """What the numbers of a study of paths depend on.

    Parameters
    ----------
    setting
        What is trained.
    steps
        The recorded steps, ascending.
    patience
        For early stopping: after how many recorded steps without a better one the training ends.
        None where that is not looked at.
    """

    setting: Setting
    steps: tuple[int, ...]
    patience: int | None = None


def path(parameters: Path, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield the iterates of one path, evaluated.

    Parameters
    ----------
    parameters
        What is trained, and where it is recorded.
    seed
        Start point and batches.
    case
        An order by name, after the name of an optimizer and a comma if it is not plain SGD.

    Yields
    ------
    dict
        ``step``, and loss and accuracy on the validation and the test set and the batch applied
        last, as they are computed, coarse to fine; with a patience in the order of the steps, and
        with the columns of :func:`stopped`.
    """
    *optimizer, name = case.split(", ")
    source = functools.partial(_task, parameters.setting, seed, *optimizer)
    job = Job(source, seed, orders.named(name), list(parameters.steps))
    rows = (
        {key: value for key, value in row.items() if key not in ("seed", "order")}
        for rows in sweep.compute([job])
        for row in rows
    )
    if parameters.patience is None:
        yield from rows
    else:
        curve = pd.DataFrame(rows).sort_values("step", ignore_index=True)
        yield from curve.assign(**stopped(curve, parameters.patience)).to_dict("records")


def stopped(curve: pd.DataFrame, patience: int) -> pd.DataFrame:
    """Return what early stopping makes of a path, if it watches from the first row on.

    Training ends when the validation loss has not been lower than its lowest value for `patience`
    rows in turn; the iterate with that lowest value is then taken.

    Parameters
    ----------
    curve
        The rows of one path with ``step``, ``validation_loss`` and ``test_loss``, ascending.
    patience
        Counted in rows, 1 or more.

    Returns
    -------
    pandas.DataFrame
        For each row what would be taken if the path ended there: ``ended`` (the step at which the
        training ended, or that of the row if it still runs), ``stopped`` (the step of the iterate
        that is taken), ``stopped_loss`` (its test loss) and ``regret`` (by how much that lies above
        the lowest test loss of the rows so far).
    """
    loss = curve["validation_loss"].fillna(np.inf).to_numpy()
    taken, ended, found = 0, None, []
    lowest = curve["test_loss"].cummin()
    for i in range(len(curve)):
        if ended is None and loss[i] < loss[taken]:
            taken = i
        if ended is None and i - taken == patience:
            ended = i
        found.append((i if ended is None else ended, taken))
    last, best = np.array(found).T
    steps, test = curve["step"].to_numpy(), curve["test_loss"].to_numpy()
    return pd.DataFrame(
        {
            "ended": steps[last],
            "stopped": steps[best],
            "stopped_loss": test[best],
            "regret": test[best] - lowest,
        },
        index=curve.index,
    )


# Moving the start only when it pays (b).


class Policy(NamedTuple):
    """A way to go from one check to the next.

    Parameters
    ----------
    replayed
        ``replayed(anchor, before, n)``: the numbers of the batches that are applied to the iterate
        at the anchor, in this order, to make the iterate of check n; `before` is the step of the
        check before.
    selective
        Whether the anchor moves to the new iterate only if that has a lower validation loss than
        the anchor has; otherwise it always does.
    """

    replayed: Callable[[int, int, int], Iterable[int]]
    selective: bool


def policies() -> dict[str, Policy]:
    """Return the policies that are compared, by name.

    Forward; backward in windows; the paper's proposal; and the same choice in forward training,
    which drops the batches since the last check if they did no good, and goes on with new ones.
    """
    return {
        "forward": Policy(lambda anchor, before, n: range(before + 1, n + 1), selective=False),
        "windowed": Policy(lambda anchor, before, n: range(n, before, -1), selective=False),
        "reset when better": Policy(lambda anchor, before, n: range(n, anchor, -1), selective=True),
        "forward when better": Policy(
            lambda anchor, before, n: range(before + 1, n + 1), selective=True
        ),
    }


@dataclass(frozen=True)
class Checks:
    """What the numbers of a study of policies depend on.

    Parameters
    ----------
    setting
        What is trained.
    every
        Steps from one check to the next.
    steps
        How many batches there are in all.
    """

    setting: Setting
    every: int
    steps: int


def checks(
    trainer: Trainer, policy: Policy, every: int, steps: int, loss: Callable[[], float]
) -> Iterator[dict[str, int]]:
    """Train under a policy and yield at each check, while the trainer holds its iterate.

    Parameters
    ----------
    trainer
        Holds the start, and is driven in place.
    policy
        How to go on.
    every, steps
        Checks are at the steps 0, every, 2 every, … up to `steps`.
    loss
        Returns the validation loss of what the trainer holds.

    Yields
    ------
    dict
        ``step``, ``anchor`` (the step of the iterate from which the training goes on) and ``cost``
        (maps applied so far).
    """
    anchor, cost, kept, lowest = 0, 0, trainer.state(), loss()
    yield {"step": 0, "anchor": 0, "cost": 0}
    for n in range(every, steps + 1, every):
        trainer.load(kept)
        for batch in policy.replayed(anchor, n - every, n):
            trainer.apply(batch)
            cost += 1
        found = loss()
        if not policy.selective or found < lowest:
            anchor, kept, lowest = n, trainer.state(), found
        yield {"step": n, "anchor": anchor, "cost": cost}


def policy(parameters: Checks, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield the checks of one policy.

    Parameters
    ----------
    parameters
        What is trained.
    seed
        Start point and batches.
    case
        A name in :func:`policies`.

    Yields
    ------
    dict
        As :func:`checks`; loss and accuracy of the new iterate on both held-out sets; and
        ``kept_validation_loss`` and ``kept_loss``, the validation and the test loss of the iterate
        that had the lowest validation loss so far.
    """
    task = _task(parameters.setting, seed)
    trainer = next(kind for applies, kind in sweep.STRATEGIES.values() if applies(task))(task)
    measured: dict[str, float] = {}

    def loss() -> float:
        measured.update(task.evaluate(trainer.model()))
        return measured["validation_loss"]

    kept = (math.inf, math.nan)
    for check in checks(trainer, policies()[case], parameters.every, parameters.steps, loss):
        kept = min(kept, (measured["validation_loss"], measured["test_loss"]))
        yield check | measured | {"kept_validation_loss": kept[0], "kept_loss": kept[1]}


# Judging a setting early (e).

METHODS = ("forward", "forward, mean loss", "backward", "backward path")
"""The ways to judge a setting early, at a cost of C maps.

``forward`` and ``backward`` read the loss off the one iterate that this buys: in either order the
iterate at step C costs C maps. ``forward, mean loss`` takes the mean over ten points of the last
half of the forward path. ``backward path`` buys a whole path, each of its steps, so that it can be
seen to have come to rest, and reads off its end: C maps make a path of about the square root of 2C
steps.
"""


@dataclass(frozen=True)
class Ranking:
    """What the numbers of a study of early judgement depend on.

    Parameters
    ----------
    setting
        What is trained, but for the learning rate.
    rates
        The learning rates that are to be ranked.
    long
        Length of the long run that decides what the right ranking is, in steps.
    last
        Over how many of its last steps its loss is averaged (at every tenth of them).
    budgets
        What may be spent on the early judgement of each rate, in maps; ascending.
    """

    setting: Setting
    rates: tuple[float, ...]
    long: int
    last: int
    budgets: tuple[int, ...]


def ranking(parameters: Ranking, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield how well a method ranks learning rates, at each budget.

    Parameters
    ----------
    parameters
        What is trained, and what may be spent.
    seed
        Start point and batches, the same for all learning rates.
    case
        A name in :data:`METHODS`.

    Yields
    ------
    dict
        ``step`` (the budget, in maps for each learning rate), ``length`` (the step of the iterate
        that this buys), ``misranked`` (:func:`misranked`), and ``excess`` (by how much the long
        run's loss at the rate that is ranked first lies above that at the best rate).
    """
    truth = _long_runs(parameters, seed)
    for budget in parameters.budgets:
        length = _path_length(budget) if case == "backward path" else budget
        recorded = [length]
        if case.endswith("mean loss"):
            recorded = range(length, length // 2, -max(1, length // 20))
        order = orders.backward() if case.startswith("backward") else orders.forward()
        scores = [
            _mean_loss(parameters.setting, rate, seed, order, recorded) for rate in parameters.rates
        ]
        chosen = truth[int(np.argmin(scores))]
        yield {
            "step": budget,
            "length": length,
            "misranked": misranked(scores, truth),
            "excess": chosen - min(truth),
        }


def misranked(scores: Iterable[float], truth: Iterable[float]) -> float:
    """Return the share of pairs that scores rank the other way round than the truth does.

    It is ``(1 - tau) / 2`` with Kendall's tau (tau-b): 0 for the same ranking, 1/2 for no relation,
    1 for the reverse. Runs that diverged share the last place; scores that are all equal say
    nothing, and count 1/2.
    """
    ranks = [scipy.stats.rankdata(_finite(values)) for values in (scores, truth)]
    tau = scipy.stats.kendalltau(*ranks).statistic
    return (1 - float(np.nan_to_num(tau))) / 2


@functools.lru_cache(maxsize=1)
def _long_runs(parameters: Ranking, seed: int) -> tuple[float, ...]:
    """Return the loss that each learning rate comes to in the end."""
    recorded = range(parameters.long - parameters.last + 10, parameters.long + 1, 10)
    return tuple(
        _mean_loss(parameters.setting, rate, seed, orders.forward(), recorded)
        for rate in parameters.rates
    )


def _mean_loss(
    setting: Setting, rate: float, seed: int, order: Order, recorded: Iterable[int]
) -> float:
    """Return the mean validation loss over the recorded steps; infinite if the run diverged."""
    task = _task(setting.changed(learning_rate=rate), seed)
    recorded = list(recorded)
    curve = sweep.trajectory(task, order, max(recorded), recorded)
    return float(_finite(curve["validation_loss"]).mean())


def _finite(values: Iterable[float]) -> np.ndarray:
    return np.nan_to_num(np.array(list(values), float), nan=np.inf, posinf=np.inf)


def _path_length(budget: int) -> int:
    """Return the length n of the longest backward path that costs at most that many maps.

    It costs ``n (n + 1) / 2`` (Section 1).
    """
    return (math.isqrt(8 * budget + 1) - 1) // 2


# The studies.


def _setting(figure: int, preset: str) -> Setting:
    """Return a figure's setting, with 600 test examples (``sample``: 200) where it has more."""
    setting = figures_2_to_11.setting(f"figure-{figure}", preset)
    return setting.changed(test_examples={"paper": 600, "sample": 200}[preset])


def _study(
    kind: str,
    figure: int,
    title: str,
    compute: Callable[[Any, int, str], Iterable[dict[str, Any]]],
    chapter: str,
    paper: Size,
    sample: Size,
    **quantities: str,
) -> Study:
    """Return a study at the setting of a figure."""
    return Study(
        name=f"{kind}-figure-{figure}",
        title=f"{title}, in the setting of Figure {figure}",
        section="5",
        chapter=chapter,
        sizes={"sample": sample, "paper": paper},
        method=Whole(compute),
        quantities={"validation_loss": "loss on the validation set"} | quantities,
    )


def _paths(
    kind: str,
    figure: int,
    title: str,
    chapter: str,
    paper: tuple[Iterable[int], Iterable[str], int],
    sample: tuple[Iterable[int], Iterable[str]],
    patience: int | None = None,
    **quantities: str,
) -> Study:
    """Return a study of paths: of each size the recorded steps and the cases, then the seeds."""

    def size(preset: str, steps: Iterable[int], cases: Iterable[str], seeds: int) -> Size:
        parameters = Path(_setting(figure, preset), tuple(steps), patience)
        at = parameters.steps
        return Size(parameters, tuple(range(seeds)), tuple(cases), max(at), at=at)

    sizes = size("paper", *paper), size("sample", *sample, 2)
    return _study(kind, figure, title, path, chapter, *sizes, **quantities)


def _windows(figure: int, first: int, last: int, sizes: Iterable[int], seeds: int) -> Study:
    cases, small = (
        ("forward", *(f"windowed({size})" for size in each)) for each in (sizes, (2, 5, 10, 20, 40))
    )
    return _paths(
        "windows",
        figure,
        "Backward in windows of fixed size",
        "5-windowed-backward",
        ((0, *range(first, last + 1)), cases, seeds),
        ((0, *range(40, 81)), small),
    )


def _resets(figure: int, every: int, steps: int, seeds: int) -> Study:
    def size(preset: str, every: int, steps: int, seeds: int) -> Size:
        parameters = Checks(_setting(figure, preset), every, steps)
        recorded = tuple(range(0, steps + 1, every))
        return Size(parameters, tuple(range(seeds)), tuple(policies()), steps, at=recorded)

    return _study(
        "reset",
        figure,
        "Backward from a start that moves only when it pays",
        policy,
        "5-reset-when-better",
        size("paper", every, steps, seeds),
        size("sample", 10, 100, 2),
        kept_loss="test loss of the iterate with the lowest validation loss so far",
        cost="maps applied so far",
    )


def _stopping(figure: int, seeds: int) -> Study:
    return _paths(
        "stopping",
        figure,
        "Early stopping, forward, backward and backward after a late switch",
        "5-late-switch-and-early-judgement",
        (range(700, 1401, 10), ("forward", "switch(700)", "backward"), seeds),
        (range(60, 121, 3), ("forward", "switch(60)", "backward")),
        patience=10,
        stopped="the step that early stopping picks",
        stopped_loss="test loss at the step that early stopping picks",
        regret="test loss there above the lowest of the path",
    )


def _rankings(figure: int, rates: tuple[float, ...], seeds: int) -> Study:
    def size(preset: str, rates: tuple[float, ...], long: int, budgets: tuple[int, ...], seeds):
        parameters = Ranking(_setting(figure, preset), rates, long, long // 7, budgets)
        return Size(parameters, tuple(range(seeds)), METHODS, max(budgets), at=budgets)

    return _study(
        "ranking",
        figure,
        "Learning rates ranked early, forward and backward at equal cost",
        ranking,
        "5-late-switch-and-early-judgement",
        size("paper", rates, 1400, (25, 100, 400), seeds),
        size("sample", rates[::2], 280, (25, 50), 3),
        misranked="share of pairs ranked other than by the long run",
        excess="loss of the long run at the rate chosen above that at the best rate",
    )


def _optimized(figure: int, recorded: Iterable[int], small: Iterable[int], seeds: int) -> Study:
    cases = tuple(
        f"{optimizer}, {order}"
        for optimizer in optimizers(1.0)
        for order in ("forward", "backward")
    )
    return _paths(
        "optimizers",
        figure,
        "Forward and backward with momentum and with Adam",
        "5-any-optimizer",
        ((0, *recorded), cases, seeds),
        ((0, *small), cases),
    )


_FEW = (10, 15, 20, 25, *range(31, 41))

STUDIES = (
    _windows(4, 1200, 1400, (5, 10, 25, 50, 100), seeds=5),
    _windows(7, 1950, 2000, (10, 25, 50), seeds=3),
    _resets(4, every=10, steps=1400, seeds=10),
    _resets(7, every=100, steps=2000, seeds=5),
    _stopping(4, seeds=5),
    _stopping(5, seeds=10),
    _rankings(4, (0.003, 0.006, 0.0125, 0.025, 0.05, 0.1, 0.2), seeds=10),
    _rankings(5, (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08), seeds=10),
    _optimized(4, (*range(210, 291, 10), *range(291, 301)), _FEW, seeds=5),
    _optimized(7, range(95, 101), _FEW, seeds=3),
)
"""The studies of Section 5."""
