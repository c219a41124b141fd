"""Many small training runs at once: an ensemble of runs that differ only in their batches.

The iterates of an ensemble are the rows of one array, shape (R, P) for R runs and P parameters,
so that one map advances all runs: a :class:`revlib.theory.gradient_steps.GradientStep` with the
gradients of all runs, each on its batch, or a step with momentum. Examples are chosen by their
numbers: `independent_batches` and `shuffled_epochs` say which examples every run sees at every
step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from revlib.orders import Order, backward, forward


@dataclass(frozen=True)
class HeavyBall:
    """A step of gradient descent with momentum, a map of the state (parameters, velocity).

    ``v -> beta v - h gradient(theta)`` and then ``theta -> theta + v``.

    Parameters
    ----------
    h
        Learning rate.
    gradient
        The gradient of the loss; takes theta and returns an array of its shape.
    beta
        How much of the velocity is kept.
    """

    h: float
    gradient: Callable[[np.ndarray], np.ndarray]
    beta: float

    def __call__(self, state: np.ndarray) -> np.ndarray:
        """Return the state after the step, shape (2, R, P): first the parameters."""
        theta, velocity = state
        velocity = self.beta * velocity - self.h * self.gradient(theta)
        return np.stack([theta + velocity, velocity])


def least_squares_gradient(theta: np.ndarray, batch: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return the gradient of ``(x·theta - y)²/2`` for one example (x, y) in each run.

    The parameters theta and the inputs x have the shape (R, d), the targets y the shape (R,).
    """
    x, y = batch
    return (np.sum(x * theta, axis=1) - y)[:, None] * x


@dataclass(frozen=True)
class Network:
    """A network with one number as input, one tanh layer and one number as output.

    A row of parameters holds the input weights w, their biases b, the output weights v (as many
    of each as there are hidden units) and the output bias c: ``f(x) = c + sum_k v_k tanh(w_k x +
    b_k)``. The loss is the mean of ``(f(x) - y)²/2``.

    Parameters
    ----------
    inputs, targets
        The examples, shape (N,).
    """

    inputs: np.ndarray
    targets: np.ndarray

    def loss(self, theta: np.ndarray) -> np.ndarray:
        """Return each run's loss over all examples, shape (R,), for parameters (R, P)."""
        _, errors = self._apply(theta, np.arange(len(self.inputs))[None])
        return np.mean(errors**2, axis=1) / 2

    def gradient(self, theta: np.ndarray, batch: np.ndarray) -> np.ndarray:
        """Return the gradient of each run's loss over its batch of examples, shape (R, P).

        For parameters (R, P); the batch holds the numbers of the examples, shape (R, B).
        """
        hidden, errors = self._apply(theta, batch)
        x = self.inputs[batch][..., None]
        _, _, v, _ = self._parts(theta)
        error = errors[..., None] / batch.shape[1]  # the loss by the output
        slope = error * v * (1 - hidden**2)  # and by what the hidden units see
        parts = (slope * x, slope, error * hidden, error)
        return np.concatenate([part.sum(axis=1) for part in parts], axis=1)

    def _parts(self, theta: np.ndarray) -> list[np.ndarray]:
        """Return w, b, v and c, with an axis for the examples put in."""
        units = (theta.shape[1] - 1) // 3
        return np.split(theta[:, None], [units, 2 * units, 3 * units], axis=2)

    def _apply(self, theta: np.ndarray, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the hidden units, shape (R, B, units), and the errors of the output, (R, B)."""
        w, b, v, c = self._parts(theta)
        hidden = np.tanh(self.inputs[batch][..., None] * w + b)
        return hidden, np.sum(hidden * v, axis=2) + c[..., 0] - self.targets[batch]


def independent_batches(
    generator: np.random.Generator, runs: int, steps: int, examples: int, size: int
) -> np.ndarray:
    """Return the examples that each run sees at each step, all drawn independently.

    They are numbers from 0 to ``examples - 1``, shape (steps, runs, size).
    """
    return generator.integers(examples, size=(steps, runs, size))


def shuffled_epochs(
    generator: np.random.Generator, runs: int, steps: int, examples: int, size: int
) -> np.ndarray:
    """Return the examples that each run sees at each step, in epochs that are shuffled anew.

    They are numbers from 0 to ``examples - 1``, shape (steps, runs, size): in each run, every
    ``examples // size`` steps from the first on hold each example once.

    Raises
    ------
    ValueError
        If the batch size does not divide the number of examples. The small batch at the end of
        every epoch would have its place there, and one epoch read backward would be another law.
    """
    if examples % size:
        raise ValueError(
            f"Epochs of {examples} examples cannot be cut into batches of {size} without a rest."
        )
    epoch = examples // size
    count = -(-steps // epoch)
    orders = np.tile(np.arange(examples), (runs, count, 1))
    batches = generator.permuted(orders, axis=2).reshape(runs, count * epoch, size)
    return batches.swapaxes(0, 1)[:steps]


def reshuffled_variances(
    h: float,
    steps: int,
    epoch: int,
    orders: Iterable[Order] = (forward(), backward()),
) -> dict[str, np.ndarray]:
    """Return the variance of the iterates of orders where noise comes in shuffled epochs.

    For the noisy quadratic of Section 3.1, ``T_i(theta) = (1 - h) theta + h eps_i``, whose noise
    runs through `epoch` values of mean 0 and variance 1 in a new random order every epoch.
    The iterate is ``sum_i w_i eps_i``, with the weight ``h (1 - h)^(n - p)`` of the map that is
    applied as the p-th of n. Different epochs are independent, and M values drawn without
    replacement have the covariance ``-1/(M - 1)``, so that an epoch contributes

        M/(M - 1) (sum w_i² - (sum w_i)²/M),

    the sums being over its steps up to n. The learning rate is h, and the number M of values in an
    `epoch` is 2 or more. The result has by the name of the order the variances at the steps 0 to
    `steps`.
    """
    latest_first = h * (1.0 - h) ** np.arange(steps)
    found = {}
    for order in orders:
        variances = []
        for n in range(steps + 1):
            weights = np.zeros(n)
            weights[np.array(order.applied(n), int) - 1] = latest_first[:n][::-1]
            each = np.pad(weights, (0, -n % epoch)).reshape(-1, epoch)
            parts = np.sum(each**2, axis=1) - np.sum(each, axis=1) ** 2 / epoch
            variances.append(epoch / (epoch - 1) * np.sum(parts))
        found[order.name] = np.array(variances)
    return found
