"""The criteria: for each the one number that it takes from the paths of a seed.

That number, the effect, is above zero on the claimed side. :mod:`revlib.verdicts.intervals` says
what becomes of it. Where one of two paths has diverged, it is infinite, and the other path is the
better one; where both have, it is zero, a tie.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from revlib.verdicts import intervals, stability
from revlib.verdicts.intervals import Effect
from revlib.verdicts.stability import log_ratio


class Asked(NamedTuple):
    """What a claim asks of the paths.

    Parameters
    ----------
    orders
        Names of the orders, or of the study's cases, that are compared.
    windows
        Ranges of steps, both ends included.
    levels
        The levels of the criterion, where it has some.
    """

    orders: tuple[str, ...]
    windows: tuple[tuple[int, int], ...]
    levels: tuple[float, ...] = ()


Measured = pd.DataFrame
"""A row for each ``seed``, ``first`` and ``last`` step, a column for each part of the claim."""


class Enough(NamedTuple):
    """Which steps a window must hold.

    Parameters
    ----------
    words
        What it must record.
    holds
        Whether some recorded steps of it are enough; takes them, and its first and its last step.
    """

    words: str
    holds: Callable[[list[int], int, int], bool]


_SOME = Enough("a step", lambda steps, *_: bool(steps))
_TWO = Enough("two steps", lambda steps, *_: len(steps) > 1)
_MANY = Enough(f"at least {stability.MANY} steps", lambda steps, *_: len(steps) >= stability.MANY)
_ALL_OVER = Enough(
    f"at least {stability.MANY} steps, with no gap of more than a quarter of the range,",
    stability.covered,
)
_NEIGHBOURS = Enough(
    "two neighbouring steps", lambda steps, *_: any(b - a == 1 for a, b in pairwise(steps))
)


class Criterion(NamedTuple):
    """How a claim is judged.

    Parameters
    ----------
    rule
        What the effect is, so that a reader can compute it again.
    words
        The effect in a few words, with ``{0}``, ``{1}`` for the orders.
    measure
        Returns the effect, or what it is computed from.
    takes
        How many orders it takes: the least and the most number.
    enough
        Which steps it needs in each window.
    ratio
        Whether the effect is the logarithm of a ratio; otherwise it is a difference.
    levels
        What the levels stand for, if it has some.
    effects
        Returns the effects of what was measured, by part.
    beside
        The name of the criterion by which the same paths are looked at too, without a verdict.
    note
        Returns what else must be known, from the paths.
    """

    rule: str
    words: str
    measure: Callable[[pd.DataFrame, str, Asked], Measured]
    takes: tuple[int, float]
    enough: Enough
    ratio: bool = True
    levels: str = ""
    effects: Callable[[Measured], Mapping[str, Effect]] = lambda measured: {
        str(part): intervals.of_seeds(values) for part, values in averaged(measured).items()
    }
    beside: str = ""
    note: Callable[[pd.DataFrame, str, Asked], str] = lambda *_: ""


def averaged(measured: Measured) -> pd.DataFrame:
    """Return the mean over the windows within each seed; of opposite infinities, a tie."""
    with np.errstate(invalid="ignore"):
        return measured.groupby("seed").mean().fillna(0.0)


def _excess(above: pd.Series, below: pd.Series) -> pd.Series:
    """Return a difference; what is not a number counts as infinite."""
    above, below = (values.astype(float).fillna(np.inf) for values in (above, below))
    return (above - below).fillna(0.0)


def _by_window(measure: Callable[[pd.DataFrame, str, Asked], pd.DataFrame]):
    """Return a measure of all windows, given one of a single window whose rows are the seeds."""

    def measured(paths: pd.DataFrame, quantity: str, asked: Asked) -> Measured:
        parts = []
        for first, last in asked.windows:
            inside = paths[paths["step"].between(first, last)]
            found = measure(inside, quantity, asked._replace(windows=((first, last),)))
            parts.append(found.assign(first=first, last=last).reset_index())
        return pd.concat(parts).set_index(["seed", "first", "last"])

    return measured


def _statistic(paths: pd.DataFrame, quantity: str, asked: Asked, what: str) -> pd.DataFrame:
    """Return a statistic of each path over a window: a row a seed, a column an order."""
    found = stability.fluctuation(paths, quantity, *asked.windows[0])
    return found.pivot(index="seed", columns="order", values=what)


def _calmer_in(what: str):
    @_by_window
    def measure(paths: pd.DataFrame, quantity: str, asked: Asked) -> pd.DataFrame:
        moves = _statistic(paths, quantity, asked, what)
        first, second = asked.orders
        return log_ratio(moves[first], moves[second]).to_frame("")

    return measure


def _at_the_end(paths: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Return a quantity at the last step of a window: a row a seed, a column an order."""
    last = paths[paths["step"] == paths["step"].max()]
    return last.pivot(index="seed", columns="order", values=quantity)


