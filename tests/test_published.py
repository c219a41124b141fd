"""The results that the book publishes hold for today's code, and can be computed again."""

from pathlib import Path

import pytest

from revlib import experiments, runs
from revlib.runs import step_costs
from revlib.runs.engine import Plan
from revlib.store import results

ROOT = Path(__file__).parent.parent
SECONDS = 10  # for recomputing points of one study
WHOLE = [name for name, study in experiments.STUDIES.items() if not study.method.by_step]
SLOW = {f"motion-figure-{n}" for n in (2, 3, 7, 8, 9, 10, 11)}  # a point takes minutes


def kept():
    """What is stored, looked up from the root of the checkout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return results.kept()


@pytest.fixture(autouse=True)
def published(monkeypatch):
    """The results are looked up from the current folder."""
    monkeypatch.chdir(ROOT)


def check(audit):
    """Fail if more points than rounding explains are not equal.

    Where rounding makes a ReLU switch in one computation and not in the other, a point moves
    further than rounding was measured to: about one point in a hundred of the regressions, and
    one in twenty to forty of growth rates along two chains.
    """
    points = audit.points.groupby(results.KEYS)["equal"].all()
    assert (~points).sum() <= len(points) // 3, audit.points
    assert not audit.renewed


@pytest.mark.parametrize(("name", "preset", "changes"), kept(), ids=str)
def test_no_published_result_is_stale(name, preset, changes):
    command = Plan.of(name, preset, changes=changes).command
    assert not runs.stale(name, preset, **changes), (
        f"renew them with `revlib renew {name}` or `revlib audit {command}`, or compute them again"
    )


@pytest.mark.parametrize(("name", "preset", "changes"), kept(), ids=str)
def test_each_published_result_has_a_rehearsal(name, preset, changes):
    file = runs.source(name, preset, **changes)
    assert file is not None
    assert file.has_rehearsal()


@pytest.mark.parametrize("name", WHOLE)
def test_each_study_that_is_computed_whole_is_published(name):
    assert runs.shown(name, "paper").preset == "paper", f"`revlib run {name}` computes it"


@pytest.mark.parametrize("name", experiments.STUDIES)
def test_published_points_are_found_again(name):
    if name in SLOW:
        pytest.skip("a point takes minutes")
    plan = Plan.of(name, "paper")
    if not len(runs.stored(name)):
        pytest.skip(f"nothing is published yet: `revlib run {name}` computes it")
    if not plan.has_data:
        data = plan.size.setting.data
        pytest.skip(f"the data is missing: `revlib data {data}` fetches it")
    if plan.study.method.by_step:
        for audit in runs.audit(name, points=3, seconds=SECONDS):
            check(audit)
    else:
        for audit in runs.audit(name, points=1):
            assert audit.passed, audit.points
            assert not audit.renewed


def test_the_costs_of_a_regularised_step_are_published():
    assert step_costs.costs_path().exists()
