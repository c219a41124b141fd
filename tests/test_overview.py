"""Experiments side by side: against numbers worked out by hand, and with results missing."""

import dataclasses
import itertools
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from tiny import MOTION, TINY

from revlib import experiments, figures, runs
from revlib.experiments import figures_2_to_11
from revlib.runs.engine import Plan
from revlib.store import results
from revlib.training.models import INITS
from revlib.verdicts import front_page, overview, pilot, stability
from revlib.verdicts.overview import ORDERS

STEPS = (0, *range(20, 41))
HALF = (20, 40)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """An experiment in two orders with motion and two variants, and an empty store."""
    sizes = {
        name: dataclasses.replace(
            size, cases=overview.ORDERS, steps=40, every=20, bursts=((20, 21),), at=()
        )
        for name, size in TINY.sizes.items()
    }
    small = dataclasses.replace(
        TINY, name="small", sizes=sizes, variants=({"init": "glorot"}, {"init": "lecun"})
    )
    moving = {
        name: dataclasses.replace(size, bursts=(), at=(6, 40)) for name, size in sizes.items()
    }
    motion = dataclasses.replace(small, name="motion-small", sizes=moving, method=MOTION.method)
    for study in (small, motion):
        monkeypatch.setitem(experiments.STUDIES, study.name, study)
    monkeypatch.setattr(overview, "SHOWN", {"sample": ("small",), "paper": ("small", "figure-4")})
    monkeypatch.chdir(tmp_path)
    return small


def write(plan, rows):
    with plan.store.writing(plan.identity(), plan.orders, plan.size.steps, 1) as writer:
        writer.add(rows)


def store(paths, steps=STEPS, name="small", quantity="test_loss", **changes):
    """Store made-up paths, {(seed, order): values}, at preset paper."""
    rows = [
        {"seed": seed, "order": order, "step": n, quantity: value, "train_loss": value}
        for (seed, order), values in paths.items()
        for n, value in zip(steps, values, strict=True)
    ]
    write(Plan.of(name, "paper", changes=changes), rows)


def moves(rows, **changes):
    """Store made-up motion, a list of (seed, order, step, moved, predictions_moved)."""
    names = ["seed", "order", "step", "moved", "predictions_moved"]
    more = {"contraction_rate": -0.5, "tangent_contraction_rate": 0.25, "step_length": 2.0}
    plan = Plan.of("motion-small", "paper", changes=changes)
    write(plan, [dict(zip(names, row, strict=True)) | more for row in rows])


def swing(size, level=1.0, points=21):
    """A path that starts at 8 and swings over the second half, so much from step to step."""
    return [8, *(level + size / 2 * (-1) ** n for n in range(points))]


def about_trend(table, quantity="test_loss"):
    """By another way, the spread about a quadratic over the second half: by seed and order."""
    inside = table[table["step"].between(*HALF)].sort_values("step")

    def rest(path):
        fit = np.polynomial.Polynomial.fit(path["step"], path[quantity], 2)
        return np.sqrt(((path[quantity] - fit(path["step"])) ** 2).sum() / (len(path) - 3))

    return inside.groupby(["seed", "order"])[["step", quantity]].apply(rest).unstack("order")


def test_contraction_is_the_ratio_of_what_was_computed(small):
    found = overview.contraction("small", "sample").set_index("seed")
    table, motion = runs.compute("small", "sample"), runs.compute("motion-small", "sample")
    assert list(found.index) == [0, 1]
    spread = about_trend(table)
    for seed, row in found.iterrows():
        at = motion[(motion["seed"] == seed) & (motion["step"] == 40)].set_index("order")
        assert row["contraction_rate"] == at["contraction_rate"]["backward"]
        assert row["tangent_contraction_rate"] == at["tangent_contraction_rate"]["backward"]
        assert row["stretch"] == at["moved"]["backward"] / at["step_length"]["backward"]
        for name in ("moved", "predictions_moved"):
            assert row[name] == at[name]["backward"] / at[name]["forward"]
        assert row["calm"] == pytest.approx(spread["forward"][seed] / spread["backward"][seed])


