"""The noisy quadratic loss of Section 3.1 in closed form.

The loss is ``L(theta) = theta²/2``, and each step sees its gradient with independent noise
``eps_i`` of mean 0 and variance ``sigma²``, so that ``T_i(theta) = (1 - h) theta + h eps_i``:
`revlib.training.maps.noisy_quadratic` makes the maps themselves. Both orders weigh the same noise
with the same powers of ``1 - h``; they differ in which noise gets the largest weight.

None of the formulas but those of a limit (`stationary_variance`, `remaining_variance`) needs the
maps to contract: they hold for every h. Means are of the noise, at a given start ``theta0``; h and
n may be arrays that broadcast against each other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import toeplitz


def forward_iterates(h: float, noise: ArrayLike, theta0: ArrayLike = 0.0) -> np.ndarray:
    """Return all forward iterates ``T_n … T_1(theta0)`` from their closed form.

    ``(1 - h)^n theta0 + h sum_{j=1}^n (1 - h)^(n - j) eps_j``: the newest noise has the largest
    weight, at every n afresh.

    Parameters
    ----------
    h
        Learning rate.
    noise
        ``eps_1`` to ``eps_N`` along the first axis, shape (N, ...); further axes hold independent
        realisations.
    theta0
        Start point, a number or one for each realisation.

    Returns
    -------
    numpy.ndarray
        The iterates 0 to N, shape (N + 1, ...). Takes memory for N² numbers.
    """
    noise, iterates, weights = _terms(h, noise, theta0)
    lags = toeplitz(weights, np.zeros(len(weights)))  # lags[n - 1, j - 1] = h (1 - h)^(n - j)
    iterates[1:] += np.tensordot(lags, noise, axes=1)
    return iterates


def backward_iterates(h: float, noise: ArrayLike, theta0: ArrayLike = 0.0) -> np.ndarray:
    """Return all backward iterates ``T_1 … T_n(theta0)`` from their closed form.

    ``(1 - h)^n theta0 + h sum_{j=1}^n (1 - h)^(j - 1) eps_j``: each noise keeps the weight it
    entered with, and those that enter later get less and less. Parameters and shapes are those of
    `forward_iterates`; it takes memory for the iterates only.
    """
    noise, iterates, weights = _terms(h, noise, theta0)
    iterates[1:] += np.cumsum((weights * noise.T).T, axis=0)
    return iterates


def _terms(
    h: float, noise: ArrayLike, theta0: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the noise, ``(1 - h)^n theta0`` for n = 0 … N, and ``h (1 - h)^k`` for k < N."""
    noise = np.asarray(noise, dtype=float)
    if noise.ndim == 0:
        raise ValueError("The noise is one number; give a sequence with one entry per step.")
    powers = (1.0 - h) ** np.arange(len(noise) + 1)
    theta0 = np.broadcast_to(np.asarray(theta0, dtype=float), noise.shape[1:])
    return noise, np.multiply.outer(powers, theta0), h * powers[:-1]


def mean(h: ArrayLike, n: ArrayLike, theta0: float) -> np.ndarray:
    """Return the mean of the iterate at step n, ``(1 - h)^n theta0``, the same in both orders."""
    return (1.0 - np.asarray(h)) ** np.asarray(n) * theta0


def variance(h: ArrayLike, n: ArrayLike, sigma: float = 1.0) -> np.ndarray:
    """Return the variance of the iterate at step n, the same in both orders.

    The sum ``h² sigma² sum_{k=0}^{n-1} (1 - h)^(2k)``. For 0 < h < 2 it grows to the
    `stationary_variance`; at h = 2 it grows in proportion to n, and beyond exponentially. The
    standard deviation of the noise is sigma.
    """
    h, n = np.broadcast_arrays(np.asarray(h, dtype=float), n)
    gap = h * (2.0 - h)  # 1 - (1 - h)²: zero where the noise is carried on undamped
    terms = np.divide(1.0 - (1.0 - h) ** (2 * n), gap, out=n.astype(float), where=gap != 0)
    return h**2 * sigma**2 * terms


def stationary_variance(h: ArrayLike, sigma: float = 1.0) -> np.ndarray:
    """Return the variance of the stationary law, ``h sigma² / (2 - h)``.

    The forward iterates settle to this law, and the limits of the backward iterates follow it.
    (The law is normal if the noise is.)

    Raises
    ------
    ValueError
        If h is not between 0 and 2.
    """
    h = _contracting(h)
    return h * sigma**2 / (2.0 - h)


def remaining_variance(h: ArrayLike, n: ArrayLike, sigma: float = 1.0) -> np.ndarray:
    """Return the variance of the backward limit minus the backward iterate at step n.

    What is still to come after step n is ``h sum_{j>n} (1 - h)^(j - 1) eps_j``, which is
    ``(1 - h)^n`` times another variable of the stationary law: ``(1 - h)^(2n) h sigma²/(2 - h)``.
    Its mean is ``-(1 - h)^n theta0``.

    Raises
    ------
    ValueError
        If h is not between 0 and 2: then there is no limit.
    """
    return (1.0 - _contracting(h)) ** (2 * np.asarray(n)) * stationary_variance(h, sigma)


def forward_change_variance(h: ArrayLike, n: ArrayLike, sigma: float = 1.0) -> np.ndarray:
    """Return the variance of the forward iterate at n + 1 minus the one at n.

    The change is ``h (eps_{n+1} - theta(n))``, a difference of independent variables. Its variance
    ``h² (sigma² + variance(h, n))`` never falls: for 0 < h < 2 it rises to ``2 h² sigma²/(2 - h)``.
    """
    return np.asarray(h) ** 2 * (sigma**2 + variance(h, n, sigma))


def backward_change_variance(h: ArrayLike, n: ArrayLike, sigma: float = 1.0) -> np.ndarray:
    """Return the variance of the backward iterate at n + 1 minus the one at n.

    The change is ``(1 - h)^n h (eps_{n+1} - theta0)``: its variance ``(1 - h)^(2n) h² sigma²``
    vanishes for 0 < h < 2.
    """
    h = np.asarray(h)
    return (1.0 - h) ** (2 * np.asarray(n)) * h**2 * sigma**2


def _contracting(h: ArrayLike) -> np.ndarray:
    h = np.asarray(h, dtype=float)
    if not ((h > 0) & (h < 2)).all():
        raise ValueError(
            f"There is no stationary law for h = {h}: the maps contract only for 0 < h < 2."
        )
    return h
