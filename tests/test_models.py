"""Form, initialisation and reproducibility of the networks."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
import torchvision
from torch import nn
from torchvision.models import vgg

from revlib.training import models
from revlib.training.models import convolutional, mlp

WIDTHS = (400, 900, 300, 500)
"""Unequal on purpose: fan-in and fan-out are not to be confused."""


CUT = scipy.stats.truncnorm(-2, 2)


def linears(network):
    """Return the linear layers of a network."""
    return [layer for layer in network if isinstance(layer, nn.Linear)]


def test_layers_alternate_and_end_with_a_linear():
    network = mlp((784, 500, 300, 10))
    kinds = [type(layer) for layer in network]
    assert kinds == [nn.Flatten, nn.Linear, nn.ReLU, nn.Linear, nn.ReLU, nn.Linear]
    shapes = [(layer.in_features, layer.out_features) for layer in linears(network)]
    assert shapes == [(784, 500), (500, 300), (300, 10)]
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_two_widths_make_a_linear_model():
    assert [type(layer) for layer in mlp((3, 2))] == [nn.Flatten, nn.Linear]


@pytest.mark.parametrize("shape", [(8, 784), (8, 28, 28), (8, 1, 28, 28)])
def test_inputs_are_flattened(shape):
    assert mlp((784, 20, 10))(torch.zeros(shape)).shape == (8, 10)


@pytest.mark.parametrize(
    ("init", "std", "kurtosis"),
    [
        ("pytorch", lambda fan_in, fan_out: math.sqrt(1 / (3 * fan_in)), 1.8),
        ("keras", lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out)), 1.8),
        ("lecun", lambda fan_in, fan_out: math.sqrt(1 / fan_in), 3),
        ("he", lambda fan_in, fan_out: math.sqrt(2 / fan_in), 3),
        ("glorot", lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out)), 3),
        ("flax", lambda fan_in, fan_out: math.sqrt(1 / fan_in), CUT.stats("k") + 3),
        ("haiku", lambda fan_in, fan_out: CUT.std() * math.sqrt(1 / fan_in), CUT.stats("k") + 3),
    ],
)
def test_spread_of_the_weights(init, std, kurtosis):
    for layer in linears(mlp(WIDTHS, init=init, seed=5)):
        expected = std(layer.in_features, layer.out_features)
        count = layer.weight.numel()
        # The standard error of a normal sample's standard deviation is std / sqrt(2 count).
        assert layer.weight.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * count))
        assert abs(layer.weight.mean().item()) < 5 * expected / math.sqrt(count)
        found = ((layer.weight / expected) ** 4).mean().item()
        assert found == pytest.approx(float(kurtosis), rel=0.05)
        if init == "pytorch":
            bound = 1 / math.sqrt(layer.in_features)
            assert 0.9 * bound < layer.bias.abs().max().item() <= bound
        else:
            assert torch.count_nonzero(layer.bias) == 0


def test_pytorch_is_what_pytorch_does():
    with torch.random.fork_rng():
        torch.manual_seed(7)
        reference = [nn.Linear(20, 30), nn.Linear(30, 5)]
    for ours, theirs in zip(linears(mlp((20, 30, 5), "pytorch", seed=7)), reference, strict=True):
        torch.testing.assert_close(ours.weight, theirs.weight)
        torch.testing.assert_close(ours.bias, theirs.bias)


@pytest.mark.parametrize("init", models.INITS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_seed_determines_the_parameters(init, dtype):
    def weights(seed):
        return [p.detach() for p in mlp((20, 30, 30, 5), init, seed=seed, dtype=dtype).parameters()]

    first, again, other = weights(3), weights(3), weights(4)
    assert all(weight.dtype == dtype for weight in first)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first[::2], other[::2], strict=True))


@pytest.mark.parametrize("init", models.INITS)
def test_global_random_state_is_neither_used_nor_changed(init):
    before = torch.get_rng_state()
    first = mlp((20, 30, 5), init, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        second = mlp((20, 30, 5), init, seed=3)
    assert torch.equal(first[1].weight, second[1].weight)


@pytest.mark.parametrize("widths", [(), (784,), (784, 0, 10), (784, -5, 10), (784, 2.5, 10)])
def test_bad_widths(widths):
    with pytest.raises(ValueError, match="positive integers"):
        mlp(widths)


def test_unknown_initialisation_lists_the_valid_ones():
    with pytest.raises(
        ValueError, match="'xavier': choose one of pytorch, lecun, he, glorot, flax"
    ):
        mlp((784, 10), init="xavier")


# Those on the shortcuts, which count to no layer of the name, included.
CONVOLUTIONS = {"resnet10": 12, "resnet14": 17, "resnet18": 20, "resnet50": 53}
CONVOLUTIONS |= {"vgg11": 8, "vgg19": 16}


@pytest.mark.parametrize("normalisation", models.NORMALISATIONS)
@pytest.mark.parametrize(
    ("name", "stem"),
    [
        *(("resnet18", "imagenet"), ("resnet18", "cifar"), ("resnet50", "imagenet")),
        *(("resnet10", "imagenet"), ("resnet14", "cifar"), ("vgg11", None), ("vgg19", None)),
    ],
)
def test_convolutional_networks_are_normalised_as_asked(name, stem, normalisation):
    network = convolutional(name, 7, stem, normalisation)
    kinds = [type(module) for module in network.modules()]
    convolutions = sum(kind is nn.Conv2d for kind in kinds)
    assert convolutions == CONVOLUTIONS[name]
    for kind, asked in ((nn.BatchNorm2d, "batch"), (nn.GroupNorm, "group")):
        assert kinds.count(kind) == (convolutions if normalisation == asked else 0)
    assert nn.Dropout not in kinds
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnets_are_torchvisions(name):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        theirs = getattr(torchvision.models, name)(num_classes=10)
    ours = convolutional(name, 10, "imagenet", "batch", seed=3)
    assert str(ours) == str(theirs)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_cifar_stem_keeps_the_size_of_the_image():
    stems = {stem: convolutional("resnet18", 10, stem, "batch") for stem in models.STEMS}
    x = torch.zeros(1, 3, 32, 32)
    sides = {s: n.layer1(n.maxpool(n.conv1(x))).shape[-1] for s, n in stems.items()}
    assert sides == {"imagenet": 8, "cifar": 32}


@pytest.mark.parametrize(("name", "theirs"), [("vgg11", "A"), ("vgg19", "E")])
def test_vgg_is_torchvisions_without_its_head(name, theirs):
    ours = convolutional(name, 10, None, "none")
    kept = [layer for layer in ours if not isinstance(layer, nn.Flatten | nn.Linear)]
    assert str(nn.Sequential(*kept)) == str(vgg.make_layers(vgg.cfgs[theirs]))
    for layer in kept:
        if isinstance(layer, nn.Conv2d):
            std = math.sqrt(2 / (layer.out_channels * 9))  # He's, by fan-out
            assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
            assert torch.count_nonzero(layer.bias) == 0


def test_seed_determines_a_convolutional_network_and_nothing_else_changes():
    before = torch.get_rng_state()
    first, again, other = (convolutional("resnet18", 10, "cifar", "group", s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("alexnet", 10, None, "batch"), "convolutional network 'alexnet': choose one of resnet10"),
        (("resnet18", 10, None, "batch"), "stem of resnet18 None: choose one of imagenet, cifar"),
        (("vgg19", 10, "cifar", "batch"), "stem of vgg19 'cifar': choose one of None"),
        (("vgg19", 10, None, "layer"), "normalisation 'layer': choose one of batch, group, none"),
    ],
)
def test_unknown_parts_list_the_valid_ones(arguments, message):
    with pytest.raises(ValueError, match=message):
        convolutional(*arguments)


def test_cut_weights_are_quantiles_so_that_a_seed_is_one_start_under_any_pytorch():
    widths, seed = (7, 40), 3
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.empty(40, 7, dtype=torch.double).uniform_(0, 1, generator=generator).numpy()
    for init, std in (("haiku", 1.0), ("flax", 1 / CUT.std())):
        weight = models.mlp(widths, init, seed, torch.double)[1].weight.detach().numpy()
        expected = CUT.ppf(drawn) * std / math.sqrt(7)
        np.testing.assert_allclose(weight, expected, rtol=1e-6, atol=1e-9)
