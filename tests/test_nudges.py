"""Nudges along a chain, against the plain loop, and what they come to."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from revlib import orders
from revlib.experiments.nudges import STUDIES, Parameters, nudges
from revlib.training.maps import Trainer
from revlib.training.settings import build
from revlib.verdicts import fixed_ending

SETTING = dataclasses.replace(
    tiny.SETTING, data="x^2", hidden=(7,), learning_rate=0.1, train_examples=None
)
STEPS = (0, 4, 9, 12)


def followed(case, hidden=(7,), size=1e-3):
    parameters = Parameters(SETTING.changed(hidden=hidden), STEPS, size)
    return pd.DataFrame(nudges(parameters, 3, case)).set_index("step")


def vector(state):
    return torch.cat([value.flatten() for value in state.model.values()])


def chain(task, letters, nudge=None):
    """The end of a chain, as a vector and as a loss; a nudge is added to where it begins."""
    trainer = Trainer(task)
    first, then = letters
    for n in first:
        trainer.apply(n)
    state = trainer.state()
    if nudge is not None:
        moved = nudge(trainer, state)
        trainer.load(dataclasses.replace(state, model=moved))
    for n in then:
        trainer.apply(n)
    return vector(trainer.state()), trainer.evaluate()["test_loss"]


@pytest.mark.parametrize("name", ["backward", "tail(5)"])
@pytest.mark.parametrize("place", [12, 5])
def test_a_nudge_along_a_step_is_what_the_next_batch_would_do(name, place):
    task, letters = build(SETTING, 3), orders.named(name).applied(12)
    letters = letters[: 12 - place], letters[12 - place :]

    def nudge(trainer, state):
        trainer.apply(13)
        step = {k: v - state.model[k] for k, v in trainer.state().model.items()}
        length = torch.cat([v.flatten() for v in step.values()]).norm()
        factor = 1e-3 * vector(state).norm() / length
        return {k: v + factor * step[k] for k, v in state.model.items()}

    start = chain(task, (letters[0], []))[0].norm()
    (one, loss), (other, moved) = chain(task, letters), chain(task, letters, nudge)
    found = followed(f"{name}, before the last {place}").loc[12]
    assert found["step_growth"] == pytest.approx(((other - one).norm() / (1e-3 * start)).item())
    assert found["step_loss"] == pytest.approx(abs(moved - loss), rel=1e-6)


def test_nothing_has_moved_before_the_nudge_and_it_begins_as_long_as_it_is():
    found = followed("backward, before the last 8")
    assert (found.loc[0] == 0).all()
    growths = ["random_growth", "step_growth"]
    np.testing.assert_allclose(found.loc[4, growths].to_numpy(float), 1, rtol=1e-9)
    assert (found.loc[[9, 12], growths] != 1).all(axis=None)


def test_the_two_directions_differ():
    found = followed("backward, before the last 12")
    assert found.loc[12, "random_growth"] != pytest.approx(found.loc[12, "step_growth"], rel=1e-3)


def test_of_affine_maps_the_size_does_not_matter():
    """A linear network has affine maps: what it makes of a difference does not depend on where."""
    case = "tail(5), before the last 5"
    small, large = (followed(case, hidden=(), size=size) for size in (1e-4, 1e-2))
    growths = ["random_growth", "step_growth"]
    np.testing.assert_allclose(small[growths], large[growths], rtol=1e-6)
    assert (small.loc[12, growths] < 1).all()  # and they contract


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_every_place_is_one_where_the_chains_are_compared(study):
    for size in study.sizes.values():
        last = size.steps
        places = {int(case.rpartition(" ")[2]) for case in size.cases}
        assert {last - place for place in places} <= set(size.at)
        assert last in places  # before the first map
        lengths = {orders.named(case.partition(", ")[0]).name for case in size.cases}
        assert {f"{name}, before the last {last}" for name in lengths} <= {*size.cases}


def made_up(start, ending):
    """Ends of chains on three seeds, by how much a nudge at either place has grown."""
    grown = {
        "backward, before the last 40": start,
        "backward, before the last 5": [1.0] * 3,
        "tail(5), before the last 5": ending,
    }
    return pd.DataFrame(
        {"seed": seed, "order": case, "step": step, "step_growth": g, "random_growth": 2 * g}
        for case, values in grown.items()
        for seed, growth in enumerate(values)
        for step, g in ((0, 1.0), (40, growth))
    )


def test_the_ends_are_told_by_order_and_by_how_many_maps_follow():
    found = fixed_ending.nudged(made_up([8.0, 9, 10], [2.0, 2, 3]))
    own = found[(found["order"] == "backward") & (found["after"] == 40)]
    assert own["growth"].tolist() == [8, 9, 10]
    assert own["random"].tolist() == [16, 18, 20]
    assert set(found["after"]) == {40, 5}


@pytest.mark.parametrize(
    ("start", "ending", "words"),
    [
        ([38.0, 44, 50.4], [2.0, 2.2, 2.4], "moves 20 times less after a small change"),
        ([2.0, 2.2, 2.4], [38.0, 44, 50.4], "moves 20 times *more* after a small change"),
        ([0.1, 1.0, 10.0], [1.0, 1.1, 1.0], "is undecided"),
    ],
)
def test_where_a_batch_comes_in_decides_only_as_far_as_the_seeds_do(start, ending, words):
    assert words in fixed_ending.taken_in(fixed_ending.nudged(made_up(start, ending)), 5)
