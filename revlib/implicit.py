"""Implicit regularisation: the loss that SGD with a finite learning rate descends (Smith et al.).

Smith, Dherin, Barrett and De (ICLR 2021) cut the data into m batches with losses ``C_1, …, C_m``,
whose mean is C, and take one step with the learning rate ε on each: an epoch. Its end, averaged
over all orders of the batches, lies where the gradient flow of a *modified* loss leads to,
``C + ε/(4m) sum_k ‖grad C_k‖²``, up to third order in ε.

As elsewhere in the library a batch is known by its vector field ``V_k = -grad C_k``. A way of
training is a sequence of fields: an epoch in some order, two epochs of which the second is the
reverse of the first, each field n times in a row. So one function takes the steps (`descend`),
one gives the modified field of all of them (`modified`), and one follows its flow (`flow`).

The second part of the module is the experiment on Fashion-MNIST of the paper's Appendix D, as a
study (`STUDIES`), at a size that a laptop can do.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.integrate
import torch
from torch import Tensor, nn

from revlib import datasets, models
from revlib.expansions import VectorField, maps
from revlib.regularizers import Loss
from revlib.studies import Size, Study
from revlib.tasks import Batch, ShuffledEpochs, Task, nudged, precision

__all__ = [
    "STUDIES",
    "TRAININGS",
    "Parameters",
    "Training",
    "batch_square",
    "compute",
    "covariance_trace",
    "descend",
    "distances",
    "ends",
    "flow",
    "levels",
    "modified",
    "order_noise",
    "partitions",
    "standardised",
    "step",
]


# The modified loss.


def descend(fields: Iterable[VectorField], theta: Tensor, rate: float) -> Tensor:
    """Return where one step ``theta + rate V(theta)`` on each field leads to, in their order."""
    for one in maps(fields, rate):
        theta = one(theta)
    return theta


def ends(sequences: Iterable[Iterable[VectorField]], theta: Tensor, rate: float) -> Tensor:
    """Return where each of several sequences of steps leads to, one in a row: shape (M, P).

    With all orders of the fields, the mean of the rows is the order average
    (`revlib.regularizers.order_average`).
    """
    return torch.stack([descend(fields, theta, rate) for fields in sequences])


def order_noise(ends: Tensor) -> float:
    """Return the root mean square distance of ends, shape (M, P), from their mean."""
    return covariance_trace(ends).sqrt().item()


def modified(fields: Sequence[VectorField], weight: float) -> VectorField:
    """Return the field ``-grad (C + weight/(4m) sum_k ‖grad C_k‖²)`` of a modified loss.

    With ``V_k = -grad C_k`` this is ``sum_k V_k / m - weight/(4m) grad sum_k ‖V_k‖²``. The modified
    losses of Smith et al. are all of this form:

    - of an epoch of SGD (their equation 1): the m fields of the batches, weight ε;
    - of gradient descent (equation 11): the single field of the full loss, weight ε;
    - of n steps on each batch with the rate α (equation 39): the m fields, weight α;
    - of no finite step at all, the gradient flow of C: weight 0.

    Parameters
    ----------
    fields : sequence of callable
        ``V_1, …, V_m``, differentiable by `torch.func`. They are gradients of losses.
    weight : float
        The coefficient, of the dimension of a learning rate.
    """
    m = len(fields)

    def squares(theta: Tensor) -> Tensor:
        return sum(field(theta).square().sum() for field in fields)

    gradient = torch.func.grad(squares)

    def velocity(theta: Tensor) -> Tensor:
        mean = sum(field(theta) for field in fields) / m
        return mean - weight / (4 * m) * gradient(theta) if weight else mean

    return velocity


def flow(field: VectorField, theta: Tensor, time: float) -> Tensor:
    """Return where the solution of ``dtheta/dt = V(theta)`` from theta is after some time.

    By SciPy's Runge-Kutta method of order 8, with its error kept near that of double precision.

    Raises
    ------
    ValueError
        If the solution cannot be followed that far.
    """

    def velocity(_: float, point: np.ndarray) -> np.ndarray:
        return field(torch.from_numpy(point)).detach().numpy()

    found = scipy.integrate.solve_ivp(
        velocity, (0, time), theta.numpy(), method="DOP853", rtol=1e-12, atol=1e-14
    )
    if not found.success:
        raise ValueError(f"The flow cannot be followed up to the time {time:g}: {found.message}")
    return torch.from_numpy(found.y[:, -1].copy())


# The batch size.


def partitions(count: int, size: int) -> Iterator[list[tuple[int, ...]]]:
    """Yield each way to cut ``0, …, count - 1`` into batches of one size, without their order.

    Raises
    ------
    ValueError
        If the size does not divide the count.
    """
    if size < 1 or count % size:
        raise ValueError(f"{count} examples cannot be cut into batches of {size}.")
    yield from _partitions(tuple(range(count)), size)


def _partitions(rest: tuple[int, ...], size: int) -> Iterator[list[tuple[int, ...]]]:
    if not rest:
        yield []
        return
    first, *others = rest
    for mates in itertools.combinations(others, size - 1):
        left = tuple(example for example in others if example not in mates)
        for batches in _partitions(left, size):
            yield [(first, *mates), *batches]


def covariance_trace(gradients: Tensor) -> Tensor:
    """Return ``Γ = sum_i ‖g_i - g‖² / N``, with g the mean of the N rows, shape (N, P)."""
    return (gradients - gradients.mean(0)).square().sum(1).mean()


def batch_square(gradients: Tensor, size: int) -> Tensor:
    """Return the expected ``‖grad C_k‖²`` of a batch without repetitions (Smith et al., eq. 32).

    ``‖g‖² + (N - B)/(N - 1) Γ/B``, with g and Γ the mean and the trace of the covariance of the
    gradients of single examples (`covariance_trace`).

    Parameters
    ----------
    gradients : torch.Tensor
        The gradients of the N examples, shape (N, P).
    size : int
        The batch size B.
    """
    count = len(gradients)
    noise = (count - size) / (count - 1) * covariance_trace(gradients) / size
    return gradients.mean(0).square().sum() + noise


# The experiment of Appendix D.


@dataclass(frozen=True)
class Training:
    """One way of training.

    Parameters
    ----------
    rate : float
        Learning rate of a single update: ε, and α where a batch has several updates.
    weight : float
        The coefficient λ of the explicit regulariser; with 0 the loss is the plain one.
    batch_size : int
        Examples in a batch.
    updates : int
        How many updates n are made on each batch before the next one.
    """

    rate: float
    weight: float = 0.0
    batch_size: int = 32
    updates: int = 1

    @property
    def name(self) -> str:
        """How it is called in tables, figures and claims; it tells all fields."""
        parts = [f"{'ε' if self.updates == 1 else 'α'} = {self.rate:g}"]
        parts += [f"λ = {self.weight:g}"] * (self.weight != 0)
        parts += [f"B = {self.batch_size}"] * (self.batch_size != 32)
        parts += [f"n = {self.updates}"] * (self.updates != 1)
        return ", ".join(parts)


@dataclass(frozen=True)
class Parameters:
    """What the numbers of the experiment depend on besides the training.

    Parameters
    ----------
    sample : bool
        Whether the embedded sample of Fashion-MNIST is used instead of the full set.
    hidden : tuple of int
        Widths of the hidden layers.
    init : str
        Initialisation (:data:`revlib.models.INITS`); the paper does not state its own.
    train_examples, test_examples : int
        How many examples, the first of each set, are trained on and tested on.
    epochs : int
        How long is trained.
    every : int
        After how many epochs it is evaluated.
    nudge : int
        As in :class:`revlib.tasks.Setting`.
    """

    sample: bool
    hidden: tuple[int, ...]
    init: str
    train_examples: int
    test_examples: int
    epochs: int
    every: int
    nudge: int = 0


def standardised(images: np.ndarray, dtype: torch.dtype) -> Tensor:
    """Return images each of which is shifted and scaled to mean 0 and standard deviation 1.

    Parameters
    ----------
    images : numpy.ndarray
        Shape (N, H, W), whole numbers from 0 to 255.
    dtype : torch.dtype
        In which precision.

    Returns
    -------
    torch.Tensor
        Shape (N, H, W). An image of a single colour becomes 0.
    """
    pixels = torch.tensor(images, dtype=dtype)
    over = {"dim": (1, 2), "keepdim": True}
    deviation = pixels.std(**over, correction=0)
    return (pixels - pixels.mean(**over)) / deviation.clamp(min=1)


def step(model: nn.Module, loss: Loss, batch: Batch, rate: float, weight: float) -> None:
    """Take one step on ``C_k + weight/4 ‖grad C_k‖²`` in place.

    Averaged over the batches this is ``C + weight/(4m) sum_k ‖grad C_k‖²``: the modified loss is
    itself a mean over batches, so SGD can descend it. It takes a second backward pass, through the
    first.
    """
    parameters = list(model.parameters())
    inputs, targets = batch
    value = loss(model(inputs), targets)
    gradient = torch.autograd.grad(value, parameters, create_graph=weight != 0)
    if weight:
        penalty = weight / 4 * sum(part.square().sum() for part in gradient)
        gradient = torch.autograd.grad(value + penalty, parameters)
    with torch.no_grad():
        torch._foreach_add_(parameters, gradient, alpha=-rate)


def compute(parameters: Parameters, seed: int, training: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of one training: losses, accuracies and gradients along it.

    Parameters
    ----------
    parameters : Parameters
        What is trained.
    seed : int
        Start point and order of the examples.
    training : str
        A name in :data:`TRAININGS`.

    Yields
    ------
    dict
        ``step`` (the number of epochs), ``train_loss``, ``test_loss``, ``train_accuracy``,
        ``test_accuracy`` and ``gradient_square``, the mean of ``‖grad C_k‖²`` over the batches of
        the first epoch. A training whose loss is not finite ends there.
    """
    chosen = TRAININGS[training]
    task = _task(parameters, chosen.batch_size, seed)
    batches = parameters.train_examples // chosen.batch_size
    model = copy.deepcopy(task.model)
    for epoch in range(parameters.epochs + 1):
        for k in range(batches) if epoch else ():
            batch = task.batch((epoch - 1) * batches + k + 1)
            for _ in range(chosen.updates):
                step(model, task.loss, batch, chosen.rate, chosen.weight)
        if epoch % parameters.every == 0:
            squares = [_square(model, task.loss, task.batch(k + 1)) for k in range(batches)]
            measured = task.evaluate(model)
            yield {"step": epoch} | measured | {"gradient_square": float(np.mean(squares))}
            if not np.isfinite(measured["train_loss"]):
                return


