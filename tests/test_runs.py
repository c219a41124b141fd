"""Runs: however they are cut up, interrupted or killed, the table is the same, bit for bit."""

import dataclasses
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import contents
from tiny import MOTION, MOVING, ORDERS, TINY, with_cases

from revlib import experiments, orders, runs, trajectory
from revlib.orders import Order, named, windowed
from revlib.runs import audit, audited, compute, engine, renew, run, shown, stored, together
from revlib.runs.engine import Plan
from revlib.store import datasets, provenance, reachable, results
from revlib.store.results import DamagedResultsError, StoreInUseError, Writer
from revlib.training import dense, maps, motion, settings, sweep
from revlib.training.settings import build
from revlib.training.tasks import Task

SAMPLE = TINY.sizes["sample"]
SEEDS = SAMPLE.seeds
STEPS = SAMPLE.steps
SETTING = SAMPLE.setting
COARSE = SAMPLE.recorded()
LOOKS = MOTION.sizes["sample"].at
REHEARSED = len(ORDERS) * len(COARSE)  # rows of the rehearsal of the tiny experiment
EDITED = "revlib.training.tasks.Task"


def quiet(**options):
    return run("tiny", "sample", progress=False, **options)


def same(one, other):
    pd.testing.assert_frame_equal(one, other, check_exact=True)


def folder(preset="sample", study="tiny"):
    return results.root() / study / preset


def part(table, steps=None, seeds=SEEDS):
    chosen = table["seed"].isin(seeds) & (table["step"].isin(steps) if steps else True)
    return table[chosen].reset_index(drop=True)


@pytest.fixture(scope="module")
def whole():
    """All steps of the tiny experiment, at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(experiments.STUDIES, "tiny", TINY)
        return compute("tiny", "sample", every=1)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Return a function that begins a test with a run: the first one runs, others copy its store.

    It returns what the run does, ``begun(quiet, every=1)`` what ``quiet(every=1)`` returns.
    """
    known = {}

    def begin(start, **options):
        assert not results.root().exists()
        key = start, *sorted(options.items())
        if key not in known:
            table = start(**options)
            known[key] = table, tmp_path_factory.mktemp("begun") / "results"
            shutil.copytree(results.root(), known[key][1])
        table, store = known[key]
        shutil.copytree(store, results.root(), dirs_exist_ok=True)
        return table.copy()

    return begin


def count(monkeypatch, owner, name):
    """Count the calls of a method from here on."""
    calls = []
    method = getattr(owner, name)

    def counted(*arguments, **options):
        calls.append(arguments)
        return method(*arguments, **options)

    monkeypatch.setattr(owner, name, counted)
    return calls


# The numbers


def test_rows_are_those_of_trajectory(whole, one_thread):
    tables = [
        trajectory(build(SETTING, seed), named(order), STEPS) for seed in SEEDS for order in ORDERS
    ]
    same(whole, pd.concat(tables).sort_values(results.KEYS, ignore_index=True))
    assert len(whole) == 2 * len(ORDERS) * (STEPS + 1)


def test_orders_and_seeds_differ(whole):
    """Otherwise the comparisons in this file would show little."""
    end = whole[whole["step"] == STEPS]
    assert end["test_loss"].nunique() == len(end)


def test_a_run_stores_what_compute_computes(tiny, whole):
    table = quiet(every=1)
    same(table, whole)
    same(stored("tiny", "sample"), whole)


@pytest.mark.parametrize("seconds", [-1, 1e9], ids=["each step", "never"])
def test_it_does_not_matter_when_workers_hand_over(tiny, whole, seconds, monkeypatch):
    monkeypatch.setattr(sweep, "SLICE_SECONDS", seconds)
    same(compute("tiny", "sample", every=1), whole)


@pytest.mark.slow
def test_two_workers_compute_the_same_bits(tiny, whole):
    same(quiet(every=1, workers=2), whole)
    assert results.Store(folder()).files()[0].runs[0]["workers"] == 2


@pytest.mark.parametrize(
    ("seeds", "every"), [([1], None), ([0], 5), (range(2), 16), (np.array([1]), 32), ([1, 1], 8)]
)
def test_a_subset_equals_that_part_of_the_whole(tiny, whole, seeds, every):
    steps = SAMPLE.recorded(every=every)
    same(quiet(seeds=seeds, every=every), part(whole, steps, seeds))
    same(compute("tiny", "sample", seeds, every), part(whole, steps, seeds))


def test_refining_and_adding_seeds_equals_all_at_once(tiny, whole, monkeypatch):
    evaluated = count(monkeypatch, Task, "evaluate")
    quiet(every=8, seeds=[1])
    quiet(every=8)
    same(quiet(every=4), part(whole, SAMPLE.recorded(every=4)))
    same(quiet(every=1), whole)
    assert len(evaluated) == len(whole) + REHEARSED  # nothing is computed twice
    assert sum(entry["rows"] for entry in results.Store(folder()).files()[0].runs) == len(whole)


def test_nothing_is_computed_where_nothing_is_missing(tiny, begun, monkeypatch):
    table = begun(quiet)
    before = contents(folder())
    monkeypatch.setattr(Task, "batch", lambda *_: pytest.fail("work was done"))
    same(quiet(), table)
    same(quiet(every=32, seeds=[0]), table)
    assert contents(folder()) == before


def test_a_changed_setting_has_a_store_of_its_own(tiny, begun, whole):
    begun(quiet, every=1)
    changed = quiet(learning_rate=0.5, hidden=None)
    same(changed, compute("tiny", "sample", learning_rate=0.5))
    assert not changed["test_loss"].isin(whole["test_loss"]).all()
    same(stored("tiny", "sample"), whole)
    assert (results.root() / "tiny" / "sample,learning_rate=0.5").is_dir()
    with pytest.raises(ValueError, match="no 'speed'. It has: data, sample, model, hidden"):
        quiet(speed=1)


def test_divergence_is_a_result(tiny, monkeypatch):
    table = quiet(learning_rate=1e300)
    assert len(table) == len(SEEDS) * len(ORDERS) * len(COARSE)
    assert np.isfinite(table.loc[table["step"] == 0, "test_loss"]).all()
    late = table[table["step"] > 2]
    assert not np.isfinite(late["test_loss"]).any()
    assert late["test_accuracy"].notna().all()
    monkeypatch.setattr(Task, "batch", lambda *_: pytest.fail("work was done"))
    same(quiet(learning_rate=1e300), table)


def test_each_worker_computes_with_one_thread(tiny, monkeypatch):
    threads = torch.get_num_threads()
    used = set()
    evaluate = Task.evaluate

    def watched(task, model, last=None):
        used.add(torch.get_num_threads())
        return evaluate(task, model, last)

    monkeypatch.setattr(Task, "evaluate", watched)
    try:
        torch.set_num_threads(2)
        compute("tiny", "sample", [0], 32)
        assert used == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


# Memory


@pytest.mark.parametrize(
    ("order", "most"),
    [
        *[("forward", 1), ("backward", 0), ("windowed(5)", 6), ("reset(7, 12)", 2)],
        *[("switch(10)", 1), ("tail(6)", 25)],
    ],
)
def test_states_are_kept_only_where_something_starts_from_them(tiny, monkeypatch, order, most):
    """At any moment, the parent and a worker hold no more states than there are starts in use."""
    monkeypatch.setattr(sweep, "SLICE_SECONDS", -1)
    monkeypatch.setitem(experiments.STUDIES, "tiny", with_cases((order,)))
    held = []
    for name in ("spine_piece", "leaf_piece"):

        def watched(run, *group, piece=getattr(sweep._Run, name)):
            held.append(len(run.states))
            return piece(run, *group)

        monkeypatch.setattr(sweep._Run, name, watched)
    compute("tiny", "sample", [0], every=1)
    assert max(held) == most
    assert len(held) > 1


def test_where_memory_is_short_few_states_are_kept(tiny, monkeypatch):
    whole = compute("tiny", "sample", [0])
    held = []
    take = sweep._Run.take

    def watched(run, done):
        take(run, done)
        held.append(len(run.states))

    monkeypatch.setattr(sweep._Run, "take", watched)
    monkeypatch.setattr(sweep, "KEPT_BYTES", 1)
    again = compute("tiny", "sample", [0])
    pd.testing.assert_frame_equal(again, whole, check_exact=True)
    assert max(held) <= 2


