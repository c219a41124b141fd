"""Tasks: what is trained. A model, a loss, a stream of batches, an optimizer, evaluation sets.

:class:`Task` is the way in for a model and data of one's own; the paper's tasks are described in
:mod:`revlib.training.settings`.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
import numpy as np
import torch
from torch import nn

from revlib.store import provenance
from revlib.training import batches, evaluation, mementos, trials
from revlib.training.evaluation import Loss
from revlib.training.maps import WorkingCopy

Batch = tuple[torch.Tensor, torch.Tensor]

LAST_BATCH = "batch"
"""The evaluation set that every iterate has besides those of its task: the batch applied last."""


_KEYS = {"seed", "order", "step"}
_MEASURED = {each + end for each in ("loss", "accuracy") for end in ("", evaluation.BY_BATCH)}


class _Training:
    """What tasks of all kinds have in common: batches, a seed, copies."""

    batches: Any
    seed: int
    copies: bool
    restores: bool

    def __setattr__(self, name: str, value: Any) -> None:
        """Take the seed and the batches in whatever form they come.

        Raises
        ------
        ValueError
            If that is none that is known.
        """
        if name == "seed":
            try:
                value = operator.index(value)
            except TypeError:
                raise ValueError(f"The seed must be a whole number; got {value!r}.") from None
        if name == "optimizer" and not callable(value):
            raise ValueError(
                "The optimizer must be a function that makes one from parameters, "
                f"functools.partial(torch.optim.SGD, lr=0.1) say; got a {type(value).__name__}."
            )
        if name == "model" and not callable(value):
            raise ValueError(
                "The model must be a module, or a function without arguments that makes one; got "
                f"{value!r}."
            )
        if name == "loss" and isinstance(value, type) and issubclass(value, nn.Module):
            raise ValueError(f"The loss is a class: give an object of it, {value.__name__}().")
        if name == "make" and not callable(value):
            raise ValueError(f"Task.of takes a function as make; got a {type(value).__name__}.")
        if name == "metrics" and not isinstance(value, Mapping):
            raise ValueError(
                "The metrics must be functions by name, {'error': error} say; got a "
                f"{type(value).__name__}."
            )
        if name == "metrics" and (taken := _MEASURED & value.keys()):
            raise ValueError(
                f"A metric may not be called {' or '.join(sorted(taken))}: what is measured "
                "anyway, where it is defined, has that name. Give it another one."
            )
        if name == "batches" and hasattr(value, "keys"):
            raise ValueError(
                f"The batches must be a list or another sequence of pairs, and a "
                f"{type(value).__name__} has names. Make pairs of tensors of it: "
                "[(inputs[i], targets[i]) for i in …]."
            )
        # A data set that can only be run through inherits a __getitem__ that refuses.
        stream = isinstance(value, torch.utils.data.IterableDataset)
        if name == "batches" and (stream or not hasattr(value, "__getitem__")):
            if not isinstance(value, Iterable):
                raise ValueError(
                    "The batches must be a list, a loader or anything else that can be run "
                    f"through; got a {type(value).__name__}."
                )
            value = batches.Stream(value)
        super().__setattr__(name, value)

    def batch(self, n: int) -> Any:
        """Return the batch ``B_n``, counted from 1."""
        batch = self._as_taken(self.batches[n - 1], n)
        return batches.copied(batch) if self.copies else batch

    def _as_taken(self, batch: Any, n: int) -> Any:
        return batch

    def require(self, steps: int) -> None:
        """Make sure that there are batches for that many steps.

        Raises
        ------
        ValueError
            If the stream of batches is shorter.
        """
        if isinstance(self.batches, batches.Stream):
            available = self.batches.draw(steps)
        elif hasattr(self.batches, "__len__"):
            available = len(self.batches)
        else:
            available = next((n for n in range(steps, 0, -1) if self._has(n)), 0)
        if available < steps:
            raise ValueError(
                f"A run of {steps} steps needs as many batches, but the stream of batches ends "
                f"after {available}. Take fewer steps, or pass more batches, for example several "
                "epochs: itertools.chain.from_iterable(loader for epoch in range(epochs))."
            )

    def _has(self, n: int) -> bool:
        try:
            self.batches[n - 1]
        except IndexError:
            return False
        return True

    def first(self) -> Any:
        """Return the first batch, None if there is none."""
        with contextlib.suppress(IndexError):
            return self.batch(1)

    def check(self, steps: int = 1) -> None:
        """Make sure that the task can be replayed exactly, by trying it (:mod:`.trials`).

        A few steps, an evaluation of each set, and a second replay of these steps from the same
        state, which has to give the same bits. Nothing that is given is changed.

        Parameters
        ----------
        steps
            How long the run will be: no more steps are tried.

        Raises
        ------
        ValueError
            If something does not work; it says what.
        """
        trials.check(self, steps)

    def __copy__(self) -> Any:
        """Return the same task; so does ``dataclasses.replace`` but for what it replaces."""
        return dataclasses.replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return a task with parts of its own, but for the batches drawn, which are shared."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}
        return dataclasses.replace(self, **copy.deepcopy(fields, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a task be pickled that holds functions without a name, as most do."""
        return _unpickled, (type(self), _pickled(vars(self)))


