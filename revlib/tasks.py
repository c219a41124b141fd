"""Tasks: what is trained. A model, a loss, a stream of batches, an optimizer, evaluation sets.

:class:`Task` is the way in for a model and data of one's own. :class:`Setting` and :func:`build`
describe the paper's tasks as data, so that every choice can be read, stored and changed.
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

from revlib import datasets, models, provenance

Batch = tuple[torch.Tensor, torch.Tensor]

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


SAMPLINGS = {"epochs": ShuffledEpochs, "independent": IndependentBatches}

SCALINGS = ("unit", "standardised")

FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "x^2": lambda x: x**2,
    "cos(10x)": lambda x: torch.cos(10 * x),
    "x^3": lambda x: x**3,
}
"""The functions of Section A.1, by the name of the data set that is drawn from each."""


@dataclass(frozen=True)
class Setting:
    """All choices that determine the numbers of an experiment, for any seed, order and step.

    A choice that does not arise (the stem of a network that has none) is None.

    Parameters
    ----------
    data
        Name of an image data set (:func:`revlib.datasets.load`), or of a function in
        :data:`FUNCTIONS`, which is learned from its values on [-1, 1].
    sample
        Whether to use the small sample that comes with the package instead of the full set, and
        double precision instead of single (:func:`precision`).
    model
        ``"mlp"`` (ReLU), ``"resnet18"``, ``"resnet50"`` or ``"vgg19"``.
    hidden
        Widths of the hidden layers of the MLP.
    stem, normalisation
        Of the convolutional networks (:func:`revlib.models.convolutional`).
    init
        Initialisation of the parameters: for the MLP a name in :data:`revlib.models.INITS`; the
        convolutional networks have only ``"torchvision"``, that library's own.
    scaling
        ``"unit"``: pixels in [0, 1], the argument of a function as it is, in [-1, 1];
        ``"standardised"``: then shifted and scaled, each colour on its own, to mean 0 and standard
        deviation 1 over the training set.
    sampling
        ``"epochs"`` (:class:`ShuffledEpochs`) or ``"independent"`` (:class:`IndependentBatches`).
    batch_size
        Examples in a batch.
    learning_rate
        The paper's h.
    train_examples, test_examples
        How many examples, the first of the training and of the test set, the curves are evaluated
        on; all of them if None.
    nudge
        No choice, but a way to see what rounding does: every entry of the start is moved by one
        unit of rounding, up or down, in one of many ways that are numbered from 1; 0 leaves it.
    """

    data: str
    sample: bool
    model: str
    hidden: tuple[int, ...] | None
    stem: str | None
    normalisation: str | None
    init: str
    scaling: str
    sampling: str
    batch_size: int
    learning_rate: float
    train_examples: int | None
    test_examples: int | None
    nudge: int = 0

    def __post_init__(self) -> None:
        """Let the widths be given as a list, as papermill passes them."""
        if self.hidden is not None:
            object.__setattr__(self, "hidden", tuple(self.hidden))

    def changed(self, **changes: Any) -> Setting:
        """Return the setting with some fields changed; those given as None stay as they are.

        Raises
        ------
        ValueError
            If there is no such field.
        """
        names = [f.name for f in dataclasses.fields(self)]
        for name in changes:
            if name not in names:
                raise ValueError(f"A setting has no '{name}'. It has: {', '.join(names)}.")
        return dataclasses.replace(self, **{k: v for k, v in changes.items() if v is not None})

    def digest(self) -> str:
        """Return a digest of the data; equal data have the same digest.

        Raises
        ------
        revlib.datasets.DataNotFoundError
            If the data is not on this machine and cannot be downloaded.
        """
        if self.data in FUNCTIONS:
            return provenance.digest(self.data)  # the name says it all
        return datasets.load(self.data, self.sample).digest


def precision(sample: bool) -> torch.dtype:
    """Return the precision of an experiment: double on the sample, single on the full data.

    Processors add in different orders. In single precision a few hundred chaotic steps carry the
    difference into the digits that a chapter prints; in double precision nothing is seen of it.
    """
    return torch.float64 if sample else torch.float32


def build(setting: Setting, seed: int) -> Task:
    """Return the task that a setting describes, for one seed.

    The seed determines the start point and the batches; they are drawn independently.

    Raises
    ------
    ValueError
        If a field has a value that is not valid.
    revlib.datasets.DataNotFoundError
        If the data is not on this machine and cannot be downloaded.
    """
    if setting.sampling not in SAMPLINGS:
        raise ValueError(
            f"'{setting.sampling}' is not a sampling. Valid are: {', '.join(SAMPLINGS)}."
        )
    x_train, y_train, x_test, y_test = _scaled(setting.data, setting.sample, setting.scaling)
    classifies = setting.data not in FUNCTIONS
    classes = datasets.load(setting.data, setting.sample).classes if classifies else "y"
    kept, shown = setting.train_examples, setting.test_examples
    return Task(
        model=nudged(_model(setting, x_train[0], len(classes), seed), setting.nudge),
        loss=nn.functional.cross_entropy if classifies else nn.functional.mse_loss,
        batches=SAMPLINGS[setting.sampling](x_train, y_train, setting.batch_size, seed),
        optimizer=functools.partial(torch.optim.SGD, lr=setting.learning_rate),
        evaluation={
            "train": (x_train[:kept], y_train[:kept]),
            "test": (x_test[:shown], y_test[:shown]),
        },
        seed=seed,
    )


def nudged(model: nn.Module, nudge: int) -> nn.Module:
    """Return a model after each of its numbers was moved by one unit of rounding, up or down.

    Parameters
    ----------
    model
        The model, which is changed.
    nudge
        Which of many ways to do that, counted from 1; with 0 it stays as it is.
    """
    generator = torch.Generator().manual_seed(nudge)
    for value in model.state_dict().values() if nudge else ():
        if value.is_floating_point():
            sign = torch.randint(0, 2, value.shape, generator=generator) * 2 - 1
            value.mul_(1 + sign.to(value) * torch.finfo(value.dtype).eps)
    return model


def _model(setting: Setting, example: torch.Tensor, outputs: int, seed: int) -> nn.Module:
    if setting.model == "mlp":
        widths = (example.numel(), *setting.hidden, outputs)
        return models.mlp(widths, setting.init, seed, example.dtype)
    if setting.model not in models.CONVOLUTIONAL:
        known = ", ".join(("mlp", *models.CONVOLUTIONAL))
        raise ValueError(f"There is no model '{setting.model}'. Valid are: {known}.")
    if setting.init != "torchvision":
        raise ValueError(
            f"'{setting.init}' is not an initialisation of {setting.model}. "
            "It has torchvision's own: torchvision."
        )
    return models.convolutional(
        setting.model, outputs, setting.stem, setting.normalisation, seed, example.dtype
    )


@functools.lru_cache(maxsize=2)
def _scaled(name: str, sample: bool, scaling: str) -> tuple[torch.Tensor, ...]:
    """Return the training and test inputs, and labels (int64) or values."""
    if scaling not in SCALINGS:
        raise ValueError(f"'{scaling}' is not a scaling. Valid are: {', '.join(SCALINGS)}.")
    if name in FUNCTIONS:
        # x_i = -1 + 2i/100, i = 0, …, 100; tested half way between.
        x_train = (-1 + torch.arange(101, dtype=precision(sample)) / 50)[:, None]
        x_test = x_train[:-1] + 0.01
        y_train, y_test = FUNCTIONS[name](x_train), FUNCTIONS[name](x_test)
    else:
        data = datasets.load(name, sample=sample)
        x_train, x_test = (_pixels(x, precision(sample)) for x in (data.x_train, data.x_test))
        y_train, y_test = (torch.tensor(y).long() for y in (data.y_train, data.y_test))
    if scaling == "standardised":
        over = tuple(axis for axis in range(x_train.ndim) if axis != 1 or x_train.ndim < 4)
        mean, std = x_train.mean(over, keepdim=True), x_train.std(over, keepdim=True)
        x_train, x_test = (x_train - mean) / std, (x_test - mean) / std
    return x_train, y_train, x_test, y_test


def _pixels(images: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Return images as numbers in [0, 1], of shape (N, H, W) or, with colours, (N, 3, H, W)."""
    pixels = torch.tensor(images)
    if pixels.ndim == 4:
        pixels = pixels.movedim(3, 1).contiguous()
    return pixels.to(dtype) / 255
