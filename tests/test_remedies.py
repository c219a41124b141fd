"""The remedies against the backward order: each by its definition, and what is told of them."""

import dataclasses
import math
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from revlib import experiments, figures, runs
from revlib.experiments import remedies as studies
from revlib.experiments.remedies import Parameters, Training
from revlib.iterates import iterates
from revlib.orders import backward, forward, windowed
from revlib.theory import averaging
from revlib.training.averaging import SCHEDULES
from revlib.training.maps import Trainer, TrainingStep
from revlib.verdicts import remedies, stability

STEPS, LAST, SPAN = 40, 4, 12
SETTING = (
    experiments.get("figure-4").size("sample").setting.changed(hidden=(8,), learning_rate=0.05)
)
TINY = Parameters(SETTING, STEPS, LAST, window=6, decay=0.1, span=SPAN, larger=5)
RECORDED = (0, *range(8, 33, 8), *range(37, 41))


def rows(name, parameters=TINY):
    """Return the rows of a training, by step."""
    return {row["step"]: row for row in studies.compute(parameters, 0, name)}


@pytest.fixture(scope="module")
def oracle():
    """A function that returns the parameters of all iterates of an order, by the definition."""
    task = studies._task(SETTING, Training("plain"), 0)
    trainer = Trainer(task)
    start = trainer.state()
    maps = [TrainingStep(trainer, n) for n in range(1, STEPS + 1)]

    def states(order):
        return [state.model for _, state in iterates(maps, start, order)]

    return states


def loss(weighted):
    """Return the test loss of a weighted sum of parameters: pairs of a weight and a state."""
    task = studies._task(SETTING, Training("plain"), 0)
    model = task.model
    names = weighted[0][1]
    model.load_state_dict({n: sum(w * state[n].double() for w, state in weighted) for n in names})
    return task.evaluate(model)["test_loss"]


def test_the_recorded_steps():
    assert studies._recorded(TINY) == RECORDED
    assert studies.window(TINY) == (37, 40)


def test_what_can_be_afforded():
    for steps in range(1, 200):
        n = studies.affordable(steps)
        assert n * (n + 1) / 2 <= steps < (n + 1) * (n + 2) / 2


@pytest.mark.parametrize("order", [forward(), backward(), windowed(6)], ids=str)
def test_orders_are_those_of_the_definition(order, oracle):
    found, states = rows(order.name), oracle(order)
    assert tuple(found) == RECORDED
    for step, row in found.items():
        assert row["test_loss"] == pytest.approx(loss([(1, states[step])]), rel=1e-4)


def test_averages_are_those_of_the_forward_iterates(oracle):
    states = oracle(forward())
    for step in RECORDED[1:]:
        moving = averaging.exponential(TINY.decay, step)
        kernels = {"EMA": moving}
        kernels["SWA"] = averaging.points(step - STEPS + SPAN) if step > 28 else np.ones(1)
        kernels["two points"] = averaging.points(2, SPAN) if step >= SPAN else np.ones(1)
        for name, weights in kernels.items():
            weighted = [(w, states[step - j]) for j, w in enumerate(weights) if w]
            assert rows(name)[step]["test_loss"] == pytest.approx(loss(weighted), rel=1e-4), name


def test_the_mean_of_both_orders(oracle):
    one, other = oracle(forward()), oracle(backward())
    found = rows("mean of both orders")
    for step in (8, 37, 40):
        expected = loss([(0.5, one[step]), (0.5, other[step])])
        assert found[step]["test_loss"] == pytest.approx(expected, rel=1e-4)
    task = studies._task(SETTING, Training("plain"), 0)
    inputs, targets = task.evaluation["test"]
    outputs = []
    for state in (one[40], other[40]):
        task.model.load_state_dict(state)
        outputs.append(task.model(inputs))
    expected = nn.functional.mse_loss(sum(outputs) / 2, targets).item()
    assert found[40]["outputs_test_loss"] == pytest.approx(expected, rel=1e-4)
    assert expected != pytest.approx(found[40]["test_loss"], rel=1e-3)


def trained(steps, batches=1, rate=1.0, schedule="constant"):
    """Return the test losses along plain training with torch's own optimizer and schedule."""
    task = studies._task(SETTING, Training("other", batches=batches, rate=rate), 0)
    model, found = task.model, [task.evaluate(task.model)["test_loss"]]
    optimizer = torch.optim.SGD(model.parameters(), lr=SETTING.learning_rate * rate)
    rates = SCHEDULES[schedule](optimizer, steps)
    for n in range(1, steps + 1):
        inputs, targets = task.batch(n)
        assert len(inputs) in (batches, 101 % batches)  # the last batch of an epoch is smaller
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()
        rates.step()
        found.append(task.evaluate(model)["test_loss"])
    return found


