"""The same runs on a Dask scheduler with separate worker processes, one of which is killed."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from tiny import TINY

from revlib import cli, experiments, runs
from revlib.store import results
from revlib.training import processes

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent


def free_port():
    with closing(socket.socket()) as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


class Cluster:
    """A scheduler and its workers on the loopback address, a process each."""

    def __init__(self, folder):
        self.folder = folder
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.processes = []
        self._start("scheduler", "--host", self.address, "--no-dashboard")

    def _start(self, *words):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
            "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "60s",
            "OMP_NUM_THREADS": "1",
        }
        log = (self.folder / f"{len(self.processes)}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *words],
            env=environment,
            cwd=self.folder,
            stdout=log,
            stderr=log,
        )
        self.processes.append(process)
        return process

    def worker(self):
        """Start a worker of one thread that is not started again when it dies."""
        return self._start(
            "worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard"
        )

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    started = Cluster(tmp_path_factory.mktemp("cluster"))
    started.worker()
    yield started
    started.close()


@pytest.fixture(scope="module")
def whole():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(experiments.STUDIES, "tiny", TINY)
        return runs.compute("tiny", "sample", every=1)


def test_a_run_survives_a_killed_worker_and_gives_the_same_bits(
    tiny, whole, cluster, tmp_path, monkeypatch
):
    doomed = cluster.worker()
    client = pytest.importorskip("distributed").Client(cluster.address, timeout=60)
    client.wait_for_workers(2, timeout=60)
    taken = client.run(lambda: os.getpid())
    assert len(taken) == 2
    client.close()

    rows = 0
    add = results.Writer.add

    def kill_half_way(writer, new):
        nonlocal rows
        add(writer, new)
        rows += len(new)
        if rows > 40 and doomed.poll() is None:
            doomed.send_signal(signal.SIGKILL)
            doomed.wait()

    monkeypatch.setattr(results.Writer, "add", kill_half_way)
    status = cli.main(
        ["run", "tiny", "--preset", "sample", "--every", "1", "--cluster", cluster.address]
    )
    assert status == 0
    assert doomed.poll() == -signal.SIGKILL
    pd.testing.assert_frame_equal(runs.stored("tiny", "sample"), whole, check_exact=True)


def test_an_address_that_does_not_answer_is_refused_at_once(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(processes, "CONNECT_SECONDS", 1)
    address = f"tcp://127.0.0.1:{free_port()}"
    assert cli.main(["run", "tiny", "--preset", "sample", "--cluster", address]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith(f"revlib: No Dask scheduler answers at '{address}'")
    assert "dask scheduler" in err
    assert runs.stored("tiny", "sample").empty


@pytest.mark.parametrize("address", ["nonsense", "http://127.0.0.1:1", "tcp://"])
def test_an_address_that_is_none_is_refused(tiny, address, monkeypatch, capsys):
    monkeypatch.setattr(processes, "CONNECT_SECONDS", 1)
    assert cli.main(["run", "tiny", "--preset", "sample", "--cluster", address]) == 2
    assert "No Dask scheduler answers" in capsys.readouterr().err