def test_contraction_rests_on_what_is_stored_in_full(small):
    assert overview.contraction("small").empty
    whole = {(s, o): swing(6.0 if o == "forward" else 2.0) for s in (0, 1) for o in overview.ORDERS}
    partial = {(2, o): swing(1.0, points=11) for o in overview.ORDERS}
    store(whole)
    store(partial, STEPS[:12])
    assert overview.contraction("small").empty  # no motion yet
    moves([(0, "forward", 6, 1.0, 1.0), (0, "backward", 6, 3.0, 1.0)])
    moves([(0, "forward", 40, 1.0, 4.0), (0, "backward", 40, 5.0, 1.0), (1, "backward", 40, 1, 1)])
    moves([(2, "forward", 40, 1.0, 1.0), (2, "backward", 40, 1.0, 1.0)])
    row, still, short = overview.contraction("small").to_dict("records")
    assert (still["seed"], still["calm"]) == (1, pytest.approx(3.0))
    assert np.isnan(still["moved"])  # no forward motion is stored
    assert (short["seed"], short["moved"]) == (2, 1.0)
    assert np.isnan(short["calm"])  # its path ends in the middle of the range
    assert row == {
        "experiment": "small",
        "seed": 0,
        "step": 40,
        "contraction_rate": -0.5,
        "tangent_contraction_rate": 0.25,
        "stretch": 2.5,
        "moved": 5.0,
        "predictions_moved": 0.25,
        "calm": pytest.approx(3.0),
    }


def test_what_is_missing_is_named_and_never_passed_off(small):
    table, note = overview.contractions("paper")
    assert table.equals(overview.contraction("small", "sample"))
    assert note.startswith(
        "Preset sample: computed just now of small. This stands in for the preset"
    )
    store({(0, o): swing(1.0) for o in overview.ORDERS})
    moves([(0, o, 40, 1.0, 1.0) for o in overview.ORDERS])
    table, note = overview.contractions("paper")
    assert list(table["calm"]) == [pytest.approx(1.0)]
    assert note == (
        "Preset paper: stored results of small. "
        "Left out, because too little is stored as yet: figure-4."
    )


def records(table, statistic="trend"):
    return table[table["statistic"] == statistic].to_dict("records")


def test_variants_by_hand(small):
    diverging = [8, *[1] * 10, np.inf, *[np.nan] * 10]
    store({(s, o): swing(4.0 if o == "forward" else 1.0) for s in (0, 1) for o in overview.ORDERS})
    store({(0, "forward"): diverging, (0, "backward"): swing(1.0)}, init="lecun")
    table = overview.sensitivity("small")
    glorot, he, lecun = records(table)
    assert [row["variant"] for row in (glorot, he, lecun)] == ["glorot", "he", "lecun"]
    assert [row["default"] for row in (glorot, he, lecun)] == [False, True, False]
    assert [row["state"] for row in (glorot, he, lecun)] == ["not yet run", "ran", "diverged"]
    assert he["ratio"] == pytest.approx(4)
    assert (he["calmer"], he["seeds"], he["run"], he["side"]) == (2, 2, 2, "few")
    assert (he["forward_left"], he["backward_left"]) == pytest.approx((3 / 8, 1.5 / 8))
    assert (lecun["forward_diverged"], lecun["backward_diverged"]) == (1, 0)
    assert lecun["calmer"] == lecun["seeds"] == 1  # a seed that diverged counts
    assert np.isnan(lecun["forward_left"])
    assert lecun["backward_left"] == pytest.approx(1.5 / 8)
    assert np.isnan(glorot["ratio"])
    assert [row["ratio"] for row in records(table, "change")][1] == pytest.approx(4)


def test_a_variant_is_judged_as_the_claims_are(small):
    sizes = {0: 4.0, 1: 5.0, 2: 4.5}
    store({(s, o): swing(sizes[s] if o == "forward" else 1.0) for s in sizes for o in ORDERS})
    store({(s, o): swing(1.0 + 0.01 * s) for s in sizes for o in ORDERS}, init="lecun")
    _, he, lecun = records(overview.sensitivity("small"))
    assert (he["side"], lecun["side"]) == ("above", "open")
    assert he["low"] > 1
    ratios = pd.Series(sizes)
    assert (he["ratio"], he["low"], he["high"]) == pytest.approx(stability.geometric_mean(ratios))


def test_neighbours_alone_tell_nothing_of_the_long_range(small):
    burst = {
        (s, o): swing(2.0 if o == "forward" else 1.0, points=8) for s in (0, 1) for o in ORDERS
    }
    store(burst, STEPS[:9])
    [_, trend, _] = records(overview.sensitivity("small"))
    [_, change, _] = records(overview.sensitivity("small"), "change")
    assert trend["state"] == "not recorded"
    assert np.isnan(trend["ratio"])
    assert (change["state"], change["ratio"]) == ("ran", pytest.approx(2))


