"""Section 5: each method against its plain definition, and every number against a hand's count."""

import dataclasses
import importlib
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from revlib import experiments, orders, runs
from revlib.experiments import section_5
from revlib.experiments.section_5 import held_out, rankings
from revlib.experiments.section_5.moving_start import Checks, checks, policies
from revlib.experiments.section_5.paths import stopped
from revlib.experiments.section_5.rankings import Ranking, misranked
from revlib.iterates import iterates
from revlib.runs import Shown
from revlib.training import maps, settings, sweep
from revlib.verdicts import findings
from revlib.verdicts import section_5 as verdicts

ROOT = Path(__file__).parent.parent
# A function learned by a network of one layer.
SMALL = experiments.get("figure-4").size("sample").setting.changed(hidden=(6,), sample=True)


class Letters:
    """A trainer whose state is a word: each map appends its number."""

    def __init__(self):
        self.word = ()

    def state(self):
        return self.word

    def load(self, word):
        self.word = word

    def apply(self, n):
        self.word += (n,)


def words(name, losses, every=2, steps=8):
    """The word that a policy has made at each check, with made-up validation losses."""
    trainer, values = Letters(), iter(losses)
    found = []
    for check in checks(trainer, policies()[name], every, steps, lambda: next(values)):
        found.append((check["step"], trainer.word, check["anchor"], check["cost"]))
    return found


# Halves of the test set


def test_the_two_held_out_sets_are_the_halves_of_the_test_set():
    task = settings.build(SMALL, 0)
    halves = held_out.held_out(task).evaluation
    assert list(halves) == ["validation", "test"]
    inputs, targets = task.evaluation["test"]
    assert torch.equal(halves["validation"][0], inputs[::2])
    assert torch.equal(halves["test"][0], inputs[1::2])
    assert torch.equal(halves["validation"][1], targets[::2])
    assert torch.equal(halves["test"][1], targets[1::2])


# Optimizers


def test_the_optimizers_are_torchs_own_with_the_stated_rates():
    parameters = [torch.nn.Parameter(torch.ones(1))]
    found = {name: make(parameters) for name, make in section_5.optimizers(0.5).items()}
    assert {name: type(each) for name, each in found.items()} == {
        "SGD": torch.optim.SGD,
        "momentum": torch.optim.SGD,
        "Adam": torch.optim.Adam,
    }
    rates = {name: each.defaults["lr"] for name, each in found.items()}
    assert rates == {"SGD": 0.5, "momentum": 0.05, "Adam": 0.001}
    assert found["SGD"].defaults["momentum"] == 0
    assert found["momentum"].defaults["momentum"] == 0.9


@pytest.mark.parametrize("name", ["SGD", "momentum", "Adam"])
def test_a_backward_path_carries_the_optimizers_state(name):
    """Against the definition: pure maps of the whole state, the newest applied first."""
    setting = SMALL.changed(learning_rate=0.02)
    parameters = section_5.Path(setting, (1, 3, 7))
    rows = {row["step"]: row for row in section_5.path(parameters, 5, f"{name}, backward")}
    task = dataclasses.replace(
        held_out.held_out(settings.build(setting, 5)), optimizer=section_5.optimizers(0.02)[name]
    )
    trainer = maps.Trainer(task)
    steps = [maps.TrainingStep(trainer, n) for n in range(1, 8)]
    start = trainer.state()
    forward = {}
    for order, found in ((orders.backward(), None), (orders.forward(), forward)):
        for n, state in iterates(steps, start, order, [1, 3, 7]):
            trainer.load(state)
            loss = task.evaluate(trainer.model())["test_loss"]
            if found is None:
                assert rows[n]["test_loss"] == pytest.approx(loss, rel=1e-4)
            else:
                found[n] = loss
    assert rows[7]["test_loss"] != pytest.approx(forward[7], rel=1e-3)


# Early stopping