def _lower_by(compare: Callable[[pd.Series, pd.Series], pd.Series]):
    @_by_window
    def measure(paths: pd.DataFrame, quantity: str, asked: Asked) -> pd.DataFrame:
        at = _at_the_end(paths, quantity)
        return pd.DataFrame(
            {
                f"{after} instead of {before}": compare(at[before], at[after])
                for before, after in pairwise(asked.orders)
            }
        )

    return measure


@_by_window
def _lower_than_each(paths: pd.DataFrame, quantity: str, asked: Asked) -> pd.DataFrame:
    at = _at_the_end(paths, quantity)
    *others, own = asked.orders
    return pd.DataFrame({f"instead of {other}": log_ratio(at[other], at[own]) for other in others})


@_by_window
def _growing(paths: pd.DataFrame, quantity: str, asked: Asked) -> pd.DataFrame:
    at = _at_the_end(paths, quantity)
    pairs = list(zip(asked.orders[::2], asked.orders[1::2], strict=True))
    lead = {after: log_ratio(at[before], at[after]) for before, after in pairs}
    return pd.DataFrame(
        {f"{b} instead of {a}": _excess(lead[b], lead[a]) for a, b in pairwise(lead)}
    )


def stays(values: pd.Series, level: float) -> float:
    """Return the first recorded step from which a path stays at or below a level, if it does."""
    above = ~(values <= level)  # so is what is not a number
    if above.iloc[-1]:
        return np.nan
    return max(1, values.index[np.flatnonzero(above)[-1] + 1] if above.any() else values.index[0])


def _touches(values: pd.Series, level: float) -> float:
    """Return the first recorded step at which a path is at or below a level, if there is one."""
    below = values.index[values <= level]
    return max(1, below[0]) if len(below) else np.nan


def _reached(
    paths: pd.DataFrame, quantity: str, asked: Asked, step: Callable[[pd.Series, float], float]
) -> pd.DataFrame:
    """Return when paths reach the levels: a row a seed and level, a column an order."""
    found = {}
    for (seed, order), path in paths.groupby(["seed", "order"]):
        values = path.set_index("step")[quantity].sort_index()
        for level in asked.levels:
            found[seed, level, order] = step(values, level * values.iloc[0])
    return pd.Series(found).rename_axis(["seed", "level", "order"]).unstack("order")


def _first_to(step: Callable[[pd.Series, float], float]):
    @_by_window
    def measure(paths: pd.DataFrame, quantity: str, asked: Asked) -> pd.DataFrame:
        when = _reached(paths, quantity, asked, step)
        one, other = (when[order] for order in asked.orders)
        never = asked.windows[0][1] + 1  # at the earliest
        log = np.log(one.fillna(never) / other.fillna(never)).where(one.notna() | other.notna())
        return log.groupby("seed").mean().fillna(0.0).to_frame("")

    return measure


def _censored(paths: pd.DataFrame, quantity: str, asked: Asked) -> str:
    when = _reached(paths, quantity, asked, stays)
    never = ", ".join(f"{order} in {when[order].isna().sum()}" for order in asked.orders)
    return f" Of {len(when)} cases of a seed and level, not below by the end: {never}."


@_by_window
def _apart(paths: pd.DataFrame, quantity: str, asked: Asked) -> pd.DataFrame:
    mean, spread = (_statistic(paths, quantity, asked, what) for what in ("mean", "trend"))
    one, other = asked.orders
    gap, noise = (mean[one] - mean[other]).abs(), spread[one] + spread[other]
    return log_ratio(gap.fillna(0.0), noise).to_frame("")


