"""What the tests of the store, the runs and the command line share."""

import pytest
import tiny as tiny_experiment
import torch

from revlib import experiments

# The files that take longest begin first, so that no worker has one of them left at the end.
LONGEST = [
    "tests/test_browser.py",
    "notebooks/a-3-vgg-19-cifar-10.ipynb",
    "tests/test_published.py",
    "notebooks/a-4-resnet-50-cifar-100.ipynb",
    "notebooks/a-6-longer-training.ipynb",
    "tests/test_runs.py",
    "notebooks/4-1-resnet-18-cifar-10.ipynb",
]


def pytest_collection_modifyitems(items):
    """Put the tests of the longest files first, and leave the others in their order."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(LONGEST)))


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """The tiny experiment and its motion, with a store of its own in the current folder."""
    for study in (tiny_experiment.TINY, tiny_experiment.MOTION):
        monkeypatch.setitem(experiments.STUDIES, study.name, study)
    monkeypatch.chdir(tmp_path)
    return tiny_experiment.TINY


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def contents(folder):
    """The bytes of each file in a folder itself, but for the lock."""
    files = (path for path in folder.iterdir() if path.is_file() and path.name != ".lock")
    return {path.name: path.read_bytes() for path in files}
