"""The table of experiments: what the paper states, and consistency."""

from dataclasses import replace
from pathlib import Path

import pytest

from revlib import backward, experiments, forward
from revlib.training import tasks

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


@pytest.mark.parametrize("experiment", experiments.EXPERIMENTS.values(), ids=lambda e: e.name)
def test_every_entry_is_complete(experiment):
    assert set(experiment.presets) == {"ci", "paper"}
    assert (NOTEBOOKS / f"{experiment.chapter}.md").exists()
    assert set(experiment.unstated) <= set(tasks.Setting.__dataclass_fields__)
    for name, preset in experiment.presets.items():
        assert preset.setting.sample == (name == "ci")
        assert max(preset.recorded()) == preset.steps


PAPER = {  # statements.md, section 1: data, model, batch, learning rate, steps, seeds
    "figure-2": ("cifar10", "resnet18", 8, 0.025, 2000, 5),
    "figure-3": ("fashion_mnist", "mlp", 8, 0.001, 2000, 5),
    "figure-4": ("x^2", "mlp", 1, 0.05, 1400, 5),
    "figure-5": ("cos(10x)", "mlp", 1, 0.02, 1400, 5),
    "figure-6": ("x^3", "mlp", 1, 0.02, 1400, 5),
    "figure-7": ("fashion_mnist", "mlp", 8, 0.001, 2000, 5),
    "figure-8": ("cifar10", "vgg19", 8, 0.001, 2000, 5),
    "figure-9": ("cifar100", "resnet50", 16, 0.001, 2000, 5),
    "figure-10": ("fashion_mnist", "mlp", 8, 0.001, 2000, 5),
    "figure-11": ("cifar10", "resnet18", 8, 0.025, 25_000, 1),
}


@pytest.mark.parametrize("name", PAPER)
def test_settings_are_the_papers(name):
    preset = experiments.get(name).preset("paper")
    setting = preset.setting
    assert (
        setting.data,
        setting.model,
        setting.batch_size,
        setting.learning_rate,
        preset.steps,
        len(preset.seeds),
    ) == PAPER[name]
    if setting.model == "mlp":
        assert setting.hidden == ((300,) * 3 if setting.batch_size == 1 else (500,) * 5)
    assert set(PAPER) == set(experiments.EXPERIMENTS)


def test_orders_are_the_papers():
    def orders(name, size):
        return [order.name for order in experiments.get(name).preset(size).orders]

    for name in (
        "figure-2",
        "figure-4",
        "figure-5",
        "figure-6",
        "figure-7",
        "figure-8",
        "figure-9",
    ):
        assert orders(name, "paper") == orders(name, "ci") == ["forward", "backward"]
    assert orders("figure-3", "paper") == ["forward", "backward", "reset(1000)"]
    assert orders("figure-10", "paper") == ["forward", "switch(1000)"]
    assert orders("figure-11", "paper") == ["forward", "backward", "windowed(100)"]


@pytest.mark.parametrize("experiment", experiments.EXPERIMENTS.values(), ids=lambda e: e.name)
def test_the_table_of_choices_tells_what_the_paper_leaves_open(experiment):
    setting = experiment.preset("paper").setting
    table = experiment.choices(setting).set_index("choice")
    open_ = table["in the paper"].str.startswith("not stated")
    assert set(table.index[open_]) == {name.replace("_", " ") for name in experiment.unstated}
    assert all(
        getattr(setting, name) is not None for name in experiment.unstated if "exam" not in name
    )
    assert "None" not in table["here"].to_numpy()


def test_recorded_steps_are_the_grid_the_bursts_and_both_ends():
    preset = experiments.get("figure-7").preset("ci")
    preset = replace(preset, steps=10, every=4, bursts=((5, 2),), until={"backward": 6})
    assert preset.recorded() == preset.recorded(forward()) == [0, 1, 4, 5, 6, 8, 10]
    assert preset.recorded(every=7) == [0, 1, 5, 6, 7, 10]
    assert preset.recorded(backward()) == [0, 1, 4, 5, 6]
    assert preset.recorded(last=5) == [0, 1, 4, 5]
    assert preset.windows == [(5, 6)]
    for bad in (0, -1, 2.5):
        with pytest.raises(ValueError, match="a whole number, 1 or more"):
            preset.recorded(every=bad)


def test_unknown_names_are_refused_with_the_valid_ones():
    with pytest.raises(
        ValueError, match="no experiment 'figure-0'. Valid are: figure-10, figure-11, figure-2"
    ):
        experiments.get("figure-0")
    with pytest.raises(ValueError, match="no preset 'big'. Valid are: ci, paper"):
        experiments.get("figure-7").preset("big")
