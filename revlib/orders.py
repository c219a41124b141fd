"""Orders of iteration, each written as one rule: the choice of an anchor.

Let ``T_1, T_2, …`` be the update maps of a training run and ``theta(0)`` its start. An order
assigns to every step ``n >= 1`` an *anchor* ``a(n) < n``, and the iterate at step n is

    theta(n) = T_{a+1} T_{a+2} … T_n (theta(a)),    a = a(n),

where ``T_n`` is applied first. Forward iteration is ``a(n) = n - 1``; the paper's backward
iteration (Section 1) is ``a(n) = 0``. The variants of Figures 3, 10 and 13 and of Section 5 are
other choices of the same rule.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Order:
    """An order of iteration: a name and its anchor rule.

    A new order needs one function, for example the backward order that starts afresh at powers
    of two: ``Order("doubling", lambda n: 1 << ((n - 1).bit_length() - 1) if n > 1 else 0)``.

    Parameters
    ----------
    name
        How the order is called in tables and figures. Results are stored under this name.
    anchor
        Maps a step ``n >= 1`` to its anchor, an integer with ``0 <= anchor(n) < n``.
    """

    name: str
    anchor: Callable[[int], int]

    def __str__(self) -> str:
        """Return the name."""
        return self.name

    def closure(self, recorded: Iterable[int]) -> list[int]:
        """Return the steps that have to be computed, ascending, so that `recorded` can be.

        These are the recorded steps themselves, their anchors, the anchors of those, and so on
        down to step 0, which is left out because it is given.

        Raises
        ------
        ValueError
            If a recorded step is negative or an anchor does not lie below its step.
        """
        pending = list(recorded)
        reached: set[int] = set()
        while pending:
            n = pending.pop()
            if n < 0:
                raise ValueError(f"Step {n} cannot be recorded: steps are counted from 0.")
            if n == 0 or n in reached:
                continue
            reached.add(n)
            anchor = self.anchor(n)
            if not 0 <= anchor < n:
                raise ValueError(
                    f"The order '{self.name}' gives step {n} the anchor {anchor}; "
                    f"an anchor must lie between 0 and {n - 1}."
                )
            pending.append(anchor)
        return sorted(reached)

    def applied(self, step: int) -> list[int]:
        """Return which maps make the iterate at a step from theta(0), in order of application."""
        replays: list[range] = []
        while step > 0:
            anchor = self.anchor(step)
            replays.append(range(step, anchor, -1))
            step = anchor
        return [n for replay in reversed(replays) for n in replay]

    def cost(self, recorded: Iterable[int]) -> int:
        """Return how many map applications it takes to compute the iterates at `recorded`.

        Every iterate that is needed is computed once from its anchor, at ``n - anchor(n)``
        applications. All steps up to N cost N forward and N(N+1)/2 backward (Section 1).
        """
        return sum(n - self.anchor(n) for n in self.closure(recorded))

    def digest(self, steps: int) -> str:
        """Return a short hash of the anchors of steps 1 to `steps`.

        Two orders with the same digest give the same iterates, whatever they are called.
        """
        anchors = ",".join(str(self.anchor(n)) for n in range(1, steps + 1))
        return hashlib.sha256(anchors.encode()).hexdigest()[:16]


def forward() -> Order:
    """Ordinary training: every new map is applied last, ``a(n) = n - 1`` (Section 1)."""
    return Order("forward", lambda n: n - 1)


def backward() -> Order:
    """Training in reverse: the new map is applied first, ``a(n) = 0`` (Section 1)."""
    return Order("backward", lambda n: 0)


def windowed(size: int) -> Order:
    """Backward inside windows of `size` steps, forward from window to window (Section 5).

    ``a(n) = size * floor((n - 1) / size)``. A window of 1 is the forward order, a window as long
    as the run the backward one.
    """
    _positive("A window's size", size)
    return Order(f"windowed({size})", lambda n: (n - 1) // size * size)


def reset(*at: int) -> Order:
    """Backward, from a start point that is moved to the iterate reached at each of `at`.

    ``a(n)`` is the last reset before n, or 0 (Figures 3 and 13: ``reset(1000)``).
    """
    for step in at:
        _positive("A reset", step)
    points = sorted({0, *at})
    return Order(
        f"reset({', '.join(str(p) for p in points[1:])})",
        lambda n: max(p for p in points if p < n),
    )


def switch(at: int) -> Order:
    """Forward up to step `at`, backward from there on (Figure 10 and Section 5)."""
    _positive("A switch", at)
    return Order(f"switch({at})", lambda n: n - 1 if n <= at else at)


def _positive(what: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{what} must be a whole number of steps, 1 or more; got {value!r}.")
