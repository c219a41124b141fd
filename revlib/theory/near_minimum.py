"""SGD near a minimum: the linear picture of Section 3.2, and a convex problem to hold it against.

Near a minimum ``theta*`` with Hessian H the gradient of the loss is ``H (theta - theta*)``, and the
gradient on a batch differs from it by a noise ``-eps_i`` of mean zero and covariance C, so that

    T_i(theta) = theta* + (1 - h H)(theta - theta*) + h eps_i.

The first half of this module says what follows from that: both orders in closed form, and the
covariance that they end with. The second half is a real problem, logistic regression, of which H
and C are known exactly and on which SGD can be run for many chains at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import scipy
from numpy.typing import ArrayLike

from revlib.store.datasets import Dataset
from revlib.theory.gradient_steps import GradientStep


def forward_iterates(
    h: float, hessian: ArrayLike, noise: ArrayLike, minimum: ArrayLike, theta0: ArrayLike
) -> np.ndarray:
    """Return all forward iterates ``T_n … T_1(theta0)`` of the linear maps from their closed form.

    ``theta* + (1 - hH)^n (theta0 - theta*) + h sum_{j=1}^n (1 - hH)^(n - j) eps_j`` (Section 3.2).

    Parameters
    ----------
    h
        Learning rate, any number.
    hessian
        The symmetric matrix H, shape (d, d).
    noise
        ``eps_1`` to ``eps_N`` along the first axis, shape (N, ..., d); axes in between hold
        independent realisations.
    minimum
        ``theta*``, shape (d,).
    theta0
        Start point, shape (d,) or (..., d).

    Returns
    -------
    numpy.ndarray
        The iterates 0 to N, shape (N + 1, ..., d). Takes memory for N² d numbers.
    """
    noise, iterates, powers, basis = _modes(h, hessian, noise, minimum, theta0)
    lag = np.subtract.outer(np.arange(len(noise)), np.arange(len(noise)))  # n - j
    weights = np.where(lag[..., None] >= 0, powers[np.abs(lag)], 0.0)
    iterates[1:] += h * np.einsum("njd,j...d->n...d", weights, noise)
    return minimum + iterates @ basis.T


def backward_iterates(
    h: float, hessian: ArrayLike, noise: ArrayLike, minimum: ArrayLike, theta0: ArrayLike
) -> np.ndarray:
    """Return all backward iterates ``T_1 … T_n(theta0)`` of the linear maps from their closed form.

    ``theta* + (1 - hH)^n (theta0 - theta*) + h sum_{j=1}^n (1 - hH)^(j - 1) eps_j`` (Section 3.2).
    Parameters and shapes are those of `forward_iterates`.
    """
    noise, iterates, powers, basis = _modes(h, hessian, noise, minimum, theta0)
    iterates[1:] += h * np.cumsum(_steps(powers[:-1], noise) * noise, axis=0)
    return minimum + iterates @ basis.T


def _modes(
    h: float, hessian: ArrayLike, noise: ArrayLike, minimum: ArrayLike, theta0: ArrayLike
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return, in the eigenvectors of H, the noise, the iterates without it, and the powers.

    In these coordinates ``(1 - hH)^k`` is diagonal; row k of the powers holds its diagonal. The
    last item is the matrix whose columns are the eigenvectors.
    """
    curvatures, basis = np.linalg.eigh(np.asarray(hessian, dtype=float))
    noise = np.asarray(noise, dtype=float)
    if noise.ndim < 2 or noise.shape[-1] != len(curvatures):
        raise ValueError(
            f"The noise has shape {noise.shape}; give one vector of {len(curvatures)} entries "
            f"per step, for a Hessian of shape {basis.shape}."
        )
    offset = np.broadcast_to(np.subtract(theta0, minimum), noise.shape[1:]) @ basis
    powers = (1.0 - h * curvatures) ** np.arange(len(noise) + 1)[:, None]
    return noise @ basis, _steps(powers, noise) * offset, powers, basis


