"""What results come to, in sentences: the first lines of the chapters, and their summaries.

Each sentence is computed from what a page shows, and says so where nothing is decided, nothing is
recorded, or a path has diverged. The standard is that of :mod:`revlib.verdicts.intervals`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from revlib.verdicts import intervals, stability
from revlib.verdicts.claims import RATIO
from revlib.verdicts.effects import CRITERIA, Asked
from revlib.verdicts.stability import counted, factor

REST = 0.01
"""An iterate that moves by less than this share of a forward step is said to be nearly at rest."""


@dataclass(frozen=True)
class Times:
    """A factor over seeds, and which side of 1 it lies on.

    Parameters
    ----------
    mean, low, high
        Its geometric mean and the 95% interval, not a number where the seeds give none.
    seeds
        How many there are.
    side
        ``"above"`` or ``"below"`` where the whole interval lies on one side of 1, ``"alike"`` where
        it lies inside the band of no effect, ``"open"`` otherwise; ``"few"`` for fewer seeds than
        decide anything, ``"none"`` where no finite factor can be given.
    """

    mean: float
    low: float
    high: float
    seeds: int
    side: str

    @classmethod
    def of(cls, factors: pd.Series) -> Times:
        """Return what factors come to, one for each seed."""
        factors = factors.dropna()
        mean, low, high = stability.geometric_mean(factors)
        if not 0 < mean < np.inf:
            return cls(mean, low, high, len(factors), "none")
        with np.errstate(divide="ignore"):
            effect = intervals.of_seeds(np.log(factors))
        judged = intervals.judge({"": effect}, np.log(RATIO)).verdict
        sides = {"undecided": "open", "too few": "few", "reproduced": "above"}
        side = sides.get(judged) or ("below" if high < 1 else "alike")
        return cls(mean, low, high, len(factors), side)

    def __str__(self) -> str:
        """Return the factor in words."""
        return f"{factor(self.mean)} {self.interval()}"

    def interval(self, inverse: bool = False) -> str:
        """Return the interval and the number of seeds in brackets, also of one over the factor."""
        seeds = counted(self.seeds, "seed")
        if self.seeds < intervals.FEWEST or not np.isfinite([self.low, self.high]).all():
            return f"({seeds})"
        low, high = (1 / self.high, 1 / self.low) if inverse else (self.low, self.high)
        return f"(95% interval {factor(low)} to {factor(high)}; {seeds})"


def times_less(factors: pd.Series) -> str:
    """Return by which factor something is less, one for each seed, or more, and if that is open."""
    times = Times.of(factors)
    if times.side == "none":
        return "by no ratio that can be given"
    more = times.mean < 1
    value = factor(1 / times.mean if more else times.mean)
    open_ = "; undecided" if times.side in ("open", "few") else ""
    interval = times.interval(inverse=more).removesuffix(")")
    return f"{value} times {'*more*' if more else 'less'} {interval}{open_})"


def named(quantity: str) -> str:
    """Return what a column is called in a sentence."""
    words = quantity.replace("train_", "training_").replace("_by_batch", "_with_batch_statistics")
    return words.replace("_", " ")


def adverb(order: str) -> str:
    """Return how an order is said in a sentence: backward, or with `reset(1000)`.

    What is a phrase of several words stays as it is.
    """
    phrase = " " in order and not order.endswith(")")  # unlike reset(100, 150)
    return order if order in ("forward", "backward") or phrase else f"with `{order}`"


def less(
    what: str,
    verb: str,
    how: str,
    factors: pd.Series,
    orders: tuple[str, str],
    words: tuple[str, str] = ("less", "*more*{} than"),
) -> str:
    """Return whether something is less with the second order than with the first.

    Parameters
    ----------
    what, verb, how
        Subject, verb and what follows it: "the test loss", "varies", "about its trend".
    factors
        For each seed, how many times less.
    orders
        The first order and the second.
    words
        What it is said to be on either side; {} is the place of `how`.
    """
    one, other = map(adverb, orders)
    down, up = words
    times = Times.of(factors)
    how = f" {how}" if how else ""
    compared = f"{how} {other} than {one}"
    same = "about the same" if verb == "is" else "as much"
    if times.side == "none":
        if not times.seeds:
            return f"how much {what} {verb}{how} is not recorded"
        return f"how much {what} {verb}{how} has no ratio: a path diverged or does not move"
    return {
        "above": f"{other}, {what} {verb} {factor(times.mean)} times {down}{how} than {one} "
        f"{times.interval()}",
        "below": f"{other}, {what} {verb} {factor(1 / times.mean)} times {up.format(how)} {one} "
        f"{times.interval(inverse=True)}",
        "alike": f"{what} {verb} {same}{how} {other} as {one}: the ratio is {times}",
        "open": f"whether {what} {verb} {down}{compared} is undecided: the ratio is {times}",
        "few": f"too few seeds to say whether {what} {verb} {down}{compared}: the ratio is {times}",
    }[times.side]


def lower(what: str, factors: pd.Series, orders: tuple[str, str]) -> str:
    """Return whether something is lower with the second order, as :func:`less` does."""
    return less(what, "is", "", factors, orders, ("lower", "*as high* as"))


def varies(
    table: pd.DataFrame, quantity: str, steps: tuple[int, int], orders: tuple[str, str]
) -> str:
    """Return how much less a quantity varies about its trend with the second order.

    The quantity is a column of a study's rows; looked at are all steps from the first to the last.
    """
    what = named(quantity)
    inside = table[table["order"].isin(orders) & table["step"].between(*steps)]
    recorded = [set(inside.loc[inside["order"] == order, "step"]) for order in orders]
    if not all(stability.covered(own, *steps) for own in recorded):
        return (
            f"too few steps are recorded ({min(map(len, recorded))} from {steps[0]:,} to "
            f"{steps[1]:,}) to say how much the {what} varies about its trend"
        )
    ratios = stability.compare(table, quantity, *steps, "trend", orders)
    return less(f"the {what}", "varies", "about its trend", ratios, orders)


def steady(
    table: pd.DataFrame, quantity: str, steps: tuple[int, int], orders: tuple[str, str]
) -> list[str]:
    """Return whether a quantity changes less from step to step, where only that is decided.

    That is, where the seeds leave open, or say the opposite of, what :func:`varies` asks.
    """
    trend, change = (
        stability.compare(table, quantity, *steps, statistic, orders)
        for statistic in ("trend", "change")
    )
    side = Times.of(change).side
    if side not in ("above", "below") or side == Times.of(trend).side:
        return []
    return [less(f"the {named(quantity)}", "changes", "from step to step", change, orders)]


LESS = {"above": "yes", "below": "no, *more*", "alike": "no, as much", "open": "undecided"}
LESS |= {"few": "too few seeds", "none": "no ratio"}
"""Whether something varies less, by the side of :class:`Times`."""


def spreads(
    table: pd.DataFrame, quantities: Iterable[str], steps: tuple[int, int], orders: tuple[str, str]
) -> str:
    """Return :func:`varies` of several quantities in one sentence, with a verdict on each."""
    if "too few steps" in (first := varies(table, next(iter(quantities)), steps, orders)):
        return first
    clauses, otherwise = [], []
    for quantity in quantities:
        times, steady = (
            Times.of(stability.compare(table, quantity, *steps, statistic, orders))
            for statistic in ("trend", "change")
        )
        ratio = "" if times.side == "none" else f", {times}"
        clauses.append(f"{LESS[times.side]} for the {named(quantity)}{ratio}")
        if steady.side in ("above", "below", "alike") and steady.side != times.side:
            otherwise.append(f"{LESS[steady.side]} for the {named(quantity)}, {steady}")
    told = (
        f"{'; '.join(clauses)}. These are spreads about a trend over steps {steps[0]:,} to "
        f"{steps[1]:,}, {orders[0]} divided by {orders[1]}"
    )
    return f"{told}. From step to step: {'; '.join(otherwise)}" if otherwise else told


def stays_below(
    table: pd.DataFrame, quantity: str, levels: tuple[float, ...], orders: tuple[str, str]
) -> str:
    """Return which order stays below levels, fractions of the start, from an earlier step on."""
    one, other = map(adverb, orders)
    paths = table[table["order"].isin(orders)]
    recorded = [set(paths.loc[paths["order"] == order, "step"]) for order in orders]
    common = sorted(set.intersection(*recorded))
    paths = paths[paths["step"].isin(common)]
    rows = paths.groupby("seed")["step"].transform("size")
    paths = paths[rows == rows.max()]  # those that have them all
    at = paths.pivot(index=["seed", "order"], columns="step", values=quantity)
    if not (at.iloc[:, -1] <= max(levels) * at.iloc[:, 0]).any():
        return (
            f"by step {common[-1]:,} no path stays below {_percent(max(levels))} of its first "
            f"{named(quantity)}"
        )
    asked = Asked(orders, ((int(common[0]), int(common[-1])),), levels)
    times, first = (
        Times.of(np.exp(CRITERIA[how].measure(paths, quantity, asked)[""].groupby("seed").mean()))
        for how in ("stays_below", "first_below")
    )
    count = counted(len(levels), "level")
    count += f" from {_percent(max(levels))} to {_percent(min(levels))}" if len(levels) > 1 else ""
    which = f"the {named(quantity)} stays below {count} of its start"
    takes = f"{one} takes {factor(times.mean)} times as many steps {times.interval()}"
    reached = {
        "above": f"; first reached are they sooner {other}: {one} takes {factor(first.mean)} times "
        f"as many {first.interval()}",
        "below": f"; first reached are they sooner {one}: {other} takes {factor(1 / first.mean)} "
        f"times as many {first.interval(inverse=True)}",
    }
    told = {
        "above": f"{which} sooner {other}: {takes}",
        "below": f"{which} sooner {one}: {other} takes {factor(1 / times.mean)} times as many "
        f"steps {times.interval(inverse=True)}",
        "alike": f"{which} from about the same step on {one} and {other}: {takes}",
        "open": f"in which order {which} sooner is undecided: {takes}",
        "few": f"too few seeds to say in which order {which} sooner: {takes}",
        "none": f"in which order {which} sooner cannot be said",
    }[times.side]
    return told + (reached.get(first.side, "") if first.side != times.side else "")


def _percent(level: float) -> str:
    return f"{100 * level:g}%"


def moves(motion: pd.DataFrame, orders: tuple[str, str], end: int) -> str:
    """Return how far one more step still moves the iterate of the second order.

    The column ``moved`` of the motion is how far a step moves an iterate in parameter space; the
    run ends at the step `end`.
    """
    one, other = map(adverb, orders)
    times, last = moved(motion, orders)
    if times is None:
        return f"whether the iterate still moves {other} is not recorded"
    if times.side == "none":
        return f"at step {last:,} an iterate of one of the orders diverged, or does not move"
    whose = f"the {other} iterate" if other == orders[1] else f"the iterate {other}"
    early = last < end / 2
    by = " by then" if early else ""
    state = {
        True: f"{whose} is nearly at rest",
        False: f"{whose} {'had' if early else 'has'} not come to rest{by}",
        None: f"whether {whose} {'was' if early else 'is'} nearly at rest{by} is undecided",
    }[rests(times)]
    forward = f"the {one} one" if one == orders[0] else f"the one {one}"
    looked = f" of {end:,}, the last that was looked at," if early else ""
    return (
        f"{state}: at step {last:,}{looked} one more step moves it {factor(times.mean)} times as "
        f"far as {forward} {times.interval()}"
    )


def rests(times: Times) -> bool | None:
    """Return whether an iterate is nearly at rest, None where the seeds leave it open."""
    if times.seeds < intervals.FEWEST:
        return None
    return True if times.high < REST else False if times.low > REST else None


def moved(motion: pd.DataFrame, orders: tuple[str, ...]) -> tuple[Times | None, int]:
    """Return how many times as far a step moves the second order's iterate, and at which step.

    At the last step that is recorded of both; None where nothing is. The parameters are those of
    :func:`moves`.
    """
    both = motion[motion["order"].isin(orders)]
    if both.empty:
        return None, 0
    at = both.pivot_table(index=["step", "seed"], columns="order", values="moved", dropna=False)
    at = at.reindex(columns=list(orders)).dropna()
    if at.empty:
        return None, 0
    last = int(at.index.get_level_values("step").max())
    own = at.loc[last]
    return Times.of(own[orders[1]] / own[orders[0]]), last


def diverged(table: pd.DataFrame) -> str:
    """Return how many paths of which order diverged."""
    gone = stability.divergence(table)["order"].value_counts()
    paths = table.groupby("order")["seed"].nunique()
    if gone.empty:
        return "no path diverged"
    return "diverged: " + ", ".join(
        f"{number} of {counted(int(paths[order]), 'path')} {adverb(order)}"
        for order, number in gone.items()
    )


def sentence(parts: Iterable[str]) -> str:
    """Return clauses as one sentence."""
    words = "; ".join(parts)
    first = words[0].upper() if words[1:2].isalpha() else words[0]  # x² stays as it is
    return f"{first}{words[1:]}."


def sentences(parts: Iterable[str]) -> str:
    """Return clauses as a sentence each."""
    return " ".join(sentence([part]) for part in parts)


def listed(lines: Mapping[str, str] | Iterable[str]) -> str:
    """Return sentences as a list in Markdown, those of a mapping with their names in front."""
    if isinstance(lines, Mapping):
        lines = [f"**{name}**: {line}" for name, line in lines.items()]
    return "\n".join(f"- {line}" for line in lines)


def difference(row: pd.Series) -> str:
    """Return a row of :func:`revlib.verdicts.section_5.ends` as a paired difference, in words."""
    side = row["side"] or "not different beyond chance"
    return (
        f"{side} ({row['difference']:+.2g}, standard error {row['error']:.1g}; lower on "
        f"{row['lower']:.0f} of "
        f"{counted(int(row['seeds']), 'seed')})"
    )


def power(slopes: pd.Series) -> str:
    """Return the power of the cost with which something grows, one for each seed, in words."""
    effect = intervals.of_seeds(slopes)
    low, high = effect.ends()
    words = f"{effect.mean:.2f}"
    if effect.seeds < intervals.FEWEST:
        return f"the power {words} of the cost ({counted(effect.seeds, 'seed')})"
    words = (
        f"the power {words} of the cost (95% interval {low:.2f} to {high:.2f}; {effect.seeds} "
        "seeds)"
    )
    if low > 1:
        return f"{words}, faster than the cost"
    if high < 0:
        return f"{words}: it falls"
    if low > 0 and high < 1:
        return f"{words}, more slowly than the cost"
    return f"{words}, perhaps not at all" if low <= 0 else f"{words}, about as fast as the cost"
