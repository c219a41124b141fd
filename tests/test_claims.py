"""Claims: what cannot be judged is refused, and what is missing never gives a wrong verdict."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from made_up import BACKWARD, FORWARD, STEPS, claim, ends, paths, project, stored
from tiny import MOTION, SETTING, TINY

from revlib import cli, experiments, runs
from revlib.experiments import Size, Study, Whole
from revlib.runs.engine import Plan
from revlib.store import reachable, results
from revlib.training.settings import Setting
from revlib.verdicts import claims, findings, judging, stability, tables
from revlib.verdicts.claims import QUANTITIES
from revlib.verdicts.effects import CRITERIA
from revlib.verdicts.judging import VERDICTS, judge

__all__ = ["project"]
ROOT = Path(__file__).resolve().parent.parent

LOWER = ends([5, 5, 5], [1, 2, 1])
HIGHER = ends([1, 2, 1], [5, 5, 5])


# Verdicts


@pytest.mark.parametrize(
    ("made", "verdict", "told"),
    [
        (LOWER, "reproduced", "+3.7 (+2.2 to +5.1)."),
        (HIGHER, "contradicted", "-3.7 (-5.1 to -2.2)."),
        (ends([5, 5, 5], [1, 9, 5]), "undecided", "+0 (-9.9 to +9.9). With this spread more than "),
        (ends([5, 5, 5], [1, 8, 3]), "undecided", "+1 (-8 to +10). With this spread 53 seeds"),
        (ends([5, 5], [1, 2]), "too few", "+3.5 (-2.9 to +9.9)."),
        (ends([5], [1]), "too few", "+4 (no interval from 1 seed)."),
        (ends([5] * 6, [1] * 5 + [np.nan]), "undecided", "+4 (minus infinite to +4; median, by"),
        (ends([np.inf] * 6, [1] * 6), "reproduced", "infinite (infinite to infinite; median, by"),
        (ends([np.inf] * 6, [np.nan] * 6), "undecided", "+0 (+0 to +0; median, by the sign test)"),
    ],
)
def test_what_is_stored_is_judged(project, made, verdict, told):
    stored(test_loss=made)
    found = judge(claim())
    assert found.verdict == verdict
    assert f"By how much lower: {BACKWARD} instead of {FORWARD} {told}" in found.evidence
    assert len(found.per_seed) == len(made) / 2
    assert found.steps == 2


def test_a_referee_can_compute_the_verdict_again(project):
    stored(test_loss=LOWER)
    found = judge(claim())
    assert found.per_seed["effect"].tolist() == [4, 3, 4]
    assert found.per_seed["last"].tolist() == [32] * 3
    assert found.readings["test_loss"].effects[f"{BACKWARD} instead of {FORWARD}"].mean == (
        pytest.approx(11 / 3)
    )


def test_no_effect_is_told_to_be_none(project):
    stored(test_loss=ends([5, 5, 5], [5.01, 4.99, 5]))
    found = judge(claim(band=0.1))
    assert found.verdict == "contradicted"
    assert found.evidence.endswith("That counts as no effect.")
    assert judge(claim()).verdict == "undecided"


def test_an_effect_of_known_side_inside_the_band_is_told_to_be_small(project):
    stored(test_loss=ends([5, 5, 5], [4.98, 4.99, 4.98]))
    assert "The effect is small" not in judge(claim(band=0.01)).evidence
    found = judge(claim(band=0.1))
    assert found.verdict == "reproduced"
    assert found.evidence.endswith("within the band of no effect.")


def test_ratios_are_told_as_ratios(project):
    stored(test_loss=ends([5, 5, 5], [1, 2, 1]))
    found = judge(claim(criterion="lower_ratio", band=1.25))
    assert found.verdict == "reproduced"
    assert " 4 (1.47 to 11)." in found.evidence


def test_the_accuracy_of_a_diverged_path_is_not_the_better_one(project):
    accuracy, loss = ends([0.1] * 6, [0.9] * 6), ends([np.inf] * 6, [1] * 6)
    stored(test_accuracy=accuracy, test_loss=loss)
    found = judge(claim(quantity=("test_accuracy",), orders=(BACKWARD, FORWARD)))
    assert found.verdict == "contradicted"


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"made_by": "nobody"}, "holds"),
        ({"made_by": "nobody", "orders": (BACKWARD, FORWARD)}, "does not hold"),
        ({"excluded_by": "prop-same"}, "excluded"),
        ({"proved_by": "prop-same"}, "proved"),
        ({"proved_by": "prop-same", "quantity": ("train_loss",)}, "proved"),
        ({"made_by": "nobody", "quantity": ("train_loss",)}, "not yet run"),
    ],
)
def test_who_makes_it_and_what_is_proved_decides_the_word(project, fields, verdict):
    stored(test_loss=LOWER)
    found = judge(claim(**fields))
    assert found.verdict == verdict
    assert ("By how much lower" in found.evidence) == (found.claim.quantity == ("test_loss",))
    assert verdict in VERDICTS


@pytest.mark.parametrize(
    ("train", "batch", "verdict"),
    [
        (LOWER, LOWER, "reproduced"),
        (HIGHER, HIGHER, "contradicted"),
        (HIGHER, LOWER, "under-specified"),
        (ends([5, 5, 5], [1, 9, 5]), LOWER, "undecided"),
    ],
)
def test_readings_are_judged_one_by_one(project, train, batch, verdict):
    stored(train_loss=train, batch_loss=batch)
    found = judge(claim(quantity=("train_loss", "batch_loss")))
    assert found.verdict == verdict
    for name in ("train_loss", "batch_loss"):
        alone = judge(claim(quantity=(name,)))
        told = f"*{QUANTITIES[name].capitalize()}*: {alone.verdict}. {alone.evidence}"
        assert told in found.evidence
    assert set(found.per_seed["reading"]) == {"train_loss", "batch_loss"}


@pytest.mark.parametrize(
    ("there", "verdict"),
    [(LOWER, "reproduced"), (HIGHER, "under-specified"), ([LOWER, ends([5], [1])], "undecided")],
)
def test_a_choice_that_is_left_open_makes_readings_too(project, there, verdict):
    here, there = there if isinstance(there, list) else (LOWER, there)
    stored(test_loss=here)
    other = {"init": "lecun"}
    asked = claim(settings=({}, other))
    alone = judge(asked)
    assert (alone.verdict, alone.seeds, len(alone.files)) == ("reproduced", 3, 1)
    assert alone.evidence.endswith("*Init lecun*: not recorded.")
    stored(other, test_loss=there)
    found = judge(asked)
    assert found.verdict == verdict
    assert found.seeds == len(there) / 2
    assert found.evidence.startswith("*He's weights*: reproduced. By how much lower")
    assert list(found.readings) == ["test_loss", "test_loss init=lecun"]
    assert len(found.files) == 2


def test_a_reading_that_was_not_recorded_is_told(project):
    stored(train_loss=LOWER)
    found = judge(claim(quantity=("train_loss", "batch_loss")))
    assert found.verdict == "reproduced"
    assert found.evidence.endswith("*Loss on the batch applied last*: not recorded.")
    assert judge(claim(quantity=("batch_loss",))).verdict == "not yet run"


def test_the_change_from_step_to_step_is_shown_beside_the_verdict(project, monkeypatch):
    recorded = list(range(1, 33))
    every = dataclasses.replace(TINY.sizes["paper"], every=1)
    monkeypatch.setitem(TINY.sizes, "paper", every)
    noise = np.random.default_rng(0).normal(size=(3, 32))
    larger = [[5], [5.5], [4.5]] * noise
    stored(steps=recorded, test_loss=paths(larger, noise))
    found = judge(claim(criterion="calmer", windows=((1, 32),), band=1.25))
    assert found.verdict == "reproduced"
    assert found.evidence.startswith("Spread about a smooth trend, forward divided by backward: 5 ")
    assert "Change from a step to the next, forward divided by backward: 5 " in found.evidence
    assert np.allclose(np.exp(found.per_seed["effect"]), [5, 5.5, 4.5])


# Missing results


def not_yet_run(found, *evidence):
    assert found.verdict == "not yet run"
    assert found.seeds == found.steps == len(found.per_seed) == 0
    assert found.evidence == " ".join(evidence)
    return True


def test_nothing_stored(project):
    found = judge(claim())
    assert not_yet_run(found, "Nothing is stored.")
    assert found.files == ()


def test_seeds_count_only_where_all_that_is_needed_is_stored(project):
    forward = {key: values for key, values in LOWER.items() if key[1] == FORWARD}
    backward = {key: values[:3] for key, values in LOWER.items() if key[1] == BACKWARD}
    stored(test_loss=forward)
    stored(steps=STEPS[:3], test_loss=backward)
    why = "Of no seed are forward and backward stored in full over steps 24 to 32."
    assert not_yet_run(judge(claim()), why)
    stored(steps=STEPS[3:], test_loss={(0, BACKWARD): [1], (1, BACKWARD): [2]})
    found = judge(claim())
    assert (found.verdict, found.seeds) == ("too few", 2)
    stored(steps=STEPS[3:], test_loss={(2, BACKWARD): [1]})
    found = judge(claim())
    assert (found.verdict, found.seeds) == ("reproduced", 3)
    assert (results.root() / f"{found.files[0]}.json").exists()


def test_steps_that_the_preset_does_not_record_do_not_count(project):
    stored(test_loss=LOWER)
    before = judge(claim())
    stored(steps=[28], test_loss={(0, BACKWARD): [1000], (1, FORWARD): [1000]})
    after = judge(claim())
    pd.testing.assert_frame_equal(after.per_seed, before.per_seed)
    assert (after.verdict, after.steps) == (before.verdict, 2)


@pytest.mark.parametrize("cause", ["code", "setting"])
def test_results_of_another_configuration_give_no_verdict(project, monkeypatch, cause):
    stored(test_loss=LOWER)
    assert judge(claim()).verdict == "reproduced"
    if cause == "code":
        method = TINY.method
        other = reachable.code(*method.roots(SETTING, TINY.sizes["paper"].cases))
        other |= {"revlib.training.tasks.Task": "other"}
        monkeypatch.setattr(reachable, "code", lambda *_: other)
        why = "other code in revlib.training.tasks.Task"
    else:
        slower = TINY.sizes["paper"].changed(learning_rate=0.01)
        monkeypatch.setitem(TINY.sizes, "paper", slower)
        why = "learning_rate 0.05 instead of 0.01"
    assert not_yet_run(
        judge(claim()), f"The stored results are stale and not used: 24 rows with {why}."
    )


def test_what_was_really_run_is_judged(project):
    runs.run("tiny", progress=False)
    found = judge(claim(quantity=("train_loss", "batch_loss")))
    assert (found.seeds, found.steps) == (2, 2)
    table = runs.stored("tiny").query("step == 32").set_index(["order", "seed"])
    for case in found.per_seed.itertuples():
        at = table[case.reading]
        assert case.effect == pytest.approx(at[FORWARD, case.seed] - at[BACKWARD, case.seed])


@pytest.mark.parametrize("lacks", ["a seed", "a step", "an order"])
def test_orders_on_different_seeds_or_steps_are_refused(lacks):
    table = pd.DataFrame(
        {"seed": seed, "order": order, "step": n, "test_loss": 1.0}
        for seed in range(3)
        for order in (FORWARD, BACKWARD)
        for n in (24, 32)
    )
    gone = table["order"] == BACKWARD
    gone &= table["seed"] == 2 if lacks == "a seed" else True
    gone &= (table["step"] == 24) & (table["seed"] == 1) if lacks == "a step" else True
    with pytest.raises(ValueError, match="The claim 'a' compares forward, backward, which must be"):
        judging.reading(claim(), "test_loss", table[~gone])


# Several experiments


@dataclasses.dataclass(frozen=True)
class Parameters:
    """The parameters of a study that depends on nothing but a setting."""

    setting: Setting


def pace(parameters, seed, case):
    yield {"step": 5, "pace": {"a": 3, "b": 2, "c": 1}[case] + seed / 10}


def slower(parameters, seed, case):
    yield {"step": 5, "pace": {"a": 6, "b": 2, "c": 1}[case] + seed / 10}


@pytest.fixture
def studies(project, monkeypatch):
    """Two studies whose cases are no orders."""
    size = Size(Parameters(SETTING), (0, 1, 2), ("a", "b", "c"), 5, at=(5,))
    sizes, what = {"sample": size, "paper": size}, {"quantities": {"pace": "pace"}}
    for name, function in (("paces", pace), ("slower", slower)):
        study = Study(name, name, "0", "none", sizes, Whole(function), **what)
        monkeypatch.setitem(experiments.STUDIES, name, study)
    return entry(
        experiment="paces", quantity="pace", orders=["a", "b", "c"], windows=[[5, 5]], band=0.5
    )


def test_a_claim_can_be_about_a_study(project, studies):
    write(project, studies)
    [read] = claims.load()
    assert judge(read).verdict == "not yet run"
    runs.run("paces", seeds=[0, 1], progress=False)
    assert judge(read).verdict == "too few"
    runs.run("paces", progress=False)
    found = judge(read)
    assert (found.seeds, found.steps) == (3, 1)
    assert set(found.per_seed["part"]) == {"b instead of a", "c instead of b"}
    for changes, message in [
        ({"orders": ["a", "d"]}, "unknown order 'd'"),
        ({"orders": ["a"]}, "has 1 orders; lower takes 2 or more"),
        ({"quantity": "path"}, "unknown quantity 'path'"),
        ({"experiment": "pace"}, "unknown experiment 'pace'"),
    ]:
        with pytest.raises(ValueError, match=message):
            claims.load(write(project, studies | changes))


def test_a_claim_can_be_about_several(project, studies):
    asked = studies | {"experiment": ["paces", "slower"], "orders": ["a", "c"]}
    [read] = claims.load(write(project, asked | {"criterion": "grows", "band": 1}))
    assert "Nothing" not in judge(read).evidence
    runs.run("paces", progress=False)
    assert judge(read).evidence == "No slower is stored."
    runs.run("slower", progress=False)
    found = judge(read)
    assert (found.verdict, len(found.files)) == ("reproduced", 2)
    lead = [np.log((6 + s / 10) / (3 + s / 10)) for s in range(3)]
    assert found.per_seed["effect"].tolist() == pytest.approx(lead)
    assert "c (slower) instead of c (paces)" in found.evidence


# The file


def entry(**fields):
    given = claim()
    listed = {name: value for name, value in vars(given).items() if value not in ("", ())}
    listed = {f: list(v) if isinstance(v, tuple) else v for f, v in listed.items() if f != "band"}
    return listed | {"windows": [list(window) for window in given.windows]} | fields


def write(project, *entries):
    path = project / "book" / "claims.yml"
    path.write_text(yaml.safe_dump(list(entries)))
    return path


def test_what_is_written_is_read(project):
    path = write(project, entry(), entry(id="b", quantity="test_loss", excluded_by="prop-same"))
    assert claims.load() == claims.load(path)
    assert claims.load() == [claim(), claim(id="b", excluded_by="prop-same")]


def test_the_band_of_a_ratio_is_the_books(project):
    write(project, entry(criterion="lower_ratio"), entry(id="b", criterion="lower_ratio", band=1))
    assert [each.band for each in claims.load()] == [1.25, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experiment": "none"}, "has the unknown experiment 'none'. Valid are: .*figure-1.*tiny"),
        ({"quantity": "speed"}, "has the unknown quantity 'speed'. Valid are: batch_accuracy,"),
        ({"quantity": [["test_loss"]]}, "has the unknown quantity"),
        ({"chapter": "some"}, "has the unknown chapter 'some'. Valid are: none."),
        ({"made_by": "me"}, "has the unknown author 'me'. Valid are: nobody, paper, "),
        ({"criterion": "better"}, "has the unknown criterion 'better'. Valid are: apart, "),
        ({"excluded_by": "prop-x"}, "has the unknown label 'prop-x'. Valid are: prop-same."),
        ({"orders": ["sideways", BACKWARD]}, "has the unknown order 'sideways'.*forward"),
        ({"orders": [FORWARD], "criterion": "nearer"}, "has 1 orders; nearer takes 3"),
        ({"windows": [[9, 15]]}, "over steps 9 to 15, where tiny must record a step of all its"),
        (
            {"criterion": "calmer"},
            "is judged over steps 24 to 32, where tiny must record at least 10 steps, with no gap "
            "of more than a quarter of the range, of all its orders: calmer needs that",
        ),
        ({"criterion": "calmer_step_by_step"}, "must record two neighbouring steps of all its"),
        ({"windows": [[8, 16, 24]]}, r"has the range \[8, 16, 24\]; a range of steps is"),
        ({"windows": [[16, 8]]}, r"has the range \[16, 8\]; a range"),
        ({"windows": ["late"]}, "has the range 'late'"),
        ({"settings": [{}, {"init": "he"}]}, r"has the unknown setting '{'init': 'he'}'.*: {}"),
        ({"levels": [0.5]}, r"has the levels \[0.5\]; its criterion takes no levels"),
        ({"criterion": "stays_below"}, r"has the levels \[\]; its criterion needs levels, fract"),
        ({"criterion": "stays_below", "levels": [0]}, "must be a list of numbers above 0"),
        ({"criterion": "stays_below", "levels": ["x"]}, "must be a list of numbers above 0"),
        ({"criterion": "settles", "levels": [0.1]}, "has 1 ranges of steps; settles takes two"),
        ({"band": -1}, "has the band -1; it must be a number above 0, a difference"),
        ({"band": 0.9, "criterion": "lower_ratio"}, "has the band 0.9; it must be a number of 1"),
        (
            {"speed": 3},
            "has an unknown field 'speed'; its fields are: id, place, made_by, statement",
        ),
    ],
)
def test_a_claim_that_cannot_be_judged_is_refused(project, changes, message):
    with pytest.raises(ValueError, match=f"^The claim 'a' .*{message}"):
        claims.load(write(project, entry(**changes)))


def test_other_faults_of_the_file_are_told(project):
    lacking = entry()
    del lacking["place"]
    with pytest.raises(ValueError, match="The claim 'a' lacks place; its fields are: id, place"):
        claims.load(write(project, lacking))
    with pytest.raises(ValueError, match="The claim 'a' is there twice"):
        claims.load(write(project, entry(), entry()))
    with pytest.raises(ValueError, match="A claim is a mapping with an 'id', a text; got 3"):
        claims.load(write(project, 3))
    path = project / "book" / "claims.yml"
    path.write_text("a: [")
    with pytest.raises(ValueError, match="claims.yml is not valid YAML: "):
        claims.load(path)
    path.write_text("id: a")
    with pytest.raises(ValueError, match="must hold a list of claims"):
        claims.load(path)
    path.unlink()
    with pytest.raises(ValueError, match="There are no claims at "):
        claims.load()


# What readers see


def test_readings_of_our_own_questions_hold_or_do_not(project):
    stored(test_loss=LOWER, train_loss=LOWER)
    asked = {"made_by": "nobody", "quantity": ("test_loss", "train_loss")}
    assert judge(claim(**asked)).evidence.count(": holds. ") == 2
    assert ": reproduced. " in judge(claim(quantity=asked["quantity"])).evidence


def test_front_and_chapter_tell_the_same(project):
    stored(test_loss=LOWER)
    nobody = entry(id="c", made_by="nobody", orders=[BACKWARD, FORWARD])
    proved = entry(id="d", proved_by="prop-same")
    write(project, entry(), entry(id="b", quantity="train_loss"), nobody, proved)
    table = list(tables.verdicts())
    assert [row.verdict for row in table] == [
        "reproduced",
        "not yet run",
        "does not hold",
        "proved",
    ]
    assert [row.seeds for row in table] == [3] * 4
    front, chapter = tables.front().splitlines(), tables.of_chapter("none").splitlines()
    counts = "3 claims on 1 setting; 1 reproduced, 1 proved, 1 not yet run."
    assert f"- The paper's conjectures (Sections 1 and 5): {counts}" in front
    assert "- Questions of our own: 1 claim on 1 setting; 1 does not hold." in front
    assert any(line.startswith("2 of these claims are judged by an interval") for line in front)
    where = "{doc}`Section 0 <chapters/none>`"
    found = judging.estimate(judge(claims.load()[0]).readings["test_loss"], ratio=False)
    assert f"| It is lower. | **reproduced** | {found} | 3 |  | {where} |" in front
    meanings = {f"- **{name}**: {meaning}" for name, meaning in VERDICTS.items()}
    assert meanings < set(front)
    evidence = table[0].evidence
    start = f"| It is lower. (Section 0) | **reproduced**  | 3 | 2 from 24 to 32 | {evidence}"
    [line] = [line for line in chapter if line.startswith(start)]
    assert line.removeprefix(start).startswith(
        " Of the seeds, 2 were planned, and 1 added after a look at them: so the level is not"
    )
    assert any("**proved** {prf:ref}`prop-same`" in line for line in chapter)
    assert any("| It is lower. (our question) | **does not hold**" in line for line in chapter)
    assert f"- **lower**: {CRITERIA['lower'].rule}" in chapter
    assert chapter[-1] == f"Judged from the stored results `{table[0].files[0]}`."


def test_the_two_main_claims_have_a_row_for_each_setting(project, monkeypatch):
    for name, study in (("figure-70", TINY), ("figure-71", TINY)):
        size = dataclasses.replace(study.sizes["paper"], every=1)
        sizes = {**study.sizes, "paper": size}
        study = dataclasses.replace(study, name=name, sizes=sizes)
        monkeypatch.setitem(experiments.STUDIES, name, study)
    common = {"windows": [[1, 32]], "experiment": "figure-70", "criterion": "calmer"}
    calm = entry(**common)
    again = entry(**common | {"id": "b", "experiment": "figure-71"})
    fast = entry(
        **common | {"id": "c", "windows": [[0, 32]], "criterion": "stays_below", "levels": [0.5]}
    )
    write(project, calm, again, fast)
    for name in ("motion-figure-70", "motion-figure-71"):
        monkeypatch.setitem(experiments.STUDIES, name, MOTION)
    told = tables.by_setting([judge(each) for each in claims.load()]).splitlines()
    [row] = told[2 : told.index("")]
    first, second = "figure 70", "figure 71"
    link = "{{doc}}`{} <chapters/none>`: not yet run"
    calm = f"? {link.format(first)}<br>? {link.format(second)}"
    assert row == f"| It is lower. | {calm} | ? {link.format(first)} | ? not yet run |  |"


@pytest.mark.parametrize(
    ("moved", "words"),
    [
        ([0.001, 0.0011, 0.0009], "✓ at step 32 of 32: 0.001 (0.00"),
        ([0.5, 0.6, 0.4], "✗ at step 32 of 32: 0.49"),
        ([0.001, 0.1, 0.01], "? at step 32 of 32: 0.01 ("),
        ([0.5], "? at step 32 of 32: 0.5, 1 seed"),
    ],
)
def test_rest_is_told_by_how_far_a_step_still_moves(project, monkeypatch, moved, words):
    rows = [
        {"seed": seed, "order": order, "step": 32, "moved": way}
        for seed, share in enumerate(moved)
        for order, way in ((FORWARD, 2.0), (BACKWARD, 2.0 * share))
    ]
    monkeypatch.setattr(tables.runs, "looks", lambda name: pd.DataFrame(rows))
    write(project, entry())
    [claim] = claims.load()
    assert tables._at_rest([claim]).startswith(words)


def test_rest_is_told_of_the_study_with_the_most_seeds(project, monkeypatch):
    def moved(name):
        rows = [
            (seed, order)
            for seed in range(1 + 3 * (name == "motion-b"))
            for order in (FORWARD, BACKWARD)
        ]
        return pd.DataFrame(rows, columns=["seed", "order"]).assign(step=32, moved=1.0)

    monkeypatch.setattr(tables.runs, "looks", moved)
    write(project, entry())
    [claim] = claims.load()
    study = SimpleNamespace(size=lambda _: SimpleNamespace(steps=32))
    monkeypatch.setattr(tables.experiments, "get", lambda _: study)
    asked = [dataclasses.replace(claim, experiment=(name,)) for name in "abc"]
    assert tables._at_rest(asked).endswith(", 4 seeds")
    study.size = lambda _: SimpleNamespace(steps=100)  # at step 32 nothing has to be at rest yet
    assert tables._at_rest(asked).startswith("? at step 32 of 100: 1.000")


def test_a_chapter_without_claims_is_an_error(project):
    write(project, entry())
    assert "**not yet run**" in tables.of_chapter("none")
    with pytest.raises(ValueError, match="no claims of the chapter 'some'. There are of: none."):
        tables.of_chapter("some")


def test_the_command_line_shows_and_writes_the_verdicts(project, capsys, monkeypatch):
    # What chapters show in place of results that are missing; the front page does not show it.
    row = pd.DataFrame({"seed": [0], "order": [FORWARD], "step": [0]})
    monkeypatch.setattr(Plan, "computed", lambda _: row)
    stored(test_loss=LOWER)
    write(project, entry())
    assert cli.main(["claims"]) == 0
    assert capsys.readouterr().out.startswith("a: reproduced on 3 seeds. By how much lower: ")
    assert cli.main(["claims", "--write"]) == 0
    page = project / "book" / "verdicts.md"
    opening, advice = (page.with_name(f"{name}.md") for name in ("opening", "advice"))
    assert capsys.readouterr().out == f"{opening}\n{page}\n{advice}\n"
    assert opening.read_text(encoding="utf-8").startswith("Not yet run")
    assert advice.read_text(encoding="utf-8").count("Not yet run") == 4
    assert page.read_text(encoding="utf-8") == tables.front()
    write(project, entry(chapter="some"))
    assert cli.main(["claims"]) == 2
    assert capsys.readouterr().err.startswith("revlib: The claim 'a' has the unknown chapter")


# The book's own


@pytest.fixture
def book(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_every_experiment_has_claims_which_its_chapter_shows(book):
    listed = claims.load()
    figures = {name for name in experiments.STUDIES if name.startswith("figure-")}
    assert {name for each in listed for name in each.experiment} >= figures
    for each in listed:
        for name in each.experiment:
            assert each.chapter == experiments.get(name).chapter
        text = Path("notebooks", f"{each.chapter}.md").read_text()
        calls = [f'tables.of_chapter("{each.chapter}")', "page.verdicts()"]
        assert any(call in text for call in calls)
        assert f'"{each.chapter}"' in text  # it is its own claims that it shows


SIDES = {"reproduced": "above", "undecided": "open", "too few": "few"}


def test_a_page_says_of_a_number_what_its_verdict_says(book):
    """The sentences of the figures' chapters, and the verdicts below them and on the front page."""
    seen = 0
    for each in claims.load():
        [name, *_] = each.experiment
        if not name.startswith("figure-") or each.criterion not in ("calmer", "stays_below"):
            continue
        for quantity, found in judge(each).readings.items():
            [effect] = found.effects.values()
            table = runs.looks(name)
            told = findings.Times(*np.exp([effect.mean, *effect.ends()]), effect.seeds, "")
            if each.criterion == "calmer":
                [steps] = each.windows
                ratios = stability.compare(table, quantity, *steps, "trend", each.orders)
                times = findings.Times.of(ratios)
                assert str(times) == str(told)
                assert times.side == SIDES.get(found.verdict) or (
                    found.verdict == "contradicted" and times.side in ("below", "alike")
                )
            else:
                words = findings.stays_below(table, quantity, each.levels, each.orders)
                assert told.interval() in words or told.interval(inverse=True) in words
                assert ("about the same" in words) == (
                    found.verdict == "contradicted" and effect.ends()[1] >= 0
                )
            seen += 1
    assert seen > 20


def test_the_front_page_says_how_far_backward_moves(book):
    """Not how far some other order of the same setting does."""
    times, step = findings.moved(runs.looks("motion-figure-7"), ("forward", "backward"))
    lines = results.root().with_name("verdicts.md").read_text().splitlines()
    row = next(line for line in lines if line.startswith("| MLP on Fash"))
    mean, low, high = map(stability.factor, (times.mean, times.low, times.high))
    assert f"| ✗ at step {step:,} of 2,000: {mean} ({low} to {high}), {times.seeds} seeds |" in row


def test_the_front_page_shows_what_the_stored_results_say(book):
    assert results.root().with_name("verdicts.md").read_text(encoding="utf-8") == tables.front(), (
        "run `revlib claims --write`"
    )
