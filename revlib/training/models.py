"""The networks that the experiments train."""

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn

_STD = {
    "lecun": lambda fan_in, fan_out: math.sqrt(1 / fan_in),
    "he": lambda fan_in, fan_out: math.sqrt(2 / fan_in),
    "glorot": lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out)),
}

_CUT = {
    "flax": lambda fan_in: math.sqrt(1 / fan_in) / 0.87962566103423978,
    "haiku": lambda fan_in: math.sqrt(1 / fan_in),
}
"""The standard deviation before the normal distribution is cut at twice it, which takes 12%."""

INITS = ("pytorch", *_STD, *_CUT, "keras")
"""The names of the initialisations that `mlp` knows."""


def mlp(
    widths: Sequence[int], init: str = "he", seed: int = 0, dtype: torch.dtype = torch.float32
) -> nn.Sequential:
    """Build a multilayer perceptron with ReLU hidden layers.

    The initialisation is an explicit choice because the paper does not state its own, and it
    decides the outcome: a setting that learns from one diverges from another, and stands still
    from a third.

    Parameters
    ----------
    widths
        Number of inputs (of one flattened example), of neurons in each hidden layer, and of
        outputs. The paper's network for Fashion-MNIST is ``(784, 500, 500, 500, 500, 500, 10)``;
        the one for regression is ``(1, 300, 300, 300, 1)``.
    init
        How the parameters are drawn. Where a library is named, it is what its dense layer does by
        itself.

        - ``"lecun"``, ``"he"``, ``"glorot"``: normal weights with standard deviation
          ``sqrt(1 / fan_in)``, ``sqrt(2 / fan_in)`` or ``sqrt(2 / (fan_in + fan_out))``; biases
          are zero.
        - ``"flax"``, ``"haiku"``: normal weights without what lies further out than two standard
          deviations, biases zero. The standard deviation of what is left is ``sqrt(1 / fan_in)``
          in Flax, and 0.88 of it in Haiku.
        - ``"keras"``: weights uniform with standard deviation ``sqrt(2 / (fan_in + fan_out))``,
          biases zero.
        - ``"pytorch"``: weights and biases uniform between ``-1 / sqrt(fan_in)`` and
          ``1 / sqrt(fan_in)``.
    seed
        Determines the parameters. PyTorch's global random state is neither used nor changed.
    dtype
        Floating-point type of the parameters, in which they are drawn.

    Returns
    -------
    torch.nn.Sequential
        Flatten, then Linear and ReLU in turn, ending with a Linear: it maps inputs of shape
        (N, ...) to outputs of shape (N, widths[-1]).

    Raises
    ------
    ValueError
        If there are fewer than two widths, a width is not a positive integer, or `init` is not
        known.

    Examples
    --------
    >>> import torch
    >>> from revlib.training.models import mlp
    >>> network = mlp((784, 500, 10), init="he", seed=1)
    >>> network(torch.zeros(8, 28, 28)).shape
    torch.Size([8, 10])
    """
    widths = tuple(widths)
    if len(widths) < 2 or not all(isinstance(width, int) and width > 0 for width in widths):
        raise ValueError(
            f"widths = {widths} does not describe a network: give the number of inputs, of "
            "neurons in each hidden layer, and of outputs, all of them positive integers."
        )
    if init not in INITS:
        raise ValueError(f"There is no initialisation {init!r}: choose one of {', '.join(INITS)}.")

    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in itertools.pairwise(widths):
        # skip_init leaves the parameters unset, and so the global random state untouched.
        linear = nn.utils.skip_init(nn.Linear, fan_in, fan_out, dtype=dtype)
        nn.init.zeros_(linear.bias)
        if init == "pytorch":
            bound = 1 / math.sqrt(fan_in)
            nn.init.uniform_(linear.weight, -bound, bound, generator=generator)
            nn.init.uniform_(linear.bias, -bound, bound, generator=generator)
        elif init == "keras":
            nn.init.xavier_uniform_(linear.weight, generator=generator)
        elif init in _CUT:
            _cut_normal(linear.weight, _CUT[init](fan_in), generator)
        else:
            nn.init.normal_(linear.weight, std=_STD[init](fan_in, fan_out), generator=generator)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@torch.no_grad()
def _cut_normal(weight: torch.Tensor, std: float, generator: torch.Generator) -> None:
    """Fill a tensor from a normal distribution that is cut at twice its standard deviation.

    By its quantiles, since PyTorch's own way has changed: a seed would be another start there.
    """
    inside = math.erf(math.sqrt(2))  # the share of the normal distribution that is left
    weight.uniform_(-inside, inside, generator=generator).erfinv_().mul_(std * math.sqrt(2))
    weight.clamp_(-2 * std, 2 * std)


