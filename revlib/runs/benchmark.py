"""How fast a backward run is here, against the plain loop and against what the machine allows.

The plain loop is what one writes from the paper's Figure 1: an ``nn.Module``, ``torch.optim.SGD``,
all batches so far again from the start, with all cores. It and our engine take turns in the same
process, several times, and each turn of the one is divided by the turn of the other beside it:
such a ratio holds although the speed of a machine drifts.
"""

from __future__ import annotations

import copy
import functools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from timeit import timeit
from typing import Any

import joblib
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from revlib import orders
from revlib.store import provenance, results
from revlib.training import convolutions, dense, models, sweep
from revlib.training.tasks import Task

TURNS = 5

GROWTH_STEPS = (100, 200, 400, 800)

LARGE = 1024  # rows and columns of a matrix whose products are at the processor's rate

LEARNING_RATE = 1e-3  # small: nothing may overflow, since inf and nan are slow on some processors


@dataclass(frozen=True)
class Workload:
    """A task of random data, and how much of it is timed; also its source for workers.

    Parameters
    ----------
    name
        What is shown.
    model
        ``"mlp"`` or a network of :func:`revlib.training.models.convolutional`.
    widths
        The widths of an MLP, from inputs to outputs.
    classes
        Number of classes, 0 for regression.
    batch_size
        Examples in a batch.
    steps, leaves
        The backward iterates from `steps` down, as many as `leaves`, are computed in a turn.
    plain_leaves
        How many of them the plain loop computes in its turn, since it is slower.
    target
        The ratio that is aimed at, if any.
    stem
        The stem of a ResNet.
    """

    name: str
    model: str
    widths: tuple[int, ...]
    classes: int
    batch_size: int
    steps: int
    leaves: int
    plain_leaves: int
    target: float | None = None
    stem: str | None = None

    def __call__(self) -> Task:
        """Return the task."""
        generator = torch.Generator().manual_seed(0)
        if self.model == "mlp":
            model: nn.Module = models.mlp(self.widths)
            shape: tuple[int, ...] = self.widths[:1]
        else:
            model = models.convolutional(self.model, self.classes, self.stem, "batch")
            shape = (3, 32, 32)

        def batch() -> tuple[torch.Tensor, torch.Tensor]:
            inputs = torch.randn(self.batch_size, *shape, generator=generator)
            if not self.classes:
                return inputs, inputs[:, :1] ** 2
            labels = torch.randint(0, self.classes, (self.batch_size,), generator=generator)
            return inputs, labels

        return Task(
            model,
            F.cross_entropy if self.classes else F.mse_loss,
            [batch() for _ in range(self.steps)],
            functools.partial(torch.optim.SGD, lr=LEARNING_RATE),
            {"test": batch()},
        )

    def recorded(self, leaves: int) -> list[int]:
        """Return the last backward iterates, that many."""
        return list(range(self.steps - leaves + 1, self.steps + 1))


WORKLOADS = (
    Workload("MLP 5×500, batch 8", "mlp", (784, *[500] * 5, 10), 10, 8, 400, 8, 2, 3.3),
    Workload("MLP 3×300, batch 1", "mlp", (1, 300, 300, 300, 1), 0, 1, 400, 128, 16, 12.0),
    Workload("ResNet-18, batch 8", "resnet18", (), 10, 8, 32, 8, 2, 3.0, "imagenet"),
    Workload("ResNet-18 with CIFAR stem, batch 8", "resnet18", (), 10, 8, 16, 4, 1, 1.3, "cifar"),
    Workload("ResNet-50, batch 16", "resnet50", (), 100, 16, 16, 4, 1, 2.0, "imagenet"),
    Workload("VGG-19, batch 8", "vgg19", (), 10, 8, 16, 4, 1, 1.5),
    Workload("logistic regression, batch 8", "mlp", (784, 10), 10, 8, 400, 256, 32),
)


def plain(task: Task, recorded: list[int], threads: int) -> None:
    """Compute backward iterates by the plain replay loop, with that many threads."""
    torch.set_num_threads(threads)
    model = copy.deepcopy(task.model)
    start = copy.deepcopy(model.state_dict())
    for n in recorded:
        model.load_state_dict(start)
        optimizer = task.optimizer(model.parameters())
        for t in range(n, 0, -1):
            inputs, targets = task.batches[t - 1]
            optimizer.zero_grad()
            task.loss(model(inputs), targets).backward()
            optimizer.step()
        task.evaluate(model)


def engine(
    source: Callable[[], Task], recorded: list[int], workers: int, strategy: str | None
) -> None:
    """Compute backward iterates by :func:`revlib.training.sweep.compute`."""
    for _ in sweep.compute([sweep.Job(source, 0, orders.backward(), recorded, strategy)], workers):
        pass


