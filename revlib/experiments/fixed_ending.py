"""The fixed ending: before each look, always the same last batches in the same sequence.

Backward iteration is calm, and its last maps are the same at every step. Is the calm that of the
ending alone? Two studies of each figure's setting, on seeds that no other study has seen:

- ``endings-figure-4``: forward training with a fixed ending of m maps, ``tail(m)``, for m from 1 up
  to the whole chain, which is the backward order; and two controls, an ending whose sequence
  changes from step to step and one whose maps do;
- ``rivals-figure-4``: other ways to spend m more steps, or an average, on each look.

And two that decide by such looks, at the same cost: ``looks-stopping-figure-4``, when to stop, and
``looks-ranking-figure-4``, which learning rate to keep.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from revlib.experiments import figures_2_to_11
from revlib.experiments.section_5.held_out import held_out
from revlib.experiments.section_5.paths import stopped
from revlib.experiments.section_5.rankings import misranked
from revlib.experiments.study import Iterates, Size, Study, Whole
from revlib.orders import forward, tail
from revlib.training import averaging, sweep
from revlib.training.settings import Setting, build
from revlib.training.tasks import Batch, Task

CHAPTER = "fixed-ending"

LARGER = 10
"""How many batches are one in the larger batches of a rival."""


@dataclass(frozen=True)
class Parameters:
    """What the numbers of a study of rivals depend on.

    Parameters
    ----------
    setting
        What is trained.
    length
        How many more steps a look may cost, m.
    steps
        The steps of the forward run at which one looks, ascending.
    """

    setting: Setting
    length: int
    steps: tuple[int, ...]


RIVALS = ("forward", "fixed ending", "cooldown", "EMA", "last iterates", "larger batches")
"""What a look at step n may be at: the forward iterate, or what comes of it in m more steps.

- *fixed ending*: the m first batches after the others, ``tail(m)``;
- *cooldown*: the m next batches, at a rate that falls to zero in a line;
- *EMA*: no more steps, but an exponential moving average in which the newest iterate has the
  weight ``2 / (m + 1)``, so that it looks back as far as a mean of m does;
- *last iterates*: the mean of the last m;
- *larger batches*: the m next batches, ten at a time, at the rate of one.
"""


def rivals(parameters: Parameters, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield what one of :data:`RIVALS` shows at each look.

    Yields
    ------
    dict
        ``step``; losses and accuracies; and the loss on the m first batches and on the m newest of
        the forward run, ``first_loss`` and ``newest_loss``: whether an ending fits its own batches.
    """
    task, m = build(parameters.setting, seed), parameters.length
    first = _joined(task, range(1, m + 1))
    for step, model in _looks(parameters, task, case):
        newest = _joined(task, range(max(step - m, 0) + 1, max(step, m) + 1))
        measured = dataclasses.replace(
            task, evaluation={**task.evaluation, "first": first, "newest": newest}
        ).evaluate(model)
        yield {"step": step} | {k: v for k, v in measured.items() if _told(k)}


def _told(quantity: str) -> bool:
    return quantity.startswith(("train_", "test_")) or quantity in ("first_loss", "newest_loss")


def _looks(parameters: Parameters, task: Task, case: str) -> Iterator[tuple[int, nn.Module]]:
    """Yield each look of a case with its model."""
    steps, m = parameters.steps, parameters.length
    if case in ("forward", "fixed ending"):
        yield from sweep.models(task, forward() if case == "forward" else tail(m), steps)
        return
    path = averaging.forward_path(task, max(steps), averaging.SCHEDULES["constant"])
    if case == "EMA":
        path = averaging.ema(path, 2 / (m + 1))
    elif case == "last iterates":
        path = _means(path, m)
    for step, model in path:
        if step in steps:
            if case == "cooldown":
                model = _onward(task, model, step, m, averaging.SCHEDULES["linear"])
            elif case == "larger batches":
                larger = _Larger(task, step, LARGER)
                constant = averaging.SCHEDULES["constant"]
                model = _onward(
                    dataclasses.replace(task, batches=larger), model, 0, m // LARGER, constant
                )
            yield step, model


