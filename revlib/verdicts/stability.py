"""How calm a path is: statistics of one path, and of two orders against each other.

A path is judged over a stated range of steps, each seed on its own. For exchangeable batches
the forward and the backward iterate have the same law at every fixed step, so no expectation at
a step can differ between them; what can differ, and is measured here, is the movement along a path.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats

STATISTICS = ("spread", "change")


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
        ``spread`` (standard deviation over these steps, with n - 1), ``pairs`` (recorded steps
        whose successor is recorded too) and ``change`` (mean absolute difference over the pairs).
        Not a number where there are too few points or the path has diverged.

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
        values = path[quantity].where(np.isfinite(path[quantity])).to_numpy(float)
        changes = np.abs(np.diff(values))[np.diff(path["step"]) == 1]
        whole = len(values) > 1
        rows.append(
            {
                "seed": seed,
                "order": order,
                "points": len(values),
                "mean": values.mean(),
                "spread": values.std(ddof=1) if whole else np.nan,
                "pairs": len(changes),
                "change": changes.mean() if len(changes) else np.nan,
            }
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Comparison:
    """How many times calmer the second of two orders is than the first.

    Parameters
    ----------
    ratios
        Per seed: the statistic of the first order divided by that of the second. Above 1, the
        second is calmer. Seeds on which either is not a number are left out.
    ratio
        Their geometric mean.
    low, high
        Its 95 % confidence interval from Student's t on the logarithms of the ratios; not a
        number with fewer than two seeds.
    left_out
        Seeds left out, because a path diverged or has too few recorded steps.
    """

    ratios: pd.Series
    ratio: float
    low: float
    high: float
    left_out: list[int]

    def __str__(self) -> str:
        """Return the ratio in words."""
        text = f"{rounded(self.ratio)} times, on {counted(len(self.ratios), 'seed')}"
        if np.isfinite(self.low):
            text += f" (95 % interval {rounded(self.low)} to {rounded(self.high)})"
        return text


def rounded(value: float) -> str:
    """Return a number with two digits, written out: 260 and not 2.6e+02."""
    return f"{float(f'{value:.2g}'):,.10g}"


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
) -> Comparison:
    """Compare the fluctuation of two orders over a range of steps, seed by seed.

    The two paths of a seed share their start and their batches, so the ratio is taken per seed
    and the uncertainty over seeds.

    Parameters
    ----------
    table, quantity, first, last
        As for :func:`fluctuation`.
    statistic
        ``"spread"`` or ``"change"``.
    orders
        Names of the two orders.

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
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(per_seed[orders[0]] / per_seed[orders[1]])
    usable = logs[np.isfinite(logs)]
    ratio, low, high = geometric_mean(np.exp(usable))
    return Comparison(
        ratios=np.exp(usable),
        ratio=ratio,
        low=low,
        high=high,
        left_out=[seed for seed in logs.index if seed not in usable.index],
    )


def geometric_mean(values: pd.Series) -> tuple[float, float, float]:
    """Return the geometric mean of positive numbers and its 95 % confidence interval.

    The interval is Student's on the logarithms; its ends are not a number with fewer than two
    values.
    """
    logs = np.log(values)
    center, count = logs.mean(), len(logs)
    half = np.nan
    if count > 1:
        half = scipy.stats.t.ppf(0.975, count - 1) * logs.std(ddof=1) / np.sqrt(count)
    return tuple(float(np.exp(center + shift)) for shift in (0, -half, half))


def ratios(
    table: pd.DataFrame,
    windows: Iterable[tuple[int, int]],
    orders: tuple[str, str] = ("forward", "backward"),
) -> pd.DataFrame:
    """Compare the spread of two orders for each measured quantity and window.

    Parameters
    ----------
    table
        A tidy table.
    windows
        Ranges of steps, both ends included.
    orders
        Names of the two orders.

    Returns
    -------
    pandas.DataFrame
        One row for each quantity and window: ``quantity``, ``window`` ("steps 1 to 8"), ``first``,
        ``last``, ``ratio``, ``low`` and ``high`` as in :class:`Comparison`, ``calmer`` (seeds on
        which the ratio is above 1) and ``seeds`` (on which there is a ratio).
    """
    rows = []
    for quantity in (c for c in table if "_loss" in c or "_accuracy" in c):
        for first, last in windows:
            found = compare(table, quantity, first, last, orders=orders)
            rows.append(
                {
                    "quantity": quantity,
                    "window": f"steps {first} to {last}",
                    "first": first,
                    "last": last,
                    "ratio": found.ratio,
                    "low": found.low,
                    "high": found.high,
                    "calmer": int((found.ratios > 1).sum()),
                    "seeds": len(found.ratios),
                }
            )
    return pd.DataFrame(rows)


FEW_STEPS = 10
"""A spread over fewer steps than that has no digit that is worth printing."""


def summary(found: pd.DataFrame) -> str:
    """Return :func:`ratios` in words, a line each, in as many digits as mean something.

    A quantity that does not move has no line, and the spread over a few steps no number.
    """
    found = found[found["seeds"] > 0]
    if found.empty:
        return "There is no ratio: in each quantity one of the two does not move, or diverged."
    width = found["quantity"].str.len().max()
    return "\n".join(
        f"{row.window}, {row.quantity:<{width}}: "
        + (f"ratio {row.ratio:.1f}, " if row.last - row.first + 1 >= FEW_STEPS else "")
        + f"above 1 on {row.calmer} of {counted(row.seeds, 'seed')}"
        for row in found.itertuples()
    )


def divergence(table: pd.DataFrame, quantity: str = "train_loss") -> pd.DataFrame:
    """Return where paths diverged.

    Returns
    -------
    pandas.DataFrame
        ``seed``, ``order`` and the first recorded ``step`` at which `quantity` is not finite. A
        path that stays finite has no row.
    """
    lost = table[~np.isfinite(table[quantity])]
    return lost.groupby(["seed", "order"], as_index=False)["step"].min()
