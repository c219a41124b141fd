"""The definition of an order's iterates in plain code: what every faster path is tested against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from revlib.orders import Order

State = TypeVar("State")


def iterates(
    maps: Sequence[Callable[[State], State]],
    theta0: State,
    order: Order,
    record: Iterable[int] | None = None,
) -> Iterator[tuple[int, State]]:
    """Yield ``(n, theta(n))`` for the recorded steps n, ascending.

    ``theta(n) = T_{a+1} … T_n (theta(a))`` with the anchor ``a = order.anchor(n)`` and ``T_n``
    applied first (see :mod:`revlib.orders`).

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
        If a recorded step lies outside ``0 … len(maps)`` or the order has an impossible anchor.
    """
    recorded = check_recorded(record, len(maps))
    needed = order.closure(recorded)
    uses = Counter(order.anchor(n) for n in needed)
    anchors = {0: theta0}
    if 0 in recorded:
        yield 0, theta0
    for n in needed:
        a = order.anchor(n)
        theta = anchors[a]
        for t in range(n, a, -1):
            theta = maps[t - 1](theta)
        uses[a] -= 1
        if not uses[a]:  # nothing starts from there any more: a forward run keeps one state
            del anchors[a]
        if uses[n]:
            anchors[n] = theta
        if n in recorded:
            yield n, theta


def check_recorded(record: Iterable[int] | None, steps: int) -> set[int]:
    """Return the recorded steps as a set, all of ``0 … steps`` if `record` is None.

    Raises
    ------
    ValueError
        If one of them lies outside that range.
    """
    recorded = set(range(steps + 1)) if record is None else set(record)
    outside = sorted(n for n in recorded if not 0 <= n <= steps)
    if outside:
        raise ValueError(
            f"Step {outside[0]} cannot be recorded: this run has the steps 0 to {steps}."
        )
    return recorded