def plainly(validation, patience):
    """What is taken and where the training ends, by looking back from every row anew."""
    for end in range(len(validation)):
        best = min(range(end + 1), key=lambda i: (validation[i], i))
        if end - best == patience:
            return best, end
    return best, end


@pytest.mark.parametrize("patience", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(5))
def test_early_stopping_against_looking_back(patience, seed):
    generator = np.random.default_rng(seed)
    validation = generator.integers(0, 9, 14) + np.linspace(4, 0, 14).round()
    curve = pd.DataFrame(
        {
            "step": np.arange(14) * 5 + 100,
            "validation_loss": validation,
            "test_loss": generator.normal(size=14),
        }
    )
    found = stopped(curve, patience)
    for rows in range(1, 15):
        best, end = plainly(validation[:rows], patience)
        row = found.iloc[rows - 1]
        assert (row["stopped"], row["ended"]) == (curve["step"][best], curve["step"][end])
        assert row["stopped_loss"] == curve["test_loss"][best]
        lowest = curve["test_loss"][:rows].min()
        assert row["regret"] == pytest.approx(curve["test_loss"][best] - lowest)


def test_a_diverged_path_is_stopped_before():
    curve = pd.DataFrame(
        {
            "step": range(5),
            "validation_loss": [3, 2, np.nan, np.nan, np.nan],
            "test_loss": [3, 2.5, np.nan, np.nan, np.nan],
        }
    )
    found = stopped(curve, 2).iloc[-1]
    assert (found["stopped"], found["ended"], found["stopped_loss"]) == (1, 3, 2.5)


def test_with_a_patience_a_path_comes_in_order_and_says_where_it_stopped():
    parameters = section_5.Path(SMALL, tuple(range(2, 21, 2)), patience=3)
    curve = pd.DataFrame(section_5.path(parameters, 1, "switch(6)"))
    assert list(curve["step"]) == list(parameters.steps)
    pd.testing.assert_frame_equal(curve[["ended", "stopped"]], stopped(curve, 3).iloc[:, :2])


# Paths compared


def paths(orders, steps):
    """A table of paths: by order the test losses of each seed."""
    return pd.DataFrame(
        {"seed": seed, "order": order, "step": n, "test_loss": float(value)}
        for order, seeds in orders.items()
        for seed, values in enumerate(seeds)
        for n, value in zip(steps, values, strict=True)
    )


def test_windows_are_compared_with_forward_seed_by_seed():
    # Step 0 does not count; the changes are 2, 2, 2, 2 forward and 0, 1, 0, 1 in windows of 2.
    forward = [9, 0, 2, 0, 2, 4]
    windowed = [9, 1, 1, 2, 2, 3]
    table = paths(
        {
            "forward": [forward, np.multiply(forward, 3)],
            "windowed(2)": [windowed, windowed],
            "backward": [forward, windowed],
        },
        [0, 4, 5, 6, 7, 8],
    )
    found = verdicts.windows(table).set_index(["order", "seed"])
    assert list(dict.fromkeys(found.index.get_level_values(0))) == [
        *("forward", "windowed(2)", "backward")
    ]
    assert found.loc["windowed(2)", "change"].tolist() == [4, 12]
    trend = [np.polyfit(range(5), path[1:], 2, full=True)[1][0] for path in (forward, windowed)]
    ratio = np.sqrt(trend[0] / trend[1])
    assert found.loc["windowed(2)", "trend"].to_numpy() == pytest.approx([ratio, 3 * ratio])
    assert found.loc["backward", "change"].tolist() == [1, 12]
    assert found.loc["windowed(2)", "mean"].tolist() == [1.8, 1.8]
    # Steps 5 to 8: 1, 2, 1, 2 maps from the iterates 4 and 6.
    costs = found["cost"].groupby(level=0).first()
    assert costs.to_dict() == {"forward": 1, "windowed(2)": 1.5, "backward": 6.5}


