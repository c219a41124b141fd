"""The page of a chapter: what the reader changes reaches all of it, and its numbers are right."""

import dataclasses
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import yaml
from tiny import MOTION, MOVING, ORDERS, TINY

from revlib import experiments, orders, runs
from revlib.store import results
from revlib.verdicts import findings, stability, tables
from revlib.verdicts.page import Page

WINDOW = (20, 22)  # the steps of the burst at preset sample
RANGE = (16, 32)  # the second half of its steps
ENDS = ORDERS[0], ORDERS[-1]  # the first and the last of the orders


@pytest.fixture(autouse=True)
def project(tiny, tmp_path):
    """A project with one chapter and one claim, in the current folder."""
    claim = {"id": "a", "place": "Section 0", "statement": "It is lower.", "experiment": "tiny"}
    claim |= {"quantity": "test_loss", "orders": ["forward", "backward"], "windows": [[24, 32]]}
    claim |= {"criterion": "lower", "chapter": "none", "made_by": "paper"}
    for name, text in (
        ("book/_config.yml", ""),
        ("book/claims.yml", yaml.safe_dump([claim])),
        ("notebooks/none.md", ""),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    yield
    plt.close("all")


@pytest.fixture
def both(monkeypatch):
    """Add an experiment of the same kind on other data, and its motion."""
    for study, name in ((TINY, "tiny-x2"), (MOTION, "motion-tiny-x2")):
        sizes = {preset: size.changed(data="x^2") for preset, size in study.sizes.items()}
        other = dataclasses.replace(study, name=name, sizes=sizes)
        monkeypatch.setitem(experiments.STUDIES, name, other)
    return ["tiny", "tiny-x2"]


def lines(axes, order):
    """Return what is drawn of an order: the values of each line with its name, ascending.

    What is not a number leaves a gap between steps that are not next to each other.
    """
    drawn = [line.get_ydata() for line in axes.lines if line.get_label() == order]
    values = np.concatenate(drawn)
    return sorted(values[~np.isnan(values)].tolist())


def about_trend(table, quantity):
    """Return the spread about a trend over the range: a row a seed, a column an order."""
    inside = table[table["step"].between(*RANGE)].sort_values("step")
    paths = inside.groupby(["seed", "order"])[["step", quantity]]
    return paths.apply(lambda path: stability.about_trend(*path.to_numpy(float).T)).unstack()


def values(table, order, column):
    return sorted(table.loc[table["order"] == order, column].tolist())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learning_rate": 0.2}, "sample with learning_rate=0.2"),
        ({"init": "lecun", "batch_size": 8}, "sample with init=lecun, batch_size=8"),
        ({}, "sample"),
        ({"learning_rate": None, "init": None}, "sample"),  # as the preset has it
    ],
)
def test_what_the_reader_changes_reaches_everything(changes, words):
    page = Page("none", "tiny", "sample", [1], **changes)
    given = {name: value for name, value in changes.items() if value is not None}
    table = runs.compute("tiny", "sample", [1], **given)
    moved = runs.compute("motion-tiny", "sample", [1], **given)
    pd.testing.assert_frame_equal(page.first.table, table)

    assert page.note().data == f"**What this page shows.** {page.first.note}"
    assert f"Preset {words}: computed just now" in page.note().data
    assert "; 1 seed, " in page.note().data

    told = dict(re.findall(r"<td>(.*?)</td>\s*<td>(.*?)</td>\s*<td>", page.choices().data))
    for name, value in ({"learning_rate": 0.05, "init": "he", "batch_size": 4} | given).items():
        assert told[name.replace("_", " ")] == str(value)

    loss = page.curves(columns=["test_loss"]).axes[0]
    assert lines(loss, "backward") == values(table, "backward", "test_loss")

    growth, steps, predictions = page.motion().axes
    for order in MOVING:
        own = moved.assign(steps=moved["moved"] / moved["step_length"])
        assert lines(growth, order) == values(own, order, "contraction_rate")
        assert lines(steps, order) == values(own, order, "steps")
        assert lines(predictions, order) == values(own, order, "predictions_moved")
    assert page.motion_note().data.startswith(f"Preset {words}: computed just now")
    last = moved[(moved["step"] == 12) & (moved["order"] == "backward")].iloc[0]
    assert "At step 12, means over seeds (" in page.motion_note().data
    below = int(last["contraction_rate"] < 0)
    assert (
        f"| backward | {last['contraction_rate']:+.4f} | {below} of 1 seed "
        f"| {last['moved'] / last['step_length']:.3g} | {last['predictions_moved']:.3g} |"
        in page.motion_note().data.splitlines()
    )

    for order in ORDERS:
        recorded = TINY.size("sample").recorded()
        cost = orders.named(order).cost(recorded)
        assert f"{order} {cost} for {len(recorded)} recorded points" in page.cost().data
    assert "this is a small experiment of another setting" in page.cost().data
    assert f"forward is recorded on 1 of 2 seeds at {len(recorded)} of 33" in page.cost().data

    line = page.provenance().data
    assert line.startswith("*Provenance: preset sample; ")
    assert f"; seeds 1; recorded steps {len(recorded)}; " in line
    assert all(f"; {name.replace('_', ' ')} {value}; " in line for name, value in given.items())
    assert page.audit().data.startswith("**Audit.** Skipped: of tiny at preset sample nothing")


