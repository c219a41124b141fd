"""Training steps of networks that convolve small images: the same step, in a fraction of the time.

On small images a convolutional network ends in feature maps of a few positions, and there a library
made for large ones wastes most of its time. Two rewritings of a step, both exact:

- **Live taps.** Where a feature map is 1 × 1, a kernel of 3 × 3 with padding 1 meets data with its
  middle tap only. The other eight meet padding at every position of the output: whatever the data,
  their gradient is zero, and plain SGD never changes them (:func:`parameters` counts them). They
  are neither read nor written.
- **Products.** A convolution with few output positions becomes one matrix product for each row of
  its kernel, on inputs that were gathered along the image's rows. A row of the kernel meets the
  rows of the image by a shift, so rows of padding are left out instead of multiplied. The backward
  pass is written out, and the weight is updated by the products that make its gradient, after the
  gradient by the inputs has been taken with the weight from before the step. The gradient is never
  stored.

Convolutions with more positions stay with the library, which runs at the processor's rate there, in
the memory format that it prefers (``channels_last``).

What is computed is one step of plain SGD, exactly as :class:`revlib.training.maps.Trainer` takes
it, up to the order in which sums are taken. A convolution stays as it is where that is not certain:
if it is used more than once or shares its weight, is frozen, has groups or an input without a batch
axis, pads with anything but zeros, or is of a class of its own. With momentum, weight decay or
another optimizer a dead tap may move too, by a rule of its own: there the strategy does not apply
at all, nor where anything has a hook, which could ask for a gradient. Neither does it where its
first step differs from the plain one; that is tried in double precision, since a module can do what
cannot be foreseen, such as to draw random numbers in the order of the memory.
"""

from __future__ import annotations

import copy
import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from revlib.training.maps import Trainer, learning_rate
from revlib.training.tasks import Task

POSITIONS = 16
"""Up to how many output positions a convolution becomes a product.

Above, the library's own convolutions are as fast as products are.
"""


def applies(task: Task) -> bool:
    """Return whether :class:`ConvolutionTrainer` computes a task's training steps.

    It does for any module on the processor, under plain SGD (no momentum, no weight decay), with at
    least one convolution that becomes a product (see the module's text). The first step is tried.
    """
    inputs = task.batch(1)[0]
    if inputs.device.type != "cpu" or learning_rate(task) is None or _hooked(task.model):
        return False
    return bool(_products(task.model, inputs)) and _same_first_step(task)


class ConvolutionTrainer(Trainer):
    """One working copy of a task with convolutions on small images, driven in place.

    Parameters
    ----------
    task
        A task for which :func:`applies` holds.
    """

    def __init__(self, task: Task):
        super().__init__(task)
        products = _products(self._model, task.batch(1)[0])
        for convolution, geometry in products.items():
            convolution.__class__ = _Product
            convolution.geometry, convolution.h = geometry, None
            _rearrange(convolution.weight, (2, 3, 1, 0))
        for module in self._model.modules():
            if type(module) is nn.Conv2d:
                _rearrange(module.weight, (0, 2, 3, 1))
        self._products = list(products)

    def apply(self, n: int, chains: int = 1) -> None:
        """Apply the map ``T_n``: one step of SGD on the n-th batch."""
        (group,) = self._optimizer.param_groups
        for product in self._products:
            product.h = group["lr"]
        super().apply(n)
        for product in self._products:
            product.h = None

    def _outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return super()._outputs(inputs)


def _rearrange(weight: torch.Tensor, axes: tuple[int, ...]) -> None:
    """Lay out the numbers of a tensor in memory as if its axes came in another order."""
    back = sorted(range(len(axes)), key=axes.__getitem__)
    weight.data = weight.data.permute(axes).contiguous().permute(back)


@dataclass(frozen=True)
class _Meeting:
    """Which output positions see data through one tap, along one side of the images, and which."""

    tap: int
    outputs: slice
    inputs: slice


