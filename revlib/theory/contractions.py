"""Contractions: the bounds of Section 2, and families of maps to test them on.

A map is a contraction if its Lipschitz constant is below 1. The Lipschitz constant of a map T is
the largest ratio ``‖T(x) - T(y)‖ / ‖x - y‖``; all norms here are Euclidean.

`bound` and `cauchy_bound` are the two estimates of Theorem 2.2, for maps with a common constant
and for maps with a constant each. The families (`similarities`, `affine`, `tanh`) have constants
that are known exactly; those of gradient steps are in :mod:`revlib.theory.gradient_steps`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.distance import pdist
from scipy.stats import ortho_group

from revlib.training.maps import Affine

Map = Callable[[np.ndarray], np.ndarray]


def bound(k: float, largest: float, n: ArrayLike) -> np.ndarray:
    """Return how far the n-th backward iterate can be from the limit, ``D k^n / (1 - k)``.

    Parameters
    ----------
    k
        Common Lipschitz constant of the maps, ``0 <= k < 1``.
    largest
        The constant D: no map moves the *start point* by more than this.
    n
        Step, or an array of steps.

    Raises
    ------
    ValueError
        If k is not in the range.
    """
    if not 0 <= k < 1:
        raise ValueError(f"There is no bound for k = {k}: it needs a constant with 0 <= k < 1.")
    return largest * np.power(float(k), n) / (1 - k)


def cauchy_bound(constants: ArrayLike, moved: ArrayLike) -> np.ndarray:
    """Return how far the backward iterates can be from all later ones, up to the last.

    The sum in the proof of Theorem 2.2, without a common constant: for every m with n < m <= N

        d(theta(n), theta(m)) <= sum_{j=n+1}^{N} k_1 k_2 … k_{j-1} d_j,

    where ``k_i`` is the Lipschitz constant of ``T_i``, which may be 1 or larger, and ``d_j`` is
    how far ``T_j`` moves the start point. If the sum to infinity is finite, the iterates converge.

    Parameters
    ----------
    constants, moved
        ``k_1, …, k_N`` and ``d_1, …, d_N``, shape (N,).

    Returns
    -------
    numpy.ndarray
        The bound for n = 0 to N, shape (N + 1,); the last entry is 0.
    """
    terms = np.concatenate([[1.0], np.cumprod(constants)[:-1]]) * moved
    return np.append(np.cumsum(terms[::-1])[::-1], 0.0)


def displacements(maps: Sequence[Map], theta: ArrayLike) -> np.ndarray:
    """Return how far each map moves the point, ``d_i = ‖theta - T_i(theta)‖``, shape (N,).

    Their maximum is the constant D of Theorem 2.2, if the theorem is used with the start `theta`.
    """
    theta = np.asarray(theta, dtype=float)
    return np.array([np.linalg.norm(theta - step(theta)) for step in maps])


def later_distance(path: ArrayLike) -> np.ndarray:
    """Return the largest distance of each iterate to a later one, ``max_{m>=n} d(n, m)``.

    The iterates form a Cauchy sequence if this tends to 0. For a path of shape (N + 1, d) the shape
    is (N + 1,), and the last entry is 0.
    """
    path = np.asarray(path, dtype=float)
    return np.array([np.linalg.norm(path[n:] - path[n], axis=1).max() for n in range(len(path))])


@dataclass(frozen=True)
class Tanh:
    """The map ``theta -> a tanh(theta) + b``, one layer of a network without skip connection.

    Its Lipschitz constant is the spectral norm of `a`: tanh has its steepest slope, 1, at zero.

    Parameters
    ----------
    a
        Shape (d, d).
    b
        Shape (d,).
    """

    a: np.ndarray
    b: np.ndarray

    def __call__(self, theta: np.ndarray) -> np.ndarray:
        """Return the image of theta, shape (d,)."""
        return self.a @ np.tanh(theta) + self.b


def similarities(
    constants: ArrayLike, shifts: ArrayLike, generator: np.random.Generator
) -> list[Affine]:
    """Return maps ``theta -> k_i Q_i theta + b_i`` with random orthogonal matrices ``Q_i``.

    They multiply *every* distance by ``k_i``; at ``k_i = 1`` they are isometries.

    Parameters
    ----------
    constants
        The Lipschitz constants ``k_i``, shape (N,).
    shifts
        The ``b_i``, shape (N, d).
    generator
        Draws the matrices, uniformly.
    """
    shifts = np.asarray(shifts, dtype=float)
    turns = ortho_group.rvs(shifts.shape[1], size=len(shifts), random_state=generator)
    turns = turns.reshape(len(shifts), shifts.shape[1], -1)
    return [Affine(k * q, b) for k, q, b in zip(constants, turns, shifts, strict=True)]


def affine(constants: ArrayLike, shifts: ArrayLike, generator: np.random.Generator) -> list[Affine]:
    """Return maps ``theta -> A_i theta + b_i`` with random matrices of spectral norm ``k_i``.

    The entries of ``A_i`` are normal, scaled so that the norm is ``k_i``: *some* distances are
    multiplied by ``k_i``, most by less. The parameters are those of `similarities`.
    """
    matrices = _matrices(constants, shifts, generator)
    return [Affine(a, b) for a, b in zip(matrices, np.asarray(shifts, dtype=float), strict=True)]


def tanh(constants: ArrayLike, shifts: ArrayLike, generator: np.random.Generator) -> list[Tanh]:
    """Return maps ``theta -> A_i tanh(theta) + b_i`` with random matrices of norm ``k_i``.

    The parameters are those of `similarities`.
    """
    matrices = _matrices(constants, shifts, generator)
    return [Tanh(a, b) for a, b in zip(matrices, np.asarray(shifts, dtype=float), strict=True)]


def _matrices(
    constants: ArrayLike, shifts: ArrayLike, generator: np.random.Generator
) -> np.ndarray:
    """Return a normal random matrix of each spectral norm, shape (N, d, d)."""
    count, d = np.shape(shifts)
    raw = generator.normal(size=(count, d, d))
    return raw * (constants / np.linalg.norm(raw, 2, axis=(1, 2)))[:, None, None]


def empirical_lipschitz(step: Map, points: ArrayLike) -> float:
    """Return the largest ratio ``‖T(x) - T(y)‖ / ‖x - y‖`` over all pairs of points.

    It is never above the Lipschitz constant, and comes close to it where the points come close to
    a pair that attains it. T maps arrays of shape (d,) to such arrays; the points are different
    ones, shape (P, d), and P² distances are held in memory.
    """
    points = np.asarray(points, dtype=float)
    images = np.array([step(point) for point in points])
    return float(np.max(pdist(images) / pdist(points)))


def probes(count: int, d: int, generator: np.random.Generator) -> np.ndarray:
    """Return points of all sizes around zero to measure a Lipschitz constant with.

    Their directions are uniform, and the logarithm of their distance from zero is uniform between
    a hundredth and a hundred: near zero and far from it a loss may be curved differently. Shape
    (count, d).
    """
    directions = generator.normal(size=(count, d))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions * 10 ** generator.uniform(-2, 2, size=(count, 1))
