"""Do two samples come from the same law? Two-sample tests with p-values that can be trusted.

What is compared here are iterates of many runs that differ in their batches: one row, or one
number, for each run. If the laws are equal, a p-value falls below any level with at most that
probability; nothing is assumed of the laws.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike
from scipy.spatial.distance import cdist


def energy_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Return the energy distance between two samples, in the units of the samples.

    The root of ``2 E|X - Y| - E|X - X'| - E|Y - Y'|``, where X and X' are independent draws from
    the first sample (with replacement), Y and Y' from the second, and ``|·|`` is the Euclidean
    norm (Székely and Rizzo 2013). For two laws it is zero only if they are equal. For numbers it
    is what `scipy.stats.energy_distance` returns, which knows no other dimension.

    Parameters
    ----------
    x, y
        The samples, shapes (n, d) and (m, d), or (n,) and (m,).
    """
    x, y = _rows(x, y)
    distances, weights = _pooled(x, y)
    return float(_distance(distances, weights))


def same_law(
    x: ArrayLike,
    y: ArrayLike,
    paired: bool = False,
    resamples: int = 999,
    seed: int = 0,
) -> Any:
    """Test whether two samples come from the same law.

    Numbers of independent runs are compared by the Kolmogorov–Smirnov test, everything else by
    the `energy_distance` and its distribution over random relabellings of the observations.

    Parameters
    ----------
    x, y
        The samples, shapes (n, d) and (m, d), or (n,) and (m,). Rows are independent of each other.
    paired
        False: the two samples are independent, so the relabellings deal out all observations
        anew. True: row i of both belongs to one run, for example to two orders of the same
        batches, and the two may depend on each other; relabellings swap the two of a pair. The
        null hypothesis is then that swapping changes nothing: (X, Y) and (Y, X) have one law.
    resamples
        How many random relabellings; the smallest p-value is ``1 / (resamples + 1)``. All of them
        are used, and once each, where there are no more than that.
    seed
        Of the relabellings.

    Returns
    -------
    result
        SciPy's, with ``statistic``, the distance of Kolmogorov and Smirnov (between 0 and 1) or the
        energy distance; and ``pvalue``, the probability that two samples of one law are at least as
        far apart.

    Raises
    ------
    ValueError
        If the samples do not fit together, or hold something that is not finite.
    """
    x, y = _rows(x, y)
    if paired and len(x) != len(y):
        raise ValueError(f"Paired samples have equally many rows; these have {len(x)}, {len(y)}.")
    if x.shape[1] == 1 and not paired:
        return scipy.stats.ks_2samp(x[:, 0], y[:, 0])
    distances, _ = _pooled(x, y)

    def statistic(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
        """Return the distance of samples that are given by the numbers of their observations."""
        del axis  # the last
        shape = np.broadcast_shapes(first.shape[:-1], second.shape[:-1])
        weights = np.empty((*shape, len(distances)))
        np.put_along_axis(weights, first, 1 / len(x), axis=-1)
        np.put_along_axis(weights, second, -1 / len(y), axis=-1)
        return _distance(distances, weights)

    return scipy.stats.permutation_test(
        np.split(np.arange(len(distances)), [len(x)]),
        statistic,
        permutation_type="samples" if paired else "independent",
        vectorized=True,
        n_resamples=resamples,
        batch=100,
        alternative="greater",
        random_state=np.random.default_rng(seed),
    )


def _rows(x: ArrayLike, y: ArrayLike) -> list[np.ndarray]:
    """Return both samples with one observation a row."""
    samples = [np.asarray(sample, dtype=float) for sample in (x, y)]
    samples = [sample[:, None] if sample.ndim == 1 else sample for sample in samples]
    shapes = [sample.shape for sample in samples]
    if any(len(shape) != 2 for shape in shapes) or shapes[0][1] != shapes[1][1]:
        raise ValueError(
            f"A sample has one row for each observation, of the same length in both samples; "
            f"these have the shapes {np.shape(x)} and {np.shape(y)}."
        )
    if min(map(len, samples)) < 2:
        raise ValueError("A sample needs at least two observations.")
    if not all(np.isfinite(sample).all() for sample in samples):
        raise ValueError("A sample holds values that are not finite: did a run diverge?")
    return samples


def _pooled(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances between all observations, and the weights 1/n and -1/m of them."""
    both = np.concatenate([x, y])
    return cdist(both, both), np.repeat([1 / len(x), -1 / len(y)], [len(x), len(y)])


def _distance(distances: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the energy distance: ``-w·Dw`` is the three means in one, with the right signs."""
    squared = -np.sum((weights @ distances) * weights, axis=-1)
    return np.sqrt(np.maximum(squared, 0.0))  # the law's is never negative, but for rounding
