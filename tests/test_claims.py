"""Verdicts: by hand on made-up paths, and never a wrong one where results are missing."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from tiny import SETTING, TINY

from revlib import cli, experiments, runs
from revlib.experiments import Size, Study, Whole
from revlib.runs.engine import Plan
from revlib.store import reachable, results
from revlib.training.settings import Setting
from revlib.verdicts import claims, stability
from revlib.verdicts.claims import CRITERIA, QUANTITIES, VERDICTS, Claim, judge

ROOT = Path(__file__).resolve().parent.parent
STEPS = (8, 16, 24, 32)  # what the tiny experiment records at preset paper, but for the start
FORWARD, BACKWARD, RESET = "forward", "backward", "reset(7, 12)"


def claim(**fields):
    return Claim(
        **{
            "id": "a",
            "place": "Section 0",
            "statement": "It is calmer.",
            "experiment": "tiny",
            "quantity": ("test_loss",),
            "orders": (FORWARD, BACKWARD),
            "windows": ((8, 16), (24, 32)),
            "criterion": "calmer",
            "chapter": "none",
        }
        | fields
    )


@pytest.fixture
def project(tiny, tmp_path):
    """A project with one chapter, in the current folder."""
    for name in ("book/_config.yml", "notebooks/none.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def store(project):
    """A function that stores made-up paths, {(seed, order): values at STEPS}, of a quantity."""

    def write(steps=STEPS, **quantities):
        plan = Plan.of("tiny", "paper")
        rows = {}
        for quantity, paths in quantities.items():
            for (seed, order), values in paths.items():
                for n, value in zip(steps, values, strict=True):
                    key = {"seed": seed, "order": order, "step": n}
                    rows.setdefault(tuple(key.values()), key)[quantity] = float(value)
        with plan.store.writing(plan.identity(), plan.orders, plan.size.steps, 1) as writer:
            writer.add(list(rows.values()))

    return write


def paths(forward, backward):
    """The paths of several seeds: a value at each of STEPS for each."""
    return {
        (seed, order): values
        for order, of_seeds in ((FORWARD, forward), (BACKWARD, backward))
        for seed, values in enumerate(of_seeds)
    }


def swings(*sizes):
    """Paths whose spread over two neighbouring steps is as given, times the root of 2."""
    return [(size, -size, size, -size) for size in sizes]


# Criteria


@pytest.mark.parametrize(
    ("forward", "backward", "verdict", "count"),
    [
        (swings(2, 3, 4), swings(1, 1, 1), "reproduced", "6 of 6 cases (3 seeds, 2 windows)"),
        (swings(2, 3), swings(1, 1), "partly", "4 of 4 cases (2 seeds, 2 windows)"),
        (swings(2), swings(1), "partly", "2 of 2 cases (1 seed, 2 windows)"),
        (swings(2), swings(3), "not reproduced", "0 of 2"),
        (swings(1.01, 1.01, 40), swings(1, 1, 1), "partly", "6 of 6"),  # the interval holds 1
        (swings(8, 8, 8, 8, 1), swings(1, 1, 1, 1, 1.1), "partly", "8 of 10"),
        (swings(2, 3, 0.1), swings(1, 1, 1), "not reproduced", "4 of 6"),
        (swings(2, 3, 4), [*swings(1, 1), (np.nan,) * 4], "not reproduced", "4 of 6"),
        ([*swings(2, 3, 4), (1, 2, 3, np.inf)], swings(1, 1, 1, 1), "partly", "7 of 8"),
        (swings(2, 3, 4, 5), swings(1, 1, 1, 0), "reproduced", "8 of 8"),
        (swings(2, 3, 4, 0), swings(1, 1, 1, 0), "partly", "6 of 8"),  # neither moves
        (
            [(2, -2, 1, -1), (3, -3, 1, -1), (4, -4, 1, -1)],
            swings(1, 1, 1),
            "partly",  # in the first window only
            "3 of 6",
        ),
    ],
)
def test_calmer(store, forward, backward, verdict, count):
    store(test_loss=paths(forward, backward))
    found = judge(claim())
    assert found.verdict == verdict
    assert f"above 1 in {count}" in found.evidence
    assert len(found.per_seed) == 2 * len(forward)


def test_calmer_tells_ratios_and_their_intervals(store):
    store(test_loss=paths(swings(2, 3, 4), swings(1, 1, 1)))
    found = judge(claim())
    assert np.allclose(found.per_seed["value"], [2, 3, 4, 2, 3, 4])
    assert found.per_seed["holds"].all()
    known = stability.compare(runs.stored("tiny", "paper"), "test_loss", 8, 16)
    assert f"{known.ratio:.2g} ({known.low:.2g} to {known.high:.2g}) over steps 8 to 16" in (
        found.evidence
    )


def test_the_accuracy_of_a_diverged_path_is_not_calm(store):
    accuracies = paths(swings(2, 3, 4), [*swings(1, 1), (0.1,) * 4])
    store(
        test_accuracy=accuracies,
        test_loss=paths(swings(1, 1, 1), [*swings(1, 1), (1, 1, np.nan, np.nan)]),
    )
    found = judge(claim(quantity=("test_accuracy",)))
    assert found.verdict == "not reproduced"
    held = found.per_seed.set_index(["seed", "first"])["holds"]
    assert held[2, 8]  # not yet diverged, and constant
    assert not held[2, 24]


def test_a_sign_test_takes_all_of_five_seeds(store):
    """So for a coin toss, one of the 32 outcomes is taken for a difference."""
    verdicts = {}
    for outcome in itertools.product([1, -1], repeat=5):
        steps = [(0, 0, 0, sign) for sign in outcome]
        table = runs_of(paths([(0, 0, 0, 0)] * 5, steps))
        lower = claim(criterion="lower_at_a_step", windows=((24, 32),))
        verdicts[outcome] = CRITERIA["lower_at_a_step"].judge(lower, "test_loss", table).verdict
    reproduced = [outcome for outcome, verdict in verdicts.items() if verdict == "reproduced"]
    assert reproduced == [(-1,) * 5]
    assert set(verdicts.values()) == {"reproduced", "not reproduced"}


def runs_of(paths):
    """A tidy table of made-up paths."""
    return pd.DataFrame(
        {"seed": seed, "order": order, "step": n, "test_loss": float(value)}
        for (seed, order), values in paths.items()
        for n, value in zip(STEPS, values, strict=True)
    )


@pytest.mark.parametrize(
    ("backward", "verdict"),
    [
        ([(0, -1, 0, -1)] * 5, "reproduced"),
        ([(0, -1, 0, 1)] * 5, "partly"),
        ([(0, 1, 0, 1)] * 5, "not reproduced"),
        ([(0, 0, 0, 0)] * 5, "not reproduced"),  # a tie
        ([(0, -1, 0, -1)] * 4, "not yet run"),
        ([(0, -1, 0, -1)] * 4 + [(0, -1, 0, np.nan)], "partly"),  # diverged is not lower
    ],
)
def test_lower_at_a_step(store, backward, verdict):
    store(test_loss=paths([(5, 0, -5, 0)] * len(backward), backward))
    found = judge(claim(criterion="lower_at_a_step"))
    assert found.verdict == verdict
    assert "at step 16 on" in found.evidence
    assert ("A sign test takes 5 seeds" in found.evidence) == (len(backward) < 5)


def test_lower_at_a_step_where_forward_has_diverged(store):
    store(test_loss=paths([(0, np.inf, 0, np.inf)] * 5, [(0, 1, 0, 1)] * 5))
    assert judge(claim(criterion="lower_at_a_step")).verdict == "reproduced"


@pytest.mark.parametrize(
    ("levels", "verdict"),
    [
        ((5, -5, 9), "reproduced"),
        ((5, -5), "partly"),
        ((5, 5, 0), "partly"),
        ((5, 0, 0), "not reproduced"),
        ((np.nan,) * 3, "not reproduced"),
    ],
)
def test_apart(store, levels, verdict):
    """Each path has a spread of the root of 2, so their sum is between 2 and 5."""
    swing = np.array([1, -1, 1, -1])
    store(test_loss=paths([swing] * len(levels), [swing + level for level in levels]))
    assert judge(claim(criterion="apart")).verdict == verdict


def test_two_noisy_paths_around_one_level_are_not_apart():
    noise = np.random.default_rng(0).normal(size=(2, 200, 4))
    found = CRITERIA["apart"].judge(
        claim(criterion="apart", windows=((8, 32),)), "test_loss", runs_of(paths(*noise))
    )
    assert found.verdict == "not reproduced"
    assert found.cases["holds"].mean() < 0.05


@pytest.mark.parametrize(
    ("levels", "verdict"),
    [
        ([(-1, 1)] * 3, "reproduced"),
        ([(-1, 1)] * 2, "partly"),
        ([(-1, 1), (-1, 1), (-1, 3)], "partly"),
        ([(-1, 3), (-3, 1), (-1, 1)], "not reproduced"),
        ([(-1, np.nan)] * 3, "not reproduced"),
    ],
)
def test_covers(store, levels, verdict):
    both = paths([(2, -2, 2, -2)] * len(levels), [(low,) * 4 for low, _ in levels])
    store(test_loss=both | {(s, RESET): (high,) * 4 for s, (_, high) in enumerate(levels)})
    found = judge(claim(criterion="covers", orders=(FORWARD, BACKWARD, RESET)))
    assert found.verdict == verdict
    assert found.per_seed["value"].iloc[0] in (2, 1) or np.isnan(found.per_seed["value"].iloc[0])


# Readings

CALM, WILD = paths(swings(2, 3, 4), swings(1, 1, 1)), paths(swings(1, 1, 1), swings(2, 3, 4))


@pytest.mark.parametrize(
    ("ends", "verdict", "count"),
    [
        ([(3, 2, 1), (3, 2.1, 1), (3, 1.9, 1)], "reproduced", "2 of 2"),
        ([(3, 2, 2.5), (3, 2.1, 2.5), (3, 1.9, 2.5)], "partly", "1 of 2"),
        ([(1, 2, 3), (1, 2.1, 3), (1, 1.9, 3)], "not reproduced", "0 of 2"),
        ([(3, 2, 1), (3, 2.1, 1)], "not reproduced", "0 of 2"),  # two seeds tell nothing
        ([(3, 2, 1), (3, 3.1, 1), (3, 2.8, 1)], "partly", "1 of 2"),  # within the spread
        ([(3, 2, np.nan), (3, 2.1, 1), (3, 1.9, 1)], "partly", "1 of 2"),
        ([(np.nan, 2, 1), (np.nan, 2, 1), (np.nan, 2, 1)], "reproduced", "2 of 2"),
        ([(np.nan,) * 3] * 3, "not reproduced", "0 of 2"),
    ],
)
def test_lower_in_turn(store, ends, verdict, count):
    names = (FORWARD, BACKWARD, RESET)
    store(
        test_loss={
            (seed, name): (0, 0, 0, end)
            for seed, of_seed in enumerate(ends)
            for name, end in zip(names, of_seed, strict=True)
        }
    )
    found = judge(claim(criterion="lower_in_turn", orders=names, windows=((24, 32),)))
    assert (found.verdict, found.seeds) == (verdict, len(ends))
    assert f"in {count}." in found.evidence
    assert "Change at step 32" in found.evidence


@pytest.mark.parametrize(
    ("ends", "verdict", "count"),  # of the first, the near and the far order, on each seed
    [
        ([(1, 2, 4), (1, 0, -2), (1, 1, 0)], "reproduced", "3 of 3"),
        ([(1, 2, 4), (1, 0, -2)], "partly", "2 of 2"),
        ([(1, 2, 4), (1, 4, 0), (1, 1, 0)], "partly", "2 of 3"),
        ([(1, 4, 2), (1, 2, 4)], "not reproduced", "1 of 2"),
        ([(1, 2, 0)] * 3, "not reproduced", "0 of 3"),  # both equally far
        ([(1, 2, np.nan)] * 3, "reproduced", "3 of 3"),
        ([(1, np.nan, 2)] * 3, "not reproduced", "0 of 3"),
        ([(np.nan, 1, 2)] * 3, "not reproduced", "0 of 3"),
    ],
)
def test_nearer(store, ends, verdict, count):
    names = (FORWARD, RESET, BACKWARD)
    store(
        test_loss={
            (seed, name): (0, 0, 0, end)
            for seed, of_seed in enumerate(ends)
            for name, end in zip(names, of_seed, strict=True)
        }
    )
    found = judge(claim(criterion="nearer", orders=names, windows=((24, 32),)))
    assert (found.verdict, found.seeds) == (verdict, len(ends))
    assert f"below 1 in {count} cases" in found.evidence
    assert f"Distance of {RESET} from {FORWARD} divided by that of {BACKWARD}" in found.evidence
    assert set(found.per_seed["last"]) == {32}


@dataclasses.dataclass(frozen=True)
class Parameters:
    """The parameters of a study that depends on nothing but a setting."""

    setting: Setting


def ends(parameters, seed, case):
    yield {"step": 5, "pace": {"a": 3, "b": 2, "c": 1}[case] + seed / 10}


def test_a_claim_can_be_about_a_study(project, monkeypatch):
    size = Size(Parameters(SETTING), (0, 1, 2), ("a", "b", "c"), 5, at=(5,))
    sizes = {"sample": size, "paper": size}
    what = {"quantities": {"pace": "pace"}}
    study = Study("paces", "Paces", "0", "none", sizes, Whole(ends), **what)
    monkeypatch.setitem(experiments.STUDIES, "paces", study)
    entry = {name: ("paces" if name == "experiment" else "x") for name in claims._FIELDS}
    entry |= {"quantity": "pace", "orders": ["a", "b", "c"], "chapter": "none"}
    entry |= {"criterion": "lower_in_turn"}
    del entry["windows"]  # the end
    (project / "book" / "claims.yml").write_text(yaml.safe_dump([entry]))
    [read] = claims.load()
    assert read.windows == ((5, 5),)
    assert judge(read).verdict == "not yet run"
    assert "Nothing is stored" in judge(read).evidence
    runs.run("paces", seeds=[0, 1], progress=False)
    assert judge(read).verdict == "not reproduced"  # of two seeds
    runs.run("paces", progress=False)
    found = judge(read)
    assert (found.verdict, found.seeds, found.steps, found.length) == ("reproduced", 3, 1, 6)
    for changes, message in [
        ({"orders": ["a", "d"]}, "unknown order 'd'"),
        ({"orders": ["a"]}, "has 1 orders; lower_in_turn compares two or more"),
        ({"quantity": "path"}, "unknown quantity 'path'"),
        ({"experiment": "pace"}, "unknown experiment 'pace'"),
    ]:
        (project / "book" / "claims.yml").write_text(yaml.safe_dump([entry | changes]))
        with pytest.raises(ValueError, match=message):
            claims.load()


@pytest.mark.parametrize(
    ("train", "batch", "verdict"),
    [
        (CALM, CALM, "reproduced"),
        (WILD, WILD, "not reproduced"),
        (WILD, CALM, "under-specified"),
    ],
)
def test_readings_that_disagree_are_under_specified(store, train, batch, verdict):
    store(train_loss=train, batch_loss=batch)
    found = judge(claim(quantity=("train_loss", "batch_loss")))
    assert found.verdict == verdict
    alone = [judge(claim(quantity=(name,))) for name in ("train_loss", "batch_loss")]
    for name, reading in zip(("train_loss", "batch_loss"), alone, strict=True):
        told = f"*{QUANTITIES[name].capitalize()}*: {reading.verdict}. {reading.evidence}"
        assert told in found.evidence
    assert set(found.per_seed["quantity"]) == {"train_loss", "batch_loss"}


def test_a_reading_that_was_not_recorded_is_told(store):
    store(train_loss=CALM)
    found = judge(claim(quantity=("train_loss", "batch_loss")))
    assert found.verdict == "reproduced"
    assert found.evidence.endswith("*Loss on the batch applied last*: not recorded.")
    assert judge(claim(quantity=("batch_loss",))).verdict == "not yet run"


# Missing results


def not_yet_run(found, *evidence):
    assert found.verdict == "not yet run"
    assert found.seeds == found.steps == len(found.per_seed) == 0
    assert found.evidence == " ".join(evidence)
    return True


def test_nothing_stored(project):
    found = judge(claim())
    assert not_yet_run(found, "Nothing is stored.")
    assert found.file is None
    assert found.length == 33


def test_seeds_count_only_where_all_that_is_needed_is_stored(store):
    backward = {key: values[:3] for key, values in CALM.items() if key[1] == BACKWARD}
    store(STEPS, test_loss={key: values for key, values in CALM.items() if key[1] == FORWARD})
    store(STEPS[:3], test_loss=backward)
    why = "Of no seed are forward and backward stored in full over steps 8 to 16 and 24 to 32."
    assert not_yet_run(judge(claim()), why)
    store(STEPS[3:], test_loss={(0, BACKWARD): [-1], (1, BACKWARD): [-1]})
    found = judge(claim())
    assert (found.verdict, found.seeds, found.steps) == ("partly", 2, 4)
    store(STEPS[3:], test_loss={(2, BACKWARD): [-1]})
    found = judge(claim())
    assert (found.verdict, found.seeds, found.steps) == ("reproduced", 3, 4)
    assert (results.root() / f"{found.file}.json").exists()


def test_steps_that_only_some_paths_have_do_not_count(store):
    store(test_loss=CALM)
    before = judge(claim())
    store([28], test_loss={(0, BACKWARD): [1000], (1, FORWARD): [1000]})
    after = judge(claim())
    pd.testing.assert_frame_equal(after.per_seed, before.per_seed)
    assert (after.verdict, after.steps) == (before.verdict, 5)
    lower = claim(criterion="lower_at_a_step", windows=((24, 31), (8, 32)))
    assert "step 24 " in judge(lower).evidence


@pytest.mark.parametrize("cause", ["code", "setting"])
def test_results_of_another_configuration_give_no_verdict(store, monkeypatch, cause):
    store(test_loss=CALM)
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
    assert (found.seeds, found.steps, found.length) == (2, 6, 33)
    table = runs.stored("tiny")
    for case in found.per_seed.itertuples():
        spread = table[table["step"].between(case.first, case.last)].query(f"seed == {case.seed}")
        spread = spread.groupby("order")[case.quantity].std()
        assert case.value == pytest.approx(spread[FORWARD] / spread[BACKWARD])


# The file


def entry(**fields):
    given = claim(**fields)
    listed = {f: list(v) if isinstance(v, tuple) else v for f, v in vars(given).items()}
    return listed | {"windows": [list(window) for window in given.windows]}


def write(project, *entries):
    path = project / "book" / "claims.yml"
    path.write_text(yaml.safe_dump(list(entries)))
    return path


def test_what_is_written_is_read(project):
    path = write(project, entry(), entry(id="b", quantity="test_loss") | {"quantity": "test_loss"})
    assert claims.load() == claims.load(path) == [claim(), claim(id="b")]


def test_windows_are_the_bursts_where_none_are_given(project, monkeypatch):
    without = entry()
    del without["windows"]
    path = write(project, without)
    with pytest.raises(ValueError, match="The claim 'a' needs windows, since tiny has no bursts"):
        claims.load(path)
    bursts = dataclasses.replace(TINY.sizes["paper"], bursts=((20, 3), (30, 2)))
    monkeypatch.setitem(TINY.sizes, "paper", bursts)
    assert claims.load(path) == [claim(windows=((20, 22), (30, 31)))]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"experiment": "none"},
            "The claim 'a' has the unknown experiment 'none'. Valid are: .*figure-1.*tiny",
        ),
        (
            {"quantity": "speed"},
            "The claim 'a' has the unknown quantity 'speed'. Valid are: batch_accuracy,",
        ),
        ({"quantity": [["test_loss"]]}, "The claim 'a' has the unknown quantity"),
        ({"chapter": "some"}, "The claim 'a' has the unknown chapter 'some'. Valid are: none."),
        (
            {"criterion": "better"},
            "The claim 'a' has the unknown criterion 'better'. Valid are: apart, ",
        ),
        (
            {"orders": ["sideways", BACKWARD]},
            "The claim 'a' has the unknown order 'sideways'.*forward",
        ),
        ({"orders": [FORWARD]}, "The claim 'a' has 1 orders; calmer compares 2"),
        (
            {"windows": [[9, 15]]},
            r"The claim 'a' has the window \[9, 15\]; .*tiny must record at least two",
        ),
        ({"windows": [[0, 8]]}, r"the window \[0, 8\]; .*the start not counted"),
        ({"windows": [[8, 16, 24]]}, r"the window \[8, 16, 24\]; a window is \[first, last\]"),
        ({"windows": ["late"]}, "the window 'late'"),
        (
            {"speed": 3},
            "The claim 'a' has an unknown field 'speed'; its fields are: id, place, statement",
        ),
    ],
)
def test_a_claim_that_cannot_be_judged_is_refused(project, changes, message):
    with pytest.raises(ValueError, match=message):
        claims.load(write(project, entry() | changes))


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


def test_front_and_chapter_tell_the_same(project, store):
    store(test_loss=CALM)
    write(project, entry(), entry(id="b", quantity=("train_loss",)))
    table = claims.table()
    assert list(table["verdict"]) == ["reproduced", "not yet run"]
    assert list(table["seeds"]) == [3, 3]
    front, chapter = claims.front().splitlines(), claims.of_chapter("none").splitlines()
    assert front[0] == "Claims of the paper about its experiments: 0."
    assert front[2].endswith("other methods): 2, of which 1 reproduced, 1 not yet run.")
    summary = front[: front.index(claims.FULL_TABLE)]
    assert "| {doc}`chapters/none` | **reproduced**: a; **not yet run**: b | 3 |" in summary
    where = "{doc}`Section 0 <chapters/none>`"
    assert f"| It is calmer. | {where} | **reproduced** | 3 | 4 of 33 |" in front
    assert {line for line in front if line.startswith("- ")} == {
        f"- **{name}**: {meaning}" for name, meaning in VERDICTS.items()
    }
    told = f"| It is calmer. (Section 0) | **reproduced** | 3 | 4 of 33 | {table['evidence'][0]} |"
    assert told in chapter
    assert f"- **calmer**: {CRITERIA['calmer'].rule}" in chapter
    assert chapter[-1] == f"Judged from the stored results `{table['file'][0]}`."


def test_few_seeds_are_told_beside_the_verdict(project, store):
    store(test_loss=paths(swings(2), swings(1)))
    write(project, entry())
    for text in (claims.front(), claims.of_chapter("none")):
        assert "**partly** (1 seed only)" in text


def test_a_chapter_without_claims_is_an_error(project):
    write(project, entry())
    assert "**not yet run**" in claims.of_chapter("none")
    with pytest.raises(ValueError, match="no claims of the chapter 'some'. There are of: none."):
        claims.of_chapter("some")


def test_the_command_line_shows_and_writes_the_verdicts(project, store, capsys, monkeypatch):
    # What chapters show in place of results that are missing; the front page does not show it.
    row = pd.DataFrame({"seed": [0], "order": [FORWARD], "step": [0]})
    monkeypatch.setattr(Plan, "computed", lambda _: row)
    store(test_loss=CALM)
    write(project, entry())
    assert cli.main(["claims"]) == 0
    assert capsys.readouterr().out.startswith("a: reproduced on 3 seeds. Spread of forward")
    assert cli.main(["claims", "--write"]) == 0
    page = project / "book" / "verdicts.md"
    advice = page.with_name("advice.md")
    assert capsys.readouterr().out == f"{page}\n{advice}\n"
    assert advice.read_text(encoding="utf-8").count("Not yet run") == 4
    assert page.read_text(encoding="utf-8") == claims.front()
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
    assert {claim.experiment for claim in listed} >= figures
    for claim in listed:
        assert claim.chapter == experiments.get(claim.experiment).chapter
        text = Path("notebooks", f"{claim.chapter}.md").read_text()
        calls = [f'claims.of_chapter("{claim.chapter}")', "page.verdicts()"]
        assert any(call in text for call in calls)
        assert f'"{claim.chapter}"' in text  # it is its own claims that it shows


def test_the_front_page_shows_what_the_stored_results_say(book):
    assert claims.page().read_text(encoding="utf-8") == claims.front(), (
        "run `revlib claims --write`"
    )


@pytest.mark.parametrize(
    ("ends", "verdict", "told"),
    [
        ([(9, 1, 1, 0.5), (9, 1, 1, 1.5), (9, 1, 1, 1)], "reproduced", "median 0.062"),
        ([(9, 1, 1, 0.5), (9, 1, 1, 1.5)], "partly", "in 2 of 2"),
        ([(9, 1, 1, 0.5), (9, 1, 1, 1.5), (9, 1, 1, 0)], "partly", "in 2 of 3"),
        ([(1, 9, 9, 9)] * 3, "not reproduced", "in 0 of 3"),  # it has risen
        ([(9, 1, 1, np.inf)] * 3, "not reproduced", "in 0 of 3"),
    ],
)
def test_settles(store, ends, verdict, told):
    store(test_loss={(seed, FORWARD): path for seed, path in enumerate(ends)})
    windows = ((8, 16), (24, 32))
    found = judge(claim(criterion="settles", orders=(FORWARD,), windows=windows))
    assert found.verdict == verdict
    assert told in found.evidence


@pytest.mark.parametrize(
    ("forward", "backward", "verdict"),
    [
        ([1, -2, 3, -4, 5, -5], [0.1, 0.2, -0.1, 0.1, 0, -0.2], "reproduced"),
        ([0.1, 0.2, -0.1, 0.1, 0, -0.2], [1, -2, 3, -4, 5, -5], "not reproduced"),
        ([1, -2, 3, -4, 5, -5], [-5, 1, -2, 3, -4, 5], "not reproduced"),
        ([1, -2, 3, -4, 5, np.inf], [0.1, 0.2, -0.1, 0.1, 0, -0.2], "not reproduced"),
        ([1, -2, 3, -4, 5, -5], [0] * 6, "not reproduced"),  # it does not move at all
        ([1, -2], [0.1, 0.2], "not reproduced"),  # too few
    ],
)
def test_narrower(forward, backward, verdict):
    table = runs_of(paths([(0, 0, 0, v) for v in forward], [(0, 0, 0, v) for v in backward]))
    narrower = claim(criterion="narrower", windows=((24, 32),))
    found = CRITERIA["narrower"].judge(narrower, "test_loss", table)
    assert found.verdict == verdict
    assert found.evidence.startswith(f"Standard deviation over {len(forward)} seeds: at step 32")
    assert len(found.cases) == len(forward)


def test_narrower_is_judged_in_every_window():
    wide, narrow = (1, -2, 3, -4, 5, -5), (0.1, 0.2, -0.1, 0.1, 0, -0.2)
    forward = [(0, w, 0, w) for w in wide]
    table = runs_of(paths(forward, [(0, n, 0, w) for n, w in zip(narrow, wide[::-1], strict=True)]))
    found = CRITERIA["narrower"].judge(claim(criterion="narrower"), "test_loss", table)
    assert found.verdict == "partly"
    assert f"{np.std(wide, ddof=1):.2g} with forward" in found.evidence
    first = found.cases[found.cases["first"] == 16]
    off = np.abs(np.array(narrow) - np.mean(narrow)) - np.abs(np.array(wide) - np.mean(wide))
    assert np.allclose(first["value"], off)
    assert (first["holds"] == (off < 0)).all()
