"""Gradient steps as contractions (Lemma 2.5), and losses whose constants are known exactly.

`gradient_step_bound` is the lemma, `gradient_step_constant` the exact constant that it estimates,
in the Euclidean norm. The losses: `Quadratic` and `LogCosh`, and logistic regression, which is
:class:`revlib.theory.near_minimum.LogisticRegression`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


def gradient_step_bound(h: ArrayLike, m: float, M: float) -> np.ndarray:
    """Return the bound of Lemma 2.5, ``sqrt(1 - 2 h m + h² M²)``.

    It is an upper bound of the Lipschitz constant of ``theta -> theta - h V(theta)`` for every
    field V that is m-strongly monotone and M-Lipschitz, whether it is a gradient or not, and it is
    below 1 for ``0 < h < 2 m / M²`` only.

    Parameters
    ----------
    h
        Learning rate, not negative.
    m, M
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
    h
        Learning rate.
    gradient
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
    hessian
        Shape (d, d). (`swirl` is no Hessian, but can be put here.)
    minimum
        A number or shape (d,).
    """

    hessian: np.ndarray
    minimum: ArrayLike = 0.0

    @classmethod
    def least_squares(cls, inputs: np.ndarray, targets: np.ndarray) -> Quadratic:
        """Return the gradient of ``‖X theta - y‖² / (2 b)`` for b examples.

        X has the shape (b, d), y the shape (b,). With fewer than d independent examples the minimum
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
    m, M
        Strong convexity constant and Lipschitz constant.
    turn
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
