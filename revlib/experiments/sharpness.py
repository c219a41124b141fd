"""How sharp the loss is along the paths of Figures 4 to 7, against the size of the step.

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
    """

    setting: Setting
    steps: tuple[int, ...]
    batches: int


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
        whole = h * largest_curvature(model, task.loss, task.evaluation["train"])
        own = [
            h * largest_curvature(model, task.loss, task.batch(step + ahead))
            for ahead in range(1, parameters.batches + 1)
        ]
        yield {
            "step": step,
            "sharpness": whole,
            "batch_sharpness": float(np.mean(own)),
            "expanding": float(np.mean(np.array(own) > 2)),
        }


def largest_curvature(model: nn.Module, loss: Loss, batch: Batch) -> float:
    """Return the largest eigenvalue of the Hessian of a loss, by Lanczos' method.

    The kinks of ReLU are not seen: the Hessian is that of the piece on which the parameters lie.
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
        operator, 1, which="LA", v0=start.astype(dtype), tol=1e-4, return_eigenvectors=False
    )
    return float(largest)


def _study(figure: int, what: str, paper: tuple[int, ...]) -> Study:
    def size(preset: str, steps: tuple[int, ...], batches: int, seeds) -> Size:
        setting = figures_2_to_11.setting(f"figure-{figure}", preset)
        if setting.train_examples:
            setting = setting.changed(train_examples={"paper": 500, "sample": 100}[preset])
        parameters = Parameters(setting, steps, batches)
        orders = ("forward", "backward")
        return Size(parameters, tuple(seeds), orders, steps[-1], at=steps)

    return Study(
        name=f"sharpness-figure-{figure}",
        title=f"{what}: how sharp the loss is, in the setting of Figure {figure}",
        section="2.5",
        chapter="contraction-and-calm",
        sizes={
            "sample": size("sample", (20, 60), 3, range(2)),
            "paper": size("paper", paper, 50, range(5)),
        },
        method=Whole(sharpness),
        quantities={
            "sharpness": "h times the largest curvature of the training loss",
            "batch_sharpness": "the same on a batch",
            "expanding": "share of batches of which it is above 2",
        },
    )


_REGRESSION = (350, 700, 1400)

STUDIES = (
    _study(4, "MLP learning x²", _REGRESSION),
    _study(5, "MLP learning cos(10x)", _REGRESSION),
    _study(6, "MLP learning x³", _REGRESSION),
    _study(7, "MLP on Fashion-MNIST", (500, 1000, 2000)),
)
"""The studies of sharpness."""
