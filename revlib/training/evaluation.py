"""Evaluation: the loss of a whole set, and what else is measured on it.

The loss is that of all examples at once, whatever it averages over. Only the model's outputs are
computed in chunks, to bound the memory, and only where that gives the same outputs.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from revlib.training import batches

Loss = Callable[[Any, Any], torch.Tensor]

EVALUATION_CHUNK = 1000  # examples evaluated at once: bounds the memory

BY_BATCH = "_by_batch"
"""Marks what was evaluated with the statistics of the evaluated examples (batch normalisation)."""


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and each of its modules back into its own."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def _by_batch(normalising: list[nn.Module]) -> Iterator[None]:
    """Let batch normalisation use the statistics of its input, and keep the running ones."""
    tracked = [module.track_running_stats for module in normalising]
    for module in normalising:
        module.training, module.track_running_stats = True, False
    try:
        yield
    finally:
        for module, was in zip(normalising, tracked, strict=True):
            module.training, module.track_running_stats = False, was


def measured(
    model: nn.Module,
    loss: Loss,
    sets: Mapping[str, tuple[Any, Any]],
    last: Mapping[str, tuple[Any, Any]],
    metrics: Mapping[str, Callable[[Any, Any], Any]],
) -> dict[str, float]:
    """Return what :meth:`revlib.training.tasks.Task.evaluate` does.

    Parameters
    ----------
    model, loss, metrics
        Of the task.
    sets
        Inputs and targets by name.
    last
        The same for those that are not evaluated with their own statistics.
    """
    # A layer that was frozen in evaluation mode uses its running statistics in training, too.
    normalising = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.training == model.training
    ]
    found = {}
    whole = {**sets, **last}
    _no_column_twice(whole, metrics, ("", BY_BATCH) if normalising else ("",))
    with evaluating(model):
        chunks = {name: _chunks(model, *examples) for name, examples in whole.items()}
        for name, examples in whole.items():
            found |= _measured(model, loss, name, examples, chunks[name], "", metrics)
        if normalising:
            with _by_batch(normalising):
                for name, examples in sets.items():
                    try:
                        found |= _measured(
                            model, loss, name, examples, chunks[name], BY_BATCH, metrics
                        )
                    except ValueError as error:
                        # A single example has no statistics.
                        if "more than 1 value per channel" not in str(error):
                            raise
    return found


def _no_column_twice(
    sets: Iterable[str], metrics: Iterable[str], suffixes: tuple[str, ...]
) -> None:
    """Make sure that no two things that are measured have one name: 'a_loss' of 'test', say.

    Raises
    ------
    ValueError
        If two have.
    """
    owners: dict[str, str] = {}
    for name, what, suffix in itertools.product(sets, ("loss", "accuracy", *metrics), suffixes):
        column, owner = f"{name}_{what}{suffix}", f"'{what}{suffix}' of the set '{name}'"
        if column in owners:
            raise ValueError(
                f"The column '{column}' would be both {owners[column]} and {owner}. Give a set or "
                "a metric another name."
            )
        owners[column] = owner


def _measured(
    model: nn.Module,
    loss: Loss,
    name: str,
    examples: tuple[Any, Any],
    chunks: list[slice],
    suffix: str,
    metrics: Mapping[str, Callable[[Any, Any], Any]],
) -> dict[str, float]:
    inputs, targets = examples
    try:
        output = _outputs(model, inputs, chunks)
        found = {f"{name}_loss{suffix}": _with_gradients_if_needed(loss, output, targets).item()}
    except Exception as error:
        raise ValueError(
            f"The evaluation on '{name}' failed: {batches.why(error)}. Inputs have the shape "
            f"{batches.shapes(inputs)}, targets {batches.shapes(targets)}."
        ) from error
    accuracy = _accuracy(output, targets, getattr(loss, "ignore_index", -100))
    if accuracy is not None:
        found[f"{name}_accuracy{suffix}"] = accuracy
    for metric, function in metrics.items():
        try:
            value = _metric(function, output, targets)
        except Exception as error:
            raise ValueError(
                f"The metric '{metric}' failed on '{name}' ({type(error).__name__}): "
                f"{batches.why(error)}. It must be a function of two arguments, the outputs for a "
                "whole set and its targets, and return a number."
            ) from error
        found[f"{name}_{metric}{suffix}"] = value
    return found


def _metric(function: Callable[[Any, Any], Any], output: Any, targets: Any) -> float:
    try:
        return float(function(output, targets))
    except ValueError:
        found = [leaf for leaf in batches.leaves(output) if leaf.is_floating_point()]
        if all(leaf.isfinite().all() for leaf in found):
            raise
        return math.nan  # the path diverged, and the metric will not have that


def _with_gradients_if_needed(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns, with gradients inside only if it takes some itself."""
    try:
        with torch.no_grad():
            return function(*arguments)
    except RuntimeError as error:
        if "does not require grad" not in str(error):
            raise
    with torch.enable_grad():
        given = function(*arguments)
    return batches.mapped(lambda x: x.detach() if isinstance(x, torch.Tensor) else x, given)


