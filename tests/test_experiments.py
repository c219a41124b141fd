"""The table of studies: what the papers state, and consistency."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from revlib import experiments
from revlib.experiments import STUDIES, Iterates, Whole
from revlib.orders import named
from revlib.store import reachable
from revlib.training.settings import Setting

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"

FIGURES = [name for name in STUDIES if name in {f"figure-{n}" for n in range(2, 12)}]

every_study = pytest.mark.parametrize("study", STUDIES.values(), ids=lambda s: s.name)


@every_study
def test_every_entry_is_complete(study):
    assert STUDIES[study.name] is study
    assert set(study.sizes) == set(experiments.PRESETS) == {"sample", "paper"}
    assert (NOTEBOOKS / f"{study.chapter}.md").exists()
    assert study.title
    assert study.section
    assert set(study.unstated) <= set(Setting.__dataclass_fields__)
    for variant in study.variants:
        assert study.size("paper").changed(**variant) != study.size("paper")
    for name, size in study.sizes.items():
        assert size.seeds
        assert len(set(size.cases)) == len(size.cases) > 0
        assert isinstance(size.setting, Setting)
        assert size.setting.sample == (name == "sample")
        assert max(size.recorded()) <= size.steps
        assert size.recorded()
        for case in size.cases:
            assert not study.method.by_step or named(case).name == case


@every_study
def test_the_code_of_a_study_is_what_computes_and_not_what_tells(study):
    for size in study.sizes.values():
        found = reachable.code(*study.method.roots(size.parameters, size.cases))
        assert "revlib.training.settings.build" in found
        assert "revlib.training.tasks.Task" in found
        rooms = {name.split(".")[1] for name in found}
        assert not rooms & {"runs", "verdicts", "figures", "cli"}
        assert not any(name.startswith("revlib.store.results") for name in found)


@every_study
def test_each_preset_runs_the_code_of_the_paper(study):
    """Otherwise a rehearsal at the sample would tell nothing of the paper's results."""
    sample, paper = (
        reachable.code(*study.method.roots(size.parameters, size.cases))
        for size in (study.size("sample"), study.size("paper"))
    )
    assert sample == paper


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
    "figure-11": ("cifar10", "resnet18", 8, 0.025, 25_000, 3),  # the paper has one seed
}


@pytest.mark.parametrize("name", PAPER)
def test_settings_are_the_papers(name):
    size = experiments.get(name).size("paper")
    setting = size.setting
    assert (
        setting.data,
        setting.model,
        setting.batch_size,
        setting.learning_rate,
        size.steps,
        len(size.seeds),
    ) == PAPER[name]
    if setting.model == "mlp":
        assert setting.hidden == ((300,) * 3 if setting.batch_size == 1 else (500,) * 5)
    assert set(PAPER) == set(FIGURES)


def test_orders_are_the_papers():
    def orders(name, size):
        return list(experiments.get(name).size(size).cases)

    for name in set(PAPER) - {"figure-3", "figure-10", "figure-11"}:
        assert orders(name, "paper") == orders(name, "sample") == ["forward", "backward"]
    assert orders("figure-3", "paper") == ["forward", "backward", "reset(1000)"]
    assert orders("figure-10", "paper") == ["forward", "switch(1000)"]
    assert orders("figure-11", "paper") == ["forward", "windowed(100)", "backward"]


@pytest.mark.parametrize("name", FIGURES)
def test_to_each_figure_belongs_its_motion(name):
    study, moved = experiments.get(name), experiments.get(f"motion-{name}")
    assert moved.chapter == study.chapter
    assert isinstance(moved.method, Iterates)
    assert moved.method != study.method
    for preset, size in study.sizes.items():
        other = moved.size(preset)
        same = [field.name for field in fields(size) if field.name not in ("at", "bursts")]
        assert [getattr(size, field) for field in same] == [getattr(other, field) for field in same]
        assert other.recorded() == list(other.at)
        assert min(other.at) >= 1
        assert other.windows == []


@pytest.mark.parametrize("name", FIGURES)
def test_of_a_figure_the_whole_run_is_recorded(name):
    for size in experiments.get(name).sizes.values():
        assert max(size.recorded()) == size.steps
        assert size.recorded()[:2] == [0, 1]


def test_all_but_the_figures_their_motion_and_the_endings_are_computed_whole():
    whole = {name for name, study in STUDIES.items() if isinstance(study.method, Whole)}
    by_step = {*FIGURES, *(f"motion-{name}" for name in FIGURES)}
    assert whole == {n for n in STUDIES if n not in by_step and not n.startswith("endings-")}
    assert all(not STUDIES[name].method.by_step for name in whole)
    for name in whole:
        assert all(size.at for size in STUDIES[name].sizes.values())


@pytest.mark.parametrize("name", FIGURES)
def test_the_table_of_choices_tells_what_the_paper_leaves_open(name):
    study = experiments.get(name)
    setting = study.size("paper").setting
    table = study.choices(setting).set_index("choice")
    open_ = table["in the paper"].str.startswith("not stated")
    assert set(table.index[open_]) == {name.replace("_", " ") for name in study.unstated}
    assert all(getattr(setting, name) is not None for name in study.unstated if "exam" not in name)
    assert "None" not in table["here"].to_numpy()
    assert not {"sample", "nudge"} & set(table.index)


def test_recorded_steps_are_the_grid_the_bursts_and_both_ends():
    size = experiments.get("figure-7").size("sample")
    size = replace(size, steps=10, every=4, bursts=((5, 2),))
    assert size.recorded() == [0, 1, 4, 5, 6, 8, 10]
    assert size.recorded(every=7) == [0, 1, 5, 6, 7, 10]
    assert size.recorded(last=5) == [0, 1, 4, 5]
    assert size.windows == [(5, 6)]
    for bad in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="a whole number, 1 or more"):
            size.recorded(every=bad)


def test_steps_may_be_given_one_by_one():
    size = experiments.get("motion-figure-7").size("sample")
    size = replace(size, steps=10, every=4, at=(3, 9))
    assert size.recorded() == [3, 9]
    assert size.recorded(last=5) == [3]


def test_a_size_is_changed_in_its_setting_wherever_that_is():
    alone = experiments.get("figure-7").size("sample")
    among = experiments.get("figure-14").size("sample")
    for size in (alone, among):
        changed = size.changed(learning_rate=0.5, init=None)
        assert changed.setting == size.setting.changed(learning_rate=0.5)
        assert changed.setting.init == size.setting.init
        assert size.setting.learning_rate != 0.5
        assert size.changed() == size
        with pytest.raises(ValueError, match="no 'speed'. It has: data, sample, model, hidden"):
            size.changed(speed=1)
    assert among.changed(learning_rate=0.5).parameters.c == among.parameters.c


@every_study
def test_the_data_of_a_study_are_those_of_its_full_size(study):
    data = study.size("paper").setting.data
    assert study.data == (data if data in ("fashion_mnist", "cifar10", "cifar100") else None)


def test_unknown_names_are_refused_with_the_valid_ones():
    with pytest.raises(
        ValueError, match="no study 'figure-0'. Valid are: figure-2, motion-figure-2, figure-3"
    ):
        experiments.get("figure-0")
    with pytest.raises(ValueError, match="no preset 'big'. Valid are: sample, paper"):
        experiments.get("figure-7").size("big")