def _steps(powers: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Give the powers, shape (N, d), the axes of the noise, shape (N, ..., d)."""
    return powers.reshape(len(powers), *(1,) * (noise.ndim - 2), powers.shape[1])


def stationary_covariance(h: float, hessian: ArrayLike, noise_covariance: ArrayLike) -> np.ndarray:
    """Return the covariance of the stationary law of the linear maps.

    It solves ``Sigma = (1 - hH) Sigma (1 - hH) + h² C``: what one more step leaves of the spread,
    and what its noise adds. The forward iterates settle to this law, and the limits of the backward
    iterates follow it.

    Parameters
    ----------
    h
        Learning rate.
    hessian, noise_covariance
        The symmetric matrices H and C, shape (d, d).

    Returns
    -------
    numpy.ndarray
        Shape (d, d).

    Raises
    ------
    ValueError
        If the maps do not contract: that takes ``0 < h < 2/lambda_max``, and a Hessian all of
        whose eigenvalues are positive.
    """
    curvatures = np.linalg.eigvalsh(hessian)
    if not np.abs(1 - h * curvatures).max() < 1:
        raise ValueError(
            f"There is no stationary law for h = {h} and curvatures from {curvatures[0]:.3g} to "
            f"{curvatures[-1]:.3g}: the maps contract only if all curvatures are positive and "
            "0 < h < 2 divided by the largest."
        )
    pull = np.eye(len(curvatures)) - h * np.asarray(hessian)
    return scipy.linalg.solve_discrete_lyapunov(pull, h**2 * np.asarray(noise_covariance))


def mean_shift(hessian: ArrayLike, third: ArrayLike) -> np.ndarray:
    """Return how far the stationary mean lies from the minimum, to first order in h.

    Under the stationary law one step changes the mean by nothing, so that the mean *gradient* is
    zero. Expanded to second order around the minimum that reads
    ``H b + L'''[Sigma] / 2 = 0``, which leaves ``b = -H^(-1) L'''[Sigma] / 2``. It is no part of
    the linear picture, in which the mean is the minimum. H has the shape (d, d), and `third` is
    ``L'''[Sigma]``, the third derivative of the loss contracted with the stationary covariance,
    shape (d,); see `LogisticRegression.third`.
    """
    return -np.linalg.solve(hessian, third) / 2


def norm_of_mean(samples: ArrayLike) -> tuple[float, float]:
    """Return the Euclidean norm of the mean of independent samples, and its standard error.

    The standard error is the root mean square distance of the sample mean from its expectation. A
    norm that is not several times larger cannot be told from zero. The samples are the rows, shape
    (R, ...), R at least 2; the norm is over all other axes.
    """
    samples = np.asarray(samples, dtype=float).reshape(len(samples), -1)
    error = np.sqrt(samples.var(axis=0, ddof=1).sum() / len(samples))
    return float(np.linalg.norm(samples.mean(axis=0))), float(error)


@dataclass(frozen=True, eq=False)
class LogisticRegression:
    """Logistic regression of two classes with a ridge penalty, in double precision.

    ``L(theta) = mean over n of [log(1 + exp(x_n . theta)) - y_n x_n . theta] + ridge |theta|²/2``.
    The penalty makes the loss strongly convex: it has one minimum, and all curvatures are at least
    `ridge`. Wherever theta has shape (..., d), the axes in front hold independent chains.

    Parameters
    ----------
    x
        Features, shape (N, d); include a column of ones for an intercept.
    y
        Classes, 0 or 1, shape (N,).
    ridge
        Strength of the penalty, not negative.
    """

    x: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)
    ridge: float = 0.0

    def __post_init__(self) -> None:
        x, y = np.asarray(self.x, dtype=float), np.asarray(self.y, dtype=float)
        if x.ndim != 2 or y.shape != x.shape[:1] or not np.isin(y, (0, 1)).all():
            raise ValueError(
                f"Give one row of features and one class, 0 or 1, for each example; got features "
                f"of shape {x.shape} and classes of shape {y.shape}."
            )
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)

    @property
    def constants(self) -> tuple[float, float]:
        """The strong convexity constant m and the Lipschitz constant M of the gradient.

        m is the ridge, and M is m plus a quarter of the largest eigenvalue of XᵀX/N. The Hessian
        reaches M at zero, and comes as close to m as one likes far from it.
        """
        largest = np.linalg.norm(self.x, 2) ** 2 / len(self.x)
        return self.ridge, self.ridge + float(largest) / 4

    def loss(self, theta: np.ndarray) -> np.ndarray:
        """Return the loss over all examples, shape (...)."""
        logits = theta @ self.x.T
        data = (np.logaddexp(0, logits) - self.y * logits).mean(axis=-1)
        return data + self.ridge * np.square(theta).sum(axis=-1) / 2

    def gradient(self, theta: np.ndarray, batch: np.ndarray | None = None) -> np.ndarray:
        """Return the gradient, shape (..., d), of the whole loss or of the mean over a batch.

        Parameters
        ----------
        theta
            Shape (..., d).
        batch
            Row numbers of the examples, shape (B,) or, one batch for each chain, (..., B).
        """
        if batch is None:
            data = (scipy.special.expit(theta @ self.x.T) - self.y) @ self.x / len(self.x)
        else:
            x = self.x[batch]
            residual = scipy.special.expit((x @ theta[..., None])[..., 0]) - self.y[batch]
            data = (residual[..., None, :] @ x)[..., 0, :] / batch.shape[-1]
        return data + self.ridge * theta

    def hessian(self, theta: np.ndarray) -> np.ndarray:
        """Return the Hessian at one theta of shape (d,), shape (d, d)."""
        p = scipy.special.expit(self.x @ theta)
        data = (self.x * (p * (1 - p))[:, None]).T @ self.x / len(self.x)
        return data + self.ridge * np.eye(self.x.shape[1])

    def third(self, theta: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """Return the third derivative at theta, contracted with a matrix of shape (d, d).

        Entry a is the sum over b and c of ``d³L/dtheta_a dtheta_b dtheta_c`` times
        ``matrix[b, c]``.
        """
        p = scipy.special.expit(self.x @ theta)
        forms = np.einsum("nb,bc,nc->n", self.x, matrix, self.x)
        return (p * (1 - p) * (1 - 2 * p) * forms) @ self.x / len(self.x)

    def noise_covariance(self, theta: np.ndarray, batch_size: int) -> np.ndarray:
        """Return the covariance of the gradient on a batch drawn with replacement, shape (d, d).

        ``C = (mean over n of g_n g_n^T - g g^T) / B``, where ``g_n`` is the gradient on the single
        example n and g their mean, the full gradient.
        """
        own = (scipy.special.expit(self.x @ theta) - self.y)[:, None] * self.x
        own = own - own.mean(axis=0)
        return own.T @ own / len(own) / batch_size

    def minimiser(self) -> np.ndarray:
        """Return the minimum, shape (d,): the root of the gradient, found by Powell's method.

        Raises
        ------
        RuntimeError
            If none is found. Without a penalty there is none where the classes can be separated:
            the loss then falls for ever, and flattens out.
        """
        start = np.zeros(self.x.shape[1])
        result = scipy.optimize.root(self.gradient, start, jac=self.hessian, tol=1e-13)
        least = np.linalg.eigvalsh(self.hessian(result.x))[0]
        if not (np.abs(result.fun).max() < 1e-9 and least > 1e-6):
            raise RuntimeError(
                f"No minimum was found: the search ended where the gradient has entries of up to "
                f"{np.abs(result.fun).max():.1e} and the least curvature is {least:.1e}."
            )
        return result.x

    def maps(self, h: float, batches: np.ndarray) -> list[GradientStep]:
        """Return the SGD steps ``T_i(theta) = theta - h grad L_i(theta)``, all chains at once.

        The batches hold the row numbers of each step's examples, shape (N, ..., B).
        """
        return [GradientStep(h, partial(self.gradient, batch=batch)) for batch in batches]


def linear_maps(
    h: float, problem: LogisticRegression, minimum: np.ndarray, batches: np.ndarray
) -> list[Callable[[np.ndarray], np.ndarray]]:
    """Return the linearised SGD steps of a problem, with the noise that the batches really make.

    ``T_i(theta) = theta* + (1 - hH)(theta - theta*) + h eps_i`` with ``eps_i`` minus the gradient
    of batch i at the minimum. Run on the same batches as `LogisticRegression.maps`, they stay close
    to it, so that what linearity leaves out can be measured with little statistical error. The
    minimum is that of the problem, shape (d,).
    """
    pull = np.eye(len(minimum)) - h * problem.hessian(minimum)
    noise = partial(problem.gradient, minimum)
    return [
        lambda theta, batch=batch: minimum + (theta - minimum) @ pull - h * noise(batch)
        for batch in batches
    ]


def two_classes(
    dataset: Dataset, first: int, second: int, components: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the training images of two classes as a few principal components.

    The scores on the leading principal components are divided by one number, so that the first has
    variance 1 and the others less; a column of ones is put before them.

    Parameters
    ----------
    dataset
        Any of the image data sets.
    first, second
        The classes that become 0 and 1.
    components
        How many principal components to keep.

    Returns
    -------
    x : numpy.ndarray
        Shape (N, components + 1).
    y : numpy.ndarray
        Shape (N,), 0 or 1.
    """
    chosen = np.isin(dataset.y_train, (first, second))
    pixels = dataset.x_train[chosen].reshape(chosen.sum(), -1) / 255.0
    left, scale, right = np.linalg.svd(pixels - pixels.mean(axis=0), full_matrices=False)
    # A component is determined up to its sign: its largest pixel shall be positive.
    right = right[:components]
    signs = np.sign(right[np.arange(components), np.abs(right).argmax(axis=1)])
    scores = left[:, :components] * signs * (scale[:components] / scale[0]) * np.sqrt(len(left))
    y = (dataset.y_train[chosen] == second).astype(float)
    return np.column_stack([np.ones(len(scores)), scores]), y
