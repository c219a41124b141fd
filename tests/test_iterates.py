"""The definition of iterates, on maps that spell out how they were composed."""

import numpy as np
import pytest
from cases import any_order
from hypothesis import given
from hypothesis import strategies as st

from revlib import Order, backward, forward, iterates, reset, switch, tail, windowed
from revlib.training.maps import Affine, Constant


def spelling(length):
    """Maps that write their number in front: the state is then the composition, spelled out."""
    return [lambda text, n=n: f"{n} {text}" for n in range(1, length + 1)]


def spelled(order, length, record=None):
    return dict(iterates(spelling(length), "x", order, record))


def test_forward_applies_the_newest_map_last():
    assert spelled(forward(), 3) == {0: "x", 1: "1 x", 2: "2 1 x", 3: "3 2 1 x"}


def test_backward_applies_the_newest_map_first():
    assert spelled(backward(), 3) == {0: "x", 1: "1 x", 2: "1 2 x", 3: "1 2 3 x"}


def test_windowed_is_backward_inside_and_forward_between():
    assert spelled(windowed(2), 5) == {
        0: "x",
        1: "1 x",
        2: "1 2 x",
        3: "3 1 2 x",
        4: "3 4 1 2 x",
        5: "5 3 4 1 2 x",
    }


def test_reset_starts_from_the_iterate_that_was_reached():
    assert spelled(reset(2), 4, [4]) == {4: "3 4 1 2 x"}


def test_switch_goes_backward_from_the_forward_iterate():
    assert spelled(switch(2), 4, [2, 4]) == {2: "2 1 x", 4: "3 4 2 1 x"}


def test_tail_ends_with_the_same_maps_at_every_step():
    assert spelled(tail(2), 5) == {
        0: "x",
        1: "1 x",
        2: "1 2 x",
        3: "1 2 3 x",
        4: "1 2 4 3 x",
        5: "1 2 5 4 3 x",
    }


def test_maps_may_be_left_out():
    newest = Order("newest", lambda n: [n], permutation=False)
    assert spelled(newest, 3) == {0: "x", 1: "1 x", 2: "2 x", 3: "3 x"}


def test_an_impossible_word_is_refused():
    odd = Order("odd", lambda n: [range(2, n + 1)])
    with pytest.raises(ValueError, match="order 'odd' at step 3 leaves out 1; it must hold each"):
        list(iterates(spelling(3), "x", odd, [3]))


@given(any_order, st.sets(st.integers(0, 12)))
def test_a_subset_equals_the_whole(order, record):
    whole = spelled(order, 12)
    assert spelled(order, 12, record) == {n: whole[n] for n in sorted(record)}


@given(any_order)
def test_steps_come_ascending_and_each_iterate_uses_each_map_once(order):
    reached = list(iterates(spelling(9), "x", order))
    assert [n for n, _ in reached] == list(range(10))
    for n, text in reached:
        assert sorted(text.split()[:-1]) == sorted(str(t) for t in range(1, n + 1))


@pytest.mark.parametrize("outside", [-1, 4])
def test_steps_outside_the_run_are_refused(outside):
    with pytest.raises(ValueError, match=f"Step {outside} cannot .* steps 0 to 3"):
        list(iterates(spelling(3), "x", forward(), [1, outside]))


def test_example_2_4_forward_jumps_and_backward_stops():
    maps = [Constant(float(n % 2)) for n in range(1, 9)]
    jumping = [theta for n, theta in iterates(maps, 0.5, forward()) if n]
    stopped = [theta for n, theta in iterates(maps, 0.5, backward()) if n]
    assert jumping == [1.0, 0.0] * 4
    assert stopped == [1.0] * 8


def test_affine_maps_compose_like_matrices():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 3, 3)), rng.normal(size=(5, 3))
    theta0 = rng.normal(size=3)
    maps = [Affine(*pair) for pair in zip(a, b, strict=True)]
    product, shift = np.eye(3), np.zeros(3)
    for n, theta in iterates(maps, theta0, backward()):
        np.testing.assert_allclose(theta, product @ theta0 + shift, rtol=1e-12)
        if n < 5:
            shift = shift + product @ b[n]
            product = product @ a[n]
