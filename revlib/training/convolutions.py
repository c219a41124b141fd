"""Training steps of networks that convolve small images: the same step, in a fraction of the time.

On small images a convolutional network ends in feature maps of a few positions, and there a library
made for large ones wastes most of its time. Two rewritings of a step, both exact:

- **Live taps.** Where a feature map is 1 × 1, a kernel of 3 × 3 with padding 1 meets data with its
  middle tap only. The other eight meet padding at every position of the output: whatever the data,
  their gradient is zero, and plain SGD never changes them (:func:`census` counts them). They are
  neither read nor written.
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
cannot be foreseen, such as to draw random numbers in the order of the memory. What changes later is
looked at in each step: a convolution that is frozen then, or gets another stride, weight or hook,
is left to the library. One that is used twice in a later step only, or through which a gradient is
taken besides that of the step, makes that step fail, and needs ``strategy="eager"``. Not noticed is
a gradient that only a later step takes, through a convolution which the loss of that step does not
reach: ask for ``strategy="eager"`` there.

Tried and dropped, since they gained little or nothing: products for more positions, oneDNN's
products in the place of MKL's, other chunks for evaluation, and an allocator that keeps its memory.
"""

from __future__ import annotations

import copy
import functools
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn

from revlib.training import mementos, trials
from revlib.training.maps import StepError, Trainer, learning_rate
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
    if not any(type(module) is nn.Conv2d for module in task.model.modules()):
        return False
    inputs = task.batch(1)[0]
    if inputs.device.type != "cpu" or learning_rate(task) is None or _hooked(task.model):
        return False
    try:
        found = bool(_products(task.model, inputs))
        return found and trials.same_first_step(task, ConvolutionTrainer)
    except Exception:  # it does not bear being tried: on one example, say
        return False


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
            convolution.geometry, convolution.plans = geometry, {}
            _rearrange(convolution.weight, (2, 0, 3, 1))
            convolution.known = convolution.form()
        for module in self._model.modules():
            if type(module) is nn.Conv2d:
                _rearrange(module.weight, (0, 2, 3, 1))
        self._products = list(products)

    def apply(self, n: int, chains: int = 1) -> None:
        """Apply the map ``T_n``: one step of SGD on the n-th batch."""
        (group,) = self._optimizer.param_groups
        for product in self._products:
            product.h, product.moved = group["lr"], False
        try:
            super().apply(n)
        except StepError as error:
            if "modified by an inplace operation" not in str(error):
                raise
            raise StepError(
                f"{error} The strategy 'convolutions' updates weights on the way back, so it "
                "cannot take a second gradient in one step, nor use a layer twice where the first "
                'step does not. Pass strategy="eager", which can.'
            ) from error
        finally:
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
            [(each.outputs, each.inputs) for each in met] == [(slice(0, size), slice(0, size, 1))]
            for met, size in zip(sides, self.inputs[1:], strict=True)
        )

    @functools.cached_property
    def columns(self) -> slice:
        """Taps of a row of the kernel, from the first to the last that meets data."""
        met = self.meetings(1)
        return slice(met[0].tap, met[-1].tap + 1)

    @functools.cached_property
    def blocks(self) -> list[tuple[slice, slice]]:
        """Rows of the images that are gathered: where they are put, and which.

        With a stride, a row of the kernel meets every second or third row of the images, say. Those
        that are met together are put together, so that each product takes one block of them.
        """
        met, stride = [meeting.inputs for meeting in self.meetings(0)], self.stride[0]
        blocks, place = [], 0
        for rest in sorted({inputs.start % stride for inputs in met}):
            own = [inputs for inputs in met if inputs.start % stride == rest]
            rows = range(min(i.start for i in own), max(i.stop for i in own), stride)
            blocks.append((slice(place, place + len(rows)), slice(rows.start, rows.stop, stride)))
            place += len(rows)
        return blocks

    def put(self, inputs: slice) -> slice:
        """Return where rows of the images that a row of the kernel meets have been put."""
        for put, rows in self.blocks:
            if inputs.start % inputs.step == rows.start % rows.step:
                start = put.start + (inputs.start - rows.start) // rows.step
                return slice(start, start + len(range(inputs.start, inputs.stop, inputs.step)))
        raise AssertionError  # each is in a block


