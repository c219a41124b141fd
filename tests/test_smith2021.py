"""Implicit regularisation: flows against steps, the penalty against partitions, the experiment."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import torch
from torch import nn

from revlib import experiments
from revlib.experiments import smith2021
from revlib.experiments.smith2021 import Training
from revlib.iterates import iterates
from revlib.orders import backward, forward
from revlib.store import datasets
from revlib.theory import expansions, modified_loss, order_averaging
from revlib.theory.expansions import LogCoshField
from revlib.theory.modified_loss import descend, ends, flow, modified
from revlib.training.order_averaging import split
from revlib.training.settings import build
from revlib.training.tasks import ShuffledEpochs
from revlib.verdicts import smith2021 as verdicts

M, N = 3, 3  # batches in an epoch, steps on each batch
LOSS = nn.functional.cross_entropy


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.double)


THETA = normal(4, seed=1)
V = [LogCoshField(a, b) for a, b in zip(normal(M, 4), normal(M, seed=2), strict=True)]
ORDERS = list(itertools.permutations(V))


def mean_field(theta):
    return sum(field(theta) for field in V) / M


def power(error):
    """Return the power with which an error falls between two learning rates."""
    rates = (2e-3, 1e-3)
    return expansions.slope(rates, [float(error(rate).norm()) for rate in rates])


def near(number):
    return pytest.approx(number, abs=0.05)


# The modified loss.


def test_steps_are_taken_in_the_order_of_the_fields():
    for fields, order in ((V, forward()), (V[::-1], backward())):
        ((_, end),) = iterates(expansions.maps(V, 0.3), THETA, order, [M])
        torch.testing.assert_close(descend(fields, THETA, 0.3), end, rtol=1e-14, atol=0)


def test_the_mean_over_all_orders_is_the_order_average():
    found = ends(ORDERS, THETA, 0.3)
    assert found.shape == (math.factorial(M), 4)
    torch.testing.assert_close(found.mean(0), order_averaging.order_average(V, THETA, 0.3))
    torch.testing.assert_close(found[-1], descend(V[::-1], THETA, 0.3))


def test_order_noise_is_the_root_mean_square_distance_from_the_mean():
    assert modified_loss.order_noise(torch.tensor([[0.0, 0], [6, 8]])) == pytest.approx(5)


def test_the_modified_field_is_minus_the_gradient_of_the_modified_loss():
    weight = 0.7
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    batches = split((normal(12, 3), torch.arange(12) % 4), M)
    parameters = list(model.parameters())
    losses = [LOSS(model(x), y) for x, y in batches]
    squares = [
        sum(
            part.square().sum() for part in torch.autograd.grad(each, parameters, create_graph=True)
        )
        for each in losses
    ]
    loss = sum(losses) / M + weight / (4 * M) * sum(squares)
    expected = torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])
    fields = order_averaging.fields(model, LOSS, batches)
    found = modified(fields, weight)(expansions.parameters(model))
    torch.testing.assert_close(found, -expected, rtol=1e-10, atol=1e-13)


def test_without_weight_the_modified_field_is_the_mean_of_the_fields():
    torch.testing.assert_close(modified(V, 0)(THETA), mean_field(THETA))


def test_a_linear_flow_is_an_exponential():
    a = normal(4, 4)
    expected = torch.from_numpy(scipy.linalg.expm(0.8 * a.numpy())) @ THETA
    found = flow(lambda theta: a @ theta, THETA, 0.8)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_a_flow_that_ends_before_its_time_is_refused():
    with pytest.raises(ValueError, match="cannot be followed up to the time 2: "):
        flow(torch.square, torch.ones(1, dtype=torch.double), 2)  # 1 / (1 - t)


def test_an_epoch_averaged_over_orders_follows_its_own_modified_loss_only():
    def gap(fields, weight):
        return lambda rate: (
            ends(ORDERS, THETA, rate).mean(0)
            - flow(modified(fields, weight * rate), THETA, M * rate)
        )

    assert power(gap(V, 1)) == near(3)
    for weight in (0, -1, 2, 1 / M, M):
        assert power(gap(V, weight)) == near(2)
    assert power(gap([mean_field], 1)) == near(2)


def test_gradient_descent_follows_its_own_modified_loss_only():
    def gap(fields, weight):
        return lambda rate: (
            descend([mean_field] * M, THETA, rate)
            - flow(modified(fields, weight * rate), THETA, M * rate)
        )

    assert power(gap([mean_field], 1)) == near(3)
    for weight in (0, -1, 2):
        assert power(gap([mean_field], weight)) == near(2)
    assert power(gap(V, 1)) == near(2)


def test_the_mean_correction_of_an_epoch_is_the_gradient_of_the_bracket():
    def bracket(theta):
        squares = sum(field(theta).square().sum() for field in V)
        return mean_field(theta).square().sum() - squares / M**2

    terms = [order_averaging.small_batch_term(order, THETA) for order in ORDERS]
    expected = M**2 / 4 * torch.func.grad(bracket)(THETA)
    torch.testing.assert_close(sum(terms) / len(terms), expected, rtol=1e-10, atol=1e-12)


def test_an_epoch_and_its_reverse_follow_the_modified_loss_of_the_average():
    def gap(sequence):
        return lambda rate: (
            descend(sequence, THETA, rate) - flow(modified(V, rate), THETA, 2 * M * rate)
        )

    for order in ORDERS:
        assert power(gap([*order, *order[::-1]])) == near(3)
        assert power(gap([*order, *order])) == near(2)


def test_palindromes_have_order_noise_of_third_order_only():
    def noise(sequences):
        return lambda rate: torch.tensor(modified_loss.order_noise(ends(sequences, THETA, rate)))

    assert power(noise([(*order, *order[::-1]) for order in ORDERS])) == near(3)
    assert power(noise([(*one, *other) for one in ORDERS for other in ORDERS])) == near(2)


def test_of_several_steps_on_each_batch_the_bare_rate_counts():
    repeated = [[field for field in order for _ in range(N)] for order in ORDERS]

    def gap(weight):
        return lambda rate: (
            ends(repeated, THETA, rate).mean(0)
            - flow(modified(V, weight * rate), THETA, N * M * rate)
        )

    assert power(gap(1)) == near(3)
    for weight in (0, N, 1 / N):
        assert power(gap(weight)) == near(2)


# The batch size.


@pytest.mark.parametrize(("size", "count"), [(1, 1), (2, 15), (3, 10), (6, 1)])
def test_partitions_are_all_there_once(size, count):
    found = [frozenset(map(frozenset, batches)) for batches in modified_loss.partitions(6, size)]
    assert len(found) == len(set(found)) == count
    for batches in found:
        assert all(len(batch) == size for batch in batches)
        assert sorted(itertools.chain.from_iterable(batches)) == list(range(6))


@pytest.mark.parametrize("size", [0, 4, 7])
def test_what_cannot_be_cut_into_batches_is_refused(size):
    with pytest.raises(ValueError, match=f"6 examples cannot be cut into batches of {size}"):
        list(modified_loss.partitions(6, size))


def test_gamma_is_the_trace_of_the_empirical_covariance():
    g = normal(9, 3)
    expected = np.trace(np.cov(g.numpy().T, ddof=0))
    assert modified_loss.covariance_trace(g).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_the_expected_square_of_a_batch_gradient_is_that_over_all_partitions(size):
    g = normal(6, 5)
    squares = [
        g[list(batch)].mean(0).square().sum()
        for batches in modified_loss.partitions(6, size)
        for batch in batches
    ]
    expected = torch.stack(squares).mean()
    torch.testing.assert_close(modified_loss.batch_square(g, size), expected, rtol=1e-12, atol=0)


# The experiment.

(STUDY,) = smith2021.STUDIES
SMALL = smith2021.Parameters(
    STUDY.size("sample").setting.changed(hidden=(8,), train_examples=64, test_examples=50),
    epochs=2,
    every=1,
)


def vector(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def small_network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    return model, (normal(6, 3), torch.arange(6) % 4)


@pytest.mark.parametrize("weight", [0, 0.8])
def test_a_step_descends_the_loss_of_its_batch_with_the_penalty(weight):
    model, batch = small_network()
    theta = vector(model)
    (field,) = order_averaging.fields(model, LOSS, [batch])
    hessian = -torch.autograd.functional.jacobian(field, theta)
    expected = theta - 0.1 * (-field(theta) - weight / 2 * hessian @ field(theta))
    smith2021.step(model, LOSS, batch, 0.1, weight)
    torch.testing.assert_close(vector(model), expected, rtol=1e-12, atol=1e-14)


def test_the_mean_over_the_batches_of_what_steps_descend_is_the_modified_loss():
    model, whole = small_network()
    batches, theta = split(whole, 3), vector(model)
    changes = []
    for batch in batches:
        nn.utils.vector_to_parameters(theta.clone(), model.parameters())
        smith2021.step(model, LOSS, batch, 0.1, 0.8)
        changes.append(vector(model) - theta)
    expected = 0.1 * modified(order_averaging.fields(model, LOSS, batches), 0.8)(theta)
    torch.testing.assert_close(sum(changes) / 3, expected, rtol=1e-10, atol=1e-13)


def test_every_image_is_standardised_on_its_own():
    raw = datasets.load("fashion_mnist", sample=True).x_train[:64].reshape(64, -1) / 255
    found = build(SMALL.setting, 0).evaluation["train"][0].reshape(64, -1).numpy()
    expected = (raw - raw.mean(1, keepdims=True)) / raw.std(1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_name_tells_the_training():
    assert Training(0.04).name == "ε = 0.04"
    assert Training(0.01, weight=0.3, batch_size=8).name == "ε = 0.01, λ = 0.3, B = 8"
    assert Training(0.02, updates=4).name == "α = 0.02, n = 4"
    assert all(name == training.name for name, training in smith2021.TRAININGS.items())


def test_the_grids_can_be_compared():
    rates = {each.rate for each in smith2021.RATES}
    assert smith2021.SMALL_RATE in rates
    assert {each.rate for each in smith2021.WEIGHTS} == {smith2021.SMALL_RATE}
    for each in smith2021.BATCH_SIZES:
        assert np.isclose(each.rate / each.batch_size * 32, list(rates)).any()
    for each in smith2021.UPDATES:
        assert {each.rate, each.rate * each.updates} <= rates


def test_a_training_is_the_plain_loop(monkeypatch, one_thread):
    training = Training(0.05, weight=0.1, batch_size=16, updates=2)
    monkeypatch.setitem(smith2021.TRAININGS, "it", training)
    rows = list(smith2021.compute(SMALL, 3, "it"))
    assert [row["step"] for row in rows] == [0, 1, 2]

    task = smith2021._task(SMALL.setting, 16, 3)
    assert isinstance(task.batches, ShuffledEpochs)
    model = task.model
    for n in range(1, 9):  # two epochs of four batches
        for _ in range(2):
            smith2021.step(model, task.loss, task.batch(n), 0.05, 0.1)
    measured = task.evaluate(model)
    for name, value in measured.items():
        assert rows[-1][name] == pytest.approx(value, rel=1e-5)
    (row,) = (row for row in rows if row["step"] == 2)
    fields = order_averaging.fields(model, task.loss, [task.batch(n) for n in range(1, 5)])
    squares = [field(vector(model)).square().sum().item() for field in fields]
    assert row["gradient_square"] == pytest.approx(np.mean(squares), rel=1e-4)


def test_a_training_ends_where_its_loss_is_not_finite(monkeypatch):
    monkeypatch.setitem(smith2021.TRAININGS, "wild", Training(1e300))
    rows = list(smith2021.compute(SMALL, 0, "wild"))
    assert [row["step"] for row in rows] == [0, 1]
    assert not np.isfinite(rows[-1]["train_loss"])


def test_both_sizes_record_their_start_and_their_end():
    for size in STUDY.sizes.values():
        assert (size.at[0], size.at[-1]) == (0, size.parameters.epochs)
        assert size.at[-1] == size.steps
        assert all(
            size.setting.train_examples % each.batch_size == 0
            for each in smith2021.TRAININGS.values()
        )
    assert experiments.get(STUDY.name) is STUDY


A, B, C = Training(0.1), Training(0.2), Training(0.1, batch_size=8)


def table(lost=()):
    """Return accuracies that end at the given values: of A, B and C, on two seeds."""
    values = {A: (0.5, 0.7), B: (0.8, 0.9), C: (0.4, 0.65)}
    rows = [
        {"seed": seed, "order": training.name, "step": step}
        | {"test_accuracy": value * step, "train_loss": np.nan if training in lost else 1.0}
        for training, ends in values.items()
        for seed, value in enumerate(ends)
        for step in (0, 1)
    ]
    return pd.DataFrame(rows)


def test_levels_are_those_of_the_last_step():
    found = verdicts.levels(table(), "test_accuracy", [B, A])
    assert list(found.index) == [B.name, A.name]
    assert found["mean"].tolist() == pytest.approx([0.85, 0.6])
    assert found["spread"].tolist() == pytest.approx([0.1 / math.sqrt(2), 0.2 / math.sqrt(2)])


def test_a_lost_training_has_no_level():
    found = verdicts.levels(table(lost=[A]), "test_accuracy", [A, B])
    assert found["mean"].isna().tolist() == [True, False]


def test_distances_are_those_of_pairs_that_agree():
    found = verdicts.distances(table(), "test_accuracy", [A, B, C], lambda each: each.rate)
    assert found.tolist() == pytest.approx([0.1, 0.05])
    every = verdicts.distances(table(), "test_accuracy", [A, B, C], lambda each: 1)
    assert every.tolist() == pytest.approx([(0.3 + 0.1 + 0.4) / 3, (0.2 + 0.05 + 0.25) / 3])
    lost = verdicts.distances(table([C]), "test_accuracy", [A, B, C], lambda each: each.rate)
    assert lost.isna().all()


def test_trainings_of_which_no_two_agree_cannot_be_compared():
    with pytest.raises(ValueError, match="No two of these trainings agree"):
        verdicts.distances(table(), "test_accuracy", [A, B], lambda each: each.rate)
