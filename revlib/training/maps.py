"""Update maps ``T: state -> state``, the letters that every order of iteration spells with.

A map is any function that takes a state and returns the next one without changing its argument.
The state may be a number, an array, a tensor, or the :class:`TrainingState` of a network.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from revlib.training.tasks import Task


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
    optimizer
        The optimizer's state: momentum, Adam's moments, step counts, learning rates.
    """

    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]

    def nbytes(self) -> int:
        """Return how much memory the model's part takes; optimizers keep up to twice as much."""
        return sum(value.nbytes for value in self.model.values())


class Trainer:
    """One working copy of a task's model and optimizer, driven in place.

    It replays training steps from any state, for any module and optimizer. The state of a network
    is large, so this copies it only when asked to; :class:`TrainingStep` wraps it as a pure map.

    Parameters
    ----------
    task
        The task; its own module is copied, never touched.

    Attributes
    ----------
    chains : int
        How many states it can hold side by side, which are then advanced by the same maps. Here
        there is one; :class:`revlib.training.dense.DenseTrainer` holds more.
    """

    chains = 1

    def __init__(self, task: Task):
        self.task = task
        self._model = copy.deepcopy(task.model).train()
        self._optimizer = task.optimizer(self._model.parameters())

    def state(self) -> TrainingState:
        """Return a copy of the present state (of the first chain)."""
        return TrainingState(
            {name: value.detach().clone() for name, value in self._tensors()},
            copy.deepcopy(self._optimizer.state_dict()),
        )

    def load(self, state: TrainingState, chain: int = 0) -> None:
        """Make a copy of `state` the present state (of a chain)."""
        with torch.no_grad():
            for name, value in self._tensors():
                value.copy_(state.model[name])
        # The optimizer would go on with the very tensors it is given, and change them.
        self._optimizer.load_state_dict(copy.deepcopy(state.optimizer))

    def model(self, chain: int = 0) -> nn.Module:
        """Return the module at the present state of a chain, to be evaluated and not changed."""
        return self._model

    def apply(self, n: int, chains: int = 1) -> None:
        """Apply the map ``T_n`` (to the first chains): an optimizer step on the n-th batch.

        The random numbers that a module draws while training (dropout) belong to the map, so
        they are the same whenever ``T_n`` is applied. The caller's random state is not touched.
        """
        inputs, targets = self.task.batch(n)
        seed = self.task.seed * 1_000_003 + n
        cuda = [inputs.device] if inputs.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed is 20 times slower
            for _ in cuda:
                torch.cuda.manual_seed(seed)
            self._optimizer.zero_grad()
            self.task.loss(self._outputs(inputs), targets).backward()
            self._optimizer.step()

    def _outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._model(inputs)

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from self._model.named_parameters()
        yield from self._model.named_buffers()


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


def learning_rate(task: Task) -> float | None:
    """Return the learning rate of plain SGD (no momentum, no weight decay), None for all else."""
    parameters = list(task.model.parameters())
    if not parameters:
        return None
    optimizer = task.optimizer(parameters)
    plain = {**torch.optim.SGD(parameters, lr=0.1).defaults, "lr": optimizer.defaults.get("lr")}
    if type(optimizer) is not torch.optim.SGD or len(optimizer.param_groups) != 1:
        return None
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return None
    group = {name: value for name, value in optimizer.param_groups[0].items() if name in plain}
    ways_to_do_the_same = {"foreach": None, "fused": None, "differentiable": False}
    same = {**group, **ways_to_do_the_same} == {**plain, **ways_to_do_the_same}
    return group["lr"] if same and isinstance(group["lr"], float) else None
