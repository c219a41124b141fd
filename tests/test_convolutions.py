"""The convolutional strategy against the definition, in double precision, and when it applies."""

import copy
import itertools
import random
import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from cases import ORDERS, defined
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck

from revlib import Task, backward, trajectory
from revlib.training import convolutions, models, sweep
from revlib.training.convolutions import ConvolutionTrainer, applies
from revlib.training.maps import StepError, Trainer

STEPS = 4
SGD = partial(torch.optim.SGD, lr=0.1)

pytestmark = pytest.mark.usefixtures("one_thread")


def examples(count, size, dtype=torch.float64, seed=4):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 2, *size, generator=generator, dtype=dtype)
    return x, torch.randint(0, 3, (count,), generator=generator)


def task(model, size=(5, 4), optimizer=SGD, dtype=torch.float64):
    """A task with ragged batches of images of two colours in three classes."""
    batches = [examples(3 if n % 3 == 2 else 5, size, dtype, seed=n) for n in range(12)]
    sets = {"test": examples(6, size, dtype)}
    return Task(model.to(dtype), F.cross_entropy, batches, optimizer, sets, seed=3)


def headed(*modules):
    """A network with a head that takes the mean of eight channels."""
    return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def small(**options):
    """A network with one convolution that becomes a product, if its options allow it."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(4, 8, **{"kernel_size": 3, "stride": 2, "padding": 1} | options)
    return headed(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(inplace=True), convolution, nn.ReLU())


def residual(stem, norm, block=BasicBlock):
    """A ResNet of two blocks, with torchvision's stem for large images or the one for small."""
    torch.manual_seed(0)
    stems = {
        "imagenet": [nn.Conv2d(2, 4, 7, 2, 3, bias=False), nn.MaxPool2d(3, 2, 1)],
        "cifar": [nn.Conv2d(2, 4, 3, padding=1, bias=False)],
    }
    down = nn.Sequential(nn.Conv2d(4, 8, 1, 2, bias=False), norm(8))
    blocks = [
        block(4, 8 // block.expansion, 2, down, norm_layer=norm),
        block(8, 8 // block.expansion, norm_layer=norm),
    ]
    return headed(*stems[stem], norm(4), nn.ReLU(inplace=True), *blocks)


def assert_same_steps(problem, steps=STEPS):
    """Assert that the strategy's steps are the plain ones, and leave all that they leave."""
    plain, rewritten = Trainer(problem), ConvolutionTrainer(problem)
    for n in range(1, steps + 1):
        for trainer in (plain, rewritten):
            trainer.apply(n)
        expected, found = plain.state(), rewritten.state()
        assert list(found.model) == list(expected.model)
        for name, value in expected.model.items():
            assert found.model[name].dtype == value.dtype
            np.testing.assert_allclose(found.model[name], value, 1e-9, 1e-12, err_msg=name)
        assert found.rest == expected.rest


side = st.tuples(
    st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.integers(1, 2)
)


@settings(deadline=None, max_examples=150)
@given(side, side, st.booleans())
def test_a_convolution_of_any_form_takes_the_plain_steps(height, width, bias):
    size, kernel, stride, padding, dilation = zip(height, width, strict=True)
    convolution = nn.Conv2d(3, 8, kernel, stride, padding, dilation, bias=bias)
    assume(all(d * (k - 1) < s + 2 * p for s, k, _, p, d in (height, width)))
    problem = task(headed(nn.Conv2d(2, 3, 1), convolution, nn.ReLU(inplace=True)), size)
    shape = convolution(torch.zeros(1, 3, *size, dtype=torch.float64)).shape
    geometries = convolutions._geometries(problem.model, problem.batch(1)[0])
    live = all(geometries[convolution].meetings(s) for s in (0, 1))
    products = convolutions._products(problem.model, problem.batch(1)[0])
    assert (convolution in products) == (live and shape[2] * shape[3] <= convolutions.POSITIONS)
    assert_same_steps(problem, 2)


@pytest.mark.parametrize(
    ("kernel", "padding", "size", "expected"),
    [(3, 1, (1, 1), True), (1, 0, (4, 3), True), (3, 1, (1, 2), False), (1, 1, (1, 1), False)],
)
def test_where_nothing_has_to_be_gathered(kernel, padding, size, expected):
    layer = nn.Conv2d(2, 3, kernel, padding=padding)
    (geometry,) = convolutions._geometries(layer, torch.zeros(1, 2, *size)).values()
    assert geometry.pointwise == expected


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_padding_by_name(padding, kernel):
    problem = task(small(kernel_size=kernel, stride=1, padding=padding), (4, 4))
    assert applies(problem)
    assert_same_steps(problem)


NORMS = {"batch": nn.BatchNorm2d, "group": partial(nn.GroupNorm, 2), "none": nn.Identity}


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("stem", "size"), [("imagenet", (9, 9)), ("cifar", (7, 5))])
def test_residual_networks_take_the_plain_steps(stem, size, norm, block):
    problem = task(residual(stem, NORMS[norm], block), size)
    assert sweep._strategy(problem, None) is ConvolutionTrainer
    assert_same_steps(problem)


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_every_order_equals_the_definition(order):
    problem = task(residual("imagenet", nn.BatchNorm2d), (9, 9))
    found = trajectory(problem, order, 8, strategy="convolutions")
    pd.testing.assert_frame_equal(found, defined(problem, order, 8), rtol=1e-9)


def test_in_single_precision_the_difference_is_rounding():
    problem = task(residual("imagenet", nn.BatchNorm2d), (9, 9), dtype=torch.float32)
    found, eager = (
        trajectory(problem, backward(), STEPS, strategy=name) for name in ("convolutions", "eager")
    )
    np.testing.assert_allclose(found["test_loss"], eager["test_loss"], rtol=1e-4)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_bits_do_not_depend_on_workers_nor_on_what_else_is_recorded(workers):
    problem = task(residual("imagenet", nn.BatchNorm2d), (9, 9), dtype=torch.float32)
    whole = trajectory(problem, backward(), 6).set_index("step").loc[[3, 6]].reset_index()
    part = trajectory(problem, backward(), 6, [3, 6], workers=workers)
    pd.testing.assert_frame_equal(part, whole, check_exact=True, check_like=True)


def test_the_gradient_of_a_product_is_not_stored():
    problem = task(small())
    trainer = ConvolutionTrainer(problem)
    trainer.load(trainer.state())
    trainer.apply(1)
    stored = {name for name, p in trainer.model().named_parameters() if p.grad is not None}
    assert stored == {name for name, _ in problem.model.named_parameters()} - {"2.weight"}


def test_dead_taps_keep_their_bits_and_live_ones_move():
    """On images of 1 x 3, the outer rows of a kernel meet padding only."""
    problem = task(small(stride=1), (1, 3))
    trainer = ConvolutionTrainer(problem)
    before = problem.model[2].weight.detach()
    for n in range(1, STEPS):
        trainer.apply(n)
    after = trainer.state().model["2.weight"]
    moved = (after != before).flatten(0, 1).any(0)
    assert torch.equal(moved, torch.tensor([[False] * 3, [True] * 3, [False] * 3]))


def test_outside_a_step_the_model_is_an_ordinary_one():
    problem = task(small())
    trainer = ConvolutionTrainer(problem)
    model, plain = trainer.model(), problem.model
    for each in (model, plain):
        F.cross_entropy(each(problem.batch(1)[0]), problem.batch(1)[1]).backward()
    for found, expected in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(found, expected)
        np.testing.assert_allclose(found.grad, expected.grad, 1e-9, 1e-12)


def test_images_of_several_sizes_take_the_plain_steps():
    problem = task(small())
    for n, size in enumerate([(5, 4), (3, 7), (12, 12), (5, 4)]):
        problem.batches[n] = examples(4, size, seed=n)
    assert_same_steps(problem)


ODD = {
    "single precision": lambda x, y: (x.float(), y),
    "bytes": lambda x, y: (x.byte(), y),
    "no such class": lambda x, y: (x, y + 7),
    "soft labels": lambda x, y: (x, F.one_hot(y, 3).double()),
    "other channels": lambda x, y: (x[:, :1], y),
    "no example": lambda x, y: (x[:0], y[:0]),
}


@pytest.mark.parametrize("kernel", [1, 2], ids=["pointwise", "gathered"])
@pytest.mark.parametrize("odd", ODD)
def test_a_later_batch_of_another_kind_is_taken_or_refused_as_the_plain_loop_does(odd, kernel):
    convolution = nn.Conv2d(2, 8, kernel)
    problem = task(headed(convolution), (3, 3))
    assert convolution in convolutions._products(problem.model, problem.batch(1)[0])
    problem.batches[1] = ODD[odd](*problem.batches[1])
    try:
        Trainer(problem).apply(2)
    except StepError as error:
        with pytest.raises(StepError, match=f"^{re.escape(str(error))}$"):
            ConvolutionTrainer(problem).apply(2)
    else:
        assert_same_steps(problem)


def test_a_learning_rate_that_comes_with_the_state_is_used():
    problem = task(small())
    trainers = [Trainer(problem), ConvolutionTrainer(problem)]
    other = Trainer(problem)
    other.load(other.state())
    other._optimizer.param_groups[0]["lr"] = 0.3
    for trainer in trainers:
        trainer.load(other.state())
        trainer.apply(1)
    for one, other in zip(*(t.state().model.values() for t in trainers), strict=True):
        np.testing.assert_allclose(one, other, 1e-9)


def test_a_state_of_one_strategy_goes_on_in_another():
    problem = task(small())
    trainers = [Trainer(problem), ConvolutionTrainer(problem)]
    for trainer in trainers:
        trainer.apply(1)
    for trainer, other in itertools.permutations(trainers):
        state = other.state()
        trainer.load(state)
        assert all(map(torch.equal, trainer.state().model.values(), state.model.values()))


@settings(deadline=None, max_examples=30)
@given(side, side)
def test_the_census_counts_what_gets_a_gradient(height, width):
    """With positive weights, inputs and outer gradients, nothing that meets data cancels."""
    size, kernel, stride, padding, dilation = zip(height, width, strict=True)
    assume(all(d * (k - 1) < s + 2 * p for s, k, _, p, d in (height, width)))
    model = nn.Sequential(nn.Conv2d(2, 3, kernel, stride, padding, dilation))
    output = model(torch.ones(1, 2, *size))
    output.sum().backward()
    table = convolutions.census(model, torch.ones(4, 2, *size)).set_index("layer")
    taps = model[0].weight.grad.count_nonzero().item()
    assert table.loc["0", "live"] == taps + 3
    assert table.loc["0", "parameters"] == model[0].weight.numel() + 3
    # Each multiplication with data adds a one to the gradient of its weight.
    assert table.loc["0", "multiplications"] == round(model[0].weight.grad.sum().item())


def test_the_census_of_the_papers_network():
    network = models.convolutional("resnet18", 10, "imagenet", "batch")
    table = convolutions.census(network, torch.zeros(1, 3, 32, 32))
    assert table["parameters"].sum() == sum(p.numel() for p in network.parameters())
    assert table["live"].sum() == 4_234_826


class Own(nn.Conv2d):
    """A convolution of a class of one's own."""

    def forward(self, x):
        return 2 * super().forward(x)


class Twice(nn.Module):
    """Uses a layer twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return self.layer(F.relu(self.layer(x)))


def shared():
    """Two layers with one weight."""
    one, other = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
    other.weight = one.weight
    return nn.Sequential(one, nn.ReLU(), other)


def frozen():
    layer = nn.Conv2d(4, 4, 3, padding=1)
    layer.weight.requires_grad_(False)
    return layer


LEFT_ALONE = {
    "dilated": (lambda: nn.Conv2d(4, 4, 3, padding=2, dilation=2), 1),
    "frozen": (frozen, 0),
    "shared": (shared, 0),
    "twice": (Twice, 0),
    "own class": (lambda: Own(4, 4, 3, padding=1), 0),
    "groups": (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2), 0),
    "reflected": (lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), 0),
    "circular": (lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), 0),
    "transposed": (lambda: nn.ConvTranspose2d(4, 4, 3, padding=1), 0),
}


@pytest.mark.parametrize(("layer", "products"), LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_what_is_not_certain_is_left_alone_and_the_rest_is_rewritten(layer, products):
    torch.manual_seed(0)
    problem = task(headed(nn.Conv2d(2, 4, 3, 2, 1), layer(), nn.ReLU(), nn.Conv2d(4, 8, 2)))
    found = convolutions._products(problem.model, problem.batch(1)[0])
    assert len(found) == 2 + products
    assert applies(problem)
    assert_same_steps(problem)


class Later(nn.Module):
    """Does something to a layer, or with it, but only from its second step on."""

    def __init__(self, act, kernel=3):
        super().__init__()
        self.layer, self.act, self.steps = nn.Conv2d(2, 2, kernel, padding=kernel // 2), act, 0

    def forward(self, x):
        self.steps += self.training
        acted = self.act(self, x) if self.training and self.steps > 1 else None
        return self.layer(x) if acted is None else acted


def stretched(model, x):
    model.layer.stride = 2


def frozen_by_turns(model, x):
    model.layer.weight.requires_grad_(model.steps % 2 == 1)


def replaced(model, x):
    model.layer.weight.data = model.layer.weight.clone().clamp(-0.1, 0.1)


def watched(model, x):
    if model.steps == 2:
        model.layer.weight.register_hook(lambda gradient: gradient / 2)


def beside_a_copy(model, x):
    teacher = copy.deepcopy(model.layer)
    return model.layer(x) + teacher(x).tanh() + teacher.requires_grad_(False)(x)


ACTS = [stretched, frozen_by_turns, replaced, watched, beside_a_copy]


@pytest.mark.parametrize("kernel", [1, 3], ids=["pointwise", "gathered"])
@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_what_changes_later_is_left_to_the_library(act, kernel):
    problem = task(headed(Later(act, kernel), nn.Conv2d(2, 8, 1)), (4, 4))
    trainers = Trainer(problem), ConvolutionTrainer(problem)
    for n in range(1, STEPS + 1):
        for trainer in trainers:
            trainer.apply(n)
        expected, found = (trainer.state().model for trainer in trainers)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, 1e-9, 1e-12, err_msg=name)


def test_what_is_computed_in_half_precision_is_left_to_the_library():
    class Half(nn.Sequential):
        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(x).float()

    problem = task(Half(headed(nn.Conv2d(2, 8, 2))), (3, 3), dtype=torch.float32)
    assert applies(problem)
    plain, rewritten = Trainer(problem), ConvolutionTrainer(problem)
    for trainer in (plain, rewritten):
        trainer.apply(1)
    assert all(map(torch.equal, plain.state().model.values(), rewritten.state().model.values()))


def twice(model, x):
    return model.layer(model.layer(x))


def on_attacked_inputs(model, x):
    x = x.requires_grad_()
    (slope,) = torch.autograd.grad(model.layer(x).square().sum(), x)
    return model.layer(x + 0.1 * slope.sign())


def penalised(model, x):
    y = model.layer(x.requires_grad_())
    (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    return y + slope.square().mean()


@pytest.mark.parametrize("kernel", [1, 3], ids=["pointwise", "gathered"])
@pytest.mark.parametrize("act", [twice, on_attacked_inputs, penalised], ids=lambda a: a.__name__)
def test_a_second_gradient_that_could_not_be_foreseen_is_refused(act, kernel):
    problem = task(headed(Later(act, kernel), nn.Conv2d(2, 8, 1)), (4, 4))
    trainer = ConvolutionTrainer(problem)
    trainer.apply(1)
    with pytest.raises(StepError, match='batch 2 failed.*Pass strategy="eager", which can'):
        trainer.apply(2)
    problem.model = headed(Later(act, kernel), nn.Conv2d(2, 8, 1)).double()
    trajectory(problem, backward(), 3, strategy="eager")


class Drawing(nn.Module):
    """Draws from all global generators."""

    def forward(self, x):
        return x + random.random() + np.random.rand() + torch.rand(())


def test_to_try_it_takes_no_random_numbers():
    def states():
        return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()

    problem = task(headed(Drawing(), nn.Conv2d(2, 8, 1)), (4, 4))
    before = states()
    applies(problem)
    assert states() == before


def hooked(kind):
    model = small()
    module, weight = model[2], model[2].weight
    hooks = {
        "forward": lambda: module.register_forward_hook(lambda m, i, o: 2 * o),
        "before": lambda: module.register_forward_pre_hook(lambda m, i: (2 * i[0],)),
        "backward": lambda: model.register_full_backward_hook(lambda m, i, o: None),
        "gradient": lambda: weight.register_hook(lambda g: 2 * g),
        "stored": lambda: weight.register_post_accumulate_grad_hook(lambda p: None),
    }
    hooks[kind]()
    return model


class Weighted(nn.Sequential):
    """Uses the weight of a layer behind its back, before it or after it."""

    def __init__(self, before, after):
        super().__init__(*small())
        self.before, self.after = before, after

    def forward(self, x):
        y = super().forward(x * self.before((self[2].weight ** 2).mean()))
        return y * self.after((self[2].weight ** 2).mean())


def test_a_weight_that_is_used_again_gets_both_gradients():
    problem = task(Weighted(torch.ones_like, torch.exp))
    assert applies(problem)
    assert_same_steps(problem)


class Viewed(nn.Module):
    """Bears one order of the memory only."""

    def forward(self, x):
        return x.view(len(x), -1)


class Halved(nn.Module):
    """Compares two halves of a batch."""

    def forward(self, x):
        one, other = x.chunk(2)
        return torch.cat([one - other.mean(0), other])


class Taught(nn.Module):
    """Makes a teacher of itself when it is used first."""

    def __init__(self):
        super().__init__()
        self.layer, self.teacher = nn.Conv2d(2, 8, 1), None

    def forward(self, x):
        if self.teacher is None:
            self.teacher = copy.deepcopy(self.layer).requires_grad_(False)
        return self.layer(x) + self.teacher(x)


def by_batch(*after):
    return nn.Sequential(nn.Flatten(), nn.Linear(40, 4), *after, nn.Linear(4, 3))


def flattened(module):
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), module, nn.Linear(80, 3))


def with_hook_on_the_optimizer(parameters):
    optimizer = SGD(parameters)
    optimizer.register_step_pre_hook(lambda *_: None)
    return optimizer


def clipping_from_outside(parameters):
    """It clips nothing in the first step."""
    parameters = list(parameters)
    optimizer = SGD(parameters)
    step = optimizer.step
    optimizer.step = lambda closure=None: (
        nn.utils.clip_grad_norm_(parameters, 1e9),
        step(closure),
    )[1]
    return optimizer


def on_some(parameters):
    return SGD(list(parameters)[:-1])


@pytest.mark.parametrize(
    ("model", "optimizer"),
    [
        (small(), clipping_from_outside),
        (small(), on_some),
        (small(), partial(torch.optim.SGD, lr=0.1, momentum=0.9)),
        (small(), partial(torch.optim.SGD, lr=0.1, weight_decay=0.1)),
        (small(), torch.optim.Adam),
        (small(), with_hook_on_the_optimizer),
        *((hooked(kind), SGD) for kind in ("forward", "before", "backward", "gradient", "stored")),
        (Weighted(torch.exp, torch.ones_like), SGD),
        (headed(nn.Conv2d(2, 8, 3, 2), nn.Dropout()), SGD),
        (flattened(Viewed()), SGD),
        (flattened(nn.Flatten()), SGD),
        (nn.Sequential(nn.Flatten(), nn.Linear(40, 3), nn.Tanh()), SGD),
        # None of these takes one example.
        (
            nn.Sequential(
                nn.Conv2d(2, 2, 1), by_batch(nn.BatchNorm1d(4, track_running_stats=False))
            ),
            SGD,
        ),
        (by_batch(nn.BatchNorm1d(4, track_running_stats=False)), SGD),
        (headed(nn.Conv2d(2, 8, 1), Halved()), SGD),
        (headed(Taught()), SGD),
    ],
)
def test_it_does_not_apply_and_the_eager_strategy_takes_over(model, optimizer):
    problem = task(model, optimizer=optimizer)
    assert not applies(problem)
    assert sweep._strategy(problem, None) is Trainer
    pd.testing.assert_frame_equal(
        trajectory(problem, backward(), 3), defined(problem, backward(), 3), rtol=1e-12
    )
