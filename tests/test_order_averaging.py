"""Appendix D: the second-order terms against all orders, the update against explicit Hessians."""

import dataclasses
import itertools
import math
import re
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from revlib import experiments, figures, runs
from revlib.experiments import figures_14_to_19
from revlib.experiments.figures_14_to_19 import Training
from revlib.experiments.study import Wanted
from revlib.iterates import iterates
from revlib.orders import backward, forward
from revlib.runs import step_costs
from revlib.theory import expansions
from revlib.theory import order_averaging as theory
from revlib.training.order_averaging import OrderAveraging, order_averaging, small_steps, split
from revlib.verdicts import order_averaging as verdicts

LOSS = nn.functional.cross_entropy


def network(activation=nn.Tanh, seed=0):
    """Return a small network in double precision."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 6), activation(), nn.Linear(6, 4)).double()


def batch(size=12, seed=0):
    """Return a batch for it."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(size, 3, generator=generator, dtype=torch.double)
    return inputs, torch.randint(4, (size,), generator=generator)


def vector(model):
    """Return the parameters of a model as one vector."""
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def rotations(c, seed=0):
    """Return c fields that are no gradients, with Jacobians that do not commute."""
    generator = torch.Generator().manual_seed(seed)
    matrices = torch.randn(c, 5, 5, generator=generator, dtype=torch.double)
    return [lambda theta, a=a: torch.tanh(a @ theta) for a in matrices]


def case(kind, c):
    """Return c fields and a point: the gradients of a network, or fields that are no gradients."""
    if kind == "network":
        model = network()
        return theory.fields(model, LOSS, split(batch(), c)), vector(model)
    generator = torch.Generator().manual_seed(1)
    return rotations(c), torch.randn(5, generator=generator, dtype=torch.double)


both_kinds = pytest.mark.parametrize("kind", ["network", "rotations"])


def products(fields, theta):
    """Return V_i'(theta) V_j(theta) for all i and j, from dense Jacobians, shape (c, c, P)."""
    values = torch.stack([field(theta) for field in fields])
    jacobians = [torch.autograd.functional.jacobian(field, theta) for field in fields]
    return torch.stack([values @ jacobian.T for jacobian in jacobians])


def steps(fields, theta, rate, order):
    """Return where an order of the small steps ends, from the definition."""
    maps = [lambda point, v=field: point + rate * v(point) for field in fields]
    ((_, end),) = iterates(maps, theta, order, [len(fields)])
    return end


def slope(error):
    """Return the power with which an error falls between two learning rates."""
    rates = (2e-3, 1e-3)
    first, second = (float(error(rate).norm()) for rate in rates)
    return math.log(first / second, rates[0] / rates[1])


# The second-order terms.


def test_the_field_is_minus_the_gradient_of_the_loss():
    model, (inputs, targets) = network(), batch()
    (field,) = theory.fields(model, LOSS, [(inputs, targets)])
    gradient = torch.autograd.grad(LOSS(model(inputs), targets), list(model.parameters()))
    expected = -torch.cat([part.flatten() for part in gradient])
    torch.testing.assert_close(field(vector(model)), expected, rtol=1e-12, atol=1e-14)


def test_the_term_is_the_second_coefficient_also_of_torchs_squared_error():
    model, (inputs, _) = network(), batch()
    pieces = split((inputs, inputs @ torch.ones(3, 4, dtype=torch.double)), 3)
    by_hand = theory.fields(model, lambda output, y: ((output - y) ** 2).mean(), pieces)
    _, expected = expansions.expand(by_hand, vector(model), 2)
    fields = theory.fields(model, nn.functional.mse_loss, pieces)
    found = theory.small_batch_term(fields, vector(model))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


