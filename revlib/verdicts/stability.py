"""How calm a path is: statistics of one path, and of two orders against each other.

A path is judged over a stated range of steps, each seed on its own. For exchangeable batches
the forward and the backward iterate have the same law at every fixed step, so no expectation at
a step can differ between them; what can differ, and is measured here, is the movement along a path.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from revlib.verdicts import intervals

ROUNDING = 1e-12
"""What a spread is of the size of the values, or a ratio of two spreads differs from 1, by rounding
alone: another processor adds in another order."""

_HOW = {"trend": "about a trend, ", "spread": "", "change": "step to step, "}
STATISTICS = tuple(_HOW)

MANY = 10
"""Recorded steps below which nothing is said of how a curve varies about its trend."""


def fluctuation(table: pd.DataFrame, quantity: str, first: int, last: int) -> pd.DataFrame:
    """Return how much a quantity moves along each path, over the steps `first` to `last`.

    Parameters
    ----------
    table
        A tidy table (:func:`revlib.training.sweep.trajectory`).
    quantity
        A column of it, in whose units the result is: ``"test_loss"``, say.
    first, last
        The range of steps, both included.

    Returns
    -------
    pandas.DataFrame
        One row for each seed and order: ``points`` (recorded steps in the range), ``mean``,
        ``spread`` (standard deviation over these steps, with n - 1), ``trend`` (standard deviation
        about a quadratic polynomial in the step, with n - 3, see :func:`about_trend`), ``pairs``
        (recorded steps whose successor is recorded too) and ``change`` (mean absolute difference
        over the pairs). Not a number where there are too few points or the path has diverged.

    Raises
    ------
    ValueError
        If the table has no such column or no step in the range.
    """
    if quantity not in table:
        measured = ", ".join(c for c in table if c not in ("seed", "order", "step"))
        raise ValueError(f"The table has no '{quantity}'. It has: {measured}.")
    inside = table[table["step"].between(first, last)]
    if inside.empty:
        raise ValueError(
            f"No step between {first} and {last} is recorded; "
            f"the table has steps {table['step'].min()} to {table['step'].max()}."
        )
    rows = []
    for (seed, order), path in inside.sort_values("step").groupby(["seed", "order"]):
        values, steps = path[quantity].to_numpy(float), path["step"].to_numpy()
        finite = np.isfinite(values).all()
        changes = np.abs(np.diff(values))[np.diff(steps) == 1] if finite else []
        pairs = int((np.diff(steps) == 1).sum())
        moves = {
            "spread": (_moved(values.std(ddof=1), values) if finite else np.inf)
            if len(values) > 1
            else np.nan,
            "trend": about_trend(steps, values),
            "change": (np.mean(changes) if finite else np.inf) if pairs else np.nan,
        }
        level = values.mean() if finite else np.nan
        names = {"seed": seed, "order": order, "points": len(values), "pairs": pairs}
        rows.append(names | {"mean": level} | moves)
    return pd.DataFrame(rows)


def covered(steps: Iterable[int], first: int, last: int) -> bool:
    """Return whether recorded steps tell how a path varies about its trend over a range.

    They must be :data:`MANY`, and leave no gap of more than a quarter of the range: a burst of
    neighbours says nothing of what lies between the ends.
    """
    known = sorted(n for n in set(steps) if first <= n <= last)
    gap = max(np.diff([first, *known, last]))
    return len(known) >= MANY and gap <= (last - first) / 4


def about_trend(steps: np.ndarray, values: np.ndarray) -> float:
    """Return the standard deviation of a path about a smooth trend, a quadratic in the step.

    Any sample of the steps will do. Of n points with independent noise it is known up to a
    relative standard error of ``1 / sqrt(2 (n - 3))``, and less well where neighbours are alike.
    Not a number for fewer than four points; infinite for a path that has diverged.
    """
    if len(values) < 4:
        return np.nan
    if not np.isfinite(values).all():
        return np.inf
    place = (steps - steps.mean()) / np.ptp(steps)
    powers = np.vander(place, 3)
    rest = values - powers @ np.linalg.lstsq(powers, values, rcond=None)[0]
    return _moved(np.sqrt(rest @ rest / (len(values) - 3)), values)


def _moved(spread: float, values: np.ndarray) -> float:
    """Return a spread of values, zero where it is rounding."""
    return float(spread) if spread > ROUNDING * np.abs(values).max() else 0.0


def ratio_error(points: int) -> float:
    """Return the relative standard error of a ratio of two spreads about a trend.

    That of points with independent noise, 4 or more on each path: the error of each spread is that
    of :func:`about_trend`. Where neighbouring steps are alike, it is larger.
    """
    return 1 / np.sqrt(points - 3)


def structure(table: pd.DataFrame, quantity: str, first: int, last: int) -> pd.DataFrame:
    """Return how far a quantity moves along a path in so many steps: its structure function.

    Parameters
    ----------
    table, quantity, first, last
        As for :func:`fluctuation`.

    Returns
    -------
    pandas.DataFrame
        A row for each order and a column for each lag, 1, 2, 4 and so on: the root mean square,
        over all seeds, of the difference between recorded steps so far apart; not a number where
        there are none.
    """
    inside = table[table["step"].between(first, last)]
    at = inside.pivot(index=["order", "seed"], columns="step", values=quantity)
    lags = [2**k for k in range((last - first).bit_length())]
    square = {
        lag: (at.reindex(columns=at.columns + lag).set_axis(at.columns, axis=1) - at) ** 2
        for lag in lags
    }
    means = pd.DataFrame({lag: each.mean(axis=1) for lag, each in square.items()})
    return np.sqrt(means.groupby("order").mean())


def rounded(value: float) -> str:
    """Return a number with two digits, written out: 260 and not 2.6e+02."""
    return f"{float(f'{value:.2g}'):,.10g}"


def factor(value: float) -> str:
    """Return a factor in two digits; in more near 1, where two would hide it."""
    if 0.9 < value < 1.1:
        return f"{value:.3f}"
    return f"{value:.3g}" if 0.5 < value < 2 else rounded(value)


def counted(number: int, what: str) -> str:
    """Return a number of things in words: 1 seed, 5 seeds."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def compare(
    table: pd.DataFrame,
    quantity: str,
    first: int,
    last: int,
    statistic: str = "spread",
    orders: tuple[str, str] = ("forward", "backward"),
) -> pd.Series:
    """Return how many times calmer the second of two orders is, for each seed.

    The two paths of a seed share their start and their batches, so the ratio is taken per seed
    and the uncertainty over seeds.

    Parameters
    ----------
    table, quantity, first, last
        As for :func:`fluctuation`.
    statistic
        A name in ``STATISTICS``.
    orders
        Names of the two orders.

    Returns
    -------
    pandas.Series
        For each seed with enough recorded steps the statistic of the first order divided by that
        of the second. Above 1, the second is calmer. It is infinite where the first has diverged
        or the second does not move, 0 in the opposite case, and 1 where the same holds of both.

    Raises
    ------
    ValueError
        If a name is not valid.
    """
    if statistic not in STATISTICS:
        raise ValueError(f"'{statistic}' is not a statistic. Valid are: {', '.join(STATISTICS)}.")
    per_seed = fluctuation(table, quantity, first, last).pivot(
        index="seed", columns="order", values=statistic
    )
    for order in orders:
        if order not in per_seed:
            raise ValueError(
                f"The table has no order '{order}'. It has: {', '.join(per_seed.columns)}."
            )
    known = per_seed[list(orders)].dropna()
    return np.exp(log_ratio(known[orders[0]], known[orders[1]]))


