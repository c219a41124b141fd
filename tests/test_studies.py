"""Studies whose cases are computed whole: kept, shown whole, told when stale, found again."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from tiny import SETTING

from revlib import cli, experiments, runs
from revlib.experiments import Size, Study, Whole
from revlib.runs import engine
from revlib.runs.engine import Plan
from revlib.store import datasets, provenance, reachable, results
from revlib.training.settings import Setting


@dataclasses.dataclass(frozen=True)
class Parameters:
    """What the tiny study depends on."""

    setting: Setting
    base: float


def powers(parameters, seed, case):
    """Yield powers; the case "lost" ends after its second row, the case "broken" fails."""
    if case == "broken":
        raise KeyboardInterrupt
    for n in (0, 2, 4):
        yield {"step": n, "test_loss": seed + (parameters.base + len(case)) ** n}
        if case == "lost" and n == 2:
            return


def wrong(parameters, seed, case):
    for row in powers(parameters, seed, case):
        yield row | {"test_loss": row["test_loss"] * 1.01}


CASES = ("one", "three", "lost")
PARAMETERS = {
    "sample": Parameters(SETTING, 1.0),
    "paper": Parameters(SETTING.changed(sample=False), 1.0),
}


def study(function=powers, cases=CASES, at=(0, 2, 4), base=1.0):
    """Return a study of powers in two sizes, which a test may change."""
    sizes = {
        name: Size(
            dataclasses.replace(parameters, base=base),
            {"sample": (0, 1), "paper": (0, 1, 2)}[name],
            cases,
            4,
            at=at,
        )
        for name, parameters in PARAMETERS.items()
    }
    return Study("powers", "Powers", "0", "none", sizes, Whole(function))


@pytest.fixture
def known(monkeypatch, tmp_path):
    """A function that makes a study the only one; the store is in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REVLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(Setting, "digest", lambda setting: f"data of {setting.sample}")

    def let(**changes):
        found = study(**changes)
        monkeypatch.setattr(experiments, "STUDIES", {"powers": found})
        return found

    let()
    return let


@pytest.fixture
def data_at_hand(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "fashion_mnist.npz").touch()


def edit(patch):
    """Take the code for edited, without another effect."""
    code = reachable.code
    patch.setattr(reachable, "code", lambda *roots: code(*roots) | {"test_studies.powers": "0"})


def run(**options):
    return runs.run("powers", progress=False, **options)


def test_every_case_of_every_seed_is_stored_and_read(known):
    table = run()
    assert set(zip(table["seed"], table["order"], strict=True)) == {
        (seed, case) for seed in (0, 1, 2) for case in CASES
    }
    read = runs.stored("powers").set_index(["seed", "order", "step"])["test_loss"]
    assert read[1, "three", 2] == 1 + 6**2
    assert read[2, "one", 4] == 2 + 4**4
    pd.testing.assert_frame_equal(table, runs.stored("powers"))
    pd.testing.assert_frame_equal(runs.compute("powers", "paper"), runs.stored("powers"))


def test_what_a_lost_training_does_not_reach_is_not_a_number(known):
    run()
    for table in (runs.stored("powers"), runs.compute("powers"), runs.shown("powers").table):
        lost = table[table["order"] == "lost"].set_index(["seed", "step"])["test_loss"]
        assert np.isfinite(lost[0, 2])
        assert np.isnan(lost[0, 4])


def test_a_stopped_run_goes_on_where_it_was(known, monkeypatch):
    broken = study(cases=("one", "broken", "three"))
    sizes = {"sample": study().sizes["sample"], "paper": broken.sizes["paper"]}
    monkeypatch.setattr(
        experiments, "STUDIES", {"powers": dataclasses.replace(broken, sizes=sizes)}
    )
    with pytest.raises(KeyboardInterrupt):
        run()
    assert set(runs.stored("powers")["order"]) == {"one"}
    computed = []

    def noted(parameters, seed, case):
        computed.append((seed, case))
        return powers(parameters, seed, case)

    code = reachable.code(*broken.method.roots(PARAMETERS["paper"], CASES))
    monkeypatch.setattr(reachable, "code", lambda *_: code)
    known(function=noted)
    run()
    assert (0, "one") not in computed
    assert len(computed) == len(set(computed)) == 8
    run()  # a case that ended early is not computed again
    assert len(computed) == 8


def test_only_whole_seeds_are_shown(known):
    known(cases=("one",))
    run(seeds=[2])
    known()
    run(seeds=[0])
    found = runs.shown("powers", "paper")
    assert found.preset == "paper"
    assert set(found.table["seed"]) == {0}
    assert "results stored in `results/powers/paper`" in found.note
    assert "1 seed," in found.note
    assert runs.shown("powers", "paper", seeds=[2]).preset == "sample"