def test_schedules_batches_and_lengths():
    for name, what, steps in (
        ("linear decay", {"schedule": "linear"}, dict.fromkeys(RECORDED)),
        ("cosine decay", {"schedule": "cosine"}, dict.fromkeys(RECORDED)),
        ("larger batches", {"batches": 5}, dict.fromkeys(RECORDED)),
        ("longer, linear decay", {"schedule": "linear"}, {0: 0, 8: 32, 32: 128, 37: 157, 40: 160}),
        ("fewer, larger batches", {"batches": 8, "rate": 8}, {0: 0, 8: 1, 32: 4, 37: 2, 40: 5}),
    ):
        taken = {step: step if at is None else at for step, at in steps.items()}
        expected = trained(taken[40], **what)
        found = rows(name)
        assert set(found) == set(RECORDED)
        for step, at in taken.items():
            assert found[step]["test_loss"] == pytest.approx(expected[at], rel=1e-5), (name, step)


def test_a_training_that_is_lost_ends_there():
    wild = dataclasses.replace(TINY, setting=SETTING.changed(learning_rate=1e6))
    found = list(rows("linear decay", wild).values())
    assert len(found) < len(RECORDED)
    assert not math.isfinite(found[-1]["train_loss"])


def test_costs_in_forward_runs():
    costs = remedies.costs(TINY)
    assert costs.loc["forward"].tolist() == [1, 1, 1]
    assert costs.loc["backward"].tolist() == [1, (37 + 38 + 39 + 40) / 40, 41 / 2]
    window = windowed(6)
    assert costs.loc["windowed(6)", "path"] == window.cost(range(1, 41)) / 40
    both = costs.loc["forward"] + costs.loc["backward"]
    assert costs.loc["mean of both orders"].tolist() == both.tolist()
    for name in (*remedies.CHEAP, "fewer, larger batches"):
        assert costs.loc[name].tolist() == [1, 1, 1]
    assert costs.loc["larger batches"].tolist() == [5] * 3
    assert costs.loc["longer, linear decay"].tolist() == [4] * 3


def table(**paths):
    """Return made-up rows: for each training the size of its swings and its end, seed by seed."""
    first, last = studies.window(TINY)
    found = []
    for training in studies.trainings(TINY):
        for seed, (swing, end) in enumerate(paths.get(training.name, [(1, 5), (1, 6)])):
            for step in range(first, last + 1):
                value = end + swing * (-1) ** step
                found.append({"seed": seed, "order": training.name, "step": step})
                found[-1]["test_loss"] = value
    return pd.DataFrame(found)


def test_what_is_told_of_the_seeds():
    found = remedies.summary(
        table(forward=[(4, 1), (4, 2)], backward=[(2, 3), (2, 2)], EMA=[(1, 0), (0.5, 2)]), TINY
    )
    assert found.loc["backward", "calmer"] == pytest.approx(2)
    assert found.loc["EMA", "calmer"] == pytest.approx(4 * math.sqrt(2))
    assert found.loc["backward", "loss"] == pytest.approx(4.5)  # 3 + 2 and 2 + 2
    assert found.loc["backward", "change"] == pytest.approx((0 - 2) / 2)
    assert found.loc["backward", "change_spread"] == pytest.approx(math.sqrt(2))
    assert found.loc["EMA", "last"] == 1
    assert "EMA" in remedies.rivals(found)
    still = remedies.summary(table(backward=[(0.1, 3), (0.1, 2)]), TINY)
    assert remedies.rivals(still) == []


def test_a_lost_training_is_told_as_lost():
    found = remedies.summary(table(EMA=[(1, np.inf), (1, 2)]), TINY)
    assert found.loc["EMA", "loss"] == np.inf
    assert "EMA" not in remedies.rivals(found)


def test_the_figure_of_the_costs():
    seeds = remedies.per_seed(table(SWA=[(1, np.inf), (1, 2)]), TINY).assign(task="A")
    assert list(dict.fromkeys(seeds["training"])) == [t.name for t in studies.trainings(TINY)]
    figure = figures.costs(seeds, {"moves": "fluctuation", "loss": "loss"})
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    moves, losses = (
        {
            names[round(y)]: x
            for line in ax.lines
            if line.get_label() == "A"
            for x, y in line.get_xydata()
        }
        for ax in figure.axes[:2]
    )
    assert set(names) - set(moves) == {"SWA"}
    forward = np.exp(np.log(seeds[seeds["training"] == "forward"]["loss"]).mean())
    assert losses["backward"] == pytest.approx(math.sqrt(6 * 7) / forward)
    plt.close(figure)


