"""Whether the maps of a trained network contract, and how far its iterates move.

Backward iterates converge where the update maps contract (Theorem 2.2). The paper does not measure
whether those of its networks do. Two measurements, both about points in parameter space:

- the *contraction rate* of a small perturbation of the start along the chain of maps that makes an
  iterate (:func:`contraction_rate`): negative where the chain contracts, positive where nearby
  starts end far apart (a finite-time Lyapunov exponent);
- how far one step *moves* the iterate and its predictions (:func:`motion`): convergence to a point
  is a statement about theta, of which a calm loss is only a shadow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import joblib
import torch
from tqdm import tqdm

from revlib.orders import Order
from revlib.training import evaluation, processes
from revlib.training.maps import Trainer, TrainingState, learning_rate
from revlib.training.sweep import Job
from revlib.training.tasks import Task

METHODS = ("chains", "tangent")

RENORMALISE_EVERY = 10
"""Maps after which the two chains are brought back to their first distance."""


def contraction_rate(
    task: Task, order: Order, step: int, method: str = "chains", size: float | None = None
) -> float:
    """Return the mean contraction rate of a perturbation along the chain of an iterate.

    The chain is the last run of the word at that step, which is what the order replays there; where
    it is a single letter, the whole word. The perturbation is a random direction in the
    space of the parameters, the same for every order of a seed.

    The two methods measure the same thing where the maps are smooth and the size is small. The
    gradient of a ReLU network jumps where a unit switches, so its update map is not continuous: a
    tangent vector never sees a jump, two chains at a distance do.

    Parameters
    ----------
    task
        What is trained.
    order
        The order of iteration.
    step
        Which iterate, 1 or more.
    method
        ``"chains"``: two nearby chains, brought back to their first distance every few maps; for
        any optimizer. ``"tangent"``: a tangent vector, carried by the Jacobian
        ``1 - h H`` of each map, for plain SGD.
    size
        Distance of the two chains; by default the length of the first step of the chain, since
        that is what sets consecutive backward iterates apart.

    Returns
    -------
    float
        ``log(final length / first length) / maps``: the logarithm of the factor by which a map
        stretches the perturbation on average (geometric mean). Not a number if the path diverged.

    Raises
    ------
    ValueError
        If the method is not known or does not apply.

    Examples
    --------
    Least squares on the same two examples at every step: ``1 - h H`` has the factors 0.98 and 0.9.

    >>> import functools, torch
    >>> from revlib import Task, backward
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 5**0.5]])
    >>> sgd = functools.partial(torch.optim.SGD, lr=0.02)
    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> task = Task(model, torch.nn.functional.mse_loss, [(x, x[:, :1])] * 300, sgd, {})
    >>> rate = contraction_rate(task, backward(), 300)
    >>> round(2.718281828**rate, 2)  # after many maps the slowest direction remains
    0.98
    """
    if method not in METHODS:
        raise ValueError(f"'{method}' is not a method. Valid are: {', '.join(METHODS)}.")
    if method == "tangent" and learning_rate(task) is None:
        raise ValueError(
            "The method 'tangent' is for plain SGD, whose map has the Jacobian 1 - h H. "
            "For other optimizers use 'chains'."
        )
    trainer, chain = Trainer(task), _replayed(order, step)
    _apply(trainer, order.applied(step)[: -len(chain)])
    if method == "tangent":
        beside = _Tangent(task)
    else:
        size = _step_length(task, trainer, chain[0]) if size is None else size
        beside = _Companion(task, trainer, size)
    _follow(trainer, chain, beside)
    return beside.stretched / len(chain)


def motion(task: Task, order: Order, step: int) -> dict[str, float]:
    """Return how an iterate depends on its start, and how far the last step moved it.

    Returns
    -------
    dict
        - ``contraction_rate``, and for plain SGD ``tangent_contraction_rate``: see
          :func:`contraction_rate`;
        - ``step_length``: the length of the first step of the chain, ``|T_n theta - theta|``;
        - ``moved``: ``|theta(step) - theta(step - 1)|``, over all parameters;
        - ``travelled``: ``|theta(step) - theta(0)|``, to compare it with;
        - ``predictions_moved``: root mean square of the change of the model's outputs over that
          step, on the first evaluation set, in evaluation mode.
    """
    trainer, chain = Trainer(task), _replayed(order, step)
    start = trainer.state()
    _apply(trainer, order.applied(step - 1))
    before, outputs = trainer.state(), _outputs(task, trainer)
    trainer.load(start)
    _apply(trainer, order.applied(step)[: -len(chain)])
    length = _step_length(task, trainer, chain[0])
    beside: dict[str, Any] = {"contraction_rate": _Companion(task, trainer, length)}
    if learning_rate(task) is not None:
        beside["tangent_contraction_rate"] = _Tangent(task)
    _follow(trainer, chain, *beside.values())
    change = _outputs(task, trainer) - outputs
    return {name: each.stretched / len(chain) for name, each in beside.items()} | {
        "step_length": length,
        "moved": _distance(task, before, trainer.state()),
        "travelled": _distance(task, start, trainer.state()),
        "predictions_moved": change.square().mean().sqrt().item(),
    }


def compute(
    jobs: Iterable[Job], workers: int = 1, progress: bool = False, cluster: str | None = None
) -> Iterator[list[dict]]:
    """Yield the :func:`motion` of jobs, a row for each recorded step, as they are computed.

    Parameters
    ----------
    jobs
        What to measure. There is only one strategy, the plain training loop.
    workers
        Processes on this machine, with one thread each; 1 means in this process.
    progress
        Whether to show a progress bar over the optimizer steps, with the time left.
    cluster
        Address of a Dask scheduler, whose workers are used instead.
    """
    points = [(job, n) for job in jobs for n in job.recorded]
    points.sort(key=lambda point: point[1])
    with (
        processes.pool(workers, cluster) as parallel,
        tqdm(
            total=sum(n for _, n in points), unit=" steps", disable=not progress, mininterval=1
        ) as bar,
    ):
        for row in parallel(joblib.delayed(_row)(job, n) for job, n in points):
            yield [row]
            bar.update(row["step"])


def _row(job: Job, step: int) -> dict[str, Any]:
    processes.end_with_parent()
    with processes.one_thread():
        key = {"seed": job.seed, "order": job.order.name, "step": step}
        return key | motion(job.source(), job.order, step)


def _replayed(order: Order, step: int) -> list[int]:
    """Return the maps of the chain that is looked at, as applied."""
    last = order.runs(step)[-1]
    return list(last) if len(last) > 1 else order.applied(step)


def _apply(trainer: Trainer, maps: Iterable[int]) -> None:
    for n in maps:
        trainer.apply(n)


def _follow(trainer: Trainer, chain: list[int], *beside: _Companion | _Tangent) -> None:
    """Apply a chain of maps, with what goes along beside it."""
    for begin in range(0, len(chain), RENORMALISE_EVERY):
        maps = chain[begin : begin + RENORMALISE_EVERY]
        for n in maps:
            for each in beside:
                each.carry(trainer, n)
            trainer.apply(n)
        for each in beside:
            each.measure(trainer)


class _Companion:
    """A second chain near that of a trainer, brought back to its first distance at each turn."""

    def __init__(self, task: Task, trainer: Trainer, size: float):
        direction = _direction(task)
        state, scale = trainer.state(), size / _norm(direction)
        for (name, _), d in zip(task.model.named_parameters(), direction, strict=True):
            state.model[name] += scale * d
        self.task, self.trainer = task, Trainer(task)
        self.trainer.load(state)
        self.first = _distance(task, trainer.state(), state)
        self.stretched = 0.0

    def carry(self, trainer: Trainer, n: int) -> None:
        """Apply the map that the trainer is going to apply."""
        self.trainer.apply(n)

    def measure(self, trainer: Trainer) -> None:
        """Add up the logarithm of the stretching."""
        near, far = trainer.state(), self.trainer.state()
        distance = _distance(self.task, near, far)
        self.stretched += _log(distance, self.first)
        if math.isfinite(self.stretched):
            self.trainer.load(_scaled(near, far, self.first / distance))


class _Tangent:
    """A tangent vector along the chain of a trainer."""

    def __init__(self, task: Task):
        self.task, self.h = task, learning_rate(task)
        self.vector = _direction(task)
        self.first = _norm(self.vector)
        self.stretched = 0.0

    def carry(self, trainer: Trainer, n: int) -> None:
        """Apply the Jacobian of the map that the trainer is going to apply: ``v - h H v``."""
        model, (inputs, targets) = trainer.model(), self.task.batch(n)
        buffers = [buffer.clone() for buffer in model.buffers()]  # a pass may move them
        parameters = list(model.parameters())
        loss = self.task.loss(model(inputs), targets)
        gradient = torch.autograd.grad(loss, parameters, create_graph=True)
        curved = torch.autograd.grad(gradient, parameters, self.vector)
        self.vector = [v - self.h * c for v, c in zip(self.vector, curved, strict=True)]
        for buffer, before in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(before)

    def measure(self, trainer: Trainer) -> None:
        """Note the logarithm of the stretching."""
        self.stretched = _log(_norm(self.vector), self.first)


def _step_length(task: Task, trainer: Trainer, n: int) -> float:
    """Return how far the map ``T_n`` moves the present state, which is kept."""
    before = trainer.state()
    trainer.apply(n)
    length = _distance(task, before, trainer.state())
    trainer.load(before)
    return length


def _log(length: float, first: float) -> float:
    if math.isfinite(length) and math.isfinite(first) and first > 0:
        return math.log(length / first) if length else -math.inf
    return math.nan


def _direction(task: Task) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(task.seed)
    return [
        torch.randn(p.shape, generator=generator, dtype=p.dtype).to(p.device)
        for p in task.model.parameters()
    ]


def _scaled(near: TrainingState, far: TrainingState, factor: float) -> TrainingState:
    """Return the state at `factor` times the way from one state to another."""
    return TrainingState(
        _between(near.model, far.model, factor), _between(near.rest, far.rest, factor)
    )


def _between(near: Any, far: Any, factor: float) -> Any:
    if isinstance(near, dict):
        return {key: _between(near[key], far[key], factor) for key in near}
    if isinstance(near, (list, tuple)):
        parts = [_between(a, b, factor) for a, b in zip(near, far, strict=True)]
        return type(near)(*parts) if hasattr(near, "_fields") else type(near)(parts)
    if torch.is_tensor(near) and near.is_floating_point():
        return near + factor * (far - near)
    return near


def _distance(task: Task, one: TrainingState, other: TrainingState) -> float:
    return _norm(one.model[n] - other.model[n] for n, _ in task.model.named_parameters())


def _norm(tensors: Iterable[torch.Tensor]) -> float:
    return math.sqrt(sum(t.double().square().sum().item() for t in tensors))


def _outputs(task: Task, trainer: Trainer) -> torch.Tensor:
    model, examples = trainer.model(), next(iter(task.evaluation.values()))
    with evaluation.evaluating(model):
        return evaluation.outputs(model, *examples)
