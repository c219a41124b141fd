"""How sharp the loss is along the paths of Figures 2 and 4 to 8, against the size of the step.

In a direction of curvature λ, a gradient step multiplies distances by ``|1 - hλ|``. So no step
contracts where the largest curvature of the loss *on its batch* is above 2/h; and where that of the
whole training loss is, gradient descent on it would be unstable, too (Cohen et al., 2021).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch
from torch import nn

from revlib.experiments import figures_2_to_11
from revlib.experiments.study import Size, Study, Whole
from revlib.orders import named
from revlib.training import sweep
from revlib.training.evaluation import Loss
from revlib.training.settings import Setting, build
from revlib.training.tasks import Batch


@dataclass(frozen=True)
class Parameters:
    """What the numbers of one study depend on.

    Parameters
    ----------
    setting
        What is trained, and on which examples the whole training loss is taken.
    steps
        At which iterates.
    batches
        Of how many batches, those that come next in the stream.
    tolerance
        The relative residual at which Lanczos' method stops. The error of a curvature is far
        smaller: it goes with the square.
    """

    setting: Setting
    steps: tuple[int, ...]
    batches: int
    tolerance: float


def sharpness(parameters: Parameters, seed: int, case: str) -> Iterator[dict[str, Any]]:
    """Yield how sharp the loss is at iterates of an order, in units of 1/h.

    Yields
    ------
    dict
        ``step``; ``sharpness``, h times the largest curvature of the training loss; and
        ``batch_sharpness``, the mean of the same over batches, each with its own loss, and
        ``expanding``, the share of them of which it is above 2.
    """
    task, h = build(parameters.setting, seed), parameters.setting.learning_rate
    for step, model in sweep.models(task, named(case), parameters.steps):
        whole, *own = (
            h * largest_curvature(model, task.loss, batch, parameters.tolerance)
            for batch in (
                task.evaluation["train"],
                *(task.batch(step + ahead) for ahead in range(1, parameters.batches + 1)),
            )
        )
        yield {
            "step": step,
            "sharpness": whole,
            "batch_sharpness": float(np.mean(own)),
            "expanding": float(np.mean(np.array(own) > 2)),
        }


def largest_curvature(model: nn.Module, loss: Loss, batch: Batch, tolerance: float) -> float:
    """Return the largest eigenvalue of the Hessian of a loss, by Lanczos' method.

    The kinks of ReLU are not seen: the Hessian is that of the piece on which the parameters lie.
    Batch normalisation takes the means of this batch, as it does in a step.
    """
    parameters = list(model.parameters())
    inputs, targets = batch
    gradients = torch.autograd.grad(loss(model(inputs), targets), parameters, create_graph=True)
    gradient = torch.cat([part.flatten() for part in gradients])
    if not gradient.isfinite().all():
        return np.nan

    def product(vector: np.ndarray) -> np.ndarray:
        along = torch.from_numpy(vector.ravel()).to(gradient)
        parts = torch.autograd.grad(gradient, parameters, along, retain_graph=True)
        return torch.cat([part.flatten() for part in parts]).numpy()

    start = np.random.default_rng(0).standard_normal(len(gradient))
    dtype = gradient.detach().numpy().dtype
    operator = scipy.sparse.linalg.LinearOperator(2 * (len(start),), product, dtype=dtype)
    [largest] = scipy.sparse.linalg.eigsh(
        operator, 1, which="LA", v0=start.astype(dtype), tol=tolerance, return_eigenvectors=False
    )
    return float(largest)


def _study(figure: int, what: str, sample: Size, paper: Size) -> Study:
    return Study(
        name=f"sharpness-figure-{figure}",
        title=f"{what}: how sharp the loss is, in the setting of Figure {figure}",
        section="2.5",
        chapter="contraction-and-calm",
        sizes={"sample": sample, "paper": paper},
        method=Whole(sharpness),
        quantities={
            "sharpness": "h times the largest curvature of the training loss",
            "batch_sharpness": "the same on a batch",
            "expanding": "share of batches of which it is above 2",
        },
    )


def _size(
    setting: Setting,
    seeds: range,
    steps: tuple[int, ...],
    batches: int,
    tolerance: float = 1e-4,
    orders: tuple[str, ...] = ("forward", "backward"),
) -> Size:
    parameters = Parameters(setting, steps, batches, tolerance)
    return Size(parameters, tuple(seeds), orders, steps[-1], at=steps)


def _mlp(figure: int, what: str, steps: tuple[int, ...]) -> Study:
    sample, paper = (
        setting.changed(train_examples=examples) if setting.train_examples else setting
        for preset, examples in (("sample", 100), ("paper", 500))
        for setting in [figures_2_to_11.setting(f"figure-{figure}", preset)]
    )
    return _study(
        figure, what, _size(sample, range(2), (20, 60), 3), _size(paper, range(5), steps, 50)
    )


def _convolutional(figure: int, what: str, **paper: Any) -> Study:
    """Return the study of a large network, of which a curvature takes a minute or two."""
    sample = figures_2_to_11.setting(f"figure-{figure}", "sample")
    return _study(
        figure,
        what,
        _size(sample, range(1), (2,), 1, 1e-2, ("forward",)),
        _size(seeds=range(3), tolerance=1e-2, **paper),
    )


_REGRESSION = (350, 700, 1400)

STUDIES = (
    _convolutional(
        2,
        "ResNet-18 on CIFAR-10",
        setting=figures_2_to_11.setting("figure-2", "paper"),
        steps=(500, 1000, 2000),
        batches=8,
    ),
    _mlp(4, "MLP learning x²", _REGRESSION),
    _mlp(5, "MLP learning cos(10x)", _REGRESSION),
    _mlp(6, "MLP learning x³", _REGRESSION),
    _mlp(7, "MLP on Fashion-MNIST", (500, 1000, 2000)),
    _convolutional(
        8,
        "VGG-19 on CIFAR-10",
        setting=figures_2_to_11.setting("figure-8", "paper").changed(train_examples=100),
        steps=(500, 1000),
        batches=4,
    ),
)
"""The studies of sharpness."""
