"""Settings: the paper's tasks from data, every choice of them as it is told."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from revlib import experiments
from revlib.experiments import figures_2_to_11
from revlib.store import datasets
from revlib.training import settings
from revlib.training.settings import build

SETTING = experiments.get("figure-7").size("sample").setting


def test_seeds_change_the_start_and_the_batches():
    one, again, other = build(SETTING, 0), build(SETTING, 0), build(SETTING, 1)
    assert torch.equal(one.model[1].weight, again.model[1].weight)
    assert not torch.equal(one.model[1].weight, other.model[1].weight)
    assert torch.equal(one.batch(5)[0], again.batch(5)[0])
    assert not torch.equal(one.batch(5)[0], other.batch(5)[0])


def test_the_sample_is_computed_in_double_precision():
    """What chapters print must be the same on every processor."""
    for study in figures_2_to_11.STUDIES[::2]:
        problem = build(study.size("sample").setting, 0)
        tensors = [*problem.model.state_dict().values(), problem.batch(1)[0]]
        assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.float64}
    full = build(SETTING.changed(data="x^2", model="mlp", sample=False), 0)
    assert {p.dtype for p in full.model.parameters()} == {torch.float32}


def test_a_nudge_moves_every_number_of_the_start_by_one_unit_of_rounding():
    plain, one, again, other = (
        build(SETTING.changed(nudge=nudge), 0).model.state_dict() for nudge in (0, 1, 1, 2)
    )
    for name, value in plain.items():
        if value.is_floating_point() and value.any():
            eps = torch.finfo(value.dtype).eps
            moved = (one[name] / value - 1).abs()
            assert ((moved > 0) & (moved < 2.1 * eps)).all()
            assert torch.equal(one[name], again[name])
            assert not torch.equal(one[name], other[name])


def test_a_setting_means_what_it_says():
    data = datasets.load("fashion_mnist", sample=True)
    changes = {"hidden": (7, 5), "train_examples": 30, "test_examples": None}
    problem = build(dataclasses.replace(SETTING, **changes), 0)
    assert [p.shape[0] for p in problem.model.parameters() if p.ndim == 2] == [7, 5, 10]
    x, y = problem.evaluation["train"]
    assert (len(x), len(problem.evaluation["test"][0])) == (30, len(data.x_test))
    torch.testing.assert_close(x, torch.tensor(data.x_train[:30]).double() / 255)
    assert y.tolist() == data.y_train[:30].tolist()
    assert len(problem.batch(1)[0]) == SETTING.batch_size
    optimizer = problem.optimizer(problem.model.parameters())
    assert type(optimizer) is torch.optim.SGD
    assert optimizer.param_groups[0]["lr"] == SETTING.learning_rate
    assert optimizer.param_groups[0]["weight_decay"] == 0


def test_standardised_inputs_have_mean_0_and_deviation_1():
    problem = build(dataclasses.replace(SETTING, scaling="standardised"), 0)
    x = problem.batches.inputs
    assert abs(x.mean()) < 1e-4
    assert abs(x.std() - 1) < 1e-4


@pytest.mark.parametrize("figure", ["figure-7", "figure-2"])
def test_every_image_can_be_standardised_on_its_own(figure):
    setting = experiments.get(figure).size("sample").setting
    plain, scaled = (build(setting.changed(scaling=s), 0) for s in ("unit", "image"))
    for own, raw in zip(
        (scaled.batches.inputs, scaled.evaluation["test"][0]),
        (plain.batches.inputs, plain.evaluation["test"][0]),
        strict=True,
    ):
        assert own.shape == raw.shape
        raw = raw.flatten(1)  # all colours together
        expected = (raw - raw.mean(1, keepdim=True)) / raw.std(1, keepdim=True, correction=0)
        torch.testing.assert_close(own.flatten(1), expected, rtol=1e-12, atol=1e-12)


def test_an_image_of_a_single_colour_becomes_0():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 28, 28, generator=generator)
    images[1] /= 4
    images[2] = 7 / 255
    found = settings._each_on_its_own(images)
    torch.testing.assert_close(found.mean((1, 2)), torch.zeros(3), rtol=0, atol=1e-5)
    deviations = found.std((1, 2), correction=0)
    torch.testing.assert_close(deviations, torch.tensor([1.0, 1, 0]), rtol=0, atol=1e-5)


def test_a_changed_setting_names_its_fields():
    assert SETTING.changed(learning_rate=0.5, init=None) == dataclasses.replace(
        SETTING, learning_rate=0.5
    )
    with pytest.raises(ValueError, match="no 'rate'. It has: data, sample, model"):
        SETTING.changed(rate=1)


@pytest.mark.parametrize(
    ("field", "wrong", "message"),
    [
        ("scaling", "odd", "'scaling' must be unit or standardised or image, for the data fashion"),
        ("sampling", "odd", "'sampling' must be epochs or independent; got 'odd'"),
        ("model", "odd", "must be mlp or resnet10 or resnet14 or resnet18 or resnet50 or vgg11"),
        ("nudge", -1, "'nudge' must be a whole number from 0"),
        ("hidden", ("8",), "'hidden' must be a list of widths"),
        ("learning_rate", float("nan"), "'learning_rate' must be a finite number, 0 or more"),
        ("learning_rate", 10**400, "'learning_rate' must be a finite number, 0 or more"),
    ],
)
def test_a_wrong_choice_is_refused(field, wrong, message):
    with pytest.raises(ValueError, match=message):
        SETTING.changed(**{field: wrong})


def test_a_function_has_no_images_to_scale_one_by_one():
    with pytest.raises(ValueError, match="'scaling' must be unit or standardised, for the data x"):
        SETTING.changed(data="x^2", scaling="image")


def test_numbers_of_other_libraries_are_taken_as_pythons_own():
    given = {"batch_size": np.int64(4), "learning_rate": np.float32(0.5), "hidden": [np.int32(3)]}
    changed = SETTING.changed(**given)
    assert changed == SETTING.changed(batch_size=4, learning_rate=0.5, hidden=(3,))
    assert type(changed.batch_size) is int
    assert [type(width) for width in changed.hidden] == [int]


@pytest.mark.parametrize(
    ("figure", "value"), [(4, lambda x: x**2), (5, lambda x: math.cos(10 * x)), (6, lambda x: x**3)]
)
def test_regressions_are_those_of_section_a_1(figure, value):
    setting = experiments.get(f"figure-{figure}").size("paper").setting
    problem = build(setting, 0)
    x, y = problem.evaluation["train"]
    assert len(x) == 101
    for i in (0, 7, 50, 100):
        assert x[i].item() == pytest.approx(-1 + 2 * i / 100, abs=1e-6)
        assert y[i].item() == pytest.approx(value(-1 + 2 * i / 100), abs=1e-5)
    between, at = problem.evaluation["test"]
    assert len(between) == 100
    torch.testing.assert_close(between, (x[:-1] + x[1:]) / 2)
    assert at[3].item() == pytest.approx(value(between[3].item()), abs=1e-5)
    assert problem.loss is nn.functional.mse_loss


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_colour_images_have_their_channels_first_and_are_scaled_one_by_one(name):
    setting = experiments.get("figure-2").size("sample").setting.changed(data=name)
    raw = datasets.load(name, sample=True)
    problem = build(setting, 0)
    x = problem.batches.inputs
    assert x.shape[1:] == (3, 32, 32)
    assert x[5, 2, 10, 20].item() == pytest.approx(raw.x_train[5, 10, 20, 2] / 255)
    standardised = build(setting.changed(scaling="standardised"), 0).batches.inputs
    assert standardised.mean((0, 2, 3)).abs().max() < 1e-4
    assert (standardised.std((0, 2, 3)) - 1).abs().max() < 1e-4
    assert problem.model(x[:2]).shape == (2, len(raw.classes))
    with pytest.raises(ValueError, match="'init' must be torchvision, for the model resnet10"):
        setting.changed(init="he")
