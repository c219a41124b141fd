"""revlib: orders of iteration for training runs, exact and honestly evaluated.

The companion library of "Training in reverse" (Dherin et al., 2025, arXiv:2502.01557). Five lines
train a model in reverse::

    from functools import partial
    import torch, revlib
    sgd = partial(torch.optim.SGD, lr=0.1)
    task = revlib.Task(model, loss, loader, sgd, evaluation={"test": (inputs, targets)})
    curve = revlib.trajectory(task, revlib.backward(), steps=100, record=range(0, 101, 10))
"""

import importlib
from typing import TYPE_CHECKING, Any

from revlib.iterates import iterates
from revlib.orders import Order, backward, forward, reset, switch, tail, windowed

if TYPE_CHECKING:
    from revlib.theory.samples import sample
    from revlib.training.sweep import trajectory
    from revlib.training.tasks import Task

# What needs PyTorch or SciPy, seconds to import, is imported when it is first used.
_LATER = {
    "sample": "revlib.theory.samples",
    "trajectory": "revlib.training.sweep",
    "Task": "revlib.training.tasks",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'revlib' has no attribute '{name}'")
    return getattr(importlib.import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
