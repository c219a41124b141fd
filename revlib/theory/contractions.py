"""Contractions: the bounds of Section 2, and families of maps to test them on.

A map is a contraction if its Lipschitz constant is below 1. The Lipschitz constant of a map T is
the largest ratio ``‖T(x) - T(y)‖ / ‖x - y‖``; all norms here are Euclidean.

`bound` and `cauchy_bound` are the two estimates of Theorem 2.2, for maps with a common constant
and for maps with a constant each. `gradient_step_bound` is Lemma 2.5, `gradient_step_constant` the
exact constant that it estimates. The families (`similarities`, `affine`, `tanh`) and the losses
(`Quadratic`, `LogCosh`, `Logistic`) have constants that are known exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit
from scipy.stats import ortho_group

from revlib.training.maps import Affine

__all__ = [
    "GradientStep",
    "LogCosh",
    "Logistic",
    "Quadratic",
    "Tanh",
    "affine",
    "bound",
    "bound_limit",
    "cauchy_bound",
    "displacements",
    "empirical_lipschitz",
    "gradient_step_bound",
    "gradient_step_constant",
    "later_distance",
    "probes",
    "sharp_limit",
    "similarities",
    "swirl",
    "tanh",
]

Map = Callable[[np.ndarray], np.ndarray]


# The backward contraction principle (Theorem 2.2)


def bound(k: float, largest: float, n: ArrayLike) -> np.ndarray:
    """Return how far the n-th backward iterate can be from the limit, ``D k^n / (1 - k)``.

    Parameters
    ----------
    k : float
        Common Lipschitz constant of the maps, ``0 <= k < 1``.
    largest : float
        The constant D: no map moves the *start point* by more than this.
    n : array_like of int
        Step.

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
    constants, moved : array_like
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

    The iterates form a Cauchy sequence if this tends to 0.

    Parameters
    ----------
    path : array_like
        The iterates 0 to N, shape (N + 1, d).

    Returns
    -------
    numpy.ndarray
        Shape (N + 1,); the last entry is 0.
    """
    path = np.asarray(path, dtype=float)
    return np.array([np.linalg.norm(path[n:] - path[n], axis=1).max() for n in range(len(path))])


@dataclass(frozen=True)
class Tanh:
    """The map ``theta -> a tanh(theta) + b``, one layer of a network without skip connection.

    Its Lipschitz constant is the spectral norm of `a`: tanh has its steepest slope, 1, at zero.

    Parameters
    ----------
    a : numpy.ndarray
        Shape (d, d).
    b : numpy.ndarray
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
    constants : array_like
        The Lipschitz constants ``k_i``, shape (N,).
    shifts : array_like
        The ``b_i``, shape (N, d).
    generator : numpy.random.Generator
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


# Gradient steps (Lemma 2.5)


def gradient_step_bound(h: ArrayLike, m: float, M: float) -> np.ndarray:
    """Return the bound of Lemma 2.5, ``sqrt(1 - 2 h m + h² M²)``.

    It is an upper bound of the Lipschitz constant of ``theta -> theta - h V(theta)`` for every
    field V that is m-strongly monotone and M-Lipschitz, whether it is a gradient or not, and it is
    below 1 for ``0 < h < 2 m / M²`` only.

    Parameters
    ----------
    h : array_like
        Learning rate, not negative.
    m, M : float
        ``<V(x) - V(y), x - y> >= m ‖x - y‖²`` and ``‖V(x) - V(y)‖ <= M ‖x - y‖``.

    Raises
    ------
    ValueError
        If m is larger than M: there is no such field.
    """
    _ordered(m, M)
    h = np.asarray(h, dtype=float)
    return np.sqrt(1 - 2 * h * m + h**2 * M**2)


def gradient_step_constant(h: ArrayLike, m: float, M: float) -> np.ndarray:
    """Return ``max(|1 - h m|, |1 - h M|)``, the sharp constant for gradients.

    It is the largest Lipschitz constant that ``theta -> theta - h ∇L(theta)`` can have if all
    eigenvalues of the Hessian of L lie between m and M, and it is attained if both values occur
    (for a quadratic: if they are eigenvalues). It is below 1 for ``0 < h < 2 / M`` if m > 0.

    Raises
    ------
    ValueError
        If m is larger than M.
    """
    _ordered(m, M)
    h = np.asarray(h, dtype=float)
    return np.maximum(np.abs(1 - h * m), np.abs(1 - h * M))


def bound_limit(m: float, M: float) -> float:
    """Return the learning rate up to which Lemma 2.5 shows a contraction, ``2 m / M²``."""
    _ordered(m, M)
    return 2 * m / M**2


def sharp_limit(M: float) -> float:
    """Return the learning rate up to which a strongly convex loss gives contractions, ``2/M``."""
    return 2 / M


def _ordered(m: float, M: float) -> None:
    if m > M:
        raise ValueError(
            f"No gradient has m = {m} and M = {M}: the strong convexity constant m cannot be "
            "larger than the Lipschitz constant M."
        )


def swirl(m: float, M: float) -> np.ndarray:
    """Return the matrix of a field in the plane for which Lemma 2.5 is an equality.

    ``V(theta) = m theta + sqrt(M² - m²) J theta`` with the quarter turn J stretches everything by
    M and makes the same angle with it everywhere. It is no gradient: its matrix is not symmetric.
    """
    _ordered(m, M)
    across = np.sqrt(M**2 - m**2)
    return np.array([[m, -across], [across, m]])


