"""Implicit regularisation: the loss that SGD with a finite learning rate descends (Smith et al.).

Smith, Dherin, Barrett and De (ICLR 2021) cut the data into m batches with losses ``C_1, …, C_m``,
whose mean is C, and take one step with the learning rate ε on each: an epoch. Its end, averaged
over all orders of the batches, lies where the gradient flow of a *modified* loss leads to,
``C + ε/(4m) sum_k ‖grad C_k‖²``, up to third order in ε.

As elsewhere in the library a batch is known by its vector field ``V_k = -grad C_k``. A way of
training is a sequence of fields: an epoch in some order, two epochs of which the second is the
reverse of the first, each field n times in a row. So one function takes the steps (`descend`),
one gives the modified field of all of them (`modified`), and one follows its flow (`flow`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import scipy.integrate
import torch
from torch import Tensor

from revlib.theory.expansions import VectorField, maps


def descend(fields: Iterable[VectorField], theta: Tensor, rate: float) -> Tensor:
    """Return where one step ``theta + rate V(theta)`` on each field leads to, in their order."""
    for one in maps(fields, rate):
        theta = one(theta)
    return theta


def ends(sequences: Iterable[Iterable[VectorField]], theta: Tensor, rate: float) -> Tensor:
    """Return where each of several sequences of steps leads to, one in a row: shape (M, P).

    With all orders of the fields, the mean of the rows is the order average
    (`revlib.theory.order_averaging.order_average`).
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
    fields
        ``V_1, …, V_m``, differentiable by `torch.func`. They are gradients of losses.
    weight
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

    ``‖g‖² + (N - B)/(N - 1) Γ/B``, with B the batch size, and g and Γ the mean and the trace of the
    covariance of the gradients of the N examples, shape (N, P) (`covariance_trace`).
    """
    count = len(gradients)
    noise = (count - size) / (count - 1) * covariance_trace(gradients) / size
    return gradients.mean(0).square().sum() + noise