@both_kinds
@pytest.mark.parametrize("c", [1, 2, 3, 4])
def test_the_terms_are_the_sums_over_dense_products(kind, c):
    fields, theta = case(kind, c)
    lower = torch.ones(c, c, dtype=torch.double).tril(-1)
    dense = products(fields, theta)
    small = torch.einsum("ij,ijp->p", lower, dense)
    every = torch.einsum("ij,ijp->p", lower + lower.T, dense)
    close = {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(theory.small_batch_term(fields, theta), small, **close)
    torch.testing.assert_close(theory.order_average_term(fields, theta), every, **close)


@both_kinds
@pytest.mark.parametrize("c", [2, 3, 4])
def test_small_steps_are_the_large_one_and_the_term_to_third_order(kind, c):
    fields, theta = case(kind, c)
    total = sum(field(theta) for field in fields)
    term = theory.small_batch_term(fields, theta)
    printed = theory.small_batch_term(fields[::-1], theta)  # the sum over i < j

    def power(order, second):
        return slope(lambda h: steps(fields, theta, h, order) - theta - h * total - h**2 * second)

    assert power(forward(), term) == pytest.approx(3, abs=0.1)
    assert power(forward(), 0) == pytest.approx(2, abs=0.1)
    # The printed sum belongs to the backward order, and to that alone.
    assert power(forward(), printed) == pytest.approx(2, abs=0.1)
    assert power(backward(), printed) == pytest.approx(3, abs=0.1)


@both_kinds
@pytest.mark.parametrize("c", [2, 3, 4])
def test_the_average_over_all_orders_to_third_order(kind, c):
    fields, theta = case(kind, c)
    total = sum(field(theta) for field in fields)
    term = theory.order_average_term(fields, theta)

    def average(h):
        return theory.order_average(fields, theta, h)

    def pair(h):  # one order and its reverse do as well as all
        return (steps(fields, theta, h, forward()) + steps(fields, theta, h, backward())) / 2

    def power(end, part):
        return slope(lambda h: end(h) - theta - h * total - part * h**2 * term)

    for end in (average, pair):
        assert power(end, 1 / 2) == pytest.approx(3, abs=0.1)
        for wrong in (0, -1 / 2, 1):
            assert power(end, wrong) == pytest.approx(2, abs=0.1)


def test_the_average_runs_through_every_order_once():
    fields = rotations(3)
    theta = torch.ones(5, dtype=torch.double)
    ends = [steps(list(order), theta, 0.3, forward()) for order in itertools.permutations(fields)]
    assert len(ends) == 6
    expected = sum(ends) / 6
    torch.testing.assert_close(theory.order_average(fields, theta, 0.3), expected)


def test_the_average_over_orders_is_the_mean_correction_of_smith_et_al():
    c, model = 3, network()
    fields, theta = theory.fields(model, LOSS, split(batch(), c)), vector(model)

    def square(point):
        gradients = torch.stack([field(point) for field in fields])
        return gradients.mean(0).square().sum() - gradients.square().sum() / c**2

    expected = c**2 / 4 * torch.func.grad(square)(theta)
    half = theory.order_average_term(fields, theta) / 2
    torch.testing.assert_close(half, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("weight", [0, 1 / 18, 0.5, -1])
def test_a_step_ends_where_the_flow_of_the_modified_loss_does(weight):
    """To third order, with weights in units of h² and the formula of the chapter D.2."""
    c, model = 3, network()
    fields, theta = theory.fields(model, LOSS, split(batch(), c)), vector(model)
    (large,) = theory.fields(model, LOSS, [batch()])

    def bracket(point):
        mean = large(point)
        apart = sum((field(point) - mean).square().sum() for field in fields)
        return (1 - 2 * weight * c * (c - 1)) * mean.square().sum() + 2 * weight * apart

    def flow(h, parts=4):
        def velocity(point):
            return large(point) - h / 4 * torch.func.grad(bracket)(point)

        point, dt = theta, h / parts
        for _ in range(parts):  # Runge and Kutta's fourth order
            k1 = velocity(point)
            k2 = velocity(point + dt / 2 * k1)
            k3 = velocity(point + dt / 2 * k2)
            k4 = velocity(point + dt * k3)
            point = point + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return point

    def end(h):
        term = theory.order_average_term(fields, theta)
        return theta + h * large(theta) + weight * h**2 * term

    assert slope(lambda h: end(h) - flow(h)) == pytest.approx(3, abs=0.1)


def test_above_the_critical_curvature_the_step_is_turned_round():
    h, c, weight = 0.1, 3, 0.02
    critical = theory.critical_curvature(h, c, weight)
    for factor, sign in ((0.9, 1), (1.1, -1)):
        model = nn.Linear(1, 1, bias=False).double()
        nn.init.ones_(model.weight)
        curvature = factor * critical
        step = OrderAveraging(model, lambda y, t, k=curvature: k / 2 * (y**2).mean(), c, h, weight)
        step((torch.ones(c, 1, dtype=torch.double), torch.ones(c)))
        assert sign * (1 - model.weight.item()) > 0


# The regulariser as an update term.


@pytest.mark.parametrize("c", [1, 2, 3, 4])
@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
def test_one_double_backward_is_the_sum_of_hessian_vector_products(c, activation):
    model = network(activation)
    pieces, parameters = split(batch(), c), list(model.parameters())
    expected = [torch.zeros_like(parameter) for parameter in parameters]
    gradients = [
        torch.autograd.grad(LOSS(model(x), y), parameters, create_graph=True) for x, y in pieces
    ]
    for i, j in itertools.permutations(range(c), 2):
        inner = sum((gradients[i][k] * gradients[j][k].detach()).sum() for k in range(4))
        products = torch.autograd.grad(inner, parameters, retain_graph=True)
        expected = [total + part for total, part in zip(expected, products, strict=True)]
    step, term = order_averaging([LOSS(model(x), y) for x, y in pieces], parameters)
    torch.testing.assert_close(term, expected, rtol=1e-10, atol=1e-14)
    total = [-sum(parts) for parts in zip(*gradients, strict=True)]
    torch.testing.assert_close(step, total, rtol=1e-12, atol=1e-14)


def test_a_step_is_the_large_step_and_the_weighted_term():
    c, h, weight = 3, 0.1, 0.07
    model, whole = network(), batch()
    fields = theory.fields(model, LOSS, split(whole, c))
    (large,) = theory.fields(model, LOSS, [whole])
    theta = vector(model)
    extra = weight * theory.order_average_term(fields, theta)
    step = OrderAveraging(model, LOSS, c, h, weight)
    step(whole)
    plain = h * large(theta)
    torch.testing.assert_close(vector(model), theta + plain + extra, rtol=1e-12, atol=1e-14)
    assert step.ratio == pytest.approx(float(extra.norm() / plain.norm()))
    assert step.cosine == pytest.approx(float(extra @ plain / extra.norm() / plain.norm()))


@pytest.mark.parametrize(("c", "weight"), [(1, 0.3), (4, 0.0)])
def test_with_one_piece_or_no_weight_it_is_the_plain_step(c, weight):
    model, whole = network(), batch()
    (large,) = theory.fields(model, LOSS, [whole])
    expected = vector(model) + 0.1 * large(vector(model))
    step = OrderAveraging(model, LOSS, c, 0.1, weight)
    step(whole)
    torch.testing.assert_close(vector(model), expected, rtol=1e-12, atol=1e-14)
    assert (step.ratio, step.cosine) == (0, 0)


def test_small_steps_go_through_the_pieces_in_their_order():
    model, whole = network(), batch()
    fields = theory.fields(model, LOSS, split(whole, 3))
    expected = steps(fields, vector(model), 0.6 / 3, forward())
    small_steps(model, LOSS, whole, 3, 0.6)
    torch.testing.assert_close(vector(model), expected, rtol=1e-12, atol=1e-14)


def test_parameters_without_part_in_the_loss_stay():
    model = network()
    model.register_parameter("idle", nn.Parameter(torch.ones(2).double()))
    OrderAveraging(model, LOSS, 2, 0.1, 0.1)(batch())
    assert model.idle.tolist() == [1, 1]


def test_losses_without_second_derivatives_have_no_term():
    model = nn.Linear(3, 1).double()
    losses = [model(x).mean() for x, _ in split(batch(), 2)]
    _, term = order_averaging(losses, list(model.parameters()))
    assert all((part == 0).all() for part in term)


def test_piecewise_linear_units_are_warned_of_once_and_only_they():
    with pytest.warns(UserWarning, match="second derivative is zero almost everywhere"):
        step = OrderAveraging(network(nn.ReLU), LOSS, 2, 0.1, 0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(batch())
        OrderAveraging(network(nn.Tanh), LOSS, 2, 0.1, 0.1)
        OrderAveraging(network(nn.ReLU), LOSS, 2, 0.1, 0)
        OrderAveraging(network(nn.ReLU), LOSS, 1, 0.1, 0.1)


def test_a_batch_is_cut_into_equal_pieces_in_order():
    inputs, targets = batch(12)
    pieces = split((inputs, targets), 3)
    assert [len(x) for x, _ in pieces] == [4, 4, 4]
    assert torch.equal(torch.cat([x for x, _ in pieces]), inputs)
    assert torch.equal(torch.cat([y for _, y in pieces]), targets)


@pytest.mark.parametrize(
    ("size", "c", "what"),
    [
        (2048, 3, "2048 examples cannot be cut into 3 equal pieces. Take a batch of 2049"),
        (2, 3, "take at least 3"),
        (8, 0, "whole number of pieces"),
        (8, 2.0, "whole number of pieces"),
    ],
)
def test_what_cannot_be_cut_is_refused(size, c, what):
    with pytest.raises(ValueError, match=re.escape(what)):
        split((torch.zeros(size, 3), torch.zeros(size)), c)


def test_a_number_of_pieces_that_is_none_is_refused_at_once():
    with pytest.raises(ValueError, match="whole number of pieces"):
        OrderAveraging(network(), LOSS, 0, 0.1, 0.1)


# The experiment.


@pytest.fixture
def few(monkeypatch):
    """Make the experiment a small one, of two figures."""
    small = {}
    for study in figures_14_to_19.STUDIES[:2]:
        size = study.sizes["sample"].changed(
            hidden=(8,), batch_size=8, train_examples=20, test_examples=20
        )
        parameters = dataclasses.replace(size.parameters, at=(0, 2, 4))
        size = dataclasses.replace(size, parameters=parameters, steps=4, at=(0, 2, 4))
        small[study.name] = dataclasses.replace(study, sizes=study.sizes | {"sample": size})
        monkeypatch.setitem(experiments.STUDIES, study.name, small[study.name])
    monkeypatch.setattr(step_costs, "STUDIES", tuple(small.values()))
    monkeypatch.setattr(verdicts, "FIGURES", {2: "figure-14", 3: "figure-16"})
    return small


def test_the_figures_are_shown_together_from_each_start(few):
    pages = verdicts.shown("sample")
    assert list(pages) == list(verdicts.STARTS)
    for shown in pages.values():
        assert len(shown.table) == 2 * 2 * len(figures_14_to_19.trainings(2)) * 3
        assert not shown.table.duplicated(["c", "seed", "order", "step"]).any()
        start = shown.table[shown.table["step"] == 0].groupby(["c", "seed"])["test_loss"]
        assert (start.nunique() == 1).all()  # all trainings begin at the same point
    one, other = (shown.table.query("step == 0")["test_loss"] for shown in pages.values())
    assert not set(one) & set(other)


def test_where_one_figure_is_missing_all_are_shown_in_the_small_size(few, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for study in few.values():  # the full data is not needed
        monkeypatch.setitem(study.sizes, "paper", study.sizes["sample"])
    monkeypatch.setattr(verdicts, "STARTS", {"one": {}})
    runs.run("figure-14", progress=False)
    found = verdicts.shown("paper")["one"]
    assert found.preset == "sample"
    assert set(found.table["c"]) == {2, 3}
    runs.run("figure-16", progress=False)
    assert verdicts.shown("paper")["one"].preset == "paper"


def test_a_training_ends_where_its_loss_is_not_finite(few, monkeypatch):
    monkeypatch.setattr(figures_14_to_19, "trainings", lambda c: [Training("wild", rate=1e300)])
    parameters = few["figure-14"].sizes["sample"].parameters
    rows = list(figures_14_to_19.compute(parameters, 0, "wild"))
    assert rows[-1]["step"] < 4
    assert not np.isfinite(rows[-1]["train_loss"])


def test_a_training_can_be_computed_on_a_device(few):
    study = few["figure-14"]
    parameters = study.sizes["sample"].parameters
    wanted = [Wanted(1, "λ = h²", []), Wanted(0, "small batches, h/c", [])]
    here, there = (
        list(study.method.compute(parameters, wanted, device=device)) for device in (None, "cpu")
    )
    assert here == there
    with pytest.raises(ValueError, match="The device 'cuda:99' is not there"):
        list(study.method.compute(parameters, wanted, device="cuda:99"))


def table(ends):
    """Return a table of straight curves from 2 to the given losses, for c = 2 and seeds 0, 1, …"""
    rows = [
        {"c": 2, "seed": seed, "order": name, "step": 10 * k}
        | {"train_loss": 2 + k * (train - 2) / 2, "test_loss": 2 + k * (test - 2) / 2}
        for name, losses in ends.items()
        for seed, (train, test) in enumerate(losses)
        for k in range(3)
    ]
    return pd.DataFrame(rows)


def test_differences_are_paired_by_seed():
    found = table({"a": [(1, 1.0), (1, 1.5)], "b": [(1, 1.1), (1, 1.8)]})
    row = verdicts.difference(found, "test_loss", "a", "b").loc[2]
    assert row["mean"] == pytest.approx(-0.2)
    assert row["spread"] == pytest.approx(0.1 * math.sqrt(2))
    assert (row["seeds"], row["lower"], row["less"]) == (2, 2, False)  # of two seeds


def test_it_is_less_where_the_whole_interval_is():
    found = table({"a": [(1, 1.0), (1, 1.5), (1, 1)], "b": [(1, 1.1), (1, 1.62), (1, 1.11)]})
    assert verdicts.difference(found, "test_loss", "a", "b").loc[2, "less"]
    assert not verdicts.difference(found, "test_loss", "b", "a").loc[2, "less"]


def test_trainings_are_compared_on_the_seeds_of_which_both_are_there():
    found = table({"a": [(1, 1.0), (1, 1.5), (1, 1)], "b": [(1, 1.1), (1, 1.8)]})
    found = pd.concat([found, found[found["order"] == "a"].assign(c=3)])
    rows = verdicts.difference(found, "test_loss", "a", "b")
    assert rows["seeds"].to_dict() == {2: 2, 3: 0}
    assert rows.loc[2, "mean"] == pytest.approx(-0.2)
    assert np.isnan(rows.loc[3, "mean"])
    assert not rows.loc[3, "less"]
    equal = verdicts.at_equal_train_loss(found, "a", "b")
    assert equal.loc[2, "mean"] == pytest.approx(-0.2)
    assert np.isnan(equal.loc[3, "mean"])


def test_trainings_that_end_lower_are_counted_where_the_seeds_are_enough():
    ends = {"a": [(1, 1.0)] * 3, "b": [(1, 1.1), (1, 1.12), (1, 1.11)], "c": [(1, 0.9)] * 3}
    assert verdicts.lower(table(ends), ["a", "c"], "b") == (2, 2)
    assert verdicts.lower(table(ends), ["a", "b"], "c") == (0, 2)
    two = {name: losses[:2] for name, losses in ends.items()}
    assert verdicts.lower(table(two), ["a", "c"], "b") == (0, 0)


def test_gaps_are_those_of_the_same_seed_and_step():
    found = table({"a": [(1, 1.0), (1, 1.5)], "b": [(1, 1.2), (1, 1.4)], "c": [(1, 9)]})
    gaps = verdicts.gaps(found, ["b"], "a").set_index(["seed", "step"])["gap"]
    expected = {(0, 0): 0, (0, 10): 0.1, (0, 20): 0.2, (1, 0): 0, (1, 10): -0.05, (1, 20): -0.1}
    assert gaps.to_dict() == pytest.approx(expected)


def test_a_difference_within_the_spread_is_none():
    found = table({"a": [(1, 1.0), (1, 1.5)], "b": [(1, 1.1), (1, 1.3)]})
    for names in (("a", "b"), ("b", "a")):
        assert not verdicts.difference(found, "test_loss", *names).loc[2, "less"]


def test_a_training_that_diverges_ends_at_infinity():
    found = table({"a": [(1, 1.0), (1, 1.5)], "b": [(1, 1.1), (1, np.nan)], "c": [(1, 9)] * 2})
    found = found[(found["order"] != "c") | (found["step"] < 20)]  # it ended before
    against_a = verdicts.difference(found, "test_loss", "b", "a").loc[2]
    assert (against_a["mean"], against_a["lower"], against_a["less"]) == (np.inf, 0, False)
    both = verdicts.difference(found, "test_loss", "b", "c").loc[2]
    assert (both["lower"], both["less"]) == (1, False)


def test_progress_is_compared_at_equal_train_loss():
    # b is half as fast as a on the same line, and c is half as fast on a higher one.
    found = table({"a": [(1, 1.0)], "b": [(1.5, 1.5)], "c": [(1.5, 1.6)], "d": [(3, 3)]})
    assert verdicts.at_equal_train_loss(found, "b", "a").loc[2, "mean"] == pytest.approx(0)
    assert verdicts.at_equal_train_loss(found, "c", "a").loc[2, "mean"] == pytest.approx(0.1)
    assert np.isnan(verdicts.at_equal_train_loss(found, "d", "a").loc[2, "mean"])
    # On one of two seeds e does not get below its start, and so has no mean.
    found = table({"a": [(1, 1.0), (1, 1.0)], "e": [(1.5, 1.5), (3, 3)]})
    row = verdicts.at_equal_train_loss(found, "e", "a").loc[2]
    assert (np.isnan(row["mean"]), row["less"]) == (True, False)


def test_costs_are_measured_for_every_c(few):
    costs = step_costs.step_costs("sample", turns=1)
    assert list(costs["c"]) == [2, 3]
    assert (costs[["regularised", "small"]] > 0).all(axis=None)


def test_the_papers_sizes():
    for study, (c, examples) in zip(
        figures_14_to_19.STUDIES, ((2, 2048), (3, 2049), (4, 2048)), strict=True
    ):
        paper = study.size("paper")
        size = paper.parameters
        assert (size.setting.batch_size, size.setting.learning_rate) == (2048, 0.001)
        assert (size.setting.hidden, size.c) == ((500,) * 5, c)
        task = figures_14_to_19.large_batches(size.setting.changed(sample=True), c, seed=0)
        assert len(task.batch(1)[0]) == examples
        assert len(paper.seeds) >= 3
        assert paper.at[-1] >= 1000  # of h = 0.001: far enough to learn something
        names = [each.name for each in figures_14_to_19.trainings(c)]
        assert len(set(names)) == len(names)
    assert list(figures_14_to_19.WEIGHTS.values()) == [0.5, 1, 2, 4]


def test_the_figure_of_the_weights_draws_every_training():
    found = table({"a": [(1, 1.0), (1, 1.5)], "b": [(1.5, 1.5), (1, np.inf)], "c": [(1, 1)] * 2})
    figure = figures.weights(found, ["a"], ["b", "c"])
    panels = figure.axes
    assert [ax.get_ylabel() for ax in panels] == ["train loss", "test loss"]
    assert len(panels[0].lines) == 6
    assert panels[1].get_ylim()[1] < 3
    plt.close(figure)