def _onward(task: Task, model: nn.Module, step: int, more: int, schedule) -> nn.Module:
    """Return a model after more steps from there, which leave the model itself as it is."""
    task = dataclasses.replace(task, model=model)
    *_, (_, trained) = averaging.forward_path(task, more, schedule, first=step)
    return trained


@dataclass(frozen=True)
class _Larger:
    """The batches after some step, several of them as one."""

    task: Task
    after: int
    together: int

    def __getitem__(self, index: int) -> Batch:
        begin = self.after + index * self.together
        return _joined(self.task, range(begin + 1, begin + self.together + 1))


def _joined(task: Task, numbers: Iterable[int]) -> Batch:
    """Return batches as one."""
    inputs, targets = zip(*map(task.batch, numbers), strict=True)
    return torch.cat(inputs), torch.cat(targets)


def _means(path: averaging.Path, length: int) -> Iterator[tuple[int, nn.Module]]:
    """Yield the mean of the last models along a path; of all of them as long as they are fewer."""
    kept: deque[list[torch.Tensor]] = deque()
    total: list[torch.Tensor] = []
    mean = None
    for step, model in path:
        mean = mean or copy.deepcopy(model)
        kept.append([p.detach().clone() for p in model.parameters()])
        total = total or [torch.zeros_like(p, dtype=torch.float64) for p in kept[0]]
        gone = kept.popleft() if len(kept) > length else [0.0] * len(total)
        with torch.no_grad():
            for p, of, new, old in zip(mean.parameters(), total, kept[-1], gone, strict=True):
                of += new.double() - old
                p.copy_(of / len(kept))
        yield step, mean


@dataclass(frozen=True)
class Watched(Parameters):
    """What the numbers of a study of early stopping depend on.

    Parameters
    ----------
    patience
        After how many looks without a better one the training ends.
    """

    patience: int


