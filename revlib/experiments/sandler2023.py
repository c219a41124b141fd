"""What one sees along a training path: the observations of Sandler et al. (2023) on a network.

Each is a study that sets out from one point on a plain training path: a
single step and several steps on one batch, the directions of gradients, distances between paths,
and averages beside the schedules that they are worth.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import lr_scheduler

from revlib.experiments import figures_2_to_11
from revlib.experiments.study import PRESETS, Size, Study, Whole
from revlib.theory import averaging
from revlib.training.averaging import SCHEDULES, forward_path
from revlib.training.settings import Setting, build
from revlib.training.tasks import Batch, Task

FAR = 1_000_000
"""From which batch of the stream on batches are taken that no path has seen."""


@dataclass(frozen=True)
class Parameters:
    """What the numbers of one study depend on.

    Parameters
    ----------
    setting
        What is trained.
    start
        The step of the plain path at which the observation begins.
    length
        How many steps it goes on.
    held_out
        Over how many unseen batches a held-out loss is averaged.
    recorded
        The steps at which it is recorded.
    decay
        Weight of the newest iterate in the exponential moving average.
    """

    setting: Setting
    start: int
    length: int
    held_out: int
    recorded: tuple[int, ...]
    decay: float = 0.02


@functools.lru_cache(maxsize=4)  # all cases of a seed set out from there
def _started(parameters: Parameters, seed: int) -> Task:
    """Return the task with the model that plain training has reached at the start."""
    task = build(parameters.setting, seed)
    *_, (_, model) = forward_path(task, parameters.start, SCHEDULES["constant"])
    return dataclasses.replace(task, model=copy.deepcopy(model))


def _onward(
    task: Task, parameters: Parameters, steps: int, schedule: str = "constant", skip: int = 0
) -> Iterator[tuple[int, nn.Module]]:
    """Go on training from the start, on the next batches of the stream or on later ones."""
    return forward_path(task, steps, SCHEDULES[schedule], parameters.start + skip)


def _vector(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def _gradient(task: Task, model: nn.Module, batch: Batch) -> torch.Tensor:
    inputs, targets = batch
    gradient = torch.autograd.grad(task.loss(model(inputs), targets), list(model.parameters()))
    return torch.cat([part.flatten() for part in gradient])


@torch.no_grad()
def _losses(task: Task, theta: torch.Tensor, batches: Iterable[Batch]) -> np.ndarray:
    """Return the losses of the network with the given parameters on some batches."""
    model = copy.deepcopy(task.model)
    nn.utils.vector_to_parameters(theta, model.parameters())
    return np.array([task.loss(model(inputs), targets).item() for inputs, targets in batches])


def _batches(task: Task, parameters: Parameters, case: str) -> list[Batch]:
    """Return the batch that is trained on, or those that are held out."""
    if case == "held-out batches":
        return [task.batch(FAR + i) for i in range(parameters.held_out)]
    return [task.batch(parameters.start + 1)]


def single_step(parameters: Parameters, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield the loss after a single step on one batch, by the size of the step (Figure 2).

    The case says on what the loss is taken: ``"training batch"`` or ``"held-out batches"``.

    Yields
    ------
    dict
        ``step``, the size of the step in tenths of the learning rate, ``loss``, the mean over the
        batches, and ``change``, by which part of itself it has changed.
    """
    task = _started(parameters, seed)
    batches = _batches(task, parameters, case)
    direction = _gradient(task, task.model, task.batch(parameters.start + 1))
    before = _losses(task, _vector(task.model), batches).mean()
    for size in parameters.recorded:
        rate = size / 10 * parameters.setting.learning_rate
        loss = _losses(task, _vector(task.model) - rate * direction, batches).mean()
        yield {"step": size, "loss": loss, "change": loss / before - 1}