def test_a_network_that_stands_still_has_not_diverged(small):
    store({(0, o): [1] * 22 for o in overview.ORDERS})
    states = overview.sensitivity("small", variants=[{}])["state"]
    assert states.tolist() == ["stood still"] * 2


def test_only_asked_variants_are_computed_at_the_sample(small):
    [row] = records(overview.sensitivity("small", "sample", [{"init": "lecun"}]))
    spread = about_trend(runs.compute("small", "sample", init="lecun"))
    by_hand = np.exp(np.log(spread["forward"] / spread["backward"]).mean())
    assert row["ratio"] == pytest.approx(by_hand, rel=1e-4)
    assert (row["variant"], row["state"]) == ("lecun", "ran")


@pytest.mark.parametrize("experiment", figures_2_to_11.STUDIES, ids=lambda e: e.name)
def test_a_variant_differs_from_the_default_in_what_is_unstated(experiment):
    default = experiment.size("paper").setting
    settings = [default.changed(**each) for each in experiment.variants]
    assert len({default, *settings}) == 1 + len(settings)
    for each in experiment.variants:
        assert set(each) <= set(experiment.unstated)
        assert all(getattr(default, field) != value for field, value in each.items())


def test_each_mlp_has_all_initialisations_and_scalings():
    plain = {"pytorch", "lecun", "he", "glorot"}
    for name in ("figure-4", "figure-5", "figure-6", "figure-7"):
        study = experiments.get(name)
        setting = study.size("paper").setting
        tried = [setting.changed(**each) for each in ({}, *study.variants)]
        tried = [(each.init, each.scaling) for each in tried]
        expected = {
            *itertools.product(INITS, ["unit"]),
            *itertools.product(plain, ["standardised"]),
        }
        if name == "figure-7":
            expected |= set(itertools.product(set(INITS) - plain, ["image"]))
        assert len(tried) == len(expected)
        assert set(tried) == expected


# The pilot's findings


def verdicts():
    return {row.finding: row.verdict for row in pilot.judged().itertuples()}


def test_without_results_nothing_is_confirmed(small):
    assert set(verdicts().values()) == {"not yet run"}


def late_steps(name):
    """A step 0, and those that an experiment records in the second half at preset paper."""
    first, last = overview.second_half(name, "paper")
    recorded = experiments.get(name).size("paper").recorded()
    return [0, *(n for n in recorded if first <= n <= last)]


def of(name, forward, backward, seeds=(0, 1, 2), **changes):
    """Store paths that swing with the given spreads around the given levels, (spread, level).

    The seeds differ a little.
    """
    steps = late_steps(name)
    turns = np.array([(-1) ** n for n in steps[1:]])
    paths = {
        (seed, order): [8.0, *(level + spread * (1 + seed * differ) * turns)]
        for seed in seeds
        for order, (spread, level), differ in (
            ("forward", forward, 0.01),
            ("backward", backward, 0),
        )
    }
    store(paths, steps, name, **changes)


def test_findings_are_confirmed_or_refuted_by_the_numbers(small):
    for name in ("figure-4", "figure-5"):
        of(name, (0.2, 1.0), (0.1, 1.0))
    of("figure-6", (0.1, 1.0), (0.2, 1.0))
    of("figure-4", (np.inf, 1.0), (0.1, 1.0), init="lecun")
    of("figure-4", (0.1, 1.0), (0.1, 1.0), init="he")
    of("figure-7", (0.2, 1.0), (0.1, 1.1))
    of("figure-7", (0.01, 7.99), (0.01, 7.99), init="pytorch")
    of("figure-7", (0.2, 3.0), (0.19, 3.0), init="lecun")
    of("figure-7", (0.2, 3.0), (0.19, 3.0), init="glorot")
    of("figure-7", (0.2, 1.0), (0.15, 1.0), scaling="standardised")
    of("figure-2", (0.1, 1.0), (0.2, 1.0))
    assert list(verdicts().values()) == [
        "refuted",  # on figure-6 backward is less calm
        "refuted",  # he's does not diverge
        "confirmed",
        "confirmed",
        "confirmed",
        "confirmed",
        "confirmed",
        "refuted",  # standardised is less of a gain
        "confirmed",
        "not yet run",
        "not yet run",
        "not yet run",
    ]


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ((0.5, 0.51, 0.49), "confirmed"),
        ((2.0, 2.02, 1.99), "refuted"),
        ((0.5, 4.0, 1.0), "undecided"),
        ((0.5, 0.51), "undecided"),
    ],
)
def test_a_finding_is_undecided_where_the_seeds_leave_it_open(small, ratios, verdict):
    steps = late_steps("figure-2")
    turns = np.array([(-1) ** n for n in steps[1:]])
    paths = {}
    for seed, ratio in enumerate(ratios):
        paths[seed, "forward"] = [8.0, *(1 + 0.1 * ratio * turns)]
        paths[seed, "backward"] = [8.0, *(1 + 0.1 * turns)]
    store(paths, steps, "figure-2")
    assert (
        verdicts()["The ResNet-18 with batch normalisation does not vary less backward."] == verdict
    )