def _square(model: nn.Module, loss: Loss, batch: Batch) -> float:
    inputs, targets = batch
    gradient = torch.autograd.grad(loss(model(inputs), targets), list(model.parameters()))
    return sum(part.square().sum() for part in gradient).item()


def _task(parameters: Parameters, batch_size: int, seed: int) -> Task:
    x_train, y_train, x_test, y_test = _data(parameters.sample)
    kept, tested = parameters.train_examples, parameters.test_examples
    train, test = (x_train[:kept], y_train[:kept]), (x_test[:tested], y_test[:tested])
    widths = (x_train[0].numel(), *parameters.hidden, 10)
    model = models.mlp(widths, parameters.init, seed, x_train.dtype)
    return Task(
        model=nudged(model, parameters.nudge),
        loss=nn.functional.cross_entropy,
        batches=ShuffledEpochs(*train, batch_size, seed),
        optimizer=torch.optim.SGD,  # the steps are taken by `step`
        evaluation={"train": train, "test": test},
        seed=seed,
    )


@functools.lru_cache(maxsize=1)
def _data(sample: bool) -> tuple[Tensor, ...]:
    data = datasets.load("fashion_mnist", sample)
    labels = (torch.tensor(y).long() for y in (data.y_train, data.y_test))
    y_train, y_test = labels
    x_train, x_test = (standardised(x, precision(sample)) for x in (data.x_train, data.x_test))
    return x_train, y_train, x_test, y_test