def _pickled(thing: Any) -> bytes:
    """Return an object as bytes, for another process.

    Raises
    ------
    ValueError
        If it holds what cannot travel.
    """
    try:
        return cloudpickle.dumps(thing)
    except Exception as error:
        raise ValueError(
            f"The task cannot be sent to another process: {batches.why(error)}. Compute with "
            "workers=1; or let nothing that it uses, not even a global variable, hold a lock, a "
            "file or a connection."
        ) from error


def _unpickled(kind: type, content: bytes) -> Any:
    task = object.__new__(kind)
    vars(task).update(cloudpickle.loads(content))
    return task


@dataclass
class Task(_Training):
    """A training problem for one seed.

    Parameters
    ----------
    model
        Any module. Its present parameters and buffers are the start point theta(0). It is
        copied, never changed. Or a function without arguments that makes it, the same each time:
        the way out for what cannot be copied. Layers that are in evaluation mode, while the model
        is not, are frozen: they stay in it.
    loss
        ``loss(model(inputs), targets)``, a scalar tensor. A loss that is an object is copied too.
    batches
        The batches ``B_1, B_2, …`` as pairs ``(inputs, targets)``: a list, a ``DataLoader``, a
        generator, or an object whose ``[n - 1]`` is ``B_n``. What can be run through only once
        or comes shuffled anew is drawn once and kept, so that every order sees the same batches.
        Inputs and targets are tensors or NumPy arrays, or dictionaries, lists or tuples of them.
    optimizer
        Makes the optimizer from the parameters, for example
        ``functools.partial(torch.optim.SGD, lr=0.1)``.
    evaluation
        The sets on which iterates are evaluated, by name: ``{"test": (inputs, targets)}``, or a
        data set or loader of such pairs. The name ``"batch"`` is taken by the batch that was
        applied last.
    seed
        Names the run in tables, and seeds what is drawn at random while training (dropout).
    metrics
        What else is measured on each set, by name: ``{"auc": f}`` with a number
        ``f(model(inputs), targets)``.
    """

    model: nn.Module | Callable[[], nn.Module]
    loss: Loss
    batches: Iterable[Batch]
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    evaluation: Mapping[str, Any]
    seed: int = 0
    metrics: Mapping[str, Callable[[Any, Any], Any]] = field(default_factory=dict)
    # Found by check(): whether batches are changed in place; whether evaluation leaves traces.
    copies: bool = field(default=False, init=False, repr=False)
    restores: bool = field(default=False, init=False, repr=False)

    def __setattr__(self, name: str, value: Any) -> None:
        """Take the evaluation sets in whatever form they come.

        Raises
        ------
        ValueError
            If that is none that is known.
        """
        if name == "evaluation":
            if not isinstance(value, Mapping):
                raise ValueError(
                    "The evaluation sets come by name, {'test': (inputs, targets)}; got a "
                    f"{type(value).__name__}."
                )
            if LAST_BATCH in value:
                raise ValueError(
                    f"An evaluation set cannot be called '{LAST_BATCH}': that is the batch which "
                    "was applied last. Give it another name."
                )
            value = {each: batches.examples(each, given) for each, given in value.items()}
        super().__setattr__(name, value)

    @staticmethod
    def of(
        make: Callable[[], Any],
        step: Callable[[Any, Any], None],
        evaluate: Callable[[Any], Mapping[str, float]],
        batches: Iterable[Any],
        seed: int = 0,
    ) -> OwnTask:
        """Return a task that is not a model with a loss and an optimizer, but anything else.

        Parameters
        ----------
        make
            Makes all that is trained, the same each time: models, optimizers, schedules.
        step
            ``step(made, batch)`` takes a training step, in place. All that it changes has to hang
            on what `make` returned.
        evaluate
            ``evaluate(made)`` measures it: a number for each column of the table.
        batches
            Anything, in the forms that :class:`Task` takes.
        seed
            Names the run, and seeds what is drawn at random.

        Examples
        --------
        A sum, in backward order:

        >>> import revlib, types
        >>> task = revlib.Task.of(
        ...     make=lambda: types.SimpleNamespace(total=1.0),
        ...     step=lambda made, batch: setattr(made, "total", made.total / 2 + batch),
        ...     evaluate=lambda made: {"total": made.total},
        ...     batches=[8.0, 4.0, 2.0],
        ... )
        >>> revlib.trajectory(task, revlib.backward(), 3)["total"].tolist()
        [1.0, 8.5, 10.25, 10.625]
        """
        return OwnTask(make, step, evaluate, batches, seed)

    def _as_taken(self, batch: Any, n: int) -> Any:
        return batches.pair(batch, f"Batch {n}")

    def plain(self) -> bool:
        """Return whether only the model, the loss and the optimizer say what a step is.

        Faster ways than a plain training loop need not look at anything else then: there are no
        hooks, and a batch is a pair of tensors that nobody changes.
        """
        kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        return (
            isinstance(self.model, nn.Module)
            and not (self.copies or self.restores)
            and all(isinstance(part, torch.Tensor) for part in self.first() or (None,))
            and not any(nn.modules.module.__dict__[f"_global{kind}"] for kind in kinds)
            and not any(getattr(module, kind) for module in self.model.modules() for kind in kinds)
            and not any("forward" in vars(module) for module in self.model.modules())
            and not any(
                parameter._backward_hooks or parameter._post_accumulate_grad_hooks
                for parameter in self.model.parameters()
            )
        )

    def to(self, device: str) -> Task:
        """Return the same task on another device.

        Raises
        ------
        ValueError
            If the device is not there.
        """
        provenance.accelerator(device)  # it is there
        model, loss = self._parts()
        made = not isinstance(self.model, nn.Module)
        return dataclasses.replace(
            self,
            model=functools.partial(_made_on, self.model, device) if made else model.to(device),
            loss=_loss_on(loss, device),
            batches=batches.Moved(self.batches, device),
            evaluation=batches.moved(self.evaluation, device),
        )

    def _parts(self) -> tuple[nn.Module, Loss]:
        """Return a model and a loss that may be changed."""
        if isinstance(self.model, nn.Module):
            return _copied(self.model, self.loss)
        try:
            model = self.model()
        except Exception as error:
            raise ValueError(
                f"The function that makes the model failed: {batches.why(error)}. It is called "
                "without arguments."
            ) from error
        if not isinstance(model, nn.Module):
            raise ValueError(
                "The model must be a torch.nn.Module or a function that makes one; this one "
                f"returned a {type(model).__name__}."
            )
        return model, _copied(None, self.loss)[1]

    def make(self) -> WorkingCopy:
        """Return a working copy of model, loss and optimizer, ready for training.

        Raises
        ------
        ValueError
            If the model cannot be copied, or the optimizer does not hold its parameters.
        """
        model, loss = self._parts()
        if any(nn.parameter.is_lazy(value) for value in model.parameters()):
            raise ValueError(
                "The model has lazy layers, whose parameters have no shape yet. Run a batch "
                "through it once, model(inputs), before it is given."
            )
        if not model.training:
            model.train()
        try:
            optimizer = self.optimizer(model.parameters())
        except Exception as error:
            raise ValueError(
                f"The optimizer cannot be made: {batches.why(error)}. It must be a function of the "
                "parameters alone, functools.partial(torch.optim.SGD, lr=0.1) say."
            ) from error
        groups = getattr(optimizer, "param_groups", None)
        if groups is None:
            raise ValueError(
                "The optimizer must be a function that makes one from the parameters, "
                "functools.partial(torch.optim.SGD, lr=0.1) say; this one returned a "
                f"{type(optimizer).__name__}."
            )
        own = {id(parameter) for parameter in model.parameters()}
        held = [parameter for group in groups for parameter in group["params"]]
        foreign = [parameter for parameter in held if id(parameter) not in own]
        if foreign:
            raise ValueError(
                f"The optimizer does not hold the parameters it was given: {len(foreign)} of "
                f"{len(held)} are others, of shape {tuple(foreign[0].shape)} say. Make it from the "
                "parameters that are handed over, which are those of a copy of the model; or use "
                "revlib.Task.of, which makes model and optimizer together."
            )
        return WorkingCopy(model, loss, optimizer)

    def step(self, made: WorkingCopy, batch: Batch, outputs: Callable[[Any], Any]) -> None:
        """Take a training step in place.

        Parameters
        ----------
        made
            What is trained.
        batch
            On what.
        outputs
            The model, or what computes the same.
        """
        inputs, targets = batch

        def closure() -> torch.Tensor:
            made.optimizer.zero_grad()
            loss = made.loss(outputs(inputs), targets)
            loss.backward()
            return loss

        if _asks_for_a_closure(type(made.optimizer)):
            made.optimizer.step(closure)
        else:
            closure()
            made.optimizer.step()

    def measure(self, made: WorkingCopy, last: int | None) -> dict[str, float]:
        """Evaluate a working copy."""
        own = {} if made.loss is self.loss else {"loss": made.loss}
        return self.evaluate(made.model, last, **own)

    def evaluate(
        self, model: nn.Module, last: int | None = None, loss: Loss | None = None
    ) -> dict[str, float]:
        """Return ``<set>_loss`` and, for classification, ``<set>_accuracy`` of a model.

        The loss is that of the whole set, whatever it averages over. The model is evaluated in
        evaluation mode and left in the mode it was in. The accuracy is defined where the targets
        are classes (or left out by the loss, such as -100), and the output has one score for each:
        shape (examples, classes). Then come ``<set>_<metric>`` of the task's metrics.
        Batch normalisation uses its running statistics; of a model that has it, each set is also
        evaluated with the statistics of the evaluated examples (`EVALUATION_CHUNK` at once), as
        ``<set>_loss_by_batch`` and ``<set>_accuracy_by_batch``.

        Parameters
        ----------
        model
            The model.
        last
            The number of the batch that was applied last, which is then a further set, ``batch``.
        loss
            Another one than the task's, by default that.
        """
        sets = self.evaluation
        if self.copies:
            sets = {name: batches.copied(examples) for name, examples in sets.items()}
        newest = {} if last is None else {LAST_BATCH: self.batch(last)}
        return evaluation.measured(model, loss or self.loss, sets, newest, self.metrics)