def test_ends_are_those_of_the_last_step_and_paired_by_seed():
    table = paths({"a": [(0, 3), (0, 5), (0, 4)], "b": [(9, 2), (9, 4.5), (9, 4.2)]}, [1, 2])
    found = verdicts.ends(table, "test_loss", "a")
    gaps = np.array([-1, -0.5, 0.2])
    assert found.loc["a", "mean"] == 4
    assert found.loc["b", "spread"] == pytest.approx(np.std([2, 4.5, 4.2], ddof=1))
    assert found.loc["b", "difference"] == pytest.approx(gaps.mean())
    assert found.loc["b", "error"] == pytest.approx(gaps.std(ddof=1) / np.sqrt(3))
    assert found.loc["b", ["lower", "seeds"]].tolist() == [2, 3]
    assert found.loc["a", ["difference", "lower"]].tolist() == [0, 0]


# Policies


def test_forward_and_windows_are_the_orders_of_these_names():
    for name, order in (("forward", orders.forward()), ("windowed", orders.windowed(2))):
        for n, word, anchor, cost in words(name, [0] * 5):
            assert word == tuple(order.applied(n))
            assert (anchor, cost) == (n, n)


def test_the_start_moves_when_the_loss_is_lower_and_only_then():
    found = words("reset when better", [5, 6, 4, 4, 3])
    assert found == [
        (0, (), 0, 0),
        (2, (2, 1), 0, 2),  # worse: from the start again
        (4, (4, 3, 2, 1), 4, 6),  # better: the start moves here
        (6, (4, 3, 2, 1, 6, 5), 4, 8),  # no better: it stays
        (8, (4, 3, 2, 1, 8, 7, 6, 5), 8, 12),
    ]


def test_always_worse_it_is_backward_and_always_better_it_is_windowed():
    for losses, order in (
        ([0, 1, 1, 1, 1], orders.backward()),
        ([9, 8, 7, 6, 5], orders.windowed(2)),
    ):
        for n, word, _, cost in words("reset when better", losses):
            assert word == tuple(order.applied(n))
            assert cost == order.cost(range(0, n + 1, 2))


def test_forward_when_better_drops_what_did_no_good():
    found = words("forward when better", [5, 6, 4, 4, 3])
    assert found == [
        (0, (), 0, 0),
        (2, (1, 2), 0, 2),
        (4, (3, 4), 4, 4),
        (6, (3, 4, 5, 6), 4, 6),
        (8, (3, 4, 7, 8), 8, 8),
    ]


def test_a_diverged_iterate_is_never_the_better_one():
    assert [anchor for _, _, anchor, _ in words("reset when better", [5, 4, np.nan, 3, 9])] == [
        *(0, 2, 2, 6, 6)
    ]


def test_a_policy_trains_the_network_and_keeps_the_best_by_validation():
    parameters = Checks(SMALL, 3, 12)
    task = held_out.task_of(SMALL, 2)
    curve = sweep.trajectory(task, orders.windowed(3), 12, range(0, 13, 3))
    table = pd.DataFrame(section_5.policy(parameters, 2, "windowed"))
    for column in ("step", "validation_loss", "test_loss"):
        np.testing.assert_allclose(table[column], curve[column], rtol=1e-5)
    for rows in range(1, 6):
        seen = table[:rows]
        best = seen.loc[seen["validation_loss"].idxmin()]
        last = seen.iloc[-1]
        assert last["kept_loss"] == best["test_loss"]
        assert last["kept_validation_loss"] == best["validation_loss"]


def test_optimism_is_the_gap_of_the_chosen_above_the_gap_of_all():
    table = pd.DataFrame(
        {
            "seed": [0, 0, 0],
            "step": [0, 1, 2],
            "validation_loss": [3.0, 1.0, 2.0],
            "test_loss": [3.1, 2.1, 2.1],
            "kept_validation_loss": [3.0, 1.0, 1.0],
            "kept_loss": [3.1, 2.1, 2.1],
        }
    )
    assert verdicts.optimism(table)[0] == pytest.approx(1.1 - (0.1 + 1.1 + 0.1) / 3)


