"""What rounding explains is measured, and nothing more is allowed."""

import numpy as np
import pytest

from revlib.runs import audits

KEY = {"seed": 0, "order": "forward", "step": 5}


def equal(stored, again, *moved, quantity="test_loss"):
    [row] = audits.compared(
        KEY, {quantity: stored}, {quantity: again}, [{quantity: value} for value in moved]
    )
    assert {name: row[name] for name in KEY} == KEY
    return row["equal"]


def test_ten_times_the_largest_difference_is_allowed():
    assert equal(1.09, 1.0, 1.0, 1.01, 1.0)
    assert not equal(1.11, 1.0, 1.0, 1.01, 1.0)


def test_where_rounding_does_nothing_a_difference_in_the_sixth_digit_is_allowed():
    assert equal(1.0000009, 1.0, 1.0)
    assert not equal(1.000002, 1.0, 1.0)
    assert equal(1.0000009e-4, 1e-4)
    assert equal(0.801, 0.8, 0.8, quantity="test_accuracy")
    assert not equal(0.803, 0.8, 0.8, quantity="test_accuracy")


def test_a_row_that_diverged_is_found_again_where_it_diverges_again():
    assert equal(np.nan, np.nan, np.nan)
    assert equal(np.inf, np.inf, np.inf)
    assert not equal(1.0, np.nan, np.nan)
    assert not equal(np.nan, 1.0, 1.0)


def test_a_quantity_that_one_side_lacks_is_not_equal():
    rows = audits.compared(KEY, {"old": 1.0}, {"new": 1.0}, [])
    assert {row["quantity"]: row["equal"] for row in rows} == {"old": False, "new": False}


def test_a_draw_can_be_repeated():
    draw, chance = audits.drawn(None)
    assert audits.drawn(draw)[1].random() == chance.random()
    assert audits.drawn(7)[0] == 7


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_differences_may_be_zero_or_negative(value):
    assert equal(value, value)
    assert not equal(value + 0.01, value)
