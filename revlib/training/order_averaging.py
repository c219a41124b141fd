"""The order-averaging regulariser of Appendix D, as an update term for any torch model.

What it is, is told in :mod:`revlib.theory.order_averaging`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from revlib.training.tasks import Batch, Loss


def split(batch: Batch, c: int) -> list[Batch]:
    """Cut a batch into c pieces of equal size, in the order of its examples.

    Raises
    ------
    ValueError
        If c is not a whole number of 1 or more, or does not divide the number of examples.
    """
    _check_pieces(c)
    inputs, targets = batch
    if len(inputs) % c:
        below = len(inputs) // c * c
        raise ValueError(
            f"A batch of {len(inputs)} examples cannot be cut into {c} equal pieces. Take a batch "
            f"of {below + c} (as the paper does, with 2049 for c = 3) or of {below}."
            if below
            else f"A batch of {len(inputs)} examples cannot be cut into {c} equal pieces: take at "
            f"least {c}."
        )
    return list(zip(inputs.chunk(c), targets.chunk(c), strict=True))


def _check_pieces(c: int) -> None:
    if not isinstance(c, int) or c < 1:
        raise ValueError(f"A batch is cut into a whole number of pieces, 1 or more; got c = {c!r}.")


def order_averaging(
    losses: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return ``sum_i V_i`` and the regulariser ``sum_{i != j} V_i' V_j``, by one double backward.

    The regulariser is a gradient: ``sum_{i != j} H_i g_j`` is that of
    ``(‖sum_i g_i‖² - sum_i ‖g_i‖²) / 2``, the inner products of the gradients of different
    pieces. So one backward pass through that number gives it, for any model and any c, and no
    Hessian is formed.

    Parameters
    ----------
    losses
        The losses of the pieces, scalars with their graph: ``loss(model(x), y)``. For a single
        one the regulariser is zero.
    parameters
        What is trained.

    Returns
    -------
    step, term : list of torch.Tensor
        Shaped like the parameters. The update is ``h' step + λ term``.
    """
    gradients = [
        torch.autograd.grad(loss, parameters, create_graph=len(losses) > 1, materialize_grads=True)
        for loss in losses
    ]
    total = [sum(parts) for parts in zip(*gradients, strict=True)]
    alignment = _square(total) - sum(map(_square, gradients))
    if alignment.requires_grad:
        term = torch.autograd.grad(alignment / 2, parameters, materialize_grads=True)
    else:  # a single piece, or losses that are linear in the parameters
        term = [torch.zeros_like(parameter) for parameter in parameters]
    return [-gradient.detach() for gradient in total], list(term)


def _square(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    return sum(tensor.square().sum() for tensor in tensors)


_PIECEWISE_LINEAR = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ReLU6, nn.Hardtanh)


class OrderAveraging:
    """Training steps ``T_large + λ sum_{i != j} V_i' V_j`` of a torch model (Section D.2).

    Parameters
    ----------
    model
        Any module; its parameters are updated in place.
    loss
        ``loss(model(inputs), targets)``, the mean over the examples.
    c
        Into how many pieces a batch is cut. With 1 there is nothing to average: the regulariser
        is zero, and the step is the plain one.
    h
        Learning rate of the large step.
    weight
        The regulariser's weight λ. The average over all orders is ``h'^2 / 2 = h² / (2c²)``; with
        0 the step is the plain one, at its cost.

    Raises
    ------
    ValueError
        If c is not a whole number of 1 or more; later, if it does not divide a batch.

    Warns
    -----
    UserWarning
        If the model has modules that are piecewise linear (ReLU), whose bends no derivative sees.

    Examples
    --------
    >>> import torch
    >>> from revlib.training.order_averaging import OrderAveraging
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    >>> step = OrderAveraging(model, torch.nn.functional.mse_loss, c=2, h=0.1, weight=0.1**2 / 8)
    >>> step((torch.randn(6, 2), torch.randn(6, 1)))
    """

    def __init__(self, model: nn.Module, loss: Loss, c: int, h: float, weight: float):
        _check_pieces(c)
        if weight and c > 1 and any(isinstance(m, _PIECEWISE_LINEAR) for m in model.modules()):
            warnings.warn(
                "The model has piecewise linear units such as ReLU. Their second derivative is "
                "zero almost everywhere, so the regulariser does not see their bends: it keeps "
                "the curvature of the loss and the products between layers, and agrees with the "
                "average over orders only as long as no unit switches within a step.",
                stacklevel=2,
            )
        self.model, self.loss, self.c, self.h, self.weight = model, loss, c, h, weight
        self.ratio = self.cosine = 0.0

    def __call__(self, batch: Batch) -> None:
        """Take one step.

        Afterwards `ratio` is the length of the regulariser's part of the update as a multiple of
        that of the plain part, and `cosine` that of the angle between the two (both 0 where the
        regulariser is off or zero).
        """
        parameters = list(self.model.parameters())
        c = self.c if self.weight else 1
        losses = [self.loss(self.model(x), y) for x, y in split(batch, c)]
        step, term = order_averaging(losses, parameters)
        with torch.no_grad():
            for parameter, plain, extra in zip(parameters, step, term, strict=True):
                parameter.add_(self.h / c * plain + self.weight * extra)
        if c > 1:
            plain, extra = self.h / c * _flat(step), self.weight * _flat(term)
            self.ratio = (extra.norm() / plain.norm()).item()
            self.cosine = nn.functional.cosine_similarity(plain, extra, dim=0).item()


def _flat(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return all numbers in one row, in double precision: sums over a million are measured."""
    return torch.cat([tensor.flatten() for tensor in tensors]).double()


def small_steps(model: nn.Module, loss: Loss, batch: Batch, c: int, h: float) -> None:
    """Take c plain steps in place, one on each piece of a batch, with ``h' = h / c`` (D.1)."""
    step = OrderAveraging(model, loss, 1, h / c, 0)
    for piece in split(batch, c):
        step(piece)