def _images(like: torch.Tensor, batch: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """Return images to be filled in, as the library prefers them: channels last in memory."""
    return torch.empty(batch, *shape, dtype=like.dtype, memory_format=torch.channels_last)


class _Plan:
    """Where the products of a convolution find their operands, for one size of batch.

    The buffers are used again at each step, so that the padding in them is written once.
    """

    def __init__(self, geometry: Geometry, weight: torch.Tensor, batch: int):
        columns = geometry.columns
        height, width = geometry.blocks[-1][0].stop, geometry.outputs[2]
        taps, channels = columns.stop - columns.start, geometry.inputs[0]
        self.shapes = geometry.inputs, geometry.outputs
        gathered = weight.new_zeros(height, width, batch, taps, channels)
        onward = torch.zeros_like(gathered)
        self.outputs = weight.new_empty(*geometry.outputs[1:], batch, len(weight))
        self.onward = onward
        # From where in the images each block of the buffers comes.
        self.copies = [
            (
                (rows, across.inputs),
                gathered[put, across.outputs, :, across.tap - columns.start],
                onward[put, across.outputs, :, across.tap - columns.start],
            )
            for across in geometry.meetings(1)
            for put, rows in geometry.blocks
        ]
        # One product for each live row of the kernel, whose live part is a matrix in its place.
        kernel = weight.detach().permute(2, 0, 3, 1)[:, :, columns]
        self.products = [
            (
                kernel[down.tap].view(len(weight), -1),
                self.outputs[down.outputs].view(-1, len(weight)),
                gathered[geometry.put(down.inputs)].view(-1, taps * channels),
                onward[geometry.put(down.inputs)].view(-1, taps * channels),
            )
            for down in geometry.meetings(0)
        ]

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        images = x.permute(2, 3, 0, 1)
        for where, gathered, _ in self.copies:
            gathered.copy_(images[where])
        if bias is None:
            self.outputs.zero_()
        else:
            self.outputs.copy_(bias)
        for kernel, outputs, inputs, _ in self.products:
            outputs.addmm_(inputs, kernel.T)
        y = _images(x, len(x), self.shapes[1])
        return y.copy_(self.outputs.permute(2, 3, 0, 1))

    def backward(self, gradient: torch.Tensor, h: float, further: bool) -> torch.Tensor | None:
        """Take the step, and return the gradient by the inputs if it goes further."""
        self.outputs.copy_(gradient.permute(2, 3, 0, 1))
        if further:
            self.onward.zero_()
        for kernel, outputs, inputs, onward in self.products:
            if further:  # with the weight from before the step
                onward.addmm_(outputs, kernel)
            kernel.addmm_(outputs.T, inputs, alpha=-h)
        if not further:
            return None
        added = _images(gradient, len(gradient), self.shapes[0])
        images = added.zero_().permute(2, 3, 0, 1)
        for where, _, onward in self.copies:
            images[where] += onward
        return added


class _Product(nn.Conv2d):
    """A convolution that computes the products of its geometry.

    The weight lies in memory as (height, outputs, width, inputs): the live part of each row of the
    kernel is a matrix.

    Attributes
    ----------
    geometry : Geometry
        For which images. Others are left to the library.
    known : tuple
        What :meth:`form` was at the start. Anything else is left to the library, too.
    h : float or None
        The learning rate, while the backward pass is to take the step.
    moved : bool
        Whether it has taken the step.
    plans : dict
        What is known of each size of batch.
    """

    not_state = ("geometry", "known", "h", "moved", "plans")  # for revlib.training.mementos
    geometry = known = h = plans = None
    moved = False

    def form(self) -> tuple[Any, ...]:
        """Return what a plan takes as given: what a model may change, and a copy does not have."""
        weight = self.weight
        return (
            (self.stride, self.padding, self.dilation, self.groups, self.padding_mode),
            (weight.data_ptr(), weight.stride(), weight.requires_grad),
            bool(weight._backward_hooks or weight._post_accumulate_grad_hooks),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fits = (
            self.form() == self.known
            and x.shape[1:] == self.geometry.inputs
            and x.dtype == self.weight.dtype
            and not torch.is_autocast_enabled("cpu")
        )
        if not fits or (self.h is None and torch.is_grad_enabled()):
            return super().forward(x)
        if self.geometry.pointwise:
            tap = self.geometry.meetings(0)[0].tap, slice(None), self.geometry.meetings(1)[0].tap
            kernel = self.weight.detach().permute(2, 0, 3, 1)[tap]
            return _PointwiseStep.apply(x, self.weight, self.bias, kernel, self)
        if self.h is None:
            return _Plan(self.geometry, self.weight, len(x)).forward(x, self.bias)
        if len(x) not in self.plans:
            self.plans[len(x)] = _Plan(self.geometry, self.weight, len(x))
        return _Step.apply(x, self.weight, self.bias, self.plans[len(x)], self)

    def step(self) -> float:
        """Return the learning rate of the one update that a step makes.

        Raises
        ------
        RuntimeError
            If this is not the only gradient, or one that is itself derived.
        """
        if self.moved or torch.is_grad_enabled():
            raise RuntimeError(
                "a weight would be modified by an inplace operation between gradients"
            )
        self.moved = True
        return self.h


Gradients = tuple[torch.Tensor | None, ...]


class _Step(torch.autograd.Function):
    """The products of a plan, forward, and backward with their part of a training step."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        plan: _Plan,
        product: _Product,
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)  # so that autograd sees whether it is changed before its use
        ctx.plan, ctx.product = plan, product
        return plan.forward(x, bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Gradients:
        _, h = ctx.saved_tensors, ctx.product.step()
        further, _, bias, _, _ = ctx.needs_input_grad
        by_bias = gradient.sum((0, 2, 3)) if bias else None
        return ctx.plan.backward(gradient, h, further), None, by_bias, None, None


class _PointwiseStep(torch.autograd.Function):
    """The same where each position sees just its own: nothing has to be gathered."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        kernel: torch.Tensor,
        product: _Product,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.kernel, ctx.product = kernel, product
        y = _images(x, len(x), (len(weight), *x.shape[2:]))
        if bias is None:
            torch.mm(_rows(x), kernel.T, out=_rows(y))
        else:
            torch.addmm(bias, _rows(x), kernel.T, out=_rows(y))
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Gradients:
        x, _ = ctx.saved_tensors
        h = ctx.product.step()
        delta, further = _rows(gradient), None
        if ctx.needs_input_grad[0]:  # with the weight from before the step
            further = _images(x, len(x), x.shape[1:])
            torch.mm(delta, ctx.kernel, out=_rows(further))
        ctx.kernel.addmm_(delta.T, _rows(x), alpha=-h)
        return further, None, delta.sum(0) if ctx.needs_input_grad[2] else None, None, None


def _rows(images: torch.Tensor) -> torch.Tensor:
    """Return the positions of images as the rows of a matrix, (positions, channels)."""
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])


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
    with mementos.seeded(0, [], python=True):
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


