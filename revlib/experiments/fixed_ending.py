"""The fixed ending: before each look, always the same last batches in the same sequence.

Backward iteration is calm, and its last maps are the same at every step. Is the calm that of the
ending alone? Three studies of each figure's setting, on seeds that no other study has seen:

- ``endings-figure-4``: forward training with a fixed ending of m maps, ``tail(m)``, for m from 1 up
  to the whole chain, which is the backward order; and two controls, an ending whose sequence
  changes from step to step and one whose maps do;
- ``rivals-figure-4``: other ways to spend m more steps, or an average, on each look;
- ``forgetting-figure-4``: how well both orders know the first batches and the newest.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from revlib.experiments import figures_2_to_11
from revlib.experiments.study import Iterates, Size, Study, Whole
from revlib.orders import forward, named, tail
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


def forgetting(parameters: Parameters, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield what the iterates of an order know of the first batches and of the newest.

    Yields
    ------
    dict
        ``step``; losses and accuracies; and ``first_loss`` and ``newest_loss``, on the
        ``parameters.length`` first batches of the run and on as many newest.
    """
    task, m = build(parameters.setting, seed), parameters.length
    first = _joined(task, range(1, m + 1))
    for step, model in sweep.models(task, named(case), parameters.steps):
        both = {"first": first, "newest": _joined(task, range(step - m + 1, step + 1))}
        measured = dataclasses.replace(task, evaluation=task.evaluation | both).evaluate(model)
        yield {"step": step} | {k: v for k, v in measured.items() if _told(k)}


def _forgetting(
    figure: int, what: str, paper: tuple[int, tuple[int, ...]], sample: tuple[int, tuple[int, ...]]
) -> Study:
    """Return the study of forgetting of a figure, by the number of batches and the looks."""
    sizes = {}
    looks = {"sample": (range(2), *sample), "paper": (range(5, 10), *paper)}
    for preset, (seeds, length, steps) in looks.items():
        setting = figures_2_to_11.setting(f"figure-{figure}", preset)
        sizes[preset] = Size(
            Parameters(setting, length, steps),
            cases=("forward", "backward"),
            seeds=tuple(seeds),
            steps=max(steps),
            at=steps,
        )
    return Study(
        name=f"forgetting-figure-{figure}",
        title=f"{what}: what both orders forget, in the setting of Figure {figure}",
        section="1",
        chapter=CHAPTER,
        sizes=sizes,
        method=Whole(forgetting),
        quantities={
            "first_loss": "loss on the first batches",
            "newest_loss": "loss on as many newest batches",
        },
    )


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

_LATE = ((50, (1000, 1100, 1200, 1300, 1400)), (20, (80, 100, 120)))
"""How many batches are first and newest, and at which looks, at the paper's size and the sample."""

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
    _forgetting(4, "MLP learning x²", *_LATE),
    _forgetting(5, "MLP learning cos(10x)", *_LATE),
    _forgetting(6, "MLP learning x³", *_LATE),
    _forgetting(7, "MLP on Fashion-MNIST", (50, (1000, 1250, 1500, 1750, 2000)), _LATE[1]),
)
"""The studies of the fixed ending."""