# Interruptions


class Killed(BaseException):
    """A kill, so far as the store can tell: nothing is done any more after it."""


def interrupt(patch, after, kind):
    """Let a run end in the moment in which it adds its rows for the `after`-th time."""
    add = Writer.add
    calls = []

    def interrupted(writer, rows):
        calls.append(rows)
        if len(calls) <= after:
            return add(writer, rows)
        if kind == "Ctrl-C":
            raise KeyboardInterrupt
        if kind == "Ctrl-C after":
            add(writer, rows)
            raise KeyboardInterrupt
        add(writer, rows)
        if kind == "torn":
            writer._stream.truncate(writer._stream.tell() - 7)
        patch.setattr(results.ResultFile, "compact", lambda _: None)
        raise Killed

    patch.setattr(Writer, "add", interrupted)


@pytest.mark.parametrize("kind", ["Ctrl-C", "Ctrl-C after", "kill", "torn"])
@pytest.mark.parametrize("after", [0, 3, 38])
def test_a_resumed_run_equals_an_uninterrupted_one(tiny, whole, after, kind):
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises((KeyboardInterrupt, Killed)),
    ):
        interrupt(patch, after, kind)
        quiet()
    kept = stored("tiny", "sample")
    expected = part(whole, COARSE)
    if len(kept):
        same(kept, expected.merge(kept[results.KEYS]))
    with pytest.MonkeyPatch.context() as patch:
        evaluated = count(patch, Task, "evaluate")
        same(quiet(), expected)
    nothing_left = kept.empty and kind == "Ctrl-C"  # not even the rehearsal
    rehearsed = len(expected) // 2 if nothing_left else 0
    assert len(evaluated) == len(expected) - len(kept) + rehearsed
    assert kept.empty == (after == 0 and kind in ("Ctrl-C", "torn"))


def test_interrupted_again_and_again(tiny, whole):
    for _ in range(100):
        with pytest.MonkeyPatch.context() as patch:
            interrupt(patch, random.Random(len(stored("tiny", "sample"))).randint(15, 40), "torn")
            try:
                table = quiet(every=1)
                break
            except Killed:
                pass
    same(table, whole)


@pytest.mark.parametrize("rows", [1, 2, 4, 7, 16])
def test_a_stopped_run_has_whole_curves(tiny, rows, monkeypatch):
    """Backward leaves of all seeds come side by side, coarse to fine."""
    backward = "backward"
    monkeypatch.setattr(dense, "STACK_BYTES", 0)  # one step at a time
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        add = Writer.add
        seen = {seed: 0 for seed in SEEDS}

        def stop(writer, new):
            add(writer, new)
            for row in new:
                seen[row["seed"]] += row["order"] == backward and row["step"] > 0
            if min(seen.values()) == rows:
                raise KeyboardInterrupt

        patch.setattr(Writer, "add", stop)
        quiet(every=1)
    table = stored("tiny", "sample")
    for seed in SEEDS:
        steps = table[(table["seed"] == seed) & (table["order"] == backward)]["step"].tolist()
        assert steps[0] == 0
        assert rows <= len(steps) - 1 <= rows + 1
        gaps = [late - early for early, late in pairwise([*steps, STEPS])]
        assert max(gaps) <= STEPS >> (rows.bit_length() - 1)


def elsewhere(patch):
    """Make this another machine, where sums come out a little otherwise."""
    patch.setattr(provenance, "machine", lambda: "another one")

    def other(setting, seed):
        return build(setting.changed(learning_rate=setting.learning_rate * (1 + 1e-9)), seed)

    patch.setattr(settings, "build", other)
    patch.setattr(engine, "PATH_TOLERANCE", 0)


def test_a_path_that_goes_on_on_another_machine_must_be_the_same_there(
    tiny, begun, whole, monkeypatch
):
    begun(quiet)
    with monkeypatch.context() as patch:
        elsewhere(patch)
        message = "Of forward, seed 0, .* rows are stored .* Here its path is another one .*train_"
        with pytest.raises(ValueError, match=message):
            quiet(every=1)
        quiet(seeds=[SEEDS[-1] + 1])  # of which nothing is stored
    monkeypatch.setattr(provenance, "machine", lambda: "another one, but of the same kind")
    same(part(quiet(every=1)), whole)


def test_iterates_that_begin_at_the_start_may_come_from_several_machines(tiny, monkeypatch):
    monkeypatch.setitem(experiments.STUDIES, "tiny", with_cases(("backward",)))
    quiet()
    elsewhere(monkeypatch)
    quiet(every=1)


def test_but_the_start_must_be_the_same_there(tiny, monkeypatch):
    monkeypatch.setitem(experiments.STUDIES, "tiny", with_cases(("backward",)))
    quiet()
    monkeypatch.setattr(provenance, "machine", lambda: "one with another PyTorch")
    monkeypatch.setattr(settings, "build", lambda setting, seed: build(setting, seed + 100))
    message = "Of seed 0 rows are stored .* Here it begins somewhere else .*train_loss .* at step 0"
    with pytest.raises(ValueError, match=message):
        quiet(every=1)
    quiet(seeds=[SEEDS[-1] + 1])


@pytest.fixture
def twin(tiny, monkeypatch):
    """Another study of the same training, with fewer orders."""
    cases = ("forward", "reset(7, 12)", "reset(20)")
    study = dataclasses.replace(with_cases(cases), name="twin")
    monkeypatch.setitem(experiments.STUDIES, "twin", study)


def evaluated_in_twin(monkeypatch, **options):
    """Return how many iterates a run of the twin evaluates, without rehearsal, and its table."""
    monkeypatch.setattr(Plan, "rehearsed", lambda *_: pd.DataFrame(columns=results.KEYS))
    evaluated = count(monkeypatch, Task, "evaluate")
    table = run("twin", "sample", every=1, progress=False, **options)
    return len(evaluated), table


def test_what_another_study_has_of_the_same_training_is_taken_from_there(
    tiny, twin, begun, whole, monkeypatch, capsys
):
    begun(quiet, every=1)
    evaluated, table = evaluated_in_twin(monkeypatch)
    # All of two orders are there; and so is reset(20) up to step 20, which is backward.
    assert evaluated == len(SEEDS) * (STEPS - 20)
    own = table[table["order"] != "reset(20)"].reset_index(drop=True)
    same(own, whole[whole["order"].isin(own["order"])].reset_index(drop=True))
    same(table, Plan.of("twin", "sample", every=1).computed())
    [file] = Plan.of("twin", "sample").store.files()
    assert file.runs[-1]["taken"] == {"tiny --preset sample": len(table) - evaluated}
    run("twin", "sample", every=1)
    assert "taken" not in capsys.readouterr().out


def test_it_is_said_that_rows_are_taken(tiny, twin, begun, capsys):
    begun(quiet)
    run("twin", "sample", seeds=[0])
    assert "rows are taken from tiny --preset sample: they are the same" in capsys.readouterr().out


@pytest.mark.parametrize("other", ["machine", "setting", "stale", "seeds", "motion", "device"])
def test_nothing_is_taken_of_what_is_not_the_same(tiny, twin, begun, other, monkeypatch):
    if other == "motion":
        run("motion-tiny", "sample", progress=False)
    elif other == "setting":
        quiet(learning_rate=0.1)
    else:
        begun(quiet, every=1)
    with monkeypatch.context() as patch:
        if other == "machine":
            patch.setattr(provenance, "machine", lambda: "another one")
        elif other == "stale":
            patch.setattr(reachable, "code", lambda *_: {EDITED: "0"})
        elif other == "device":
            patch.setattr(provenance, "accelerator", lambda _: "a card")
        seeds = [7] if other == "seeds" else None
        device = "cpu" if other == "device" else None
        run("twin", "sample", seeds=seeds, device=device, progress=False)
    [file] = Plan.of("twin", "sample").store.files()
    assert "taken" not in file.runs[-1]


def test_a_second_run_of_the_same_is_refused(tiny):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StoreInUseError, match="Wait until"):
        patch.setattr(Writer, "add", lambda *_: quiet())
        quiet()


