"""The results that the book publishes hold for today's code, and can be computed again."""

from pathlib import Path

import pytest

from revlib import datasets, experiments, runs

pytestmark = pytest.mark.parametrize("name", experiments.EXPERIMENTS)


@pytest.fixture(autouse=True)
def published(monkeypatch):
    """The results are looked up from the current folder."""
    monkeypatch.chdir(Path(__file__).parent.parent)


def test_no_published_result_is_stale(name):
    assert not runs.stale(name), f"renew them with `revlib audit {name}`, or compute them again"
    assert len(runs.stored(name))


def test_a_published_point_is_found_again(name):
    setting = experiments.get(name).preset("paper").setting
    data = datasets.path(setting.data)
    if not data.exists():
        pytest.skip(f"{data} is missing: `revlib data {setting.data}` fetches it")
    for audit in runs.audit(name, points=1):
        assert audit.passed, audit.points
        assert not audit.renewed