def test_a_change_changes_what_is_shown():
    shown = []
    for rate in (0.05, 0.2):
        page = Page("none", "tiny", "sample", [0], learning_rate=rate)
        shown.append((page.levels().data, page.motion_note().data, page.training_losses().data))
    for one, other in zip(*shown, strict=True):
        assert one != other


def test_motion_is_computed_once_and_only_if_it_is_shown(monkeypatch):
    page, asked = Page("none", "tiny", "sample", [0]), []
    shown = runs.shown

    def watched(name, *arguments, **changes):
        asked.append(name)
        return shown(name, *arguments, **changes)

    monkeypatch.setattr(runs, "shown", watched)
    page.curves()
    assert asked == []
    page.motion()
    page.motion_note()
    page.motion("tiny")
    assert asked == ["motion-tiny"]


def test_seeds_may_be_any_iterable():
    page = Page("none", "tiny", "sample", iter([1]))
    assert set(page.first.table["seed"]) == {1}
    assert "; 1 seed, " in page.motion_note().data


def test_fluctuation_is_that_of_the_second_half_and_of_the_first_order_against_the_last():
    page = Page("none", "tiny", "sample")
    table = page.first.table
    inside = table[table["step"].between(*WINDOW)]
    assert (page.range, page.orders) == (RANGE, ENDS)

    for order in ENDS:
        upper, lower = (lines(ax, order) for ax in page.burst().axes[::2])  # two seeds
        own = inside[inside["seed"] == 0]
        assert upper == values(own, order, "test_loss")
        assert lower == values(own, order, "batch_loss")

    inside = table[table["step"].between(*RANGE)]
    for ax, quantity in zip(page.late().axes[::2], ("test_loss", "test_accuracy"), strict=True):
        assert [lines(ax, order) for order in ENDS] == [
            values(inside[inside["seed"] == 0], order, quantity) for order in ENDS
        ]

    names = ["test_loss", "train_loss", "batch_loss"]
    spread = {name: about_trend(table, name) for name in names}
    factor = {name: own[ENDS[0]] / own[ENDS[1]] for name, own in spread.items()}
    found = page.spreads().set_index(["window", "quantity"])["ratio"]
    steps = found["step to step, steps 16 to 32"]
    change = stability.compare(table, "test_loss", *RANGE, "change", ENDS)
    assert steps["test_loss"] == pytest.approx(stability.geometric_mean(change)[0])
    found = found["about a trend, steps 16 to 32"]
    for name in factor:
        assert found[name] == pytest.approx(np.exp(np.log(factor[name]).mean()))
    (axes,) = page.ratios().axes
    assert axes.get_xlabel() == "spread forward / tail(6)"
    drawn = np.concatenate([line.get_xdata() for line in axes.lines if line.get_marker() == "o"])
    assert {f"{x:.6g}" for x in found} <= {f"{x:.6g}" for x in drawn}

    told = page.levels().data
    level = inside.groupby(["order", "seed"])["test_loss"].mean()
    lower = int((level[ENDS[1]] < level["forward"]).sum())
    points = inside["step"].nunique()
    ratio = findings.Times.of(factor["test_loss"])
    assert told == (
        "Over steps 16 to 32: too few seeds to say whether the test loss varies less about its "
        f"trend with `tail(6)` than forward: the ratio is {ratio}. Seed by seed the ratio is "
        f"{factor['test_loss'][0]:.2g}, {factor['test_loss'][1]:.2g}; from {points} recorded "
        f"steps, each has a standard error of {100 / np.sqrt(points - 3):.0f}% or more. The mean "
        f"test loss over these steps is lower with `tail(6)` on {lower} of 2 seeds: "
        f"{level[ENDS[1]].mean():.3f} against {level['forward'].mean():.3f} forward on average. "
        "No path diverged."
    )
    fixed, batch = found["train_loss"], found["batch_loss"]
    words = page.training_losses().data
    assert f"forward the loss spreads {fixed:.2g} times as much about its trend as with" in words
    assert f"and {batch:.2g} times as much on the batch applied last" in words
    assert "Whether the choice of examples matters here is undecided: the second is" in words
    assert f"{batch / fixed:.3g}" in words.rpartition("the second is")[2]


