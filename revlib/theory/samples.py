"""Draws from the stationary law, each with a certificate: backward iterates that know their error.

Where random maps contract, the backward iterates ``T_1 T_2 … T_n(theta)`` converge to a point, and
the point is a draw from the stationary law of the chain ``theta -> T(theta)`` (Letac 1986, Diaconis
and Freedman 1999). Later maps can move it no further than the first n maps let them. So a backward
iterate is a draw up to an error that is *known*, and there is no burn-in to guess:

- `sample` knows the error from the constants of the maps (Theorem 2.2). It is `revlib.sample`.
- `coupled` sees it: it follows the corners of a body that holds the whole stationary law until
  they meet. That is coupling from the past (Propp and Wilson 1996) up to a tolerance. It is a
  certificate for affine maps, and for monotone maps of the line; see there.

`met_forward` is the forward version of the second, which does *not* draw from the stationary law.
The rest of the module is what draws are compared with: `least_squares_law` is exact,
`autocorrelation_time` and `potential_scale_reduction` judge forward runs, `tail_exponent` and
`hill` belong to limits without a variance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import quad
from scipy.optimize import brentq

Map = Callable[[np.ndarray], np.ndarray]
Maps = Callable[[int], Map]
Constants = float | Callable[[int], ArrayLike]


class Draws(NamedTuple):
    """Independent draws from a stationary law, and what is known of them.

    Parameters
    ----------
    points
        The draws, shape (draws, d).
    bounds
        How far each of them is at most from an exact draw, shape (draws,), in exact arithmetic
        (the units are those of the points).
    length
        How many maps the backward iterates are made of.
    cost
        How many maps each draw took, attempts that were too short and checks included.
    """

    points: np.ndarray
    bounds: np.ndarray
    length: int
    cost: int


def sample(
    maps: Maps,
    start: ArrayLike,
    tolerance: float,
    k: Constants,
    *,
    moved: float | None = None,
    ball: tuple[ArrayLike, float] | None = None,
    limit: int = 100_000,
) -> Draws:
    """Draw from the stationary law of contracting maps, with a bound on the error of each draw.

    The draw is the backward iterate ``T_1 T_2 … T_n(start)``, with n so large that the bound is at
    most the tolerance for every draw. Only this one iterate is needed, which costs n maps. The
    bound comes from Theorem 2.2: ``k^n D / (1 - k)``, if no map moves the start by more than D
    (`moved`); or ``k_1 k_2 … k_n (R + ‖start - centre‖)``, if every map keeps the `ball` with this
    centre and radius R. (Theorem 2.2 is the case of the ball around the start with radius
    ``D / (1 - k)``, which k-contractions keep.)

    The exact draw is the limit that the same maps lead to, and it does not depend on n. So it is
    allowed to let n depend on the maps, as constants of their own do.

    Parameters
    ----------
    maps
        ``maps(n)`` is ``T_n``, a function of arrays of shape (draws, d). Row i is one draw: its
        maps must be independent of those of all other rows, and ``T_1, T_2, …`` independent of
        each other, with one law. (``np.random.default_rng([seed, n])`` makes randomness of step n.)
    start
        Shape (draws, d). It must not depend on the maps.
    tolerance
        The largest bound allowed, in the units of the parameters.
    k
        A Lipschitz constant of all maps, below 1; or ``k(n)``, the constants of ``T_n``: a number
        or shape (draws,), not negative. Single ones may then be 1 or more.
    moved
        ``D``: no map moves the start of any draw by more. Needs one constant k.
    ball
        Centre, shape (d,), and radius of a ball that every map sends into itself.
    limit
        The largest n that is tried.

    Returns
    -------
    Draws

    Raises
    ------
    ValueError
        If k is not below 1; if numbers are not finite, the start lies outside of the ball, a map
        leads out of the ball, or the tolerance is below what rounding allows, about
        ``4 eps (1 + k_1 + k_1 k_2 + …)`` times the size of the numbers.
    RuntimeError
        If `limit` maps are not enough. In all cases nothing is returned.

    Notes
    -----
    What can be checked on the way is checked, and what follows from it is not more than that the
    claim was not refuted: the constants, and D or the ball for the maps that were never drawn,
    remain what the caller knows.
    """
    start = _finite("The start", start, 2)
    tolerance = _tolerance(tolerance)
    if (moved is None) == (ball is None):
        raise ValueError("Give either `moved`, how far a map moves the start, or `ball`.")
    common = not callable(k)
    if common and not 0 <= k < 1:
        raise ValueError(f"Nothing contracts with k = {k}: a bound needs a constant 0 <= k < 1.")
    if moved is not None:
        if not common:
            raise ValueError("With a constant for each map, give the `ball` that all maps keep.")
        if not (np.isfinite(moved) and moved >= 0):
            raise ValueError(f"No map moves the start by {moved}: give a finite D, not negative.")
        centre, radius = start, moved / (1 - k)
    else:
        centre, radius = _finite("The centre of the ball", ball[0], 1), float(ball[1])
        if not (np.isfinite(radius) and radius >= 0):
            raise ValueError(f"A ball has no radius {radius}: give a finite one, not negative.")
    away = np.linalg.norm(start - centre, axis=-1)
    if (away > radius * (1 + 1e-12)).any():
        row = int(np.argmax(away))
        raise ValueError(
            f"The start of draw {row} lies outside of the ball: its distance from the centre is "
            f"{away[row]:.6g}, and the radius {radius:.6g}."
        )
    reach = radius + away  # no point of the ball is farther from the start
    scale = float(np.max(np.linalg.norm(start, axis=-1) + reach))
    steps, products = _steps(k, len(start), reach, tolerance, scale, limit)
    point = start
    for n in range(steps, 0, -1):
        point = _applied(maps, n, point)
        outside = np.linalg.norm(point - centre, axis=-1) > radius * (1 + 1e-9) + 1e-12 * scale
        if outside.any():
            what = (
                "moves the start by more than D allows" if ball is None else "leads out of the ball"
            )
            raise ValueError(
                f"T_{n} of draw {int(np.argmax(outside))} {what}: the bound would not hold."
            )
    return Draws(point, products * reach, steps, steps)


def _steps(
    k: Constants,
    draws: int,
    reach: np.ndarray,
    tolerance: float,
    scale: float,
    limit: int,
) -> tuple[int, np.ndarray]:
    """Return how many maps the tolerance takes, and the product of their constants by draw."""
    products, total, steps = np.ones(draws), np.zeros(draws), 0
    floor = 4 * np.finfo(float).eps * scale
    while (products * reach > tolerance).any():
        total += products
        _above_rounding(tolerance, floor * total.max())
        if steps == limit:
            raise RuntimeError(
                f"After {limit} maps the bound is still {np.max(products * reach):.3g}, above the "
                f"tolerance of {tolerance:.3g}: the maps contract too slowly, or not at all."
            )
        steps += 1
        constants = np.asarray(k(steps) if callable(k) else k, dtype=float)
        if not (np.isfinite(constants) & (constants >= 0)).all():
            raise ValueError(f"T_{steps} has a constant that is negative or not finite.")
        products = products * constants
    _above_rounding(tolerance, floor)
    return steps, products


def coupled(
    maps: Maps,
    corners: ArrayLike,
    tolerance: float,
    draws: int,
    kind: str = "affine",
    limit: int = 100_000,
) -> Draws:
    """Draw from the stationary law by following the corners of a body until they meet.

    Let I be a bounded closed set that every map sends into itself (noise without bounds has none),
    and let the body, which is the convex hull of the corners, contain I. The limit of the backward
    iterates is ``T_1 … T_n(theta')`` with ``theta' = T_{n+1} T_{n+2} …`` in I. So it lies in the
    image of the body, for every n. Two kinds of maps allow to see that image from the corners:

    - ``"affine"``: the image of a convex hull is the hull of the images, in any dimension. The
      corners of a simplex, d + 1 of them, are enough (`simplex`).
    - ``"monotone"``: on the line, the image of an interval under monotone maps lies between the
      images of its two ends.

    For other contractions in more than one dimension the distance of a few chains is **no**
    certificate: two of them, from opposite points of a ball, tell about one direction, and others
    may contract more slowly. (Not even for affine maps: that is why they take d + 1.) Then only
    constants certify, by `sample`.

    n is doubled until all bounds are at most the tolerance. ``T_1 … T_n`` stay at the end, where
    they were, and new maps are prepended: new maps at the *end*, as forward, give another law
    (`met_forward`). The draw is the image of the middle of the corners.

    Parameters
    ----------
    maps
        ``maps(n)`` is ``T_n``, a function of arrays of shape (chains, draws, d) that treats all
        chains alike; as for `sample`. It is asked for the same n again at every doubling, and must
        give the same map.
    corners
        Shape (corners, d), for all draws.
    tolerance
        The largest bound allowed.
    draws
        How many draws the maps make.
    kind
        What is known of the maps: ``"affine"`` or ``"monotone"``.
    limit
        The largest n that is tried.

    Returns
    -------
    Draws
        The bound of a draw is the largest distance to the image of a corner.

    Raises
    ------
    ValueError
        If the corners are too few for the kind or not finite, or the tolerance is below rounding;
        if a map gives what is not finite, is not of the kind that was said (seen by a chain from
        the middle), leads out of every set that the body can hold, or is not the same when asked
        for again.
    RuntimeError
        If the chains have not met after `limit` maps. In all cases nothing is returned.
    """
    corners, tolerance = _body(corners, tolerance, kind), _tolerance(tolerance)
    chains = np.repeat(_with_middle(corners)[:, None], draws, axis=1)
    scale = np.abs(corners).max()
    _above_rounding(tolerance, 4 * np.finfo(float).eps * scale)
    first = _applied(maps, 1, chains)
    if not np.array_equal(first, _applied(maps, 1, chains)):
        raise ValueError("T_1 is not the same when it is asked for again: fix its randomness by n.")
    steps, cost, bound = 1, 0, np.full(draws, np.inf)
    while (bound > tolerance).any():
        if steps > limit:
            raise RuntimeError(
                f"After {steps // 2} maps the chains are still {bound.max():.3g} apart, with a "
                f"tolerance of {tolerance:.3g}: they contract too slowly, or not at all."
            )
        images = chains
        for n in range(steps, 0, -1):
            images = _applied(maps, n, images)
            _of_kind(kind, n, images, corners, scale)
        bound = np.linalg.norm(images[1:] - images[0], axis=-1).max(axis=0)
        length, cost, steps = steps, cost + steps * len(chains), 2 * steps
    return Draws(images[0], bound, length, cost)


def met_forward(
    maps: Maps, corners: ArrayLike, tolerance: float, draws: int, limit: int = 100_000
) -> tuple[np.ndarray, np.ndarray]:
    """Return where the corners meet *forward*: no draws from the stationary law.

    ``T_n … T_1`` of the corners, with the first n at which they are within the tolerance. That they
    meet at n depends on ``T_n``, which also decides where they are: strongly contracting maps are
    the last one more often than they should, at every tolerance.

    Parameters
    ----------
    maps, corners, tolerance, draws, limit
        As for `coupled`.

    Returns
    -------
    points, lengths : numpy.ndarray
        The middle of the chains when they first were so close, shape (draws, d), and the n of each
        draw, shape (draws,).

    Raises
    ------
    ValueError, RuntimeError
        As for `coupled`.
    """
    corners, tolerance = _body(corners, tolerance, "affine", 2), _tolerance(tolerance)
    chains = np.repeat(_with_middle(corners)[:, None], draws, axis=1)
    points, lengths = chains[0].copy(), np.zeros(draws, dtype=int)
    for n in range(1, limit + 1):
        chains = _applied(maps, n, chains)
        apart = np.linalg.norm(chains[1:] - chains[0], axis=-1).max(axis=0)
        met = (lengths == 0) & (apart <= tolerance)
        points[met], lengths[met] = chains[0][met], n
        if lengths.all():
            return points, lengths
    raise RuntimeError(f"After {limit} maps some chains have not met.")


def simplex(centre: ArrayLike, radius: float) -> np.ndarray:
    """Return the d + 1 corners of a regular simplex that contains a ball, shape (d + 1, d).

    The ball touches all its faces: the corners are d times the radius away from the centre.
    """
    centre = np.asarray(centre, dtype=float)
    d = len(centre)
    corners = np.vstack([np.eye(d), np.full(d, (1 - np.sqrt(d + 1)) / d)])
    corners -= corners.mean(axis=0)
    return centre + corners * (d * radius / np.linalg.norm(corners[0]))


def _with_middle(corners: np.ndarray) -> np.ndarray:
    return np.concatenate([corners.mean(axis=0, keepdims=True), corners])


def _body(corners: ArrayLike, tolerance: float, kind: str, least: int | None = None) -> np.ndarray:
    """Return the corners, if they can make a body for this kind of maps."""
    corners = _finite("The corners", corners, 2)
    count, d = corners.shape
    if kind not in ("affine", "monotone"):
        raise ValueError(
            f"No corners certify maps of the kind {kind!r}: it takes 'affine' or, on the line, "
            "'monotone' ones. For other contractions use the constants, with `sample`."
        )
    if kind == "monotone" and (d > 1 or count != 2):
        raise ValueError("Monotone maps are certified on the line only, by two ends.")
    if count < (least or d + 1) or (
        least is None and np.linalg.matrix_rank(corners - corners.mean(axis=0)) < d
    ):
        raise ValueError(
            f"{count} corners in {d} dimensions hold no ball: it takes {d + 1} in general position."
        )
    return corners


def _of_kind(kind: str, n: int, images: np.ndarray, corners: np.ndarray, scale: float) -> None:
    """Refuse images that the maps, if they were what was said of them, could not give."""
    middle, ends = images[0], images[1:]
    low, high = ends.min(axis=0), ends.max(axis=0)
    slack = 1e-9 * (scale + np.abs(ends).max())
    if kind == "affine" and (np.abs(ends.mean(axis=0) - middle) > slack).any():
        raise ValueError(f"T_{n} is not affine: it does not keep the middle of the corners.")
    if ((middle < low - slack) | (middle > high + slack)).any():
        raise ValueError(f"T_{n} is not monotone: the middle of the ends leaves their interval.")
    if ((high < corners.min(axis=0) - slack) | (low > corners.max(axis=0) + slack)).any():
        raise ValueError(f"T_{n} leads out of the body: the corners hold no set that it keeps.")


def _applied(maps: Maps, n: int, points: np.ndarray) -> np.ndarray:
    """Return the images under ``T_n``, all finite."""
    images = np.asarray(maps(n)(points), dtype=float)
    if images.shape != points.shape:
        raise ValueError(f"T_{n} makes the shape {images.shape} of {points.shape}: one row a draw.")
    if not np.isfinite(images).all():
        row = int(np.argwhere(~np.isfinite(images))[0][-2])
        raise ValueError(f"T_{n} gives a value of draw {row} that is not finite.")
    return images


def _finite(what: str, values: ArrayLike, dimensions: int) -> np.ndarray:
    values = np.array(values, dtype=float)
    if values.ndim != dimensions or not values.size:
        raise ValueError(f"{what} has the shape {values.shape}; it needs {dimensions} axes.")
    if not np.isfinite(values).all():
        raise ValueError(f"{what} holds values that are not finite.")
    return values


def _tolerance(tolerance: float) -> float:
    if not (np.isfinite(tolerance) and tolerance > 0):
        raise ValueError(f"A tolerance of {tolerance} cannot be reached: give a positive number.")
    return float(tolerance)


def _above_rounding(tolerance: float, floor: float) -> None:
    if tolerance < floor:
        raise ValueError(
            f"A tolerance of {tolerance:.3g} is below rounding, which makes up to {floor:.3g} here."
        )


def least_squares_law(
    inputs: ArrayLike, targets: ArrayLike, h: float, size: int, ridge: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of the stationary law of SGD on least squares, exactly.

    The loss is the mean of ``(x·theta - y)²/2`` plus ``ridge ‖theta‖²/2``; a batch is drawn with
    replacement, so that a step is ``theta -> A theta + b`` with ``A = 1 - h (H_B + ridge)``. The
    mean is the minimum, and the covariance solves the Lyapunov equation with random matrices,

        Sigma = E[A Sigma A] + h² C,

    in which C is the covariance of the gradient at the minimum. With E[A] in the place of A it is
    the equation of `revlib.theory.near_minimum.stationary_covariance`, which leaves out that the
    noise grows with the distance from the minimum.

    Parameters
    ----------
    inputs, targets
        Shapes (N, d) and (N,).
    h
        Learning rate.
    size
        Batch size.
    ridge
        Not negative.

    Returns
    -------
    mean, covariance : numpy.ndarray
        Shapes (d,) and (d, d).

    Raises
    ------
    ValueError
        If the law has no covariance: ``E[A ⊗ A]`` has an eigenvalue of 1 or more in size.
    """
    x, y = np.asarray(inputs, dtype=float), np.asarray(targets, dtype=float)
    count, d = x.shape
    hessian = x.T @ x / count + ridge * np.eye(d)
    mean = np.linalg.solve(hessian, x.T @ y / count)
    squares = np.einsum("ni,nj->nij", x, x) + ridge * np.eye(d)
    fluctuations = squares - hessian
    second = np.einsum("nij,nkl->ikjl", fluctuations, fluctuations, optimize=True) / count / size
    pull = np.eye(d) - h * hessian
    operator = np.kron(pull, pull) + h**2 * second.reshape(d * d, d * d)
    largest = np.abs(np.linalg.eigvals(operator)).max()
    if not largest < 1:
        raise ValueError(
            f"The stationary law has no covariance: E[A ⊗ A] has an eigenvalue of {largest:.3g}."
        )
    gradients = np.einsum("nij,j->ni", squares, mean) - y[:, None] * x
    noise = h**2 * gradients.T @ gradients / count / size
    solved = np.linalg.solve(np.eye(d * d) - operator, noise.reshape(-1))
    return mean, solved.reshape(d, d)


def autocorrelation_time(path: ArrayLike) -> float:
    """Return the integrated autocorrelation time of one path, in steps.

    ``tau = 1 + 2 sum_t rho_t``: the mean of N steps is as uncertain as that of N/tau independent
    draws. The sum ends where a pair ``rho_{2m} + rho_{2m+1}`` is not positive, and pairs are not
    allowed to rise: the initial monotone sequence of Geyer (1992).

    Parameters
    ----------
    path
        A stationary path of numbers, shape (N,).
    """
    path = np.asarray(path, dtype=float)
    path = path - path.mean()
    spectrum = np.abs(np.fft.rfft(path, 2 * len(path))) ** 2
    covariances = np.fft.irfft(spectrum)[: len(path) // 2 * 2] / len(path)
    pairs = covariances.reshape(-1, 2).sum(axis=1)
    stop = np.argmax(pairs <= 0) if (pairs <= 0).any() else len(pairs)
    return float(2 * np.minimum.accumulate(pairs[:stop]).sum() / covariances[0] - 1)


def potential_scale_reduction(chains: ArrayLike) -> np.ndarray:
    """Return the split R-hat of each coordinate, shape (d,): near 1 where chains agree.

    Each chain is cut into halves; the variance of all, estimated from within and between the
    halves, is divided by that within, and the root taken. Above 1.01 a sample should not be used
    (Vehtari et al. 2021, who recommend to rank the values first; this is the plain version).

    Parameters
    ----------
    chains
        Shape (N, chains, d).
    """
    chains = np.asarray(chains, dtype=float)
    half = len(chains) // 2
    halves = np.concatenate([chains[:half], chains[half : 2 * half]], axis=1)
    within = halves.var(axis=0, ddof=1).mean(axis=0)
    between = halves.mean(axis=0).var(axis=0, ddof=1)
    return np.sqrt((half - 1) / half + between / within)


def reweighted(
    log_density: Callable[[np.ndarray], np.ndarray],
    mean: ArrayLike,
    covariance: ArrayLike,
    draws: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, float]:
    """Draw from a density that is nearly normal: normal proposals, drawn again by their weights.

    Parameters
    ----------
    log_density
        The logarithm of the density, up to a constant, for points of shape (P, d): shape (P,).
    mean, covariance
        Of the proposals, shapes (d,) and (d, d).
    draws
        How many; ten times as many are proposed.
    generator
        Of the proposals and of the choice among them.

    Returns
    -------
    points : numpy.ndarray
        Shape (draws, d); a proposal may occur more than once.
    share : float
        Effective share of the proposals, ``(sum w)² / (P sum w²)``: 1 if the density is the normal
        one, and near 0 where the weights rest on a few proposals and the points mean nothing.
    """
    mean = np.asarray(mean, dtype=float)
    normal = generator.normal(size=(10 * draws, len(mean)))
    proposals = mean + normal @ np.linalg.cholesky(covariance).T
    logarithms = log_density(proposals) + np.square(normal).sum(axis=1) / 2
    weights = np.exp(logarithms - logarithms.max())
    share = weights.sum() ** 2 / np.square(weights).sum() / len(weights)
    chosen = generator.choice(len(weights), size=draws, p=weights / weights.sum())
    return proposals[chosen], float(share)


def mean_square_factor(matrices: ArrayLike) -> float:
    """Return the spectral radius of ``E[A ⊗ A]``, for a matrix drawn from a list with equal chance.

    It is the rate at which ``E‖A_1 … A_n v‖²`` grows, per map. At 1 or more the limit of
    ``theta -> A theta + b`` has no variance (but for shifts that cancel).

    Parameters
    ----------
    matrices
        Shape (m, d, d).
    """
    matrices = np.asarray(matrices, dtype=float)
    d = matrices.shape[1]
    second = np.einsum("nij,nkl->ikjl", matrices, matrices).reshape(d * d, d * d) / len(matrices)
    return float(np.abs(np.linalg.eigvals(second)).max())


def lyapunov_exponent(matrices: ArrayLike, generator: np.random.Generator) -> tuple[float, float]:
    """Return the growth rate of ``log ‖A_n … A_1 v‖`` per map, and its standard error.

    Negative, two points that go through the same maps merge, and the backward iterates of
    ``theta -> A theta + b`` converge (with ``E log(1 + ‖b‖)`` finite). The logarithm of the norm of
    *one* matrix only bounds it from above. One of the matrices, shape (m, d, d), is drawn at each
    step, with equal chance: 500 steps of 500 chains, after a fifth of them for the direction to
    settle.
    """
    chains = steps = 500
    matrices = np.asarray(matrices, dtype=float)
    vectors = generator.normal(size=(chains, matrices.shape[1]))
    logarithms = np.zeros(chains)
    for step in range(-(steps // 5), steps):
        drawn = matrices[generator.integers(len(matrices), size=chains)]
        vectors = (drawn @ vectors[..., None])[..., 0]
        sizes = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= sizes
        logarithms += np.log(sizes[:, 0]) * (step >= 0)
    rates = logarithms / steps
    return float(rates.mean()), float(rates.std(ddof=1) / np.sqrt(chains))


def tail_exponent(moment: Callable[[float], float], low: float = 1e-3, high: float = 50.0) -> float:
    """Return the ``alpha > 0`` with ``E|A|^alpha = 1``: Kesten's tail exponent on the line.

    The limit of ``theta -> A theta + b`` has ``P(|theta| > t)`` of the order ``t^-alpha``, if
    ``E log|A| < 0``, the law of ``log|A|`` is not on a lattice, ``E|b|^alpha`` is finite and no
    point is kept by all maps (Kesten 1973, Goldie 1991). With alpha below 2 it has no variance.

    Parameters
    ----------
    moment
        ``alpha -> E|A|^alpha``.
    low, high
        Where to look.

    Raises
    ------
    ValueError
        If the moment is not below 1 at `low`, where nothing contracts on average, or not above 1 at
        `high`, where every map contracts.
    """
    if not moment(low) < 1:
        raise ValueError("Nothing contracts on average: E|A|^alpha is 1 or more for small alpha.")
    if not moment(high) > 1:
        raise ValueError(f"No power tail was found: E|A|^alpha is below 1 up to alpha = {high:g}.")
    return float(brentq(lambda alpha: moment(alpha) - 1, low, high))


def normal_factor_moment(h: float, alpha: float) -> float:
    """Return ``E|1 - h x²|^alpha`` for a standard normal x, by quadrature.

    ``1 - h x²`` is the factor of a gradient step on ``(x theta - y)²/2``.
    """

    def integrand(x: float) -> float:
        return 2 * abs(1 - h * x * x) ** alpha * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)

    return float(quad(integrand, 0, 40, points=[1 / np.sqrt(h)], limit=400)[0])


def hill(values: ArrayLike, count: int) -> tuple[float, float]:
    """Return the tail exponent of independent numbers by Hill (1975), and its standard error.

    ``1/alpha`` is the mean of ``log(|x| / threshold)`` over the `count` largest ``|x|``, with the
    next one as the threshold; the error is ``alpha / sqrt(count)``, of chance only. For a tail that
    becomes a power slowly, a small count is noisy and a large one is biased.

    Raises
    ------
    ValueError
        If there are not more than `count` values, or `count` is not positive.
    """
    sizes = np.sort(np.abs(np.ravel(values)))[::-1]
    if not 0 < count < len(sizes):
        raise ValueError(f"The tail of {len(sizes)} values cannot be {count} of them.")
    alpha = 1 / float(np.mean(np.log(sizes[:count] / sizes[count])))
    return alpha, alpha / np.sqrt(count)
