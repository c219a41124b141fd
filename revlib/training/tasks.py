"""Tasks: what is trained. A model, a loss, a stream of batches, an optimizer, evaluation sets.

:class:`Task` is the way in for a model and data of one's own; the paper's tasks are described in
:mod:`revlib.training.settings`.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

Batch = tuple[torch.Tensor, torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

EVALUATION_CHUNK = 1000  # examples evaluated at once: bounds the memory

LAST_BATCH = "batch"
"""The evaluation set that every iterate has besides those of its task: the batch applied last."""

BY_BATCH = "_by_batch"
"""Marks what was evaluated with the statistics of the evaluated examples (batch normalisation)."""


@dataclass
class Task:
    """A training problem for one seed.

    Parameters
    ----------
    model
        Any module. Its present parameters and buffers are the start point theta(0). It is
        copied, never changed.
    loss
        ``loss(model(inputs), targets)``, a scalar tensor; the mean over the examples it is given.
    batches
        The batches ``B_1, B_2, …`` as pairs ``(inputs, targets)``: a list, a ``DataLoader``, a
        generator, or an object whose ``[n - 1]`` is ``B_n``. What can be run through only once
        or comes shuffled anew is drawn once and kept, so that every order sees the same batches.
    optimizer
        Makes the optimizer from the parameters, for example
        ``functools.partial(torch.optim.SGD, lr=0.1)``.
    evaluation
        The sets on which iterates are evaluated, by name: ``{"test": (inputs, targets)}``. The
        name ``"batch"`` is taken by the batch that was applied last.
    seed
        Names the run in tables, and seeds what the model itself draws while training (dropout).
    """

    model: nn.Module
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    batches: Iterable[Batch]
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    evaluation: Mapping[str, Batch]
    seed: int = 0
    _drawn: list[Batch] = field(default_factory=list, init=False, repr=False)
    _rest: Iterator[Batch] | None = field(default=None, init=False, repr=False)

    def batch(self, n: int) -> Batch:
        """Return the batch ``B_n``, counted from 1."""
        if hasattr(self.batches, "__getitem__"):
            return self.batches[n - 1]
        self._draw(n)
        return self._drawn[n - 1]

    def require(self, steps: int) -> None:
        """Make sure that there are batches for that many steps.

        Raises
        ------
        ValueError
            If the stream of batches is shorter.
        """
        if not hasattr(self.batches, "__getitem__"):
            self._draw(steps)
            available = len(self._drawn)
        elif hasattr(self.batches, "__len__"):
            available = len(self.batches)
        else:
            return  # it computes any batch that is asked for
        if available < steps:
            raise ValueError(
                f"A run of {steps} steps needs as many batches, but the stream of batches ends "
                f"after {available}. Take fewer steps, or pass more batches, for example several "
                "epochs: itertools.chain.from_iterable(loader for epoch in range(epochs))."
            )

    def check(self) -> None:
        """Make sure that model, loss and batches fit together, by trying them on the first batch.

        Raises
        ------
        ValueError
            If they do not.
        """
        if LAST_BATCH in self.evaluation:
            raise ValueError(
                f"An evaluation set cannot be called '{LAST_BATCH}': that is the batch which was "
                "applied last. Give it another name."
            )
        inputs, targets = self.batch(1)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                warnings.filterwarnings(
                    "error", message="Using a target size"
                )  # it would broadcast
                loss = self.loss(copy.deepcopy(self.model)(inputs), targets)
                if loss.numel() != 1:
                    raise ValueError(f"the loss has the shape {tuple(loss.shape)}, not one value")
        except Exception as error:
            raise ValueError(
                f"The model's output on the first batch does not fit the loss: {error}. Inputs "
                f"have the shape {tuple(inputs.shape)}, targets {tuple(targets.shape)}."
            ) from error

    def to(self, device: str) -> Task:
        """Return the same task on another device.

        Raises
        ------
        ValueError
            If the device is not there.
        """
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            there = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
            raise ValueError(
                f"The device '{device}' is not there ({str(error).splitlines()[0].rstrip('.')}). "
                f"On this machine there is: {', '.join(there)}."
            ) from None
        return dataclasses.replace(
            self,
            model=copy.deepcopy(self.model).to(device),
            batches=_Moved(self, device),
            evaluation={
                name: (inputs.to(device), targets.to(device))
                for name, (inputs, targets) in self.evaluation.items()
            },
        )

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: of a stream that cannot be drawn again, the batches drawn."""
        state = vars(self).copy()
        if not hasattr(self.batches, "__getitem__"):
            state |= {"batches": self._drawn, "_drawn": [], "_rest": None}
        return state

    def _draw(self, n: int) -> None:
        if self._rest is None:
            self._rest = iter(self.batches)
        self._drawn.extend(itertools.islice(self._rest, max(0, n - len(self._drawn))))

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, last: int | None = None) -> dict[str, float]:
        """Return ``<set>_loss`` and, for classification, ``<set>_accuracy`` of a model.

        The model is evaluated in evaluation mode and left in the mode it was in. The accuracy is
        defined where the targets are whole numbers and the output has shape (examples, classes).
        Batch normalisation then uses its running statistics; of a model that has it, each set is
        also evaluated with the statistics of the evaluated examples (`EVALUATION_CHUNK` at once),
        as ``<set>_loss_by_batch`` and ``<set>_accuracy_by_batch``.

        Parameters
        ----------
        model
            The model.
        last
            The number of the batch that was applied last, which is then a further set, ``batch``.
        """
        sets = dict(self.evaluation)
        if last is not None:
            sets[LAST_BATCH] = self.batch(last)
        normalising = [m for m in model.modules() if isinstance(m, _BatchNorm)]
        training = model.training
        model.eval()
        measured = {}
        for name, examples in sets.items():
            measured |= self._evaluate(model, name, examples, "")
        if normalising:
            tracked = [m.track_running_stats for m in normalising]
            for (
                module
            ) in normalising:  # in this state it uses no running statistics, and keeps them
                module.train()
                module.track_running_stats = False
            for name, examples in self.evaluation.items():
                measured |= self._evaluate(model, name, examples, BY_BATCH)
            for module, was in zip(normalising, tracked, strict=True):
                module.track_running_stats = was
        model.train(training)
        return measured

    def _evaluate(
        self, model: nn.Module, name: str, examples: Batch, suffix: str
    ) -> dict[str, float]:
        inputs, targets = examples
        loss, correct = 0.0, 0.0
        parts = inputs.split(EVALUATION_CHUNK), targets.split(EVALUATION_CHUNK)
        for x, y in zip(*parts, strict=True):
            output = model(x)
            loss += self.loss(output, y).item() * len(x)
            classifies = output.ndim == 2 and y.ndim == 1 and not y.is_floating_point()
            if classifies:
                correct += (output.argmax(1) == y).sum().item()
        measured = {f"{name}_loss{suffix}": loss / len(inputs)}
        if classifies:
            measured[f"{name}_accuracy{suffix}"] = correct / len(inputs)
        return measured