def test_the_structure_function_is_that_of_the_second_half():
    page = Page("none", "tiny", "sample")
    [axes] = page.structure().axes
    found = stability.structure(page.first.table, "test_loss", *RANGE)
    for order in ENDS:
        expected = found.loc[order].dropna()
        drawn = lines(axes, order)  # a line, and its markers
        assert drawn[::2] == drawn[1::2] == pytest.approx(sorted(expected))
        assert expected.index.tolist() == [1, 2, 4, 8, 16]


def test_what_more_is_stored_of_a_seed_is_drawn_and_not_judged():
    runs.run("tiny", "paper", progress=False)
    before = Page("none", "tiny", "paper")
    runs.run("tiny", "paper", seeds=[1], every=1, progress=False)
    page = Page("none", "tiny", "paper")
    pd.testing.assert_frame_equal(page.spreads(), before.spreads())
    assert page.summary().data == before.summary().data
    assert (
        "2 seeds, 6 of 33 steps recorded (33 on seed 1, for the curves alone)." in page.note().data
    )
    told = page.first.deviations()
    assert "at 6 of 33 steps (up to 32) (33 on seed 1, for the curves alone)" in told
    large, *_ = page.curves(columns=["test_loss"]).axes
    assert large.get_title() == "seed 1"
    for options in ({"seeds": [2, 0], "every": 4}, {"seeds": [3]}):
        runs.run("tiny", "paper", progress=False, **options)
    told = Page("none", "tiny", "paper").first.deviations()
    more = "(33 on seed 1, 10 on seeds 0 and 2, for the curves alone)"
    assert (
        f"forward is recorded on 4 seeds (2 were planned) at 6 of 33 steps (up to 32) {more}"
        in told
    )
    own = runs.stored("tiny", "paper").query("seed == 1 and order == 'backward'")
    assert lines(large, "backward") == pytest.approx(sorted(own["test_loss"]))
    assert len(own) == 33


def test_paths_that_diverge_are_counted():
    page = Page("none", "tiny", "sample", learning_rate=1e300)
    assert len(stability.divergence(page.first.table)) == 2 * len(ORDERS)
    none = (
        "Over steps 16 to 32 forward and tail(6) cannot be compared: on each seed one of the two "
        "does not move, or diverged."
    )
    fate = ", ".join(f"2 of 2 paths {findings.adverb(order)}" for order in sorted(ORDERS))
    assert page.levels().data == f"{none} Diverged: {fate}."
    assert page.training_losses().data == none


def test_levels_are_compared_on_the_seeds_that_have_both():
    page = Page("none", "tiny", "sample")
    table = page.first.table
    one = table[table["seed"] == 1]
    at = (table["order"] == "tail(6)") & (table["seed"] == 0) & (table["step"] >= 20)
    table.loc[at, ["test_loss", "train_loss"]] = np.nan
    level = one[one["step"].between(*RANGE)].groupby("order")["test_loss"].mean()
    lower = int(level["tail(6)"] < level["forward"])
    assert page.levels().data.endswith(
        f"is lower with `tail(6)` on {lower} of 1 seed: {level[ENDS[1]]:.3f} against "
        f"{level['forward']:.3f} forward on average. Diverged: 1 of 2 paths with `tail(6)`."
    )


def test_stored_results_are_shown_and_audited_with_the_readers_changes():
    runs.run("tiny", "paper", [0], progress=False, learning_rate=0.1)
    runs.run("motion-tiny", "paper", [0], progress=False, learning_rate=0.1)
    page = Page("none", "tiny", "paper", learning_rate=0.1)
    assert "Preset paper with learning_rate=0.1: results stored in" in page.note().data
    assert "Preset paper with learning_rate=0.1: results stored in" in page.motion_note().data
    pd.testing.assert_frame_equal(
        page.first.table, runs.stored("tiny", "paper", learning_rate=0.1), check_like=True
    )
    assert "all equal" in page.audit().data
    assert "small experiment" not in page.cost().data
    assert re.search(r"took \d+ minutes with 1 processes", page.cost().data)
    assert "not yet run" in page.verdicts().data  # the claims are of the preset as it is