SMALL_RATE = 0.01
"""The learning rate at which the explicit regulariser is tried, small beside the best ones."""

RATES = tuple(Training(rate) for rate in (SMALL_RATE, 0.02, 0.04, 0.08, 0.16))
"""SGD as it is, at growing learning rates."""

WEIGHTS = tuple(Training(SMALL_RATE, weight) for weight in (0.04, 0.08, 0.16, 0.32, 0.64))
"""The explicit regulariser at a small learning rate, with growing coefficients."""

BATCH_SIZES = (
    *(Training(rate, batch_size=8) for rate in (0.005, 0.02)),
    *(Training(rate, batch_size=128) for rate in (0.04, 0.16)),
)
"""Smaller and larger batches, at rates and ratios ε/B that `RATES` have too."""

UPDATES = tuple(Training(rate, updates=4) for rate in (0.01, 0.04))
"""Four updates on each batch, at bare rates α and effective rates 4α that `RATES` have too."""

TRAININGS = {each.name: each for each in (*RATES, *WEIGHTS, *BATCH_SIZES, *UPDATES)}
"""All trainings by name."""


def _size(parameters: Parameters, seeds: tuple[int, ...]) -> Size:
    steps = range(0, parameters.epochs + 1, parameters.every)
    return Size(parameters, seeds, tuple(TRAININGS), tuple(steps))