def test_damaged_results_are_refused_and_left_alone(tiny, begun):
    begun(quiet)
    [table] = folder().glob("*.parquet")
    table.write_bytes(table.read_bytes()[:-1])
    before = contents(folder())
    for attempt in (quiet, lambda: quiet(every=1), lambda: stored("tiny", "sample")):
        with pytest.raises(DamagedResultsError, match=str(table)):
            attempt()
    with pytest.raises(DamagedResultsError, match=str(table)):
        audit("tiny", "sample")
    assert contents(folder()) == before


# Stale rows


def use_other_code(patch, definition=EDITED):
    """Take the code for what it was before a definition was edited, where it counts."""
    code = reachable.code

    def earlier(*roots):
        found = code(*roots)
        return found | {definition: "0" * 8} if definition in found else found

    patch.setattr(reachable, "code", earlier)


def stale_rows():
    """Leave results of the tiny experiment from before an edit; return their table."""
    with pytest.MonkeyPatch.context() as patch:
        use_other_code(patch)
        return quiet()


def shifted(evaluate):
    def measure(task, model, last=None):
        found = evaluate(task, model, last)
        return found | {"test_loss": found["test_loss"] + 0.01}

    return measure


@pytest.mark.parametrize("cause", ["code", "data", "setting"])
def test_stale_rows_are_neither_used_nor_touched(tiny, whole, cause):
    with pytest.MonkeyPatch.context() as patch:
        if cause == "code":
            use_other_code(patch)
        elif cause == "data":
            use_other_data(patch)
        else:
            slower = SAMPLE.changed(learning_rate=0.01)
            patch.setitem(TINY.sizes, "sample", slower)
        quiet(every=16)
    forget()
    before = contents(folder())
    assert stored("tiny", "sample").empty

    same(quiet(every=1), whole)
    after = contents(folder())
    assert after.items() > before.items()
    assert len(after) == 2 * len(before)


def use_other_data(patch):
    """Take the data for what it was in another version, with a test image less."""
    load = datasets.load

    def less(name, sample=False):
        data = load(name, sample)
        return dataclasses.replace(data, x_test=data.x_test[1:], y_test=data.y_test[1:])

    patch.setattr(datasets, "load", less)
    patch.setattr(datasets, "DIGESTS", dict.fromkeys(datasets.DIGESTS, "0" * 16))
    forget()


def forget():
    """Forget the data that is in memory."""
    settings._scaled.cache_clear()


# Audits


def test_an_audit_of_sound_rows_passes_and_changes_nothing(tiny, begun):
    begun(quiet)
    before = contents(folder())
    [found] = audit("tiny", "sample", points=100)
    assert found.passed
    assert not found.renewed
    assert contents(folder()) == before
    points = found.points
    assert len(points.drop_duplicates(results.KEYS)) == 2 * len(ORDERS) * (len(COARSE) - 1)
    assert set(points["quantity"]) == {
        f"{part}_{kind}" for part in ("train", "test", "batch") for kind in ("loss", "accuracy")
    }
    assert (points["stored"] == points["recomputed"]).all()
    losses = points[points["quantity"].str.endswith("loss")]
    assert (losses["allowed"] > 0).all()
    assert losses["allowed"].max() < 1e-3


def test_an_audit_takes_as_many_points_as_are_asked_for(tiny, begun):
    begun(quiet)
    [found] = audit("tiny", "sample", points=2)
    assert len(found.points.drop_duplicates(results.KEYS)) == 2


def test_equal_stale_rows_are_renewed_and_used(tiny, begun, whole):
    begun(stale_rows)
    tables = {name: data for name, data in contents(folder()).items() if "parquet" in name}
    [found] = audit("tiny", "sample", points=5)
    assert found.passed
    assert found.renewed
    assert {name: contents(folder())[name] for name in tables} == tables

    [path] = folder().glob("*.json")
    [renewal] = json.loads(path.read_text())["renewals"]
    assert renewal["identity"]["code"] == Plan.of("tiny", "sample").identity().code
    assert (renewal["by"], renewal["draw"]) == ("audit", found.draw)
    assert pd.DataFrame(renewal["points"]).equals(found.points)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Task, "batch", lambda *_: pytest.fail("work was done"))
        same(quiet(), part(whole, COARSE))
    assert not audit("tiny", "sample")[0].renewed  # it is renewed already
    same(quiet(every=1), whole)
    assert len(list(folder().glob("*.json"))) == 1


def test_unequal_stale_rows_are_not_renewed(tiny, whole):
    with pytest.MonkeyPatch.context() as patch:
        use_other_code(patch)
        patch.setattr(Task, "evaluate", shifted(Task.evaluate))
        quiet()
    before = contents(folder())
    [found] = audit("tiny", "sample")
    assert not found.passed
    assert not found.renewed
    wrong = found.points[~found.points["equal"]]
    assert set(wrong["quantity"]) == {"test_loss"}
    assert np.allclose(wrong["stored"] - wrong["recomputed"], 0.01)
    assert contents(folder()) == before
    same(quiet(), part(whole, COARSE))
    assert sorted(a.passed for a in audit("tiny", "sample")) == [False, True]


def test_diverged_rows_can_be_audited_and_renewed(tiny):
    with pytest.MonkeyPatch.context() as patch:
        use_other_code(patch)
        quiet(learning_rate=1e300)
    [found] = audit("tiny", "sample", points=100, learning_rate=1e300)
    assert found.points["stored"].isna().any()
    assert found.renewed


def test_an_audit_tells_its_draw_and_can_be_repeated(tiny, begun, whole):
    begun(quiet, every=1)
    [one], [again], [other] = (audit("tiny", "sample", draw=draw) for draw in (5, 5, 6))
    assert one.draw == again.draw == 5
    pd.testing.assert_frame_equal(one.points, again.points)
    assert not one.points[results.KEYS].equals(other.points[results.KEYS])


@pytest.mark.parametrize("lost", ["then", "now"])
def test_a_quantity_that_only_one_side_has_is_not_equal(tiny, lost):
    def without(measure):
        def fewer(*arguments):
            found = measure(*arguments)
            del found["test_accuracy"]
            return found

        return fewer

    with pytest.MonkeyPatch.context() as patch:
        use_other_code(patch)
        if lost == "then":
            patch.setattr(Task, "evaluate", without(Task.evaluate))
        quiet(every=32)
    with pytest.MonkeyPatch.context() as patch:
        if lost == "now":
            patch.setattr(Task, "evaluate", without(Task.evaluate))
        [found] = audit("tiny", "sample")
    assert set(found.points.loc[~found.points["equal"], "quantity"]) == {"test_accuracy"}
    assert not found.renewed


@pytest.fixture
def clock(monkeypatch):
    """Let an audit's points take a time of our choosing, a fixed one and one for each map."""
    now = [0.0]
    taken = []

    def let(fixed, each):
        compared = engine._compared

        def timed(plan, file, point):
            now[0] += fixed + each * point["step"]
            taken.append(point["step"])
            return compared(plan, file, point)

        monkeypatch.setattr(engine, "_compared", timed)
        return taken

    monkeypatch.setattr(engine.time, "monotonic", lambda: now[0])
    let.now = now
    return let


@pytest.mark.parametrize("fixed", [0, 5])
@pytest.mark.parametrize("seconds", [30, 60, 200])
def test_an_audit_keeps_to_its_time(tiny, begun, clock, fixed, seconds):
    begun(quiet, every=1)
    steps = clock(fixed, each=1)
    [found] = audit("tiny", "sample", points=5, seconds=seconds)
    assert steps[0] == 1
    assert clock.now[0] <= seconds
    assert found.finished == (len(steps) == 5)
    assert found.finished or seconds < 200
    if seconds == 200 and not fixed:
        assert max(steps) > 1  # it is used


def test_an_audit_without_time_takes_one_of_the_cheapest_points(tiny, begun, clock):
    begun(stale_rows)
    before = contents(folder())
    steps = clock(fixed=9, each=1)
    [found] = audit("tiny", "sample", points=2, seconds=1)
    assert steps == [1]
    assert found.passed
    assert not found.finished
    assert not found.renewed
    assert contents(folder()) == before
    assert audit("tiny", "sample", points=2, seconds=1000)[0].renewed