@_by_window
def _rests_apart(paths: pd.DataFrame, quantity: str, asked: Asked) -> pd.DataFrame:
    at = paths.pivot(index=["order", "seed"], columns="step", values=quantity)
    level = at.mean(axis=1, skipna=False).unstack("order")
    moved = (at.iloc[:, -1] - at.iloc[:, 0]).abs().unstack("order")
    one, other = asked.orders
    gap = (level[one] - level[other]).abs().fillna(0.0)
    return log_ratio(gap, moved[[one, other]].max(axis=1, skipna=False)).to_frame("")


@_by_window
def _crosses(paths: pd.DataFrame, quantity: str, asked: Asked) -> pd.DataFrame:
    at = paths.pivot(index=["seed", "step"], columns="order", values=quantity)
    wandering, *others = asked.orders
    low, high = at[others].min(axis=1, skipna=False), at[others].max(axis=1, skipna=False)
    over = (at[wandering] - high).groupby("seed").agg(lambda d: d.max(skipna=False))
    under = (low - at[wandering]).groupby("seed").agg(lambda d: d.max(skipna=False))
    gap = (high - low).groupby("seed").mean()
    return (np.minimum(over, under) / gap).fillna(-np.inf).to_frame("")


@_by_window
def _nearer(paths: pd.DataFrame, quantity: str, asked: Asked) -> pd.DataFrame:
    at = _at_the_end(paths, quantity)
    own, near, far = asked.orders
    return log_ratio((at[far] - at[own]).abs(), (at[near] - at[own]).abs()).to_frame("")


def _settles(paths: pd.DataFrame, quantity: str, asked: Asked) -> Measured:
    early, late = asked.windows
    [level] = asked.levels
    at = paths.pivot(index=["order", "seed"], columns="step", values=quantity)
    falls = []
    for first, last in (early, late):
        steps = [step for step in at if first <= step <= last]
        falls.append(at[steps[0]] - at[steps[-1]])
    margin = log_ratio(level * falls[0].clip(lower=0.0).fillna(0.0), falls[1].abs())
    names = list(asked.orders) if len(asked.orders) > 1 else [""]
    measured = margin.unstack("order")[list(asked.orders)].set_axis(names, axis=1)
    measured = measured.assign(first=late[0], last=late[1]).reset_index()
    return measured.set_index(["seed", "first", "last"])


@_by_window
def _values(paths: pd.DataFrame, quantity: str, asked: Asked) -> pd.DataFrame:
    return _at_the_end(paths, quantity)[list(asked.orders)]


def _narrower(measured: Measured) -> Mapping[str, Effect]:
    first, second = measured.columns
    return {"": intervals.of_spreads(measured[first], measured[second])}


