"""Orders of iteration, each written as one rule: the word that it spells at every step.

Let ``T_1, T_2, …`` be the update maps of a training run and ``theta(0)`` its start. An order says
for every step ``n >= 1`` which maps make the iterate at that step, and in which sequence: a *word*
over the letters ``1 … n``, written in order of application. Forward iteration spells ``1 2 … n``;
the paper's backward iteration (Section 1) spells ``n … 2 1``. The variants of Figures 3, 10 and 13
and of Section 5 are other words by the same rule.

Words are runs of letters up or down, and Python's ``range`` is such a run: a word of 25,000 letters
is a few numbers. Iterates whose words begin alike share the way. So what it takes to compute them
is the *trie* of their words (:func:`tree`), and the cost is the number of its letters.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import operator
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Word = tuple[range, ...]
"""Runs of letters, each up or down by 1, in order of application."""


@dataclass(frozen=True)
class Order:
    """An order of iteration: a name, and the word that it spells at each step.

    A new order needs one function. Forward, but for the newest map, which comes first::

        Order("newest first", lambda n: [n, range(1, n)])

    Parameters
    ----------
    name
        How the order is called in tables and figures. Results are stored under this name.
    word
        Maps a step ``n >= 1`` to its word, first applied first: numbers of maps, and ranges of
        them; the same each time.
    permutation
        Whether each word holds all of the letters ``1 … n``. An order that leaves some out has to
        say so.

    Raises
    ------
    ValueError
        If the word is no function.
    """

    name: str
    word: Callable[[int], Iterable[range | int]]
    permutation: bool = True

    def __post_init__(self) -> None:
        if not callable(self.word):
            raise ValueError(
                f"The word of the order '{self.name}' must be a function of the step, such as "
                f"lambda n: [n, range(1, n)]; got {self.word!r}."
            )

    def __str__(self) -> str:
        """Return the name."""
        return self.name

    def runs(self, step: int) -> Word:
        """Return the word of a step as runs; the same runs however the rule spells it.

        Raises
        ------
        ValueError
            If the step is negative or the word is impossible: a letter outside ``1 … step``, a
            letter twice, or, in an order of permutations, a letter that is missing; if it is no
            word, or another one each time.
        """
        if step < 0:
            raise ValueError(f"Step {step} cannot be recorded: steps are counted from 0.")
        runs = self._spelled(step) if step else ()
        ends = sorted((min(run[0], run[-1]), max(run[0], run[-1])) for run in runs)
        wrong = None
        if ends and not (ends[0][0] >= 1 and ends[-1][1] <= step):
            wrong = f"holds {ends[0][0] if ends[0][0] < 1 else ends[-1][1]}"
        for (_, last), (first, _) in pairwise(ends):
            if first <= last:
                wrong = wrong or f"holds {first} twice"
            elif first > last + 1 and self.permutation:
                wrong = wrong or f"leaves out {last + 1}"
        if self.permutation and step and not wrong and (not ends or ends[0][0] > 1):
            wrong = "leaves out 1"
        if self.permutation and step and not wrong and ends[-1][1] < step:
            wrong = f"leaves out {step}"
        if wrong:
            raise ValueError(
                f"The word of the order '{self.name}' at step {step} {wrong}; it must hold "
                f"{'each' if self.permutation else 'none but'} of the maps 1 to {step}"
                f"{' once.' if self.permutation else ', each at most once.'}"
            )
        return runs

    def _spelled(self, step: int) -> Word:
        """Return the word of a step as it is spelled twice."""
        try:
            runs, again = (_joined(self.word(step)) for _ in range(2))
        except Exception as error:
            raise ValueError(
                f"The order '{self.name}' spells no word at step {step} ({type(error).__name__}: "
                f"{error}). A word is a list of whole numbers and ranges, such as [n, range(1, n)]."
            ) from error
        if runs != again:
            raise ValueError(
                f"The order '{self.name}' spells another word each time at step {step}. Let it "
                "depend on the step alone: draw at random from random.Random(n), say."
            )
        return runs

    def applied(self, step: int) -> list[int]:
        """Return which maps make the iterate at a step from theta(0), in order of application."""
        return [letter for run in self.runs(step) for letter in run]

    def cost(self, recorded: Iterable[int]) -> int:
        """Return how many map applications it takes to compute the iterates at `recorded`.

        What several words begin with is computed once. All steps up to N cost N forward and
        N(N+1)/2 backward (Section 1).
        """
        return sum(len(run) for node in tree(self, recorded) for run in node.runs)

    def digest(self, recorded: Iterable[int]) -> str:
        """Return a short hash of the words at some steps.

        Two orders with the same digest give the same iterates there, whatever they are called.
        """
        words = ((n, [(run[0], run[-1]) for run in self.runs(n)]) for n in sorted(recorded))
        return hashlib.sha256(repr(list(words)).encode()).hexdigest()[:16]


def forward() -> Order:
    """Ordinary training: ``1 2 … n``, every new map is applied last (Section 1)."""
    return Order("forward", lambda n: [range(1, n + 1)])


def backward() -> Order:
    """Training in reverse: ``n … 2 1``, the new map is applied first (Section 1)."""
    return Order("backward", lambda n: [range(n, 0, -1)])


def windowed(size: int) -> Order:
    """Backward inside windows of `size` steps, forward from window to window (Section 5).

    ``w … 1 · 2w … w+1 · …``, and the last window from n down. A window of 1 is the forward order,
    a window as long as the run the backward one.
    """
    size = whole("A window's size", size, 1)
    return Order(f"windowed({size})", lambda n: _backward_between(range(0, n, size), n))


def reset(*at: int) -> Order:
    """Backward, from a start point that is moved to the iterate reached at each of `at`.

    ``r … 1 · n … r+1`` after a reset at r (Figures 3 and 13: ``reset(1000)``).
    """
    at = tuple(whole("A reset", step, 1) for step in at)
    points = sorted({0, *at})
    return Order(
        f"reset({', '.join(str(p) for p in points[1:])})",
        lambda n: _backward_between([p for p in points if p < n], n),
    )


def switch(at: int) -> Order:
    """Forward up to step `at`, backward from there on (Figure 10 and Section 5).

    ``1 2 … r · n … r+1``.
    """
    at = whole("A switch", at, 1)
    return Order(
        f"switch({at})",
        lambda n: [range(1, n + 1)] if n <= at else [range(1, at + 1), range(n, at, -1)],
    )


def tail(length: int) -> Order:
    """Forward, with a fixed ending: the first `length` maps, always last, in the same sequence.

    ``m+1 … n · m … 2 1``. Up to step m it is the backward order. After it, what comes before the
    ending lies on one forward path, which takes N - m maps up to step N, and each step recorded
    there takes m more.
    """
    length = whole("A tail's length", length, 1)
    return Order(
        f"tail({length})",
        lambda n: [range(length + 1, n + 1), range(min(length, n), 0, -1)],
    )


def reshuffled_tail(length: int) -> Order:
    """Forward, with the first `length` maps always last, in a sequence drawn anew at every step.

    What :func:`tail` would be without the fixed sequence.
    """
    length = whole("A tail's length", length, 1)

    def word(n: int) -> Iterator[range | int]:
        last = range(1, min(length, n) + 1)
        yield range(length + 1, n + 1)
        yield from random.Random(n).sample(last, len(last))

    return Order(f"reshuffled_tail({length})", word)


def newest_tail(length: int) -> Order:
    """Forward, with the newest `length` maps last, from the newest down.

    ``1 … n-m · n … n-m+1``: what :func:`tail` would be if its maps did not stay the same.
    """
    length = whole("A tail's length", length, 1)
    return Order(
        f"newest_tail({length})",
        lambda n: [range(1, n - length + 1), range(n, max(n - length, 0), -1)],
    )


_MAKERS = (
    forward,
    backward,
    windowed,
    reset,
    switch,
    tail,
    reshuffled_tail,
    newest_tail,
)

MAKERS = {make.__name__: make for make in _MAKERS}
"""What makes the orders of this module, by name."""


def named(name: str) -> Order:
    """Return the order that is called so: ``named("windowed(50)")``.

    Raises
    ------
    ValueError
        If no order of this module is.
    """
    parts = re.fullmatch(r"(\w+)(?:\((\d+(?:, *\d+)*)?\))?", name)
    if parts and parts[1] in MAKERS:
        with contextlib.suppress(TypeError):  # another number of numbers
            return _made(MAKERS[parts[1]], *map(int, filter(None, (parts[2] or "").split(","))))
    raise ValueError(
        f"There is no order '{name}'. Valid are: forward, backward, windowed(50), reset(1000), "
        "switch(1000), tail(50), reshuffled_tail(50) and newest_tail(50), with any numbers."
    )


@functools.cache
def _made(maker: Callable[..., Order], *numbers: int) -> Order:
    return maker(*numbers)


@dataclass
class Node:
    """A node of a trie: an iterate that is computed.

    Parameters
    ----------
    parent
        The place of the node that it is computed from, which stands before it in the list.
    runs
        The letters from there to here.
    steps
        The recorded steps whose iterate it is, ascending; none for one that others only start from.
    """

    parent: int
    runs: Word
    steps: list[int]


def tree(order: Order, recorded: Iterable[int]) -> list[Node]:
    """Return the trie of an order's words at the recorded steps.

    Returns
    -------
    list of Node
        First the root, the start point, which is its own parent. Then every node after its parent,
        as a walk meets them that goes into depth and into the largest branch last. So the states to
        which a walk has to return are few: no more at a time than the logarithm of their number.
    """
    root = _Branch(range(0))
    # From the longest on, since then each word that others go on from is found at once.
    for step in sorted(set(recorded), reverse=True):
        root.spell(order.runs(step), step)
    root.measure()
    nodes: list[Node] = []
    pending = [(root, 0)]
    while pending:
        branch, parent = pending.pop()
        runs = [branch.run] if branch.run else []
        while not branch.steps and len(branch.children) == 1 and branch is not root:
            [branch] = branch.children.values()  # nothing ends or divides here
            runs.append(branch.run)
        children = sorted(branch.children.values(), key=lambda c: (c.size, c.first), reverse=True)
        pending += [(child, len(nodes)) for child in children]
        nodes.append(Node(parent, tuple(runs), sorted(branch.steps)))
    return nodes


@dataclass
class _Branch:
    """A branch of a trie in the making: a run of letters, and what comes after it."""

    run: range
    steps: list[int] = field(default_factory=list)
    children: dict[int, _Branch] = field(default_factory=dict)
    size: int = 0
    first: int = 0

    def spell(self, runs: Word, step: int) -> None:
        """Let the word of a step grow from here."""
        branch = self
        for run in runs:
            while run:
                child = branch.children.get(run[0])
                if child is None:
                    child = branch.children[run[0]] = _Branch(run)
                common = _common(child.run, run)
                if common < len(child.run):
                    rest = _Branch(child.run[common:], child.steps, child.children)
                    child.run, child.steps = child.run[:common], []
                    child.children = {rest.run[0]: rest}
                branch, run = child, run[common:]
        branch.steps.append(step)

    def measure(self) -> None:
        """Note for each branch how many nodes are on it, and the first step that they reach."""
        branches = [self]
        for branch in branches:
            branches += branch.children.values()
        for branch in reversed(branches):
            children = branch.children.values()
            branch.size = sum(child.size for child in children)
            branch.size += bool(branch.steps) or len(children) != 1
            branch.first = min([*branch.steps, *(child.first for child in children)], default=0)


def _common(one: range, other: range) -> int:
    """Return how many letters two runs with the same first letter begin with alike."""
    shorter = min(len(one), len(other))
    return shorter if shorter == 1 or one.step == other.step else 1


def _joined(pieces: Iterable[range | int]) -> Word:
    """Return a word in as few runs as it has."""
    runs: list[range] = []
    for piece in pieces:
        if not isinstance(piece, range):
            piece = range(operator.index(piece), operator.index(piece) + 1)
        for run in [piece] if piece.step in (1, -1) else (range(n, n + 1) for n in piece):
            if not run:
                continue
            before = runs[-1] if runs else range(0)
            gap = run[0] - before[-1] if before else 0
            if gap in (1, -1) and all(gap == r.step or len(r) == 1 for r in (before, run)):
                runs[-1] = range(before[0], run[-1] + gap, gap)
            else:
                runs.append(run)
    return tuple(range(run[0], run[0] + 1) if len(run) == 1 else run for run in runs)


def _backward_between(points: Iterable[int], end: int) -> Iterator[range]:
    """Yield runs down between ascending points, and from the end down to the last of them."""
    yield from (range(high, low, -1) for low, high in pairwise([*points, end]))


def whole(what: str, value: Any, at_least: int) -> int:
    """Return a whole number, of whatever kind it is (of NumPy's or torch's, say).

    Raises
    ------
    ValueError
        If it is none, or smaller than it may be.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if isinstance(value, bool) or number < at_least:
        raise ValueError(f"{what} must be a whole number, {at_least} or more; got {value!r}.")
    return number