@dataclass
class OwnTask(_Training):
    """A task of any kind; made by :meth:`Task.of`, which describes the parameters."""

    make: Callable[[], Any]
    take: Callable[[Any, Any], None]
    evaluation: Callable[[Any], Mapping[str, float]]
    batches: Iterable[Any]
    seed: int = 0
    copies: bool = field(default=False, init=False, repr=False)
    restores: bool = field(default=False, init=False, repr=False)

    def step(self, made: Any, batch: Any, outputs: Any) -> None:
        """Take a training step in place."""
        self.take(made, batch)

    def measure(self, made: Any, last: int | None) -> dict[str, float]:
        """Evaluate what is trained."""
        found = self.evaluation(made)
        try:
            measured = {name: float(value) for name, value in found.items()}
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                "What evaluate() returns must be numbers by name, {'loss': 0.5} say; got "
                f"{repr(found)[:100]}."
            ) from error
        if taken := _KEYS & measured.keys():
            raise ValueError(
                f"What is evaluated may not be called {' or '.join(sorted(taken))}: the table has "
                "such a column of its own."
            )
        return measured

    def plain(self) -> bool:
        """Return False: nothing is known of its steps."""
        return False

    def to(self, device: str) -> OwnTask:
        """Refuse: only `make` knows where things are.

        Raises
        ------
        ValueError
            Always.
        """
        raise ValueError(
            f"A task of one's own is not moved to '{device}': let make and step put things there."
        )


