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
    words = unstated.finding(ALL)
    assert words.startswith("Does the test loss vary less backward? Of 6 variants of ")
    assert "input scaling, about its trend: less backward on 2, *more* backward on 1, " in words
    assert "; from step to step: not recorded on 5, diverged on 1. " in words
    assert "Of the 4 that learned something, about its trend: less backward on 1, " in words
    assert words.endswith(". Of 30 runs of each order, 0 forward and 3 backward diverged.")
    words = unstated.finding(table({"side": "below"}))
    assert "input scaling, about its trend: *more* backward on 1; " in words
    assert "Of the 1 that learned something, about its trend: *more* backward on 1; " in words


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
    assert shown.loc[4, "backward, diverged"] == "3 of 5"


def test_the_choices_are_those_of_the_studies():
    found = unstated.choices().set_index(["experiment", "choice"])
    setting = experiments.get("figure-4").size("paper").setting
    assert found.loc[("figure-4", "init"), "default"] == setting.init
    assert "lecun" in found.loc[("figure-4", "init"), "also tried"]
    assert not any(name.startswith("motion-") for name, _ in found.index)
