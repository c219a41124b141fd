"""Batches: what a step is taken on. Streams that are drawn once, and batches of any shape."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch


class Stream:
    """Batches that can be run through only once, or come shuffled anew: drawn once, and kept.

    Whoever copies a task shares its stream, and so has the same batches. Each is kept as it was
    drawn, also where a loader fills one buffer again and again.

    Parameters
    ----------
    source
        Any iterable.
    """

    def __init__(self, source: Iterable[Any]):
        self._source = source
        self._drawn: list[Any] = []
        self._rest: Iterator[Any] | None = None

    def __getitem__(self, index: int) -> Any:
        """Return batch ``B_{index + 1}``."""
        self.draw(index + 1)
        return self._drawn[index]

    def draw(self, steps: int) -> int:
        """Draw so many batches, and return how many there are, which may be fewer.

        Raises
        ------
        ValueError
            If one cannot be drawn.
        """
        try:
            if self._rest is None:
                self._rest = iter(self._source)
            missing = max(0, steps - len(self._drawn))
            self._drawn.extend(map(copied, itertools.islice(self._rest, missing)))
        except Exception as error:
            where = f"Batch {len(self._drawn) + 1} cannot be drawn from the "
            raise ValueError(
                f"{where}{type(self._source).__name__} ({type(error).__name__}): {why(error)}."
            ) from error
        return len(self._drawn)

    def __deepcopy__(self, memo: dict[int, Any]) -> Stream:
        """Return the same stream: what is drawn stays, whatever else is copied."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: the batches drawn; if none is, what they come from.

        Raises
        ------
        TypeError
            If none is drawn, and the source can be run through only once.
        """
        if self._rest is not None:
            return {"_source": (), "_drawn": self._drawn, "_rest": iter(())}
        if hasattr(self._source, "__next__"):
            raise TypeError(
                "A stream that can be run through only once, such as a generator, cannot be sent "
                "to another process before its batches are drawn. Call task.require(steps) first."
            )
        return vars(self)


def mapped(function: Callable[[Any], Any], thing: Any) -> Any:
    """Return a structure of dictionaries, lists and tuples with all that is in it replaced."""
    if isinstance(thing, dict):
        changed = copy.copy(thing)
        for key, value in thing.items():
            changed[key] = mapped(function, value)
        return changed
    if isinstance(thing, tuple) and hasattr(thing, "_fields"):
        return type(thing)(*(mapped(function, part) for part in thing))
    if type(thing) in (list, tuple):
        return type(thing)(mapped(function, part) for part in thing)
    return function(thing)


def leaves(thing: Any) -> list[torch.Tensor | np.ndarray]:
    """Return the tensors and arrays of a structure."""
    found: list[Any] = []
    # Each stays in its place: a packed sequence is made of nothing else.
    mapped(lambda leaf: found.append(leaf) or leaf, thing)
    return [leaf for leaf in found if isinstance(leaf, (torch.Tensor, np.ndarray))]


def copied(thing: Any) -> Any:
    """Return a structure with tensors and arrays of its own."""

    def of(leaf: Any) -> Any:
        return leaf.detach().clone() if isinstance(leaf, torch.Tensor) else copy.deepcopy(leaf)

    return mapped(of, thing)


def versions(thing: Any) -> list[int]:
    """Return how often each tensor of a structure has been changed in place."""
    tensors = (leaf for leaf in leaves(thing) if isinstance(leaf, torch.Tensor))
    return [tensor._version for tensor in tensors if not tensor.is_inference()]


def moved(thing: Any, device: str) -> Any:
    """Return a structure on another device."""
    # Batches of graphs and packed sequences have such a method too.
    return mapped(lambda leaf: leaf.to(device) if hasattr(leaf, "to") else leaf, thing)


def part(thing: Any, chosen: slice) -> Any:
    """Return some examples of a structure."""
    return mapped(lambda leaf: leaf[chosen] if isinstance(leaf, torch.Tensor) else leaf, thing)


def as_tensors(thing: Any) -> Any:
    """Return a structure with tensors in the place of NumPy's arrays.

    Raises
    ------
    ValueError
        If it holds something that is no tensor or cannot be compared with its copy.
    """

    def of(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor) and leaf.is_nested:
            raise ValueError("Nested tensors cannot be compared. Give a list of tensors instead.")
        if not isinstance(leaf, np.ndarray):
            return leaf
        if leaf.dtype == object:
            if any(isinstance(each, (torch.Tensor, np.ndarray)) for each in leaf.flat):
                raise ValueError(
                    "NumPy's arrays of arrays or tensors cannot be compared. Give a list of "
                    "tensors instead."
                )
            return leaf
        as_it_lies = leaf.flags.writeable and min(leaf.strides, default=0) >= 0
        try:
            return torch.from_numpy(leaf if as_it_lies else leaf.copy())
        except TypeError as error:
            raise ValueError(
                f"Of a NumPy array of type {leaf.dtype} no tensor can be made. Give numbers, or a "
                "list of what is none."
            ) from error

    return mapped(of, thing)


def why(error: Exception) -> str:
    """Return an error's message, to be put into a sentence."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def shapes(thing: Any) -> str:
    """Return the shapes of a structure in words."""
    if isinstance(thing, torch.Tensor):
        return str(tuple(thing.shape))
    if isinstance(thing, dict):
        return "{" + ", ".join(f"{key}: {shapes(value)}" for key, value in thing.items()) + "}"
    if isinstance(thing, (list, tuple)):
        return "[" + ", ".join(map(shapes, thing)) + "]"
    return f"of a {type(thing).__name__}"


