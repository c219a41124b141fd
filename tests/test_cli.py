"""The command line: what it prints, how it ends, and that it never ends in a traceback."""

import contextlib
import dataclasses
import importlib.metadata
import io
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path

import hypothesis
import pandas as pd
import pytest
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from tiny import MOTION, MOVING, ORDERS, TINY

import revlib
from revlib import cli, runs
from revlib.cli import main
from revlib.runs import engine
from revlib.runs.engine import Plan
from revlib.store import datasets, reachable, results
from revlib.store.results import Writer
from revlib.training import maps
from revlib.training.settings import Setting, build
from revlib.training.tasks import Task

ROWS = 2 * len(ORDERS) * len(TINY.sizes["sample"].recorded())
FEW = len(ORDERS) * len(TINY.sizes["sample"].recorded(every=32))  # of one seed, with --every 32


def call(capsys, words):
    """Call the command line; return its exit status and what it printed."""
    try:
        status = main(words.split())
    except SystemExit as end:  # argparse's way
        status = end.code
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def assert_one_sentence(text, *parts):
    assert text.startswith("revlib: ")
    assert text.count("\n") == 1
    assert text.endswith((".\n", "--help.\n"))
    for part in parts:
        assert part in text


# Bad values


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("nonsense", ["'nonsense'", "list", "run", "renew", "audit", "data"]),
        ("run", ["STUDY"]),
        (
            "run nonsense",
            ["There is no study 'nonsense'", "motion-figure-9", ", tiny, motion-tiny"],
        ),
        ("run tiny --preset nonsense", ["There is no preset 'nonsense'", "sample, paper"]),
        ("run tiny --every 0", ["--every: '0' is not a whole number, 1 or more"]),
        ("run tiny --every -1", ["--every: '-1' is not a whole number, 1 or more"]),
        ("run tiny --every x", ["--every: 'x' is not a whole number, 1 or more"]),
        ("run tiny --every 2.5", ["--every: '2.5' is not"]),
        ("run tiny --every", ["--every: expected one argument"]),
        ("run tiny --workers 0", ["--workers: '0' is not a whole number, 1 or more"]),
        ("run tiny --workers two", ["--workers: 'two' is not a whole number, 1 or more"]),
        ("run tiny --seeds one", ["--seeds", "'one'"]),
        ("run tiny --seeds", ["--seeds: expected at least one argument"]),
        (
            "run tiny --preset sample --seeds 0 -1",
            ["A seed must be a whole number from 0 to 2^63 - 1; got -1"],
        ),
        ("run tiny --speed 3", ["--speed"]),
        ("run tiny --last 0", ["--last: '0' is not a whole number, 1 or more"]),
        ("run tiny --last 2.5", ["--last: '2.5' is not a whole number, 1 or more"]),
        ("run tiny --set", ["--set: expected at least one argument"]),
        ("run tiny --set init", ["--set: 'init' is not of the form FIELD=VALUE"]),
        ("run tiny --set speed=3", ["no 'speed'. It has: data, sample, model, hidden"]),
        ("run tiny --set =3", ["no ''. It has: data, sample, model, hidden"]),
        (
            "run tiny --set learning_rate=fast",
            ["'learning_rate' must be a finite number"],
        ),
        ("run tiny --set hidden=8", ["'hidden' must be a list of widths, [100, 100] say", "got 8"]),
        ("run tiny --set hidden=[8", ["'hidden' must be a list of widths", "got '[8'"]),
        (
            "run tiny --set batch_size=0",
            ["must be a whole number from 1 to 10^9; got 0"],
        ),
        ("run tiny --set train_examples=2.5", ["a whole number from 1 to 10^9; or None; got 2.5"]),
        ("run tiny --set name=x", ["no 'name'. It has: data, sample, model, hidden"]),
        ("run tiny --set preset=paper", ["no 'preset'. It has: data, sample"]),
        ("run tiny --set self=1", ["no 'self'. It has: data, sample"]),
        ("run tiny --set seeds=1", ["no 'seeds'. It has: data, sample"]),
        ("audit tiny --set points=1", ["no 'points'. It has: data, sample"]),
        ("audit tiny --set name=x preset=paper", ["no 'name'. It has: data, sample"]),
        ("run tiny --set init=['he']", ["'init' must be pytorch or", "got ('he',)"]),
        ("run tiny --set data=['x^2']", ["'data' must be fashion_mnist or cifar10"]),
        ("run tiny --set hidden=[[1]]", ["'hidden' must be a list of widths", "got ((1,),)"]),
        ("run tiny --set hidden=[True]", ["'hidden' must be a list of widths", "(True,)"]),
        ("run tiny --set hidden=[1000000,1000000]", ["of at most 100,000,000 weights"]),
        (f"run tiny --set hidden=[1{'0' * 30}]", ["of at most 100,000,000 weights"]),
        ("run figure-2 --set model=mlp", ["'hidden' must be a list of widths", "got None"]),
        (
            "run figure-2 --set data=x^2",
            ["'data' must be cifar10 or cifar100, for the model"],
        ),
        ("run tiny --set nudge=1", ["'nudge' is for audits"]),
        ("run tiny --set train_examples=None", ["'train_examples=None' changes nothing"]),
        ("run tiny --set model=resnet18", ["'hidden' must be left out, for the model resnet18"]),
        ("run tiny --set learning_rate=1e400", ["must be a finite number, 0 or more; got inf"]),
        ("run tiny --set learning_rate=True", ["must be a finite number, 0 or more; got True"]),
        ("run tiny --set batch_size=True", ["a whole number from 1 to 10^9; got True"]),
        ("run tiny --set train_examples=True", ["a whole number from 1 to 10^9; or None; got Tr"]),
        ("run tiny --set stem=cifar", ["'stem' must be left out, for the model mlp", "got 'cif"]),
        ("run tiny --set stem=x", ["'stem' must be left out, for the model mlp, which has none"]),
        ("run tiny --set normalisation=5", ["'normalisation' must be left out", "got 5"]),
        ("run tiny --set -", ["'-' is not of the form FIELD=VALUE, init=he say"]),
        ("run tiny --set --", ["--set: expected at least one argument"]),
        ("run tiny --set -x=3", ["--set: expected at least one argument"]),
        ("run tiny --set init=-", ["'init' must be pytorch or", "got '-'"]),
        (
            f"run tiny --preset sample --seeds {2**63}",
            ["from 0 to 2^63 - 1; got 9223372036854775808"],
        ),
        ("run tiny --set sample=yes", ["'sample' must be True or False; got 'yes'"]),
        ("motion tiny", ["'motion'", "list", "run", "renew", "audit", "data"]),
        ("run motion-nonsense", ["There is no study 'motion-nonsense'", "motion-tiny"]),
        ("run motion-tiny --preset nonsense", ["There is no preset 'nonsense'", "sample, paper"]),
        ("run motion-tiny --workers 0", ["--workers: '0' is not a whole number, 1 or more"]),
        (
            "run motion-tiny --seeds -1",
            ["A seed must be a whole number from 0 to 2^63 - 1; got -1"],
        ),
        ("run motion-tiny --set speed=3", ["no 'speed'. It has: data, sample, model, hidden"]),
        (
            "run figure-14 --every 2",
            ["The cases of figure-14 are computed whole", "nor a last one"],
        ),
        ("run figure-14 --last 2", ["The cases of figure-14 are computed whole", "nor a last one"]),
        ("renew nonsense", ["There is no study 'nonsense'", ", tiny, motion-tiny"]),
        ("renew tiny --preset sample", ["--preset"]),
        ("audit", ["STUDY"]),
        ("audit nonsense", ["There is no study 'nonsense'"]),
        ("audit tiny", ["Nothing is stored of tiny at preset paper", "revlib run tiny"]),
        (
            "audit motion-tiny",
            ["Nothing is stored of motion-tiny at preset paper", "revlib run motion-tiny"],
        ),
        (
            "audit tiny --set init=glorot",
            ["Nothing is stored of tiny at preset paper", "revlib run tiny --set init=glorot"],
        ),
        ("audit tiny --motion", ["--motion"]),
        ("audit tiny --set speed=3", ["no 'speed'. It has: data, sample, model, hidden"]),
        ("audit tiny --points 0", ["--points: '0' is not a whole number, 1 or more"]),
        ("audit tiny --seconds 0", ["--seconds: '0' is not a whole number, 1 or more"]),
        ("claims --speed 3", ["--speed"]),
        ("data", ["NAME"]),
        ("data nonsense", ["'nonsense'", "fashion_mnist, cifar10, cifar100"]),
    ],
)
def test_a_bad_value_gets_one_sentence(tiny, capsys, words, parts):
    status, out, err = call(capsys, words)
    assert not results.root().exists()
    assert status == 2
    assert out == ""
    assert_one_sentence(err, *parts)
    assert not results.root().exists()


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("REVLIB_DATA", str(tmp_path / "data"))

    def fail(*_, **__):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", fail)


