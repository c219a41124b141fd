"""What might come of iteration order in practice: the conjectures of Section 5, measured.

The paper ends with proposals: (a) a backward window of fixed size; (b) a start that moves only when
the new trajectory does better; (c) backward switched on late, for (d) more reliable early stopping;
(e) backward at the very start, to judge a setting early; (f) any gradient-based optimizer. Each
becomes a study here (:mod:`revlib.studies`): at the paper's setting of a figure, which its name
ends with, on several seeds, with what it costs.

Whatever is chosen by looking at held-out data is chosen on the *validation* set, and reported on
the *test* set, which took no part in the choice: the two halves of the task's test examples.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.stats
import torch

from revlib import experiments, orders, stability, studies, sweep
from revlib.maps import Trainer
from revlib.orders import Order
from revlib.studies import Shown, Size, Study
from revlib.sweep import Job
from revlib.tasks import Setting, Task, build

__all__ = [
    "METHODS",
    "STUDIES",
    "Checks",
    "Path",
    "Policy",
    "Ranking",
    "checks",
    "ends",
    "held_out",
    "misranked",
    "optimism",
    "optimizers",
    "path",
    "policies",
    "policy",
    "ranking",
    "sentences",
    "shown",
    "stopped",
    "windows",
]

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


def windows(table: pd.DataFrame, quantity: str = "test_loss") -> pd.DataFrame:
    """Return how calm each window is, and at what cost, seed by seed.

    Parameters
    ----------
    table
        Paths of the forward and of other orders, over the same run of consecutive steps (a step
        0 before it is not looked at).
    quantity
        What is to be calm.

    Returns
    -------
    pandas.DataFrame
        One row for each order and seed, cheapest first: ``order``, ``seed``, ``cost`` (maps for
        each of the steps, if all are evaluated), ``calm`` (mean change from one step to the next,
        forward divided by this order: borders of windows count like any other step), ``steady``
        (the same for the standard deviation over all of the steps) and ``level`` (mean over the
        steps, in units of the quantity).
    """
    steps = sorted(set(table["step"]) - {0})
    found = stability.fluctuation(table, quantity, steps[0], steps[-1]).set_index("order")
    forward = found.loc[["forward"]].set_index("seed")
    rows = []
    for name, own in found.groupby("order"):
        own, order = own.set_index("seed"), orders.named(name)
        measured = {
            "cost": (order.cost(steps) - order.cost(steps[:1])) / len(steps[1:]),
            "calm": forward["change"] / own["change"],
            "steady": forward["spread"] / own["spread"],
            "level": own["mean"],
        }
        rows.append(pd.DataFrame(measured).reset_index().assign(order=name))
    return pd.concat(rows).sort_values(["cost", "seed"], ignore_index=True)


def ends(table: pd.DataFrame, quantity: str, against: str) -> pd.DataFrame:
    """Return what a quantity comes to at the last step, and how that compares seed by seed.

    Parameters
    ----------
    table
        The rows of a study.
    quantity
        A column of it.
    against
        The case that the others are compared with.

    Returns
    -------
    pandas.DataFrame
        One row for each case: ``mean`` and ``spread`` (standard deviation) over the ``seeds``;
        ``difference`` and ``error``, the mean of the paired differences to the other case and its
        standard error; and in how many seeds it is ``lower``.
    """
    last = table[table["step"] == table["step"].max()]
    values = last.pivot(index="seed", columns="order", values=quantity)
    gaps = values.sub(values[against], axis=0)
    return pd.DataFrame(
        {
            "mean": values.mean(),
            "spread": values.std(),
            "seeds": values.count(),
            "difference": gaps.mean(),
            "error": gaps.sem(),
            "lower": (gaps < 0).sum(),
        }
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


def optimism(table: pd.DataFrame) -> pd.Series:
    """Return by how much choosing on the validation set flatters what is chosen, seed by seed.

    That is the test minus the validation loss of the iterate that is kept at the end, minus the
    mean of the same difference over all checks of the run (the two sets differ, whatever is
    chosen).

    Parameters
    ----------
    table
        Rows of :func:`policy` of one case, of one or more seeds.

    Returns
    -------
    pandas.Series
        By seed, in units of the loss. Above zero, the validation loss of the chosen one is too low.
    """
    table = table.sort_values("step").dropna(subset="kept_loss")
    found = table.assign(
        plain=table["test_loss"] - table["validation_loss"],
        kept=table["kept_loss"] - table["kept_validation_loss"],
    ).groupby("seed")
    return found["kept"].last() - found["plain"].mean()


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

_PATHS = (path, stopped, optimizers)
_POLICIES = (policy, checks, policies, Policy, optimizers)
_RANKINGS = (ranking, misranked, _long_runs, _mean_loss, _finite, _path_length, optimizers)


def _setting(figure: int, preset: str) -> Setting:
    """Return the setting of a figure, with 600 test examples (``ci``: 200) where it has more."""
    setting = experiments.get(f"figure-{figure}").preset(preset).setting
    return setting.changed(test_examples={"paper": 600, "ci": 200}[preset])


def _study(
    kind: str,
    figure: int,
    title: str,
    compute: Callable[[Any, int, str], Iterable[dict[str, Any]]],
    code: Iterable[Callable],
    chapter: str,
    paper: Size,
    ci: Size,
    **quantities: str,
) -> Study:
    """Return a study at the setting of a figure."""
    return Study(
        name=f"{kind}-figure-{figure}",
        title=f"{title}, in the setting of Figure {figure}",
        section="5",
        chapter=chapter,
        presets={"paper": paper, "ci": ci},
        compute=compute,
        code=("kernels", "maps", "models", "sweep", "tasks", held_out, _task, *code),
        data="fashion_mnist" if figure == 7 else None,
        quantities={"validation_loss": "loss on the validation set"} | quantities,
    )


def _paths(
    kind: str,
    figure: int,
    title: str,
    chapter: str,
    paper: tuple[Iterable[int], Iterable[str], int],
    ci: tuple[Iterable[int], Iterable[str]],
    patience: int | None = None,
    **quantities: str,
) -> Study:
    """Return a study of paths: of each size the recorded steps and the cases, then the seeds."""

    def size(preset: str, steps: Iterable[int], cases: Iterable[str], seeds: int) -> Size:
        parameters = Path(_setting(figure, preset), tuple(steps), patience)
        return Size(parameters, tuple(range(seeds)), tuple(cases), parameters.steps)

    sizes = size("paper", *paper), size("ci", *ci, 2)
    return _study(kind, figure, title, path, _PATHS, chapter, *sizes, **quantities)


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
        return Size(parameters, tuple(range(seeds)), tuple(policies()), recorded)

    return _study(
        "reset",
        figure,
        "Backward from a start that moves only when it pays",
        policy,
        _POLICIES,
        "5-reset-when-better",
        size("paper", every, steps, seeds),
        size("ci", 10, 100, 2),
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
        return Size(parameters, tuple(range(seeds)), METHODS, budgets)

    return _study(
        "ranking",
        figure,
        "Learning rates ranked early, forward and backward at equal cost",
        ranking,
        _RANKINGS,
        "5-late-switch-and-early-judgement",
        size("paper", rates, 1400, (25, 100, 400), seeds),
        size("ci", rates[::2], 280, (25, 50), 3),
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
"""The studies of Section 5 (:mod:`revlib.studies`)."""


def shown(kind: str, figures: Mapping[str, int], preset: str) -> dict[str, Shown]:
    """Return what a chapter shows of studies that belong together.

    Parameters
    ----------
    kind
        ``"windows"``, ``"reset"``, ``"stopping"``, ``"ranking"`` or ``"optimizers"``.
    figures
        In the settings of which figures, by the words that stand for each.
    preset
        Which size. Where one of them has nothing stored that holds today, all are shown at ``ci``.
    """
    found = {where: studies.shown(f"{kind}-figure-{n}", preset) for where, n in figures.items()}
    if len({each.preset for each in found.values()}) > 1:
        return shown(kind, figures, "ci")
    return found


# For the front page.


def sentences() -> str:
    """Return when the order of iteration is worth a thought, as far as the stored results tell.

    Returns
    -------
    str
        Three sentences as a list in Markdown. All numbers come from the stored results of the
        preset ``paper``; a sentence for which they are missing says so.
    """
    return "\n".join(
        f"- {told}"
        for told in (
            _on_calm("windows-figure-4", 50),
            _on_loss("reset-figure-4", "reset when better"),
            _on_judging("ranking-figure-4"),
        )
    )


def _on_calm(name: str, window: int) -> str:
    table = _stored(name)
    if table is None:
        return _missing(name)
    found = windows(table)
    own = found[found["order"] == f"windowed({window})"]
    calm, low, high = map(stability.rounded, stability.geometric_mean(own["calm"]))
    steady = stability.geometric_mean(own["steady"])[0]
    cost = own["cost"].iloc[0]
    return (
        "If you want a curve that does not jump from one step to the next: backward in windows of "
        f"{window} steps, the test loss changes {calm} times less from step to step (95 % interval "
        f"{low} to {high}) at {stability.rounded(cost)} times the cost of forward training, and "
        f"over several windows it spreads {stability.rounded(steady)} times less (MLP learning "
        f"x², {stability.counted(len(own), 'seed')})."
    )


def _on_loss(name: str, case: str) -> str:
    table = _stored(name)
    if table is None:
        return _missing(name)
    loss, cost = (ends(table, q, "forward") for q in ("kept_loss", "cost"))
    ratio, price = (
        found.loc[case, "mean"] / found.loc["forward", "mean"] for found in (loss, cost)
    )
    return (
        f"If you want a lower loss, {'try' if ratio < 1 else 'do not look for'} it in the order: "
        "backward from a start that moves only when that lowers the validation loss, the best "
        f"iterate has {stability.rounded(ratio)} times the test loss of the best iterate of "
        f"forward training, at {stability.rounded(price)} times the cost (MLP learning "
        f"x²; lower on {loss.loc[case, 'lower']} of "
        f"{stability.counted(int(loss.loc[case, 'seeds']), 'seed')})."
    )


def _on_judging(name: str) -> str:
    table = _stored(name)
    if table is None:
        return _missing(name)
    wrong = ends(table, "misranked", "forward")
    best, seeds = wrong["mean"].idxmin(), stability.counted(int(wrong["seeds"].max()), "seed")
    shares = ", ".join(f"{wrong.loc[method, 'mean']:.0%} by *{method}*" for method in METHODS)
    return (
        f"If you want to judge a setting early: at {table['step'].max()} maps for each learning "
        f"rate, of the pairs of learning rates {shares} are ranked other than after a long run "
        f"(MLP learning x², {seeds}), the fewest by *{best}*."
    )


def _stored(name: str) -> pd.DataFrame | None:
    found = studies.shown(name, "paper")
    return found.table if found.preset == "paper" else None


def _missing(name: str) -> str:
    return f"Not yet run: `revlib run {name}`."
