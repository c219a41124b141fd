"""What is said of unstated choices is what the table of the variants says."""

import numpy as np
import pandas as pd

from revlib import experiments
from revlib.verdicts import unstated


def table(*variants):
    """Return rows of variants, each given by what differs from one that varies less backward."""
    row = {"experiment": "figure-4", "variant": "he, unit", "default": False, "state": "ran"}
    row |= {"quantity": "test_loss", "ratio": 4.0, "low": 2.0, "high": 8.0, "side": "above"}
    row |= {"run": 5, "forward_left": 0.1, "backward_left": 0.2}
    row |= {"forward_left_low": 0.05, "backward_left_low": 0.1}
    row |= {"forward_diverged": 0, "backward_diverged": 0}
    step_to_step = {"statistic": "change", "state": "not recorded"}
    missing = ("diverged", "not yet run")
    rows = []
    for each in variants:
        rows.append({"statistic": "trend"} | row | each)
        kept = {"state": each["state"]} if each.get("state") in missing else {}
        rows.append(row | each | step_to_step | kept)
    return pd.DataFrame(rows)


GONE = {"state": "diverged", "ratio": np.nan, "low": np.nan, "high": np.nan, "side": "none"}
GONE |= {"backward_diverged": 3}
ALL = table(
    {},
    {"low": 0.5, "side": "open"},
    {"low": 0.1, "high": 0.4, "side": "below"},
    {"side": "few"},
    GONE,
    {"experiment": "figure-7", "forward_left": 0.95},
    {"experiment": "figure-7", "state": "not yet run"},
)
TREND = ALL[ALL["statistic"] == "trend"]


def test_each_variant_gets_its_verdict():
    assert unstated.verdicts(TREND).tolist() == [
        "less backward",
        "undecided",
        "*more* backward",
        "too few seeds",
        "diverged",
        "less backward",
        "not yet run",
    ]
    assert unstated.learned(TREND).tolist() == [True] * 4 + [False] * 3


def test_the_finding_counts_all_that_ran():
    assert unstated.finding(ALL) == (
        "Of 6 variants of initialisation and input scaling, 4 learned something, and of 4 of these "
        "it is recorded how much the test loss varies about its trend: less backward on 1, *more* "
        "backward on 1, too few seeds on 1, undecided on 1. Of 30 runs of each order, 0 forward "
        "and 3 backward diverged."
    )
    words = unstated.finding(table({"side": "below"}))
    assert "1 learned something" in words
    assert "about its trend: *more* backward on 1. " in words


def test_the_lines_are_one_for_each_experiment():
    lines = unstated.lines(ALL).splitlines()
    names = ["Figure 4", "Figure 7", "Diverged", "Not yet run"]
    assert [line.split("**")[1] for line in lines] == names
    assert "of 1 variant, about its trend: less backward on 1; " in lines[1]
    assert "Of the 0 that learned something, about its trend: none; " in lines[1]
    assert lines[3].endswith(" 1 of 7 variants.")
    assert "Not yet run" not in unstated.lines(table({}))


def test_the_reader_sees_a_ratio_where_there_is_one_and_else_the_reason():
    shown = unstated.shown(ALL)
    ratios = ["4 (2 to 8)", "4 (0.5 to 8)", "4 (0.1 to 0.4)", "4 (2 to 8)", "diverged"]
    assert shown["ratio about a trend"].tolist()[:5] == ratios
    assert shown["step to step"].tolist()[3:5] == ["not recorded", "diverged"]
    assert shown.loc[4, "diverged, backward"] == "3 of 5"


def test_the_choices_are_those_of_the_studies():
    found = unstated.choices().set_index(["experiment", "choice"])
    setting = experiments.get("figure-4").size("paper").setting
    assert found.loc[("figure-4", "init"), "default"] == setting.init
    assert "lecun" in found.loc[("figure-4", "init"), "also tried"]
    assert not any(name.startswith("motion-") for name, _ in found.index)


def rows(init, figure, *outs):
    """Rows of candidates: one for each convention, whether the figure comes out under it."""
    kinds = {True: {}, False: {"side": "alike"}, None: {"side": "open"}}
    own = TREND.iloc[[0] * len(outs)].assign(init=init, figure=figure, out=list(outs))
    side = [kinds[out].get("side", "above") for out in outs]
    return own.assign(side=side, convention=list("ab"[: len(outs)]))


def test_one_setting_must_give_all_figures_under_some_convention():
    table = pd.concat(
        [
            *(rows("he", figure, True, False) for figure in ("Figure 4", "Figure 7")),
            *(rows("flax", figure, None, False) for figure in ("Figure 4", "Figure 7")),
            rows("keras", "Figure 4", True, None),
            rows("keras", "Figure 7", False, False),
        ]
    )
    assert unstated.one_setting(table).splitlines() == [
        "- **All four come out**: from `he`.",
        "- **Open**: from `flax` (Figure 4, Figure 7).",
        "- **Excluded**: from `keras` (Figure 7).",
    ]
    shown = unstated.side_by_side(table)
    assert shown.loc["he"].tolist() == ["✓ 4", "✗ 4", "✓ 4", "✗ 4"]
    assert shown.loc["keras", ("Figure 4", "b")] == "? 4"


def test_a_figure_comes_out_where_something_is_learned_and_varies_less_backward(monkeypatch):
    found = {
        "he": {},
        "lecun": {"side": "open"},
        "glorot": {"side": "alike"},
        "flax": GONE | {"state": "not recorded", "forward_diverged": 5},
        "haiku": {"forward_left": 0.95, "forward_left_low": 0.93},
        "keras": {"state": "not yet run"},
        "pytorch": {"backward_left": 0.95, "backward_left_low": 0.85},
    }
    monkeypatch.setattr(
        unstated.overview,
        "outcomes",
        lambda name, preset, changes: table(found.get(changes["init"], {})).to_dict("records"),
    )
    made = unstated.candidates()
    outs = made[made["figure"] == "Figure 7"].drop_duplicates("init").set_index("init")["out"]
    assert outs.to_dict() == {
        "pytorch": None,
        "he": True,
        "lecun": None,
        "glorot": False,
        "flax": False,
        "haiku": False,
        "keras": None,
    }
    shown = unstated.side_by_side(made).loc[:, ("Figure 7", "pixels from 0 to 1")]
    assert shown["haiku"] == "✗ learns too little"
    assert shown["pytorch"] == "? learns little"
    assert shown["flax"] == "✗ diverged"
    assert shown["keras"] == "? not yet run"
