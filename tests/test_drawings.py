"""The drawing of how iterates are computed says what the definition does."""

import re
import xml.etree.ElementTree as ET

import pytest

from revlib import orders
from revlib.figures import drawings
from revlib.iterates import iterates

SVG = "{http://www.w3.org/2000/svg}"
ORDERS = [orders.forward(), orders.backward(), orders.windowed(2), orders.switch(3)]


def squares(root):
    """Return (column's x, row's y, index of the map) of each drawn application, in order."""
    found = []
    for group in root.iter(f"{SVG}g"):
        box = group.find(f"{SVG}rect[@class='map']")
        if box is not None:
            index = int(group.find(f".//{SVG}tspan").text)
            found.append((float(box.get("x")), float(box.get("y")), index, box.get("fill")))
    return found


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_the_squares_are_the_applications_in_their_order(order):
    applied = []
    maps = [lambda theta, i=i: applied.append(i) or theta for i in range(1, 6)]
    list(iterates(maps, 0, order))
    drawn = squares(ET.fromstring(drawings.runs([order], 5)))
    assert [index for _, _, index, _ in drawn] == applied
    assert len({(x, y) for x, y, *_ in drawn}) == len(drawn)  # none hides another


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_full_squares_are_first_applications(order):
    drawn = squares(ET.fromstring(drawings.runs([order], 5)))
    seen, full, pale = set(), set(), set()
    for _, _, index, fill in drawn:
        (pale if index in seen else full).add(fill)
        seen.add(index)
    assert len(full) == 1
    assert not full & pale


def test_an_iterate_stands_as_many_columns_from_the_left_as_it_has_maps():
    for order in ORDERS:
        root = ET.fromstring(drawings.runs([order], 5))
        places = {}
        for group in root.iter(f"{SVG}g"):
            dot = group.find(f"{SVG}circle")
            if dot is not None:
                places.setdefault(group.find(f"{SVG}text").text, set()).add(float(dot.get("cx")))
        columns = [places[f"θ⁽{n}⁾"] for n in "⁰¹²³⁴⁵"]
        assert all(len(column) == 1 for column in columns)
        xs = [x for (x,) in columns]
        assert xs == [xs[0] + n * (xs[1] - xs[0]) for n in range(6)]


def test_costs_are_written_out():
    text = "".join(ET.fromstring(drawings.runs(ORDERS[:2], 4)).itertext())
    assert "forward: 4 maps applied" in text
    assert "backward: 10 maps applied" in text


def test_it_stands_alone_and_speaks_to_screen_readers():
    text = drawings.runs(ORDERS, 4)
    root = ET.fromstring(text)
    assert root.get("role") == "img"
    assert root[0].tag == f"{SVG}title"
    assert "step 4 starts at iterate 0 and applies T4, T3, T2, T1" in root.get("aria-label")
    assert "<script" not in text
    assert re.findall(r"https?://[^\"]*", text) == ["http://www.w3.org/2000/svg"]


def test_nothing_is_dimmed_or_moves_unless_motion_is_welcome():
    style = ET.fromstring(drawings.runs(ORDERS, 4)).find(f"{SVG}style").text
    still, _, moving = style.partition("@media (prefers-reduced-motion: no-preference) {")
    assert "animation" not in still
    assert "keyframes" not in still
    named = set(re.findall(r"animation-name:([\w-]+)", drawings.runs(ORDERS, 4)))
    assert named == set(re.findall(r"@keyframes ([\w-]+)", moving))


def test_names_are_escaped():
    order = orders.Order("a < b & c", lambda n: n - 1)
    root = ET.fromstring(drawings.runs([order], 2))
    assert "a < b & c: 2 maps applied" in "".join(root.itertext())