CRITERIA = {
    "calmer": Criterion(
        "On each seed a quadratic polynomial in the step is fitted to each path over the stated "
        "range, at the steps that are recorded of both. The effect is the logarithm of the "
        "standard deviation about it (n - 3 degrees of freedom) of the first order divided by "
        "that of the second.",
        "Spread about a smooth trend, {0} divided by {1}",
        _calmer_in("trend"),
        takes=(2, 2),
        enough=_ALL_OVER,
        beside="calmer_step_by_step",
    ),
    "calmer_step_by_step": Criterion(
        "On each seed the absolute change from a recorded step to the next is averaged over the "
        "neighbouring steps in the range. The effect is the logarithm of that of the first order "
        "divided by that of the second.",
        "Change from a step to the next, {0} divided by {1}",
        _calmer_in("change"),
        takes=(2, 2),
        enough=_NEIGHBOURS,
    ),
    "lower": Criterion(
        "On each seed, at the last recorded step of the range, the effect is the value of an order "
        "minus that of the next: each order lies below the one before it. Of several pairs of "
        "neighbours, all must.",
        "By how much lower",
        _lower_by(_excess),
        takes=(2, np.inf),
        enough=_SOME,
        ratio=False,
    ),
    "lower_ratio": Criterion(
        "As *lower*, but the effect is the logarithm of the value of an order divided by that of "
        "the next.",
        "How many times lower",
        _lower_by(log_ratio),
        takes=(2, np.inf),
        enough=_SOME,
    ),
    "lower_than_each": Criterion(
        "On each seed, at the last recorded step of the range, the effect is the logarithm of the "
        "value of another order divided by that of the last of them, which must lie below each of "
        "the others.",
        "How many times lower",
        _lower_than_each,
        takes=(3, np.inf),
        enough=_SOME,
    ),
    "grows": Criterion(
        "On each seed and in each experiment, at the last recorded step of the range, the lead of "
        "the second order is the value of the first divided by its own. The effect is the "
        "logarithm of the lead divided by that in the experiment before; it must grow from each to "
        "the next.",
        "How many times further ahead",
        _growing,
        takes=(4, np.inf),
        enough=_SOME,
    ),
    "stays_below": Criterion(
        "On each seed and for each level, a fraction of the value at the first recorded step of "
        "the range, the step is taken from which the path stays at or below it to the end of the "
        "range; the step after the end, for a path that does not. The effect is the logarithm of "
        "that of the first order divided by that of the second, averaged over the levels that at "
        "least one of them reaches.",
        "Step from which it stays below a level, {0} divided by {1}",
        _first_to(stays),
        takes=(2, 2),
        enough=_MANY,
        levels="fractions of the start",
        beside="first_below",
        note=_censored,
    ),
    "first_below": Criterion(
        "As *stays below*, but for the first step at which the path is at or below the level.",
        "First step below it, {0} divided by {1}",
        _first_to(_touches),
        takes=(2, 2),
        enough=_MANY,
        levels="fractions of the start",
    ),
    "apart": Criterion(
        "On each seed the effect is the logarithm of the distance of the mean levels of the two "
        "paths over the range, divided by the sum of their standard deviations about a quadratic "
        "trend.",
        "Distance of the levels of {0} and {1} divided by the sum of their spreads",
        _apart,
        takes=(2, 2),
        enough=_ALL_OVER,
    ),
    "rests_apart": Criterion(
        "On each seed the effect is the logarithm of the distance of the mean levels of the two "
        "paths over the range, divided by how far the one of them that moves more has moved from "
        "the first to the last recorded step of it.",
        "Distance of the levels of {0} and {1} divided by how far they still move",
        _rests_apart,
        takes=(2, 2),
        enough=_ALL_OVER,
    ),
    "crosses": Criterion(
        "On each seed and at each step of the range the first path is compared with the two others "
        "at that step. The effect is how far it comes to lie above both, or below both, whichever "
        "is less far, in units of the mean distance of the two.",
        "How far {0} swings beyond {1} and {2}, in their distance",
        _crosses,
        takes=(3, 3),
        enough=_ALL_OVER,
        ratio=False,
    ),
    "nearer": Criterion(
        "On each seed, at the last recorded step of the range, the effect is the logarithm of the "
        "distance of the third order from the first, divided by that of the second from it.",
        "Distance of {2} from {0} divided by that of {1} from it",
        _nearer,
        takes=(3, 3),
        enough=_SOME,
    ),
    "settles": Criterion(
        "On each seed the effect is the logarithm of the fall of the path over the first range, "
        "times the stated fraction, divided by its absolute change over the second: at rest, it "
        "changes by less than that.",
        "Fall over the first range times {level}, divided by the change over the second",
        _settles,
        takes=(1, np.inf),
        enough=_TWO,
        levels="the fraction of the fall that may remain",
    ),
    "narrower": Criterion(
        "The effect is the logarithm of the standard deviation over the seeds, at the last "
        "recorded step of the range, of the first order divided by that of the second. The "
        "interval is that of Pitman and Morgan for pairs.",
        "Standard deviation over the seeds, {0} divided by {1}",
        _values,
        takes=(2, 2),
        enough=_SOME,
        effects=_narrower,
    ),
}
"""The criteria by name."""


def described(criterion: Criterion, asked: Asked) -> str:
    """Return what the effect is, in words."""
    return criterion.words.format(*asked.orders, level=" ".join(f"{x:g}" for x in asked.levels))