STUDIES = (
    Study(
        name="implicit-regularization",
        title="MLP on Fashion-MNIST: learning rate, explicit regulariser, batch size, n-step SGD",
        section="Smith et al., Appendix D",
        chapter="implicit-regularization",
        presets={
            "paper": _size(
                Parameters(
                    sample=False,
                    hidden=(128, 128, 128),
                    init="he",
                    train_examples=2048,
                    test_examples=10_000,
                    epochs=50,
                    every=10,
                ),
                seeds=(0, 1, 2, 3),
            ),
            "ci": _size(
                Parameters(
                    sample=True,
                    hidden=(16, 16, 16),
                    init="he",
                    train_examples=256,
                    test_examples=500,
                    epochs=4,
                    every=2,
                ),
                seeds=(0, 1),
            ),
        },
        compute=compute,
        code=("models", "tasks", Training, standardised, step, compute, _square, _task, _data),
        data="fashion_mnist",
        quantities={"gradient_square": "mean squared norm of the gradients of the batches"},
    ),
)
"""The experiment as a study (:mod:`revlib.studies`); a step of it is an epoch."""


def levels(table: pd.DataFrame, quantity: str, trainings: Iterable[Training]) -> pd.DataFrame:
    """Return a quantity at the end of some trainings: ``mean`` and ``spread`` over the seeds.

    Parameters
    ----------
    table : pandas.DataFrame
        As :func:`revlib.studies.shown` has it.
    quantity : str
        A column of it.
    trainings : iterable of Training
        The rows of the result, in this order; the index holds their names. One that was lost on
        a seed has no mean.
    """
    values = _ends(table, quantity)[[each.name for each in trainings]]
    return pd.DataFrame({"mean": values.mean(skipna=False), "spread": values.std(skipna=False)})


def distances(
    table: pd.DataFrame,
    quantity: str,
    trainings: Sequence[Training],
    same: Callable[[Training], float],
) -> pd.Series:
    """Return how far trainings that agree in something end from each other, seed by seed.

    Parameters
    ----------
    table, quantity
        As for `levels`.
    trainings : sequence of Training
        All pairs of them that agree are compared.
    same : callable
        In what they agree: ``lambda training: training.rate`` in the learning rate, for example.

    Returns
    -------
    pandas.Series
        For each seed the mean of the absolute differences at the end over the pairs; not a number
        where one of the trainings was lost.

    Raises
    ------
    ValueError
        If no two of the trainings agree.
    """
    values = _ends(table, quantity)
    pairs = [
        (one.name, other.name)
        for one, other in itertools.combinations(trainings, 2)
        if np.isclose(same(one), same(other), rtol=1e-9)
    ]
    if not pairs:
        raise ValueError("No two of these trainings agree in that, so nothing can be compared.")
    apart = pd.concat([(values[a] - values[b]).abs() for a, b in pairs], axis=1)
    return apart.mean(axis=1, skipna=False)


def _ends(table: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Return a quantity at the last step: a row a seed, a column a training.

    It is not a number where the training was lost: the accuracy of such a network still is one.
    """
    last = table[table["step"] == table["step"].max()]
    last = last.assign(**{quantity: last[quantity].where(np.isfinite(last["train_loss"]))})
    return last.pivot(index="seed", columns="order", values=quantity)
