"""revlib: orders of iteration for training runs, exact and honestly evaluated.

The companion library of "Training in reverse" (Dherin et al., 2025, arXiv:2502.01557). Five lines
train a model in reverse::

    from functools import partial
    import torch, revlib
    sgd = partial(torch.optim.SGD, lr=0.1)
    task = revlib.Task(model, loss, loader, sgd, evaluation={"test": (inputs, targets)})
    curve = revlib.trajectory(task, revlib.backward(), steps=100, record=range(0, 101, 10))
"""

from revlib.iterates import iterates
from revlib.orders import Order, backward, forward, reset, switch, tail, windowed
from revlib.theory.samples import sample
from revlib.training.sweep import trajectory
from revlib.training.tasks import Task