def test_selection_among_noise_flatters():
    """Iterates that are all as good as each other: the chosen one seems better than it is."""
    generator = np.random.default_rng(0)
    rows = []
    for seed in range(200):
        noise = generator.normal(size=(30, 2))
        best = [int(noise[: i + 1, 0].argmin()) for i in range(30)]
        rows.append(
            pd.DataFrame(
                {
                    "seed": seed,
                    "step": range(30),
                    "validation_loss": noise[:, 0],
                    "test_loss": noise[:, 1],
                    "kept_validation_loss": noise[best, 0],
                    "kept_loss": noise[best, 1],
                }
            )
        )
    # The expected minimum of 30 standard normal numbers is -2.04.
    assert verdicts.optimism(pd.concat(rows)).mean() == pytest.approx(2.04, abs=0.25)


# Rankings


def test_misranked_is_the_share_of_discordant_pairs():
    generator = np.random.default_rng(1)
    for _ in range(20):
        scores, truth = generator.permutation(7), generator.permutation(7)
        pairs = list(itertools.combinations(range(7), 2))
        discordant = [(scores[i] - scores[j]) * (truth[i] - truth[j]) < 0 for i, j in pairs]
        assert misranked(scores, truth) == pytest.approx(np.mean(discordant))


@pytest.mark.parametrize(
    ("scores", "share"),
    [
        ([1, 2, np.nan], 0),  # what diverged is the worst
        ([np.inf, 2, 3], 2 / 3),
        ([3, 2, 1], 1),
        ([1, 1, 1], 0.5),
    ],
)
def test_diverged_runs_come_last_and_equal_ones_say_nothing(scores, share):
    assert misranked(scores, [1, 2, 3]) == pytest.approx(share)


def test_a_backward_path_is_as_long_as_its_cost_allows():
    for budget in range(1, 200):
        n = rankings._path_length(budget)
        order = orders.backward()
        assert order.cost(range(n + 1)) <= budget < order.cost(range(n + 2))


def test_methods_read_what_they_say():
    rates = (0.01, 0.05, 0.2)
    parameters = Ranking(SMALL, rates, long=40, last=20, budgets=(10,))

    def curve(rate, order, steps):
        task = held_out.task_of(SMALL.changed(learning_rate=rate), 3)
        return sweep.trajectory(task, order, steps).set_index("step")["validation_loss"]

    truth = [curve(rate, orders.forward(), 40)[[30, 40]].mean() for rate in rates]
    expected = {
        "forward": [curve(rate, orders.forward(), 10)[10] for rate in rates],
        "forward, mean loss": [curve(rate, orders.forward(), 10)[6:].mean() for rate in rates],
        "backward": [curve(rate, orders.backward(), 10)[10] for rate in rates],
        "backward path": [curve(rate, orders.backward(), 4)[4] for rate in rates],
    }
    assert tuple(expected) == section_5.METHODS
    for method, scores in expected.items():
        (row,) = section_5.ranking(parameters, 3, method)
        assert (row["step"], row["length"]) == (10, 4 if method == "backward path" else 10)
        assert row["misranked"] == pytest.approx(misranked(scores, truth))
        excess = truth[int(np.argmin(scores))] - min(truth)
        assert row["excess"] == pytest.approx(excess, rel=1e-3, abs=1e-7)


