"""The networks that the experiments train."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["INITS", "mlp"]

_STD = {
    "lecun": lambda fan_in, fan_out: math.sqrt(1 / fan_in),
    "he": lambda fan_in, fan_out: math.sqrt(2 / fan_in),
    "glorot": lambda fan_in, fan_out: math.sqrt(2 / (fan_in + fan_out)),
}

INITS = ("pytorch", *_STD)
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
    widths : sequence of int
        Number of inputs (of one flattened example), of neurons in each hidden layer, and of
        outputs. The paper's network for Fashion-MNIST is ``(784, 500, 500, 500, 500, 500, 10)``;
        the one for regression is ``(1, 300, 300, 300, 1)``.
    init : {"he", "lecun", "glorot", "pytorch"}, optional
        How the parameters are drawn.

        - ``"lecun"``, ``"he"``, ``"glorot"``: normal weights with standard deviation
          ``sqrt(1 / fan_in)``, ``sqrt(2 / fan_in)`` or ``sqrt(2 / (fan_in + fan_out))``; biases
          are zero.
        - ``"pytorch"``: what `torch.nn.Linear` does by itself, weights and biases uniform between
          ``-1 / sqrt(fan_in)`` and ``1 / sqrt(fan_in)``.
    seed : int, optional
        Determines the parameters. PyTorch's global random state is neither used nor changed.
    dtype : torch.dtype, optional
        Floating-point type of the parameters.

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
    >>> from revlib.models import mlp
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
        if init == "pytorch":
            bound = 1 / math.sqrt(fan_in)
            nn.init.uniform_(linear.weight, -bound, bound, generator=generator)
            nn.init.uniform_(linear.bias, -bound, bound, generator=generator)
        else:
            nn.init.normal_(linear.weight, std=_STD[init](fan_in, fan_out), generator=generator)
            nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
