"""The benchmark: its contenders compute the same, and its table is arithmetic on what it stored."""

import numpy as np
import pytest
import torch

from revlib import cli, figures
from revlib.runs import benchmark
from revlib.runs.benchmark import Workload
from revlib.training import convolutions
from revlib.training.tasks import Task

SMALL = (
    Workload("dense", "mlp", (6, 5, 3), 3, 4, 12, 4, 2, 3.0),
    Workload("regression", "mlp", (1, 5, 1), 0, 1, 12, 4, 4),
)


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark, "WORKLOADS", SMALL)
    monkeypatch.setattr(benchmark, "TURNS", 2)
    monkeypatch.setattr(benchmark.joblib, "cpu_count", lambda: 1)
    monkeypatch.setattr(benchmark, "GROWTH_STEPS", (10, 20))
    seconds = benchmark._seconds  # measured for a moment only
    monkeypatch.setattr(benchmark, "_seconds", lambda action, for_=0.3: seconds(action, for_ / 100))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("workload", SMALL, ids=lambda w: w.name)
@pytest.mark.parametrize("strategy", ["dense", "eager"])
def test_the_plain_loop_and_the_engine_compute_the_same(workload, strategy, monkeypatch, small):
    seen = []
    evaluate = Task.evaluate

    def watched(task, model, last=None):
        measured = evaluate(task, model, last)
        seen.append(measured["test_loss"])
        return measured

    monkeypatch.setattr(Task, "evaluate", watched)
    monkeypatch.setattr(benchmark, "LEARNING_RATE", 0.01)
    recorded = workload.recorded(4)
    benchmark.plain(workload(), recorded, 1)
    plain = sorted(seen)
    seen.clear()
    benchmark.engine(workload, recorded, 1, strategy)
    assert len(set(plain)) == 4
    np.testing.assert_allclose(sorted(seen), plain, rtol=1e-5)


@pytest.mark.parametrize("workload", benchmark.WORKLOADS, ids=lambda w: w.name)
def test_the_workloads_are_what_their_names_say(workload):
    task = workload()
    assert len(task.batches) == workload.steps
    assert len(task.batch(1)[0]) == workload.batch_size
    output = task.model(task.batch(1)[0])
    assert output.shape == (workload.batch_size, workload.classes or 1)
    assert f"batch {workload.batch_size}" in workload.name


def test_the_bound_of_a_convolutional_network_counts_its_operations(monkeypatch):
    monkeypatch.setattr(benchmark, "_seconds", lambda action, for_seconds=0: 1e-3)
    monkeypatch.setattr(benchmark, "LARGE", 100)
    workload = next(w for w in benchmark.WORKLOADS if w.model == "resnet18")
    task = workload()
    network, images = task.model, task.batch(1)[0]
    table = convolutions.census(network, images).set_index("layer")
    found = benchmark.bound(workload, 1)
    forwards = table["multiplications"].sum()
    operations = 2 * 8 * (3 * forwards - table.loc["conv1", "multiplications"])
    assert found["products"] == pytest.approx(operations / (2 * 100**3 / 1e-3) * 1e3)
    live = table["live"].sum()
    assert found["moving"] == pytest.approx(12 * live / (8 * live / 1e-3) * 1e3)
    assert found["milliseconds"] == found["products"] + found["moving"]


def test_bench_stores_its_result_and_prints_the_table(small, capsys):
    assert cli.main(["bench"]) == 0
    out, err = capsys.readouterr()
    assert "dense: turn 2 of 2" in err
    result = benchmark.stored()
    table = benchmark.table(result)
    assert set(table["contender"]) == {"plain", "plain, one thread", "dense", "eager"}
    assert table["workload"].tolist() == ["dense"] * 4 + ["regression"] * 4
    assert str(table["contender"].iloc[1]) in out
    for figures_ in result["workloads"]:
        assert all(len(times) == 2 for times in figures_["milliseconds"].values())
    grown = [entry for entry in result["growth"] if entry["order"] == "backward"]
    assert [(entry["steps"], entry["maps"]) for entry in grown] == [(10, 55), (20, 210)]
    assert result["environment"]["machine"]
    assert result["profiles"] == {}  # there is no convolutional network among them


def test_a_profile_shares_out_a_step():
    workload = benchmark.Workload("resnet", "resnet18", (), 10, 2, 2, 1, 1, stem="imagenet")
    shares = benchmark.profile(workload)
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) > 0


def test_ratios_are_taken_turn_by_turn():
    result = {
        "workloads": [
            {
                "workload": "one",
                "target": 2.0,
                "milliseconds": {"plain": [1.0, 6.0, 3.0], "dense": [1.0, 2.0, 0.5]},
                "bound": {"milliseconds": 0.25},
            }
        ]
    }
    dense = benchmark.table(result).set_index("contender").loc["dense"]
    assert (dense["lowest"], dense["ratio"], dense["highest"]) == (1.0, 3.0, 6.0)
    assert dense["milliseconds"] == 1.0
    assert dense["part of the bound"] == 0.25


def test_the_figures_show_what_is_in_the_table(small):
    result = benchmark.run(lambda line: None)
    table = benchmark.table(result)
    drawn = {
        float(x)
        for container in figures.ratios(table).axes[0].containers
        for x in container.lines[0].get_xdata()
    }
    assert drawn == set(table.loc[table["contender"] != "plain", "ratio"])
    grown = benchmark.pd.DataFrame(result["growth"])
    lines = figures.growth(grown).axes[0].lines
    assert {line.get_label() for line in lines} == set(grown["order"])
    for line in lines:
        own = grown[grown["order"] == line.get_label()]
        assert line.get_ydata().tolist() == own["seconds"].tolist()


def test_the_figure_of_live_parameters_shows_the_census():
    table = convolutions.census(torch.nn.Conv2d(2, 3, 3, padding=1), torch.zeros(1, 2, 1, 1))
    live, dead = figures.live_parameters(table).axes[0].patches
    assert live.get_width() * 1e6 == pytest.approx(2 * 3 + 3)
    assert dead.get_x() == live.get_width()
    assert dead.get_width() * 1e6 == pytest.approx(2 * 3 * 8)