def test_where_nothing_is_stored_the_small_size_stands_in_and_says_so(known):
    found = runs.shown("powers", "paper")
    assert found.preset == "sample"
    assert set(found.table["seed"]) == {0, 1}
    assert found.note.endswith(
        "It is shown in place of the preset paper: none are stored. "
        "`revlib run powers` computes them."
    )


@pytest.mark.parametrize("changed", ["parameters", "steps", "code"])
def test_results_of_another_configuration_are_stale_and_not_shown(known, changed, monkeypatch):
    run()
    assert not runs.stale("powers")
    if changed == "code":
        edit(monkeypatch)
    else:
        known(**{"parameters": {"base": 2.0}, "steps": {"at": (0, 2)}}[changed])
    words = {
        "parameters": "base 1.0 instead of 2.0",
        "steps": "recorded [0, 2, 4] instead of [0, 2]",
        "code": "other code in test_studies.powers",
    }
    assert runs.stale("powers") == [f"{3 * (3 + 3 + 2)} rows with {words[changed]}"]
    assert runs.stored("powers").empty
    assert runs.shown("powers", "paper").preset == "sample"
    assert "Skipped" in runs.audited("powers")


def test_an_audit_renews_what_is_found_equal(known, monkeypatch):
    run()
    rows = len(runs.stored("powers"))
    [sound] = runs.audit("powers")
    assert not sound.renewed
    edit(monkeypatch)
    [found] = runs.audit("powers", points=20)
    assert found.points["equal"].all()
    assert found.renewed
    assert set(found.points["step"]) == {0, 2}  # the beginning of each case
    assert found.points.drop_duplicates(["seed", "order"]).shape[0] == 9
    assert len(runs.stored("powers")) == rows


def test_an_audit_takes_as_many_cases_as_are_asked_for_and_can_be_repeated(known):
    run()
    [one], [again] = (runs.audit("powers", points=2, draw=draw) for draw in (5, 5))
    assert one.points.drop_duplicates(["seed", "order"]).shape[0] == 2
    pd.testing.assert_frame_equal(one.points, again.points)


def test_an_audit_finds_what_is_wrong_and_renews_nothing(known):
    run()
    code = reachable.code(*Whole(powers).roots(PARAMETERS["paper"], CASES))
    known(function=wrong)
    [found] = runs.audit("powers")
    assert not found.points["equal"].any()
    assert not found.renewed
    assert len(runs.stale("powers")) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.Plan, "has_data", True)
        patch.setattr(reachable, "code", lambda *_: code)
        assert "**not all equal**" in runs.audited("powers")


@pytest.mark.parametrize("change", [{"at": (0, 2)}, {"at": (0, 2, 3)}], ids=["fewer", "others"])
def test_an_audit_of_cases_that_only_begin_alike_renews_nothing(known, change):
    run()
    known(**change)
    [found] = runs.audit("powers", points=20)
    assert found.passed
    assert not found.renewed
    assert runs.stored("powers").empty


def test_an_audit_of_steps_that_are_not_stored_finds_them_unequal(known):
    run()

    def others(parameters, seed, case):
        yield {"step": 1, "test_loss": 0.0}

    known(function=others)
    [found] = runs.audit("powers", points=1)
    assert not found.passed
    assert found.points["stored"].isna().all()


def test_a_chapter_audits_what_it_shows_and_says_when_it_cannot(known, tmp_path):
    assert "nothing is stored" in runs.audited("powers")
    run()
    assert "data is not on this machine" in runs.audited("powers")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "fashion_mnist.npz").touch()
    text = runs.audited("powers")
    assert "all equal" in text
    assert text.count("| test_loss |") == 2  # the start of one case, and the step after it


def test_unknown_names_are_refused_with_the_valid_ones(known):
    with pytest.raises(ValueError, match=r"no study 'x'. Valid are: powers"):
        runs.run("x")
    with pytest.raises(ValueError, match=r"no preset 'huge'. Valid are: sample, paper"):
        runs.shown("powers", "huge")
    with pytest.raises(ValueError, match="Nothing is stored of powers"):
        runs.audit("powers")


@pytest.mark.parametrize("chosen", [{"every": 2}, {"last": 2}, {"every": 1, "last": 3}])
def test_neither_a_spacing_nor_a_last_step_is_taken(known, chosen):
    message = "The cases of powers are computed whole: it takes neither a spacing of steps nor a"
    with pytest.raises(ValueError, match=message):
        run(**chosen)
    if "last" not in chosen:
        for function in (runs.compute, runs.shown):
            with pytest.raises(ValueError, match=message):
                function("powers", "sample", **chosen)
    assert not results.root().exists()


def test_a_changed_setting_is_stored_apart(known):
    run(init="glorot")
    assert runs.stored("powers").empty
    assert len(runs.stored("powers", init="glorot"))
    assert [changes for *_, changes in results.kept()] == [{"init": "glorot"}]
    found = runs.shown("powers", "paper", init="glorot")
    assert found.note.startswith("Preset paper with init=glorot: results stored in")


