"""The first sentences of the chapters: they say what the numbers say, whichever way those fall."""

import itertools

import numpy as np
import pandas as pd
import pytest

from revlib.verdicts import findings, section_5
from revlib.verdicts.findings import Times
from revlib.verdicts.page import Page

ORDERS = ("forward", "backward")
STEPS = range(0, 101)


def paths(forward=1.0, backward=0.1, seeds=5, steps=STEPS, fall=(0.05, 0.05)):
    """Return falling test losses that vary about their trend by so much."""
    generator = np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        for place, order in enumerate(ORDERS):
            spread, rate = (forward, backward)[place], fall[place] * (1 + place * (seed - 2) / 50)
            for step in steps:
                noise = spread * generator.normal() * (step > 0)
                rows.append((seed, order, step, 100 * np.exp(-rate * step) + noise))
    table = pd.DataFrame(rows, columns=["seed", "order", "step", "test_loss"])
    return table.assign(train_loss=table["test_loss"])


def varies(**how):
    return findings.varies(paths(**how), "test_loss", (50, 100), ORDERS)


def test_less_and_more_are_told_apart():
    assert varies().startswith("backward, the test loss varies ")
    assert "times less about its trend than forward (95% interval" in varies()
    opposite = varies(forward=0.1, backward=1.0)
    assert "times *more* about its trend than forward (95% interval" in opposite
    assert "less" not in opposite


def test_what_is_not_decided_is_said_to_be_open():
    alike = pd.Series([0.97, 1.0, 1.02, 0.99, 1.03])
    words = findings.less("the loss", "varies", "", alike, ORDERS)
    assert words.startswith("the loss varies as much backward as forward: the ratio is 1.002 (95%")
    words = findings.less("the loss", "varies", "", pd.Series([0.3, 4.0, 1.0]), ORDERS)
    assert words.startswith("whether the loss varies less backward than forward is undecided")
    assert varies(seeds=2).startswith("too few seeds to say whether the test loss varies less")
    assert varies(steps=range(0, 101, 10)) == (
        "too few steps are recorded (6 from 50 to 100) to say how much the test loss varies about "
        "its trend"
    )


def test_what_diverged_gives_no_ratio_and_is_counted():
    table = paths()
    gone = (table["order"] == "backward") & (table["step"] > 90)
    table.loc[gone, ["test_loss", "train_loss"]] = np.nan
    words = findings.varies(table, "test_loss", (50, 100), ORDERS)
    assert words.startswith("how much the test loss varies about its trend has no ratio")
    assert findings.diverged(table) == "diverged: 5 of 5 paths backward"
    assert findings.diverged(paths()) == "no path diverged"
    below = findings.stays_below(table, "test_loss", (0.5,), ORDERS)
    assert "backward takes" in below or "cannot be said" in below


def test_which_path_stays_below_first():
    def words(fall, levels=(0.5, 0.1), **how):
        return findings.stays_below(
            paths(0.01, 0.01, fall=fall, **how), "test_loss", levels, ORDERS
        )

    which = "the test loss stays below 2 levels from 50% to 10% of its start"
    assert words((0.05, 0.15)).startswith(f"{which} sooner backward: forward takes ")
    assert words((0.15, 0.05)).startswith(f"{which} sooner forward: backward takes ")
    assert words((0.1, 0.1)).startswith(f"{which} from about the same step on forward and backward")
    assert words((0.05, 0.15), seeds=2).startswith("too few seeds to say in which order")
    assert words((1e-6, 1e-6), (0.5,)) == (
        "by step 100 no path stays below 50% of its first test loss"
    )


def test_a_seed_of_one_order_says_nothing_of_which_is_first():
    table = paths(0.01, 0.01, fall=(0.05, 0.15))
    alone = table[(table["seed"] == 0) & (table["order"] == "forward")].assign(seed=9)
    asked = ("test_loss", (0.5, 0.1), ORDERS)
    both = findings.stays_below(pd.concat([table, alone]), *asked)
    assert both == findings.stays_below(table, *asked)


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (3.0, "the backward iterate has not come to rest: at step 20 one more step moves it 3.3 "),
        (0.001, "the backward iterate is nearly at rest: at step 20 one more step moves it 0.00"),
        (0.009, "whether the backward iterate is nearly at rest is undecided: at step 20 one more"),
    ],
)
def test_whether_the_iterate_still_moves(factor, words):
    rows = [
        (
            seed,
            order,
            step,
            (factor * (1 + 0.1 * seed) if order == "backward" else 1) * (1 + (step == 20)),
        )
        for seed, order, step in itertools.product(range(3), ORDERS, (10, 20))
    ]
    motion = pd.DataFrame(rows, columns=["seed", "order", "step", "moved"])
    assert findings.moves(motion, ORDERS, 40).startswith(words)
    early = findings.moves(motion, ORDERS, 41)
    assert ("had not come to rest by then" in early) == ("has not come to rest" in words)
    assert "at step 20 of 41, the last that was looked at, one more step moves it" in early
    two = findings.moves(motion[motion["seed"] < 2], ORDERS, 20)
    assert two.startswith("whether the backward iterate is nearly at rest is undecided")
    only = motion[motion["order"] == "forward"]
    assert "is not recorded" in findings.moves(only, ORDERS, 20)
    motion.loc[motion["order"] == "backward", "moved"] = np.inf
    assert "diverged" in findings.moves(motion, ORDERS, 20)


