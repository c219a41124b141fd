"""The drawing of how iterates are computed says what the definition does."""

import re
import xml.etree.ElementTree as ET

import pytest

from revlib import orders
from revlib.figures import drawings

SVG = "{http://www.w3.org/2000/svg}"
ORDERS = [
    *(orders.forward(), orders.backward(), orders.windowed(2), orders.switch(3), orders.reset(3)),
    *(orders.tail(2), orders.tail(1)),
]


def squares(root):
    """Return (column's x, row's y, index of the map) of each drawn application, in order."""
    found = []
    for group in root.iter(f"{SVG}g"):
        box = group.find(f"{SVG}rect[@class='map']")
        if box is not None:
            index = int(group.find(f".//{SVG}tspan").text)
            found.append((float(box.get("x")), float(box.get("y")), index, box.get("fill")))
    return found


def dots(root):
    """Return (x, y, name or None) of each dot, in order."""
    found = []
    for group in root.iter(f"{SVG}g"):
        dot = group.find(f"{SVG}circle")
        if dot is not None:
            name = group.find(f"{SVG}text")
            place = float(dot.get("cx")), float(dot.get("cy"))
            found.append((*place, None if name is None else name.text))
    return found


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_along_the_lines_one_reads_the_word_of_each_iterate(order):
    """From dot to dot: where a line begins, its first dot is one that was drawn before."""
    root = ET.fromstring(drawings.runs([order], 5))
    boxes, words = squares(root), {}
    for y in dict.fromkeys(y for _, y, _ in dots(root)):
        line = sorted(dot for dot in dots(root) if dot[1] == y)
        start, word = line[0], None
        for x, _, name in line:
            if x == start[0]:
                word = words.setdefault((x, name), [])
                continue
            between = [box for box in boxes if start[0] < box[0] < x and start[1] == box[1] + 22]
            word = word + [index for _, _, index, _ in sorted(between)]
            assert (x, name) not in words
            words[x, name] = word
            start = (x, y)
    found = {name: word for (_, name), word in words.items() if name}
    assert found == {f"θ⁽{s}⁾": order.applied(n) for n, s in enumerate("⁰¹²³⁴⁵")}


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_the_squares_are_the_applications_and_none_hides_another(order):
    drawn = squares(ET.fromstring(drawings.runs([order], 5)))
    walked = [i for node in orders.tree(order, range(6)) for run in node.runs for i in run]
    assert [index for _, _, index, _ in drawn] == walked
    assert len({(x, y) for x, y, *_ in drawn}) == len(drawn) == order.cost(range(6))


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
        places = {}
        for x, _, name in dots(ET.fromstring(drawings.runs([order], 5))):
            places.setdefault(name, set()).add(x)
        columns = [places[f"θ⁽{n}⁾"] for n in "⁰¹²³⁴⁵"]
        assert all(len(column) == 1 for column in columns)
        xs = [x for (x,) in columns]
        assert xs == [xs[0] + n * (xs[1] - xs[0]) for n in range(6)]


def test_a_point_that_iterates_share_has_a_dot_without_a_name():
    names = [name for _, _, name in dots(ET.fromstring(drawings.runs([orders.tail(2)], 4)))]
    first, second = ["θ⁽⁰⁾", "θ⁽¹⁾"], ["θ⁽⁰⁾", "θ⁽²⁾"]
    assert names == [*first, *second, "θ⁽⁰⁾", None, "θ⁽³⁾", None, "θ⁽⁴⁾"]
    text = ET.fromstring(drawings.runs([orders.tail(2)], 4)).find(f"{SVG}desc").text
    assert text == (
        "tail(2): step 1 starts at iterate 0 and applies T1; step 2 starts at iterate 0 and "
        "applies T2, T1; what later steps share starts at iterate 0 and applies T3; step 3 starts "
        "at the point after T3 and applies T2, T1; step 4 starts at the point after T3 and applies "
        "T4, T2, T1. Together 9 applications."
    )


def test_iterates_with_equal_words_are_one():
    odd = orders.Order("odd", lambda n: [range(1, n + 1, 2)], permutation=False)
    root = ET.fromstring(drawings.runs([odd], 4))
    assert [name for _, _, name in dots(root)] == ["θ⁽⁰⁾", "θ⁽¹⁾", "θ⁽³⁾"]
    assert (
        "step 1, and also step 2, starts at iterate 0 and applies T1"
        in root.find(f"{SVG}desc").text
    )


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


def test_nothing_is_dimmed_or_moves_on_paper_or_where_motion_is_not_welcome():
    style = ET.fromstring(drawings.runs(ORDERS, 4)).find(f"{SVG}style").text
    motion = "@media screen and (prefers-reduced-motion: no-preference) {"
    still, _, moving = style.partition(motion)
    assert "animation" not in still
    assert "keyframes" not in still
    named = set(re.findall(r"animation-name:([\w-]+)", drawings.runs(ORDERS, 4)))
    assert named == set(re.findall(r"@keyframes ([\w-]+)", moving))


def test_names_are_escaped():
    order = orders.Order("a < b & c", orders.forward().word)
    root = ET.fromstring(drawings.runs([order], 2))
    assert "a < b & c: 2 maps applied" in "".join(root.itertext())