def test_an_audit_in_a_chapter_shows_its_points_and_writes_nothing(tiny, begun):
    begun(quiet)
    run("tiny", "sample", progress=False, learning_rate=1e300)
    for changes in ({}, {"learning_rate": 1e300}):
        plan = Plan.of("tiny", "sample", changes=changes)
        before = contents(plan.store.folder)
        text = audited("tiny", "sample", points=2, seconds=1000, **changes)
        assert contents(plan.store.folder) == before
        first, _, *lines = text.splitlines()
        points = len(SEEDS) * len(ORDERS) * (len(COARSE) - 1)
        assert f"Recomputed from scratch just now: 2 of {points} stored points, in " in first
        assert re.search(r" s \(draw \d+\); all equal, up to what rounding explains\.", first)
        assert lines[0] == (
            "| seed | order | step | quantity | stored | recomputed | allowed | equal |"
        )
        assert len(lines) == 2 + 2 * 6
        table = stored("tiny", "sample")
        for line in [] if changes else lines[2:]:
            seed, order, step, quantity, old, new, _, equal = line.strip("| ").split(" | ")
            key = (table["seed"] == int(seed)) & (table["order"] == order)
            [value] = table.loc[key & (table["step"] == int(step)), quantity]
            assert f"{value:.6g}" == old == new
            assert equal == "yes"


def test_an_audit_in_a_chapter_says_what_is_not_equal(tiny, begun, monkeypatch):
    begun(quiet)
    monkeypatch.setattr(Task, "evaluate", shifted(Task.evaluate))
    text = audited("tiny", "sample", points=1)
    assert "**not all equal**" in text
    assert text.count("**no**") == 1


def test_a_chapter_about_a_costly_network_leaves_its_audit_to_the_tests():
    changed = Plan.of("figure-2", "paper", changes={"normalisation": "group"})
    none = pd.DataFrame()
    page = runs.Shown(changed.study, "paper", changed.size, changed.changes, none, none, "", [])
    assert "`revlib audit figure-2 --set normalisation=group` recomputes three" in page.audit()


def test_an_audit_in_a_chapter_says_why_it_is_skipped(tiny, monkeypatch, tmp_path):
    def skipped():
        found = audited("tiny", "sample")
        assert "\n" not in found
        return found.removeprefix("**Audit.** Skipped: ")

    nothing = "of tiny at preset sample nothing is stored that could be compared."
    assert skipped() == nothing
    with pytest.MonkeyPatch.context() as patch:
        use_other_code(patch)
        quiet(every=32)
    assert skipped() == nothing  # what is stale is not shown by the chapter either
    forget()
    quiet(every=32)
    with pytest.MonkeyPatch.context() as patch:
        use_other_data(patch)
        assert skipped() == nothing

    full = SAMPLE.changed(sample=False)
    monkeypatch.setitem(TINY.sizes, "sample", full)
    monkeypatch.setenv("REVLIB_DATA", str(tmp_path))
    monkeypatch.setattr(datasets, "load", lambda *_, **__: pytest.fail("data was loaded"))
    plan = Plan.of("tiny", "sample")
    with plan.store.writing(plan.identity(), plan.orders, plan.size.steps, 1) as writer:
        writer.add([{"seed": 0, "order": "forward", "step": 0, "test_loss": 1.0}])
    assert skipped() == (
        "the data is not on this machine (`revlib data fashion_mnist` fetches it)."
    )


def test_an_audit_in_a_chapter_has_nothing_to_say_of_start_points(tiny):
    plan = Plan.of("tiny", "sample")
    with plan.store.writing(plan.identity(), plan.orders, plan.size.steps, 1) as writer:
        writer.add([{"seed": 0, "order": "forward", "step": 0, "test_loss": 1.0}])
    assert audited("tiny", "sample").endswith("only start points are stored as yet.")


def test_an_audit_of_nothing_says_so(tiny):
    message = r"Nothing is stored of tiny at preset sample .*revlib run tiny --preset sample"
    with pytest.raises(ValueError, match=message):
        audit("tiny", "sample")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, 0, "Ctrl-C")
        quiet()
    with pytest.raises(ValueError, match=message):
        audit("tiny", "sample")


def test_an_audit_leaves_out_orders_that_are_no_more(tiny, begun, monkeypatch):
    begun(quiet)
    monkeypatch.setitem(experiments.STUDIES, "tiny", with_cases(ORDERS[:1]))
    [found] = audit("tiny", "sample", points=100)
    assert set(found.points["order"]) == {"forward"}
    monkeypatch.setitem(experiments.STUDIES, "tiny", with_cases(("tail(5)",)))
    with pytest.raises(ValueError, match="Nothing is stored"):
        audit("tiny", "sample")


# Motion


def measured(**options):
    return run("motion-tiny", "sample", progress=False, **options)


def stale_motion():
    """Leave the motion of the tiny experiment from before an edit; return its table."""
    with pytest.MonkeyPatch.context() as patch:
        use_other_code(patch)
        return measured()


