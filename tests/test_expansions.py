"""Expansions in the learning rate against exact polynomials, dense derivatives and slopes."""

import functools
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import hessian, jacrev, jvp
from torch.utils.flop_counter import FlopCounterMode

from revlib import orders
from revlib.iterates import iterates
from revlib.theory import expansions
from revlib.theory.expansions import LogCoshField
from revlib.training.maps import Trainer, TrainingStep
from revlib.training.tasks import Task

RATES = 2.0 ** -torch.arange(4, 10, dtype=torch.float64)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fields(count=5):
    """Smooth fields in three dimensions that do not commute, and a start point."""
    a, b = random(count, 3, seed=1), random(count, seed=2)
    return [LogCoshField(*one) for one in zip(a, b, strict=True)], random(3, seed=3)


def compose(applied, theta, h):
    """Apply the maps in the order given: the definition."""
    for step in expansions.maps(applied, h):
        theta = step(theta)
    return theta


def backward(own, theta, h):
    return compose(own[::-1], theta, h)


def slope(errors):
    return expansions.slope(RATES, [float(error) for error in errors])


def network(activation=nn.Tanh, loss=nn.functional.cross_entropy, steps=4):
    """A small task, in double precision."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), activation(), nn.Linear(5, 3)).double()
    inputs = random(steps, 7, 2, 3, seed=4)
    targets = torch.arange(7 * steps).reshape(steps, 7) % 3
    if loss is not nn.functional.cross_entropy:
        targets = random(steps, 7, 3, seed=5)
    sgd = functools.partial(torch.optim.SGD, lr=0.1)
    return Task(model, loss, list(zip(inputs, targets, strict=True)), sgd, evaluation={})


# Lemma C.1 and its continuation


@settings(deadline=None)
@given(seed=st.integers(0, 1000), count=st.integers(1, 4), order=st.integers(1, 5))
def test_affine_maps_compose_to_the_polynomial(seed, count, order):
    """Of n affine maps the composition is a polynomial of degree n in h, known exactly."""
    matrices, shifts = random(count, 3, 3, seed=seed), random(count, 3, seed=seed + 1)
    theta = random(3, seed=seed + 2)
    powers = [theta]  # coefficients of the composition, by multiplying it out
    for A, b in zip(matrices, shifts, strict=True):
        moved = [A @ power for power in powers]
        moved[0] = moved[0] + b
        padded = [*powers, torch.zeros(3).double()]
        powers = [padded[0], *(p + m for p, m in zip(padded[1:], moved, strict=True))]
    own = [lambda x, A=A, b=b: A @ x + b for A, b in zip(matrices, shifts, strict=True)]
    found = expansions.expand(own, theta, order)
    expected = (powers[1:] + [torch.zeros(3).double()] * order)[:order]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_quadratic_maps_of_a_number_compose_to_the_polynomial():
    """The curved case by hand: x + h x² twice is x + 2h x² + 2h² x³ + h³ x⁴."""
    x = torch.tensor(1.7, dtype=torch.float64)
    found = expansions.expand([torch.square, torch.square], x, 4)
    expected = [2 * x**2, 2 * x**3, x**4, 0 * x]
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)


def test_three_orders_are_the_sums_over_indices():
    """Lemma C.1, and the third order written out, with dense derivatives."""
    own, theta = fields()
    V = [v(theta) for v in own]
    J = [jacrev(v)(theta) for v in own]
    K = [jacrev(jacrev(v))(theta) for v in own]
    n = range(len(own))
    # T_1 ⋯ T_n: the map with the smaller index is applied later, and is the one differentiated.
    second = sum(J[u] @ V[v] for u in n for v in n if u < v)
    third = sum(J[u] @ J[v] @ V[w] for u in n for v in n for w in n if u < v < w)
    third = third + 0.5 * sum(K[u] @ V[v] @ V[w] for u in n for v in n for w in n if u < min(v, w))
    found = expansions.expand(own[::-1], theta, 3)
    torch.testing.assert_close(found, [sum(V), second, third], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_error_falls_one_power_faster_than_the_order(order):
    own, theta = fields()
    coefficients = expansions.expand(own[::-1], theta, order)
    assert len(coefficients) == order
    errors = [
        (expansions.evaluate(theta, coefficients, h) - backward(own, theta, h)).norm()
        for h in RATES
    ]
    assert slope(errors) == pytest.approx(order + 1, abs=0.15)


def test_evaluate_is_the_polynomial():
    theta, c = random(3), [random(3, seed=s) for s in (1, 2, 3)]
    expected = theta + 0.1 * c[0] + 0.01 * c[1] + 0.001 * c[2]
    torch.testing.assert_close(expansions.evaluate(theta, c, 0.1), expected, rtol=0, atol=1e-15)
    assert torch.equal(expansions.evaluate(theta, [], 0.1), theta)


def test_theta_may_have_any_shape_and_is_not_changed():
    theta, matrix = random(2, 3), random(2, 2, seed=1)
    kept = theta.clone()
    first, second = expansions.expand([torch.sin, lambda x: matrix @ x], theta, 2)
    torch.testing.assert_close(first, torch.sin(theta) + matrix @ theta)
    torch.testing.assert_close(second, matrix @ torch.sin(theta))
    assert torch.equal(theta, kept)


def test_no_fields_change_nothing():
    torch.testing.assert_close(expansions.expand([], torch.ones(2), 2), [torch.zeros(2)] * 2)
    assert list(expansions.corrections([], torch.ones(2))) == []


# Theorem C.2, Definition C.3, Corollary C.4


def test_reversal_is_the_sum_of_brackets():
    own, theta = fields()
    first, second = expansions.reversal(own, theta, 2)
    brackets = sum(expansions.bracket(v, w, theta) for v, w in itertools.combinations(own, 2))
    torch.testing.assert_close(first, torch.zeros(3).double(), rtol=0, atol=1e-14)
    torch.testing.assert_close(second, brackets, rtol=1e-12, atol=1e-12)
    assert second.norm() > 0.1


def test_the_recursion_gives_the_sum_of_brackets_at_every_step():
    own, theta = fields()
    found = list(expansions.corrections(iter(own), theta))
    assert len(found) == len(own)
    for n, correction in enumerate(found, start=1):
        expected = expansions.reversal(own[:n], theta, 2)[1]
        torch.testing.assert_close(correction, expected, rtol=1e-12, atol=1e-12)


def test_the_recursion_takes_n_products_at_step_n():
    own, theta = fields(6)
    count = 0

    def counted(v):
        def field(x):
            nonlocal count
            count += 1
            return v(x)

        return field

    for n, _ in enumerate(expansions.corrections([counted(v) for v in own], theta), start=1):
        assert count == n * (n + 1) / 2


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_the_corrected_forward_iterate_is_the_backward_one(order):
    own, theta = fields()
    change = expansions.reversal(own, theta, order)
    errors = [
        (expansions.evaluate(compose(own, theta, h), change, h) - backward(own, theta, h)).norm()
        for h in RATES
    ]
    assert slope(errors) == pytest.approx(order + 1, abs=0.15)


def test_the_wrong_sign_of_the_bracket_gains_nothing():
    own, theta = fields()
    *_, correction = expansions.corrections(own, theta)
    errors = [
        (compose(own, theta, h) - h**2 * correction - backward(own, theta, h)).norm() for h in RATES
    ]
    assert slope(errors) == pytest.approx(2, abs=0.15)


def test_bracket_has_the_papers_sign():
    """Of linear fields it is the commutator AB - BA; textbooks have BA - AB."""
    A, B, theta = random(3, 3), random(3, 3, seed=1), random(3, seed=2)
    found = expansions.bracket(lambda x: A @ x, lambda x: B @ x, theta)
    torch.testing.assert_close(found, (A @ B - B @ A) @ theta, rtol=1e-12, atol=1e-12)


# The loss of a network


@pytest.mark.parametrize("loss", [nn.functional.cross_entropy, nn.functional.mse_loss])
def test_the_maps_of_a_loss_are_the_steps_of_sgd(loss):
    task = network(loss=loss)
    trainer = Trainer(task)
    own = expansions.loss_fields(task, 4)
    start = expansions.parameters(task.model)
    steps = [TrainingStep(trainer, n) for n in range(1, 5)]
    states = iterates(steps, trainer.state(), orders.backward())
    for (n, state), (_, theta) in zip(
        states, iterates(expansions.maps(own, 0.1), start, orders.backward()), strict=True
    ):
        flat = torch.cat([value.flatten() for value in state.model.values()])
        torch.testing.assert_close(theta, flat, rtol=1e-12, atol=1e-13, msg=f"step {n}")


@pytest.mark.parametrize(
    "loss", [nn.functional.cross_entropy, nn.functional.mse_loss, nn.MSELoss()]
)
def test_products_are_those_of_the_dense_derivatives(loss):
    """The Hessian and the third derivative, formed for this tiny model only."""
    task = network(loss=loss, steps=2)
    v, w = expansions.loss_fields(task, 2)
    theta = expansions.parameters(task.model)
    H, G = hessian(v.at)(theta), jacrev(v.at)(theta)
    g = jacrev(w.at)(theta)
    third = jvp(hessian(v.at), (theta,), (g,))[1]  # the third derivative in the direction g
    found = expansions.expand([w, v], theta, 3)  # -∇L_2 is applied first
    torch.testing.assert_close(found[0], -G - g)
    torch.testing.assert_close(found[1], H @ g)
    torch.testing.assert_close(found[2], -0.5 * third @ g)
    brackets = H @ g - hessian(w.at)(theta) @ G
    torch.testing.assert_close(expansions.bracket(v, w, theta), brackets)


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Softplus, nn.GELU])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_slopes_of_a_trained_network(activation, order):
    own = expansions.loss_fields(network(activation, steps=24), 24)
    theta = compose(own[4:], expansions.parameters(own[0].model), 0.2)
    own = own[:4]
    change = expansions.reversal(own, theta, order)
    errors = [
        (expansions.evaluate(compose(own, theta, h), change, h) - backward(own, theta, h)).norm()
        for h in RATES
    ]
    assert slope(errors) == pytest.approx(order + 1, abs=0.15)


def test_the_precision_is_that_of_theta():
    task = network()
    task.model.float()
    (v,) = expansions.loss_fields(task, 1)
    theta = expansions.parameters(task.model)
    assert theta.dtype == torch.float64
    assert v(theta).dtype == torch.float64
    torch.testing.assert_close(v(theta.float()).double(), v(theta), rtol=1e-4, atol=1e-6)


def test_frozen_parameters_stay_out():
    task = network()
    for parameter in task.model[1].parameters():
        parameter.requires_grad_(False)
    theta = expansions.parameters(task.model)
    assert theta.shape == (5 * 3 + 3,)
    (v,) = expansions.loss_fields(task, 1)
    task.loss(task.model(task.batch(1)[0]), task.batch(1)[1]).backward()
    expected = torch.cat([p.grad.flatten() for p in task.model[3].parameters()])
    torch.testing.assert_close(v(theta), -expected)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_each_order_triples_the_work(order):
    """Counted: the multiplications of one field's terms, relative to one gradient."""
    (v,) = expansions.loss_fields(network(steps=1), 1)
    theta = expansions.parameters(v.model)

    def work(call):
        with FlopCounterMode(display=False) as counter:
            call()
        return counter.get_total_flops()

    assert work(lambda: expansions.expand([v], theta, order)) == 3 ** (order - 1) * work(
        lambda: v(theta)
    )