def side_trips(parameters: Parameters, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield what lies between two side trips on one fixed batch (Figure 3).

    They leave a plain path at two points, `length` steps apart, and take steps on the same batch.
    The case says on what the loss is taken: ``"training batch"`` or ``"held-out batches"``. For
    comparison, ``"independent networks"`` sets the other trip out from a path with another
    initialisation, and takes the loss on the training batch.

    Yields
    ------
    dict
        ``step`` along the trips, ``loss`` (the mean of the two ends), and ``barrier``: by how much
        the loss in the middle of the straight line between them exceeds that mean.
    """
    task = _started(parameters, seed)
    batches = _batches(task, parameters, case)
    if case == "independent networks":
        later = _started(parameters, seed + 1000).model
    else:
        *_, (_, later) = _onward(task, parameters, parameters.length)
    batch = task.batch(parameters.start + 1)
    ends = [_vector(task.model), _vector(later)]
    for step in range(max(parameters.recorded) + 1):
        if step in parameters.recorded:
            middle, *sides = (
                _losses(task, theta, batches).mean() for theta in (sum(ends) / 2, *ends)
            )
            loss = float(np.mean(sides))
            yield {"step": step, "loss": loss, "barrier": middle - loss}
        ends = [_descended(task, parameters, theta, batch) for theta in ends]


def _descended(
    task: Task, parameters: Parameters, theta: torch.Tensor, batch: Batch
) -> torch.Tensor:
    """Return the parameters after one step on a batch."""
    model = copy.deepcopy(task.model)
    nn.utils.vector_to_parameters(theta, model.parameters())
    return theta - parameters.setting.learning_rate * _gradient(task, model, batch)


def alignment(parameters: Parameters, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield the cosine between two gradients along a path (Figure 7).

    The case says of which two: ``"two schedules"``, on a held-out batch at the same step of the
    path with a constant rate and of the one with linear decay; ``"same batch"``, on that batch now
    and at the start; ``"different batches"``, on that batch and on the training batch of the step,
    both now.

    Yields
    ------
    dict
        ``step``, ``cosine``, and ``norm``: the length of the first of the two gradients divided
        by that on the same batch at the start.
    """
    task = _started(parameters, seed)
    (fixed,) = [task.batch(FAR)]
    first = _gradient(task, task.model, fixed)
    paths = [
        _onward(task, parameters, parameters.length, schedule)
        for schedule in ("constant", "linear")
    ]
    for (step, model), (_, decayed) in zip(*paths, strict=True):
        if step not in parameters.recorded:
            continue
        now = _gradient(task, model, fixed)
        if case == "two schedules":
            other = _gradient(task, decayed, fixed)
        elif case == "same batch":
            other = first
        else:
            other = _gradient(task, model, task.batch(parameters.start + step + 1))
        cosine = nn.functional.cosine_similarity(now, other, dim=0)
        yield {"step": step, "cosine": cosine.item(), "norm": (now.norm() / first.norm()).item()}


def distances(parameters: Parameters, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield the distance of a path to a point, or to another path (Figure 8).

    Both paths set out from the same start; the other one sees other batches. The case says to what:
    ``"the other path's end"``, ``"the other path"`` or ``"the start"``.

    Yields
    ------
    dict
        ``step`` and ``distance``, in parameter space.
    """
    task = _started(parameters, seed)
    steps = parameters.length
    paths = [_onward(task, parameters, steps), _onward(task, parameters, steps, skip=FAR)]
    start = end = _vector(task.model)
    if case == "the other path's end":
        *_, (_, model) = paths[1]
        end = _vector(model)
        paths[1] = _onward(task, parameters, steps)
    for (step, model), (_, other) in zip(*paths, strict=True):
        if step in parameters.recorded:
            to = {"the other path's end": end, "the start": start}.get(case)
            to = _vector(other) if to is None else to
            yield {"step": step, "distance": (_vector(model) - to).norm().item()}


AVERAGES = {"two points": "half the rate", "SWA": "SWA's schedule", "EMA": "EMA's schedule"}
"""The averages of Table 1, each with the name of the training with the schedule it is worth."""


def averages(parameters: Parameters, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield where an average over the last k steps ends, or the schedule it is worth (Figure 5).

    The case is ``"constant rate"``, an average in `AVERAGES`, or its schedule.

    Yields
    ------
    dict
        ``step``, the number k of steps since the start, and what
        `revlib.training.tasks.Task.evaluate` measures; of a schedule also ``distance``: how far its
        end lies from the average, as a multiple of how far the end at the constant rate does.
    """
    task = _started(parameters, seed)
    for k in parameters.recorded:
        plain = _ends(task, parameters, k, np.ones(k))
        if case == "constant rate":
            yield {"step": k} | _evaluated(task, plain[-1])
            continue
        name = next(name for name, schedule in AVERAGES.items() if case in (name, schedule))
        weights = _weights(name, k, parameters.decay)
        average = sum(w * theta for w, theta in zip(weights, plain[::-1], strict=True) if w)
        if case == name:
            yield {"step": k} | _evaluated(task, average)
            continue
        end = _ends(task, parameters, k, averaging.schedule(weights))[-1]
        gap = (average - plain[-1]).norm()
        distance = ((average - end).norm() / gap).item() if k else 0.0
        yield {"step": k} | _evaluated(task, end) | {"distance": distance}


def _weights(average: str, k: int, decay: float) -> np.ndarray:
    """Return the weights of an average over the k + 1 iterates of k steps, the newest first."""
    if k == 0:
        return np.ones(1)
    if average == "EMA":
        return averaging.exponential(decay, k)
    return averaging.points(2, k) if average == "two points" else np.append(averaging.points(k), 0)


def _ends(task: Task, parameters: Parameters, k: int, factors: np.ndarray) -> list[torch.Tensor]:
    """Return the parameters along k steps whose rates are multiplied by some factors."""
    rates = np.append(factors, 0.0)  # the scheduler asks once more, after the last step

    def scheduler(optimizer: torch.optim.Optimizer, steps: int) -> lr_scheduler.LRScheduler:
        return lr_scheduler.LambdaLR(optimizer, lambda step: rates[step])

    return [_vector(model) for _, model in forward_path(task, k, scheduler, parameters.start)]


def _evaluated(task: Task, theta: torch.Tensor) -> dict[str, float]:
    model = copy.deepcopy(task.model)
    nn.utils.vector_to_parameters(theta, model.parameters())
    return task.evaluate(model)


def _setting(preset: str) -> Setting:
    return figures_2_to_11.setting("figure-7", preset).changed(
        hidden=(200, 200, 200) if preset == "paper" else (50, 50),
        batch_size=64 if preset == "paper" else 32,
        learning_rate=0.05,
        train_examples=2000 if preset == "paper" else 300,
        test_examples=2000 if preset == "paper" else 300,
    )


def _study(
    name: str,
    title: str,
    figure: str,
    compute: Callable,
    cases: tuple[str, ...],
    recorded: dict[str, tuple[int, ...]],
    length: dict[str, int],
    quantities: dict[str, str],
) -> Study:
    def size(preset: str) -> Size:
        start, held_out = (1000, 10) if preset == "paper" else (100, 4)
        steps = recorded[preset]
        return Size(
            Parameters(_setting(preset), start, length[preset], held_out, steps),
            (0, 1, 2, 3, 4) if preset == "paper" else (0, 1),
            cases,
            max(steps),
            at=steps,
        )

    return Study(
        name=name,
        title=title,
        section=f"Sandler et al., {figure}",
        chapter="training-trajectories",
        sizes={preset: size(preset) for preset in PRESETS},
        method=Whole(compute),
        quantities=quantities,
    )


_LOSS = {"loss": "loss on the batch that is trained on, or on held-out batches"}
_LONG = {"paper": (0, 1, *range(50, 751, 50)), "sample": (0, 1, *range(10, 101, 10))}

STUDIES = (
    _study(
        "single-step",
        "Loss after one step on a batch, by the size of the step",
        "Figure 2",
        single_step,
        ("held-out batches", "training batch"),
        dict.fromkeys(PRESETS, (0, 1, 2, 5, 10, 20, 50, 100, 200)),
        {"paper": 1, "sample": 1},
        _LOSS | {"change": "part of itself by which the loss has changed"},
    ),
    _study(
        "side-trips",
        "Two side trips on one fixed batch, and what lies between them",
        "Figure 3",
        side_trips,
        ("training batch", "held-out batches", "independent networks"),
        dict.fromkeys(PRESETS, tuple(range(10))),
        {"paper": 500, "sample": 50},
        _LOSS | {"barrier": "loss half way between two networks, above the mean of their own"},
    ),
    _study(
        "gradient-alignment",
        "Angles between gradients along a path",
        "Figure 7",
        alignment,
        ("two schedules", "same batch", "different batches"),
        {"paper": (0, 1, *range(50, 501, 50)), "sample": (0, 1, *range(10, 51, 10))},
        {"paper": 500, "sample": 50},
        {"cosine": "cosine of the angle between two gradients", "norm": "length of a gradient"},
    ),
    _study(
        "path-distances",
        "Distances between two paths from one start",
        "Figure 8",
        distances,
        ("the other path's end", "the other path", "the start"),
        _LONG,
        {"paper": 750, "sample": 100},
        {"distance": "distance in parameter space"},
    ),
    _study(
        "averages-and-schedules",
        "Averages over the last steps beside the schedules they are worth",
        "Table 1 and Figure 5",
        averages,
        ("constant rate", *(name for pair in AVERAGES.items() for name in pair)),
        {"paper": (0, 10, 100, 500), "sample": (0, 5, 50)},
        {"paper": 500, "sample": 50},
        {"distance": "distance of a schedule's end from the average; that of the plain end is 1"},
    ),
)
"""The observations as studies."""
