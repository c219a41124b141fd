"""Update maps ``T: state -> state``, the letters that every order of iteration spells with.

A map is any function that takes a state and returns the next one without changing its argument.
The state may be a number, an array, a tensor, or the :class:`TrainingState` of a network.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from revlib.training import batches, mementos


@dataclass(frozen=True)
class Affine:
    """The affine map ``theta -> a theta + b``.

    Parameters
    ----------
    a
        A number, or a matrix of shape (d, d).
    b
        The shift; a number or an array of the shape of theta. A number `a` acts entry by entry,
        so that many independent realisations can be stacked into one theta.
    """

    a: Any
    b: Any

    def __call__(self, theta: Any) -> Any:
        """Return ``a theta + b``; theta has shape (d,) if `a` is a matrix, any shape otherwise."""
        product = self.a @ theta if np.ndim(self.a) == 2 else self.a * theta
        return product + self.b


@dataclass(frozen=True)
class Constant:
    """The constant map ``theta -> value`` (Example 2.4), the strongest contraction there is."""

    value: Any

    def __call__(self, theta: Any) -> Any:
        """Return the value, whatever theta is."""
        return self.value


def noisy_quadratic(h: float, noise: Iterable[Any]) -> list[Affine]:
    """Return gradient steps on ``theta²/2`` with additive gradient noise (Section 3.1).

    ``T_i(theta) = (1 - h) theta + h eps_i``, one map for each entry ``eps_i`` of `noise`. Where
    an entry is an array, its elements are independent realisations of the same run.
    """
    return [Affine(1 - h, h * eps) for eps in noise]


@dataclass
class TrainingState:
    """Everything one training step reads and writes, so that a replay is exact.

    Parameters
    ----------
    model
        The module's parameters and buffers by name (batch norm's running statistics are among
        the buffers).
    rest
        What else is not as it was at the start, by its path (:mod:`revlib.training.mementos`): the
        optimizer's momentum, Adam's moments, step counts, learning rates, schedules; attributes of
        modules, of the loss, and of whatever hangs on them.
    """

    model: dict[str, torch.Tensor]
    rest: dict[str, Any] = field(default_factory=dict)

    def nbytes(self) -> int:
        """Return how much memory the model's part takes; optimizers keep up to twice as much."""
        return max(1, sum(v.numel() * v.element_size() for v in self.model.values()))


class Trainable(Protocol):
    """What a :class:`Trainer` has to know of a task."""

    seed: int
    restores: bool

    def batch(self, n: int) -> Any:
        """Return the batch ``B_n``, counted from 1."""

    def make(self) -> Any:
        """Return a working copy of all that is trained, at the start."""

    def step(self, made: Any, batch: Any, outputs: Callable[[Any], Any]) -> None:
        """Train a working copy on a batch."""

    def measure(self, made: Any, last: int | None) -> dict[str, float]:
        """Evaluate a working copy."""


@dataclass
class WorkingCopy:
    """What an ordinary training loop works on."""

    model: nn.Module
    loss: Callable[[Any, Any], torch.Tensor]
    optimizer: torch.optim.Optimizer


class StepError(RuntimeError, ValueError):
    """A training step that cannot be taken; the message says on which batch, and why."""


