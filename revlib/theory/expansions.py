"""Compositions of update maps in powers of the learning rate (Appendix C).

An update map ``T_i = id + h V_i`` has a vector field ``V_i``: any function from a tensor theta to a
tensor of the same shape, differentiable by `torch.func`. For SGD it is minus the gradient of the
loss on batch ``B_i`` (`loss_fields`), and theta is the vector of all trained parameters.

Whatever the order in which n such maps are applied, the result is a power series in h whose
coefficients are derivatives of the fields at the start point alone. The derivatives are taken as
Jacobian-vector products, nested for the higher ones; no Jacobian or Hessian is formed.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp
from torch.nn import functional as F

from revlib.training.tasks import Batch, Task

VectorField = Callable[[Tensor], Tensor]

with warnings.catch_warnings():
    # The first derivative of this kind loads parts of PyTorch that warn of PyTorch's own future.
    warnings.simplefilter("ignore", FutureWarning)
    jvp(torch.sin, (torch.zeros(()),), (torch.ones(()),))


def expand(fields: Iterable[VectorField], theta: Tensor, order: int) -> list[Tensor]:
    """Return the coefficients of a composition of maps ``id + h V`` in powers of h.

    With the fields ``W_1, W_2, …, W_n`` in the order in which they are applied, the maps take theta
    to ``theta + h S + h² Q + h³ R + …``, where each field adds

        S ← S + W,    Q ← Q + W'S,    R ← R + W'Q + ½ W''(S, S),    …

    with the values from before it: the Taylor coefficients of W along the curve
    ``theta + h S + h² Q + …``. The first two are Lemma C.1; the paper stops there.

    Parameters
    ----------
    fields
        The vector fields in the order applied: ``W_1`` first. The backward iterate
        ``T_1 ⋯ T_n (theta)`` needs them reversed.
    theta
        The start point, of floating-point type and any shape.
    order
        How many coefficients, 1 or more. Their error, at fixed fields, is O(h^(order + 1)).

    Returns
    -------
    list of torch.Tensor
        The coefficients of h, h², …, h^order, each of the shape of theta.

    Raises
    ------
    ValueError
        If the order is not a whole number, 1 or more, or a field's value has not theta's shape.

    Notes
    -----
    Each further order triples the work for a field: the derivative of a product consists of two
    further products of the same size. Order 2 costs three times the field itself, order 3 nine
    times. Memory is that of `order` copies of theta, and of one differentiated field at a time.

    Examples
    --------
    Two maps of a number: ``T_1 T_2 (x)`` with ``V_1 = x²`` and ``V_2 = 1``, that is
    ``(x + h) + h (x + h)² = x + h (1 + x²) + 2 h² x + h³``.

    >>> import torch
    >>> from revlib.theory.expansions import expand
    >>> x = torch.tensor(3.0, dtype=torch.float64)
    >>> [float(c) for c in expand([torch.ones_like, torch.square], x, order=4)]
    [10.0, 6.0, 1.0, 0.0]
    """
    if not isinstance(order, int) or order < 1:
        raise ValueError(
            f"The order of an expansion is a whole number, 1 or more; got {order!r}. "
            "Lemma C.1 is order 2."
        )
    coefficients = [torch.zeros_like(theta)] * order
    for one in fields:
        # The last coefficient would enter at a power of h beyond the order.
        def along(h: Tensor, one=one, coefficients=coefficients[:-1]) -> Tensor:
            return one(evaluate(theta, coefficients, h))

        terms = _taylor(along, theta.new_zeros(()), order - 1)
        if terms[0].shape != theta.shape:
            raise ValueError(
                f"A vector field has to return a tensor of theta's shape, {tuple(theta.shape)}; "
                f"this one returned the shape {tuple(terms[0].shape)}."
            )
        coefficients = [c + term for c, term in zip(coefficients, terms, strict=True)]
    return coefficients


def _taylor(function: Callable[[Tensor], Tensor], at: Tensor, degree: int) -> list[Tensor]:
    """Return the Taylor coefficients of a function of one variable, up to a degree."""

    def derivatives(up_to: int) -> Callable[[Tensor], list[Tensor]]:
        if up_to == 0:
            return lambda t: [function(t)]
        lower = derivatives(up_to - 1)

        def one_more(t: Tensor) -> list[Tensor]:
            values, slopes = jvp(lower, (t,), (torch.ones_like(t),))
            return [*values, slopes[-1]]

        return one_more

    return [value / math.factorial(k) for k, value in enumerate(derivatives(degree)(at))]


def evaluate(theta: Tensor, coefficients: Sequence[Tensor], h: float | Tensor) -> Tensor:
    """Return ``theta + h c_1 + h² c_2 + …``."""
    change = torch.zeros_like(theta)
    for coefficient in reversed(coefficients):
        change = h * (coefficient + change)
    return theta + change


def reversal(fields: Sequence[VectorField], theta: Tensor, order: int) -> list[Tensor]:
    """Return what reversing the order of iteration changes, in powers of h.

    The backward iterate ``T_1 ⋯ T_n (theta)`` minus the forward iterate ``T_n ⋯ T_1 (theta)``, as
    the coefficients of h to h^order. Order 1 is zero, order 2 the sum of brackets of Theorem C.2;
    the higher ones are the corrections that the paper hopes for. Added to the exact forward iterate
    by `evaluate` they give the approximate backward iterate (Definition C.3 at order 2). The fields
    are ``V_1`` to ``V_n``; theta and the order are as for `expand`.
    """
    backward = expand(reversed(fields), theta, order)
    forward = expand(fields, theta, order)
    return [b - f for b, f in zip(backward, forward, strict=True)]


def bracket(v: VectorField, w: VectorField, theta: Tensor) -> Tensor:
    """Return ``[v, w] = v' w - w' v`` at theta, with the sign of Theorem C.2.

    For two losses, ``v = -∇L_1`` and ``w = -∇L_2``, it is ``H_1 g_2 - H_2 g_1``. It is minus the
    Lie bracket of textbooks on vector fields.
    """
    return _product(v, theta, w(theta)) - _product(w, theta, v(theta))


def corrections(fields: Iterable[VectorField], theta: Tensor) -> Iterator[Tensor]:
    """Yield the second-order corrections ``C_1, C_2, …`` one by one (Corollary C.4).

    ``C_n = C_{n-1} + sum_{i<n} (V_i' V_n - V_n' V_i)`` at theta, which is
    ``C_{n-1} + H̄_n g_n - H_n ḡ_n`` for SGD. The forward iterate at n plus ``h² C_n`` is the
    backward iterate up to O(h³).

    Step n takes n Jacobian-vector products, one for each field so far: the sum of the earlier
    Jacobians would be a matrix, so it is applied field by field. The fields ``V_1, V_2, …`` are
    kept for that. Theta, the start point, is of floating-point type and any shape, and so is
    ``C_n``.
    """
    correction, total = torch.zeros_like(theta), torch.zeros_like(theta)
    earlier: list[VectorField] = []
    for one in fields:
        value, own = jvp(one, (theta,), (total,))
        correction = correction - own
        for other in earlier:
            correction = correction + _product(other, theta, value)
        yield correction
        total = total + value
        earlier.append(one)


def _product(v: VectorField, theta: Tensor, direction: Tensor) -> Tensor:
    """Return ``v'(theta) direction``."""
    return jvp(v, (theta,), (direction,))[1]