def log_ratio(above: pd.Series, below: pd.Series) -> pd.Series:
    """Return the logarithm of a ratio; what is not a number counts as infinite.

    It is zero, a tie, where both are infinite, both zero, or both equal up to rounding.
    """
    above, below = (values.astype(float).fillna(np.inf) for values in (above, below))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (np.log(above) - np.log(below)).fillna(0.0)
    return ratio.where(ratio.abs() > ROUNDING, 0.0)


def geometric_mean(values: pd.Series) -> tuple[float, float, float]:
    """Return the geometric mean of numbers of 0 or more, and its 95% confidence interval.

    The interval is that of :func:`revlib.verdicts.intervals.of_seeds` on the logarithms; its ends
    are not a number where the values are too few for one.
    """
    if values.empty:
        return np.nan, np.nan, np.nan
    with np.errstate(divide="ignore"):
        effect = intervals.of_seeds(np.log(values))
    low, high = effect.ends()
    ends = (np.nan, np.nan) if np.isinf([low, high]).all() else (low, high)
    return tuple(float(np.exp(end)) for end in (effect.mean, *ends))


def ratios(
    table: pd.DataFrame,
    windows: Iterable[tuple[int, int]],
    orders: tuple[str, str] = ("forward", "backward"),
    statistic: str = "spread",
) -> pd.DataFrame:
    """Compare the fluctuation of two orders for each measured quantity and window.

    Parameters
    ----------
    table
        A tidy table.
    windows
        Ranges of steps, both ends included.
    orders
        Names of the two orders.
    statistic
        A name in ``STATISTICS``.

    Returns
    -------
    pandas.DataFrame
        One row for each quantity and window: ``quantity``, ``window`` ("steps 1 to 8"), ``first``,
        ``last``, ``ratio``, ``low`` and ``high`` (:func:`geometric_mean` of :func:`compare`),
        ``calmer`` (seeds on which the ratio is above 1) and ``seeds`` (on which one of the two
        moves less).
    """
    rows = []
    for quantity in (c for c in table if "_loss" in c or "_accuracy" in c):
        for first, last in windows:
            found = compare(table, quantity, first, last, statistic, orders)
            ratio, low, high = geometric_mean(found)
            rows.append(
                {
                    "quantity": quantity,
                    "window": f"{_HOW[statistic]}steps {first} to {last}",
                    "first": first,
                    "last": last,
                    "ratio": ratio,
                    "low": low,
                    "high": high,
                    "calmer": int((found > 1).sum()),
                    "seeds": int((found != 1).sum()),
                }
            )
    return pd.DataFrame(rows)


