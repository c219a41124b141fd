"""The random quadratic losses of Sandler et al. (2023), Lemma 1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RandomQuadratics:
    """Losses ``‖A theta + c‖²/2`` with Gaussian A and c, drawn anew at every step.

    A has the given number of rows and entries of variance 1/rows, so that ``E[A^T A] = 1``; c has
    entries of variance sigma² and is independent of A.

    Parameters
    ----------
    dimension, rows
        Shape of A: of theta, and of what is squared.
    sigma
        Standard deviation of the entries of c.
    """

    dimension: int
    rows: int
    sigma: float = 1.0

    def maps(
        self, rate: float, steps: int, runs: int, seed: int
    ) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
        """Yield the SGD steps, each for all runs at once: a map of arrays of shape (R, d)."""
        generator = np.random.default_rng(seed)
        for _ in range(steps):
            a = generator.normal(0, self.rows**-0.5, (runs, self.rows, self.dimension))
            c = generator.normal(0, self.sigma, (runs, self.rows, 1))

            def step(theta: np.ndarray, a=a, c=c) -> np.ndarray:
                residual = a @ theta[..., None] + c
                return theta - rate * (a.swapaxes(1, 2) @ residual)[..., 0]

            yield step

    def squared_radius(self, rate: float) -> float:
        """Return the stationary ``E‖theta‖²``, exactly: ``λ σ² d / (2 - λ (1 + (d + 1)/rows))``.

        It is equation 12 of Sandler et al. with ``E[(A^T A)²] = 1 + (d + 1)/rows``. Infinite where
        the rate is too large.
        """
        room = 2 - rate * (1 + (self.dimension + 1) / self.rows)
        return rate * self.drift() / room if room > 0 else np.inf

    def drift(self) -> float:
        """Return ``E‖A^T c‖² = σ² d``: to first order in λ, half of it times λ is the radius²."""
        return self.sigma**2 * self.dimension