def test_a_rehearsal_is_kept_and_renews(known, monkeypatch):
    table = run()
    rehearsal = runs.source("powers").rehearsal()
    pd.testing.assert_frame_equal(rehearsal, runs.compute("powers", "sample", [0]))
    edit(monkeypatch)
    [found] = runs.renew("powers")
    assert found.renewed
    pd.testing.assert_frame_equal(runs.stored("powers"), table)


def test_a_rehearsal_that_comes_out_otherwise_renews_nothing(known):
    run()
    known(function=wrong)
    [found] = runs.renew("powers")
    assert (found.rows, found.renewed) == (24, False)
    assert found.words == (
        "stale: its rehearsal comes out otherwise, first test_loss of lost at step 0, "
        "1 then and 1.01 now"
    )
    assert len(runs.stale("powers")) == 1


def test_another_study_is_not_rehearsed(known):
    run()
    known(base=2.0)
    [found] = runs.renew("powers")
    assert not found.renewed
    assert "cannot be rehearsed: base 1.0 instead of 2.0. `revlib audit powers`" in found.words


@dataclasses.dataclass(frozen=True)
class Grown(Setting):
    """A setting with a field that it did not always have."""

    warmup: int = 0


def test_a_field_that_the_setting_has_gained_is_no_hindrance(known, monkeypatch):
    table = run()
    found = study()
    for name, size in found.sizes.items():
        grown = Grown(**vars(size.setting))
        parameters = dataclasses.replace(size.parameters, setting=grown)
        found.sizes[name] = dataclasses.replace(size, parameters=parameters)
    monkeypatch.setattr(experiments, "STUDIES", {"powers": found})
    assert runs.stale("powers") == ["24 rows with setting.warmup None instead of 0"]
    [renewal] = runs.renew("powers")
    assert renewal.renewed
    pd.testing.assert_frame_equal(runs.stored("powers"), table)


def test_other_data_at_hand_is_not_renewed(known, monkeypatch, data_at_hand):
    run()
    edit(monkeypatch)
    monkeypatch.setattr(Setting, "digest", lambda setting: "others")
    [found] = runs.renew("powers")
    assert not found.renewed
    assert "cannot be rehearsed: other data. " in found.words


@pytest.mark.slow
def test_the_numbers_do_not_depend_on_the_number_of_workers():
    """On a real study, whose module the workers import for themselves."""
    plan = Plan.of("figure-14", "sample")
    wanted = [
        want
        for want in plan.missing(pd.DataFrame(columns=results.KEYS))
        if (want.seed, want.case) in [(0, "large batch, h"), (1, "order average")]
    ]
    assert len(wanted) == 2
    one, two = (
        sorted(
            (row for rows in plan.compute(wanted, workers) for row in rows),
            key=lambda row: [row[key] for key in results.KEYS],
        )
        for workers in (1, 2)
    )
    assert one == two


def test_the_command_line_runs_lists_renews_and_audits_studies(known, capsys, monkeypatch):
    assert cli.main(["run", "powers", "--preset", "sample"]) == 0
    assert "18 rows of powers, preset sample, are stored." in capsys.readouterr().out
    assert cli.main(["list"]) == 0
    assert "2 seeds of 3 cases, 3 of 5 steps recorded; 16 rows stored" in capsys.readouterr().out
    assert cli.main(["audit", "powers", "--preset", "sample"]) == 0
    assert "Equal." in capsys.readouterr().out
    edit(monkeypatch)
    cli.main(["list"])
    out = capsys.readouterr().out
    assert "`revlib renew powers` renews what still holds" in out
    assert "`revlib audit powers --preset sample`" in out
    assert cli.main(["renew"]) == 0
    assert capsys.readouterr().out == (
        "powers --preset sample, 16 rows: renewed by rehearsal: 8 numbers of the sample come out "
        "equal.\n"
    )
    assert cli.main(["run", "powers", "--every", "2"]) == 2
    assert "The cases of powers are computed whole" in capsys.readouterr().err


def test_looking_loads_no_data(known, monkeypatch):
    run()
    monkeypatch.setattr(datasets, "load", lambda *_, **__: pytest.fail("data was loaded"))
    assert runs.shown("powers", "paper").preset == "paper"
    assert not runs.stale("powers")


def test_a_function_that_takes_no_device_is_not_moved_to_one(known):
    with pytest.raises(ValueError, match="computed on the processor, not on 'cpu'"):
        runs.run("powers", "sample", device="cpu", progress=False)


def test_a_seed_begins_where_its_cases_from_another_machine_did(known, monkeypatch):
    monkeypatch.setattr(reachable, "code", lambda *roots: {})
    known(cases=("one",))
    run()
    monkeypatch.setattr(provenance, "machine", lambda: "another one")
    known(function=wrong)
    message = r"Of seed 0 rows .* begins somewhere else \(test_loss 1.01 instead of 1 at step 0\)"
    with pytest.raises(ValueError, match=message):
        run()
    known()
    assert set(run()["order"]) == set(CASES)
