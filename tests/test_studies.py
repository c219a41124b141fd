"""Studies: what is computed is kept, shown whole, told when stale, and found again."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from revlib.runs.studies import Size, Study

from revlib import cli
from revlib.runs import studies
from revlib.store import datasets, results


@dataclasses.dataclass(frozen=True)
class Parameters:
    """What the tiny study depends on."""

    base: float
    nudge: int = 0


def powers(parameters, seed, case):
    """Yield powers; the case "lost" ends after its second row, the case "broken" fails."""
    if case == "broken":
        raise KeyboardInterrupt
    for n in (0, 2, 4):
        yield {"step": n, "test_loss": seed + (parameters.base + len(case)) ** n}
        if case == "lost" and n == 2:
            return


CASES = ("one", "three", "lost")


def study(compute=powers, cases=CASES, **fields):
    """Return a study of powers in two sizes, which a test may change."""
    size = Size(Parameters(1.0), (0, 1), cases, (0, 2, 4))
    presets = {"ci": size, "paper": dataclasses.replace(size, seeds=(0, 1, 2))}
    known = {"title": "Powers", "section": "0", "chapter": "none", "code": ("models", powers)}
    return Study(name="powers", presets=presets, compute=compute, **(known | fields))


@pytest.fixture
def known(monkeypatch, tmp_path):
    """A function that makes a study the only one; the store is in the current folder."""
    monkeypatch.chdir(tmp_path)

    def let(**changes):
        found = study(**changes)
        monkeypatch.setattr(studies, "known", lambda: {"powers": found})
        return found

    let()
    return let


def test_every_case_of_every_seed_is_stored_and_read(known):
    table = studies.run("powers", progress=False)
    assert set(zip(table["seed"], table["order"], strict=True)) == {
        (seed, case) for seed in (0, 1, 2) for case in CASES
    }
    read = studies.stored("powers").set_index(["seed", "order", "step"])["test_loss"]
    assert read[1, "three", 2] == 1 + 6**2
    assert read[2, "one", 4] == 2 + 4**4
    pd.testing.assert_frame_equal(studies.compute("powers", "paper"), studies.stored("powers"))


def test_what_a_lost_training_does_not_reach_is_not_a_number(known):
    studies.run("powers", progress=False)
    for table in (studies.stored("powers"), studies.compute("powers")):
        lost = table[table["order"] == "lost"].set_index(["seed", "step"])["test_loss"]
        assert np.isfinite(lost[0, 2])
        assert np.isnan(lost[0, 4])


def test_a_stopped_run_goes_on_where_it_was(known, monkeypatch):
    known(cases=("one", "broken", "three"))
    with pytest.raises(KeyboardInterrupt):
        studies.run("powers", progress=False)
    assert set(studies.stored("powers")["order"]) == {"one"}
    computed = []

    def noted(parameters, seed, case):
        computed.append((seed, case))
        return powers(parameters, seed, case)

    known(compute=noted)
    studies.run("powers", progress=False)
    assert (0, "one") not in computed
    assert len(computed) == len(set(computed)) == 8


def test_only_whole_seeds_are_shown(known):
    known(cases=("one",))
    studies.run("powers", seeds=[2], progress=False)
    known()
    studies.run("powers", seeds=[0], progress=False)
    shown = studies.shown("powers", "paper")
    assert shown.preset == "paper"
    assert set(shown.table["seed"]) == {0}
    assert "stored results" in shown.note
    assert "1 seed," in shown.note


def test_where_nothing_is_stored_the_small_size_stands_in_and_says_so(known):
    shown = studies.shown("powers", "paper")
    assert shown.preset == "ci"
    assert set(shown.table["seed"]) == {0, 1}
    assert "stands in" in shown.note
    assert "none of a whole seed" in shown.note


@pytest.mark.parametrize("changed", ["parameters", "steps", "code"])
def test_results_of_another_configuration_are_stale_and_not_shown(known, changed):
    studies.run("powers", progress=False)
    assert not studies.stale("powers")
    if changed == "code":
        known(code=("models", powers, study))
    else:
        old = studies.get("powers").presets["paper"]
        field = {"parameters": Parameters(2.0), "steps": (0, 2)}[changed]
        known().presets["paper"] = dataclasses.replace(old, **{changed: field})
    assert len(studies.stale("powers")) == 1
    assert studies.stored("powers").empty
    assert studies.shown("powers", "paper").preset == "ci"
    assert "Skipped" in studies.audited("powers")


def test_an_audit_renews_what_is_found_equal(known):
    studies.run("powers", progress=False)
    rows = len(studies.stored("powers"))
    assert not studies.audit("powers")["renewed"].any()
    known(code=("models", powers, study))
    points = studies.audit("powers", cases=20)
    assert points["equal"].all()
    assert points["renewed"].all()
    assert set(points["step"]) == {0, 2}  # the beginning of each case
    assert points.drop_duplicates(["seed", "order"]).shape[0] == 9
    assert len(studies.stored("powers")) == rows


def test_an_audit_finds_what_is_wrong_and_renews_nothing(known):
    studies.run("powers", progress=False)

    def wrong(parameters, seed, case):
        for row in powers(parameters, seed, case):
            yield row | {"test_loss": row["test_loss"] * 1.01}

    known(compute=wrong, code=("models", powers, study))
    assert not studies.audit("powers")["equal"].any()
    assert len(studies.stale("powers")) == 1
    known(compute=wrong)
    assert "**not all equal**" in studies.audited("powers")


def test_a_chapter_audits_what_it_shows_and_says_when_it_cannot(known, monkeypatch, tmp_path):
    assert "nothing is stored" in studies.audited("powers")
    studies.run("powers", progress=False)
    assert "all equal" in studies.audited("powers")
    known(data="fashion_mnist")
    monkeypatch.setattr(datasets, "load", lambda name, sample: datasets.Dataset)
    monkeypatch.setenv("REVLIB_DATA", str(tmp_path))
    assert "data is not on this machine" in studies.audited("powers")


def test_unknown_names_are_refused_with_the_valid_ones(known):
    with pytest.raises(ValueError, match=r"no study 'x'. Valid are: powers"):
        studies.run("x")
    with pytest.raises(ValueError, match=r"no preset 'huge'. Valid are: ci, paper"):
        studies.shown("powers", "huge")
    with pytest.raises(ValueError, match="Nothing is stored of powers"):
        studies.audit("powers")


@pytest.mark.slow
def test_the_numbers_do_not_depend_on_the_number_of_workers():
    """On a real study, whose module the workers import for themselves."""
    name = "figure-14"
    size = studies.get(name).preset("ci")
    one, two = (
        sorted(
            (row for rows in studies._computed(studies.get(name), size, keys, n) for row in rows),
            key=lambda row: [row[key] for key in results.KEYS],
        )
        for keys in [[(0, "large batch, h"), (1, "order average")]]
        for n in (1, 2)
    )
    assert one == two


def test_the_command_line_runs_lists_and_audits_studies(known, capsys):
    assert cli.main(["run", "powers", "--preset", "ci"]) == 0
    assert "18 rows of powers, preset ci, are stored." in capsys.readouterr().out
    assert cli.main(["list"]) == 0
    assert "2 seeds of 3 cases, 3 steps recorded; 18 rows stored" in capsys.readouterr().out
    assert cli.main(["audit", "powers", "--preset", "ci"]) == 0
    assert "Equal." in capsys.readouterr().out
    known(code=("models", study))
    cli.main(["list"])
    assert "`revlib audit powers --preset ci` renews" in capsys.readouterr().out
    assert cli.main(["run", "powers", "--every", "2", "--set", "h=1"]) == 2
    assert "powers is a study, which takes no --set, --every." in capsys.readouterr().err
