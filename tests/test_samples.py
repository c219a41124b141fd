"""Draws with a certificate: bounds that are attained, laws that are known, and every refusal."""

import itertools
import math

import numpy as np
import pytest
import scipy.signal
import scipy.stats

import revlib
from revlib.iterates import iterates
from revlib.theory import near_minimum, samples

DRAWS = 2000


def coin(draws, seed=0):
    """Return maps theta/2 ± 1/2: their stationary law is uniform on [-1, 1]."""

    def maps(n):
        sign = np.random.default_rng([seed, n]).choice([-1.0, 1.0], size=(draws, 1))
        return lambda theta: (theta + sign) / 2

    return maps


def affine(a, b, seed=0, draws=DRAWS):
    """Return maps A theta + b, one of a list drawn for each draw and step; and what was drawn."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)

    def drawn(n):
        return np.random.default_rng([seed, n]).integers(len(a), size=draws)

    def maps(n):
        i = drawn(n)
        return lambda theta: (a[i] @ theta[..., None])[..., 0] + b[i]

    return maps, drawn


def same(k, shift):
    """Return the map k theta + shift for every step and draw."""
    return lambda n: lambda theta: k * theta + shift


def backward(maps, start, n):
    """Return a backward iterate by its definition."""
    word = [maps(i) for i in range(1, n + 1)]
    return dict(iterates(word, start, revlib.backward(), [n]))[n]


# The bound of constants


def test_the_bound_is_attained_by_maps_that_push_one_way_and_n_is_the_least():
    k, moved, tolerance = 0.9, 0.3, 1e-4
    drawn = revlib.sample(same(k, moved), np.zeros((3, 1)), tolerance, k, moved=moved)
    np.testing.assert_allclose(drawn.bounds, moved / (1 - k) - drawn.points[:, 0], rtol=1e-6)
    assert (drawn.bounds <= tolerance).all()
    assert moved * k ** (drawn.length - 1) / (1 - k) > tolerance
    assert drawn.cost == drawn.length


def test_the_product_of_constants_is_attained_and_lets_single_maps_expand():
    factors = np.array([0.5, 1.0, 0.8])

    def maps(n):
        k = factors[n % 3]
        return lambda theta: k * theta + (1 - k)

    drawn = revlib.sample(maps, np.zeros((2, 1)), 1e-3, lambda n: factors[n % 3], ball=([0.0], 1))
    np.testing.assert_allclose(drawn.bounds, 1 - drawn.points[:, 0], rtol=1e-9)
    product = np.prod(factors[np.arange(1, drawn.length + 1) % 3])
    assert product <= 1e-3 < product / factors[drawn.length % 3]
    centre = revlib.sample(
        maps, np.full((2, 1), -1.0), 1e-3, lambda n: factors[n % 3], ball=([0], 1)
    )
    np.testing.assert_allclose(centre.bounds, 1 - centre.points[:, 0], rtol=1e-9)
    expanding = revlib.sample(
        same(0.1, 0.0), np.ones((1, 1)), 1e-3, lambda n: 2.0 if n == 2 else 0.1, ball=([0.0], 1.0)
    )
    assert expanding.length == 5  # 2 · 10^-4, and the far end of the ball is 2 away


def test_draws_are_backward_iterates_within_the_bound_of_the_limit():
    generator = np.random.default_rng(1)
    a = generator.normal(size=(5, 3, 3))
    a *= 0.9 / np.linalg.norm(a, 2, axis=(1, 2))[:, None, None]
    b = generator.normal(size=(5, 3))
    maps, drawn = affine(a, b, draws=200)
    start = np.zeros((200, 3))
    moved = np.linalg.norm(b, axis=1).max()
    limit = backward(maps, start, 500)
    norms = np.linalg.norm(a, 2, axis=(1, 2))
    norms[0] = 0.9
    for tolerance in (1.0, 1e-2, 1e-6):
        found = revlib.sample(maps, start, tolerance, 0.9, moved=moved)
        np.testing.assert_array_equal(found.points, backward(maps, start, found.length))
        assert (np.linalg.norm(found.points - limit, axis=1) <= found.bounds).all()
        own = revlib.sample(
            maps, start, tolerance, lambda n: norms[drawn(n)], ball=(np.zeros(3), moved / 0.1)
        )
        assert (np.linalg.norm(own.points - limit, axis=1) <= own.bounds).all()


# Their law


def test_draws_follow_the_stationary_law_which_a_short_run_does_not():
    drawn = revlib.sample(coin(DRAWS), np.zeros((DRAWS, 1)), 1e-6, 0.5, moved=0.5)
    uniform = scipy.stats.uniform(-1, 2).cdf
    assert scipy.stats.kstest(drawn.points[:, 0], uniform).pvalue > 0.01
    rough = revlib.sample(coin(DRAWS), np.zeros((DRAWS, 1)), 0.2, 0.5, moved=0.5)
    assert scipy.stats.kstest(rough.points[:, 0], uniform).pvalue < 1e-6


def test_draws_are_independent_of_each_other():
    points = revlib.sample(coin(DRAWS), np.zeros((DRAWS, 1)), 1e-6, 0.5, moved=0.5).points[:, 0]
    for lag in (1, 2, 7):
        assert scipy.stats.pearsonr(points[:-lag], points[lag:]).pvalue > 0.01
        assert scipy.stats.pearsonr(points[:-lag] ** 2, points[lag:] ** 2).pvalue > 0.01
    alone = revlib.sample(coin(DRAWS, 1), np.zeros((DRAWS, 1)), 1e-6, 0.5, moved=0.5).points[:, 0]
    assert scipy.stats.pearsonr(points, alone).pvalue > 0.01


@pytest.fixture(scope="module")
def regression():
    generator = np.random.default_rng(5)
    x = np.column_stack([np.ones(12), generator.normal(size=(12, 2))])
    y = x @ (1.0, -1.0, 0.5) + generator.standard_t(5, size=12)
    return x, y, 0.1, 0.3  # inputs, targets, learning rate, ridge


def step(x, y, h, ridge, batch):
    """Return A and b of one gradient step on the mean over a batch."""
    x, y = x[list(batch)], y[list(batch)]
    a = np.eye(x.shape[1]) - h * (x.T @ x / len(x) + ridge * np.eye(x.shape[1]))
    return a, h * x.T @ y / len(x)


@pytest.mark.parametrize("size", [1, 2])
def test_the_law_of_least_squares_is_kept_by_one_more_step(regression, size):
    x, y, h, ridge = regression
    mean, covariance = samples.least_squares_law(x, y, h, size, ridge)
    second = covariance + np.outer(mean, mean)
    batches = list(itertools.product(range(len(x)), repeat=size))
    first, total = 0, 0
    for a, b in (step(x, y, h, ridge, batch) for batch in batches):
        first = first + (a @ mean + b) / len(batches)
        cross = np.outer(a @ mean, b)
        total = total + (a @ second @ a.T + cross + cross.T + np.outer(b, b)) / len(batches)
    np.testing.assert_allclose(first, mean, rtol=1e-10)
    np.testing.assert_allclose(total, second, rtol=1e-10)


def test_draws_of_least_squares_have_mean_and_covariance_of_the_law(regression):
    x, y, h, ridge = regression
    steps = [step(x, y, h, ridge, [i]) for i in range(len(x))]
    a, b = map(np.array, zip(*steps, strict=True))
    k = np.linalg.norm(a, 2, axis=(1, 2)).max()
    maps, _ = affine(a, b)
    radius = np.linalg.norm(b, axis=1).max() / (1 - k)
    drawn = samples.coupled(maps, samples.simplex(np.zeros(3), radius), 1e-6, DRAWS)
    limit = backward(maps, np.zeros((DRAWS, 3)), 2 * drawn.length)
    assert (np.linalg.norm(drawn.points - limit, axis=1) <= drawn.bounds + 1e-14).all()
    mean, covariance = samples.least_squares_law(x, y, h, 1, ridge)
    away = drawn.points - mean
    statistic = DRAWS * away.mean(axis=0) @ np.linalg.solve(covariance, away.mean(axis=0))
    assert scipy.stats.chi2(3).sf(statistic) > 0.01
    products = np.einsum("ni,nj->nij", away, away)[:, *np.triu_indices(3)]
    off = products.mean(axis=0) - covariance[np.triu_indices(3)]
    statistic = DRAWS * off @ np.linalg.solve(np.cov(products.T), off)
    assert scipy.stats.chi2(6).sf(statistic) > 0.01


def test_without_a_covariance_the_law_of_least_squares_is_refused(regression):
    x, y, _, _ = regression
    with pytest.raises(ValueError, match="no covariance"):
        samples.least_squares_law(x, y, 1.0, 1)


# Coupling


def test_corners_hold_the_ball():
    centre = np.array([1.0, -2.0, 0.5])
    corners = samples.simplex(centre, 2.0)
    np.testing.assert_allclose(corners.mean(axis=0), centre)
    np.testing.assert_allclose(np.linalg.norm(corners - centre, axis=1), 6.0)
    for left in range(4):  # each face touches the ball: its nearest point is its middle
        face = np.delete(corners, left, axis=0)
        np.testing.assert_allclose(np.linalg.norm(face.mean(axis=0) - centre), 2.0)
        np.testing.assert_allclose(
            (face - face.mean(axis=0)) @ (face.mean(axis=0) - centre), 0, atol=1e-12
        )


def test_two_opposite_points_meet_where_the_body_has_not_and_corners_know():
    a = [np.diag([0.1, 0.99])] * 2
    maps, _ = affine(a, [[0.0, 0.01], [0.0, -0.01]], draws=50)
    limit = backward(maps, np.zeros((50, 2)), 4000)
    opposite = np.array([[1.0, 0.0], [-1.0, 0.0]])
    images = backward(maps, np.repeat(opposite[:, None], 50, axis=1), 8)
    assert np.abs(images[0] - images[1]).max() < 1e-7
    assert np.linalg.norm(images[0] - limit, axis=1).max() > 0.1
    with pytest.raises(ValueError, match="it takes 3"):
        samples.coupled(maps, opposite, 1e-6, 50)
    drawn = samples.coupled(maps, [[-1, -1], [-1, 1], [1, -1], [1, 1]], 1e-6, 50)
    off = np.linalg.norm(drawn.points - limit, axis=1)
    assert (off <= drawn.bounds).all()
    assert drawn.bounds.max() <= 1e-6
    assert drawn.length == 2048  # 0.99^1024 is above the tolerance
    assert drawn.cost == 5 * (2 * 2048 - 1)


def test_the_farthest_corner_is_the_bound():
    corners = np.array([[-1.0, -1.0], [7.0, -1.0], [-1.0, 3.0]])
    drawn = samples.coupled(same(0.5, 0.0), corners, 1e-3, 2)
    farthest = np.linalg.norm(corners - corners.mean(axis=0), axis=1).max()
    np.testing.assert_allclose(drawn.bounds, 0.5**drawn.length * farthest)
    assert drawn.length == 16


def test_monotone_maps_are_certified_by_two_ends():
    generator = np.random.default_rng(2)
    x = generator.normal(size=(30, 1))
    y = (x[:, 0] + generator.logistic(size=30) > 0).astype(float)
    problem = near_minimum.LogisticRegression(x, y, ridge=0.1)
    h = 1 / (0.1 + (x**2).max() / 4)
    radius = np.abs(x).max() / 0.1

    def maps(n):
        batch = np.random.default_rng([3, n]).integers(30, size=(100, 1))
        return lambda theta: theta - h * problem.gradient(theta, batch)

    drawn = samples.coupled(maps, [[-radius], [radius]], 1e-6, 100, "monotone")
    constants = revlib.sample(maps, np.zeros((100, 1)), 1e-9, 1 - 0.1 * h, ball=([0.0], radius))
    assert (np.abs(drawn.points - constants.points)[:, 0] <= drawn.bounds + 1e-9).all()
    assert drawn.length < constants.length


def test_forward_the_same_stopping_rule_draws_from_another_law():
    # 1 is kept by the strong map, -1 by the weak one; the stationary mean is 0.8.
    a, b = [[[0.1]], [[0.9]]], [[0.9], [-0.1]]
    maps, drawn = affine(a, b)
    points = samples.coupled(maps, [[-1], [1]], 1e-6, DRAWS).points[:, 0]
    forward, lengths = samples.met_forward(maps, [[-1], [1]], 1e-6, DRAWS)
    assert scipy.stats.ttest_1samp(points, 0.8).pvalue > 0.01
    assert scipy.stats.ttest_1samp(forward[:, 0], 0.8).pvalue < 1e-6
    # The last map takes the ends over the threshold, which the strong one does more often.
    last = np.array([drawn(n)[i] for i, n in enumerate(lengths)]) == 0
    share = sum(
        math.comb(i + j, i) * 0.5 ** (i + j + 1)
        for i, j in itertools.product(range(10), range(200))
        if 0.1 ** (i + 1) * 0.9**j <= 1e-6 < 0.1**i * 0.9**j
    )
    assert scipy.stats.binomtest(int(last.sum()), DRAWS, share).pvalue > 0.01
    assert scipy.stats.binomtest(int((drawn(1) == 0).sum()), DRAWS, 0.5).pvalue > 0.01


# Refusals: one sentence, and nothing is returned

ZERO = np.zeros((2, 1))
FINE = {"maps": same(0.5, 0.1), "start": ZERO, "tolerance": 1e-3, "k": 0.5, "moved": 0.1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": 1.0}, "Nothing contracts with k = 1.0"),
        ({"k": np.nan}, "Nothing contracts"),
        ({"k": -0.5}, "Nothing contracts"),
        ({"tolerance": 1e-17}, "below rounding"),
        ({"tolerance": 0.0}, "cannot be reached"),
        ({"tolerance": np.nan}, "cannot be reached"),
        ({"start": [[np.nan]]}, "The start holds values that are not finite"),
        ({"start": [0.0]}, "2 axes"),
        ({"moved": np.inf}, "give a finite D"),
        ({"moved": None}, "Give either"),
        ({"ball": ([0.0], 1.0)}, "Give either"),
        ({"k": lambda n: 0.5}, "give the `ball`"),
        ({"moved": 0.01}, "moves the start by more than D allows"),
        ({"maps": lambda n: lambda theta: theta + np.inf}, "draw 0 that is not finite"),
        ({"maps": lambda n: lambda theta: theta[:1]}, "one row a draw"),
        ({"moved": None, "ball": ([5.0], 1.0)}, "start of draw 0 lies outside of the ball"),
        ({"moved": None, "ball": ([0.0], 0.01)}, "leads out of the ball"),
        ({"moved": None, "ball": ([0.0], np.inf)}, "no radius inf"),
        ({"moved": None, "ball": ([0.0], 1.0), "k": lambda n: -1}, "negative or not finite"),
        ({"moved": None, "ball": ([0.0], 1.0), "k": lambda n: np.nan}, "negative or not finite"),
    ],
)
def test_refused(change, message):
    assert revlib.sample(**FINE).bounds.max() <= 1e-3
    with pytest.raises(ValueError, match=message):
        revlib.sample(**FINE | change)


def test_what_does_not_contract_is_given_up():
    with pytest.raises(RuntimeError, match="After 50 maps the bound is still 1"):
        revlib.sample(same(1.0, 0.0), ZERO, 1e-3, lambda n: 1.0, ball=([0.0], 1.0), limit=50)
    with pytest.raises(RuntimeError, match="After 32 maps the chains are still 1"):
        samples.coupled(same(1.0, 0.0), [[-1], [1]], 1e-3, 2, limit=50)
    with pytest.raises(RuntimeError, match="some chains have not met"):
        samples.met_forward(same(1.0, 0.0), [[-1], [1]], 1e-3, 2, limit=50)


def test_rounding_adds_up_where_contraction_is_slow():
    fine = {"start": ZERO, "k": 0.999, "moved": 0.001}
    assert revlib.sample(same(0.999, 0.001), tolerance=1e-11, **fine).bounds.max() <= 1e-11
    with pytest.raises(ValueError, match="below rounding"):
        revlib.sample(same(0.999, 0.001), tolerance=1e-13, **fine)


@pytest.mark.parametrize(
    ("maps", "kind", "message"),
    [
        (lambda n: lambda theta: np.tanh(theta) / 2 + theta**2 / 9, "affine", "not affine"),
        (lambda n: lambda theta: 1 - theta**2, "monotone", "not monotone"),
        (same(0.5, 5.0), "affine", "leads out of the body"),
        (lambda n: lambda theta: theta + np.nan, "affine", "not finite"),
        (
            lambda n: lambda theta: theta / 2 + np.random.default_rng().normal(),
            "affine",
            "not the same when",
        ),
        (same(0.5, 0.0), "contraction", "use the constants"),
    ],
)
def test_coupling_refused(maps, kind, message):
    with pytest.raises(ValueError, match=message):
        samples.coupled(maps, [[-1.0], [1.0]], 1e-3, 2, kind)


@pytest.mark.parametrize(
    ("corners", "tolerance", "kind", "message"),
    [
        ([[-1.0]], 1e-3, "affine", "it takes 2"),
        ([[0.0, 0], [1, 1], [2, 2]], 1e-3, "affine", "general position"),
        ([[0.0, 0], [1, 0], [0, 1]], 1e-3, "monotone", "on the line only"),
        ([[-np.inf], [1]], 1e-3, "affine", "corners holds values"),
        ([[-1.0], [1]], 1e-17, "affine", "below rounding"),
    ],
)
def test_corners_refused(corners, tolerance, kind, message):
    with pytest.raises(ValueError, match=message):
        samples.coupled(same(0.5, 0.0), corners, tolerance, 2, kind)


# What draws are compared with


@pytest.mark.parametrize("phi", [0.0, 0.6, 0.95])
def test_autocorrelation_time_of_an_autoregression(phi):
    noise = np.random.default_rng(4).normal(size=200_000)
    path = scipy.signal.lfilter([1], [1, -phi], noise)
    assert samples.autocorrelation_time(path[1000:]) == pytest.approx(
        (1 + phi) / (1 - phi), rel=0.1
    )


def test_scale_reduction_is_near_one_for_one_law_only():
    chains = np.random.default_rng(0).normal(size=(2000, 4, 2))
    chains[:, 0, 1] += 1
    first, second = samples.potential_scale_reduction(chains)
    assert first == pytest.approx(1, abs=2e-3)
    # Within 1; the means of the eight halves, two of which are off by 1, have variance 3/14.
    assert second == pytest.approx(np.sqrt(1 + 3 / 14), abs=0.02)


def test_growth_of_products_of_matrices():
    numbers = np.array([[[0.5]], [[1.6]]])
    assert samples.mean_square_factor(numbers) == pytest.approx((0.25 + 2.56) / 2)
    exact = np.log(0.5 * 1.6) / 2
    rate, error = samples.lyapunov_exponent(numbers, np.random.default_rng(0))
    assert abs(rate - exact) < 3 * error < 0.01
    # Of A or its quarter turn, the mean of A² on each axis; the product turns, and both count.
    pair = [np.diag([2.0, 0.25]), [[0.0, -1.0], [1.0, 0.0]]]
    rate, error = samples.lyapunov_exponent(pair, np.random.default_rng(0))
    assert rate < np.log(np.linalg.norm(pair, 2, axis=(1, 2))).mean() - 0.05
    second = sum(np.kron(a, a) for a in map(np.array, pair)) / 2
    radius = np.abs(np.linalg.eigvals(second)).max()
    assert samples.mean_square_factor(pair) == pytest.approx(radius)


def test_reweighted_proposals_follow_the_density():
    def logistic(points):
        return -(points**2 / 2 + points**4 / 20).sum(axis=1)

    points, share = samples.reweighted(logistic, [0.0], [[1.0]], 4000, np.random.default_rng(0))
    grid = np.linspace(-6, 6, 4001)
    density = np.exp(-(grid**2) / 2 - grid**4 / 20)
    variance = (density * grid**2).sum() / density.sum()
    assert points.var() == pytest.approx(variance, rel=0.1)
    assert 0.5 < share < 0.98
    same = samples.reweighted(
        lambda p: -(p**2).sum(axis=1) / 2, [0.0], [[1.0]], 10, np.random.default_rng(0)
    )
    assert same[1] == pytest.approx(1)


def test_tail_exponent_of_lognormal_factors():
    mean, sd = -0.5, 0.8
    assert samples.tail_exponent(
        lambda alpha: np.exp(alpha * mean + alpha**2 * sd**2 / 2), high=9
    ) == pytest.approx(-2 * mean / sd**2)
    with pytest.raises(ValueError, match="Nothing contracts on average"):
        samples.tail_exponent(lambda alpha: np.exp(alpha))
    with pytest.raises(ValueError, match="No power tail"):
        samples.tail_exponent(lambda alpha: 0.5**alpha)


def test_moments_of_the_factor_of_a_normal_input():
    assert samples.normal_factor_moment(0.7, 2) == pytest.approx(1 - 2 * 0.7 + 3 * 0.7**2)
    assert samples.normal_factor_moment(0.5, 4) == pytest.approx(
        1 - 4 * 0.5 + 6 * 3 * 0.25 - 4 * 15 * 0.125 + 105 * 0.0625
    )


def test_hill_on_a_pareto_law_and_its_error():
    generator = np.random.default_rng(6)
    found = np.array([samples.hill(generator.pareto(1.5, 2000) + 1, 200) for _ in range(200)])
    assert found[:, 0].mean() == pytest.approx(1.5, abs=0.03)
    assert found[:, 0].std() == pytest.approx(found[:, 1].mean(), rel=0.15)
    with pytest.raises(ValueError, match="tail of 3"):
        samples.hill([1, 2, 3], 3)


def test_kesten_exponent_of_backward_limits():
    generator, h = np.random.default_rng(7), 1.0
    theta = np.zeros(40_000)
    for x, y in generator.normal(size=(80, 2, len(theta))):
        theta = theta - h * x * (x * theta - y)
    alpha, error = samples.hill(theta, 800)
    exact = samples.tail_exponent(lambda a: samples.normal_factor_moment(h, a))
    assert abs(alpha - exact) < 3 * error