def test_a_finding_that_rests_on_one_seed_is_undecided(small):
    of("figure-2", (0.2, 1.0), (0.1, 1.0), seeds=(0,), normalisation="group")
    found = verdicts()["With group normalisation the ResNet-18 varies less backward."]
    assert found == "undecided"


def test_findings_about_the_distance_of_iterates(small, monkeypatch):
    motion = {
        name: [
            (seed, order, 6, moved, 1.0)
            for seed in range(3)
            for order, moved in (("forward", 1.0), ("backward", far + seed / 10))
        ]
        for name, far in (("batch", 9.0), ("group", 4.0))
    }
    moves(motion["batch"])
    moves(motion["group"], init="glorot")
    looks = runs.looks

    def stands_in(name, preset="paper", **changes):
        if name != "motion-figure-2":
            return looks(name, preset, **changes)
        return looks("motion-small", preset, **({"init": "glorot"} if changes else {}))

    monkeypatch.setattr(runs, "looks", stands_in)
    found = verdicts()
    assert list(found.values())[9:11] == ["confirmed", "confirmed"]


# Drawings


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_variants_have_a_line_each_and_words_where_there_is_no_ratio(small):
    store({(s, o): swing(4.0 if o == "forward" else 1.0) for s in (0, 1) for o in overview.ORDERS})
    figure = figures.variants(overview.sensitivity("small"), "ratio")
    [ax] = figure.axes
    labels = ax.get_yticklabels()
    assert [label.get_text() for label in labels] == ["glorot", "he", "lecun"]
    assert [label.get_fontweight() for label in labels] == ["normal", "bold", "normal"]
    assert texts(ax) == ["not yet run", "not yet run"]
    for marker in "os":
        ratios = [line.get_xdata() for line in ax.lines if line.get_marker() == marker]
        assert np.nanmax(ratios) == pytest.approx(4)
    plt.close(figure)


def test_a_variant_that_diverged_in_both_orders_has_no_ratio(small):
    gone = [8, *[1] * 10, np.inf, *[np.nan] * 10]
    store({(0, o): gone for o in ORDERS}, init="lecun")
    figure = figures.variants(overview.sensitivity("small"), "ratio")
    assert texts(figure.axes[0]) == ["not yet run", "not yet run", "diverged"]
    assert not any(
        len(line.get_xdata()) for line in figure.axes[0].lines if line.get_label()[0] == "t"
    )
    plt.close(figure)


def test_variants_are_drawn_when_nothing_was_run(small):
    figure = figures.variants(overview.sensitivity("small"), "ratio")
    assert texts(figure.axes[0]) == ["not yet run"] * 3
    plt.close(figure)


def test_both_ways_to_evaluate_have_markers_of_their_own():
    table = pd.DataFrame(
        {
            "experiment": "figure-2",
            "variant": ["batch", "batch", "group"],
            "default": [True, True, False],
            "quantity": ["test_loss", "test_loss_by_batch", "test_loss"],
            "statistic": ["trend", "trend", "trend"],
            "state": "ran",
            "ratio": [0.5, 2.0, 3.0],
            "low": [0.4, 1.0, np.nan],
            "high": [0.6, 4.0, np.nan],
        }
    )
    figure = figures.variants(table, "ratio")
    drawn = {line.get_marker(): list(line.get_xdata()) for line in figure.axes[0].lines}
    assert drawn["o"] == [0.5, 3.0]
    assert drawn["s"] == [2.0]
    [legend] = figure.legends
    told = [text.get_text() for text in legend.get_texts()]
    assert told == ["test loss, about a trend", "test loss by batch, about a trend"]
    plt.close(figure)