def waves(length):
    """Return a test loss that swings slowly forward, and as far within so many steps backward."""
    rows = [
        (seed, order, step, 1 + height * np.sin(2 * np.pi * (step + seed) / period))
        for seed in range(5)
        for order, period, height in (
            ("forward", 50, 0.5),
            ("backward", length, 0.5 + 0.1 * (seed - 2)),
        )
        for step in range(200)
    ]
    return pd.DataFrame(rows, columns=["seed", "order", "step", "test_loss"])


def test_what_is_decided_from_step_to_step_alone_is_told_too():
    [words] = findings.steady(waves(5), "test_loss", (0, 199), ORDERS)
    assert words.startswith("backward, the test loss changes 9.")
    assert "times *more* from step to step than forward (95% interval" in words
    assert findings.steady(waves(50), "test_loss", (0, 199), ORDERS) == []
    assert findings.steady(paths(), "test_loss", (50, 100), ORDERS) == []  # as about the trend


def test_a_path_that_reaches_a_level_first_and_does_not_stay_there():
    """Forward dips early and comes back, backward goes down once."""
    rows = [
        (seed, order, step, loss)
        for seed in range(5)
        for order, low in (("forward", {10, *range(90, 101)}), ("backward", set(range(40, 101))))
        for step in range(101)
        for loss in [0.1 if step - seed % 2 in low else 1.0]
    ]
    table = pd.DataFrame(rows, columns=["seed", "order", "step", "test_loss"])
    words = findings.stays_below(table, "test_loss", (0.5,), ORDERS)
    assert "of its start sooner backward: forward takes 2.2" in words
    assert "; first reached are they sooner forward: backward takes 3.9" in words


def test_several_quantities_share_a_sentence():
    words = findings.spreads(paths(), ["train_loss", "test_loss"], (50, 100), ORDERS)
    assert words.startswith("yes for the training loss, ")
    assert "; yes for the test loss, " in words
    assert words.endswith("spreads about a trend over steps 50 to 100, forward divided by backward")
    opposite = findings.spreads(paths(0.1, 1.0), ["train_loss"], (50, 100), ORDERS)
    assert opposite.startswith("no, *more* for the training loss, 0.")


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ([7.0, 8.0, 9.0], "8 times less (95% interval "),
        ([0.12, 0.125, 0.13], "8 times *more* (95% interval "),
        ([0.2, 1.0, 4.0], "1.077 times *more* (95% interval "),
        ([np.inf] * 3, "by no ratio that can be given"),
    ],
)
def test_less_is_never_said_of_a_factor_below_one(factors, words):
    told = findings.times_less(pd.Series(factors))
    assert told.startswith(words)
    assert told.endswith("; undecided)") == (max(factors) > 3 > min(factors))


def test_a_factor_prints_with_its_interval():
    assert str(Times.of(pd.Series([2.0, 2.0, 8.0, 2.0]))).startswith("2.8 (95% interval ")
    assert str(Times.of(pd.Series([2.0, 8.0]))) == "4 (2 seeds)"
    assert Times.of(pd.Series([], dtype=float)).side == "none"


def test_sentences():
    assert findings.sentence(["one thing", "another"]) == "One thing; another."
    assert findings.sentence(["x²: less"]) == "x²: less."
    assert findings.listed({"a": "B."}) == "- **a**: B."
    assert findings.listed(["B.", "C."]) == "- B.\n- C."


def test_the_page_says_what_its_tables_say(tiny, tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "_config.yml").write_text("")
    (tmp_path / "book" / "claims.yml").write_text("[]")
    page = Page("none", "tiny", "sample", [0, 1])
    words, lines = page.finding().data, page.summary().data.splitlines()
    assert words.startswith("**In short.** Too few steps are recorded")
    assert words.endswith("(This is the sample, a small version of the experiment.)")
    assert "with `tail(6)` was nearly at rest by then is undecided: at step 12 of 32" in words
    heads = ("Varies less?", "At rest?", "Level and cost.")  # no claim is about levels
    assert [line.split("**")[1] for line in lines] == list(heads)
    assert "no path diverged; all 32 points of a path take 203 maps with `tail(6)`" in lines[-1]


def test_one_line_through_all_windows():
    def measured(power):
        rows = [
            {"order": order, "seed": seed, "cost": cost, "calm": cost ** (power + 0.01 * seed)}
            for seed in (-1, 0, 1)
            for order, cost in (("forward", 1.0), ("windowed(5)", 3.0), ("windowed(20)", 10.5))
        ]
        return section_5.slopes(pd.DataFrame(rows), "calm")

    assert measured(0.8).tolist() == pytest.approx([0.79, 0.8, 0.81])
    for power, words in (
        (0.8, "more slowly than the cost"),
        (1.0, "about as fast as the cost"),
        (1.3, "faster than the cost"),
        (0.01, "perhaps not at all"),
        (-0.5, "it falls"),
    ):
        assert findings.power(measured(power)).endswith(words)
    assert findings.power(measured(0.8)[:2]).endswith(" of the cost (2 seeds)")


@pytest.mark.parametrize(("side", "words"), [("lower", "lower ("), ("", "not different beyond")])
def test_a_paired_difference_in_words(side, words):
    row = pd.Series({"side": side, "difference": -0.1, "error": 0.02, "lower": 4, "seeds": 5})
    assert findings.difference(row).startswith(words)
    assert findings.difference(row).endswith("(-0.1, standard error 0.02; lower on 4 of 5 seeds)")