@pytest.fixture(scope="module")
def moved():
    """The motion of the tiny experiment, as it is defined."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = [
        {"seed": seed, "order": order, "step": n}
        | motion.motion(build(SETTING, seed), named(order), n)
        for seed in SEEDS
        for order in MOVING
        for n in LOOKS
    ]
    torch.set_num_threads(threads)
    return pd.DataFrame(rows).sort_values(results.KEYS, ignore_index=True)


def test_motion_is_what_is_defined_and_a_study_of_its_own(tiny, moved):
    same(measured(), moved)
    assert [path.name for path in results.root().iterdir()] == ["motion-tiny"]
    same(stored("motion-tiny", "sample"), moved)
    assert stored("tiny", "sample").empty
    quiet()
    before = contents(folder())
    same(measured(), moved)
    assert contents(folder()) == before


def test_orders_and_seeds_move_differently(moved):
    """Otherwise the comparisons here would show little: each seed and order has its own rows."""
    late = moved[moved["step"] == LOOKS[-1]]
    assert late["moved"].nunique() == late["predictions_moved"].nunique() == len(late)


def test_two_workers_measure_the_same_bits(tiny, moved):
    same(measured(workers=2), moved)


def test_what_is_missing_of_motion_is_computed_and_nothing_else(tiny, moved, monkeypatch):
    computed = count(monkeypatch, motion, "motion")
    rehearsed = len(moved) // 2
    same(measured(seeds=[1]), part(moved, seeds=[1]))
    assert len(computed) == len(moved) // 2 + rehearsed
    same(measured(), moved)
    assert len(computed) == len(moved) + rehearsed
    before = contents(folder(study="motion-tiny"))
    same(measured(), moved)
    same(measured(seeds=[0]), moved)
    assert len(computed) == len(moved) + rehearsed
    assert contents(folder(study="motion-tiny")) == before


@pytest.mark.parametrize("kind", ["Ctrl-C", "torn"])
def test_a_resumed_measurement_equals_an_uninterrupted_one(tiny, moved, kind):
    with pytest.MonkeyPatch.context() as patch, pytest.raises((KeyboardInterrupt, Killed)):
        interrupt(patch, 3, kind)
        measured()
    assert len(stored("motion-tiny", "sample")) == 3
    with pytest.MonkeyPatch.context() as patch:
        computed = count(patch, motion, "motion")
        same(measured(), moved)
    assert len(computed) == len(moved) - 3


def test_motion_is_stale_where_the_way_to_measure_it_has_changed_and_curves_are_not(tiny, moved):
    definition = "revlib.training.motion.motion"
    with pytest.MonkeyPatch.context() as patch:
        use_other_code(patch, definition)
        table = quiet()
        measured()
    before = contents(folder(study="motion-tiny"))
    same(stored("tiny", "sample"), table)
    assert stored("motion-tiny", "sample").empty
    assert not runs.stale("tiny", "sample")
    words = f"{len(moved)} rows with other code in {definition}"
    assert runs.stale("motion-tiny", "sample") == [words]
    same(measured(), moved)
    assert contents(folder(study="motion-tiny")).items() > before.items()


def test_motion_is_stale_too_where_the_numbers_of_the_curves_are(tiny, begun, moved):
    begun(stale_motion)
    assert stored("motion-tiny", "sample").empty
    words = f"{len(moved)} rows with other code in {EDITED}"
    assert runs.stale("motion-tiny", "sample") == [words]


def test_stale_motion_that_is_found_equal_is_renewed(tiny, begun, moved):
    begun(stale_motion)
    [found] = audit("motion-tiny", "sample", points=100)
    assert found.passed
    assert found.renewed
    assert set(found.points["quantity"]) == set(moved) - set(results.KEYS)
    assert len(found.points.drop_duplicates(results.KEYS)) == len(moved)
    assert (found.points["allowed"] > 0).all()
    same(stored("motion-tiny", "sample"), moved)
    assert not audit("motion-tiny", "sample")[0].renewed  # it is renewed already


def test_unequal_stale_motion_is_not_renewed(tiny, moved):
    measure = motion.motion
    with pytest.MonkeyPatch.context() as patch:
        use_other_code(patch)
        patch.setattr(motion, "motion", lambda *a: measure(*a) | {"moved": 0.1})
        measured()
    [found] = audit("motion-tiny", "sample")
    assert not found.renewed
    assert set(found.points.loc[~found.points["equal"], "quantity"]) == {"moved"}
    assert stored("motion-tiny", "sample").empty


def test_an_audit_of_motion_that_was_never_measured_says_how_to(tiny, begun):
    begun(quiet)
    with pytest.raises(ValueError, match="revlib run motion-tiny --preset sample"):
        audit("motion-tiny", "sample")


def test_motion_of_the_sample_is_measured_on_the_spot_and_not_stored(tiny, moved):
    found = shown("motion-tiny")
    same(found.table, moved)
    assert found.note.startswith("Preset sample: computed just now")
    assert found.note.endswith("; 2 seeds, 2 of 33 steps recorded.")
    assert not results.root().exists()
    measured()
    with pytest.MonkeyPatch.context() as patch:
        computed = count(patch, motion, "motion")
        shown("motion-tiny")
    assert len(computed) == len(moved)  # what is stored is not shown as measured
    changed = shown("motion-tiny", learning_rate=0.5)
    assert not changed.table["moved"].isin(moved["moved"]).any()


def test_motion_of_the_paper_is_what_is_stored(tiny, monkeypatch):
    table = run("motion-tiny", "paper", [1], progress=False)
    monkeypatch.setattr(motion, "motion", lambda *_: pytest.fail("work was done"))
    monkeypatch.setattr(datasets, "load", lambda *_, **__: pytest.fail("data was loaded"))
    found = shown("motion-tiny", "paper")
    same(found.table, table)
    assert len(found.table) == len(MOVING) * len(LOOKS)
    assert found.note.startswith("Preset paper: results stored in `results/motion-tiny/paper`, ")
    assert "; 1 seed, " in found.note


@pytest.mark.parametrize("left", ["nothing", "curves", "stale", "another setting"])
def test_motion_of_the_paper_falls_back_on_the_sample_and_says_so(tiny, moved, left):
    with pytest.MonkeyPatch.context() as patch:
        if left == "curves":
            run("tiny", "paper", [0], 32, progress=False)
        elif left == "stale":
            use_other_code(patch)
            run("motion-tiny", "paper", [0], progress=False)
        elif left == "another setting":
            run("motion-tiny", "paper", [0], progress=False, init="glorot")
    found = shown("motion-tiny", "paper")
    same(found.table, moved)
    assert found.note.startswith("Preset sample: computed just now")
    if left == "stale":
        assert found.note.endswith(
            "It is shown in place of the preset paper: the stored results are stale "
            f"({len(MOVING) * len(LOOKS)} rows with other code in {EDITED}). "
            "`revlib renew motion-tiny` renews them."
        )
    else:
        assert found.note.endswith(
            "It is shown in place of the preset paper: none are stored. "
            "`revlib run motion-tiny` computes them."
        )


# What a chapter shows


def test_a_study_of_the_sample_is_computed_and_not_stored(tiny, whole):
    found = shown("tiny")
    same(found.table, part(whole, COARSE))
    assert (found.preset, found.setting, found.study) == ("sample", SETTING, TINY)
    assert found.note.startswith("Preset sample: computed just now on the embedded sample")
    assert found.note.endswith(f"; 2 seeds, {len(COARSE)} of 33 steps recorded.")
    assert not results.root().exists()
    quiet()
    with pytest.MonkeyPatch.context() as patch:
        evaluated = count(patch, Task, "evaluate")
        shown("tiny")
    assert evaluated  # what is stored is not shown as computed


def test_a_study_takes_a_readers_changes(tiny):
    found = shown("tiny", seeds=[1], every=16, learning_rate=0.5)
    same(found.table, compute("tiny", "sample", [1], 16, learning_rate=0.5))
    assert found.setting.learning_rate == 0.5


def test_a_study_knows_its_cases_and_windows(tiny):
    found = shown("tiny", seeds=[0])
    assert (found.size.cases, found.windows) == (ORDERS, [(20, 22)])
    fallen_back = shown("tiny", "paper", seeds=[0])
    assert fallen_back.windows == [(20, 22)]
    run("tiny", "paper", [0], 32, progress=False)
    assert shown("tiny", "paper").windows == [(16, 32)]  # it has none: the second half


def test_a_study_tells_its_cost_in_optimizer_steps(tiny):
    words = shown("tiny", seeds=[0, 1]).cost()
    start, _, rest = words.partition(": ")
    assert start == "**Cost** in optimizer steps, all seeds together"
    told = dict(part.rsplit(" for ")[0].rsplit(" ", 1) for part in rest.split("; "))
    assert told == {order: str(2 * named(order).cost(COARSE)) for order in ORDERS}
    assert (told["forward"], told["backward"]) == (str(2 * STEPS), str(2 * sum(COARSE)))
    assert rest.count(f" for {2 * len(COARSE)} recorded points") == len(ORDERS)
    assert rest.endswith("recorded points.")  # and of time nothing is on record


def test_the_cost_counts_what_is_shown(tiny):
    words = shown("tiny", seeds=[1], every=4).cost()
    steps = SAMPLE.recorded(every=4)
    assert f"backward {sum(steps)} for {len(steps)} recorded points" in words


def test_a_study_tells_the_time_that_the_stored_runs_took(tiny):
    run("tiny", "paper", every=16, progress=False)
    [file] = results.Store(folder("paper")).files()
    [only] = file.runs
    only["seconds"] = 90
    file.runs += [
        only | {"seconds": 150, "workers": 2},
        {"machine": "another", "workers": 2, "date": only["date"]},  # it is still going on
    ]
    file.write()
    words = shown("tiny", "paper").cost()
    machine = only["machine"]
    assert words.endswith(
        " Computing and evaluating them took 4 minutes with 1 or 2 processes on "
        f"{machine} and on another."
    )
    maps = 2 * sum([0, 1, 16, 32])
    assert f"backward {maps} for 8 recorded points" in words

    file.runs[0]["taken"], file.runs[1]["taken"] = {"one": 1200, "two": 3}, {"one": 1}
    file.write()
    assert shown("tiny", "paper").cost() == (
        f"{words} Of the points, 1,204 cost nothing here: they are the same iterates as in one, "
        "two, and were taken from there."
    )


def test_a_study_of_the_paper_shows_the_sample_where_nothing_is_stored(tiny, whole):
    found = shown("tiny", "paper")
    same(found.table, part(whole, COARSE))
    assert (found.preset, found.setting) == ("sample", SETTING)
    assert found.note.startswith("Preset sample: computed just now")
    assert found.note.endswith(
        "It is shown in place of the preset paper: none are stored. "
        "`revlib run tiny` computes them."
    )


def paper():
    return run("tiny", "paper", progress=False)


def test_a_study_of_the_paper_shows_what_is_stored(tiny, begun, monkeypatch):
    table = begun(paper)
    monkeypatch.setattr(Task, "batch", lambda *_: pytest.fail("work was done"))
    found = shown("tiny", "paper")
    same(found.table, table)
    assert (found.preset, found.setting) == ("paper", TINY.sizes["paper"].setting)
    place = "Preset paper: results stored in `results/tiny/paper`, last added to by "
    assert found.note.startswith(f"{place}`revlib run tiny` on 20")
    assert provenance.machine() in found.note
    assert found.note.endswith("; 2 seeds, 6 of 33 steps recorded.")
    found = shown("tiny", "paper", seeds=[1])
    same(found.table, part(table, seeds=[1]))
    assert found.note.endswith("; 1 seed, 6 of 33 steps recorded.")


def test_a_study_of_the_paper_needs_no_data_to_show_what_is_stored(tiny, begun, monkeypatch):
    table = begun(paper)
    monkeypatch.setattr(datasets, "load", lambda *_, **__: pytest.fail("data was loaded"))
    same(shown("tiny", "paper").table, table)


@pytest.mark.parametrize("kind", ["Ctrl-C", "kill"])
def test_a_study_of_the_paper_shows_the_sample_where_a_run_has_only_begun(tiny, monkeypatch, kind):
    with pytest.MonkeyPatch.context() as patch, pytest.raises((KeyboardInterrupt, Killed)):
        interrupt(patch, 0, "torn" if kind == "kill" else kind)
        run("tiny", "paper", progress=False)
    found = shown("tiny", "paper")
    assert found.preset == "sample"
    assert "none are stored. `revlib run tiny` computes them." in found.note


def test_a_study_of_the_paper_says_what_is_stale(tiny, whole):
    with pytest.MonkeyPatch.context() as patch:
        use_other_code(patch)
        run("tiny", "paper", progress=False)
    before = contents(folder("paper"))
    found = shown("tiny", "paper")
    same(found.table, part(whole, COARSE))
    assert found.preset == "sample"
    rows = len(SEEDS) * len(ORDERS) * len(TINY.sizes["paper"].recorded())
    assert found.note.endswith(
        "It is shown in place of the preset paper: the stored results are stale "
        f"({rows} rows with other code in {EDITED}). `revlib renew tiny` renews them."
    )
    assert contents(folder("paper")) == before


def test_a_study_of_chosen_steps_of_the_paper_computes_what_is_missing(tiny, begun, monkeypatch):
    begun(paper)
    evaluated = count(monkeypatch, Task, "evaluate")
    found = shown("tiny", "paper", seeds=[0], every=16)
    assert not evaluated
    assert found.preset == "paper"
    assert set(found.table["step"]) == {0, 1, 16, 32}
    assert set(found.table["seed"]) == {0}
    assert found.note.endswith("; 1 seed, 4 of 33 steps recorded.")
    found = shown("tiny", "paper", every=4)
    assert len(evaluated) == 2 * len(ORDERS) * 4
    same(found.table, stored("tiny", "paper"))
    same(found.table, compute("tiny", "paper", every=4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nonsense",), "no study 'nonsense'. Valid are: figure-2, .*, tiny, motion-tiny"),
        (("tiny", "nonsense"), "no preset 'nonsense'. Valid are: sample, paper"),
        (("tiny", "sample", None, 0), "must be a whole number, 1 or more; got 0"),
        (("tiny", "sample", [3, -2]), "A seed must be a whole number from 0 to 2.63 - 1; got -2"),
        (("tiny", "sample", None, 2.5), "must be a whole number, 1 or more; got 2.5"),
    ],
)
@pytest.mark.parametrize("function", [run, compute, shown])
def test_bad_values_are_refused(tiny, function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
    assert not results.root().exists()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("learning_rate", "fast", "'learning_rate' must be a finite number, 0 or more; got 'fast'"),
        ("learning_rate", -1, "a finite number, 0 or more; got -1"),
        ("batch_size", 0, "'batch_size' must be a whole number from 1 to 10.9; got 0"),
        ("train_examples", 2.5, "a whole number from 1 to 10.9; or None; got 2.5"),
        ("test_examples", "all", "a whole number from 1 to 10.9; or None; got 'all'"),
        ("hidden", 8, r"'hidden' must be a list of widths, \[100, 100\] say.*; got 8"),
        ("sample", "no", "'sample' must be True or False; got 'no'"),
    ],
)
@pytest.mark.parametrize("function", [run, compute, shown])
def test_a_field_of_another_kind_is_refused(tiny, function, field, value, message):
    with pytest.raises(ValueError, match=message):
        function("tiny", "sample", **{field: value})
    assert not results.root().exists()


def test_nothing_after_the_last_step_is_recorded_and_the_rest_can_be_added(tiny, whole):
    same(quiet(last=9, every=4), part(whole, [0, 1, 4, 8]))
    same(quiet(every=1), whole)


# Killed for real


class Processes:
    """Runs of the tiny experiment, each in a process group of its own, from one parent."""

    def __init__(self, cwd):
        tests = Path(__file__).parent
        paths = [str(tests), str(Path(runs.__file__).parent.parent), os.environ.get("PYTHONPATH")]
        self.store = Path(cwd, "results", "tiny", "sample")
        self.errors = Path(cwd, "errors.txt")
        with self.errors.open("wb") as errors:
            self.parent = subprocess.Popen(
                [sys.executable, tests / "tiny.py"],
                cwd=cwd,
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def start(self, workers=1):
        """Start a run; its process number is that of its group."""
        words = f"run tiny --preset sample --every 1 --workers {workers}"
        self.found = self.journal()
        print(words, file=self.parent.stdin, flush=True)
        return int(self.parent.stdout.readline())

    def status(self):
        """Wait for the run, and return its exit status."""
        return int(self.parent.stdout.readline())

    def journal(self):
        try:
            return sum(path.stat().st_size for path in self.store.glob("*.journal"))
        except FileNotFoundError:
            return 0  # it has just been put away

    def wait_for_rows(self, size):
        """Wait until the run has written that many bytes of rows."""
        self._wait(lambda: self.journal() < max(self.found, 1))  # rows of before are put away
        self._wait(lambda: self.journal() >= size)

    def _wait(self, happened):
        end = time.monotonic() + 100
        while not happened():
            assert time.monotonic() < end, self.errors.read_text()
            time.sleep(0.0005)


@pytest.fixture
def processes(tmp_path):
    started = Processes(tmp_path)
    yield started
    started.parent.stdin.close()
    started.parent.wait()


def members(group):
    """The processes of a group that are alive."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, process_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue  # it has just ended
        if int(process_group) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
