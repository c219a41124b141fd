"""The table of experiments: what the paper states, and consistency."""

from pathlib import Path

import pytest

from revlib import experiments, tasks

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


@pytest.mark.parametrize("experiment", experiments.EXPERIMENTS.values(), ids=lambda e: e.name)
def test_every_entry_is_complete(experiment):
    assert set(experiment.presets) == {"ci", "paper"}
    assert (NOTEBOOKS / f"{experiment.chapter}.md").exists()
    assert set(experiment.unstated) <= set(tasks.Setting.__dataclass_fields__)
    for name, preset in experiment.presets.items():
        assert preset.setting.sample == (name == "ci")
        assert max(preset.recorded()) == preset.steps


def test_figure_7_is_the_papers_setting():
    """Section A.2: 5 hidden layers of 500, batch 8, learning rate 0.001, 5 seeds, 2000 steps."""
    preset = experiments.get("figure-7").preset("paper")
    assert preset.setting.data == "fashion_mnist"
    assert preset.setting.hidden == (500, 500, 500, 500, 500)
    assert preset.setting.batch_size == 8
    assert preset.setting.learning_rate == 0.001
    assert len(preset.seeds) == 5
    assert preset.steps == 2000


def test_recorded_steps_are_the_grid_the_bursts_and_both_ends():
    setting = experiments.get("figure-7").preset("ci").setting
    preset = experiments.Preset(setting, steps=10, seeds=(0,), every=4, bursts=((5, 2),))
    assert preset.recorded() == [0, 4, 5, 6, 8, 10]
    assert preset.recorded(every=7) == [0, 5, 6, 7, 10]
    for bad in (0, -1, 2.5):
        with pytest.raises(ValueError, match="a whole number, 1 or more"):
            preset.recorded(bad)


def test_unknown_names_are_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match="no experiment 'figure-0'. Valid are: figure-7"):
        experiments.get("figure-0")
    with pytest.raises(ValueError, match="no preset 'big'. Valid are: ci, paper"):
        experiments.get("figure-7").preset("big")