@dataclass(frozen=True)
class Geometry:
    """What a convolution does to the shape of images of one size.

    Parameters
    ----------
    inputs, outputs
        Shapes (channels, height, width) of an image before and after.
    kernel, stride, dilation
        Of the convolution, for height and width.
    padding
        How many zeros come before the first row and the first column.
    """

    inputs: tuple[int, int, int]
    outputs: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]

    def meetings(self, side: int) -> list[_Meeting]:
        """Return where each live tap meets data, along the height (0) or the width (1)."""
        size, positions, stride = self.inputs[1 + side], self.outputs[1 + side], self.stride[side]
        found = []
        for tap in range(self.kernel[side]):
            shift = tap * self.dilation[side] - self.padding[side]
            first = max(0, -(shift // stride))  # the quotient is rounded up
            end = min(positions, (size - 1 - shift) // stride + 1)
            if first < end:
                inputs = slice(first * stride + shift, (end - 1) * stride + shift + 1, stride)
                found.append(_Meeting(tap, slice(first, end), inputs))
        return found

    @functools.cached_property
    def pointwise(self) -> bool:
        """Whether each position of the output sees just its own of the input, by one tap."""
        sides = [self.meetings(side) for side in (0, 1)]
        return self.inputs[1:] == self.outputs[1:] and all(
            len(met) == 1 and met[0].inputs == met[0].outputs == slice(0, size, 1)
            for met, size in zip(sides, self.inputs[1:], strict=True)
        )

    @functools.cached_property
    def columns(self) -> slice:
        """Taps of a row of the kernel, from the first to the last that meets data."""
        met = self.meetings(1)
        return slice(met[0].tap, met[-1].tap + 1)

    @functools.cached_property
    def parts(self) -> list[tuple[slice, slice]]:
        """Rows of images that are gathered: where they are put, and which.

        With a stride, a row of the kernel meets every second or third row of the image, say. Those
        that are met together are put together, so that each product takes one block of them.
        """
        met, stride = [meeting.inputs for meeting in self.meetings(0)], self.stride[0]
        parts, place = [], 0
        for rest in sorted({inputs.start % stride for inputs in met}):
            own = [inputs for inputs in met if inputs.start % stride == rest]
            rows = range(min(i.start for i in own), max(i.stop for i in own), stride)
            parts.append((slice(place, place + len(rows)), slice(rows.start, rows.stop, stride)))
            place += len(rows)
        return parts

    @functools.cached_property
    def blocks(self) -> list[tuple[int, slice, slice]]:
        """The products: a row of the kernel, rows of the output, rows of the gathered input."""
        if self.pointwise:
            return [(self.meetings(0)[0].tap, slice(0, 1), slice(0, 1))]
        found = []
        for meeting in self.meetings(0):
            inputs, outputs = meeting.inputs, meeting.outputs
            put = next(
                put.start + (inputs.start - rows.start) // rows.step
                for put, rows in self.parts
                if inputs.start % rows.step == rows.start % rows.step
            )
            length = outputs.stop - outputs.start
            found.append((meeting.tap, outputs, slice(put, put + length)))
        return found

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """Return the inputs of each product, (image rows, width out × batch, taps × channels)."""
        if self.pointwise:
            return x.permute(0, 2, 3, 1).reshape(1, -1, x.shape[1])
        images = x.permute(2, 3, 0, 1)
        height, taps = self.parts[-1][0].stop, range(*self.columns.indices(self.kernel[1]))
        gathered = x.new_empty(height, self.outputs[2], len(x), len(taps), self.inputs[0])
        met = {meeting.tap: meeting for meeting in self.meetings(1)}
        for place, tap in enumerate(taps):
            seen = met[tap].outputs if tap in met else slice(0, 0)
            gathered[:, : seen.start, :, place] = 0
            gathered[:, seen.stop :, :, place] = 0
            for put, rows in self.parts if tap in met else []:
                gathered[put, seen, :, place] = images[rows, met[tap].inputs]
        return gathered.view(height, -1, len(taps) * self.inputs[0])

    def scatter(self, gathered: torch.Tensor, batch: int) -> torch.Tensor:
        """Return the adjoint of :meth:`gather`: what was gathered, added up where it was taken."""
        added = _images(gathered, batch, self.inputs)
        if self.pointwise:
            return added.copy_(gathered.view(batch, *self.inputs[1:], -1).permute(0, 3, 1, 2))
        images = added.zero_().permute(2, 3, 0, 1)
        gathered = gathered.view(len(gathered), self.outputs[2], batch, -1, self.inputs[0])
        for meeting in self.meetings(1):
            for put, rows in self.parts:
                own = gathered[put, meeting.outputs, :, meeting.tap - self.columns.start]
                images[rows, meeting.inputs] += own
        return added

    def products(
        self, weight: torch.Tensor, y: torch.Tensor, gathered: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Yield the operands of each product, in place: ``outputs += inputs @ kernel``."""
        kernel = weight.detach().permute(2, 3, 1, 0)
        for row, outputs, inputs in self.blocks:
            yield (
                kernel[row, self.columns].view(-1, len(weight)),
                y[outputs].flatten(0, 1),
                gathered[inputs].flatten(0, 1),
            )

    def flat(self, y: torch.Tensor) -> torch.Tensor:
        """Return outputs as the products make them, (image rows, width × batch, channels)."""
        if self.pointwise:
            return y.permute(0, 2, 3, 1).reshape(1, -1, y.shape[1])
        return y.permute(2, 3, 0, 1).reshape(y.shape[2], -1, y.shape[1])

    def images(self, flat: torch.Tensor, batch: int) -> torch.Tensor:
        """Return outputs that the products have made as images: the inverse of :meth:`flat`."""
        y = _images(flat, batch, self.outputs)
        _, height, width = self.outputs
        if self.pointwise:
            return y.copy_(flat.view(batch, height, width, -1).permute(0, 3, 1, 2))
        return y.copy_(flat.view(height, width, batch, -1).permute(2, 3, 0, 1))


def _images(like: torch.Tensor, batch: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """Return images to be filled in, as the library prefers them: channels last in memory."""
    layout = torch.channels_last
    return torch.empty(batch, *shape, dtype=like.dtype, device=like.device, memory_format=layout)


class _Product(nn.Conv2d):
    """A convolution that computes the products of its geometry.

    The weight lies in memory as (height, width, inputs, outputs): the live part of each of its rows
    is a matrix.

    Attributes
    ----------
    geometry : Geometry
        For which images. Others are left to the library.
    h : float or None
        The learning rate, while the backward pass is to take the step.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fits = x.shape[1:] == self.geometry.inputs
        if not fits or (self.h is None and torch.is_grad_enabled()):
            return super().forward(x)
        return _Step.apply(x, self.weight, self.bias, self.geometry, self.h)


class _Step(torch.autograd.Function):
    """The products of a convolution, forward, and backward with its part of a training step."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        geometry: Geometry,
        h: float | None,
    ) -> torch.Tensor:
        gathered = geometry.gather(x)
        ctx.save_for_backward(weight, gathered)
        ctx.geometry, ctx.h, ctx.batch = geometry, h, len(x)
        height, width = geometry.outputs[1:]
        lines = (1, height * width) if geometry.pointwise else (height, width)
        y = x.new_zeros(lines[0], lines[1] * len(x), len(weight))
        if bias is not None:
            y += bias
        for kernel, outputs, inputs in geometry.products(weight, y, gathered):
            outputs.addmm_(inputs, kernel)
        return geometry.images(y, len(x))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight, gathered = ctx.saved_tensors
        geometry = ctx.geometry
        delta = geometry.flat(gradient)
        onward = None
        if ctx.needs_input_grad[0]:  # with the weight from before the step
            onward = torch.zeros_like(gathered)
            for kernel, outputs, inputs in geometry.products(weight, delta, onward):
                inputs.addmm_(outputs, kernel.T)
            onward = geometry.scatter(onward, ctx.batch)
        for kernel, outputs, inputs in geometry.products(weight, delta, gathered):
            kernel.addmm_(inputs.T, outputs, alpha=-ctx.h)
        bias = delta.sum((0, 1)) if ctx.needs_input_grad[2] else None
        return onward, None, bias, None, None


def _geometries(model: nn.Module, inputs: torch.Tensor) -> dict[nn.Conv2d, Geometry]:
    """Return the geometry of each convolution of a model that is known here and used once.

    Known are plain ``nn.Conv2d`` without groups and padded with zeros.
    """
    copied = copy.deepcopy(model).eval()
    owners = dict(zip(copied.modules(), model.modules(), strict=True))
    found: dict[nn.Conv2d, Geometry] = {}
    uses: Counter[nn.Module] = Counter()

    def note(module: nn.Conv2d, before: tuple[torch.Tensor], after: torch.Tensor) -> None:
        uses[owners[module]] += 1
        left, _, top, _ = module._reversed_padding_repeated_twice
        found[owners[module]] = Geometry(
            tuple(before[0].shape[1:]),
            tuple(after.shape[1:]),
            module.kernel_size,
            module.stride,
            module.dilation,
            (top, left),
        )

    for module in copied.modules():
        if type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros":
            module.register_forward_hook(note)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        copied(inputs[:1])
    return {
        module: geometry
        for module, geometry in found.items()
        if uses[module] == 1 and len(geometry.inputs) == 3
    }


def _products(model: nn.Module, inputs: torch.Tensor) -> dict[nn.Conv2d, Geometry]:
    """Return the convolutions that become products."""
    weights = Counter(
        parameter for module in model.modules() for parameter in module.parameters(recurse=False)
    )
    return {
        convolution: geometry
        for convolution, geometry in _geometries(model, inputs).items()
        if geometry.outputs[1] * geometry.outputs[2] <= POSITIONS
        and geometry.meetings(0)
        and geometry.meetings(1)
        and convolution.weight.requires_grad
        and weights[convolution.weight] == 1
    }


def _hooked(model: nn.Module) -> bool:
    """Return whether a module or parameter has a hook."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for module in model.modules() for kind in kinds) or any(
        parameter._backward_hooks or parameter._post_accumulate_grad_hooks
        for parameter in model.parameters()
    )


def _same_first_step(task: Task) -> bool:
    """Return whether the first step equals the plain one, in double precision."""
    model, loss = (
        copy.deepcopy(each).double() if isinstance(each, nn.Module) else each
        for each in (task.model, task.loss)
    )
    batch = tuple(
        tensor.double() if tensor.is_floating_point() else tensor for tensor in task.batch(1)
    )
    tried = Task(model, loss, [batch], task.optimizer, {}, task.seed)
    states = []
    for kind in (Trainer, ConvolutionTrainer):
        trainer = kind(tried)
        states.append(trainer.state().model)
        try:
            trainer.apply(1)
        except RuntimeError:  # such as a view of what lies in memory in another order
            return False
        states.append(trainer.state().model)
    start, plain, _, rewritten = states
    moved = max(
        float((plain[name] - start[name]).abs().max()) for name, _ in model.named_parameters()
    )
    return all(
        torch.allclose(rewritten[name], value, rtol=1e-8, atol=1e-8 * moved)
        for name, value in plain.items()
    )