def maps(fields: Iterable[VectorField], h: float) -> list[Callable[[Tensor], Tensor]]:
    """Return the update maps ``theta -> theta + h V(theta)`` of some vector fields."""
    return [lambda theta, one=one: theta + h * one(theta) for one in fields]


def slope(h: ArrayLike, errors: ArrayLike) -> float:
    """Return the power of h with which errors fall: their slope on two logarithmic axes.

    Both are positive numbers, at least two of each.
    """
    h, errors = np.asarray(h, dtype=float), np.asarray(errors, dtype=float)
    return float(np.polyfit(np.log(h), np.log(errors), 1)[0])


@dataclass(frozen=True, eq=False)
class LogCoshField:
    """The vector field ``V = -∇L`` of the loss ``L(theta) = log cosh(a·theta - b)``.

    Smooth to every order and bounded; two of them with different `a` do not commute.

    Parameters
    ----------
    a
        Shape (d,).
    b
        A number.
    """

    a: Tensor
    b: Tensor | float

    def __call__(self, theta: Tensor) -> Tensor:
        """Return ``-a tanh(a·theta - b)`` for theta of shape (d,)."""
        return -self.a * torch.tanh(self.a @ theta - self.b)


@dataclass(frozen=True, eq=False)
class LossField:
    """The vector field ``V = -∇L`` of a model's loss on one batch, on its trained parameters.

    It is computed in the precision of theta, whatever that of the model and the batch.

    Parameters
    ----------
    model
        A module without buffers whose output depends on its parameters and input alone. It is
        not changed.
    loss
        ``loss(model(inputs), targets)``, a scalar tensor.
    batch
        The inputs and targets.

    Raises
    ------
    ValueError
        If the model has buffers.
    """

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    batch: Batch

    def __post_init__(self) -> None:
        """Check the model."""
        buffers = [name for name, _ in self.model.named_buffers()]
        if buffers:
            raise ValueError(
                f"The model has buffers ({', '.join(buffers)}), as batch norm has. A training "
                "step moves them too, and the expansions are of maps of the parameters alone: "
                "use a model without them, with GroupNorm or LayerNorm for example."
            )

    def __call__(self, theta: Tensor) -> Tensor:
        """Return minus the gradient of the loss at theta, as `parameters` orders it."""
        return -grad(self.at)(theta)

    def at(self, theta: Tensor) -> Tensor:
        """Return the loss on the batch at theta, a scalar tensor."""
        trained = _trained(self.model)
        parts = theta.split([p.numel() for _, p in trained])
        values = {n: part.view(p.shape) for part, (n, p) in zip(parts, trained, strict=True)}
        inputs, targets = (x.to(theta) if x.is_floating_point() else x for x in self.batch)
        outputs = functional_call(self.model, values, (inputs,))
        mean = isinstance(self.loss, nn.MSELoss) and self.loss.reduction == "mean"
        if mean or self.loss is F.mse_loss:  # PyTorch's forward mode fails on its gradient
            return ((outputs - targets) ** 2).mean()
        return self.loss(outputs, targets)