def test_killed_ten_times_and_finished_a_run_gives_the_same_table(tiny, whole, processes):
    chance = random.Random(7)
    kept, alone = 0, 4
    for attempt in range(10):
        group = processes.start(workers=2 if attempt == alone else 1)
        if attempt % 3 < 2:  # while it writes
            processes.wait_for_rows(chance.randint(1, 2000))
            time.sleep(chance.random() * 0.02)
        else:
            time.sleep(chance.random() * 0.1)
        if attempt == alone:  # the parent, not its two workers
            orphans = group
            os.kill(group, signal.SIGKILL)
        else:
            os.killpg(group, signal.SIGKILL)
        assert processes.status() == -signal.SIGKILL, "it was done before it could be killed"
        rows = len(stored("tiny", "sample"))
        assert rows >= kept
        kept = rows
    assert 0 < kept < len(whole)
    processes.start()
    assert processes.status() == 0, processes.errors.read_text()
    same(stored("tiny", "sample"), whole)
    for _ in range(300):  # a busy machine takes its time to tell the workers
        if not members(orphans):
            break
        time.sleep(0.1)
    assert not members(orphans)

    killed = folder().rename(folder().with_name("killed"))
    quiet(every=1)
    [table], [uninterrupted] = (path.glob("*.parquet") for path in (killed, folder()))
    assert table.read_bytes() == uninterrupted.read_bytes()
    assert len(list(killed.glob("*.json"))) == 1
    assert "Traceback" not in processes.errors.read_text()


def test_an_order_that_now_has_other_words_is_refused_also_where_rows_are_only_read(
    tiny, begun, monkeypatch
):
    begun(quiet)
    code = reachable.code(*TINY.method.roots(SETTING, ORDERS))
    monkeypatch.setattr(reachable, "code", lambda *_: code)  # otherwise the rows would be stale
    imposter = Order("backward", windowed(3).word)
    monkeypatch.setitem(orders.MAKERS, "backward", lambda: imposter)
    for read in (stored, quiet):
        with pytest.raises(ValueError, match="an order 'backward' with other words"):
            read(*(("tiny", "sample") if read is stored else ()))