@pytest.mark.parametrize("logx", [True, False])
def test_quadrants_show_each_seed_and_the_mean(logx):
    table = pd.DataFrame(
        {"experiment": ["figure-4"] * 2 + ["figure-7"], "x": [1.0, 4.0, 2.0], "y": [1.0, 9.0, 2.0]}
    )
    figure = figures.quadrants(table, "x", "y", "x", "y", logx)
    [ax] = figure.axes
    means = {line.get_label(): (line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines}
    assert means["figure 4"] == pytest.approx((2.0 if logx else 2.5, 3.0))
    assert means["figure 7"] == pytest.approx((2.0, 2.0))
    assert [len(line.get_xdata()) for line in ax.lines if line.get_markersize() == 4] == [2, 1]
    assert ax.get_xscale() == ("log" if logx else "linear")
    assert ax.get_yscale() == "log"
    plt.close(figure)


def test_the_front_page_gives_the_advice_that_the_stored_results_give(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent.parent)
    told = front_page.advice()
    assert results.root().with_name("advice.md").read_text(encoding="utf-8") == told, (
        "run `revlib claims --write`"
    )
    assert "Not yet run" not in told
    assert told.count("\n- ") == 3


# What the front page opens with


def made_up_endings(calmest):
    """Return a study of endings in which one order swings a tenth as much as the others."""
    size = experiments.get(f"endings-figure-{front_page.OPENS_WITH}").size("paper")
    rows = []
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(size=len(size.recorded()))
        for order in ("forward", "tail(100)", "backward"):
            swing = 0.003 * (1 + 0.1 * seed) if order == calmest else 0.03
            for step, kick in zip(size.recorded(), noise, strict=True):
                loss = np.exp(-step / 200) + (swing * abs(kick) if step else 0)
                rows.append({"order": order, "seed": seed, "step": step, "train_loss": loss})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("calmest", "words"),
    [
        (
            "backward",
            r"Backward, the training loss varies [78]\.\d times less about its trend than forward",
        ),
        ("forward", r"Backward, the training loss varies [78]\.\d times \*more\* about its trend"),
    ],
)
def test_the_book_opens_with_what_the_results_say(monkeypatch, calmest, words):
    table = made_up_endings(calmest)
    monkeypatch.setattr(runs, "looks", lambda name: table)
    told = front_page.opening()
    assert re.search(words, told)
    assert "costs 700 times as many steps" in told
    assert f"levels from 20% to 2% of its start sooner {calmest}: " in told
    seed, below = front_page._stays(table, "tail(100)")
    path = table[(table["seed"] == seed) & (table["order"] == calmest)].set_index("step")
    late = path.loc[path.index >= below[calmest], "train_loss"]
    assert (late <= 0.05).all()
    assert (path["train_loss"].loc[: below[calmest]].iloc[-2]) > 0.05


def test_the_opening_figure_shows_paths_marks_and_endings(monkeypatch):
    table = made_up_endings("backward")
    monkeypatch.setattr(runs, "looks", lambda name: table)
    figure = front_page.picture()
    above, under = figure.axes
    lines = {line.get_label(): line for line in above.lines}
    first = table[(table["seed"] == 0) & (table["order"] == "tail(100)")]
    assert list(lines["tail(100)"].get_ydata()) == list(first["train_loss"])
    steps = experiments.get(f"endings-figure-{front_page.OPENS_WITH}").size("paper").steps
    (points, *_) = under.containers[0]
    assert list(points.get_xdata()) == [100, steps - 1]
    assert points.get_ydata()[0] == pytest.approx(1)
    assert 7 < points.get_ydata()[1] < 9
    plt.close(figure)


def test_an_opening_without_results_names_the_run_and_has_no_figure(monkeypatch):
    empty = pd.DataFrame(columns=["order", "seed", "step", "train_loss"])
    monkeypatch.setattr(runs, "looks", lambda name: empty)
    assert front_page.opening() == "Not yet run: `revlib run endings-figure-4`.\n"
    with pytest.raises(ValueError, match="revlib run endings-figure-4"):
        front_page.picture()


def test_the_front_page_opens_with_what_is_written_down(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent.parent)
    written = results.root().with_name("opening.md").read_text(encoding="utf-8")
    assert written == front_page.opening(), "run `revlib claims --write`"
    assert (results.root().with_name("opening.md").parent / "_static" / "opening.png").exists() or (
        "opening.png" not in written
    )
