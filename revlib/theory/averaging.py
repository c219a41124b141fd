"""Averages along a training path: what they are worth as a learning-rate schedule and in spread.

An average of the last iterates is ``sum_j mu_j theta(t - j)``, with weights ``mu_0`` (of the newest
iterate), ``mu_1``, … that sum to 1 (Sandler et al. 2023, Section 4 and Appendix A). Here are the
weights and what follows from them in closed form. The same averages of torch models are in
:mod:`revlib.training.averaging`.

Hessians and covariances are symmetric matrices of shape (d, d); rates are the paper's λ.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from revlib.theory import near_minimum


def points(count: int, spacing: int = 1) -> np.ndarray:
    """Return the weights of the mean of some iterates at equal distances, the newest among them.

    Parameters
    ----------
    count
        How many: 2 is the two-point average.
    spacing
        Steps from one to the next. With 1 it is stochastic weight averaging (SWA) of the last
        `count` iterates.

    Returns
    -------
    numpy.ndarray
        Shape ``((count - 1) * spacing + 1,)``, the newest first.
    """
    weights = np.zeros((count - 1) * spacing + 1)
    weights[::spacing] = 1 / count
    return weights


def exponential(decay: float, length: int) -> np.ndarray:
    """Return the weights of an exponential moving average (EMA) after some steps.

    ``e(t) = (1 - decay) e(t - 1) + decay theta(t)``, begun with ``e = theta`` `length` steps ago:
    that first iterate has all the weight that the later ones leave.

    Parameters
    ----------
    decay
        The weight δ of the newest iterate, between 0 and 1; averages over about 1/δ steps.
    length
        Steps since the average was begun.

    Returns
    -------
    numpy.ndarray
        Shape ``(length + 1,)``, the newest first.
    """
    weights = decay * (1 - decay) ** np.arange(length + 1.0)
    weights[-1] = (1 - decay) ** length
    return weights


def schedule(weights: ArrayLike) -> np.ndarray:
    """Return the factors of the rate that lead to the average, were the gradients unchanged.

    Step i is part of all iterates after it, so that in the average it counts with the sum of their
    weights (Lemma 2; its Table 1 lists three cases).

    Parameters
    ----------
    weights
        Shape (k + 1,), the newest first; the last belongs to the iterate from which the k steps
        set out.

    Returns
    -------
    numpy.ndarray
        Shape (k,), a factor for each step in the order in which they are taken.
    """
    return np.cumsum(np.asarray(weights, float)[:-1])[::-1]


def correlations(weights: ArrayLike) -> np.ndarray:
    """Return ``C_delta = sum_k mu_k mu_{k + delta}`` for delta = 0, 1, …, shape of the weights."""
    weights = np.asarray(weights, float)
    return np.correlate(weights, weights, "full")[len(weights) - 1 :]


def change(weights: ArrayLike) -> np.ndarray:
    """Return the weights of an average's change from one step to the next.

    They sum to 0. With them `covariance` says how calm the averaged path is; with ``[1]`` for the
    weights, how calm the plain one.
    """
    weights = np.asarray(weights, float)
    return np.append(weights, 0) - np.append(0, weights)


def covariance(
    weights: ArrayLike, rate: float, hessian: ArrayLike, noise_covariance: ArrayLike
) -> np.ndarray:
    """Return the stationary covariance of an average of SGD iterates near a minimum.

    For ``theta -> (1 - λH) theta + λ eps``: iterates delta steps apart have the covariance
    ``G^delta S`` with ``G = 1 - λH`` and S the stationary covariance, and the average

        F = C_0 S + sum_{delta >= 1} C_delta (G^delta S + S G^delta).

    It holds for any H and C of the noise; `printed_covariance` is a special case.

    Parameters
    ----------
    weights
        The newest first. They need not sum to 1 (see `change`).
    rate
        Learning rate λ.
    hessian, noise_covariance
        H and C, shape (d, d).

    Raises
    ------
    ValueError
        If the maps do not contract.
    """
    stationary = near_minimum.stationary_covariance(rate, hessian, noise_covariance)
    pull = np.eye(len(stationary)) - rate * np.asarray(hessian)
    first, *others = correlations(weights)
    total, lagged = first * stationary, stationary
    for correlation in others:
        lagged = pull @ lagged
        total = total + correlation * (lagged + lagged.T)
    return total


def printed_covariance(weights: ArrayLike, rate: float, omega: ArrayLike) -> np.ndarray:
    """Return ``λ (2Ω - λΩ²)^(-1) (C_0 + 2 sum_delta C_delta (1 - λΩ)^delta)``.

    Equation 19 of Sandler et al., where the noise has been made white by a change of coordinates,
    ``theta = Q u`` with ``C = Q Q^T``, and ``Ω = Q^(-1) H Q``. It is the covariance where Ω is
    symmetric, which takes that H and C commute.
    """
    omega = np.asarray(omega, float)
    pull = np.eye(len(omega)) - rate * omega
    first, *others = correlations(weights)
    total, power = first * np.eye(len(omega)), np.eye(len(omega))
    for correlation in others:
        power = pull @ power
        total = total + 2 * correlation * power
    return rate * np.linalg.solve(2 * omega - rate * omega @ omega, total)


def effective_rate(rate: float, curvature: ArrayLike, spacing: ArrayLike) -> np.ndarray:
    """Return ``λ (1 + (1 - λκ)^spacing) / 2``: two points as a rate (equation 20)."""
    return rate * (1 + (1 - rate * np.asarray(curvature)) ** np.asarray(spacing)) / 2


def expected_losses(
    rate: float, curvatures: ArrayLike, start: ArrayLike, steps: int, decay: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the expected loss along SGD on ``sum_i κ_i u_i²/2``, and that of its EMA, exactly.

    ``u -> (1 - λκ) u + λ xi`` with white noise of variance 1, and ``e -> (1 - decay) e + decay u``
    begun with ``e = u``: the second moments of (u, e) follow a linear recursion (Section 5.1).

    Parameters
    ----------
    rate
        Learning rate λ.
    curvatures, start
        κ and the start point, shape (d,).
    steps
        How many steps.
    decay
        Weight of the newest iterate in the average.

    Returns
    -------
    plain, averaged : numpy.ndarray
        Shape (steps + 1, d): what each direction adds to the loss.
    """
    curvatures, start = np.asarray(curvatures, float), np.asarray(start, float)
    move = np.zeros((len(curvatures), 2, 2))
    move[:, 0, 0] = 1 - rate * curvatures
    move[:, 1, 0] = decay * (1 - rate * curvatures)
    move[:, 1, 1] = 1 - decay
    noise = rate**2 * np.outer([1, decay], [1, decay])
    moments = start[:, None, None] ** 2 * np.ones((2, 2))
    found = [moments]
    for _ in range(steps):
        moments = move @ moments @ move.swapaxes(1, 2) + noise
        found.append(moments)
    losses = np.array(found)[:, :, [0, 1], [0, 1]] * curvatures[:, None] / 2
    return losses[..., 0], losses[..., 1]