@dataclass(frozen=True)
class GradientStep:
    """The map ``theta -> theta - h ∇L(theta)`` of Section 2.1.

    Parameters
    ----------
    h : float
        Learning rate.
    gradient : callable
        The gradient of the loss; takes theta and returns an array of its shape.
    """

    h: float
    gradient: Callable[[np.ndarray], np.ndarray]

    def __call__(self, theta: np.ndarray) -> np.ndarray:
        """Return the point after the step, of the shape of theta."""
        return theta - self.h * self.gradient(theta)


@dataclass(frozen=True)
class Quadratic:
    """The gradient ``H (theta - minimum)`` of a quadratic loss.

    Parameters
    ----------
    hessian : numpy.ndarray
        Shape (d, d). (`swirl` is no Hessian, but can be put here.)
    minimum : array_like, optional
        A number or shape (d,).
    """

    hessian: np.ndarray
    minimum: ArrayLike = 0.0

    @classmethod
    def least_squares(cls, inputs: np.ndarray, targets: np.ndarray) -> Quadratic:
        """Return the gradient of ``‖X theta - y‖² / (2 b)`` for b examples.

        Parameters
        ----------
        inputs, targets : numpy.ndarray
            X, shape (b, d), and y, shape (b,). With fewer than d independent examples the minimum
            is not unique, and its shortest one is taken.
        """
        shortest = np.linalg.lstsq(inputs, targets, rcond=None)[0]
        return cls(inputs.T @ inputs / len(inputs), shortest)

    def __call__(self, theta: np.ndarray) -> np.ndarray:
        """Return the gradient, shape (d,)."""
        return self.hessian @ (theta - self.minimum)

    @property
    def constants(self) -> tuple[float, float]:
        """The constants m and M: the smallest and the largest eigenvalue of the Hessian."""
        eigenvalues = np.linalg.eigvalsh(self.hessian)
        return float(eigenvalues[0]), float(eigenvalues[-1])


@dataclass(frozen=True)
class LogCosh:
    """The gradient of ``m ‖theta‖²/2 + (M - m) sum_j log cosh((Q theta)_j)``.

    The Hessian has the eigenvalue M in all directions at zero, and tends to m far from it: no
    quadratic describes this loss, and its constants are exactly m and M.

    Parameters
    ----------
    m, M : float
        Strong convexity constant and Lipschitz constant.
    turn : numpy.ndarray
        The orthogonal matrix Q, shape (d, d).
    """

    m: float
    M: float
    turn: np.ndarray

    def __call__(self, theta: np.ndarray) -> np.ndarray:
        """Return the gradient, shape (d,)."""
        return self.m * theta + (self.M - self.m) * self.turn.T @ np.tanh(self.turn @ theta)

    @property
    def constants(self) -> tuple[float, float]:
        """The constants m and M."""
        return self.m, self.M


@dataclass(frozen=True)
class Logistic:
    """The gradient of the logistic loss of a batch with a ridge.

    The loss is ``mean_i log(1 + exp(-y_i x_i·theta)) + ridge ‖theta‖²/2``.

    Parameters
    ----------
    inputs : numpy.ndarray
        The ``x_i``, shape (b, d).
    labels : numpy.ndarray
        The ``y_i``, each 1 or -1, shape (b,).
    ridge : float
        Weight of the regulariser, not negative.
    """

    inputs: np.ndarray
    labels: np.ndarray
    ridge: float

    def __call__(self, theta: np.ndarray) -> np.ndarray:
        """Return the gradient, shape (d,)."""
        wrong = expit(-self.labels * (self.inputs @ theta))
        return self.ridge * theta - (self.labels * wrong) @ self.inputs / len(self.labels)

    @property
    def constants(self) -> tuple[float, float]:
        """The constants m and M.

        m is the ridge, and M is m plus a quarter of the largest eigenvalue of XᵀX/b. The Hessian
        reaches M at zero, and comes as close to m as one likes far from it.
        """
        largest = np.linalg.norm(self.inputs, 2) ** 2 / len(self.inputs)
        return self.ridge, self.ridge + float(largest) / 4


# Measuring


def empirical_lipschitz(step: Map, points: ArrayLike) -> float:
    """Return the largest ratio ``‖T(x) - T(y)‖ / ‖x - y‖`` over all pairs of points.

    It is never above the Lipschitz constant, and comes close to it where the points come close to
    a pair that attains it.

    Parameters
    ----------
    step : callable
        The map T, from arrays of shape (d,) to arrays of shape (d,).
    points : array_like
        Different points, shape (P, d); P² distances are held in memory.
    """
    points = np.asarray(points, dtype=float)
    images = np.array([step(point) for point in points])
    first, second = np.triu_indices(len(points), 1)
    apart = np.linalg.norm(points[first] - points[second], axis=1)
    return float(np.max(np.linalg.norm(images[first] - images[second], axis=1) / apart))


def probes(count: int, d: int, generator: np.random.Generator) -> np.ndarray:
    """Return points of all sizes around zero to measure a Lipschitz constant with.

    Their directions are uniform, and the logarithm of their distance from zero is uniform between
    a hundredth and a hundred: near zero and far from it a loss may be curved differently.

    Returns
    -------
    numpy.ndarray
        Shape (count, d).
    """
    directions = generator.normal(size=(count, d))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions * 10 ** generator.uniform(-2, 2, size=(count, 1))