def pair(batch: Any, number: str) -> tuple[Any, Any]:
    """Return a batch as inputs and targets.

    Raises
    ------
    ValueError
        If it is not such a pair, or holds what :func:`as_tensors` does not take.
    """
    if type(batch) in (tuple, list) and len(batch) == 2:
        inputs, targets = batch
        if all(type(part) is torch.Tensor and not part.is_nested for part in batch):
            return inputs, targets
        return as_tensors(inputs), as_tensors(targets)
    what = f"a {type(batch).__name__}"
    if isinstance(batch, (tuple, list, dict)):
        what += f" of {len(batch)}"
    if isinstance(batch, dict):
        what += f" ({', '.join(map(str, batch))})"
    raise ValueError(
        f"{number} is {what}, not a pair (inputs, targets). Make pairs of them, in which "
        "the inputs may be a dictionary or a tuple, for example ((batch['x'], batch['y']) for "
        "batch in loader); or say yourself what a step is: "
        "revlib.Task.of(make, step, evaluate, batches)."
    )


def examples(name: str, given: Any) -> tuple[Any, Any]:
    """Return an evaluation set as inputs and targets.

    Parameters
    ----------
    name
        Its name.
    given
        A pair, a data set of pairs, or what yields batches that are pairs.

    Raises
    ------
    ValueError
        If it is nothing of the kind, or empty.
    """
    label = f"The evaluation set '{name}'"
    if isinstance(given, torch.utils.data.Dataset) and hasattr(given, "__len__"):
        given = torch.utils.data.DataLoader(given, batch_size=max(1, len(given)))
    if isinstance(given, torch.utils.data.DataLoader) or hasattr(given, "__next__"):
        parts = [pair(batch, f"A batch of the evaluation set '{name}'") for batch in given]
        if not parts:
            raise ValueError(f"{label} has no examples. Give it some, or leave it out.")
        try:
            given = parts[0] if len(parts) == 1 else _joined(parts)
        except (RuntimeError, TypeError, KeyError) as error:
            raise ValueError(
                f"The batches of the evaluation set '{name}' cannot be put together: {why(error)}. "
                "Give it as one pair (inputs, targets)."
            ) from error
    inputs, targets = pair(given, label)
    if any(len(tensor) == 0 for tensor in leaves(inputs) if tensor.ndim):
        raise ValueError(f"{label} has no examples. Give it some, or leave it out.")
    return inputs, targets


def _joined(parts: list[Any]) -> Any:
    """Return structures of the same kind as one, joined along the first axis."""
    first = parts[0]
    if isinstance(first, torch.Tensor):
        return torch.cat(parts)
    if isinstance(first, dict):
        joined = copy.copy(first)
        for key in first:
            joined[key] = _joined([part[key] for part in parts])
        return joined
    if isinstance(first, (list, tuple)):
        return type(first)(_joined(list(each)) for each in zip(*parts, strict=True))
    raise TypeError(f"they hold a {type(first).__name__}")


def length(inputs: Any, targets: Any) -> int | None:
    """Return how many examples there are, along the first axis; None if that is not clear."""
    counts = {len(leaf) if leaf.ndim else None for leaf in leaves((inputs, targets))}
    return counts.pop() if len(counts) == 1 and leaves(inputs) else None


@dataclasses.dataclass(frozen=True)
class Moved:
    """Batches on another device."""

    batches: Any
    device: str

    def __getitem__(self, index: int) -> Any:
        """Return batch ``B_{index + 1}``."""
        return moved(as_tensors(self.batches[index]), self.device)
