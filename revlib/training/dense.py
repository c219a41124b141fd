"""Training steps of dense ReLU networks by hand: several chains at once, nothing stored twice.

A backward sweep replays the same maps for many end times. All chains that are still running at
stage t apply the same ``T_t``, with the same batch, to parameters of their own; here they are
stacked along a first axis and advanced by one batched product. The backward pass is written out,
and the weights are updated by the product that makes their gradient, so that the gradient itself is
never stored.

What is computed is one step of plain SGD, exactly as :class:`revlib.training.maps.Trainer` takes
it, up to the order in which sums are taken. A batch that is of another kind than the first (other
features, soft labels, another type of numbers) is left to that class, step and refusal alike.

How a library adds up a product depends on where its operands lie in memory: to the cache line. So
where chains are stacked, every width is filled up with zeros to whole cache lines. Then each chain
lies like the first, and its bits depend neither on how many there are nor on which of them it is.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from revlib.training.maps import Trainer, TrainingState, learning_rate
from revlib.training.tasks import Batch, Task

STACK_BYTES = 6 * 2**20
"""How large the stacked parameters may become: about what a core's caches hold.

Beyond that, stacking gains nothing: each step then waits for the memory.
"""

CACHE_LINE = 64  # bytes: as long as that of any processor that torch computes on, or a multiple


def applies(task: Task) -> bool:
    """Return whether :class:`DenseTrainer` computes a task's training steps.

    It does for linear layers with ReLU between them (an ``nn.Sequential``, which may begin with
    ``nn.Flatten``), trained with plain SGD (no momentum, no weight decay) on the cross-entropy of
    class indices or the mean squared error, both with their default options.
    """
    layers = task.plain() and _layers(task.model)
    return bool(layers) and learning_rate(task) is not None and _gradient(task, layers) is not None


class DenseTrainer:
    """A stack of working copies of a dense ReLU network, driven in place.

    It is used like :class:`revlib.training.maps.Trainer`, with `chains` copies side by side.

    Parameters
    ----------
    task
        A task for which :func:`applies` holds.
    """

    def __init__(self, task: Task):
        self.task = task
        self._model = copy.deepcopy(task.model)
        self._layers = _layers(self._model)
        self._gradient = _gradient(task, self._layers)
        self._h = learning_rate(task)
        self._forms = [_form(part) for part in task.batch(1)]
        size = sum(p.numel() * p.element_size() for p in self._model.parameters())
        self.chains = max(1, min(64, STACK_BYTES // size))
        # Weights with the inputs first, (chains, inputs, outputs): a step is then three products.
        self._weights = [self._stack(layer.weight.T) for layer in self._layers]
        self._biases = [self._stack(layer.bias[None]) for layer in self._layers]
        self._fill(0)

    def _stack(self, parameter: torch.Tensor) -> torch.Tensor:
        line = CACHE_LINE // parameter.element_size() if self.chains > 1 else 1
        rows, columns = parameter.shape
        shape = (rows if rows == 1 else -(-rows // line) * line, -(-columns // line) * line)
        return parameter.new_zeros((self.chains, *shape), requires_grad=False)

    @torch.no_grad()
    def _fill(self, chain: int) -> None:
        for layer, weight, bias in zip(self._layers, self._weights, self._biases, strict=True):
            weight[chain] = bias[chain] = 0  # a chain that diverged makes 0 × inf of the rest
            weight[chain, : layer.in_features, : layer.out_features] = layer.weight.T
            bias[chain, 0, : layer.out_features] = layer.bias

    def state(self) -> TrainingState:
        """Return a copy of the state of the first chain."""
        model = self.model()
        return TrainingState({name: p.detach().clone() for name, p in model.named_parameters()})

    def load(self, state: TrainingState, chain: int = 0) -> None:
        """Make a copy of `state` the present state of a chain."""
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                parameter.copy_(state.model[name])
        self._fill(chain)

    @torch.no_grad()
    def model(self, chain: int = 0) -> nn.Module:
        """Return the network at the present state of a chain, to be evaluated and not changed."""
        for layer, weight, bias in zip(self._layers, self._weights, self._biases, strict=True):
            layer.weight.copy_(weight[chain, : layer.in_features, : layer.out_features].T)
            layer.bias.copy_(bias[chain, 0, : layer.out_features])
        return self._model

    def evaluate(self, last: int | None = None, chain: int = 0) -> dict[str, float]:
        """Return what is measured at the present state of a chain."""
        return self.task.evaluate(self.model(chain), last)

    def apply(self, n: int, chains: int = 1) -> None:
        """Apply the map ``T_n`` to the first chains: one step of SGD on the n-th batch.

        Raises
        ------
        StepError
            If the batch cannot be trained on.
        """
        batch = self.task.batch(n)
        inputs, targets = batch
        usual = [_form(part) for part in batch] == self._forms
        usual = usual and inputs.shape[:1] == targets.shape[:1] != (0,)
        if not (usual and self._step(inputs, targets, chains)):
            self._plain_step(n, batch, chains)

    def _plain_step(self, n: int, batch: Batch, chains: int) -> None:
        """Let the plain loop take a step, or say why it cannot."""
        for chain in range(chains):
            parameters = self.model(chain).named_parameters()
            self._plain.load(TrainingState({name: p.detach() for name, p in parameters}))
            self._plain.advance(n, batch)
            self.load(self._plain.state(), chain)

    @functools.cached_property
    def _plain(self) -> Trainer:
        return Trainer(self.task)

    @torch.inference_mode()
    def _step(self, inputs: torch.Tensor, targets: torch.Tensor, chains: int) -> bool:
        """Take a step on a batch like the first, and return whether that was possible."""
        inputs = _wide(inputs.flatten(1), self._weights[0].shape[1])
        activations = [inputs.expand(chains, -1, -1)]
        weights = [weight[:chains] for weight in self._weights]
        biases = [bias[:chains] for bias in self._biases]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            activations.append(torch.baddbmm(bias, activations[-1], weight).relu_())
        outputs = torch.baddbmm(biases[-1], activations[-1], weights[-1])
        try:
            delta = self._gradient(outputs[..., : self._layers[-1].out_features], targets)
        except RuntimeError:  # there is no such class
            return False
        delta = _wide(delta, outputs.shape[-1])
        for layer in reversed(range(len(weights))):
            below = activations[layer]
            onward = None
            if layer:  # with the weights from before the step
                onward = torch.bmm(delta, weights[layer].mT)
                onward = torch.ops.aten.threshold_backward(onward, below, 0)  # the slope of ReLU
            weights[layer].baddbmm_(below.mT, delta, alpha=-self._h)
            biases[layer].sub_(delta.sum(1, keepdim=True), alpha=self._h)
            delta = onward
        return True


def _form(part: Any) -> tuple[Any, ...] | None:
    """Return what has to be alike in all batches, but for the number of examples."""
    if not isinstance(part, torch.Tensor):
        return None
    return part.shape[1:], part.dtype, part.layout, part.device


def _wide(rows: torch.Tensor, width: int) -> torch.Tensor:
    """Return rows filled up with zeros."""
    return F.pad(rows, (0, width - rows.shape[-1]))


def _layers(model: nn.Module) -> list[nn.Linear] | None:
    """Return the linear layers of a dense ReLU network, None if the model is something else."""
    if type(model) is not nn.Sequential:
        return None
    modules = list(model)
    if modules and type(modules[0]) is nn.Flatten and modules[0].start_dim == 1:
        modules = modules[1:]
    linear, between = modules[::2], modules[1::2]
    dense = (
        len(modules) % 2 == 1
        and all(type(module) is nn.Linear and module.bias is not None for module in linear)
        and all(type(module) is nn.ReLU for module in between)
        and all(parameter.requires_grad for parameter in model.parameters())
        and len({id(parameter) for parameter in model.parameters()}) == 2 * len(linear)
        and not any(
            module._forward_hooks or module._forward_pre_hooks for module in model.modules()
        )
    )
    return linear if dense else None


def _cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the gradient by the outputs, (chains, batch, classes), of each chain's mean loss."""
    try:
        classes = F.one_hot(targets, outputs.shape[-1])
    except RuntimeError:  # there is no class -100: these examples are left out
        counted = targets != -100
        classes = F.one_hot(targets.where(counted, 0), outputs.shape[-1])
        kept = counted[:, None] / counted.sum().clamp(min=1)
        return (outputs.softmax(-1) - classes) * kept.to(outputs.dtype)
    return (outputs.softmax(-1) - classes) / len(targets)


def _mse(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    delta = (outputs - targets) * (2 / outputs[0].numel())
    return delta.to(outputs.dtype)  # where the targets are of higher precision


def _gradient(task: Task, layers: list[nn.Linear]) -> Callable | None:
    """Return how a loss that is known here is derived by the outputs, None for any other."""
    targets = task.batch(1)[1]
    if _is(task.loss, F.cross_entropy, nn.CrossEntropyLoss()):
        return _cross_entropy if targets.ndim == 1 and targets.dtype == torch.int64 else None
    if _is(task.loss, F.mse_loss, nn.MSELoss()):
        return _mse if targets.shape[1:] == (layers[-1].out_features,) else None
    return None


def _is(loss: Callable, function: Callable, module: nn.Module) -> bool:
    """Return whether a loss is a function or its module with default options."""
    return loss is function or (type(loss) is type(module) and vars(loss) == vars(module))