def outputs(model: nn.Module, inputs: Any, targets: Any) -> Any:
    """Return a model's outputs for a whole set."""
    return _outputs(model, inputs, _chunks(model, inputs, targets))


def _outputs(model: nn.Module, inputs: Any, chunks: list[slice]) -> Any:
    if not chunks:
        return _with_gradients_if_needed(model, inputs)
    return torch.cat([_of(model, inputs, part) for part in chunks])


def _of(model: nn.Module, inputs: Any, part: slice) -> Any:
    return _with_gradients_if_needed(model, batches.part(inputs, part))


def _chunks(model: nn.Module, inputs: Any, targets: Any) -> list[slice]:
    """Return the parts of a set for which outputs may be computed on their own.

    None, if it is small or its examples do not lie along the first axis, each on its own: if that
    is time, say. A few examples tell: the first, some at the first cut, and some from all over.
    """
    count = batches.length(inputs, targets)
    if count is None or count <= EVALUATION_CHUNK:
        return []
    probes = ((0, 1), (min(EVALUATION_CHUNK, count - 2) - 2, 1), (0, count // 4))
    if not all(_apart(model, inputs, start, step) for start, step in probes):
        return []
    ends = [*range(EVALUATION_CHUNK, count - 1, EVALUATION_CHUNK), count]  # none of one example
    return [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _apart(model: nn.Module, inputs: Any, start: int, step: int) -> bool:
    """Return whether the outputs of four examples are those of two and two."""
    middle, end = start + 2 * step, start + 4 * step
    parts = [slice(*ends, step) for ends in ((start, end), (start, middle), (middle, end))]
    try:
        together, *apart = (_of(model, inputs, part) for part in parts)
        whole = type(together) is torch.Tensor and len(together) == 4
        return whole and _close(together, torch.cat(apart))
    except Exception:  # it does not take so few, say
        return False


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    scale = float(one.abs().max().nan_to_num(0, 0, 0))
    return one.shape == other.shape and torch.allclose(
        one, other, 1e-3, 1e-3 * scale, equal_nan=True
    )


def _accuracy(output: Any, targets: Any, ignored: int) -> float | None:
    """Return the share of examples whose largest output is that of their class, if there are any.

    None where outputs are not one score for each of several classes, or targets not classes.
    """
    if not (isinstance(output, torch.Tensor) and isinstance(targets, torch.Tensor)):
        return None
    whole = not (targets.is_floating_point() or targets.is_complex())
    if not whole or output.ndim != 2 or targets.ndim != 1 or len(output) != len(targets):
        return None
    counted = targets != ignored
    classes = targets[counted]
    if output.shape[1] < 2 or not len(classes):
        return None
    if classes.min() < 0 or classes.max() >= output.shape[1]:
        return None
    return (output.argmax(1) == targets)[counted].sum().item() / len(classes)
