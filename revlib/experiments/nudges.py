"""How far a nudge moves the end of a chain, by where in the chain it comes.

A new batch enters the chain of an iterate at one place: backward before all other maps, at a
network that has learned nothing yet; with a fixed ending of m maps before the last m of them. How
calm the path is depends on what the maps after that place make of the change. So we change the
parameters there by a small amount, and follow the changed chain beside the other one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from revlib.experiments import figures_2_to_11
from revlib.experiments.study import Size, Study, Whole
from revlib.orders import named
from revlib.training import sweep
from revlib.training.maps import Trainer, TrainingState
from revlib.training.settings import Setting, build


@dataclass(frozen=True)
class Parameters:
    """What the numbers of a study of nudges depend on.

    Parameters
    ----------
    setting
        What is trained.
    steps
        How many maps of the word have been applied where the two chains are compared, ascending;
        the last is the whole word.
    size
        Length of the nudge, in units of the length of the parameter vector there.
    """

    setting: Setting
    steps: tuple[int, ...]
    size: float


def nudges(parameters: Parameters, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield how far a nudge has moved a chain, along the word of an order.

    The case says before how many of the last maps of the word the nudge comes:
    ``"tail(100), before the last 100"``. The seed gives the random direction, too.

    Yields
    ------
    dict
        ``step``, how many maps have been applied; for a nudge in a ``random`` direction and for one
        along the ``step`` on the next batch of the stream, ``random_growth`` and ``step_growth``,
        the distance of the two chains in units of the nudge (0 before it comes), and
        ``random_loss`` and ``step_loss``, the absolute difference of their test losses.
    """
    name, place = case.split(", before the last ")
    last = parameters.steps[-1]
    letters, begin = named(name).applied(last), last - int(place)
    task = build(parameters.setting, seed)
    trainer = next(kind for applies, kind in sweep.STRATEGIES.values() if applies(task))(task)
    plain = _followed(trainer, letters, 0, sorted({begin, *parameters.steps}))
    size = parameters.size * _length(plain[begin][0])
    trainer.load(plain[begin][0])
    trainer.apply(last + 1)
    after = trainer.state()
    generator = torch.Generator().manual_seed(seed)
    directions = {
        "random": {
            name: torch.randn(value.shape, generator=generator, dtype=value.dtype)
            for name, value in after.model.items()
        },
        "step": _difference(after, plain[begin][0]),
    }
    found = {}
    for which, direction in directions.items():
        trainer.load(_moved(plain[begin][0], direction, size))
        later = [step for step in parameters.steps if step >= begin]
        found[which] = _followed(trainer, letters, begin, later)
    for step in parameters.steps:
        state, loss = plain[step]
        row = {}
        for which, nudged in found.items():
            other, its_loss = nudged.get(step, plain[step])
            row[f"{which}_growth"] = _norm(_difference(other, state)) / size
            row[f"{which}_loss"] = abs(its_loss - loss)
        yield {"step": step} | row


def _followed(
    trainer: Trainer, letters: list[int], begin: int, steps: list[int]
) -> dict[int, tuple[TrainingState, float]]:
    """Go on from some step of a word; return the state and the test loss at the steps."""
    found = {}
    for step in range(begin, max(steps) + 1):
        if step > begin:
            trainer.apply(letters[step - 1])
        if step in steps:
            found[step] = trainer.state(), trainer.evaluate()["test_loss"]
    return found


def _moved(state: TrainingState, direction: dict[str, torch.Tensor], size: float) -> TrainingState:
    """Return a state at a distance from another one."""
    factor = size / _norm(direction)
    model = {name: value + factor * direction[name] for name, value in state.model.items()}
    return dataclasses.replace(state, model=model)


def _difference(one: TrainingState, other: TrainingState) -> dict[str, torch.Tensor]:
    return {name: value - other.model[name] for name, value in one.model.items()}


def _length(state: TrainingState) -> float:
    return _norm(state.model)


def _norm(tensors: dict[str, torch.Tensor]) -> float:
    return math.sqrt(sum(value.double().square().sum().item() for value in tensors.values()))


SIZE = 1e-4
"""About how far, in units of its length, a forward step moves a trained network in Figures 4 to 7.

Long enough to be far above rounding in single precision.
"""


def _study(
    figure: int,
    what: str,
    length: int,
    paper: tuple[tuple[int, ...], tuple[int, ...]],
    sample: tuple[tuple[int, ...], tuple[int, ...]],
) -> Study:
    """Return the study of a figure: of each size the steps, and before how many last maps."""

    def size(preset: str, steps: tuple[int, ...], places: tuple[int, ...], length: int, seeds):
        setting = figures_2_to_11.setting(f"figure-{figure}", preset)
        setting = setting.changed(train_examples=100, test_examples={"paper": 600}.get(preset, 100))
        cases = (
            f"{order}, before the last {place}"
            for order in ("backward", f"tail({length})")
            for place in places
        )
        parameters = Parameters(setting, steps, SIZE)
        return Size(parameters, tuple(seeds), tuple(cases), steps[-1], at=steps)

    return Study(
        name=f"nudges-figure-{figure}",
        title=f"{what}: how far a nudge moves the end of a chain, in the setting of Figure "
        f"{figure}",
        section="5",
        chapter="fixed-ending",
        sizes={
            "sample": size("sample", *sample, 20, range(2)),
            "paper": size("paper", *paper, length, range(5, 10)),
        },
        method=Whole(nudges),
        quantities={
            "random_growth": "growth of a nudge in a random direction",
            "step_growth": "growth of a nudge along a training step",
            "random_loss": "change of the test loss by a nudge in a random direction",
            "step_loss": "change of the test loss by a nudge along a training step",
        },
    )


_EARLY = (0, 1, 3, 10, 30, 100, 300)
_SAMPLE = ((*_EARLY[:6], 60, 110, 120), (120, 60, 20))
_REGRESSION = (
    (*_EARLY, 700, 1100, 1300, 1310, 1330, 1370, 1390, 1397, 1400),
    (1400, 1100, 700, 300, 100, 30, 10, 3),
)

STUDIES = (
    _study(4, "MLP learning x²", 100, _REGRESSION, _SAMPLE),
    _study(5, "MLP learning cos(10x)", 100, _REGRESSION, _SAMPLE),
    _study(
        7,
        "MLP on Fashion-MNIST",
        50,
        ((*_EARLY, 1000, 1800, 1950, 1960, 1980, 1990, 2000), (2000, 1000, 200, 50, 10)),
        _SAMPLE,
    ),
)
"""The studies of nudges."""
