"""Trials: whether a task can be replayed exactly, found out before any work is done."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from revlib.training import batches, mementos
from revlib.training.maps import Trainer, WorkingCopy

WAY_OUT = (
    "Give a function that makes the model, Task(model=make_model, …), with what it needs inside: "
    "it is called for every copy."
)

TOGETHER = (
    "Make the model, and the loss or the hook that uses it, in one function, so that they know "
    "each other and are copied together. A metric sees outputs and targets only; revlib.Task.of "
    "measures whatever it likes."
)


TRIED = 8
"""Steps that are taken twice: what a step hides may show in a later one only, after a warm-up."""

ASKED = 5
"""How often each of their batches is asked for again: a random one may come out the same."""


def check(task: Any, steps: int) -> None:
    """Try a few steps, an evaluation, and the steps once more; for ``Task.check``.

    What is found is noted in the task: whether batches are changed in place, so that each replay
    needs a copy of its own; and whether evaluation leaves traces, which are then removed.

    Raises
    ------
    ValueError
        If something does not work.
    """
    task.copies = task.restores = False
    with _given_is_left_alone(task):
        _try(task, steps)


def _try(task: Any, steps: int) -> None:
    first = task.first()
    _no_single_examples(task, first)
    trainer, other = Trainer(task), Trainer(task)
    ordinary = isinstance(trainer.working_copy, WorkingCopy)
    if ordinary:
        _stands_alone(trainer, task)
        _shares_as_before(trainer, task.model)
        if first is not None:
            _fits(other, batches.copied(first))
            other = Trainer(task)
        if any(parameter.is_meta for parameter in trainer.working_copy.model.parameters()):
            return  # nothing has values there
    start = trainer.state()
    found = mementos.difference(vars(start), vars(other.state()))
    if found or (found := ordinary and _differently_set(trainer, other)):
        raise ValueError(
            f"What is made for training is another one each time: '{found}' differs. Let the "
            "function that makes it seed what it draws."
        )
    if first is None:
        _changed_by_evaluation(task, trainer, None)
        return
    given = _first(task, steps)
    for n, batch in enumerate(given * ASKED):
        if not _same(batch, task.batch(n % len(given) + 1)):
            raise ValueError(
                f"Batch {n % len(given) + 1} is another one each time that it is asked for. Make a "
                "list of the batches, so that every order sees the same."
            )
    tried = batches.copied(given)
    changed = _changed_by_evaluation(task, trainer, None)  # also of a state that is not trained
    restores = mementos.difference(vars(start), vars(trainer.state())) is not None
    trainer.load(start)
    for n, batch in enumerate(tried, 1):
        trainer.advance(n, batch)
    changed = not _same(given, tried) or changed
    after = trainer.state()
    if not ordinary and mementos.difference(vars(start), vars(after)) is None:
        raise ValueError(
            f"{len(given)} steps changed nothing of what make() has returned. A step works in "
            "place, on what it is given: what it returns is not looked at."
        )
    if found := mementos.difference(vars(start), vars(other.state())):
        trainer.load(start)
        raise ValueError(
            f"A step on one working copy changed another one: they share '{found}', which the "
            "functions that make model or optimizer have from outside. Let them make it anew each "
            "time, inside."
        )
    changed = _changed_by_evaluation(task, trainer, 1) or changed
    restores = mementos.difference(vars(after), vars(trainer.state())) is not None or restores
    trainer.load(start)
    for n, batch in enumerate(given, 1):
        trainer.load(trainer.state())  # as orders do that begin where others have come
        trainer.advance(n, batches.copied(batch))
    if found := mementos.difference(vars(after), vars(trainer.state())):
        raise ValueError(
            "The first steps gave something else when they were taken again from the same state: "
            f"'{found}' differs. So a step depends on what is not part of that state (a global "
            "variable, an iterator, a file, a graph that it keeps, memory that tensors share which "
            "it has made), or its sums are not taken in a fixed order (on a "
            "graphics card see torch.use_deterministic_algorithms). Let the model, the loss or the "
            "optimizer hold what changes, as a tensor, number, list or dictionary; or say with "
            "revlib.Task.of what a step is."
        )
    task.copies, task.restores = changed, restores


def first_steps(task: Any) -> list[dict[str, torch.Tensor]]:
    """Return the tensors that are trained at the start, and after the steps that are tried."""
    trainer = Trainer(task)
    start = trainer.state().model
    for n, batch in enumerate(_first(task, TRIED), 1):
        trainer.advance(n, batches.copied(batch))
    return [start, trainer.state().model]


def check_elsewhere(task: Any, expected: list[dict[str, torch.Tensor]]) -> None:
    """Make sure that the first steps come out in this process as they do where it was started.

    Up to rounding: arrays may lie otherwise in memory.

    Parameters
    ----------
    task
        As it came over.
    expected
        From :func:`first_steps` there.

    Raises
    ------
    ValueError
        If they do not.
    """
    for name, ended in first_steps(task)[1].items():
        start, there = (tensors[name] for tensors in expected)
        if not (there.is_floating_point() and there.layout is torch.strided and there.numel()):
            continue
        moved = (there - start).abs().max()
        rounding = 100 * torch.finfo(there.dtype).eps * there.abs().max()
        if (ended - there).abs().max() > 1e-3 * moved + rounding:
            raise ValueError(
                f"In another process the first steps give something else: '{name}' differs. So the "
                "task depends on what was set in this process alone: a global variable of a "
                "module, a hook on all optimizers or modules. Compute with workers=1; or let the "
                "model, the loss or the optimizer hold it."
            )


def same_first_step(task: Any, kind: Callable[[Any], Any]) -> bool:
    """Return whether another kind of trainer takes the first step as the plain loop does.

    It is tried in double precision. A trainer that holds several chains is tried with two, at the
    start and a step further, and may not be of a model that keeps more than its tensors.

    Parameters
    ----------
    task
        A :class:`revlib.training.tasks.Task` whose batches are pairs of tensors.
    kind
        Makes the trainer.
    """
    model, loss = (
        copy.deepcopy(each).double() if isinstance(each, nn.Module) else each
        for each in (task.model, task.loss)
    )
    batch = tuple(
        tensor.double() if tensor.is_floating_point() else tensor for tensor in task.batch(1)
    )
    tried = dataclasses.replace(task, model=model, loss=loss, batches=[batch], evaluation={})
    plain, trainer = Trainer(tried), kind(tried)
    chains = min(2, trainer.chains)
    states = [plain.state()]
    for _ in range(chains):
        plain.apply(1)
        states.append(plain.state())
    if chains > 1 and states[1].rest:
        return False
    moved = max(
        float((states[1].model[name] - states[0].model[name]).abs().max())
        for name, _ in model.named_parameters()
    )
    try:
        for chain in range(chains):
            trainer.load(states[chain], chain)
        trainer.apply(1, chains)
    except RuntimeError:  # such as a view of what lies in memory in another order
        return False
    for chain, expected in enumerate(states[1 : chains + 1]):
        found = trainer.model(chain)
        for name, value in (*found.named_parameters(), *found.named_buffers()):
            if not torch.allclose(value, expected.model[name], rtol=1e-8, atol=1e-8 * moved):
                return False
    return True


def _first(task: Any, steps: int) -> list[Any]:
    """Return the batches of the first steps that are to be tried, as far as there are any."""
    found = []
    with contextlib.suppress(IndexError):
        for n in range(1, max(1, min(steps, TRIED)) + 1):
            found.append(task.batch(n))
    return found


def _no_single_examples(task: Any, first: Any) -> None:
    stream = task.batches.batches if isinstance(task.batches, batches.Moved) else task.batches
    if not isinstance(stream, torch.utils.data.Dataset) or type(first) not in (tuple, list):
        return
    if not any(isinstance(part, torch.Tensor) and part.ndim for part in first[1:]):
        raise ValueError(
            "The batches are a data set of single examples. Give a loader of it: "
            "torch.utils.data.DataLoader(dataset, batch_size=8, shuffle=True)."
        )


def _stands_alone(trainer: Trainer, task: Any) -> None:
    """Make sure that a working copy, or a metric, does not use the model that was given."""
    if not isinstance(task.model, nn.Module):
        return
    given = {id(part) for part in (*task.model.modules(), *task.model.parameters())}
    roots = {**vars(trainer.working_copy), "metrics": task.metrics}
    for path, thing in mementos.Inventory(roots, everywhere=True).things.items():
        if id(thing) in given:
            raise ValueError(
                "A copy of the model would go on to use the model that was given: a function that "
                f"was made for that one leads to it, by '{path}'. {TOGETHER} {WAY_OUT}"
            )


@contextlib.contextmanager
def _given_is_left_alone(task: Any) -> Iterator[None]:
    """Make sure that nothing happens to the model that was given."""
    model = getattr(task, "model", None)
    own = list(model.parameters()) if isinstance(model, nn.Module) else []
    before = [(parameter.grad, parameter._version) for parameter in own]
    yield
    now = [(parameter.grad, parameter._version) for parameter in own]
    if any(a is not b or n != m for (a, n), (b, m) in zip(before, now, strict=True)):
        for parameter, (grad, _) in zip(own, before, strict=True):
            parameter.grad = grad
        raise ValueError(
            "Training a copy of the model leaves gradients, or new values, on the model that was "
            f"given: something that a step uses leads to that one. {TOGETHER} {WAY_OUT}"
        )


def _differently_set(*trainers: Trainer) -> str | None:
    """Return which setting differs in the optimizers of two working copies."""
    one, other = (
        {
            f"optimizer.param_groups.{place}.{name}": value
            for place, group in enumerate(trainer.working_copy.optimizer.param_groups)
            for name, value in group.items()
            if name != "params"
        }
        for trainer in trainers
    )
    return mementos.difference(one, other)


def _shares_as_before(trainer: Trainer, model: Any) -> None:
    """Make sure that what lies in the same memory in a model does so in its working copy."""
    if not isinstance(model, nn.Module):
        return
    given = _places(mementos.Inventory({"model": model}).things)
    copied = _places(trainer.inventory.things)
    together: dict[int, list[str]] = {}
    for path, place in given.items():
        together.setdefault(place, []).append(path)
    for paths in together.values():
        if len({copied[path] for path in paths if path in copied}) > 1:
            raise ValueError(
                f"A copy of the model would lose that {' and '.join(paths)} lie in the same "
                f"memory. Let the model hold one of them, and use that. {WAY_OUT}"
            )


def _places(things: Mapping[str, Any]) -> dict[str, int]:
    """Return where the values of tensors and arrays lie in memory, by path."""
    found = {}
    for path, thing in things.items():
        if isinstance(thing, torch.Tensor) and thing.layout is torch.strided and not thing.is_meta:
            found[path] = thing.untyped_storage().data_ptr()
        elif isinstance(thing, np.ndarray):
            while isinstance(thing.base, np.ndarray):
                thing = thing.base
            found[path] = thing.__array_interface__["data"][0]
    return {path: place for path, place in found.items() if place}  # 0: it is empty


def _fits(trainer: Trainer, batch: tuple[Any, Any]) -> None:
    """Make sure that the model's output on a batch fits the loss."""
    (inputs, targets), made = batch, trainer.working_copy
    try:
        with mementos.seeded(trainer.task.seed, [], python=True), warnings.catch_warnings():
            warnings.filterwarnings("error", message="Using a target size")  # it would broadcast
            loss = made.loss(made.model(inputs), targets)
            if loss.numel() != 1:
                raise ValueError(f"the loss has the shape {tuple(loss.shape)}, not one value")
    except Exception as error:
        raise ValueError(
            f"The model's output on the first batch does not fit the loss: {batches.why(error)}. "
            f"Inputs have the shape {batches.shapes(inputs)}, targets {batches.shapes(targets)}."
        ) from error


def _changed_by_evaluation(task: Any, trainer: Trainer, last: int | None) -> bool:
    """Evaluate, and return whether the evaluation sets were changed by it; they are put back."""
    given = task.evaluation
    task.copies = True  # until it is known that nothing is changed, this goes for the last batch
    try:
        task.evaluation = tried = batches.copied(given)
        trainer.evaluate(last)
    finally:
        task.evaluation, task.copies = given, False
    return not _same(given, tried)


def _same(one: Any, other: Any) -> bool:
    """Return whether two structures hold the same tensors and arrays."""
    pairs = zip(batches.leaves(one), batches.leaves(other), strict=True)
    return all(mementos.difference(a, b) is None for a, b in pairs)