def test_what_each_method_looks_at(monkeypatch):
    seen = []

    def look(setting, rate, seed, order, recorded):
        seen.append((order.name, list(recorded)))
        return rate

    monkeypatch.setattr(rankings, "_mean_loss", look)
    parameters = Ranking(SMALL, (0.01, 0.02), long=1400, last=200, budgets=(25, 400))
    for method in section_5.METHODS:
        list(section_5.ranking(parameters, 99, method))
    assert seen[::2] == [  # once for each learning rate
        ("forward", [*range(1210, 1401, 10)]),  # the long run, once for all methods
        ("forward", [25]),
        ("forward", [400]),
        ("forward", [*range(25, 12, -1)]),
        ("forward", [*range(400, 200, -20)]),
        ("backward", [25]),
        ("backward", [400]),
        ("backward", [6]),
        ("backward", [27]),
    ]


# The studies


@pytest.mark.parametrize("study", section_5.STUDIES, ids=lambda study: study.name)
def test_a_study_yields_all_its_steps_and_quantities(study):
    size = study.size("sample")
    rows = list(study.method.rows(size.parameters, 0, size.cases[-1]))
    assert sorted(row["step"] for row in rows) == list(size.at) == size.recorded()
    assert size.steps == size.at[-1]
    assert set(study.quantities) - {"validation_loss"} <= set(rows[-1])
    assert (ROOT / "notebooks" / f"{study.chapter}.md").exists()


@pytest.mark.parametrize("study", section_5.STUDIES, ids=lambda study: study.name)
def test_the_paper_preset_is_the_papers_setting_on_at_least_three_seeds(study):
    size = study.size("paper")
    figure = f"figure-{study.name.rpartition('-')[2]}"
    setting = experiments.get(figure).size("paper").setting
    assert size.parameters.setting == setting.changed(test_examples=600)
    assert len(size.seeds) >= 3
    assert study.size("sample").setting.sample


# The front page


def end(name, values, **columns):
    """Rows of the last step of made-up cases, one for each seed."""
    return pd.DataFrame(
        {"seed": seed, "order": order, "step": 400, name: value}
        | {column: by_order[order] for column, by_order in columns.items()}
        for order, seeds in values.items()
        for seed, value in enumerate(seeds)
    )


@pytest.fixture
def stored(monkeypatch):
    """A function that stands in made-up tables for stored results, by name of the study."""

    def stand_in(tables):
        def shown(name, preset):
            there = preset if name in tables else "sample"
            return Shown(None, there, None, {}, *[tables.get(name)] * 2, "", [])

        monkeypatch.setattr(runs, "shown", shown)
        monkeypatch.setattr(importlib.import_module("revlib.runs.shown"), "shown", shown)

    return stand_in


def test_studies_that_belong_together_are_shown_at_one_preset(stored):
    stored({"reset-figure-4": 4, "reset-figure-7": 7, "windows-figure-4": 4})
    found = runs.together({"a": "reset-figure-4", "b": "reset-figure-7"}, "paper")
    assert {where: (each.preset, each.table) for where, each in found.items()} == {
        "a": ("paper", 4),
        "b": ("paper", 7),
    }
    found = runs.together({"a": "windows-figure-4", "b": "windows-figure-7"}, "paper")
    assert {each.preset for each in found.values()} == {"sample"}


def test_sentences_tell_the_numbers_of_the_stored_results(stored):
    jagged, flat = [0, 8, 0, 8, 0], [[0, x, 0, x, 0] for x in (1.9, 2, 2.1)]
    calm = paths({"forward": [jagged] * 3, "tail(100)": flat}, range(4, 9))
    cost = {"forward": 100, "reset when better": 250}
    better = {"forward": [1, 2, 1], "reset when better": [3, 6.1, 2.9]}
    reset = end("kept_loss", better, cost=cost)
    shares = [0.2] * 3, [0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.4, 0.41, 0.39]
    wrong = end("misranked", dict(zip(section_5.METHODS, shares, strict=True)))
    stored({"endings-figure-4": calm, "reset-figure-4": reset, "ranking-figure-4": wrong})
    first, second, third = verdicts.sentences().splitlines()
    assert "from one look to the next, learning x², with `tail(100)`, the test loss" in first
    assert "changes 4 times less than forward (95% interval" in first
    assert "and a look costs 100 steps ({doc}" in first
    assert "Fashion-MNIST" not in first
    assert "do not look for it in the order" in second
    assert "is 3 times *as high* as that of *forward* (95% interval" in second
    assert second.endswith("; 3 seeds), at 2.5 times the cost.")
    assert "do not do it by *backward path*, which does worse than *forward*; beyond" in third
    assert "learning x² *forward* 20%, *forward, mean loss* 20%, *backward* 20%," in third
    assert third.endswith(" *backward path* 40% (3 seeds).")


