"""What a step with the order-averaging regulariser costs, in plain steps, on this machine."""

from __future__ import annotations

import copy
import warnings
from functools import partial
from pathlib import Path
from timeit import timeit

import numpy as np
import pandas as pd

from revlib.experiments.figures_14_to_19 import STUDIES, large_batches
from revlib.store import provenance, results
from revlib.training.order_averaging import OrderAveraging, small_steps


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
        size = study.size(preset).parameters
        c, h, task = size.c, size.setting.learning_rate, large_batches(size.setting, size.c, seed=0)
        model, loss, batch = copy.deepcopy(task.model), task.loss, task.batch(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            # The small weight costs what any does, and lets the model stay what it is.
            steps = [OrderAveraging(model, loss, c, h, weight * h**2 / 100) for weight in (0, 1)]
        actions = [partial(step, batch) for step in steps]
        actions.append(partial(small_steps, model, loss, batch, c, h))
        seconds = np.array([[timeit(a, number=1) for a in actions] for _ in range(turns)])
        regularised, small = np.median(seconds[:, 1:] / seconds[:, :1], axis=0)
        found.append({"c": c, "regularised": float(regularised), "small": float(small)})
    return pd.DataFrame(found)


def costs_path() -> Path:
    """Where the measured costs of a step are kept."""
    return results.root() / "figure-14" / "costs.json"


def measure_costs() -> None:
    """Measure the costs of a step at the paper's size, and store them with their provenance."""
    found = {"environment": provenance.environment(), "costs": step_costs().to_dict("records")}
    results.write(costs_path(), found)