def ratios(workload: Workload, workers: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Time a workload and return its figures, in milliseconds for each training step."""
    task = workload()
    some, all_ = (workload.recorded(n) for n in (workload.plain_leaves, workload.leaves))
    contenders: dict[str, tuple[list[int], Callable[[], None]]] = {
        "plain": (some, lambda: plain(task, some, workers)),
        "plain, one thread": (some, lambda: plain(task, some, 1)),
    }
    for strategy in sweep.STRATEGIES:
        if sweep.STRATEGIES[strategy][0](task):
            action = functools.partial(engine, workload, all_, workers, strategy)
            contenders[strategy] = (all_, action)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(-1, TURNS):  # the first turn starts the workers and warms up
        for name, (recorded, action) in contenders.items():
            seconds = timeit(action, number=1)
            if turn >= 0:
                times[name].append(seconds / orders.backward().cost(recorded) * 1e3)
        say(f"{workload.name}: turn {turn + 1} of {TURNS}")
    return {
        "workload": workload.name,
        "target": workload.target,
        "milliseconds": times,
        "bound": bound(workload, workers),
    }


def bound(workload: Workload, workers: int) -> dict[str, float]:
    """Return what the machine allows for a step, in milliseconds.

    All is measured while all workers are busy with the same.

    A dense network has to read all weights for the outputs, to read them for the gradients of the
    layers below, and to read and write them for the update. The bound is the larger of two times:
    the time of the matrix products alone, on stacks as large as the engine's and with each product
    called over and over; and the time to move these bytes at the rate at which an array as large as
    the stack is copied.

    A convolutional network multiplies what meets data (:func:`revlib.training.convolutions.census`)
    once forwards and twice backwards, but for the gradient by the images. The bound is the time
    that this takes at the rate of a large matrix product, and in addition that of reading each live
    parameter twice and writing it once, at the rate at which an array of their size is copied. What
    else a step does, on activations, is left out: it might all be done in the caches.
    """
    dense_network = workload.model == "mlp"
    measure = _products_and_bytes if dense_network else _operations_and_bytes
    measured = joblib.Parallel(workers)(joblib.delayed(measure)(workload) for _ in range(workers))
    products = statistics.mean(m["products"] for m in measured) / workers
    moving = statistics.mean(m["bytes"] / m["bandwidth"] for m in measured) / workers * 1e3
    return {
        "products": products,
        "moving": moving,
        "milliseconds": max(products, moving) if dense_network else products + moving,
        "bandwidth GB/s": sum(m["bandwidth"] for m in measured) / 1e9,
        "rate GFLOP/s": sum(m["operations"] / m["products"] for m in measured) / 1e6,
    }


@torch.inference_mode()
def _products_and_bytes(workload: Workload) -> dict[str, float]:
    torch.set_num_threads(1)
    batch, chains = workload.batch_size, dense.DenseTrainer(workload()).chains
    products, operations, size = 0.0, 0, 0
    shapes = list(zip(workload.widths[:-1], workload.widths[1:], strict=True))
    stacks = [torch.randn(chains, *shape) * 0.01 for shape in shapes]
    for layer, (inputs, outputs) in enumerate(shapes):
        x, d = torch.randn(chains, batch, inputs), torch.randn(chains, batch, outputs)
        bias = torch.zeros(chains, 1, outputs)
        # Where a step meets a weight, the others have been used since: go through all alike.
        alike = [w for w, shape in zip(stacks, shapes, strict=True) if shape == shapes[layer]]
        kinds = [
            lambda w, x=x, bias=bias: torch.baddbmm(bias, x, w),
            lambda w, x=x, d=d: w.baddbmm_(x.mT, d, alpha=-1e-9),
        ]
        if layer:
            kinds.append(lambda w, d=d: torch.bmm(d, w.mT))
        for kind in kinds:
            products += _seconds(lambda kind=kind, alike=alike: [kind(w) for w in alike]) / (
                len(alike) * chains
            )
            operations += 2 * batch * inputs * outputs
        size += 4 * inputs * outputs * (4 if layer else 3)
    return {
        "products": products * 1e3,
        "operations": operations,
        "bytes": size,
        "bandwidth": _bandwidth(sum(weights.numel() for weights in stacks)),
    }


@torch.inference_mode()
def _operations_and_bytes(workload: Workload) -> dict[str, float]:
    torch.set_num_threads(1)
    task = workload()
    table = convolutions.census(task.model, task.batch(1)[0])
    each = 3 * table["multiplications"].sum() - table["multiplications"].iloc[0]
    operations = 2 * workload.batch_size * int(each)
    x, y = (torch.randn(LARGE, LARGE) for _ in range(2))
    rate = 2 * LARGE**3 / _seconds(lambda: torch.mm(x, y), 1)
    live = int(table["live"].sum())
    return {
        "products": operations / rate * 1e3,
        "operations": operations,
        "bytes": 3 * 4 * live,
        "bandwidth": _bandwidth(live),
    }


def _bandwidth(numbers: int) -> float:
    """Return how many bytes are read or written in a second where so many numbers are copied."""
    stack = torch.ones(numbers)
    copied = torch.empty_like(stack)
    return 2 * stack.nbytes / _seconds(lambda: copied.copy_(stack))


def _seconds(action: Callable[[], object], for_seconds: float = 0.3) -> float:
    """Return the median duration of an action that is called again and again."""
    times = []
    end = time.perf_counter() + for_seconds
    while time.perf_counter() < end:
        times.append(timeit(action, number=1))
    return statistics.median(times)


def evaluation() -> dict[str, float]:
    """Return what it costs to evaluate the paper's MLP on 1000 examples, on one core."""
    torch.set_num_threads(1)
    task = WORKLOADS[0]()
    inputs, targets = task.evaluation["test"]
    task.evaluation = {"test": (inputs[:1].repeat(1000, 1), targets[:1].repeat(1000))}
    trainer = dense.DenseTrainer(task)
    return {
        "milliseconds": _seconds(lambda: task.evaluate(trainer.model()), 1) * 1e3,
        "step milliseconds": _seconds(lambda: trainer.apply(1), 1) * 1e3,
    }


PRODUCTS = ("aten::addmm_", "aten::mm", "aten::mkldnn_convolution", "aten::convolution_backward")
"""What multiplies, as PyTorch's profiler calls it."""


def profile(workload: Workload) -> dict[str, float]:
    """Return where the time of a convolutional network's step goes, on one core.

    Returns
    -------
    dict
        Shares of a step: ``products``, ``normalisation``, ``the engine's own code`` (gathering and
        scattering for products), and ``everything else``.
    """
    torch.set_num_threads(1)
    trainer = convolutions.ConvolutionTrainer(workload())
    trainer.apply(1)  # the first allocates
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        trainer.apply(2)
    shares = dict.fromkeys(
        ("products", "normalisation", "the engine's own code", "everything else"), 0.0
    )
    total = sum(event.self_cpu_time_total for event in profiler.key_averages())
    for event in profiler.key_averages():
        kind = "everything else"
        if event.key in PRODUCTS:
            kind = "products"
        elif "batch_norm" in event.key or "BatchNorm" in event.key:
            kind = "normalisation"
        elif "Step" in event.key:
            kind = "the engine's own code"
        shares[kind] += event.self_cpu_time_total / total
    return shares


def growth(workers: int, say: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Yield the duration of whole runs of N steps, every step recorded, for a few orders."""
    for order in (orders.backward(), orders.windowed(100), orders.windowed(10), orders.forward()):
        for steps in GROWTH_STEPS:
            workload = Workload("growth", "mlp", (1, 300, 300, 300, 1), 0, 1, steps, 1, 1)
            job = sweep.Job(workload, 0, order, list(range(steps + 1)))
            seconds = timeit(lambda job=job: list(sweep.compute([job], workers)), number=1)
            maps = order.cost(job.recorded)
            yield {"order": order.name, "steps": steps, "maps": maps, "seconds": seconds}
            say(f"{order.name}, {steps} steps")


def table(result: dict[str, Any]) -> pd.DataFrame:
    """Return a result as a table: the ratios of each contender to the plain loop, turn by turn.

    Returns
    -------
    pandas.DataFrame
        For each ``workload`` and ``contender`` the ``milliseconds`` a training step takes (the
        median), the ``ratio`` of the plain loop's time to it (median, ``lowest`` and ``highest``
        of all turns), the ``target``, and of the bound which ``part of the bound`` is attained.
    """
    rows = []
    for figures in result["workloads"]:
        times = figures["milliseconds"]
        for name, own in times.items():
            each = [a / b for a, b in zip(times["plain"], own, strict=True)]
            limit = figures.get("bound", {}).get("milliseconds", math.nan)
            rows.append(
                {
                    "workload": figures["workload"],
                    "contender": name,
                    "milliseconds": statistics.median(own),
                    "ratio": statistics.median(each),
                    "lowest": min(each),
                    "highest": max(each),
                    "target": figures["target"],
                    "part of the bound": limit / statistics.median(own),
                }
            )
    return pd.DataFrame(rows)


def path() -> Path:
    """Return where the benchmark's result is stored."""
    return results.root() / "performance.json"


def stored() -> dict[str, Any]:
    """Return the stored result."""
    return results.read(path())


def run(say: Callable[[str], None] = print) -> dict[str, Any]:
    """Run the whole benchmark, store its result, and return it."""
    workers = joblib.cpu_count()
    result = {
        "environment": provenance.environment(),
        "workers": workers,
        "turns": TURNS,
        "workloads": [ratios(workload, workers, say) for workload in WORKLOADS],
        "profiles": {w.name: profile(w) for w in WORKLOADS if w.model != "mlp"},
        "evaluation": evaluation(),
        "growth": list(growth(workers, say)),
    }
    results.write(path(), result)
    return result