def census(model: nn.Module, inputs: torch.Tensor) -> pd.DataFrame:
    """Count the parameters of each layer that ever meet data, and what is multiplied with it.

    Parameters
    ----------
    model
        Any module.
    inputs
        Images of the size that it is trained on, of shape (N, channels, height, width).

    Returns
    -------
    pandas.DataFrame
        For each module with parameters of its own, in order of appearance: its name, ``layer``; its
        ``parameters``; how many of them are ``live`` (the others meet padding only: their gradient
        is zero for any data); and for convolutions and linear layers the ``multiplications`` with
        data, for one image and forwards. A convolution that is not known here, see the module's
        text, counts as live as a whole, and none of its multiplications is counted.
    """
    geometries = _geometries(model, inputs)
    rows = []
    for name, module in model.named_modules():
        count = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        live, multiplications = count, 0
        if module in geometries:
            met = [geometries[module].meetings(side) for side in (0, 1)]
            channels = module.in_channels * module.out_channels
            live -= channels * (math.prod(module.kernel_size) - len(met[0]) * len(met[1]))
            pairs = [sum(each.outputs.stop - each.outputs.start for each in taps) for taps in met]
            multiplications = channels * math.prod(pairs)
        elif isinstance(module, nn.Linear):
            multiplications = module.weight.numel()
        if count:
            rows.append((name, count, live, multiplications))
    return pd.DataFrame(rows, columns=["layer", "parameters", "live", "multiplications"])
