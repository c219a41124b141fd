"""Orders as words: what each spells, what it costs, and the trie in which it is computed."""

import math
import random
import re
from itertools import pairwise

import numpy as np
import pytest
from cases import ORDERS, any_order, some_step
from hypothesis import given
from hypothesis import strategies as st

from revlib import Order, backward, forward, reset, switch, tail, windowed
from revlib.orders import MAKERS, named, newest_tail, reshuffled_tail, tree

recorded = st.sets(st.integers(0, 60), max_size=12)


def spelled(words):
    """An order by its list of words, one for each step from 1 on."""
    return Order("spelled", lambda n: words[n - 1], permutation=False)


# Any words at all; or words without half of the letters, some of which are equal.
shuffled = st.lists(st.permutations(range(1, 9)), min_size=8, max_size=8)
all_letters = shuffled.map(lambda ps: [[i for i in p if i <= n] for n, p in enumerate(ps, 1)])
some_letters = all_letters.map(lambda words: [word[: len(word) // 2] for word in words])
some_words = st.one_of(all_letters, some_letters).map(spelled)
any_words = st.one_of(any_order, st.sampled_from(ORDERS), some_words)


def words(order, length):
    return [order.applied(n) for n in range(1, length + 1)]


def by_hand(*texts):
    return [[int(letter) for letter in text.split()] for text in texts]


# What each order spells


def test_forward_applies_the_newest_map_last():
    assert words(forward(), 4) == by_hand("1", "1 2", "1 2 3", "1 2 3 4")


def test_backward_applies_the_newest_map_first():
    assert words(backward(), 4) == by_hand("1", "2 1", "3 2 1", "4 3 2 1")


def test_windowed_is_the_rule_of_section_5():
    assert words(windowed(2), 5) == by_hand("1", "2 1", "2 1 3", "2 1 4 3", "2 1 4 3 5")


@given(some_step)
def test_windows_are_resets_at_their_ends(size):
    assert words(windowed(size), 60) == words(reset(*range(size, 61, size)), 60)


def test_forward_and_backward_are_the_extreme_windows():
    assert words(forward(), 60) == words(windowed(1), 60)
    assert words(backward(), 60) == words(windowed(60), 60) == words(reset(), 60)


def test_reset_starts_from_the_iterate_that_was_reached():
    expected = by_hand("1", "2 1", "3 2 1", "3 2 1 4", "3 2 1 5 4", "3 2 1 5 4 6")
    assert words(reset(5, 3), 6) == expected


def test_switch_is_forward_first():
    expected = by_hand("1", "1 2", "1 2 3", "1 2 3 4", "1 2 3 5 4", "1 2 3 6 5 4")
    assert words(switch(3), 6) == expected


def test_tail_is_forward_with_a_fixed_ending():
    assert words(tail(2), 5) == by_hand("1", "2 1", "3 2 1", "3 4 2 1", "3 4 5 2 1")


def test_a_tail_as_long_as_the_run_is_backward():
    assert words(tail(60), 60) == words(backward(), 60)


@given(any_order, st.integers(0, 60))
def test_each_letter_comes_once(order, step):
    assert sorted(order.applied(step)) == list(range(1, step + 1))


def test_a_new_order_is_one_function():
    newest_first = Order("newest first", lambda n: [n, range(1, n)])
    assert words(newest_first, 4) == by_hand("1", "2 1", "3 1 2", "4 1 2 3")
    assert newest_first.cost([9]) == 9


NAMED = {
    "forward": forward(),
    "backward": backward(),
    "windowed(7)": windowed(7),
    "reset(2, 5)": reset(5, 2),
    "switch(9)": switch(9),
    "tail(4)": tail(4),
    "reshuffled_tail(4)": reshuffled_tail(4),
    "newest_tail(4)": newest_tail(4),
}


@pytest.mark.parametrize("name", NAMED)
def test_names_are_what_tables_show_and_lead_back(name):
    assert str(NAMED[name]) == NAMED[name].name == named(name).name == name
    assert words(named(name), 20) == words(NAMED[name], 20)


def test_every_order_of_the_library_has_such_a_name():
    assert [name.partition("(")[0] for name in NAMED] == list(MAKERS)


@pytest.mark.parametrize("name", ["reset(2,5)", "reset(2,  5)"])
def test_names_may_be_written_without_a_space(name):
    assert named(name) == named("reset(2, 5)")


@pytest.mark.parametrize(
    "name",
    [
        *("", "sideways", "tree", "forward(3)", "tail(3", "windowed", "windowed()", "windowed(x)"),
        *("windowed(1, 2)", "windowed(-1)", "windowed(2.5)", "windowed(1 2)", "windowed(5,)"),
    ],
)
def test_other_names_are_refused_with_the_valid_ones(name):
    valid = (
        "forward, backward, windowed(50), reset(1000), switch(1000), tail(50), "
        "reshuffled_tail(50) and newest_tail(50), with any numbers."
    )
    message = f"There is no order '{name}'. Valid are: {valid}"
    with pytest.raises(ValueError, match=re.escape(message)):
        named(name)


@pytest.mark.parametrize("make", [windowed, switch, reset, tail])
@pytest.mark.parametrize("value", [0, -3, 2.5])
def test_sizes_must_be_whole_and_positive(make, value):
    with pytest.raises(ValueError, match=re.escape(f"1 or more; got {value}")):
        make(value)


# Runs


@given(any_words, st.integers(1, 8), st.data())
def test_equal_words_are_the_same_however_they_are_spelled(order, step, data):
    """In numbers, in numpy's numbers, or cut anywhere into runs."""
    whole = order.runs(step)
    letters = order.applied(step)
    cuts = data.draw(st.sets(st.integers(0, len(letters))))
    pieces = []
    for run in whole:
        inside = sorted({0, len(run), *(cut for cut in cuts if cut < len(run))})
        pieces += [run[low:high] for low, high in pairwise(inside)]
    for spelling in (letters, np.array(letters, dtype=int), pieces, [*pieces, range(0)]):
        other = Order("other", lambda n, spelling=spelling: spelling, permutation=False)
        assert other.runs(step) == whole
        assert [run.step for run in other.runs(step)] == [run.step for run in whole]
        assert other.digest([step]) == order.digest([step])


@given(any_words, st.integers(0, 8))
def test_runs_go_by_one_and_are_as_few_as_can_be(order, step):
    runs = order.runs(step)
    assert all(run and run.step in (1, -1) for run in runs)
    for one, other in pairwise(runs):
        gaps = {after - before for before, after in pairwise([*one, *other])}
        assert gaps not in ({1}, {-1})


def test_a_long_word_is_a_few_numbers():
    assert backward().runs(25_000) == (range(25_000, 0, -1),)
    assert tail(50).runs(25_000) == (range(51, 25_001), range(50, 0, -1))


def test_runs_by_two_are_single_letters():
    order = Order("odd first", lambda n: [range(1, n + 1, 2), range(2, n + 1, 2)])
    assert words(order, 5)[-1] == [1, 3, 5, 2, 4]


@given(any_order, any_order, st.integers(1, 60))
def test_digest_tells_words_apart(one, other, length):
    steps = range(1, length + 1)
    same = words(one, length) == words(other, length)
    assert (one.digest(steps) == other.digest(steps)) == same


def test_digest_is_of_the_steps_that_are_named_in_any_sequence():
    assert windowed(5).digest([3, 5]) == backward().digest([5, 3])
    assert windowed(5).digest([3, 6]) != backward().digest([3, 6])
    assert backward().digest([3]) != backward().digest([4])


# What is no word


@pytest.mark.parametrize(
    ("word", "wrong"),
    [
        ([1, 2, 3, 4, 5], "holds 5"),
        ([0, 1, 2, 3, 4], "holds 0"),
        ([range(4, -2, -1)], "holds -1"),
        ([1, 2, 3, 4, 2], "holds 2 twice"),
        ([range(1, 5), range(4, 0, -1)], "holds 1 twice"),
        ([2, 3, 4], "leaves out 1"),
        ([4, 2, 1], "leaves out 3"),
        ([range(3, 0, -1)], "leaves out 4"),
        ([], "leaves out 1"),
    ],
    ids=str,
)
def test_an_impossible_word_is_refused(word, wrong):
    must = "it must hold each of the maps 1 to 4 once."
    message = f"The word of the order 'odd' at step 4 {wrong}; {must}"
    for use in (Order.runs, Order.applied, lambda order, n: order.cost([1, n])):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            use(Order("odd", lambda n: [1] if n == 1 else word), 4)


@pytest.mark.parametrize("word", [[2, 3, 4], [4, 2, 1], [range(3, 0, -1)], [1], []], ids=str)
def test_letters_may_be_left_out_where_the_order_says_so(word):
    order = Order("some", lambda n: word, permutation=False)
    assert order.applied(4) == [i for part in word for i in ([part] if part in range(9) else part)]


@pytest.mark.parametrize(
    ("word", "wrong"), [([1, 5], "holds 5"), ([0], "holds 0"), ([3, 1, 3], "holds 3 twice")]
)
def test_otherwise_a_word_without_all_letters_has_the_same_limits(word, wrong):
    order = Order("odd", lambda n: word, permutation=False)
    must = "it must hold none but of the maps 1 to 4, each at most once."
    with pytest.raises(ValueError, match=re.escape(f"at step 4 {wrong}; {must}")):
        order.runs(4)


@pytest.mark.parametrize(
    "word",
    [
        *(lambda n: None, lambda n: n, lambda n: [n / 2], lambda n: [[1, 2]]),
        *(lambda n: [np.arange(1, n + 1)], lambda: [1], lambda n: [range(1, n)[n]]),
    ],
)
def test_what_is_no_word_is_refused_with_an_example(word):
    message = r"'odd' spells no word at step 4 \(\w+Error: .*list of whole numbers and ranges"
    with pytest.raises(ValueError, match=message):
        Order("odd", word).runs(4)


def test_letters_may_be_numpys():
    assert Order("plain", lambda n: np.arange(1, n + 1)).runs(4) == (range(1, 5),)


@pytest.mark.parametrize("word", [[1], None, "forward"])
def test_a_word_is_a_function(word):
    with pytest.raises(ValueError, match="word of the order 'odd' must be a function of the step"):
        Order("odd", word)


def test_a_word_is_the_same_each_time():
    seeded = Order("seeded", lambda n: random.Random(n).sample(range(1, n + 1), n))
    assert sorted(seeded.applied(12)) == list(range(1, 13))
    drawn = Order("drawn", lambda n: random.sample(range(1, n + 1), n))
    with pytest.raises(ValueError, match="'drawn' spells another word each time at step 12"):
        drawn.runs(12)


def test_negative_steps_are_refused():
    with pytest.raises(ValueError, match="Step -1 cannot be recorded"):
        backward().cost([-1])


# The trie


def read(nodes):
    """The word of each node, by going from node to node."""
    found = [[]]
    for place, node in enumerate(nodes[1:], 1):
        assert node.parent < place  # parents come first
        found.append(found[node.parent] + [letter for run in node.runs for letter in run])
    return found


def steps_of(order, chosen):
    """The steps among the chosen ones for which an order has words."""
    return {n for n in chosen if n <= 8} if order.name == "spelled" else chosen


@given(any_words, recorded)
def test_the_trie_holds_the_words_of_the_recorded_steps_and_no_others(order, chosen):
    chosen = steps_of(order, chosen)
    nodes = tree(order, chosen)
    assert (nodes[0].parent, nodes[0].runs) == (0, ())
    found = [(n, word) for node, word in zip(nodes, read(nodes), strict=True) for n in node.steps]
    assert sorted(found) == [(n, order.applied(n)) for n in sorted(chosen)]
    assert all(node.steps == sorted(node.steps) for node in nodes)


@given(any_words, recorded)
def test_shared_beginnings_are_computed_once(order, chosen):
    chosen = steps_of(order, chosen)
    beginnings = {
        tuple(order.applied(n)[:length])
        for n in chosen
        for length in range(1, len(order.applied(n)) + 1)
    }
    assert order.cost(chosen) == len(beginnings)


@given(any_words, recorded)
def test_a_node_is_recorded_or_others_start_from_it(order, chosen):
    nodes = tree(order, steps_of(order, chosen))
    children = [sum(other.parent == place for other in nodes[1:]) for place in range(len(nodes))]
    for node, count in zip(nodes[1:], children[1:], strict=True):
        assert node.runs
        assert node.steps or count > 1
    assert len({tuple(word) for word in read(nodes)}) == len(nodes)


@given(any_words, recorded)
def test_a_walk_goes_into_depth_and_into_the_largest_branch_last(order, chosen):
    nodes = tree(order, steps_of(order, chosen))
    size, path = [1] * len(nodes), [0]
    for place in range(len(nodes) - 1, 0, -1):
        size[nodes[place].parent] += size[place]
    for place, node in enumerate(nodes[1:], 1):
        while path[-1] != node.parent:
            path.pop()  # fails where the parent is not on the way here
        path.append(place)
    for place in range(len(nodes)):
        branches = [size[p] for p, node in enumerate(nodes) if p and node.parent == place]
        assert branches == sorted(branches)


@given(any_words, recorded)
def test_few_nodes_wait_at_a_time(order, chosen):
    """Those that a walk has to return to: no more than the logarithm of all."""
    nodes = tree(order, steps_of(order, chosen))
    for place in range(1, len(nodes)):
        # The next node starts from the present one, or the walk returns to where it starts from.
        waiting = {node.parent for node in nodes[place + 1 :] if node.parent < place}
        assert len(waiting) <= math.log2(len(nodes))


@given(any_order, recorded)
def test_the_orders_of_the_library_are_walked_in_ascending_steps(order, chosen):
    assert [n for node in tree(order, chosen) for n in node.steps] == sorted(chosen)


def test_a_trunk_on_which_nothing_is_recorded():
    nodes = tree(tail(2), [1, 4, 6])
    assert [(node.parent, node.runs, node.steps) for node in nodes] == [
        (0, (), []),
        (0, (range(1, 2),), [1]),
        (0, (range(3, 5),), []),
        (2, (range(2, 0, -1),), [4]),
        (2, (range(5, 7), range(2, 0, -1)), [6]),
    ]


def test_equal_words_are_one_node():
    nodes = tree(Order("first", lambda n: [1], permutation=False), [3, 0, 7, 5])
    assert [(node.runs, node.steps) for node in nodes] == [((), [0]), ((range(1, 2),), [3, 5, 7])]


# Costs


@given(some_step)
def test_cost_of_whole_runs(length):
    everything = range(length + 1)
    assert forward().cost(everything) == length
    assert backward().cost(everything) == length * (length + 1) // 2
    assert forward().cost([length]) == backward().cost([length]) == length


@given(some_step, st.integers(1, 8))
def test_cost_of_windows(size, windows):
    assert windowed(size).cost(range(size * windows + 1)) == windows * size * (size + 1) // 2


@given(some_step, some_step)
def test_cost_of_a_switch(at, length):
    after = max(0, length - at)
    assert switch(at).cost(range(length + 1)) == min(at, length) + after * (after + 1) // 2


@given(some_step, recorded)
def test_cost_of_a_tail(length, chosen):
    """Up to its length n maps for step n; then a path to the last step, and the tail for each."""
    early = [n for n in chosen if n <= length]
    late = [n for n in chosen if n > length]
    path = max(late) - length if late else 0
    assert tail(length).cost(chosen) == sum(early) + path + length * len(late)


@given(some_step, some_step)
def test_cost_of_a_whole_run_with_a_tail(length, more):
    whole = tail(length).cost(range(length + more + 1))
    assert whole == length * (length + 1) // 2 + more * (length + 1)