FEW_STEPS = 10
"""A spread over fewer steps than that has no digit that is worth printing."""


def summary(found: pd.DataFrame) -> str:
    """Return :func:`ratios` as a text, a line for each quantity and a column for each window.

    In as many digits as mean something: a quantity that does not move has no entry, and the spread
    over a few steps no number.
    """
    found = found[found["seeds"] > 0]
    if found.empty:
        return "There is no ratio: in each quantity one of the two does not move, or diverged."
    cells = {
        (row.quantity, row.window): (
            f"{row.ratio:.1f}, " if row.last - row.first + 1 >= FEW_STEPS else ""
        )
        + f"{row.calmer} of {row.seeds}"
        for row in found.itertuples()
    }
    windows = list(dict.fromkeys(found["window"]))
    heads = zip(*(window.rpartition("steps")[::2] for window in windows), strict=True)
    lines = [["", *(part.rstrip() for part in head)] for head in heads]
    lines[1] = ["", *(f"steps{steps}" for steps in lines[1][1:])]
    for quantity in dict.fromkeys(found["quantity"]):
        own = [cells.get((quantity, window), "") for window in windows]
        lines.append([quantity.replace("_", " "), *own])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        [
            "The ratio, and on how many seeds it is above 1:",
            *("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines if any(line)),
        ]
    )


def divergence(table: pd.DataFrame) -> pd.DataFrame:
    """Return where paths diverged: ``seed``, ``order`` and the first recorded ``step``.

    There the training loss is not finite. A path that stays finite has no row.
    """
    diverged = table[~np.isfinite(table["train_loss"])]
    return diverged.groupby(["seed", "order"], as_index=False)["step"].min()