@dataclass(frozen=True)
class _Moved:
    """The batches of a task, on another device."""

    task: Task
    device: str

    def __getitem__(self, index: int) -> Batch:
        inputs, targets = self.task.batch(index + 1)
        return inputs.to(self.device), targets.to(self.device)


@dataclass(frozen=True)
class ShuffledEpochs:
    """An endless stream of batches: each epoch runs through all examples in a new random order.

    Every batch can be had directly by its index, and does not depend on the length of the run.
    The last batch of an epoch is smaller where the batch size does not divide the examples.

    Parameters
    ----------
    inputs, targets
        The examples, along the first axis.
    size
        Examples in a batch.
    seed
        Seeds the shuffling, together with the number of the epoch.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    size: int
    seed: int

    def __getitem__(self, index: int) -> Batch:
        """Return batch ``B_{index + 1}``."""
        epoch, position = divmod(index, -(-len(self.inputs) // self.size))
        order = _permutation(len(self.inputs), self.seed, epoch)
        chosen = order[position * self.size : (position + 1) * self.size]
        return self.inputs[chosen], self.targets[chosen]


@functools.lru_cache(maxsize=16)
def _permutation(length: int, seed: int, epoch: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(length))


@dataclass(frozen=True)
class IndependentBatches:
    """An endless stream of batches whose examples are drawn independently, with replacement.

    The parameters are those of :class:`ShuffledEpochs`.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    size: int
    seed: int

    def __getitem__(self, index: int) -> Batch:
        """Return batch ``B_{index + 1}``."""
        generator = np.random.default_rng((self.seed, index))
        chosen = torch.from_numpy(generator.integers(len(self.inputs), size=self.size))
        return self.inputs[chosen], self.targets[chosen]