def test_a_lower_loss_turns_the_advice_round(stored):
    cost = {"forward": 100, "reset when better": 250}
    reset = end("kept_loss", {"forward": [2, 2, 2], "reset when better": [1, 1.1, 1]}, cost=cost)
    stored({"reset-figure-4": reset})
    first, second, third = verdicts.sentences().splitlines()
    assert "try it in the order" in second
    assert first == "- Not yet run: `revlib run endings-figure-4`."
    assert third == "- Not yet run: `revlib run ranking-figure-4`."


def test_the_advice_gives_both_tasks_where_both_are_stored(stored):
    flat = [[0, x, 0] for x in (3.9, 4, 4.1)]
    calm = paths({"forward": [[0, 8, 0]] * 3, "tail(50)": flat}, range(1, 4))
    cost = {"forward": 100, "reset when better": 250}
    higher = {"forward": [2, 2, 2], "reset when better": [1, 1.1, 1]}
    lower = {"forward": [2, 2, 2], "reset when better": [3, 3.1, 3]}
    stored(
        {"endings-figure-7": calm}
        | {
            f"reset-figure-{n}": end("kept_loss", of, cost=cost)
            for n, of in ((4, higher), (7, lower))
        }
    )
    first, second, third = verdicts.sentences().splitlines()
    assert "on Fashion-MNIST, with `tail(50)`, the test loss changes 2 times less than" in first
    assert "do not look for it" in second  # one task of two is not enough
    assert (
        "; on Fashion-MNIST, with such a start, the test loss of the best iterate is 1.52" in second
    )
    assert third == "- Not yet run: `revlib run ranking-figure-4`."


# What the chapters say


def one_task(power=1.0, seeds=5):
    """Return what `windows` would of windows that gain a power of their cost."""
    rows = [
        {"order": order, "seed": seed, "cost": cost}
        | dict.fromkeys(("mean", "level", "below"), 1.0)
        | dict.fromkeys(("change", "trend"), cost ** (power + 0.01 * seed))
        for seed in range(-2, seeds - 2)
        for order, cost in (("forward", 1.0), ("windowed(5)", 3.0), ("windowed(20)", 10.5))
    ]
    return {"x²": pd.DataFrame(rows)}


def test_the_longest_window_is_reported_whichever_way_it_falls():
    words = verdicts.windows_finding(one_task())
    assert "grows with the power 1.00 of the cost" in words
    assert "in the longest window, `windowed(20)`, it is 10 (95% interval" in words
    assert words.endswith(" at 10.5 times the cost of forward training.")
    assert ": it falls" in verdicts.windows_finding(one_task(-1.0))
    lines = verdicts.windows_lines(one_task()).splitlines()
    assert lines[0].startswith(
        "- x²: with `windowed(20)`, the test loss varies 10 times less from step to step than"
    )
    assert "times *more* about its trend over several windows" in verdicts.windows_lines(
        one_task(-1.0)
    )
    assert "too few seeds to say" in verdicts.windows_lines(one_task(seeds=2))


def test_windows_are_summed_up_over_the_seeds():
    found = verdicts.summary(one_task()).set_index("order").loc["windowed(5)"]
    assert found["change"] == pytest.approx(3)
    assert found["change_low"] < found["change"] < found["change_high"]
    rows = verdicts.levels(one_task()).splitlines()
    assert rows[2:] == [f"| x² | windowed({w}) | 1 | +0 ± 0 |" for w in (5, 20)]


