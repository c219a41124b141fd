"""Small batches as a regulariser, and its average over all orders, for vector fields (Appendix D).

A large batch B is cut into c equal pieces ``B_1, …, B_c``. With ``V_i = -grad L_i`` the gradient
field of a piece, the large step is ``T_large = id + h V_B`` with the learning rate h, and the
small steps are ``T_i = id + h' V_i`` with ``h' = h / c``. To first order all of them together are
the large step, ``h V_B = h' (V_1 + … + V_c)``. To second order they differ by a sum of products
``V_i' V_j``, which for gradient fields are products ``H_i g_j`` of Hessians and gradients.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from revlib.theory import modified_loss
from revlib.theory.expansions import LossField, VectorField, expand
from revlib.training.tasks import Batch, Loss


def fields(model: nn.Module, loss: Loss, batches: Iterable[Batch]) -> list[LossField]:
    """Return the gradient fields ``V_i = -grad L_i`` of a model on some batches."""
    return [LossField(model, loss, batch) for batch in batches]


def small_batch_term(fields: Sequence[VectorField], theta: torch.Tensor) -> torch.Tensor:
    """Return ``sum_{i > j} V_i'(theta) V_j(theta)``, what small batches add to a large one.

    ``T_c … T_1 = T_large + h'^2 sum_{i > j} V_i' V_j + O(h'^3)``: each field is changed by all
    that were applied before it (Section D.1, where the sum is printed with i < j). Shape (P,), at
    the cost of c Jacobian-vector products; the fields ``V_1, …, V_c`` are in the order in which the
    steps are taken.

    It is the second coefficient of :func:`revlib.theory.expansions.expand`.
    """
    return expand(fields, theta, 2)[1]


def order_average_term(fields: Sequence[VectorField], theta: torch.Tensor) -> torch.Tensor:
    """Return ``sum_{i != j} V_i'(theta) V_j(theta)``, twice what the average over orders adds.

    ``T_perm = T_large + h'^2 / 2 sum_{i != j} V_i' V_j + O(h'^3)`` (Section D.2). The sum is
    `small_batch_term` for the fields in their order plus that for the reverse order.
    """
    return small_batch_term(fields, theta) + small_batch_term(fields[::-1], theta)


def order_average(fields: Sequence[VectorField], theta: torch.Tensor, rate: float) -> torch.Tensor:
    """Return ``T_perm(theta)``: the mean of the ends that all c! orders reach (equation 9).

    From theta, shape (P,), by small steps of the learning rate h'. The cost is c · c! evaluations:
    for checks with few fields.
    """
    return modified_loss.ends(itertools.permutations(fields), theta, rate).mean(0)


def critical_curvature(h: float, c: int, weight: float) -> float:
    """Return the curvature from which on the regulariser outweighs the step, ``h/(λ c (c - 1))``.

    Where all pieces have the same gradient g and Hessian H, the regularised step is
    ``-(h - λ c (c - 1) H) g``: along a direction of larger curvature it climbs the loss. There are
    c pieces, 2 or more; the weight λ is more than 0, and h is the learning rate of the large step.
    """
    return h / (weight * c * (c - 1))