def test_stale_rows_say_what_they_were_computed_with(tiny, begun, monkeypatch):
    begun(quiet)
    use_other_code(monkeypatch)
    rows = len(COARSE) * len(SEEDS) * len(ORDERS)
    assert runs.stale("tiny", "sample") == [f"{rows} rows with other code in {EDITED}"]
    assert stored("tiny", "sample").empty


def test_a_study_says_what_the_reader_has_changed(tiny):
    assert shown("tiny", "sample").note.startswith("Preset sample: computed just now")
    changed = shown("tiny", "sample", learning_rate=0.5, init="lecun")
    assert changed.note.startswith("Preset sample with init=lecun, learning_rate=0.5: computed")


def test_where_no_window_is_recorded_the_second_half_of_the_rows_is_taken(tiny):
    whole = shown("tiny", "sample")
    assert whole.windows == [(20, 22)]
    early = dataclasses.replace(whole, table=whole.table[whole.table["step"] <= 16])
    assert early.windows == [(8, 16)]


# Rehearsals, and renewal by them


def test_a_run_keeps_a_rehearsal_beside_a_new_result(tiny, whole):
    run("tiny", "paper", [1], 32, progress=False, learning_rate=0.5)
    file = runs.source("tiny", "paper", learning_rate=0.5)
    assert {path.suffix for path in file.stem.parent.glob("*.*")} >= {".json", ".rehearsal"}
    same(file.rehearsal(), compute("tiny", "sample", [0], learning_rate=0.5))
    quiet(every=32, seeds=[1])
    same(runs.source("tiny", "sample").rehearsal(), part(whole, COARSE, [0]))


def lose_rehearsal(path):
    """Let a result be one that never had a rehearsal."""
    file = results.ResultFile.read(path.with_suffix(".json"))
    del file.digests[".rehearsal"]
    file.write()
    path.unlink()


def test_a_result_without_a_rehearsal_gets_one_and_one_with_keeps_it(tiny, monkeypatch):
    quiet(every=32)
    path = runs.source("tiny", "sample").stem.with_suffix(".rehearsal")
    before = path.read_bytes()
    rehearsed = count(monkeypatch, Plan, "rehearsed")
    quiet(every=16)
    assert not rehearsed
    lose_rehearsal(path)
    quiet(every=16)
    assert len(rehearsed) == 1
    assert path.read_bytes() == before


def test_a_rehearsal_is_the_first_seed_of_the_sample_with_the_same_changes(tiny):
    plan = Plan.of("tiny", "paper", [5, 7], 16, 20, {"learning_rate": 0.5, "batch_size": 2})
    rehearsal = plan.rehearsal()
    assert rehearsal.size == SAMPLE.changed(learning_rate=0.5, batch_size=2)
    assert (rehearsal.study, rehearsal.preset, rehearsal.seeds) == (TINY, "sample", [0])
    assert rehearsal.recorded == dict.fromkeys(ORDERS, COARSE)
    assert rehearsal.identity().code == plan.identity().code
    # The sample stays the sample, also where a reader asks for the paper's setting on it.
    on_the_sample = Plan.of("tiny", "paper", changes={"sample": False}).rehearsal()
    assert on_the_sample.size.setting == SETTING


def test_a_rehearsal_may_start_from_a_start_moved_by_rounding(tiny):
    plan = Plan.of("tiny", "paper")
    one, again, moved = (plan.rehearsed(nudge) for nudge in (0, 0, 1))
    same(one, again)
    assert not moved.equals(one)
    pd.testing.assert_frame_equal(moved, one, rtol=1e-6)


def test_the_command_of_a_plan_means_it(tiny):
    assert Plan.of("tiny", "paper", [1], 8).command == "tiny"
    assert Plan.of("tiny", "sample").command == "tiny --preset sample"
    changes = {"hidden": [4, 4], "init": "glorot", "batch_size": 8}  # the last is the preset's
    plan = Plan.of("tiny", "paper", changes=changes)
    assert plan.command == "tiny --set 'hidden=(4, 4)' init=glorot"
    words = dict(word.split("=") for word in shlex.split(plan.command)[2:])
    read = {field: results.value(text) for field, text in words.items()}
    assert Plan.of("tiny", "paper", changes=read).size == plan.size


def stale_curves(**changes):
    """Leave results of the tiny experiment from before an edit; return their table."""
    with pytest.MonkeyPatch.context() as patch:
        use_other_code(patch)
        return run("tiny", "paper", [0], 32, progress=False, **changes)


def test_a_study_that_gains_an_order_keeps_its_rows_by_rehearsal(tiny, monkeypatch):
    monkeypatch.setitem(experiments.STUDIES, "tiny", with_cases(ORDERS[:2]))
    table = run("tiny", seeds=[0], every=32, progress=False)
    monkeypatch.setitem(experiments.STUDIES, "tiny", with_cases(ORDERS[:3]))
    assert stored("tiny").empty
    [found] = renew("tiny")
    assert found.renewed
    same(stored("tiny"), table)
    rehearsal = runs.source("tiny").rehearsal()
    assert set(rehearsal["order"]) == set(ORDERS[:3])
    table = run("tiny", seeds=[0], every=32, progress=False)
    assert set(table["order"]) == set(ORDERS[:3])
    monkeypatch.setitem(experiments.STUDIES, "tiny", with_cases(ORDERS[1:4]))
    [found] = renew("tiny")  # what is gone cannot be found equal
    assert not found.renewed


@pytest.mark.parametrize("changes", [{}, {"init": "glorot"}], ids=["preset", "changed"])
def test_a_stale_result_with_the_same_rehearsal_is_renewed(tiny, begun, changes):
    table = begun(stale_curves, **changes)
    assert stored("tiny", **changes).empty
    [found] = renew("tiny", **changes)
    assert (found.rows, found.renewed) == (len(table), True)
    numbers = REHEARSED * 6 - 2 * len(ORDERS)  # at the start no batch has been applied
    assert found.words == f"renewed by rehearsal: {numbers} numbers of the sample come out equal"
    same(stored("tiny", **changes), table)

    file = runs.source("tiny", **changes)
    [renewal] = file.renewals
    assert (renewal["by"], renewal["points"]) == ("rehearsal", numbers)
    assert renewal["identity"]["code"] == Plan.of("tiny", "paper").identity().code
    assert renewal["identity"]["data"] == file.identity.data
    assert renewal["date"].startswith("20")
    assert not runs.stale("tiny", **changes)
    assert renew("tiny", **changes) == []  # it is renewed already