def _copied(model: nn.Module | None, loss: Loss) -> tuple[Any, Any]:
    """Return copies of a model and its loss, which may know of each other.

    Raises
    ------
    ValueError
        If they cannot be copied.
    """
    try:
        model, loss = mementos.copied(model, loss)
    except Exception as error:
        raise ValueError(
            f"The model and its loss cannot be copied: {batches.why(error)}. {trials.WAY_OUT}"
        ) from error
    if model is not None and any(not parameter.is_leaf for parameter in model.parameters()):
        raise ValueError(
            "The model cannot be copied: its parameters do not come out as parameters, as with "
            f"torch.jit.script. {trials.WAY_OUT}"
        )
    return model, loss


def _made_on(make: Callable[[], nn.Module], device: str) -> nn.Module:
    return make().to(device)


def _loss_on(loss: Loss, device: str) -> Loss:
    """Return a loss with what it holds on another device."""
    if isinstance(loss, functools.partial):
        return functools.partial(
            loss.func,
            *batches.moved(loss.args, device),
            **batches.moved(loss.keywords, device),
        )
    return loss.to(device) if isinstance(loss, nn.Module) else loss


@functools.cache
def _asks_for_a_closure(kind: type) -> bool:
    """Return whether an optimizer's step evaluates the loss itself, as that of LBFGS does."""
    parameters = list(inspect.signature(kind.step).parameters.values())[1:2]
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(p.kind in named and p.default is inspect.Parameter.empty for p in parameters)


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