# A run of figure 7 whose rehearsal takes a moment.
QUICK = "figure-7 --set hidden=[8] train_examples=20 test_examples=20"


@pytest.mark.parametrize("words", [f"run {QUICK} --every 1000", "data fashion_mnist"])
def test_missing_data_gets_a_sentence_with_both_ways_out(tiny, capsys, no_network, words):
    status, out, err = call(capsys, words)
    assert (status, out) == (2, "")
    assert_one_sentence(
        err, "fashion_mnist is not at", "REVLIB_DATA", "sample", "Error downloading"
    )
    assert not results.root().exists()


def test_data_says_where_the_data_is(capsys, no_network, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "DIGESTS", {})  # a sample stands for the full set
    sample = Path(revlib.__file__).parent / "store" / "samples" / "fashion_mnist.npz"
    (tmp_path / "data").mkdir()
    shutil.copy(sample, tmp_path / "data")
    status, out, err = call(capsys, "data fashion_mnist")
    assert (status, out, err) == (0, f"{tmp_path / 'data' / 'fashion_mnist.npz'}\n", "")


def test_a_damaged_store_gets_a_sentence(tiny, capsys):
    call(capsys, "run tiny --preset sample")
    [table] = results.root().glob("tiny/sample/*.parquet")
    table.write_bytes(b"")
    for words in ("run tiny --preset sample", "audit tiny --preset sample"):
        status, _, err = call(capsys, words)
        assert status == 2
        assert_one_sentence(err, str(table), "Restore it")