# The published results.


@pytest.fixture
def published(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent.parent)


def test_without_results_the_sentence_says_so(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for study in studies.STUDIES:
        short = dataclasses.replace(study, sizes=study.sizes | {"sample": _tiny_size(study)})
        monkeypatch.setitem(experiments.STUDIES, study.name, short)
    assert remedies.sentence() == "Not yet run: `revlib run remedies-figure-7`."


def _tiny_size(study):
    return dataclasses.replace(
        study.sizes["sample"], parameters=TINY, seeds=(0,), at=RECORDED, cases=("forward",)
    )


def test_the_sentence_says_what_is_stored(published):
    found = runs.shown("remedies-figure-7", "paper")
    summary = remedies.summary(found.table, found.size.parameters)
    told = remedies.sentence()
    for name in ("EMA", "linear decay", "backward"):
        row = summary.loc[name]
        assert f" moves {stability.rounded(row['calmer'])} times less (95% interval " in told
        assert f" {row['loss']:.2f}" in told
    assert f"costs {stability.rounded(summary.loc['backward', 'path'])} forward runs" in told


def made_up(moves, losses):
    """Return a summary in which the backward order moves by 1 and ends with a loss of 1."""
    names = [
        "forward",
        "backward",
        "mean of both orders",
        *remedies.CHEAP,
        "larger batches",
        "longer, linear decay",
    ]
    found = pd.DataFrame({"moves": 2.0, "loss": 2.0, "last": 1.0, "seeds": 5.0}, index=names)
    found.loc["backward", ["moves", "loss", "last"]] = 1.0, 1.0, 8.0
    for name, value in moves.items():
        found.loc[name, "moves"] = value
    for name, value in losses.items():
        found.loc[name, "loss"] = value
    spread = {"loss_spread": 0.2, "change_spread": 0.1, "low": 1.5, "high": 6.0}
    return found.assign(calmer=2 / found["moves"], change=found["loss"] - 2.0, **spread)


def test_the_finding_counts_what_is_smoother_and_what_is_also_better():
    better = made_up({"EMA": 0.5, "SWA": 0.9}, {"SWA": 0.8})
    words = remedies.finding({"x²": better, "x³": made_up({"EMA": 0.5}, {})})
    assert "varies less at the end than the backward order on 2 of 2 tasks, and on 1 some" in words
    assert "(x²: SWA; x³: none)" in words
    assert "costs 8 forward runs" in words
    worse = remedies.finding({"x²": made_up({}, {})})
    assert "the backward order on 0 of 1 tasks, and on 0 some remedy" in worse


def test_the_lines_name_the_smoother_and_the_lowest():
    [line] = remedies.lines({"x²": made_up({"EMA": 0.5}, {"SWA": 0.8})}).splitlines()
    assert line.startswith("- **x²**: fluctuation forward / backward 2 (1.5 to 6), test loss 1;")
    assert "Varying less than backward at the cost of one: EMA." in line
    assert "lowest loss is *SWA*: fluctuation forward / SWA 1 (1.5 to 6), test loss 0.8." in line
    [line] = remedies.lines({"x²": made_up({}, {})}).splitlines()
    assert "Varying less than backward at the cost of one: none." in line


def test_tables_and_lists_hold_every_task():
    gone = made_up({}, {"larger batches": math.inf})
    shown = remedies.side_by_side({"x²": made_up({}, {}), "x³": gone}, remedies.fluctuation)
    assert "| backward | 8 | 2 (1.5 to 6) | 2 (1.5 to 6) |" in shown.splitlines()
    assert "| larger batches | 1 | 1 (1.5 to 6) | diverged |" in shown.splitlines()
    shown = remedies.side_by_side({"x²": made_up({}, {})}, remedies.change)
    assert "| backward | 8 | -1 ± 0.1 |" in shown.splitlines()
    [line] = remedies.at_the_cost_of_backward({"x³": gone}).splitlines()
    assert "Larger batches, at 1 forward runs: diverged, test loss inf." in line


def test_averages_are_compared_either_way():
    mean = made_up({}, {"mean of both orders": 0.5})
    assert "than either order on 1 of 1 tasks" in remedies.averages({"x²": mean})
    assert "ends lower than that mean on 0." in remedies.averages({"x²": mean})
    average = made_up({}, {"EMA": 0.5})
    assert "than either order on 0 of 1 tasks" in remedies.averages({"x²": average})
    assert "ends lower than that mean on 1." in remedies.averages({"x²": average})
    assert remedies.luck({"x²": mean}).endswith("backward divided by EMA, is 1 on x².")
