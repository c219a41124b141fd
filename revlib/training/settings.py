"""Settings: the paper's tasks as data, so that every choice can be read, stored and changed.

:class:`Setting` holds all choices, :func:`build` makes the task that they describe.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from revlib.store import datasets, provenance
from revlib.training import models
from revlib.training.tasks import IndependentBatches, ShuffledEpochs, Task

SAMPLINGS = {"epochs": ShuffledEpochs, "independent": IndependentBatches}

SCALINGS = ("unit", "standardised", "image")

FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "x^2": lambda x: x**2,
    "cos(10x)": lambda x: torch.cos(10 * x),
    "x^3": lambda x: x**3,
}
"""The functions of Section A.1, by the name of the data set that is drawn from each."""


WEIGHTS = 10**8
"""How many weights an MLP may have, to stay within memory."""

_Rule = tuple[Callable[[Any], bool], str]  # whether a value is valid; what is, in words


def _one_of(names: Iterable[str], of: str = "") -> _Rule:
    names = tuple(names)
    return lambda value: value in names, f"{' or '.join(names)}{of}"


def _whole(lowest: int) -> _Rule:
    return (
        lambda value: type(value) is int and lowest <= value <= 10**9,
        f"a whole number from {lowest} to 10^9",
    )


def _or_none(rule: _Rule) -> _Rule:
    holds, words = rule
    return lambda value: value is None or holds(value), f"{words}; or None"


def _fits(hidden: Any) -> bool:
    widths = isinstance(hidden, tuple) and all(type(width) is int for width in hidden)
    if not widths or min(hidden, default=1) < 1:
        return False
    return sum(a * b for a, b in pairwise((32 * 32 * 3, *hidden, 100))) <= WEIGHTS


_VALID: dict[str, _Rule] = {
    "data": _one_of((*datasets.NAMES, *FUNCTIONS)),
    "sample": (lambda value: type(value) is bool, "True or False"),
    "model": _one_of(("mlp", *models.CONVOLUTIONAL)),
    "sampling": _one_of(SAMPLINGS),
    "batch_size": _whole(1),
    "learning_rate": (
        lambda value: type(value) in (int, float) and 0 <= value <= sys.float_info.max,
        "a finite number, 0 or more",
    ),
    "train_examples": _or_none(_whole(1)),
    "test_examples": _or_none(_whole(1)),
    "nudge": _whole(0),
}


def _of_model(model: Any) -> dict[str, _Rule]:
    """Return which fields arise for a model, and what they may be; the others are None."""
    of = f", for the model {model}"
    none: _Rule = (lambda value: value is None, f"left out{of}, which has none")
    rules = dict.fromkeys(("hidden", "stem", "normalisation"), none)
    if model == "mlp":
        words = f"a list of widths, [100, 100] say, of at most {WEIGHTS:,} weights{of}"
        return rules | {"hidden": (_fits, words), "init": _one_of(models.INITS, of)}
    if model in models.RESNETS:
        rules["stem"] = _one_of(models.STEMS, of)
    return rules | {
        "normalisation": _one_of(models.NORMALISATIONS, of),
        "init": _one_of(("torchvision",), of),
        "data": _one_of(("cifar10", "cifar100"), of),
    }


def _of_data(data: Any) -> dict[str, _Rule]:
    return {"scaling": _one_of(SCALINGS[: 2 if data in FUNCTIONS else 3], f", for the data {data}")}


def _plain(value: Any) -> Any:
    """Return numbers as Python's own, and a list, as papermill passes it, as a tuple."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


