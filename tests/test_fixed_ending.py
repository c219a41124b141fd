"""The fixed ending and its rivals, against the definition."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from revlib import orders
from revlib.experiments.fixed_ending import STUDIES, looks
from revlib.experiments.fixed_ending.forgetting import remembered
from revlib.experiments.fixed_ending.looks import JUDGES, WATCHED, Watched, judging, stopping
from revlib.experiments.fixed_ending.rivals import LARGER, RIVALS, Parameters, look, rival
from revlib.experiments.section_5.held_out import held_out
from revlib.experiments.section_5.paths import stopped
from revlib.experiments.section_5.rankings import Ranking, misranked
from revlib.iterates import iterates
from revlib.training.maps import Trainer, TrainingStep
from revlib.training.settings import build
from revlib.verdicts import fixed_ending

SETTING = dataclasses.replace(
    tiny.SETTING, data="x^2", hidden=(7,), learning_rate=0.1, train_examples=None
)
M = 10
STEPS = (0, 3, 12, 15)
PARAMETERS = Parameters(SETTING, M, STEPS)


def loss(task, state, batch=None):
    """The test loss, or that on a batch, at a state."""
    trainer = Trainer(task)
    trainer.load(state)
    inputs, targets = task.evaluation["test"] if batch is None else batch
    with torch.no_grad():
        return task.loss(trainer.model()(inputs), targets).item()


@pytest.fixture(scope="module")
def task():
    return build(SETTING, 3)


@pytest.fixture(scope="module")
def forward(task):
    """The forward iterates by step."""
    trainer = Trainer(task)
    start = trainer.state()
    maps = [TrainingStep(trainer, n) for n in range(1, max(STEPS) + 1)]
    return dict(iterates(maps, start, orders.forward()))


def shown(case):
    return pd.DataFrame(rival(PARAMETERS, 3, case)).set_index("step")


def joined(task, numbers):
    return tuple(torch.cat(parts) for parts in zip(*map(task.batch, numbers), strict=True))


def test_forward_is_the_forward_path(task, forward):
    found = shown("forward")
    assert list(found.index) == list(STEPS)
    for step in STEPS:
        assert found["test_loss"][step] == pytest.approx(loss(task, forward[step]), rel=1e-12)


def test_the_fixed_ending_is_the_order(task):
    trainer = Trainer(task)
    start = trainer.state()
    maps = [TrainingStep(trainer, n) for n in range(1, max(STEPS) + 1)]
    found = shown("fixed ending")
    for step, state in iterates(maps, start, orders.tail(M), STEPS):
        assert found["test_loss"][step] == pytest.approx(loss(task, state), rel=1e-12)


def test_a_cooldown_takes_the_next_batches_at_a_falling_rate(task, forward):
    found = shown("cooldown")
    for step in STEPS:
        state = forward[step]
        for i in range(M):
            rate = SETTING.learning_rate * (M - i) / M
            slower = dataclasses.replace(
                task, optimizer=lambda p, rate=rate: torch.optim.SGD(p, lr=rate)
            )
            trainer = Trainer(slower)
            trainer.load(state)  # a state tells what has changed since the start; the rate has not
            trainer.apply(step + 1 + i)
            state = trainer.state()
        assert found["test_loss"][step] == pytest.approx(loss(task, state), rel=1e-9)


def test_larger_batches_are_the_next_ones_together(task, forward):
    found = shown("larger batches")
    for step in STEPS:
        trainer = Trainer(
            dataclasses.replace(task, batches=[joined(task, range(step + 1, step + LARGER + 1))])
        )
        trainer.load(forward[step])
        trainer.apply(1)
        assert found["test_loss"][step] == pytest.approx(loss(task, trainer.state()), rel=1e-9)


def mean(forward, weights):
    """The weighted mean of forward iterates, weights by step."""
    names = forward[0].model
    model = {k: sum(w * forward[n].model[k] for n, w in weights.items()) for k in names}
    return dataclasses.replace(forward[0], model=model)


def test_the_last_iterates_are_averaged(task, forward):
    found = shown("last iterates")
    for step in STEPS:
        last = range(max(0, step - M + 1), step + 1)
        state = mean(forward, dict.fromkeys(last, 1 / len(last)))
        assert found["test_loss"][step] == pytest.approx(loss(task, state), rel=1e-9)


def test_the_moving_average_has_the_weight_of_a_mean_of_m(task, forward):
    found, decay = shown("EMA"), 2 / (M + 1)
    for step in STEPS:
        weights = {n: decay * (1 - decay) ** (step - n) for n in range(1, step + 1)}
        state = mean(forward, weights | {0: (1 - decay) ** step})
        assert found["test_loss"][step] == pytest.approx(loss(task, state), rel=1e-9)


@pytest.mark.parametrize("case", RIVALS)
def test_the_first_and_the_newest_batches_are_told_apart(task, forward, case):
    found = shown(case)
    assert set(found) == {"train_loss", "test_loss", "first_loss", "newest_loss"}
    if case == "forward":
        first, newest = joined(task, range(1, M + 1)), joined(task, range(6, 16))
        assert found["first_loss"][15] == pytest.approx(loss(task, forward[15], first))
        assert found["newest_loss"][15] == pytest.approx(loss(task, forward[15], newest))
        assert found["newest_loss"][3] == pytest.approx(loss(task, forward[3], first))


@pytest.mark.parametrize("order", ["forward", "backward"])
def test_what_an_order_forgets(task, order):
    trainer = Trainer(task)
    start = trainer.state()
    maps = [TrainingStep(trainer, n) for n in range(1, 16)]
    looks = dataclasses.replace(PARAMETERS, steps=(12, 15))
    found = pd.DataFrame(remembered(looks, 3, order)).set_index("step")
    for step, state in iterates(maps, start, orders.named(order), looks.steps):
        for which, numbers in (("first", range(1, M + 1)), ("newest", range(step - 9, step + 1))):
            by_hand = loss(task, state, joined(task, numbers))
            assert found[f"{which}_loss"][step] == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (
            (0.5, 0.52, 0.48),
            "Backward, the loss on the first batches is 2 times lower than forward",
        ),
        ((2.0, 2.1, 1.9), "Backward, the loss on the first batches is 2 times *as high* as"),
        ((0.5, 1.0, 2.0), "Whether the loss on the first batches is lower backward"),
        ((np.nan,) * 3, "How much the loss on the first batches is has no ratio: a path"),
    ],
)
def test_forgetting_is_told_as_far_as_the_seeds_decide(first, words):
    table = pd.DataFrame(
        {"seed": seed, "order": order, "step": step, "first_loss": loss, "newest_loss": other}
        for seed, own in enumerate(first)
        for step in (1, 2)
        for order, loss, other in (("forward", 1.0, 1.0), ("backward", own, 1 + seed / 100))
    )
    told = fixed_ending.forgets(table)
    assert told.startswith(words)
    assert "the loss on the newest batches is about the same backward as forward: the ratio" in told
    assert fixed_ending.forgets(table[table["step"] > 2]) == "not yet run."


def test_how_many_maps_stay_the_same_at_the_end():
    lasting = {
        "forward": 0,
        "backward": 29,
        "tail(7)": 7,
        "newest_tail(7)": 0,
        "windowed(50)": 29,
        "windowed(8)": 5,  # of the window from 25 on
    }
    for name, number in lasting.items():
        assert fixed_ending.fixed(orders.named(name), 30) == number


def made_up(spread):
    """Paths of three seeds whose noise is smaller by a factor in the second of two cases."""
    generator = np.random.default_rng(0)
    rows = []
    for seed in range(3):
        for case, size in (("forward", 1.0), ("other", 1 / spread)):
            noise = 0.1 * size * generator.normal(size=200)
            rows += [
                {"seed": seed, "order": case, "step": n, "test_loss": 2 - n / 200 + e}
                for n, e in enumerate(noise)
            ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("spread", [0.5, 8.0])
def test_calm_is_told_against_forward(spread):
    found = fixed_ending.summary(fixed_ending.calm(made_up(spread), 0, 199))
    assert found.loc["forward", ["trend", "change", "level"]].tolist() == [1, 1, 1]
    assert found.loc["other", "trend"] == pytest.approx(spread, rel=0.15)
    assert found.loc["other", "change"] == pytest.approx(spread, rel=0.2)
    assert found.loc["other", "level"] == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ([7.0, 8.0, 9.0], "With `tail(5)`, the test loss varies 8 times less about its trend"),
        (
            [0.1, 0.11, 0.12],
            "With `tail(5)`, the test loss varies 9.1 times *more* about its trend",
        ),
        ([0.2, 1.0, 6.0], "about its trend with `tail(5)` than forward is undecided"),
        ([7.0, 9.0], "Too few seeds to say whether"),
    ],
)
def test_the_finding_says_no_more_than_the_seeds_decide(factors, words):
    found = pd.DataFrame({"order": "tail(5)", "trend": factors, "level": factors})
    assert words in fixed_ending.finding(found, ["tail(5)"])


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ([0.5, 0.52, 0.48], "With `EMA`, the mean test loss is 2 times lower than forward"),
        ([2.0, 2.1, 1.9], "With `EMA`, the mean test loss is 2 times *as high* as forward"),
        ([0.5, 1.0, 2.0], "is undecided"),
    ],
)
def test_a_rival_is_lower_only_if_the_seeds_decide_it(levels, words):
    found = pd.DataFrame({"order": "EMA", "trend": 1.0, "level": levels})
    assert words in fixed_ending.rival(found, ["EMA"])


LOOKED_AT = [study for study in STUDIES if not study.name.startswith("forgetting-")]


@pytest.mark.parametrize("study", LOOKED_AT, ids=lambda study: study.name)
def test_the_seeds_are_fresh_and_every_look_can_be_judged(study):
    paper = study.size("paper")
    assert not set(paper.seeds) & {0, 1, 2, 3, 4}
    assert "tail(" in str(paper.cases) or "fixed ending" in paper.cases
    if paper.cases == JUDGES:
        return  # which are judged at their end
    half = [n for n in paper.at if n >= paper.steps // 2]
    assert len(half) > 50


# Decisions by looks at the same cost


@pytest.mark.parametrize("case", WATCHED)
def test_early_stopping_watches_the_looks_of_a_rival(case):
    looks = tuple(range(10, 31, 2))
    found = pd.DataFrame(stopping(Watched(SETTING, M, looks, patience=3), 3, case))
    assert found["step"].tolist() == list(looks)
    shown = pd.DataFrame(rival(Parameters(SETTING, M, looks), 3, case))
    # The halves of the test set are of one size.
    mean = (found["validation_loss"] + found["test_loss"]) / 2
    np.testing.assert_allclose(mean, shown["test_loss"], rtol=1e-9)
    expected = stopped(found[["step", "validation_loss", "test_loss"]], 3)
    pd.testing.assert_frame_equal(found[expected.columns], expected)


@pytest.mark.parametrize("budget", [20, 25, 100, 400])
@pytest.mark.parametrize("case", JUDGES)
def test_every_judge_spends_its_budget_and_no_more(case, budget):
    rival, m, steps = looks._bought(case, budget)
    few, many = (min(10, budget // 3), 10) if "mean" in case else (1, 1)
    assert few <= len(steps) <= many
    order = orders.tail(m) if rival == "fixed ending" else orders.forward()
    cost = order.cost(steps) + (m if rival == "cooldown" else 0)
    assert 0.8 * budget <= cost <= budget
    if "mean" in case:
        assert min(steps) > steps[-1] / 2


RATES = (0.02, 0.1, 0.3)
JUDGED = Ranking(SETTING, RATES, long=40, last=20, budgets=(20,))


def scores(case, m, steps):
    """The mean validation loss of looks at each rate."""
    found = []
    for rate in RATES:
        setting = SETTING.changed(learning_rate=rate)
        looks = look(Parameters(setting, m, steps), held_out(build(setting, 3)), case)
        task = held_out(build(setting, 3))
        found.append(np.mean([task.evaluate(model)["validation_loss"] for _, model in looks]))
    return found


@pytest.mark.parametrize(
    ("case", "bought"),
    [
        ("forward", ("forward", 5, (20,))),
        ("forward, mean loss", ("forward", 1, tuple(range(11, 21)))),
        ("fixed ending", ("fixed ending", 5, (20,))),
        ("cooldown", ("cooldown", 5, (15,))),
        ("EMA", ("EMA", 5, (20,))),
    ],
)
def test_judges_rank_as_their_looks_do(case, bought):
    [row] = judging(JUDGED, 3, case)
    mine = scores(*bought)
    for which, truth in (
        ("", scores("forward", 1, (30, 40))),
        ("_decayed", scores("cooldown", 20, (20,))),
    ):
        assert row[f"misranked{which}"] == pytest.approx(misranked(mine, truth))
        assert row[f"excess{which}"] == pytest.approx(truth[int(np.argmin(mine))] - min(truth))


def test_a_rate_that_diverges_comes_last():
    wild = dataclasses.replace(JUDGED, rates=(0.1, 1e6))
    for case in ("forward", "cooldown"):
        [row] = judging(wild, 3, case)
        assert row["misranked"] == row["excess"] == 0


def test_a_costly_network_is_shown_when_it_is_stored_and_until_then_says_how(monkeypatch):
    words = fixed_ending.costly("endings-figure-2", normalisation="none")
    assert words == "*Not yet run*: `revlib run endings-figure-2 --set normalisation=none`."
    size = next(s for s in STUDIES if s.name == "endings-figure-2").size("paper")
    generator = np.random.default_rng(0)
    table = pd.DataFrame(
        {"seed": seed, "order": case, "step": n, "test_loss": 1 + noise * generator.normal()}
        for seed in size.seeds
        for case, noise in zip(size.cases, (0.1, 0.01), strict=True)
        for n in size.at
    )
    monkeypatch.setattr(fixed_ending.runs, "looks", lambda *_, **__: table)
    assert "| tail(50) | 1" in fixed_ending.costly("endings-figure-2")
    monkeypatch.setattr(fixed_ending.runs, "looks", lambda *_, **__: table.iloc[: len(size.at)])
    assert "Not yet run" in fixed_ending.costly("endings-figure-2")


@pytest.mark.parametrize(
    ("growth", "words"),
    [
        ((4.0, 4.1, 3.9), "has grown by their end, 4 (95% interval 3.8"),
        ((0.25, 0.26, 0.24), "has shrunk to 0.25 (95% interval"),
        ((0.5, 1.0, 2.0), "Before the maps of `tail(3)`, whether a change along a step grows or"),
    ],
)
def test_whether_the_maps_of_the_ending_contract_is_told(growth, words):
    rows = [
        {"order": order, "after": after, "seed": seed, "growth": factor * (1 + (after == 9))}
        for seed, factor in enumerate(growth)
        for order, after in (("tail(3)", 3), ("tail(3)", 9), ("backward", 3))
    ]
    assert words in fixed_ending.contracted(pd.DataFrame(rows), 3)