RESNETS = {
    "resnet10": ("BasicBlock", (1, 1, 1, 1)),
    "resnet14": ("Bottleneck", (1, 1, 1, 1)),
    "resnet18": ("BasicBlock", (2, 2, 2, 2)),
    "resnet50": ("Bottleneck", (3, 4, 6, 3)),
}
"""The ResNets: of which blocks they are made, and how many of each width (He et al., 2016)."""

_VGG = {"vgg11": "A", "vgg19": "E"}
"""The VGGs, and what the paper that they come from calls them (Simonyan and Zisserman, 2015)."""

CONVOLUTIONAL = (*RESNETS, *_VGG)
"""The names of the convolutional networks that `convolutional` knows."""

STEMS = ("imagenet", "cifar")
"""How a ResNet begins: as in torchvision, for large images; or made for images of 32 x 32."""

NORMALISATIONS = {
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(32, channels),
    "none": nn.Identity,
}
"""What stands after each convolution, by name; made from the number of channels."""


def convolutional(
    name: str,
    classes: int,
    stem: str | None,
    normalisation: str,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """Build a convolutional network of torchvision for colour images of 32 x 32 pixels.

    The paper names its networks and no more. Stem, head and normalisation are choices.

    Parameters
    ----------
    name
        A name in :data:`CONVOLUTIONAL`; the smallest of each kind, ``"resnet10"``, ``"resnet14"``
        and ``"vgg11"``, are there to try things on. The initialisation is torchvision's own.
    classes
        Number of outputs.
    stem
        For the ResNets: ``"imagenet"`` is torchvision's, a convolution of 7 x 7 with stride 2 and a
        max-pooling, after which an image of 32 x 32 is 8 x 8; ``"cifar"`` is a convolution of 3 x 3
        with stride 1 and no pooling, as in the CIFAR variants that are in common use, at about four
        times the cost. None for a VGG, whose stem fits small images.
    normalisation
        What stands after each convolution: ``"batch"`` normalisation, ``"group"`` normalisation (32
        groups) or ``"none"``. For a VGG that last is the network as published.
    seed
        Determines the parameters. PyTorch's global random state is neither used nor changed.
    dtype
        Floating-point type of the parameters, in which they are drawn.

    Returns
    -------
    torch.nn.Module
        It maps inputs of shape (N, 3, 32, 32) to outputs of shape (N, classes). The head of a VGG
        is one linear layer on its 512 features (torchvision's own, made for images of 224 x 224,
        would hold 6 times as many parameters as all convolutions); there is no dropout.

    Raises
    ------
    ValueError
        If a name is not known.

    Examples
    --------
    >>> network = convolutional("resnet18", 10, stem="cifar", normalisation="batch")
    >>> network(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    stems = (None,) if name in _VGG else STEMS
    for kind, value, known in (
        ("convolutional network", name, CONVOLUTIONAL),
        (f"stem of {name}", stem, stems),
        ("normalisation", normalisation, NORMALISATIONS),
    ):
        if value not in known:
            raise ValueError(f"There is no {kind} {value!r}: choose one of {_listed(known)}.")

    from torchvision.models import resnet  # takes a second, and the other networks do without it

    with torch.random.fork_rng(devices=[]), _default(dtype):
        torch.default_generator.manual_seed(seed)
        if name in _VGG:
            return _vgg(_VGG[name], classes, normalisation)
        block, counts = RESNETS[name]
        network = resnet.ResNet(
            getattr(resnet, block),
            list(counts),
            num_classes=classes,
            norm_layer=NORMALISATIONS[normalisation],
        )
        if stem == "cifar":
            network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
            network.maxpool = nn.Identity()
        return network


@contextlib.contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    """Let new parameters have a type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _vgg(configuration: str, classes: int, normalisation: str) -> nn.Module:
    from torchvision.models import vgg

    layers: list[nn.Module] = []
    for layer in vgg.make_layers(vgg.cfgs[configuration]):
        layers.append(layer)
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
            if normalisation != "none":
                layers.append(NORMALISATIONS[normalisation](layer.out_channels))
    head = nn.Linear(512, classes)
    nn.init.normal_(head.weight, std=0.01)  # as torchvision initialises its own head
    nn.init.zeros_(head.bias)
    return nn.Sequential(*layers, nn.Flatten(), head)


def _listed(names: Sequence) -> str:
    return ", ".join(map(str, names))
