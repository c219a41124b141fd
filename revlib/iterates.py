"""The definition of an order's iterates in plain code: what every faster path is tested against."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from revlib.orders import Order, Word

State = TypeVar("State")


def iterates(
    maps: Sequence[Callable[[State], State]],
    theta0: State,
    order: Order,
    record: Iterable[int] | None = None,
) -> Iterator[tuple[int, State]]:
    """Yield ``(n, theta(n))`` for the recorded steps n, ascending.

    ``theta(n)`` is what the maps of the order's word at step n make of the start, one after the
    other (:mod:`revlib.orders`). Where a word goes on from the one before, as forward each does, so
    does the computation. How words that only begin alike share their beginning is told by
    :func:`revlib.orders.tree`.

    Parameters
    ----------
    maps
        The update maps; ``maps[n - 1]`` is ``T_n``. They must not change their argument.
    theta0
        The start point, of whatever type the maps act on.
    order
        The order of iteration.
    record
        The steps to yield, between 0 and ``len(maps)``; all of them by default.

    Raises
    ------
    ValueError
        If a recorded step lies outside ``0 … len(maps)`` or the order spells an impossible word.
    """
    done, theta = (), theta0
    for step in sorted(check_recorded(record, len(maps))):
        word = order.runs(step)
        rest = _rest(word, done)
        if rest is None:
            theta, rest = theta0, word
        for run in rest:
            for letter in run:
                theta = maps[letter - 1](theta)
        done = word
        yield step, theta


def _rest(word: Word, done: Word) -> list[range] | None:
    """Return what a word has after another one, None if it does not begin with that."""
    rest = list(word)
    for run in done:
        if not rest or rest[0][: len(run)] != run:
            return None
        rest[:1] = filter(None, [rest[0][len(run) :]])
    return rest


def check_recorded(record: Iterable[int] | None, steps: int) -> set[int]:
    """Return the recorded steps as a set, all of ``0 … steps`` if `record` is None.

    Raises
    ------
    ValueError
        If one of them lies outside that range, or is not a whole number.
    """
    if not (record is None or isinstance(record, Iterable)):
        raise ValueError(f"The steps to record must be several, [{record}] say; got {record!r}.")
    recorded = set(range(steps + 1)) if record is None else set(map(_whole, record))
    outside = sorted(n for n in recorded if not 0 <= n <= steps)
    if outside:
        raise ValueError(
            f"Step {outside[0]} cannot be recorded: this run has the steps 0 to {steps}."
        )
    return recorded


def _whole(step: Any) -> int:
    """Return a step as a whole number; ``np.linspace`` gives some that are not of that type."""
    try:
        whole = int(step)
    except (TypeError, ValueError, OverflowError):
        whole = None
    if whole is None or whole != step:
        raise ValueError(f"Step {step} cannot be recorded: steps are whole numbers.")
    return whole