def test_a_renewed_result_is_used_and_added_to(tiny, begun):
    begun(stale_curves)
    renew("tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Task, "batch", lambda *_: pytest.fail("work was done"))
        run("tiny", "paper", [0], 32, progress=False)
    same(run("tiny", "paper", progress=False), compute("tiny", "paper"))
    assert len(list(folder("paper").glob("*.json"))) == 1


def test_renewal_needs_the_sample_only(tiny, monkeypatch, tmp_path):
    monkeypatch.setitem(TINY.sizes, "paper", TINY.sizes["paper"].changed(sample=False))
    monkeypatch.setenv("REVLIB_DATA", str(tmp_path))
    load = datasets.load
    with monkeypatch.context() as patch:
        patch.setattr(datasets, "load", lambda name, sample=False: load(name, True))
        table = stale_curves()
    forget()

    def small(name, sample=False):
        return load(name, True) if sample else pytest.fail("the full data was loaded")

    monkeypatch.setattr(datasets, "load", small)
    assert renew("tiny")[0].renewed
    same(stored("tiny"), table)


def test_a_changed_number_leaves_a_result_stale_and_is_told(tiny, begun, monkeypatch):
    begun(stale_curves)
    before = contents(folder("paper"))
    monkeypatch.setattr(Task, "evaluate", shifted(Task.evaluate))
    [found] = renew("tiny")
    assert not found.renewed
    assert re.fullmatch(
        r"stale: its rehearsal comes out otherwise, first test_loss of backward at step 0, "
        r"(\d\.\d+) then and (\d\.\d+) now",
        found.words,
    )
    then, now = map(float, re.findall(r"\d\.\d+", found.words))
    assert now - then == pytest.approx(0.01, abs=1e-4)
    assert contents(folder("paper")) == before
    assert stored("tiny").empty


@pytest.mark.parametrize("step", [0, 24])
def test_one_changed_number_is_enough(tiny, begun, step):
    begun(stale_curves)
    [file] = Plan.of("tiny", "paper").store.files()
    table = file.rehearsal()
    place = table.index[(table["order"] == "tail(6)") & (table["step"] == step)]
    table.loc[place, "train_loss"] += 0.001
    file.keep_rehearsal(table)
    [found] = renew("tiny")
    assert not found.renewed
    assert f"first train_loss of tail(6) at step {step}, " in found.words


def test_differences_of_rounding_are_accepted(tiny, begun, monkeypatch):
    """The plain training loop adds in another order than the one that is chosen."""
    begun(stale_curves)
    before = runs.compute("tiny", "sample", [0])
    monkeypatch.setitem(sweep.STRATEGIES, "dense", (lambda _: False, maps.Trainer))
    assert not runs.compute("tiny", "sample", [0]).equals(before)  # it does make a difference
    [found] = renew("tiny")
    assert found.renewed


def test_what_a_diverging_training_gives_is_rehearsed_too(tiny):
    table = stale_curves(learning_rate=1e300)
    assert renew("tiny", learning_rate=1e300)[0].renewed
    same(stored("tiny", learning_rate=1e300), table)


@pytest.mark.parametrize("change", ["lost", "gained", "renamed"])
def test_other_quantities_are_no_rehearsal_of_these(tiny, begun, change):
    def otherwise(*arguments):
        found = evaluate(*arguments)
        accuracy = found["test_accuracy"]
        if change != "gained":
            del found["test_accuracy"]
        return found if change == "lost" else found | {"test_hits": accuracy}

    evaluate = Task.evaluate
    begun(stale_curves)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Task, "evaluate", otherwise)
        [found] = renew("tiny")
    assert not found.renewed
    assert ("test_hits" if change == "gained" else "test_") in found.words
    assert "nan" in found.words


def test_where_a_case_is_no_more_its_rehearsal_is_missed(tiny, begun, monkeypatch):
    begun(stale_curves)
    monkeypatch.setitem(experiments.STUDIES, "tiny", with_cases(ORDERS[:-1]))
    [found] = renew("tiny")
    assert not found.renewed
    assert "of tail(6) at step 0, " in found.words


def refused(found):
    """Return why a result cannot be rehearsed."""
    assert not found.renewed
    start, end = "stale, and cannot be rehearsed: ", ". `revlib audit tiny` may help"
    assert found.words.startswith(start)
    assert found.words.endswith(end)
    return found.words.removeprefix(start).removesuffix(end)


def test_a_missing_rehearsal_is_told(tiny, begun):
    begun(stale_curves)
    [path] = folder("paper").glob("*.rehearsal")
    lose_rehearsal(path)
    before = contents(folder("paper"))
    [found] = renew("tiny")
    assert refused(found) == "it has no rehearsal"
    assert contents(folder("paper")) == before
    assert audit("tiny")[0].renewed


def test_results_of_other_data_are_not_rehearsed(tiny):
    with pytest.MonkeyPatch.context() as patch:
        use_other_data(patch)
        stale_curves()
    forget()
    [found] = renew("tiny")
    assert refused(found) == "other data"
    assert stored("tiny").empty


def test_results_of_another_setting_are_not_rehearsed(tiny, begun, monkeypatch):
    begun(stale_curves)
    slower = TINY.sizes["paper"].changed(learning_rate=0.01, init="lecun")
    monkeypatch.setitem(TINY.sizes, "paper", slower)
    [found] = renew("tiny")
    assert refused(found) == "init he instead of lecun; learning_rate 0.05 instead of 0.01"
    [unequal] = audit("tiny")
    assert not unequal.renewed


def test_equal_points_of_another_setting_renew_nothing(tiny, monkeypatch):
    """Both diverge."""
    run("tiny", "sample", [0], 32, progress=False, learning_rate=1e300)
    changed = folder("sample,learning_rate=1e+300")
    changed.rename(folder("sample,learning_rate=2e+300"))
    for _ in range(20):
        [found] = audit("tiny", "sample", points=1, learning_rate=2e300)
        assert not found.renewed
    assert stored("tiny", "sample", learning_rate=2e300).empty


@dataclasses.dataclass(frozen=True)
class Grown(settings.Setting):
    """A setting with a field that it did not always have."""

    warmup: int = 0


@pytest.mark.parametrize("grown", ["now", "then"])
def test_a_field_that_only_one_of_two_settings_has_is_no_hindrance(tiny, grown):
    def grow(patch):
        for name, size in TINY.sizes.items():
            other = dataclasses.replace(size, parameters=Grown(**vars(size.setting)))
            patch.setitem(TINY.sizes, name, other)

    with pytest.MonkeyPatch.context() as patch:
        if grown == "then":
            grow(patch)
        table = stale_curves()
    with pytest.MonkeyPatch.context() as patch:
        if grown == "now":
            grow(patch)
        assert "warmup" in runs.stale("tiny")[0]
        [found] = renew("tiny")
        assert found.renewed
        same(stored("tiny"), table)


def test_of_several_results_each_is_renewed_on_its_own(tiny, begun, monkeypatch):
    begun(stale_curves)
    with monkeypatch.context() as patch:
        use_other_code(patch, "revlib.training.maps.Trainer")
        run("tiny", "paper", [0, 1], 32, progress=False)
    [path] = (p for p in folder("paper").glob("*.rehearsal") if stale_by(EDITED, p))
    lose_rehearsal(path)
    found = renew("tiny")
    assert sorted((each.rows, each.renewed) for each in found) == [(18, False), (36, True)]
    assert set(stored("tiny")["seed"]) == {0, 1}


def stale_by(definition, path):
    identity = json.loads(path.with_suffix(".json").read_text())["identity"]
    return identity["code"][definition] == "0" * 8


# What stands in, and what stands together


def test_what_stands_in_names_the_command_with_the_readers_changes(tiny):
    changes = {"hidden": [4, 4], "learning_rate": 0.5}
    found = shown("tiny", "paper", **changes)
    assert found.preset == "sample"
    assert found.setting == SETTING.changed(**changes)
    assert found.note.startswith("Preset sample with hidden=(4, 4), learning_rate=0.5: computed")
    assert found.note.endswith(
        "It is shown in place of the preset paper: none are stored. "
        "`revlib run tiny --set 'hidden=(4, 4)' learning_rate=0.5` computes them."
    )
    stale_curves(**changes)
    assert shown("tiny", "paper", **changes).note.endswith("`revlib renew tiny` renews them.")
    renew("tiny", **changes)
    found = shown("tiny", "paper", **changes)
    assert found.note.startswith(
        "Preset paper with hidden=(4, 4), learning_rate=0.5: results stored"
    )


def test_studies_stand_together_in_one_size(tiny, begun):
    names = {"curves": "tiny", "motion": "motion-tiny"}
    nothing = together(names, "paper")
    assert {words: found.study.name for words, found in nothing.items()} == names
    assert {found.preset for found in nothing.values()} == {"sample"}
    for words, name in names.items():
        assert f"`revlib run {name}` computes them" in nothing[words].note

    table = begun(paper)
    half = together(names, "paper")
    assert {found.preset for found in half.values()} == {"sample"}
    same(half["curves"].table, compute("tiny", "sample"))
    assert half["curves"].note.endswith(
        "It is shown in place of the preset paper, like those beside it."
    )
    assert half["motion"].note.endswith("`revlib run motion-tiny` computes them.")

    run("motion-tiny", "paper", progress=False)
    both = together(names, "paper")
    assert {found.preset for found in both.values()} == {"paper"}
    same(both["curves"].table, table)
    changed = together(names, "paper", learning_rate=0.5)
    assert {found.preset for found in changed.values()} == {"sample"}
    assert {found.setting.learning_rate for found in changed.values()} == {0.5}
