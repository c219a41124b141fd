"""Small batches as a regulariser, and its average over all orders (Appendix D).

A large batch B is cut into c equal pieces ``B_1, …, B_c``. With ``V_i = -grad L_i`` the gradient
field of a piece, the large step is ``T_large = id + h V_B`` with the learning rate h, and the
small steps are ``T_i = id + h' V_i`` with ``h' = h / c``. To first order all of them together are
the large step, ``h V_B = h' (V_1 + … + V_c)``. To second order they differ by a sum of products
``V_i' V_j``, which for gradient fields are products ``H_i g_j`` of Hessians and gradients.

The module has three parts: the second-order terms for any vector fields (`small_batch_term`,
`order_average_term`); the regulariser as an update term for any torch model (`order_averaging`,
`OrderAveraging`); and the experiment of Section D.2.1, Figures 14 to 19 (`STUDIES`, `shown`).
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from revlib import experiments, provenance, results, studies
from revlib.studies import Shown, Size, Study
from revlib.tasks import Batch, Setting, Task, build

__all__ = [
    "FIGURES",
    "PIECES",
    "STUDIES",
    "WEIGHTS",
    "OrderAveraging",
    "Parameters",
    "Training",
    "at_equal_train_loss",
    "compute",
    "costs_path",
    "critical_curvature",
    "difference",
    "fields",
    "measure_costs",
    "order_average",
    "order_average_term",
    "order_averaging",
    "shown",
    "small_batch_term",
    "small_steps",
    "split",
    "step_costs",
    "trainings",
]

Field = Callable[[torch.Tensor], torch.Tensor]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


# The second-order terms, for vector fields.


def fields(model: nn.Module, loss: Loss, batches: Iterable[Batch]) -> list[Field]:
    """Return the gradient fields ``V_i = -grad L_i`` of a model, as functions of a flat vector.

    Parameters
    ----------
    model : torch.nn.Module
        Any module; it is not changed. The vector holds its parameters in the order of
        `torch.nn.utils.parameters_to_vector`; buffers stay as they are.
    loss : callable
        ``loss(model(inputs), targets)``, the mean over the examples.
    batches : iterable of (inputs, targets)
        One field for each.

    Returns
    -------
    list of callable
        Each takes a tensor of shape (P,), P the number of parameters, and returns one. They can
        be differentiated with `torch.func`.
    """
    names = [name for name, _ in model.named_parameters()]
    shapes = [parameter.shape for parameter in model.parameters()]

    def loss_at(theta: torch.Tensor, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        parts = theta.split([shape.numel() for shape in shapes])
        values = (part.view(shape) for part, shape in zip(parts, shapes, strict=True))
        parameters = dict(zip(names, values, strict=True))
        return loss(torch.func.functional_call(model, parameters, (inputs,)), targets)

    gradient = torch.func.grad(loss_at)
    return [lambda theta, b=batch: -gradient(theta, *b) for batch in batches]


def small_batch_term(fields: Sequence[Field], theta: torch.Tensor) -> torch.Tensor:
    """Return ``sum_{i > j} V_i'(theta) V_j(theta)``, what small batches add to a large one.

    ``T_c … T_1 = T_large + h'^2 sum_{i > j} V_i' V_j + O(h'^3)``: each field is changed by all
    that were applied before it (Section D.1, where the sum is printed with i < j).

    Parameters
    ----------
    fields : sequence of callable
        ``V_1, …, V_c`` in the order in which the steps are taken.
    theta : torch.Tensor
        The point, shape (P,).

    Returns
    -------
    torch.Tensor
        Shape (P,), at the cost of c Jacobian-vector products; no Jacobian is formed.
    """
    before, term = torch.zeros_like(theta), torch.zeros_like(theta)
    for field in fields:
        value, derivative = torch.autograd.functional.jvp(field, theta, before)
        term = term + derivative
        before = before + value
    return term


def order_average_term(fields: Sequence[Field], theta: torch.Tensor) -> torch.Tensor:
    """Return ``sum_{i != j} V_i'(theta) V_j(theta)``, twice what the average over orders adds.

    ``T_perm = T_large + h'^2 / 2 sum_{i != j} V_i' V_j + O(h'^3)`` (Section D.2). The sum is
    `small_batch_term` for the fields in their order plus that for the reverse order.
    """
    return small_batch_term(fields, theta) + small_batch_term(fields[::-1], theta)


def order_average(fields: Sequence[Field], theta: torch.Tensor, rate: float) -> torch.Tensor:
    """Return ``T_perm(theta)``: the mean of the ends that all c! orders reach (equation 9).

    Parameters
    ----------
    fields : sequence of callable
        ``V_1, …, V_c``. The cost is c · c! evaluations: for checks with few fields.
    theta : torch.Tensor
        The start, shape (P,).
    rate : float
        Learning rate h' of the small steps.
    """
    ends = []
    for order in itertools.permutations(fields):
        end = theta
        for field in order:
            end = end + rate * field(end)
        ends.append(end)
    return torch.stack(ends).mean(0)


def critical_curvature(h: float, c: int, weight: float) -> float:
    """Return the curvature from which on the regulariser outweighs the step, ``h/(λ c (c - 1))``.

    Where all pieces have the same gradient g and Hessian H, the regularised step is
    ``-(h - λ c (c - 1) H) g``: along a direction of larger curvature it climbs the loss.

    Parameters
    ----------
    h : float
        Learning rate of the large step.
    c : int
        Number of pieces, 2 or more.
    weight : float
        The regulariser's weight λ, more than 0.
    """
    return h / (weight * c * (c - 1))


# The regulariser as an update term for any torch model.


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
    losses : sequence of torch.Tensor
        The losses of the pieces, scalars with their graph: ``loss(model(x), y)``. For a single
        one the regulariser is zero.
    parameters : sequence of torch.Tensor
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
    model : torch.nn.Module
        Any module; its parameters are updated in place.
    loss : callable
        ``loss(model(inputs), targets)``, the mean over the examples.
    c : int
        Into how many pieces a batch is cut. With 1 there is nothing to average: the regulariser
        is zero, and the step is the plain one.
    h : float
        Learning rate of the large step.
    weight : float
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
    >>> from revlib.regularizers import OrderAveraging
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
    return torch.cat([tensor.flatten() for tensor in tensors])


def small_steps(model: nn.Module, loss: Loss, batch: Batch, c: int, h: float) -> None:
    """Take c plain steps in place, one on each piece of a batch, with ``h' = h / c`` (D.1)."""
    step = OrderAveraging(model, loss, 1, h / c, 0)
    for piece in split(batch, c):
        step(piece)


# The experiment of Section D.2.1.

FIGURES = {2: "figure-14", 3: "figure-16", 4: "figure-18"}
"""The paper's c and the figure of its training loss; the next figure shows the test loss."""

PIECES = tuple(FIGURES)

WEIGHTS = {"λ = 0.5h²": 0.5, "λ = h²": 1.0, "λ = 2h²": 2.0, "λ = 4h²": 4.0}
"""The paper's λ, in units of h², by the name of the training with it."""


@dataclass(frozen=True)
class Training:
    """One way of training on large batches.

    Parameters
    ----------
    name : str
        How it is called in tables and figures.
    rate : float
        Learning rate of a large step, in units of h.
    weight : float
        The regulariser's weight λ, in units of h².
    small : bool
        Whether to take a small step on each piece instead of one large step.
    """

    name: str
    rate: float = 1.0
    weight: float = 0.0
    small: bool = False


def trainings(c: int) -> list[Training]:
    """Return the trainings that are compared for a number of pieces.

    Beside the paper's own (large and small batch at h', four λ): the large batch at h, which is
    the step that the regulariser is added to; the λ of the true order average; the opposite sign;
    and the smallest λ added to the large batch at h' instead.
    """
    return [
        Training("large batch, h/c", rate=1 / c),
        Training("large batch, h"),
        Training("small batches, h/c", small=True),
        Training("order average", weight=1 / (2 * c**2)),
        *(Training(name, weight=weight) for name, weight in WEIGHTS.items()),
        Training("λ = -h²", weight=-1.0),
        Training("λ = 0.5h², h/c", rate=1 / c, weight=0.5),
    ]


@dataclass(frozen=True)
class Parameters:
    """What the numbers of one figure depend on.

    Parameters
    ----------
    setting : revlib.tasks.Setting
        What is trained. Its batch size is rounded up to a multiple of c, its learning rate is h.
    c : int
        Number of pieces.
    every : int
        After how many large batches the losses are evaluated.
    steps : int
        How many large batches are taken.
    """

    setting: Setting
    c: int
    every: int
    steps: int


def compute(parameters: Parameters, seed: int, training: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of one training: losses and accuracies along it.

    Parameters
    ----------
    parameters : Parameters
        What is trained.
    seed : int
        Start point and batches.
    training : str
        The name of one of `trainings`.

    Yields
    ------
    dict
        ``step``, ``train_loss``, ``test_loss``, ``train_accuracy``, ``test_accuracy``, and of the
        step last taken the regulariser's ``ratio`` and ``cosine`` (see `OrderAveraging`). A
        training whose loss is not finite ends there.
    """
    c, h = parameters.c, parameters.setting.learning_rate
    chosen = next(each for each in trainings(c) if each.name == training)
    task = _task(parameters.setting, c, seed)
    model, loss = copy.deepcopy(task.model).train(), task.loss
    with warnings.catch_warnings():  # the chapter says what ReLU means here
        warnings.simplefilter("ignore", UserWarning)
        step = OrderAveraging(model, loss, c, chosen.rate * h, chosen.weight * h**2)
    for n in range(parameters.steps + 1):
        if n and chosen.small:
            small_steps(model, loss, task.batch(n), c, chosen.rate * h)
        elif n:
            step(task.batch(n))
        if n % parameters.every == 0:
            measured = task.evaluate(model) | {"ratio": step.ratio, "cosine": step.cosine}
            yield {"step": n} | measured
            if not np.isfinite(measured["train_loss"]):
                return


def _task(setting: Setting, c: int, seed: int) -> Task:
    return build(setting.changed(batch_size=-(-setting.batch_size // c) * c), seed)


def _size(
    preset: str, c: int, batch_size: int, examples: int, h: float, steps: int, every: int, seeds
) -> Size:
    """Return a size of the experiment: the setting of Figure 7 with other batches."""
    setting = experiments.get("figure-7").preset(preset).setting
    setting = setting.changed(batch_size=batch_size, learning_rate=h, train_examples=examples)
    return Size(
        Parameters(setting.changed(test_examples=examples), c, every, steps),
        seeds,
        tuple(each.name for each in trainings(c)),
        tuple(range(0, steps + 1, every)),
    )


def _figure(c: int) -> Study:
    """Return the study of one number of pieces."""
    return Study(
        name=FIGURES[c],
        title=f"MLP on Fashion-MNIST with the order-averaging regulariser, c = {c}",
        section="D.2.1",
        chapter="d-2-order-averaging",
        presets={
            "paper": _size("paper", c, 2048, 2000, 0.001, steps=30, every=3, seeds=(0, 1, 2)),
            "ci": _size("ci", c, 120, 300, 0.005, steps=8, every=2, seeds=(0, 1)),
        },
        compute=compute,
        code=(
            *("models", "tasks"),
            *(split, order_averaging, OrderAveraging, small_steps, trainings, compute, _task),
        ),
        data="fashion_mnist",
    )


STUDIES = tuple(map(_figure, PIECES))
"""The experiment as studies, one for each number of pieces (:mod:`revlib.studies`)."""


def shown(preset: str) -> Shown:
    """Return what the chapter shows: the figures together, with a column ``c``.

    Where one of them has nothing stored that holds today, all of them are shown at ``ci``, and
    the note says so.
    """
    found = {c: studies.shown(name, preset) for c, name in FIGURES.items()}
    if len({each.preset for each in found.values()}) > 1:
        return shown("ci")
    first = found[PIECES[0]]
    table = pd.concat([each.table.assign(c=c) for c, each in found.items()], ignore_index=True)
    return dataclasses.replace(first, table=table)


def difference(table: pd.DataFrame, quantity: str, training: str, against: str) -> pd.DataFrame:
    """Return by how much a quantity ends higher in one training than in another, seed by seed.

    Parameters
    ----------
    table : pandas.DataFrame
        As `shown` returns it.
    quantity : str
        A column of it, ``"test_loss"`` say.
    training, against : str
        Names of trainings: the difference is that of the first minus the second, at the last step
        of each seed. A training that was lost (a loss that is not finite) ends at infinity.

    Returns
    -------
    pandas.DataFrame
        One row for each c: ``mean`` and ``spread`` (standard deviation over the seeds) of the
        differences, ``seeds`` and in how many of them it is ``lower``; ``less`` tells whether the
        mean is below zero by more than the spread.
    """
    last = table["step"].max()
    ends = table[table["step"] == last].pivot(index=["c", "seed"], columns="order", values=quantity)
    seeds = table[["c", "seed"]].drop_duplicates().sort_values(["c", "seed"])
    ends = ends.reindex(pd.MultiIndex.from_frame(seeds), columns=[training, against])
    ends = ends.where(np.isfinite(ends), np.inf)
    with np.errstate(invalid="ignore"):  # both lost: no difference can be told
        grouped = (ends[training] - ends[against]).groupby("c")
        found = pd.DataFrame({"mean": grouped.mean(skipna=False), "spread": grouped.std()})
    found["seeds"], found["lower"] = grouped.size(), grouped.agg(lambda d: int((d < 0).sum()))
    found["less"] = found["mean"] < -found["spread"].fillna(0)  # infinite means have no spread
    return found


def at_equal_train_loss(table: pd.DataFrame, training: str, against: str) -> pd.DataFrame:
    """Return how much higher the test loss of one training is than another's, at equal train loss.

    Along each curve the test loss is interpolated, as a function of the training loss, at the
    lowest level that both curves of a seed reach: however fast each of the two got there, they
    are compared at equal progress.

    Parameters
    ----------
    table, training, against
        As for `difference`.

    Returns
    -------
    pandas.DataFrame
        One row for each c: ``mean`` and ``spread`` over the seeds. Not a number where one of the
        two does not get below its start.
    """
    found = []
    for (c, seed), own in table.groupby(["c", "seed"]):
        curves = [
            own[own["order"] == name].sort_values("step")[["train_loss", "test_loss"]].to_numpy()
            for name in (training, against)
        ]
        level = max(np.nanmin(curve[:, 0]) for curve in curves)
        tests = [_test_loss_at(level, curve) for curve in curves]
        found.append({"c": c, "seed": seed, "difference": tests[0] - tests[1]})
    grouped = pd.DataFrame(found).groupby("c")["difference"]
    return pd.DataFrame({"mean": grouped.mean(), "spread": grouped.std()})


def _test_loss_at(level: float, curve: np.ndarray) -> float:
    """Return the test loss where the training loss first falls to a level."""
    train, test = curve.T
    i = int(np.argmax(train <= level))
    if i == 0:
        return np.nan
    part = (train[i - 1] - level) / (train[i - 1] - train[i])
    return test[i - 1] + part * (test[i] - test[i - 1])


def step_costs(preset: str = "paper", turns: int = 7) -> pd.DataFrame:
    """Measure what a regularised step costs, in plain steps on the same batch.

    The two take turns, so that a load on the machine hits both; the median of the paired ratios
    is returned. One thread.

    Returns
    -------
    pandas.DataFrame
        Columns ``c``, ``regularised`` and ``small`` (the c small steps), in plain steps.
    """
    found = []
    for study in STUDIES:
        size = study.preset(preset).parameters
        c, h, task = size.c, size.setting.learning_rate, _task(size.setting, size.c, seed=0)
        model, loss, batch = copy.deepcopy(task.model), task.loss, task.batch(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            # The small weight costs what any does, and lets the model stay what it is.
            steps = [OrderAveraging(model, loss, c, h, weight * h**2 / 100) for weight in (0, 1)]
        actions = [*steps, lambda b, m=model, f=loss, c=c, h=h: small_steps(m, f, b, c, h)]
        seconds = np.array([[_seconds(action, batch) for action in actions] for _ in range(turns)])
        regularised, small = np.median(seconds[:, 1:] / seconds[:, :1], axis=0)
        found.append({"c": c, "regularised": float(regularised), "small": float(small)})
    return pd.DataFrame(found)


def _seconds(action: Callable[[Batch], None], batch: Batch) -> float:
    start = time.perf_counter()
    action(batch)
    return time.perf_counter() - start


def costs_path() -> Path:
    """Where the measured costs of a step are kept."""
    return results.root() / "figure-14" / "costs.json"


def measure_costs() -> None:
    """Measure the costs of a step at the paper's size, and store them with their provenance."""
    stored = {"environment": provenance.environment(), "costs": step_costs().to_dict("records")}
    costs_path().parent.mkdir(parents=True, exist_ok=True)
    costs_path().write_text(json.dumps(stored, indent=1) + "\n")