def stopping(parameters: Watched, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield the looks of one of :data:`RIVALS`, and what early stopping makes of them.

    Yields
    ------
    dict
        ``step``; loss on the validation and the test set; and the columns of
        :func:`revlib.experiments.section_5.paths.stopped`.
    """
    task = held_out(build(parameters.setting, seed))
    looks = _looks(parameters, task, case)
    curve = pd.DataFrame({"step": step} | task.evaluate(model) for step, model in looks)
    yield from curve.assign(**stopped(curve, parameters.patience)).to_dict("records")


JUDGES = (
    "forward",
    "forward, mean loss",
    "fixed ending",
    "fixed ending, mean loss",
    "cooldown",
    "EMA",
)
"""The ways to judge a learning rate for C maps: by one look at the end, or by the mean of ten.

One ending or cooldown takes m = C/4 of the maps, and the moving average looks back over as many.
Ten looks, or fewer where there are no ten steps, are spread over the last half of a path; of an
ending each takes C/20 maps, so that the path is as much shorter.
"""


def _bought(case: str, budget: int) -> tuple[str, int, tuple[int, ...]]:
    """Return what a budget buys: a rival, its m, and the steps at which one looks."""
    rival, _, many = case.partition(", ")
    if not many:
        m = budget // 4
        return rival, m, (budget - m if rival == "cooldown" else budget,)
    m = budget // 20
    length = budget - 9 * m if rival == "fixed ending" else budget
    return rival, m, tuple(sorted(range(length, length // 2, -max(1, length // 20))[:10]))


@dataclass(frozen=True)
class Judged:
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
        How many of its last steps decide.
    budgets
        What may be spent on the early judgement of each rate, in maps; ascending.
    """

    setting: Setting
    rates: tuple[float, ...]
    long: int
    last: int
    budgets: tuple[int, ...]


def judging(parameters: Judged, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield how well one of :data:`JUDGES` ranks learning rates, at each budget.

    Yields
    ------
    dict
        ``step``, the budget, in maps for each learning rate; ``misranked``, the share of pairs that
        the long run ranks the other way round, by its mean loss over the last steps; ``excess``, by
        how much that loss at the rate which is ranked first lies above that at the best; and
        ``misranked_decayed`` and ``excess_decayed``, the same where the rate of the long run falls
        to zero in a line over the last steps, and its end counts.
    """
    long, last = parameters.long, parameters.last
    truths = {
        "": _scores(parameters, seed, "forward", 1, tuple(range(long - last + 10, long + 1, 10))),
        "_decayed": _scores(parameters, seed, "cooldown", last, (long - last,)),
    }
    for budget in parameters.budgets:
        scores = _scores(parameters, seed, *_bought(case, budget))
        row: dict[str, Any] = {"step": budget}
        for which, truth in truths.items():
            row[f"misranked{which}"] = misranked(scores, truth)
            row[f"excess{which}"] = truth[int(np.argmin(scores))] - min(truth)
        yield row


@functools.lru_cache(maxsize=8)
def _scores(
    parameters: Judged, seed: int, rival: str, length: int, steps: tuple[int, ...]
) -> tuple[float, ...]:
    """Return the mean validation loss of the looks at each rate, infinite where one diverged."""
    scores = []
    for rate in parameters.rates:
        setting = parameters.setting.changed(learning_rate=rate)
        task = held_out(build(setting, seed))
        looks = _looks(Parameters(setting, length, steps), task, rival)
        loss = np.mean([task.evaluate(model)["validation_loss"] for _, model in looks])
        scores.append(float(loss) if np.isfinite(loss) else np.inf)
    return tuple(scores)


def _studies(
    figure: int, what: str, paper: dict[str, Any], sample: dict[str, Any]
) -> tuple[Study, Study]:
    """Return the endings and the rivals of a figure."""

    def sizes(preset: str, steps, lengths, length, seeds) -> tuple[Size, Size]:
        setting = figures_2_to_11.setting(f"figure-{figure}", preset)
        endings = (
            "forward",
            *(f"tail({m})" for m in lengths),
            f"reshuffled_tail({length})",
            f"newest_tail({length})",
            "backward",
        )
        parameters = Parameters(setting, length, tuple(steps))
        every = {"seeds": tuple(seeds), "steps": max(steps), "at": tuple(steps)}
        return (
            Size(setting, cases=endings, **every),
            Size(parameters, cases=RIVALS, **every),
        )

    (small, rival_small), (full, rival_full) = sizes("sample", **sample), sizes("paper", **paper)
    return (
        Study(
            name=f"endings-figure-{figure}",
            title=f"{what}: forward with a fixed ending, in the setting of Figure {figure}",
            section="5",
            chapter=CHAPTER,
            sizes={"sample": small, "paper": full},
            method=Iterates(),
        ),
        Study(
            name=f"rivals-figure-{figure}",
            title=f"{what}: other ways to a calm look, in the setting of Figure {figure}",
            section="5",
            chapter=CHAPTER,
            sizes={"sample": rival_small, "paper": rival_full},
            method=Whole(rivals),
            quantities={
                "first_loss": "loss on the batches of the ending",
                "newest_loss": "loss on as many newest batches",
            },
        ),
    )


def _early(
    figure: int,
    what: str,
    rates: tuple[float, ...],
    paper: tuple[int, range, tuple[int, ...]],
    sample: tuple[int, range, tuple[int, ...]],
) -> tuple[Study, Study]:
    """Return the studies of early stopping and of early judgement of a figure.

    Of each size the number of maps a look, the looks, and the budgets.
    """

    def sizes(preset: str, length: int, looks: range, budgets, rates, seeds) -> tuple[Size, Size]:
        setting = figures_2_to_11.setting(f"figure-{figure}", preset)
        watched = Watched(setting, length, tuple(looks), patience=10)
        judged = Judged(setting, rates, looks[-1], looks[-1] // 7, budgets)
        return (
            Size(watched, tuple(seeds), WATCHED, looks[-1], at=watched.steps),
            Size(judged, tuple(seeds), JUDGES, budgets[-1], at=budgets),
        )

    small = sizes("sample", *sample, rates[::2], range(2))
    full = sizes("paper", *paper, rates, range(10, 20))
    common = {"section": "5", "chapter": "5-late-switch-and-early-judgement"}
    return (
        Study(
            name=f"looks-stopping-figure-{figure}",
            title=f"{what}: early stopping by looks that cost as much, in the setting of Figure "
            f"{figure}",
            sizes={"sample": small[0], "paper": full[0]},
            method=Whole(stopping),
            quantities={
                "validation_loss": "loss on the validation set",
                "stopped": "the step that early stopping picks",
                "stopped_loss": "test loss at the step that early stopping picks",
                "regret": "test loss there above the lowest of the path",
            },
            **common,
        ),
        Study(
            name=f"looks-ranking-figure-{figure}",
            title=f"{what}: learning rates ranked early by looks that cost as much, in the setting "
            f"of Figure {figure}",
            sizes={"sample": small[1], "paper": full[1]},
            method=Whole(judging),
            quantities={
                "misranked": "share of pairs ranked other than by the long run",
                "excess": "loss of the long run at the rate chosen above that at the best rate",
                "misranked_decayed": "share of pairs ranked other than by the long run with decay",
                "excess_decayed": "loss of the long run with decay at the rate chosen above that "
                "at the best rate",
            },
            **common,
        ),
    )


WATCHED = ("forward", "fixed ending", "cooldown", "EMA")
"""The rivals whose looks early stopping watches."""


def _convolutional(
    figure: int, what: str, length: int, variants: tuple[dict[str, str], ...] = ()
) -> Study:
    """Return the endings of a convolutional network, at looks that cost about one forward run.

    The sample takes as many steps as that of the figure, and has an ending of so many maps.
    """
    small, full = (
        figures_2_to_11.setting(f"figure-{figure}", preset) for preset in ("sample", "paper")
    )
    looks = tuple(sorted({*range(1000, 2001, 20), *range(1993, 2001)}))
    few = tuple(range(length, 2 * length + 1))
    return Study(
        name=f"endings-figure-{figure}",
        title=f"{what}: forward with a fixed ending, in the setting of Figure {figure}",
        section="5",
        chapter=CHAPTER,
        sizes={
            "sample": Size(small, (0,), ("forward", f"tail({length})"), few[-1], at=few),
            "paper": Size(full, (5, 6, 7), ("forward", "tail(50)"), looks[-1], at=looks),
        },
        method=Iterates(),
        variants=variants,
    )


_REGRESSION = (
    {
        "steps": (*range(0, 700, 10), *range(700, 1401)),
        "lengths": (1, 3, 10, 30, 100, 300),
        "length": 100,
        "seeds": range(5, 10),
    },
    {
        "steps": (*range(0, 100, 10), *range(100, 161)),
        "lengths": (1, 5, 20),
        "length": 20,
        "seeds": range(2),
    },
)

_LOOKS = (
    (100, range(700, 1401, 10), (25, 100, 400)),
    (20, range(60, 121, 3), (25, 50)),
)

STUDIES = (
    *_studies(4, "MLP learning x²", *_REGRESSION),
    *_studies(5, "MLP learning cos(10x)", *_REGRESSION),
    *_studies(6, "MLP learning x³", *_REGRESSION),
    *_studies(
        7,
        "MLP on Fashion-MNIST",
        {
            "steps": sorted({*range(0, 1000, 50), *range(1000, 2001, 10), *range(1900, 1908)}),
            "lengths": (1, 5, 10, 50, 200),
            "length": 50,
            "seeds": range(5, 10),
        },
        {
            "steps": (*range(0, 100, 10), *range(100, 121)),
            "lengths": (1, 5, 20),
            "length": 20,
            "seeds": range(2),
        },
    ),
    _convolutional(2, "ResNet-18 on CIFAR-10", 2, variants=({"normalisation": "group"},)),
    _convolutional(8, "VGG-19 on CIFAR-10", 1),
    *_early(4, "MLP learning x²", (0.003, 0.006, 0.0125, 0.025, 0.05, 0.1, 0.2), *_LOOKS),
    *_early(5, "MLP learning cos(10x)", (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08), *_LOOKS),
)
"""The studies of the fixed ending."""
