"""The sentences about contraction say what the table says, whichever way it falls."""

import pandas as pd
import pytest

from revlib.verdicts import contraction


def table(rates=(0.01, 0.02), ratios=(5.0, 1.0), seeds=5, moved=3.0, stretch=2.0):
    """Return two experiments, of which each has a rate and a ratio of spreads."""
    rows = [
        {
            "experiment": name,
            "seed": seed,
            "step": 100,
            "contraction_rate": rate + 1e-4 * seed,
            "tangent_contraction_rate": 0.0,
            "stretch": stretch,
            "moved": moved,
            "predictions_moved": 0.5,
            "calm": ratio * (1 + 0.01 * (seed - 2)),
        }
        for name, rate, ratio in zip(("figure-4", "figure-7"), rates, ratios, strict=True)
        for seed in range(seeds)
    ]
    return pd.DataFrame(rows)


def test_smooth_curves_without_contraction_are_named():
    words = contraction.finding(table())
    assert words.startswith("Along the backward chain the maps contract on 0 of 10 runs; without")
    assert "the backward test loss varies less in Figure 4, so contraction in every" in words


def test_where_all_smooth_ones_contract_the_sentence_says_so():
    words = contraction.finding(table(rates=(-0.01, 0.02)))
    assert words == (
        "Along the backward chain the maps contract on 5 of 10 runs; they contract wherever the "
        "test loss varies less backward: Figure 4."
    )


def test_of_too_few_seeds_nothing_is_concluded():
    words = contraction.finding(table(seeds=2))
    assert "so contraction" not in words
    assert words.endswith(
        "whether the test loss varies less backward is undecided, or on too few seeds, in "
        "Figure 4, Figure 7."
    )


def test_each_experiment_is_in_its_group():
    lines = contraction.groups(table(rates=(0.01, -0.02))).splitlines()
    ends = [line.rsplit(": ", 1)[1] for line in lines]
    assert ends == ["Figure 7.", "Figure 4.", "none.", "Figure 7.", "none."]
    lines = contraction.groups(table(stretch=0.5)).splitlines()
    assert lines[-1].endswith(": Figure 4, Figure 7.")


@pytest.mark.parametrize(
    ("moved", "ends"),
    [(3.0, ["Figure 4;", "Figure 7;", "none."]), (0.3, ["none;", "none;", "Figure 4, Figure 7."])],
)
def test_how_far_a_step_moves(moved, ends):
    lines = contraction.moving(table(moved=moved)).splitlines()
    assert [line.rsplit(": ", 1)[1] for line in lines] == ends
    shown = contraction.moves(table(moved=moved)).set_index("experiment").loc["Figure 4"]
    assert shown["moved in θ, backward / forward"] == f"{moved:g}"
    assert shown["further on"] == f"{5 * (moved > 1)} of 5 seeds"


def test_rates_are_shown_and_counted_by_kind():
    shown = contraction.rates(table(rates=(-0.01, 0.02))).set_index("experiment")
    assert shown.loc["Figure 4", "contraction rate"] == "-0.0098"
    assert shown["negative on"].tolist() == ["5 of 5 seeds", "0 of 5 seeds"]
    lines = contraction.negative(table(rates=(-0.01, 0.02))).splitlines()
    assert lines[0].startswith("- **Regression**: yes, on 5 of 5 runs; rates from -0.0100 to ")
    assert lines[1].startswith("- **Classification**: no, on 0 of 5 runs; rates from +0.0200 to ")


def test_the_summary_gives_each_its_verdict():
    lines = contraction.summary(table(ratios=(5.0, 0.2))).splitlines()
    assert "Does the test loss vary less backward? Yes, 5 (95%" in lines[0]
    assert "Does the test loss vary less backward? No, *more*, 0.2 (95%" in lines[1]
    assert "One step moves θ 3 times as far backward as forward." in lines[0]
    assert "Too few seeds, 4.9 (2 seeds)" in contraction.summary(table(seeds=2))