def loss_fields(task: Task, steps: int) -> list[LossField]:
    """Return the vector fields ``V_1`` to ``V_steps`` of a task under plain SGD.

    The task's optimizer plays no part: ``T_n = id + h V_n``, with the h that one takes later.

    Raises
    ------
    ValueError
        If there are fewer batches, or the model has buffers.
    """
    task.require(steps)
    return [LossField(task.model, task.loss, task.batch(n)) for n in range(1, steps + 1)]


def parameters(model: nn.Module) -> Tensor:
    """Return a copy of a model's trained parameters as one vector, in double precision."""
    return torch.cat([p.detach().flatten() for _, p in _trained(model)]).double()


def _trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def smoothed(model: nn.Module) -> nn.Module:
    """Return a copy of a model with GELU in the place of every ``nn.ReLU``.

    GELU has the shape of ReLU with its kink rounded off, so that all derivatives exist.
    """
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, nn.GELU())
    return model


def switched(one: LossField, theta: Tensor, other: Tensor) -> tuple[int, int]:
    """Count the ReLU units that are on at one of two points and off at the other.

    Looked at are the model (its ``nn.ReLU`` modules) and the batch of a loss. Returned is how many
    switched, and how many there are; each unit counts once for each example.
    """
    before, after = _pattern(one, theta), _pattern(one, other)
    return int((before != after).sum()), len(before)


def _pattern(one: LossField, theta: Tensor) -> Tensor:
    """Return which ReLU units are on, for all modules and examples."""
    on: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda module, inputs, output: on.append(output > 0))
        for module in one.model.modules()
        if isinstance(module, nn.ReLU)
    ]
    try:
        one.at(theta)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat([units.flatten() for units in on])