# Kinks


def test_smoothed_replaces_relu_everywhere_and_copies():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Sequential(nn.ReLU(), nn.Linear(2, 1)))
    smooth = expansions.smoothed(model)
    kinds = [type(module) for module in smooth.modules()]
    assert nn.ReLU not in kinds
    assert kinds.count(nn.GELU) == 2
    assert sum(isinstance(module, nn.ReLU) for module in model.modules()) == 2
    assert torch.equal(smooth[0].weight, model[0].weight)


def test_a_kink_that_is_crossed_is_not_in_the_expansion():
    """One unit, relu(theta): crossing the kink leaves an error of order h², not h³ or h⁴."""

    def lift(x):  # moves theta upwards, across the kink at 0
        return torch.ones_like(x)

    for crossing, power in [(-0.5, 2), (0.5, None)]:
        errors = []
        for h in RATES:
            theta = (crossing * h).reshape(1)
            approximate = expansions.evaluate(
                theta, expansions.expand([lift, torch.relu], theta, 3), h
            )
            errors.append((approximate - compose([lift, torch.relu], theta, h)).norm())
        if power:
            assert slope(errors) == pytest.approx(power, abs=1e-6)
        else:
            assert max(errors) < 1e-15


def test_switched_counts_units_and_examples():
    task = network(nn.ReLU, steps=1)
    (v,) = expansions.loss_fields(task, 1)
    theta = expansions.parameters(task.model)
    assert expansions.switched(v, theta, theta) == (0, 5 * 7)
    mirrored = theta.clone()
    mirrored[: 6 * 5 + 5] *= -1  # the first layer: every unit on becomes off, and the reverse
    assert expansions.switched(v, theta, mirrored) == (35, 35)
    assert not any(module._forward_hooks for module in task.model.modules())


# Bad input


@pytest.mark.parametrize("order", [0, -1, 1.0, None])
def test_an_impossible_order_is_refused(order):
    own, theta = fields()
    with pytest.raises(ValueError, match="whole number, 1 or more"):
        expansions.expand(own, theta, order)


def test_a_field_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"theta's shape, \(3,\).*returned the shape \(\)"):
        expansions.expand([torch.sum], torch.ones(3), 2)


def test_a_model_with_buffers_is_refused():
    task = network()
    task.model.append(nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match="buffers.*running_mean.*GroupNorm"):
        expansions.loss_fields(task, 1)


def test_too_few_batches_are_refused():
    with pytest.raises(ValueError, match="ends after 4"):
        expansions.loss_fields(network(), 5)
