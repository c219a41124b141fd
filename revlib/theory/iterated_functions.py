"""Random maps from a finite set: iterated function systems, and coupling from the past.

At every step one of a few maps is drawn. Forward iterates of such maps wander for ever; backward
iterates stop at a random point (Example 2.4 and Theorem 2.2). The setting is that of Diaconis and
Freedman, "Iterated random functions" (1999). The maps of an `IFS` are affine, and its iterates in
any order are those of `revlib.iterates`; on a finite set of states, backward iteration until all
starts agree is the algorithm of Propp and Wilson (1996).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from revlib.training.maps import Affine


@dataclass(frozen=True)
class IFS:
    """An iterated function system: affine maps, one of which is drawn independently at each step.

    Parameters
    ----------
    matrices
        The linear parts, shape (m, d, d).
    shifts
        The shifts, shape (m, d).
    probabilities
        How likely each map is, shape (m,); positive, with sum 1.

    Raises
    ------
    ValueError
        If the shapes do not fit each other or the probabilities are none.
    """

    matrices: np.ndarray
    shifts: np.ndarray
    probabilities: np.ndarray

    def __post_init__(self) -> None:
        """Turn what is given into arrays and check that they fit."""
        for name in ("matrices", "shifts", "probabilities"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=float))
        count, dimension = self.shifts.shape
        if self.matrices.shape != (count, dimension, dimension):
            raise ValueError(
                f"{count} shifts of length {dimension} need matrices of the shape "
                f"{(count, dimension, dimension)}; got {self.matrices.shape}."
            )
        p = self.probabilities
        if p.shape != (count,) or not (p > 0).all() or abs(p.sum() - 1) > 1e-12:
            raise ValueError(f"{count} maps need as many positive probabilities of sum 1; got {p}.")

    @property
    def factors(self) -> np.ndarray:
        """The Lipschitz constant of each map, shape (m,): the spectral norm of its matrix."""
        return np.linalg.norm(self.matrices, ord=2, axis=(1, 2))

    @property
    def log_rate(self) -> float:
        """The mean of the logarithm of the factor of a random map.

        If it is negative, the maps contract on average, and backward iterates converge even where
        single maps expand (Diaconis and Freedman 1999, Theorem 1.1).
        """
        with np.errstate(divide="ignore"):  # constant maps: minus infinity
            return float(self.probabilities @ np.log(self.factors))

    def draw(self, generator: np.random.Generator, steps: int) -> np.ndarray:
        """Return which map is drawn at each of that many steps, shape (steps,)."""
        return generator.choice(len(self.probabilities), size=steps, p=self.probabilities)

    def maps(self, drawn: Sequence[int]) -> list[Affine]:
        """Return the drawn maps ``T_1, T_2, …``, to be given to `revlib.iterates`."""
        every = [Affine(a, b) for a, b in zip(self.matrices, self.shifts, strict=True)]
        return [every[i] for i in drawn]

    def bound(self, drawn: Sequence[int], theta0: ArrayLike) -> np.ndarray:
        """Return how far apart the backward iterates n and n + 1 can be, for n = 0 … N - 1.

        The iterates ``T_1 … T_n(theta0)`` and ``T_1 … T_n(T_{n+1}(theta0))`` are the images of two
        points under the same n maps, with factors ``k_i``. Their distance is at most
        ``k_1 k_2 … k_n |theta0 - T_{n+1}(theta0)|``: the step in the proof of Theorem 2.2, with the
        factor of each map instead of a common one. (Similarities attain it.) The start point has
        the shape (d,), the result the shape (N,) for the maps `drawn` at steps 1 to N.
        """
        theta0 = np.asarray(theta0, dtype=float)
        first = np.linalg.norm(self.matrices @ theta0 + self.shifts - theta0, axis=1)
        products = np.cumprod(np.concatenate([[1.0], self.factors[drawn]]))
        return products[:-1] * first[drawn]

    def sample(self, size: int, steps: int, generator: np.random.Generator) -> np.ndarray:
        """Return that many independent iterates at one step from 0, shape (size, d).

        After enough steps, such that the product of the factors is small, these are draws from
        the stationary law: the limits of as many backward paths, up to that product.
        """
        theta = np.zeros((size, self.shifts.shape[1]))
        for _ in range(steps):
            drawn = self.draw(generator, size)
            theta = np.einsum("nij,nj->ni", self.matrices[drawn], theta) + self.shifts[drawn]
        return theta


def barnsley_fern() -> IFS:
    """Return Barnsley's fern: stem, next smaller fronds, left and right frond (Barnsley 1988)."""
    return IFS(
        [
            [[0.0, 0.0], [0.0, 0.16]],
            [[0.85, 0.04], [-0.04, 0.85]],
            [[0.2, -0.26], [0.23, 0.22]],
            [[-0.15, 0.28], [0.26, 0.24]],
        ],
        [[0.0, 0.0], [0.0, 1.6], [0.0, 1.6], [0.0, 0.44]],
        [0.01, 0.85, 0.07, 0.07],
    )


