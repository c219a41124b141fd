"""Drawings that explain, as self-contained SVG text with an animation in CSS.

A drawing is complete and readable where nothing moves: the animation only dims what is still to
come. It is left out on paper, and for readers who ask their system for reduced motion. It uses no
script and loads nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from string import Template

from revlib.figures.colours import BACKWARD, FORWARD, OTHER
from revlib.orders import Node, Order, tree

_BOX = 44  # side of the square that stands for one application of a map
_GAP = 30  # between squares: room for the iterate
_CELL = _BOX + _GAP
_LEFT, _RIGHT, _HEAD, _ROW = 62, 96, 58, 70  # margins, height of a heading, height of a row
_SECONDS = 0.7  # for which one application is shown
_REST = 4  # applications for which the finished drawing stands still

# The colours of the orders in all figures of the book, and a tint of each for what is repeated.
_COLOURS = {"forward": (FORWARD, "#d3e8f5"), "backward": (BACKWARD, "#fbe3d0")}
_OTHER = (OTHER, "#d0efe5")

_STYLE = Template("""\
text { font-family: "DejaVu Sans", Verdana, Arial, sans-serif; font-size: 16px; fill: #222; }
.name { font-size: 18px; font-weight: bold; }
.small { font-size: 14px; }
.index { text-anchor: middle; }
.white { fill: #fff; }
.line { stroke: #777; stroke-width: 2; }
.now { fill: none; stroke: #222; stroke-width: 3; opacity: 0; }
@media screen and (prefers-reduced-motion: no-preference) {
.step { animation: ${seconds}s linear 3 both; }
.now { animation: ${seconds}s step-end 3; }
$keyframes
}""")


def runs(orders: Sequence[Order], steps: int = 4) -> str:
    """Draw how the iterates of some orders are computed: every application of a map is a square.

    What is drawn is the trie of the words that an order spells (:func:`revlib.orders.tree`). Each
    letter is a square: full where the map is applied for the first time, pale where it is applied
    again. An iterate stands as many columns from the left as its word has letters, under the name
    of its step (the first, if it is that of several); a dot without a name is a point on the way,
    which iterates share. What starts where the line before ends goes on in the same line, and
    everything else begins a line of its own. The animation goes through the squares in the order
    of the computation, all orders at one pace.

    Parameters
    ----------
    orders
        The orders, from top to bottom.
    steps
        How many iterates to draw of each.

    Returns
    -------
    str
        An SVG document, with a title and a description for screen readers.
    """
    costs = [order.cost(range(steps + 1)) for order in orders]
    clock = max(costs) + _REST
    width = _LEFT + steps * _CELL + _RIGHT
    parts: list[str] = []
    keyframes: list[str] = []
    top = 10
    for number, (order, cost) in enumerate(zip(orders, costs, strict=True)):
        panel = _Panel(order, f"p{number}", clock)
        top = panel.draw(steps, cost, top)
        parts += panel.lines + panel.parts
        keyframes += panel.keyframes
    top += 34
    names = " and ".join(order.name for order in orders)
    told = " ".join(_described(o, c, steps) for o, c in zip(orders, costs, strict=True))
    style = _STYLE.substitute(seconds=round(clock * _SECONDS, 2), keyframes="\n".join(keyframes))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" '
            f'width="{width}" height="{top}" role="img" aria-label="{escape(told)}">',
            f"<title>How {escape(names)} iterates are computed</title>",
            f"<desc>{escape(told)}</desc>",
            f"<style>\n{style}\n</style>",
            f'<rect width="{width}" height="{top}" rx="8" fill="#fff" stroke="#ccc"/>',
            *parts,
            _key(top - 34),
            "</svg>",
        ]
    )


def _key(y: int) -> str:
    """Return the line that says what full and pale squares mean."""
    square = '<rect x="{}" y="{}" width="16" height="16" rx="3" fill="{}" stroke="#444"/>'
    word = '<text class="small" x="{}" y="{}">{}</text>'
    return "".join(
        square.format(x, y, fill) + word.format(x + 24, y + 13, meaning)
        for x, fill, meaning in ((16, "#444", "first time"), (140, "#e6e6e6", "applied again"))
    )


def _described(order: Order, cost: int, steps: int) -> str:
    """Return in a sentence what a reader of the drawing sees of one order."""
    places = ["iterate 0"]
    words: list[list[int]] = [[]]
    told = []
    for node in tree(order, range(steps + 1))[1:]:
        letters = _letters(node)
        words.append(words[node.parent] + letters)
        goal, place = "what later steps share", f"the point after {_maps(words[-1])}"
        if node.steps:
            first, *others = node.steps
            goal, place = f"step {first}", f"iterate {first}"
            if others:
                goal += f", and also {' and '.join(f'step {n}' for n in others)},"
        told.append(f"{goal} starts at {places[node.parent]} and applies {_maps(letters)}")
        places.append(place)
    return f"{order.name}: {'; '.join(told)}. Together {cost} applications."


def _letters(node: Node) -> list[int]:
    """Return the maps that lead to a node, in the order in which they are applied."""
    return [letter for run in node.runs for letter in run]


def _maps(letters: list[int]) -> str:
    return ", ".join(f"T{i}" for i in letters)


class _Panel:
    """The drawing of one order, collected piece by piece."""

    def __init__(self, order: Order, prefix: str, clock: int):
        self.order = order
        self.prefix = prefix
        self.clock = clock
        self.dark, self.pale = _COLOURS.get(order.name, _OTHER)
        self.parts: list[str] = []
        self.lines: list[str] = []  # below all else
        self.keyframes: list[str] = []
        self.ring: list[str] = []

    def draw(self, steps: int, cost: int, top: int) -> int:
        """Draw all steps below `top`, and return how far down the panel reaches."""
        self.parts.append(
            f'<text class="name" x="14" y="{top + 24}" style="fill:{self.dark}">'
            f"{escape(self.order.name)}: {cost} maps applied</text>"
        )
        nodes = tree(self.order, range(steps + 1))
        columns, used = [0], set()
        y, applied = top + _HEAD - _ROW, 0
        for place, node in enumerate(nodes[1:], 1):
            column = columns[node.parent]
            if place == 1 or node.parent != place - 1:
                y += _ROW
                self._iterate(nodes[node.parent].steps, column, y, applied)
            for i in _letters(node):
                self._square(column, y, i, applied, i not in used)
                column += 1
                applied += 1
                used.add(i)
            columns.append(column)
            self._iterate(node.steps, column, y, applied)
            goes_on = place + 1 < len(nodes) and nodes[place + 1].parent == place
            if not goes_on:
                self._product(column, y, applied)
        self._finish_ring()
        return y + _ROW

    def _iterate(self, steps: list[int], column: int, y: int, applied: int) -> None:
        """Draw a dot where an iterate stands, with its name if it is one of a step."""
        x = _LEFT + column * _CELL - _GAP / 2
        drawn = f'<circle cx="{x:g}" cy="{y + _BOX / 2:g}" r="5" fill="{self.dark}"/>'
        if steps:
            name = f"θ{_superscript(steps[0])}"
            drawn += f'<text class="small index" x="{x:g}" y="{y + 6}">{name}</text>'
        self._appear(applied, drawn)

    def _square(self, column: int, y: int, i: int, applied: int, first: bool) -> None:
        """Draw one application of ``T_i``."""
        x = _LEFT + column * _CELL
        fill, ink = (self.dark, " white") if first else (self.pale, "")
        line = f'<path class="line" d="M{x - _GAP / 2:g} {y + _BOX / 2:g}h{_CELL}"/>'
        self.lines.append(self._from(applied, line))
        self._appear(
            applied,
            f'<rect class="map" x="{x}" y="{y}" width="{_BOX}" height="{_BOX}" rx="6" '
            f'fill="{fill}" stroke="{self.dark}" stroke-width="1.5"/>'
            f'<text class="index{ink}" x="{x + _BOX / 2:g}" y="{y + _BOX / 2 + 6:g}">'
            f'T<tspan dy="4" font-size="12">{i}</tspan></text>',
        )
        share = _percent(applied, self.clock)
        self.ring.append(f"{share} {{ opacity: 1; transform: translate({x}px, {y}px); }}")

    def _product(self, column: int, y: int, applied: int) -> None:
        """Write at the end of a line what has been applied by then."""
        x = _LEFT + column * _CELL + 4
        self._appear(
            applied, f'<text class="small" x="{x}" y="{y + _BOX / 2 + 5:g}">{applied} so far</text>'
        )

    def _appear(self, applied: int, drawn: str) -> None:
        """Add what becomes visible after so many applications."""
        self.parts.append(self._from(applied, drawn))

    def _from(self, applied: int, drawn: str) -> str:
        """Return a group that becomes visible after so many applications."""
        name = f"{self.prefix}-{applied}"
        share = _percent(applied, self.clock)
        frames = f"@keyframes {name} {{ 0%, {share} {{ opacity: 0.12; }}"
        frames += f" {_percent(applied + 0.3, self.clock)}, 100% {{ opacity: 1; }} }}"
        if applied and frames not in self.keyframes:
            self.keyframes.append(frames)
        style = f' class="step" style="animation-name:{name}"' if applied else ""
        return f"<g{style}>{drawn}</g>"

    def _finish_ring(self) -> None:
        """Add the ring around the map that is being applied, which only moving pictures show."""
        name = f"{self.prefix}-now"
        self.keyframes.append(
            f"@keyframes {name} {{ {' '.join(self.ring)} "
            f"{_percent(len(self.ring), self.clock)}, 100% {{ opacity: 0; }} }}"
        )
        self.parts.append(
            f'<rect class="now" style="animation-name:{name}" x="-3" y="-3" '
            f'width="{_BOX + 6}" height="{_BOX + 6}" rx="8"/>'
        )


def _percent(applied: float, clock: int) -> str:
    return f"{100 * applied / clock:.2f}%"


def _superscript(n: int) -> str:
    return "⁽" + "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(n)) + "⁾"