def test_a_store_in_use_gets_a_sentence(tiny, capsys):
    plan = Plan.of("tiny", "sample")
    with plan.store.writing(plan.identity(), plan.orders, plan.size.steps, 1):
        status, _, err = call(capsys, "run tiny --preset sample")
    assert status == 2
    assert_one_sentence(err, "Another process is writing to", "Wait until")


def test_a_folder_that_cannot_be_written_gets_a_sentence(tiny, capsys, tmp_path):
    (tmp_path / "results").write_text("a file where the folder should be")
    status, _, err = call(capsys, "run tiny --preset sample")
    assert status == 2
    assert str(tmp_path / "results") in err
    assert err.count("\n") == 1


def is_refused(words):
    """Call the command line, and tell whether it refused in a sentence and left nothing behind."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(words)
        except SystemExit as end:
            status = end.code
    assert status in (0, 2), err.getvalue()
    assert not results.root().exists()
    if status == 2:
        assert out.getvalue() == ""
        assert_one_sentence(err.getvalue())
    return status == 2


VALUES = st.one_of(
    st.text(max_size=6),
    st.integers(-(10**40), 10**40).map(str),
    st.floats().map(repr),
    st.sampled_from(
        [
            "True",
            "None",
            "he",
            "mlp",
            "resnet18",
            "cifar10",
            "x^2",
            "(",
            "1e400",
            "b'x'",
            "...",
            "1j",
        ]
    ),
    st.lists(st.integers(-2, 40) | st.booleans() | st.text(max_size=2), max_size=3).map(repr),
    st.recursive(st.integers(0, 9), lambda of: st.lists(of, max_size=2), max_leaves=4).map(repr),
)
COMMANDS = "run audit renew list data tiny motion-tiny figure-14 nonsense"
OPTIONS = "--preset --set --seeds --every --last --points --seconds --draw --cluster"
WORDS = f"{COMMANDS} {OPTIONS} sample 0 1 -1 2.5 x - -- = =3".split(" ")
FIELDS = [f.name for f in dataclasses.fields(Setting)]


@pytest.fixture
def nothing_is_run(tiny, monkeypatch):
    """Settings are made into tasks, one step of which is taken; that is all."""

    def run(name, preset, seeds, every, last, workers, cluster, device, **changes):
        plan = Plan.of(name, preset, seeds, every, last, changes)
        trainer = maps.Trainer(build(plan.size.setting, plan.seeds[0]))
        trainer.apply(1)
        return pd.DataFrame()

    monkeypatch.setattr(runs, "run", run)


@hypothesis.settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@given(
    changes=st.lists(
        st.tuples(st.sampled_from([*FIELDS, "name", "preset", "self"]), VALUES),
        min_size=1,
        max_size=3,
    ),
    words=st.sampled_from(["run tiny --preset sample --set", "audit tiny --preset sample --set"]),
)
def test_whatever_is_set_it_is_right_or_refused(nothing_is_run, changes, words):
    refused = is_refused([*words.split(), *(f"{name}={text}" for name, text in changes)])
    assert refused or words.startswith("run")


@hypothesis.settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.sampled_from(WORDS) | st.text(max_size=4),
        max_size=7,
    )
)
def test_whatever_is_typed_there_is_no_traceback(tiny, monkeypatch, words):
    monkeypatch.setattr(runs, "run", lambda *_, **__: pd.DataFrame())
    monkeypatch.setattr(datasets, "load", lambda *_, **__: None)
    is_refused(words)


def test_help_and_refusals_wait_for_no_library():
    code = (
        "import sys; from revlib import cli\n"
        "for words in ('--help', '--version', 'run', 'nonsense', 'run x --every 0'):\n"
        "    try: cli.main(words.split())\n"
        "    except SystemExit: pass\n"
        "cli.main([])\n"
        "slow = {'torch', 'pandas', 'numpy', 'scipy', 'pyarrow'} & sys.modules.keys()\n"
        "sys.exit(str(slow) if slow else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_home_that_is_not_there_is_named(monkeypatch, capsys, tiny):
    monkeypatch.setenv("REVLIB_DATA", "~nobody-of-this-name/data")
    status, _, err = call(capsys, "data fashion_mnist")
    assert status == 2
    assert_one_sentence(err, "There is no home folder for ~nobody-of-this-name/data", "REVLIB_DATA")


def test_a_data_folder_that_cannot_be_made_is_named(
    monkeypatch, capsys, tiny, tmp_path, no_network
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("REVLIB_DATA", str(tmp_path / "file" / "data"))
    status, _, err = call(capsys, "data fashion_mnist")
    assert status == 2
    assert_one_sentence(err, str(tmp_path / "file" / "data"), "REVLIB_DATA")


def test_who_reads_the_output_may_have_enough(tmp_path):
    done = subprocess.run(
        f"{shlex.quote(sys.executable)} -m revlib list | head -1; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[1] == "0"


def test_more_than_memory_holds_gets_a_sentence(tiny, capsys, monkeypatch):
    def greedy(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 8e12 bytes.")

    monkeypatch.setattr(runs, "run", greedy)
    status, _, err = call(capsys, "run tiny --preset sample")
    assert status == 2
    assert_one_sentence(err, "can't allocate memory")


# Commands


def test_alone_it_says_what_one_can_do_next(capsys):
    status, out, err = call(capsys, "")
    assert (status, err) == (0, "")
    for words in ("revlib list", "revlib run figure-4 --preset sample", "revlib claims"):
        assert f"\n  {words}" in out


def test_version_is_that_of_the_package(capsys):
    assert call(capsys, "--version") == (0, f"revlib {importlib.metadata.version('revlib')}\n", "")


def test_help_names_the_commands(capsys):
    status, out, _ = call(capsys, "--help")
    assert status == 0
    for word in ("list", "run", "renew", "audit", "claims", "bench", "data"):
        assert f"\n    {word} " in out


def test_run_computes_stores_and_says_so(tiny, capsys):
    status, out, err = call(capsys, "run tiny --preset sample --every 32 --seeds 1")
    assert (status, out) == (0, f"{FEW} rows of tiny, preset sample, are stored.\n")
    assert "maps" in err  # the progress bar
    assert set(runs.stored("tiny", "sample")["seed"]) == {1}
    status, out, _ = call(capsys, "run tiny --preset sample")
    assert (status, out) == (0, f"{ROWS} rows of tiny, preset sample, are stored.\n")


def test_paper_is_the_default_preset(tiny, capsys):
    status, out, _ = call(capsys, "run tiny --every 32")
    rows = 2 * len(ORDERS) * len(TINY.sizes["paper"].recorded(every=32))
    assert (status, out) == (0, f"{rows} rows of tiny, preset paper, are stored.\n")


def test_nothing_after_the_last_step_is_recorded(tiny, capsys):
    status, out, _ = call(capsys, "run tiny --preset sample --last 12")
    recorded = TINY.sizes["sample"].recorded(last=12)
    rows = 2 * len(ORDERS) * len(recorded)
    assert (status, out) == (0, f"{rows} rows of tiny, preset sample, are stored.\n")
    assert set(runs.stored("tiny", "sample")["step"]) == set(recorded) == {0, 1, 8}
    assert call(capsys, "run tiny --preset sample")[1].startswith(f"{ROWS} rows")


def test_a_changed_setting_is_stored_apart(tiny, capsys):
    fields = {"init": "glorot", "learning_rate": 0.001, "hidden": (4, 4)}
    words = "--set init=glorot learning_rate=1e-3 --set hidden=[4,4]"
    status, out, _ = call(capsys, f"run tiny --preset sample --every 32 {words}")
    assert (status, out) == (0, f"{2 * FEW} rows of tiny, preset sample, are stored.\n")
    assert runs.stored("tiny", "sample").empty
    kept = runs.stored("tiny", "sample", **fields)
    computed = runs.compute("tiny", "sample", every=32, **fields)
    pd.testing.assert_frame_equal(kept, computed, check_exact=True)
    status, out, _ = call(capsys, f"audit tiny --preset sample --points 1 {words}")
    assert status == 0
    assert "Equal." in out


def test_motion_is_run_like_any_other_study(tiny, capsys):
    status, out, err = call(capsys, "run motion-tiny --preset sample --seeds 1")
    rows = len(MOVING) * len(MOTION.sizes["sample"].at)
    assert (status, out) == (0, f"{rows} rows of motion-tiny, preset sample, are stored.\n")
    assert "steps" in err  # the progress bar
    assert set(runs.stored("motion-tiny", "sample")["seed"]) == {1}
    assert runs.stored("tiny", "sample").empty
    assert call(capsys, "run motion-tiny --preset sample")[1].startswith(f"{2 * rows} rows")
    words = "run motion-tiny --preset sample --set init=glorot --seeds 0"
    assert call(capsys, words)[0] == 0
    assert len(runs.stored("motion-tiny", "sample", init="glorot")) == rows
    assert len(runs.stored("motion-tiny", "sample")) == 2 * rows


def test_list_shows_what_there_is_and_what_is_stored(tiny, capsys):
    call(capsys, "run tiny --preset sample")
    status, out, err = call(capsys, "list")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    at = lines.index("tiny  A tiny experiment (Section 0)")
    size = f"2 seeds of {len(ORDERS)} cases"
    assert lines[at + 1 : at + 3] == [
        f"  sample {size}, 9 of 33 steps recorded; {ROWS} rows stored",
        f"  paper  {size}, 6 of 33 steps recorded; 0 rows stored",
    ]
    assert any(line.startswith("figure-7  ") for line in lines)
    assert any(line.startswith("motion-figure-7  ") for line in lines)
    assert any(line.startswith("figure-14  ") for line in lines)
    assert sum("0 rows stored" in line for line in lines) >= 3


def test_list_needs_neither_data_nor_network(tiny, capsys, monkeypatch):
    monkeypatch.setattr(datasets, "load", lambda *_, **__: pytest.fail("data was loaded"))
    assert call(capsys, "list")[0] == 0


def test_audit_passes_and_fails_by_its_exit_status(tiny, capsys, monkeypatch):
    call(capsys, "run tiny --preset sample")
    status, out, err = call(capsys, "audit tiny --preset sample --points 2")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1].startswith("Equal.")
    assert re.fullmatch(r"Draw \d+:", out.splitlines()[0])
    assert len(out.splitlines()) == 2 + 2 * 6 + 1
    evaluate = Task.evaluate

    def changed(task, model, last=None):
        return {name: value + 0.01 for name, value in evaluate(task, model, last).items()}

    monkeypatch.setattr(Task, "evaluate", changed)
    status, out, _ = call(capsys, "audit tiny --preset sample --points 2")
    assert status == 1
    assert out.splitlines()[-1].startswith("Not equal.")


def test_an_audit_with_too_little_time_says_so(tiny, capsys, monkeypatch):
    call(capsys, "run tiny --preset sample")
    clock = itertools.count(step=100)
    monkeypatch.setattr(engine.time, "monotonic", lambda: next(clock))
    status, out, _ = call(capsys, "audit tiny --preset sample --seconds 50")
    assert status == 0
    assert len(out.splitlines()) == 2 + 6 + 1
    assert out.splitlines()[-1].strip() == "Equal. The time was not enough for all points."


# Stopping


def test_a_stopped_run_says_that_everything_is_kept(tiny, capsys, monkeypatch):
    add = Writer.add

    def stop(writer, rows):
        add(writer, rows)
        if rows:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "add", stop)
        status, out, err = call(capsys, "run tiny --preset sample")
    assert status == 130
    assert out.startswith("\nStopped. ")
    assert out.endswith(" is kept; the same command goes on from there.\n")
    assert "Traceback" not in err
    assert 0 < len(runs.stored("tiny", "sample")) < ROWS
    assert call(capsys, "run tiny --preset sample")[:2] == (
        0,
        f"{ROWS} rows of tiny, preset sample, are stored.\n",
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is tried where it is a signal to a group")
def test_ctrl_c_stops_a_real_run_with_two_workers(tmp_path, monkeypatch):
    """As a terminal sends it: to the process and its workers at once."""
    monkeypatch.chdir(tmp_path)
    paths = [str(Path(revlib.__file__).parent.parent), os.environ.get("PYTHONPATH")]
    words = f"run {QUICK} --preset sample --every 1 --workers 2"
    process = subprocess.Popen(
        [sys.executable, "-m", "revlib", *words.split()],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests run in the background, they inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        end = time.monotonic() + 300
        while not any(path.stat().st_size > 5000 for path in tmp_path.rglob("*.journal")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=100)
    finally:
        with contextlib.suppress(ProcessLookupError):  # nothing is left of it, as it should be
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130
    assert out.startswith("\nStopped. ")
    assert all("maps" in line for line in err.splitlines() if line.strip()), err
    changes = {"hidden": (8,), "train_examples": 20, "test_examples": 20}
    table = runs.stored("figure-7", "sample", **changes)
    assert len(table) >= 20
    assert not list(tmp_path.rglob("*.journal"))
    assert Plan.of("figure-7", "sample", every=1, changes=changes).missing(table)


EDITED = "revlib.training.tasks.Task"


def edit(monkeypatch):
    """Take the code for edited, without another effect."""
    code = reachable.code
    monkeypatch.setattr(reachable, "code", lambda *roots: code(*roots) | {EDITED: "other"})


def test_stale_rows_are_named_with_the_ways_to_renew_them(tiny, capsys, monkeypatch):
    call(capsys, "run tiny --preset sample")
    edit(monkeypatch)
    for words in ("list", "run tiny --preset sample"):
        status, out, _ = call(capsys, words)
        assert status == 0
        assert f"Stale and not used: {ROWS} rows with other code in {EDITED}." in out
        assert "`revlib renew tiny` renews what still holds" in out
        assert "`revlib audit tiny --preset sample`, at more cost" in out


def test_stale_rows_of_motion_and_of_changed_settings_are_named_too(tiny, capsys, monkeypatch):
    call(capsys, "run motion-tiny --preset sample --seeds 0")
    call(capsys, "run tiny --preset sample --every 32 --seeds 0 --set init=glorot")
    edit(monkeypatch)
    _, out, _ = call(capsys, "list")
    rows = len(MOVING) * len(MOTION.sizes["sample"].at)
    assert f"Stale and not used: {rows} rows with other code in {EDITED}." in out
    assert "`revlib audit motion-tiny --preset sample`" in out
    assert call(capsys, "audit motion-tiny --preset sample --points 1")[0] == 0
    _, out, _ = call(capsys, "list")
    assert "Stale" not in out
    words = "run tiny --preset sample --every 32 --seeds 0 --set init=glorot"
    _, out, _ = call(capsys, words)
    assert f"Stale and not used: {FEW} rows with other code in {EDITED}." in out
    assert "`revlib audit tiny --preset sample --set init=glorot`" in out


def test_renew_takes_all_that_is_stored_and_says_what_became_of_it(tiny, capsys, monkeypatch):
    assert call(capsys, "renew") == (0, "", "")  # nothing is stored
    call(capsys, "run tiny --every 32 --seeds 0")
    call(capsys, "run tiny --preset sample --every 32 --seeds 0 --set hidden=[4,4] init=glorot")
    call(capsys, "run motion-tiny --preset sample --seeds 0")
    assert call(capsys, "renew") == (0, "", "")  # nothing is stale
    edit(monkeypatch)
    rows = len(ORDERS) * len(TINY.sizes["paper"].recorded(every=32))
    outcome = r"rows: renewed by rehearsal: [\d,]+ numbers of the sample come out equal\."
    status, out, err = call(capsys, "renew motion-tiny")
    assert (status, err) == (0, "")
    assert re.fullmatch(rf"motion-tiny --preset sample, \d+ {outcome}\n", out)
    status, out, err = call(capsys, "renew")
    assert (status, err) == (0, "")
    first, second = out.splitlines()
    assert re.fullmatch(rf"tiny, {rows} {outcome}", first)
    command = "tiny --preset sample --set 'hidden=(4, 4)' init=glorot"
    assert second.startswith(f"{command}, {FEW} rows: ")
    assert "Stale" not in call(capsys, "list")[1]


def test_renew_fails_by_its_exit_status_where_something_stays_stale(tiny, capsys, monkeypatch):
    call(capsys, "run tiny --preset sample --every 32 --seeds 0")
    call(capsys, "run motion-tiny --preset sample --seeds 0")
    edit(monkeypatch)
    evaluate = Task.evaluate

    def changed(task, model, last=None):
        return {name: value + 0.01 for name, value in evaluate(task, model, last).items()}

    monkeypatch.setattr(Task, "evaluate", changed)
    status, out, err = call(capsys, "renew")
    assert (status, err) == (1, "")
    motion, curves = out.splitlines()
    assert ": renewed by rehearsal: " in motion
    assert curves.startswith(f"tiny --preset sample, {FEW} rows: stale: its rehearsal comes out ")
    assert call(capsys, "renew")[0] == 1
    assert call(capsys, "renew motion-tiny")[0] == 0


def test_a_killed_worker_gets_a_sentence(tiny, capsys, monkeypatch):
    def killed(*_, **__):
        raise BrokenExecutor("no traceback of this is shown")

    monkeypatch.setattr(Plan, "compute", killed)
    status, _, err = call(capsys, "run tiny --preset sample")
    assert status == 2
    assert_one_sentence(err, "A worker was killed", "What was computed is kept")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_file_whose_encoding_lacks_a_letter_gets_its_name(encoding, monkeypatch):
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding))
    monkeypatch.setattr(cli, "_claims", lambda options: print("λ = h²") or 0)
    assert cli.main(["claims"]) == 0
    sys.stdout.flush()
    assert file.getvalue().decode(encoding).startswith(r"\N{GREEK SMALL LETTER LAMDA} = h")
