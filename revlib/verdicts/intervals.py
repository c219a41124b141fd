"""From one number for each seed to a verdict: the one standard by which everything is judged.

An *effect* is a number for each seed that is above zero on the claimed side: the logarithm of a
ratio, or a difference. What is claimed holds if the whole 95% interval of the effect over seeds
lies above zero, and is contradicted if the whole interval lies below zero, or inside a stated band
around zero of what counts as no effect.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.stats

CONFIDENCE = 0.95
FEWEST = 3
"""With fewer seeds than that nothing is decided."""
MOST = 1000
"""Where more seeds than that would be needed, their number is not told."""

Interval = Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray]]
"""Maps numbers of seeds and an error probability to the ends of the interval to be expected."""


@dataclass(frozen=True)
class Effect:
    """An effect as far as the seeds tell.

    Parameters
    ----------
    mean
        Its mean over the seeds; the median where a mean makes no sense.
    seeds
        How many there are.
    interval
        The interval that so many seeds, or more of the same kind, give.
    method
        How it is computed, in words, where it is not by Student's t.
    """

    mean: float
    seeds: int
    interval: Interval
    method: str = ""

    def ends(self) -> tuple[float, float]:
        """Return the ends of the 95% interval, infinite where there is none."""
        low, high = self.interval(np.array([self.seeds]), 1 - CONFIDENCE)
        return float(low[0]), float(high[0])


@dataclass(frozen=True)
class Judged:
    """What the effects of a claim come to.

    Parameters
    ----------
    verdict
        ``"reproduced"``, ``"contradicted"``, ``"undecided"`` or ``"too few"``.
    effects
        The effects by the name of the part; a claim may have several parts, which must all hold.
    seeds
        How many seeds they rest on.
    needed
        How many seeds would decide, if more of them had the same mean and spread; None where it is
        decided, or where more than :data:`MOST` would be needed.
    """

    verdict: str
    effects: Mapping[str, Effect]
    seeds: int
    needed: int | None


def of_seeds(values: pd.Series) -> Effect:
    """Return the effect whose values on the seeds are given.

    The interval is Student's. Where a value is infinite, or all are the same up to rounding, the
    seeds have no standard deviation that could be used: then it is the interval of the median that
    belongs to the exact sign test, whose ends are two of the ordered values.
    """
    values = np.sort(values.to_numpy(float))
    count = len(values)
    finite = np.isfinite(values).all()
    if finite and (count < 2 or np.ptp(values) > 1e-9 * np.abs(values).max()):
        mean, spread = values.mean(), values.std(ddof=1) if count > 1 else np.inf

        def student(n: np.ndarray, error: float) -> tuple[np.ndarray, np.ndarray]:
            half = _quantiles(error)[n] * spread / np.sqrt(n)
            return mean - half, mean + half

        return Effect(float(mean), count, student)

    def signs(n: np.ndarray, error: float) -> tuple[np.ndarray, np.ndarray]:
        # The chance that fewer than `out` of n values lie on one side of the median is below half
        # the error.
        out = scipy.stats.binom.ppf(error / 2, n, 0.5).astype(int)
        out -= scipy.stats.binom.cdf(out, n, 0.5) > error / 2
        place = np.ceil((out + 0.5) / n * count).astype(int)  # of n values like these
        inside = out >= 0
        low = np.where(inside, values[np.maximum(place, 1) - 1], -np.inf)
        high = np.where(inside, values[count - np.maximum(place, 1)], np.inf)
        return low, high

    middle = values[(count - 1) // 2], values[count // 2]
    mean = middle[0] if middle[0] == middle[1] else np.mean(middle)
    return Effect(float(mean), count, signs, "median, by the sign test")


def of_spreads(first: pd.Series, second: pd.Series) -> Effect:
    """Return the logarithm of the ratio of two standard deviations over the seeds, first / second.

    The values come in pairs, one of each on every seed. Pitman and Morgan: their sum and
    difference are correlated if and only if the variances differ, which gives an exact interval
    for the ratio of normal variables. Where a value is not finite or does not vary, there is none.
    """
    count = len(first)
    finite = np.isfinite(first).all() and np.isfinite(second).all()
    spreads = (first.std(), second.std()) if finite else (np.nan, np.nan)
    if not min(spreads) > 0:
        return Effect(np.nan, count, lambda n, _: (-np.inf * n, np.inf * n))
    mean, correlation = np.log(spreads[0] / spreads[1]), first.corr(second)

    def pitman_morgan(n: np.ndarray, error: float) -> tuple[np.ndarray, np.ndarray]:
        left = np.maximum(n - 2, 1)
        wide = 1 + 2 * (1 - correlation**2) * _quantiles(error)[np.maximum(n - 1, 1)] ** 2 / left
        half = np.where(n > 2, np.arccosh(wide) / 2, np.inf)
        return mean - half, mean + half

    return Effect(float(mean), count, pitman_morgan, "by Pitman and Morgan")


@functools.lru_cache
def _quantiles(error: float) -> np.ndarray:
    """Return Student's two-sided quantiles by number of seeds; infinite below two."""
    freedom = np.arange(1, MOST)
    return np.concatenate([[np.inf, np.inf], scipy.stats.t.ppf(1 - error / 2, freedom)])


def judge(effects: Mapping[str, Effect], band: float = 0.0) -> Judged:
    """Return what effects come to that must all be above zero.

    Parameters
    ----------
    effects
        The parts of what is claimed. It is contradicted if one of them is, at the level that
        Bonferroni asks of so many.
    band
        Effects of less than that in either direction count as none.
    """
    [seeds] = {effect.seeds for effect in effects.values()}
    for_it, against = _sides(effects, np.array([seeds]), band)
    if seeds >= FEWEST and (for_it[0] or against[0]):
        return Judged("reproduced" if for_it[0] else "contradicted", effects, seeds, None)
    more = np.arange(max(seeds + 1, FEWEST), MOST + 1)
    decided = np.logical_or(*_sides(effects, more, band)) if seeds > 1 else np.array([False])
    needed = int(more[decided.argmax()]) if decided.any() else None
    return Judged("undecided" if seeds >= FEWEST else "too few", effects, seeds, needed)


def _sides(
    effects: Mapping[str, Effect], n: np.ndarray, band: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return for numbers of seeds whether they support and whether they contradict the claim."""
    for_it, against = np.full(n.shape, True), np.full(n.shape, False)
    for effect in effects.values():
        for_it &= effect.interval(n, 1 - CONFIDENCE)[0] > 0
        low, high = effect.interval(n, (1 - CONFIDENCE) / len(effects))
        against |= (high < 0) | ((low > -band) & (high < band))
    return for_it, against & ~for_it


def together(verdicts: list[str]) -> str:
    """Return the verdict of a claim from those of its readings.

    A statement that leaves open what is meant is under-specified where one reading of it is
    reproduced and another contradicted.
    """
    found = set(verdicts)
    if found >= {"reproduced", "contradicted"}:
        return "under-specified"
    return found.pop() if len(found) == 1 else "undecided"