class Trainer:
    """One working copy of all that a task trains, driven in place.

    It replays training steps from any state, for any module and optimizer. The state of a network
    is large, so this copies it only when asked to; :class:`TrainingStep` wraps it as a pure map.

    Parameters
    ----------
    task
        The task; its own module is copied, never touched.

    Attributes
    ----------
    chains
        How many states it can hold side by side, which are then advanced by the same maps. Here
        there is one; :class:`revlib.training.dense.DenseTrainer` holds more.
    """

    chains = 1

    def __init__(self, task: Trainable):
        self.task = task
        with mementos.seeded(task.seed * 1_000_003, [], python=True):
            self._made = task.make()
        ordinary = isinstance(self._made, WorkingCopy)
        self._model = self._made.model if ordinary else self._made
        self._optimizer = self._made.optimizer if ordinary else None
        tensors = [tensor for _, tensor in self._tensors()]
        self._cuda = list({t.device for t in tensors if t.device.type == "cuda"})
        self._python = not ordinary or not mementos.only_torch(self._made)

    @property
    def working_copy(self) -> Any:
        """What is trained, in place."""
        return self._made

    @functools.cached_property
    def inventory(self) -> mementos.Inventory:
        """What can be reached from the working copy, as it is when this is asked for first."""
        if isinstance(self._made, WorkingCopy):
            return mementos.Inventory(vars(self._made), dict(self._tensors()))
        return mementos.Inventory({"made": self._made})

    def state(self) -> TrainingState:
        """Return a copy of the present state (of the first chain)."""
        if self._optimizer is not None:
            self._optimizer.zero_grad()  # each step begins with that
        tensors = dict(self._tensors())
        return TrainingState(
            {name: value.detach().clone() for name, value in tensors.items()},
            self.inventory.changes(tensors),
        )

    def load(self, state: TrainingState, chain: int = 0) -> None:
        """Make a copy of `state` the present state (of a chain)."""
        self.inventory.restore(state.rest, state.model)

    def model(self, chain: int = 0) -> nn.Module:
        """Return the module at the present state of a chain, to be evaluated and not changed."""
        return self._model

    def evaluate(self, last: int | None = None, chain: int = 0) -> dict[str, float]:
        """Return what is measured at the present state of a chain, which stays as it is.

        Parameters
        ----------
        last
            The number of the batch that was applied last.
        chain
            Which chain.
        """
        before = self.state() if self.task.restores else None
        with self._seeded(0), exact(self._cuda):
            measured = self.task.measure(self._made, last)
        if before is not None:
            self.load(before)
        return measured

    def apply(self, n: int, chains: int = 1) -> None:
        """Apply the map ``T_n`` (to the first chains): an optimizer step on the n-th batch.

        The random numbers that a module draws while training (dropout) belong to the map, so
        they are the same whenever ``T_n`` is applied. The caller's random state is not touched.

        Raises
        ------
        StepError
            If the batch cannot be trained on, or is changed by it.
        """
        batch = self.task.batch(n)
        versions = batches.versions(batch)
        self.advance(n, batch)
        if not self.task.copies and batches.versions(batch) != versions:
            raise StepError(
                f"The training step on batch {n} changes that batch in place, and did not change "
                "the first one. A replay would begin with other data: let the model or the step "
                "work on a clone of its inputs."
            )

    def advance(self, n: int, batch: Any) -> None:
        """Take a step on a batch, with the random numbers of ``T_n``."""
        _ = self.inventory  # of the start
        try:
            with self._seeded(n), exact(self._cuda):
                self.task.step(self._made, batch, self._outputs)
        except Exception as error:
            raise StepError(
                f"The training step on batch {n} failed ({type(error).__name__}): "
                f"{batches.why(error)}."
            ) from error

    def _seeded(self, n: int) -> contextlib.AbstractContextManager[None]:
        return mementos.seeded(self.task.seed * 1_000_003 + n, self._cuda, self._python)

    def _outputs(self, inputs: Any) -> Any:
        return self._model(inputs)

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        if isinstance(self._made, WorkingCopy):
            yield from self._model.named_parameters()
            yield from self._model.named_buffers()
        else:
            yield from self.inventory.tensors()


@dataclass(frozen=True)
class TrainingStep:
    """The map ``T_n`` of a task: one optimizer step on its n-th batch, as a pure function.

    Parameters
    ----------
    trainer
        The working copy on which the step is carried out.
    n
        Which batch, counted from 1.
    """

    trainer: Trainer
    n: int

    def __call__(self, state: TrainingState) -> TrainingState:
        """Return the state after the step; the argument is not changed."""
        self.trainer.load(state)
        self.trainer.apply(self.n)
        return self.trainer.state()


def exact(cuda: list[torch.device]) -> contextlib.AbstractContextManager[None]:
    """Let graphics cards compute in the precision of the operands, and the same bits each time."""
    if not cuda:
        return contextlib.nullcontext()
    on = torch.backends.cudnn.enabled
    return torch.backends.cudnn.flags(enabled=on, deterministic=True, allow_tf32=False)


def learning_rate(task: Any) -> float | None:
    """Return the learning rate of plain SGD (no momentum, no weight decay), None for all else."""
    if not isinstance(task.model, nn.Module):
        return None
    # Not the model's own: who makes the optimizer may change what it is given, or hang hooks on it.
    given = list(task.model.parameters())
    parameters = [nn.Parameter(p.detach().clone(), requires_grad=p.requires_grad) for p in given]
    if not parameters:
        return None
    optimizer = task.optimizer(parameters)
    if type(optimizer) is not torch.optim.SGD or len(optimizer.param_groups) != 1:
        return None
    plain = {**torch.optim.SGD(parameters, lr=0.1).defaults, "lr": optimizer.defaults.get("lr")}
    if _steps_otherwise(optimizer) or not _as_given(parameters, given):
        return None
    taken = optimizer.param_groups[0]["params"]
    if [id(parameter) for parameter in taken] != [id(parameter) for parameter in parameters]:
        return None
    group = {name: value for name, value in optimizer.param_groups[0].items() if name in plain}
    ways_to_do_the_same = {"foreach": None, "fused": None, "differentiable": False}
    same = {**group, **ways_to_do_the_same} == {**plain, **ways_to_do_the_same}
    return group["lr"] if same and isinstance(group["lr"], float) else None


def _steps_otherwise(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether something hangs on an optimizer's step, or stands in its place."""
    return bool(
        vars(optimizer).keys() & {"step", "zero_grad"}
        or optimizer._optimizer_step_pre_hooks
        or optimizer._optimizer_step_post_hooks
        or _global_optimizer_pre_hooks
        or _global_optimizer_post_hooks
    )


def _as_given(parameters: list[nn.Parameter], given: list[nn.Parameter]) -> bool:
    """Return whether parameters still are what they are copies of, and have no hooks."""
    return all(
        own.requires_grad == other.requires_grad
        and not own._backward_hooks
        and not own._post_accumulate_grad_hooks
        and mementos.difference(own.detach(), other.detach()) is None
        for own, other in zip(parameters, given, strict=True)
    )
