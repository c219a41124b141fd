"""Training steps of any network under plain SGD, many chains at once, on a graphics card.

A graphics card is idle for most of a step on a small batch: it waits for the next of a few hundred
kernels. So the chains that apply the same maps are stacked along a first axis,
``torch.func.vmap`` turns the model's computation for one chain into one for all, and the whole step
is recorded once as a CUDA graph, which is then replayed. A convolution whose weights differ from
chain to chain is computed as one matrix product per chain, on unfolded inputs. Libraries treat it
as a convolution with as many groups as chains, and are slow at that.

What is computed is one step of plain SGD, exactly as :class:`revlib.training.maps.Trainer` takes
it, up to the order in which sums are taken. The strategy does not apply where a model keeps more
between steps than parameters and buffers, or where the first step of two chains differs from the
plain one; that is tried in double precision.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from revlib.training import trials
from revlib.training.maps import TrainingState, exact, learning_rate
from revlib.training.mementos import seeded
from revlib.training.tasks import Batch, Task

STACK_BYTES = 2**32
"""How large the stacked states may become."""

DEVICES = ("cuda",)  # elsewhere one chain at a time keeps all units busy


def applies(task: Task) -> bool:
    """Return whether :class:`StackTrainer` computes a task's training steps.

    It does for any module on a graphics card under plain SGD (no momentum, no weight decay) that
    keeps no more than parameters and buffers between steps. The first step is tried.
    """
    return (
        task.plain()
        and task.batch(1)[0].device.type in DEVICES
        and learning_rate(task) is not None
        and trials.same_first_step(task, StackTrainer)
    )


class StackTrainer:
    """A stack of working copies of a network, driven in place.

    It is used like :class:`revlib.training.maps.Trainer`, with `chains` copies side by side.

    Parameters
    ----------
    task
        A task for which :func:`applies` holds.
    """

    def __init__(self, task: Task):
        self.task = task
        self._model = task.make().model
        self._h = learning_rate(task)
        start = {name: value.detach() for name, value in _tensors(self._model)}
        self.chains = max(1, min(64, STACK_BYTES // TrainingState(start).nbytes()))
        self._stack = {
            name: value.expand(self.chains, *value.shape).clone() for name, value in start.items()
        }
        self._trained = [n for n, p in self._model.named_parameters() if p.requires_grad]
        self._unfolding = copy.deepcopy(self._model)
        for module in self._unfolding.modules():
            if type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros":
                module.__class__ = _Unfolding
        self._cuda = list({v.device for v in start.values() if v.device.type == "cuda"})
        self._memory = torch.cuda.graph_pool_handle() if self._cuda else None
        self._recorded: dict[tuple, Callable[[Batch], None]] = {}

    def state(self) -> TrainingState:
        """Return a copy of the state of the first chain."""
        return TrainingState(
            {name: value.detach().clone() for name, value in _tensors(self.model())}
        )

    def load(self, state: TrainingState, chain: int = 0) -> None:
        """Make a copy of `state` the present state of a chain."""
        for name, value in state.model.items():
            self._stack[name][chain] = value

    @torch.no_grad()
    def model(self, chain: int = 0) -> nn.Module:
        """Return the network at the present state of a chain, to be evaluated and not changed."""
        for name, value in _tensors(self._model):
            value.copy_(self._stack[name][chain])
        return self._model

    def evaluate(self, last: int | None = None, chain: int = 0) -> dict[str, float]:
        """Return what is measured at the present state of a chain."""
        with exact(self._cuda):
            return self.task.evaluate(self.model(chain), last)

    def apply(self, n: int, chains: int = 1) -> None:
        """Apply the map ``T_n`` to the first chains: one step of SGD on the n-th batch.

        On a graphics card more chains may move, up to the next multiple of four; so nothing may
        have been loaded into them yet.
        """
        batch = self.task.batch(n)
        with seeded(self.task.seed * 1_000_003 + n, self._cuda, python=False), exact(self._cuda):
            if not self._cuda:
                self._step(batch, chains)
                return
            chains = min(self.chains, chains if chains < 3 else -(-chains // 4) * 4)
            key = chains, *((part.shape, part.dtype) for part in batch)
            if key not in self._recorded:
                self._recorded[key] = self._record(batch, chains)
            self._recorded[key](batch)

    def _step(self, batch: Batch, chains: int) -> None:
        stack = {name: value[:chains] for name, value in self._stack.items()}
        trained = {name: stack.pop(name).requires_grad_() for name in self._trained}
        losses = vmap(self._loss, in_dims=(0, 0, None, None), randomness="same")(
            trained, stack, *batch
        )
        gradients = torch.autograd.grad(losses.sum(), trained.values(), materialize_grads=True)
        with torch.no_grad():
            for value, gradient in zip(trained.values(), gradients, strict=True):
                value.sub_(gradient, alpha=self._h)

    def _loss(self, trained: dict, rest: dict, inputs: torch.Tensor, targets: torch.Tensor):
        outputs = functional_call(self._unfolding, (trained, rest), (inputs,))
        return self.task.loss(outputs, targets)

    def _record(self, batch: Batch, chains: int) -> Callable[[Batch], None]:
        """Return a step on so many chains as a CUDA graph, which takes batches of one shape."""
        before = {name: value[:chains].clone() for name, value in self._stack.items()}
        given = tuple(part.clone() for part in batch)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # libraries choose and allocate at first
                self._step(given, chains)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory):
            self._step(given, chains)
        for name, value in before.items():
            self._stack[name][:chains] = value

        def replay(batch: Batch) -> None:
            for part, now in zip(given, batch, strict=True):
                part.copy_(now)
            graph.replay()

        return replay


class _Unfolding(nn.Conv2d):
    """A convolution as a product of matrices, on inputs that were unfolded."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 4:
            return super().forward(x)
        x = F.pad(x, self._reversed_padding_repeated_twice)
        for axis, (size, stride, dilation) in enumerate(
            zip(self.kernel_size, self.stride, self.dilation, strict=True), start=2
        ):
            x = x.unfold(axis, (size - 1) * dilation + 1, stride)[..., ::dilation]
        # Now (examples, channels, height, width, kernel's height, kernel's width).
        shape = len(x), *x.shape[2:4], self.out_channels
        rows = x.permute(0, 2, 3, 1, 4, 5).reshape(math.prod(shape[:3]), -1)
        kernel = self.weight.flatten(1).T
        y = rows @ kernel if self.bias is None else torch.addmm(self.bias, rows, kernel)
        # Not contiguous(), which leaves strides that batch normalisation cannot read under vmap.
        return y.view(shape).permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)


def _tensors(model: nn.Module):
    yield from model.named_parameters()
    yield from model.named_buffers()