def test_where_nothing_is_stored_the_sample_stands_in_and_says_so():
    page = Page("none", "tiny", "paper", [0], learning_rate=0.1)
    for told in (page.note().data, page.motion_note().data):
        assert "Preset sample with learning_rate=0.1: computed just now" in told
        assert "It is shown in place of the preset paper: none are stored." in told
    assert "`revlib run tiny --set learning_rate=0.1` computes them" in page.note().data
    assert "`revlib run motion-tiny --set learning_rate=0.1`" in page.motion_note().data
    assert "this is a small experiment of another setting" in page.cost().data


def test_a_coarser_grid_is_for_the_curves_and_not_for_motion():
    page = Page("none", "tiny", "paper", [0], 16)
    assert set(page.first.table["step"]) == {0, 1, 16, 32}
    assert page.range == (16, 32)
    assert "Preset sample" in page.motion_note().data  # nothing is stored of it
    for told in (page.finding().data, page.summary().data):  # the sample's is no finding here
        assert "whether the iterate still moves with `tail(6)` is not recorded" in told.lower()


def test_at_the_papers_setting_the_range_is_that_of_the_claims(monkeypatch):
    monkeypatch.setitem(
        TINY.sizes, "paper", dataclasses.replace(TINY.sizes["paper"], every=1, steps=12)
    )
    path = results.root().with_name("claims.yml")
    [claim] = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump([claim | {"criterion": "calmer", "windows": [[3, 12]]}]))
    runs.run("tiny", seeds=[0], progress=False)
    assert Page("none", "tiny", "paper").range == (3, 12)
    assert Page("none", "tiny", "sample", [0]).range == RANGE


def test_the_verdicts_are_those_of_the_claims_whatever_is_shown():
    runs.run("tiny", progress=False)
    page = Page("none", "tiny", "sample", [0], learning_rate=0.2)
    assert page.verdicts().data == tables.of_chapter("none")
    assert "| It is lower. (Section 0) |" in page.verdicts().data
    assert "not yet run" not in page.verdicts().data


def test_several_studies_stand_on_one_page(both):
    page = Page("none", both, "sample", [0], learning_rate=0.01)
    assert list(page.shown) == both
    assert page.first is page.shown["tiny"]
    for told in (page.note(), page.motion_note(), page.audit(), page.cost()):
        first, second = told.data.split("**x^2.** ")
        assert "**fashion_mnist.** " in first
        assert second
    for told in (page.note(), page.motion_note()):
        assert told.data.count("Preset sample with learning_rate=0.01: ") == 2

    table = runs.compute("tiny-x2", "sample", [0], learning_rate=0.01)
    pd.testing.assert_frame_equal(page.shown["tiny-x2"].table, table)
    shown = {None: page.first.table, "tiny": page.first.table, "tiny-x2": table}
    for name, own in shown.items():
        axes = page.curves(name, ["test_loss"]).axes[0]
        assert lines(axes, "forward") == values(own, "forward", "test_loss")
        axes = page.burst(name).axes[0]
        inside = own[own["step"].between(*WINDOW)]
        assert lines(axes, "forward") == values(inside, "forward", "test_loss")
    moved = runs.compute("motion-tiny-x2", "sample", [0], learning_rate=0.01)
    assert lines(page.motion("tiny-x2").axes[0], "forward") == values(
        moved, "forward", "contraction_rate"
    )

    found = page.spreads()
    found = found[found["window"].str.startswith("about")].set_index("quantity")["ratio"]
    for words, own in (("fashion_mnist", page.first.table), ("x^2", table)):
        spread = about_trend(own, "test_loss")
        ratio = (spread["forward"] / spread[ENDS[1]])[0]
        assert found[f"{words}, test_loss"] == pytest.approx(ratio)
    assert "fashion_mnist, test_accuracy" in found
    assert "x^2, test_accuracy" not in found
    (axes,) = page.ratios().axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) == len(set(labels)) == len(found)


@pytest.mark.parametrize(
    ("names", "changes", "message"),
    [
        ("none", {}, "There is no study 'none'"),
        ("tiny", {"rate": 1}, "A setting has no 'rate'"),
        ("tiny", {"learning_rate": "fast"}, "The field 'learning_rate' must be a finite number"),
    ],
)
def test_what_does_not_exist_is_refused(names, changes, message):
    with pytest.raises(ValueError, match=message):
        Page("none", names, "sample", **changes)