@dataclass(frozen=True)
class Setting:
    """All choices that determine the numbers of an experiment, for any seed, order and step.

    A choice that does not arise (the stem of a network that has none) is None.

    Parameters
    ----------
    data
        Name of an image data set (:func:`revlib.store.datasets.load`), or of a function in
        :data:`FUNCTIONS`, which is learned from its values on [-1, 1].
    sample
        Whether to use the small sample that comes with the package instead of the full set, and
        double precision instead of single (:func:`precision`).
    model
        ``"mlp"`` (ReLU), or a name in :data:`revlib.training.models.CONVOLUTIONAL`.
    hidden
        Widths of the hidden layers of the MLP; with none it is a linear model.
    stem, normalisation
        Of the convolutional networks (:func:`revlib.training.models.convolutional`).
    init
        Initialisation of the parameters: for the MLP a name in
        :data:`revlib.training.models.INITS`; the convolutional networks have only
        ``"torchvision"``, that library's own.
    scaling
        ``"unit"``: pixels in [0, 1], the argument of a function as it is, in [-1, 1];
        ``"standardised"``: then shifted and scaled, each colour on its own, to mean 0 and standard
        deviation 1 over the training set; ``"image"``: each image on its own.
    sampling
        ``"epochs"`` (:class:`revlib.training.tasks.ShuffledEpochs`) or
        ``"independent"`` (:class:`revlib.training.tasks.IndependentBatches`).
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
        """Make numbers plain, and see that each choice is valid and arises.

        Raises
        ------
        ValueError
            If one is not: names the field and what is valid.
        """
        for name, value in vars(self).items():
            object.__setattr__(self, name, _plain(value))
        self._check(_VALID)
        self._check(_of_model(self.model) | _of_data(self.data))

    def _check(self, rules: dict[str, _Rule]) -> None:
        for name, (holds, words) in rules.items():
            if not holds(getattr(self, name)):
                raise ValueError(
                    f"The field '{name}' must be {words}; got {getattr(self, name)!r}."
                )

    def changed(self, /, **changes: Any) -> Setting:
        """Return the setting with some fields changed; those given as None stay as they are.

        Raises
        ------
        ValueError
            If there is no such field, or a value is not valid.
        """
        names = [f.name for f in dataclasses.fields(self)]
        for name in changes:
            if name not in names:
                raise ValueError(f"A setting has no '{name}'. It has: {', '.join(names)}.")
        return dataclasses.replace(self, **{k: v for k, v in changes.items() if v is not None})

    def digest(self) -> str:
        """Return a digest of the data, which need not be at hand: no other is ever loaded."""
        if self.data in FUNCTIONS:
            return provenance.digest(self.data)  # the name says it all
        return datasets.digest(self.data, self.sample)


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
    revlib.store.datasets.DataNotFoundError
        If the data is not on this machine and cannot be downloaded.
    """
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


@dataclass(frozen=True)
class Built:
    """The task of a setting and seed, to be built where it is needed, and put on a device."""

    setting: Setting
    seed: int
    device: str | None = None

    def __call__(self) -> Task:
        """Return the task."""
        task = build(self.setting, self.seed)
        return task if self.device is None else task.to(self.device)


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
    return models.convolutional(
        setting.model, outputs, setting.stem, setting.normalisation, seed, example.dtype
    )


@functools.lru_cache(maxsize=2)
def _scaled(name: str, sample: bool, scaling: str) -> tuple[torch.Tensor, ...]:
    """Return the training and test inputs, and labels (int64) or values."""
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
    elif scaling == "image":
        x_train, x_test = (_each_on_its_own(x) for x in (x_train, x_test))
    return x_train, y_train, x_test, y_test


def _each_on_its_own(images: torch.Tensor) -> torch.Tensor:
    """Return images each of which has mean 0 and standard deviation 1; one of one colour is 0."""
    over = {"dim": tuple(range(1, images.ndim)), "keepdim": True}
    deviation = images.std(**over, correction=0)
    return (images - images.mean(**over)) / deviation.clamp(min=1 / 255)


def _pixels(images: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Return images as numbers in [0, 1], of shape (N, H, W) or, with colours, (N, 3, H, W)."""
    pixels = torch.tensor(images)
    if pixels.ndim == 4:
        pixels = pixels.movedim(3, 1).contiguous()
    return pixels.to(dtype) / 255
