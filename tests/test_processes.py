"""The processes that compute end with the one that started them."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

WORK = """
import os, sys, time
from pathlib import Path
import joblib
from revlib.training import processes

def work(folder, late):
    parent = os.getppid()
    if not late:
        processes.end_with_parent()
    Path(folder, str(os.getpid())).touch()
    while late and os.getppid() == parent:
        time.sleep(0.01)
    processes.end_with_parent()
    time.sleep(600)

if __name__ == "__main__":
    with processes.pool(2) as parallel:
        for _ in parallel(joblib.delayed(work)(sys.argv[1], sys.argv[2] == "late") for _ in "ab"):
            pass
"""


def alive(pid):
    """Return whether a process runs; one that has ended may wait for its parent to ask."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are found in /proc")
@pytest.mark.parametrize("when", ["early", "late"])
def test_workers_end_with_a_parent_that_is_killed_before_or_after_they_have_begun(tmp_path, when):
    script, found = tmp_path / "script.py", tmp_path / "found"
    script.write_text(WORK)
    found.mkdir()
    parent = subprocess.Popen([sys.executable, script, found, when], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: len(list(found.iterdir())) == 2)
    finally:
        parent.kill()
        parent.wait()
    workers = [int(path.name) for path in found.iterdir()]
    wait_until(lambda: not any(map(alive, workers)))


def wait_until(happened):
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)