def way(kept, cost=3.0):
    """Return a study in which a start that moves when better keeps iterates of such losses."""
    cases = {"forward": (1.0, 1.0), "forward when better": (2.0, 1.0), verdicts.RESET: (0.0, cost)}
    rows = [
        {"seed": seed, "order": name, "step": step, "anchor": step, "cost": price * step}
        | {"kept_loss": loss or each, "kept_validation_loss": loss or each}
        | {"test_loss": 1.0, "validation_loss": 1.0}
        for seed, each in enumerate(kept)
        for name, (loss, price) in cases.items()
        for step in (0, 10)
    ]
    return {"x²": SimpleNamespace(table=pd.DataFrame(rows), size=SimpleNamespace(cases=cases))}


@pytest.mark.parametrize(
    ("kept", "side"),
    [
        (
            [0.5, 0.52, 0.48],
            "the test loss of the best iterate is 2 times lower than that of *forward* (95%",
        ),
        ([1.5, 1.52, 1.48], "iterate is 1.5 times *as high* as that of *forward* (95% interval"),
        ([1.0, 1.01, 0.99], "is about the same with such a start as that of *forward*: the ratio"),
        (
            [0.5, 2.0],
            "too few seeds to say whether the test loss of the best iterate is lower with",
        ),
    ],
)
def test_a_moving_start_is_compared_with_both_rivals(kept, side):
    first, second = verdicts.reset_lines(way(kept))
    assert side in first
    assert first.endswith("at 3 times the cost")
    assert "that of *forward when better*" in second
    [study] = way(kept).values()
    assert (
        verdicts.kept(study)
        .splitlines()[1]
        .endswith("moved at 100% of the checks; 3.0 times the cost")
    )
    assert verdicts.flattery(way(kept)).count("| +0 ± 0 |") == 3


def test_each_optimizer_says_where_it_varies_less():
    factors = {"SGD": [5.0, 6.0, 7.0], "Adam": [0.2, 0.21, 0.19]}
    rows = [
        {"optimizer": name, "how": how, "times": findings.Times.of(pd.Series(own))}
        for name, own in factors.items()
        for how in ("x², about its trend", "x², from step to step")
    ]
    first, second = verdicts.optimizers_finding(pd.DataFrame(rows)).splitlines()
    assert first.startswith("- **SGD**: Varies less backward: x², about its trend 5.9 (95%")
    assert ", x², from step to step 5.9 (95%" in first
    assert second.startswith("- **Adam**: Varies *more* backward: x², about its trend 0.2 (95%")


@pytest.mark.parametrize(
    ("steps", "ways"),
    [
        ((0, 20, 21, 22, 23), ["from step to step"]),
        ((0, *range(3, 30, 3), 29, 30, 31), ["about its trend", "from step to step"]),
    ],
)
def test_optimizers_are_compared_about_a_trend_where_enough_steps_are_there(steps, ways):
    rows = [
        {"seed": seed, "order": f"{name}, {order}", "step": step}
        | {"test_loss": (step % 4) * (0.1 if order == "backward" else 1.0) * (1 + seed)}
        for seed in range(3)
        for name in ("SGD", "momentum", "Adam")
        for order in ("forward", "backward")
        for step in steps
    ]
    study = SimpleNamespace(table=pd.DataFrame(rows), size=SimpleNamespace(at=steps))
    found = verdicts.by_optimizer({"x²": study})
    assert found["how"].unique().tolist() == [f"x², {way}" for way in ways]
    assert found["ratio"].tolist() == pytest.approx([10.0] * 3 * len(ways))
    assert (found["above"] == 3).all()
    assert verdicts.optimizers_levels(found).count("| 0 | 6 | 0.6 |") == 3
