"""Orders as anchors: their rules, their costs, and how they relate."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revlib import Order, backward, forward, reset, switch, windowed

steps = st.integers(1, 60)
recorded = st.sets(st.integers(0, 60), max_size=12)
orders = st.one_of(
    st.just(forward()),
    st.just(backward()),
    st.builds(windowed, steps),
    st.lists(steps, max_size=4).map(lambda at: reset(*at)),
    st.builds(switch, steps),
)


def anchors(order, length=60):
    return [order.anchor(n) for n in range(1, length + 1)]


@given(orders)
def test_anchors_lie_below_their_steps(order):
    assert all(0 <= order.anchor(n) < n for n in range(1, 61))


@given(steps)
def test_windowed_is_the_rule_of_section_5(size):
    assert anchors(windowed(size)) == [size * ((n - 1) // size) for n in range(1, 61)]
    assert anchors(windowed(size)) == anchors(reset(*range(size, 61, size)))


def test_forward_and_backward_are_the_extreme_windows():
    assert anchors(forward()) == anchors(windowed(1)) == list(range(60))
    assert anchors(backward()) == anchors(windowed(60)) == [0] * 60


def test_reset_moves_the_anchor_to_the_last_reset():
    assert anchors(reset(3, 5), 7) == [0, 0, 0, 3, 3, 5, 5]
    assert anchors(reset()) == anchors(backward())


def test_switch_is_forward_first():
    assert anchors(switch(3), 6) == [0, 1, 2, 3, 3, 3]


@given(orders, recorded)
def test_closure_holds_every_anchor_that_is_needed_and_nothing_else(order, chosen):
    closure = order.closure(chosen)
    assert closure == sorted(set(closure))
    assert chosen - {0} <= set(closure)
    for n in closure:
        assert order.anchor(n) == 0 or order.anchor(n) in closure
        assert n in chosen or any(order.anchor(m) == n for m in closure)


@given(orders, recorded)
def test_cost_counts_every_iterate_once(order, chosen):
    def chain(n):
        return {n} | chain(order.anchor(n)) if n else set()

    computed = set().union(*map(chain, chosen))
    assert order.cost(chosen) == sum(n - order.anchor(n) for n in computed)


@given(steps)
def test_cost_of_whole_runs(length):
    everything = range(length + 1)
    assert forward().cost(everything) == length
    assert backward().cost(everything) == length * (length + 1) // 2
    assert forward().cost([length]) == backward().cost([length]) == length


@given(steps, st.integers(1, 8))
def test_cost_of_windows(size, windows):
    assert windowed(size).cost(range(size * windows + 1)) == windows * size * (size + 1) // 2


def test_a_new_order_is_one_function():
    doubling = Order("doubling", lambda n: 1 << (n - 1).bit_length() - 1 if n > 1 else 0)
    assert anchors(doubling, 9) == [0, 1, 2, 2, 4, 4, 4, 4, 8]
    assert doubling.cost([9]) == 9


@given(orders, orders)
def test_digest_tells_rules_apart(one, other):
    assert (one.digest(60) == other.digest(60)) == (anchors(one) == anchors(other))


@pytest.mark.parametrize("anchor", [lambda n: n, lambda n: n + 1, lambda n: -1])
def test_an_anchor_not_below_its_step_is_refused(anchor):
    with pytest.raises(ValueError, match=r"'odd' gives step 4 the anchor .* between 0 and 3"):
        Order("odd", anchor).cost([4])


@pytest.mark.parametrize("make", [windowed, switch, reset])
@pytest.mark.parametrize("value", [0, -3, 2.5])
def test_sizes_must_be_whole_and_positive(make, value):
    with pytest.raises(ValueError, match=re.escape(f"1 or more; got {value}")):
        make(value)


def test_negative_steps_are_refused():
    with pytest.raises(ValueError, match="Step -1 cannot be recorded"):
        backward().cost([-1])


@pytest.mark.parametrize(
    ("order", "name"),
    [
        (forward(), "forward"),
        (backward(), "backward"),
        (windowed(7), "windowed(7)"),
        (reset(5, 2), "reset(2, 5)"),
        (switch(9), "switch(9)"),
    ],
)
def test_names_are_what_tables_show(order, name):
    assert str(order) == order.name == name


@given(orders, st.integers(0, 60))
def test_the_maps_applied_make_the_iterate(order, step):
    def maps(n):  # straight from the rule
        return [] if n == 0 else maps(order.anchor(n)) + list(range(n, order.anchor(n), -1))

    assert order.applied(step) == maps(step)
    assert len(order.applied(step)) == step
