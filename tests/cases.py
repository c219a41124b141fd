"""What several test files share: orders, a network with all that a state can hold, the oracle."""

from functools import partial

import pandas as pd
import torch
from hypothesis import strategies as st
from torch import nn

from revlib import Order, backward, forward, iterates, reset, switch, tail, windowed
from revlib.training.maps import Trainer, TrainingStep

some_step = st.integers(1, 60)

any_order = st.one_of(
    st.just(forward()),
    st.just(backward()),
    st.builds(windowed, some_step),
    st.lists(some_step, max_size=4).map(lambda at: reset(*at)),
    st.builds(switch, some_step),
    st.builds(tail, some_step),
)

ORDERS = [
    forward(),
    backward(),
    windowed(3),
    reset(4, 6),
    switch(5),
    tail(3),
    tail(1),
    # Backward, with a reset at each power of two.
    Order(
        "doubling",
        lambda n: [range(min(2**k, n), 2**k // 2, -1) for k in range(n.bit_length() + 1)],
    ),
    Order(
        "not monotone",
        lambda n: [range(2, 0, -1), range(n, 2, -1)] if n % 2 and n > 2 else [range(n, 0, -1)],
    ),
    Order("letters", lambda n: [*range(n, 0, -2), *range(n - 1, 0, -2)]),
    Order("without 2", lambda n: [n, 1] if n > 2 else [1], permutation=False),
]

OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.1),
    "momentum": partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": partial(torch.optim.Adam, lr=0.05),
    "adagrad": partial(torch.optim.Adagrad, lr=0.1),
}


class Unsaved(nn.Module):
    """A module whose buffer is not part of its state dict, and changes while it trains."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64), persistent=False)

    def forward(self, x):
        self.calls += self.training
        return x * (1 + 0.1 * self.calls)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), Unsaved(), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 3)
    ).double()


def defined(problem, order, steps, record=None):
    """The table of a trajectory, straight from the definition."""
    trainer = Trainer(problem)
    maps = [TrainingStep(trainer, n) for n in range(1, steps + 1)]
    rows = []
    for n, state in iterates(maps, trainer.state(), order, record):
        evaluated = Trainer(problem)
        evaluated.load(state)
        last = order.applied(n)[-1] if n else None
        measured = problem.evaluate(evaluated.model(), last)
        rows.append({"seed": problem.seed, "order": order.name, "step": n, **measured})
    return pd.DataFrame(rows)