def sierpinski_triangle() -> IFS:
    """Return the maps that halve the distance to each corner of an equilateral triangle."""
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(0.75)]])
    return IFS(np.broadcast_to(np.eye(2) / 2, (3, 2, 2)), corners / 2, np.full(3, 1 / 3))


def bernoulli_convolution(ratio: float) -> IFS:
    """Return ``theta -> ratio theta ± (1 - ratio)`` with a fair coin for the sign, on [-1, 1].

    These are gradient steps on ``theta²/2`` with learning rate ``h = 1 - ratio`` and gradient noise
    that is +1 or -1 (Section 3.1). The stationary law is the Bernoulli convolution of that ratio.

    Raises
    ------
    ValueError
        If the ratio is not between 0 and 1.
    """
    if not 0 < ratio < 1:
        raise ValueError(f"The ratio of a Bernoulli convolution lies between 0 and 1; got {ratio}.")
    return IFS(np.full((2, 1, 1), ratio), [[ratio - 1], [1 - ratio]], [0.5, 0.5])


def reflected_walk(size: int, up: float) -> np.ndarray:
    """Return the transition matrix of a walk on 0 … size - 1 that stays where it cannot step.

    It goes up by one with probability `up` and otherwise down; at the ends it stays instead.
    """
    walk = np.diag(np.full(size - 1, up), 1) + np.diag(np.full(size - 1, 1 - up), -1)
    walk[0, 0], walk[-1, -1] = 1 - up, up
    return walk


def stationary_law(transition: ArrayLike) -> np.ndarray:
    """Return the probabilities that one more step of a finite chain leaves as they are.

    Row i of the transition matrix, shape (m, m), holds the probabilities of the next state from
    state i. The chain has one stationary law (any irreducible chain does).
    """
    transition = np.asarray(transition, dtype=float)
    size = len(transition)
    equations = np.vstack([transition.T - np.eye(size), np.ones(size)])
    return np.linalg.lstsq(equations, np.eye(size + 1)[-1], rcond=None)[0]


def random_map(transition: ArrayLike, uniform: float) -> np.ndarray:
    """Return a map of the states to themselves under which each of them makes a step of the chain.

    State i goes to the first state j with ``P[i, 0] + … + P[i, j] > uniform``. For a `uniform`
    that is drawn from [0, 1), it goes there with probability ``P[i, j]``. The result has the shape
    (m,).
    """
    below = np.cumsum(transition, axis=1) <= uniform
    return np.minimum(below.sum(axis=1), below.shape[1] - 1)  # the sum may round to less than 1


def coupling_from_the_past(
    transition: ArrayLike, generator: np.random.Generator, limit: int = 100_000
) -> tuple[int, int]:
    """Draw exactly from the stationary law of a finite chain (Propp and Wilson 1996).

    Backward iteration from all states at once, ``T_1 T_2 … T_n``, until it does not depend on the
    start any more. From then on no further map can change it: it has reached its limit, whose law
    is the stationary one. The maps are those of `random_map`, for a transition matrix of shape
    (m, m); after `limit` of them it gives up.

    Returns
    -------
    state, steps : int
        The draw, and how many maps it took.

    Raises
    ------
    RuntimeError
        If the starts do not agree by then: for some chains they never do.
    """
    return _coalesce(transition, generator, limit, lambda composed, new: composed[new])


def forward_coupling(
    transition: ArrayLike, generator: np.random.Generator, limit: int = 100_000
) -> tuple[int, int]:
    """Iterate forward, ``T_n … T_1``, from all states until they agree, and return where they met.

    This does *not* draw from the stationary law: the next map moves the common state on, and the
    moment at which they met is not independent of where. Parameters, return values and errors are
    those of `coupling_from_the_past`.
    """
    return _coalesce(transition, generator, limit, lambda composed, new: new[composed])


def _coalesce(transition, generator, limit, extend) -> tuple[int, int]:
    """Compose random maps by `extend` until the composition is constant."""
    transition = np.asarray(transition, dtype=float)
    composed = np.arange(len(transition))
    for steps in range(1, limit + 1):
        composed = extend(composed, random_map(transition, generator.random()))
        if (composed == composed[0]).all():
            return int(composed[0]), steps
    raise RuntimeError(f"After {limit} maps the starts still do not agree; they may never do.")
