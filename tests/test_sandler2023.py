"""The observations along training paths, each against its definition on a small network."""

import copy
import dataclasses
import itertools

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from revlib import experiments, figures, runs
from revlib.experiments import sandler2023
from revlib.experiments.sandler2023 import FAR, Parameters
from revlib.theory import averaging
from revlib.training import settings

SETTING = sandler2023._setting("sample").changed(hidden=(8,), train_examples=50, test_examples=50)
TINY = Parameters(SETTING, start=3, length=6, held_out=2, recorded=(0, 1, 6), decay=0.3)
RATE = SETTING.learning_rate


def rows(compute, case, parameters=TINY):
    return {row["step"]: row for row in compute(parameters, 0, case)}


def trained(model, batches, rates=None):
    """Return the models along plain training on some batches, the first included."""
    found = [copy.deepcopy(model)]
    for batch, rate in zip(batches, rates or itertools.repeat(RATE), strict=False):
        model = copy.deepcopy(found[-1])
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        loss(model, batch).backward()
        optimizer.step()
        model.zero_grad()
        found.append(model)
    return found


def loss(model, *batches):
    losses = [nn.functional.cross_entropy(model(x), y) for x, y in batches]
    return sum(losses) / len(losses)


def vector(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def gradient(model, batch):
    parameters = list(model.parameters())
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss(model, batch), parameters)])


def cosine(one, other):
    return float(one @ other / one.norm() / other.norm())


@pytest.fixture(scope="module")
def path():
    """The task, and the models of its path from step 3 to step 9."""
    task = settings.build(SETTING, 0)
    models = trained(task.model, [task.batch(n) for n in range(1, 10)])
    return task, models[3:]


def test_one_step_on_a_batch(path):
    task, (model, *_) = path
    held_out = [task.batch(FAR), task.batch(FAR + 1)]
    for size in TINY.recorded:
        _, moved = trained(model, [task.batch(4)], [RATE * size / 10])
        for case, batches in (
            ("training batch", [task.batch(4)]),
            ("held-out batches", held_out),
        ):
            row = rows(sandler2023.single_step, case)[size]
            expected = loss(moved, *batches).item()
            assert row["loss"] == pytest.approx(expected, rel=1e-4)
            before = loss(model, *batches).item()
            assert row["change"] == pytest.approx(expected / before - 1, abs=1e-4)


def test_side_trips_stay_on_their_batch(path):
    task, (early, *_, late) = path
    other = settings.build(SETTING, 1000)
    *_, other = trained(other.model, [other.batch(n) for n in range(1, 4)])
    held_out = [task.batch(FAR), task.batch(FAR + 1)]
    for case, second, batches in (
        ("training batch", late, [task.batch(4)]),
        ("held-out batches", late, held_out),
        ("independent networks", other, [task.batch(4)]),
    ):
        trips = [trained(model, [task.batch(4)] * 6) for model in (early, second)]
        found = rows(sandler2023.side_trips, case)
        for step in TINY.recorded:
            ends = [trip[step] for trip in trips]
            middle = copy.deepcopy(early)
            between = sum(map(vector, ends)) / 2
            nn.utils.vector_to_parameters(between, middle.parameters())
            mean = sum(loss(end, *batches).item() for end in ends) / 2
            assert found[step]["loss"] == pytest.approx(mean, rel=1e-4)
            barrier = loss(middle, *batches).item() - mean
            assert found[step]["barrier"] == pytest.approx(barrier, abs=1e-4)


def test_angles_between_gradients(path):
    task, models = path
    fixed = task.batch(FAR)
    rates = [RATE * (1 - i / 6) for i in range(6)]
    decayed = trained(models[0], [task.batch(n) for n in range(4, 10)], rates)
    first = gradient(models[0], fixed)
    for step in TINY.recorded:
        now = gradient(models[step], fixed)
        for case, other in (
            ("same batch", first),
            ("two schedules", gradient(decayed[step], fixed)),
            ("different batches", gradient(models[step], task.batch(4 + step))),
        ):
            row = rows(sandler2023.alignment, case)[step]
            assert row["cosine"] == pytest.approx(cosine(now, other), abs=1e-4)
            assert row["norm"] == pytest.approx(float(now.norm() / first.norm()), rel=1e-4)


def test_distances_between_paths(path):
    task, models = path
    other = trained(models[0], [task.batch(FAR + n) for n in range(4, 10)])
    for case, ends in (
        ("the start", [models[0]] * 7),
        ("the other path", other),
        ("the other path's end", [other[-1]] * 7),
    ):
        found = rows(sandler2023.distances, case)
        for step in TINY.recorded:
            expected = float((vector(models[step]) - vector(ends[step])).norm())
            assert found[step]["distance"] == pytest.approx(expected, abs=1e-5)


def test_averages_and_their_schedules(path):
    task, models = path
    vectors = [vector(model) for model in models]
    batches = [task.batch(n) for n in range(4, 10)]
    for average, schedule in sandler2023.AVERAGES.items():
        found = rows(sandler2023.averages, average)
        worth = rows(sandler2023.averages, schedule)
        for k in TINY.recorded[1:]:
            weights = {
                "two points": averaging.points(2, k),
                "SWA": [*averaging.points(k), 0],
                "EMA": averaging.exponential(0.3, k),
            }[average]
            mean = sum(w * v for w, v in zip(weights, vectors[k::-1], strict=True))
            model = copy.deepcopy(models[0])
            nn.utils.vector_to_parameters(mean, model.parameters())
            expected = task.evaluate(model)["test_loss"]
            assert found[k]["test_loss"] == pytest.approx(expected, rel=1e-4)
            rates = [RATE * factor for factor in averaging.schedule(weights)]
            end = trained(models[0], batches, rates)[k]
            assert worth[k]["test_loss"] == pytest.approx(task.evaluate(end)["test_loss"], rel=1e-4)
            plain = (mean - vectors[k]).norm()
            if plain > 1e-6:
                apart = float((mean - vector(end)).norm() / plain)
                assert worth[k]["distance"] == pytest.approx(apart, abs=1e-3)
    plain = rows(sandler2023.averages, "constant rate")
    assert plain[6]["test_loss"] == pytest.approx(task.evaluate(models[6])["test_loss"], rel=1e-4)
    assert plain[0]["test_loss"] == found[0]["test_loss"]


def test_the_figure_of_the_cases():
    table = runs.compute("single-step", "sample")
    panels = {
        "one": (table, "loss", "size", "symlog log"),
        "two": (table, "change", "size", "linear linear"),
    }
    figure = figures.cases(panels | {"three": panels["one"]})
    assert [ax.get_title() for ax in figure.axes] == ["one", "two", "three"]
    assert len(figure.axes[0].lines) == 2 * (2 + 1)  # seeds, and the entry of the legend
    plt.close(figure)


def test_one_missing_study_makes_all_small(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    size = {"parameters": TINY, "seeds": (0,), "steps": 6, "at": TINY.recorded}
    for study in sandler2023.STUDIES:
        small = dataclasses.replace(study.sizes["sample"], **size)
        small = dataclasses.replace(study, sizes={"sample": small, "paper": small})
        monkeypatch.setitem(experiments.STUDIES, study.name, small)
    names = {study.title: study.name for study in sandler2023.STUDIES}
    for name in [*names.values()][1:]:
        runs.run(name, progress=False)
    found = runs.together(names, "paper")
    assert {each.preset for each in found.values()} == {"sample"}
    assert list(found) == list(names)
    runs.run("single-step", progress=False)
    assert {each.preset for each in runs.together(names, "paper").values()} == {"paper"}
