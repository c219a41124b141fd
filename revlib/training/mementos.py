"""Mementos: all that training can change in a working copy, as a value, and put back in place.

A training step may change more than parameters and buffers: what an optimizer remembers, a counter
in an attribute, a scheduler that hangs on a hook, the content of a closure, a generator of random
numbers. An :class:`Inventory` lists every object that can be reached from the working copy when it
is made, by its path from there. A state then tells, for each object on the list that is not as it
was at the start, what it holds now. Objects on the list are restored in place, so whoever points at
them goes on to do so; what was added later is made anew.

Paths are the same in every process that makes the same working copy; so states can travel.
Not seen is what Python code cannot look into (open files, iterators, locks) and what hangs on no
object (global variables). ``Task.check`` finds by a second replay whether
that matters.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import enum
import functools
import random
import sys
import types
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

Changes = dict[str, Any]


class Ref(NamedTuple):
    """Stands for an object in the content of another one: its path."""

    path: str


class Made(NamedTuple):
    """Stands for a tuple that holds objects."""

    kind: type
    parts: tuple


class Name(NamedTuple):
    """Stands for the values of a tensor that are kept by its name."""

    name: str


class New(NamedTuple):
    """An object that was not there at the start."""

    kind: type
    content: Any


_CONTAINERS = (dict, list, set, collections.deque, bytearray)
_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_LINKS = (types.FunctionType, types.MethodType, types.BuiltinMethodType, functools.partial)
_LINKS += (weakref.ref,)
_SEEN = (torch.Tensor, nn.Module, np.ndarray, *_CONTAINERS, *_GENERATORS, types.CellType)
_RECORDS = (types.SimpleNamespace, argparse.Namespace, collections.UserDict, collections.ChainMap)
_ATOMS = frozenset({type(None), bool, int, float, str})
_SHUT = (type, types.ModuleType, enum.Enum, np.generic, torch.dtype, torch.device)


class _Nothing:
    """What an empty cell holds."""


@functools.cache
def _followed(kind: type) -> bool:
    """Return whether objects of a type are listed: they have content that may change."""
    if issubclass(kind, (*_SEEN, *_LINKS, *_RECORDS)):
        return True
    room = kind.__module__.partition(".")[0]
    shut = issubclass(kind, (*_SHUT, tuple)) or room in sys.stdlib_module_names
    return not shut and not kind.__module__.startswith("torch._")


class Inventory:
    """All objects that can be reached from some roots, by their path, and what they held then.

    Parameters
    ----------
    roots
        Where to begin, by name.
    named
        Tensors whose values the caller keeps, by name; if None, all, by their paths.
    everywhere
        Whether to go on to the methods of classes, and to whatever globals functions use: to ask
        what is there, and not to restore it.
    """

    def __init__(
        self,
        roots: Mapping[str, Any],
        named: Mapping[str, torch.Tensor] | None = None,
        everywhere: bool = False,
    ):
        self.things: dict[str, Any] = {}
        self._refs: dict[int, Ref] = {}
        self._start: Changes = {}
        waiting: list[str] = []

        def met(thing: Any, path: str, key: Any) -> Any:
            if id(thing) not in self._refs:
                path = _below(path, key)
                while path in self.things:  # {"a.b": …, "a": {"b": …}}
                    path += "'"
                self.things[path], self._refs[id(thing)] = thing, Ref(path)
                waiting.append(path)
            return self._refs[id(thing)]

        for name, root in roots.items():
            _encoded(root, met, "", name)
        names = None if named is None else {id(t): Name(name) for name, t in named.items()}
        for path in waiting:
            self._start[path] = _content(self.things[path], met, path, names)
            for key, thing in _used_by(self.things[path]) if everywhere else ():
                _encoded(thing, met, path, key)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the tensors that were there at the start, by path."""
        return ((p, thing) for p, thing in self.things.items() if isinstance(thing, torch.Tensor))

    def changes(self, named: Mapping[str, torch.Tensor]) -> Changes:
        """Return what is not as it was at the start.

        Parameters
        ----------
        named
            Tensors whose values the caller keeps, by name.
        """
        names = {id(tensor): Name(name) for name, tensor in named.items()}
        added: dict[int, tuple[str, Any]] = {}

        def met(thing: Any, path: str, key: Any) -> Any:
            if id(thing) in self._refs:
                return self._refs[id(thing)]
            if id(thing) not in added:
                added[id(thing)] = "new " + _below(path.removeprefix("new "), key), thing
            return Ref(added[id(thing)][0])

        found = {}
        for path, thing in self.things.items():
            content = _content(thing, met, path, names)
            if not _unchanged(content, self._start[path]):
                found[path] = content
        done = 0
        while done < len(added):
            for path, thing in list(added.values())[done:]:
                found[path] = New(type(thing), _content(thing, met, path, names))
                done += 1
        return found

    def restore(self, changes: Changes, values: Mapping[str, torch.Tensor]) -> None:
        """Let everything be as it was when `changes` were noted.

        Parameters
        ----------
        changes
            From :meth:`changes`, of this inventory or one of an equal working copy.
        values
            The values of the tensors that have names.
        """
        new = {path: noted for path, noted in changes.items() if isinstance(noted, New)}
        made = {path: _made(*noted, values) for path, noted in new.items()}

        def here(part: Any) -> Any:
            if type(part) is Ref:
                return made[part.path] if part.path in made else self.things[part.path]
            if type(part) is Made:
                parts = [here(each) for each in part.parts]
                return part.kind(*parts) if hasattr(part.kind, "_fields") else part.kind(parts)
            return part

        def met(thing: Any, path: str, key: Any) -> Any:
            return self._refs.get(id(thing), _Nothing)  # which is not what is to be there

        with torch.no_grad():
            for path, thing in self.things.items():
                content = changes.get(path, self._start[path])
                tensor = isinstance(thing, torch.Tensor)
                if tensor or not _unchanged(_content(thing, met, path), content):
                    _fill(thing, content, here, values)
            for path, noted in new.items():
                _fill(made[path], noted.content, here, values)


def _below(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _encoded(thing: Any, met: Any, path: str, key: Any) -> Any:
    """Return what stands for an object in a content: itself, if it cannot change."""
    if isinstance(thing, tuple):
        parts = tuple(_encoded(each, met, path, f"{key}.{i}") for i, each in enumerate(thing))
        same = all(part is each for part, each in zip(parts, thing, strict=True))
        return thing if same else Made(type(thing), parts)
    return met(thing, path, key) if _followed(type(thing)) else thing


def _attributes(thing: Any) -> dict[str, Any]:
    """Return an object's attributes, but for those that its class says are no state."""
    has_dict, slots, left_out = _kept(type(thing))
    if not has_dict and not slots:
        return {}
    found = dict(thing.__dict__) if has_dict else {}
    for name in left_out:
        found.pop(name, None)
    for name in slots:
        if hasattr(thing, name):
            found[name] = getattr(thing, name)
    return found


@functools.cache
def _kept(kind: type) -> tuple[bool, list[str], tuple[str, ...]]:
    """Return where a class keeps attributes: whether in a dictionary; slots; what is no state."""
    slots = []
    for each in kind.__mro__:
        own = vars(each).get("__slots__", ())
        for name in [own] if isinstance(own, str) else own:
            private = name.startswith("__") and not name.endswith("__")
            slots.append(f"_{each.__name__.lstrip('_')}{name}" if private else name)
    slots = [name for name in slots if name not in ("__dict__", "__weakref__")]
    return kind.__dictoffset__ != 0, slots, getattr(kind, "not_state", ())


def _content(thing: Any, met: Any, path: str, names: Mapping[int, Name] | None = None) -> list:
    """Return what an object holds: a value of its own, its items, its attributes.

    Tensors with a name have that in the place of their values; without `names` it is their path.
    """

    def part(child: Any, key: Any) -> Any:
        # What most attributes hold cannot change.
        return child if type(child) in _ATOMS else _encoded(child, met, path, key)

    own, items = None, []
    if type(thing) in (dict, collections.OrderedDict) and not thing:  # most of a module's are
        return [None, [], {}]
    if isinstance(thing, torch.Tensor):
        name = Name(path) if names is None else names.get(id(thing))
        own = name or thing.detach().clone()
        leaf = thing.is_leaf
        items = [thing.requires_grad if leaf else None, part(thing.grad if leaf else None, "grad")]
        items.append(part(thing._backward_hooks, "hooks"))
        part(thing._post_accumulate_grad_hooks if leaf else None, "hooks after")
    elif isinstance(thing, dict):
        own = thing.default_factory if isinstance(thing, collections.defaultdict) else None
        items = [
            (part(key, f"key {place}"), part(value, key if type(key) in (str, int) else place))
            for place, (key, value) in enumerate(thing.items())
        ]
    elif isinstance(thing, (list, collections.deque)):
        own = thing.maxlen if isinstance(thing, collections.deque) else None
        items = [part(each, place) for place, each in enumerate(thing)]
    elif isinstance(thing, set):
        items = [frozenset(part(each, f"member {i}") for i, each in enumerate(thing))]
    elif isinstance(thing, types.CellType):
        items = [part(_inside(thing), "inside")]
    elif isinstance(thing, np.ndarray):
        own = thing.copy()
    elif isinstance(thing, bytearray):
        own = bytes(thing)
    elif isinstance(thing, _GENERATORS):
        own = _random_state(thing)
    elif isinstance(thing, types.FunctionType):
        if not _of_torch(thing):
            named = [thing.__globals__.get(name) for name in thing.__code__.co_names]
            of_models = [each for each in named if isinstance(each, (nn.Module, torch.Tensor))]
            parts = thing.__closure__, thing.__defaults__, thing.__kwdefaults__, tuple(of_models)
            items = [part(each, f"({place})") for place, each in enumerate(parts)]
    elif isinstance(thing, (types.MethodType, types.BuiltinMethodType)):
        items = [part(thing.__self__, "self"), part(getattr(thing, "__func__", None), "of")]
    elif isinstance(thing, functools.partial):
        items = [part(each, "of") for each in (thing.func, thing.args, thing.keywords)]
    elif isinstance(thing, weakref.ref):
        items = [part(thing(), "of")]
    attributes = _attributes(thing)
    return [own, items, attributes and {key: part(each, key) for key, each in attributes.items()}]


def _used_by(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield what the code of an object uses, by name: globals of a function, methods of a class."""
    if isinstance(thing, types.FunctionType):
        if "site-packages" in thing.__code__.co_filename or _of_libraries(thing):
            return
        codes = [thing.__code__]
        for code in codes:  # functions inside it are constants of it
            codes += (each for each in code.co_consts if isinstance(each, types.CodeType))
            for name in code.co_names:
                if name in thing.__globals__:
                    yield name, thing.__globals__[name]
        return
    for kind in type(thing).__mro__:
        if not _of_libraries(kind):
            yield from vars(kind).items()


def _of_torch(thing: Any) -> bool:
    return (thing.__module__ or "").startswith("torch.")


def _of_libraries(thing: Any) -> bool:
    room = (thing.__module__ or "").partition(".")[0]
    return room == "torch" or room in sys.stdlib_module_names


def _inside(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return _Nothing


def _random_state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.getstate() if hasattr(generator, "getstate") else generator.get_state()


def _made(kind: type, content: list, values: Mapping[str, torch.Tensor]) -> Any:
    """Return a new object of a type, to be filled."""
    if issubclass(kind, torch.Tensor):
        value = _value(content[0], values).clone()
        return nn.Parameter(value, False) if issubclass(kind, nn.Parameter) else value
    if issubclass(kind, np.ndarray):
        return content[0].copy()
    if issubclass(kind, _GENERATORS):
        if kind is np.random.Generator:
            return kind(getattr(np.random, content[0]["bit_generator"])())
        return kind()
    if issubclass(kind, _LINKS):
        raise ValueError(
            f"A {kind.__name__} that the training made on the way would have to be made anew for a "
            "replay, which is not possible. Let the model, the loss or the optimizer hold it from "
            "the start, or hold numbers and tensors in its place."
        )
    made = kind.__new__(kind)
    if issubclass(kind, collections.deque):
        collections.deque.__init__(made, maxlen=content[0])
    if issubclass(kind, collections.defaultdict):
        made.default_factory = content[0]
    return made


def _value(own: Name | torch.Tensor, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return values[own.name] if type(own) is Name else own


def _fill(thing: Any, content: list, here: Any, values: Mapping[str, torch.Tensor]) -> None:
    """Let an object hold what is noted."""
    if isinstance(thing, _GENERATORS):
        _set_random_state(thing, content[0])
        return
    own, items, attributes = content
    if isinstance(thing, torch.Tensor):
        _fill_tensor(thing, _value(own, values), *map(here, items))
    elif isinstance(thing, dict):
        thing.clear()
        for key, value in items:
            thing[here(key)] = here(value)
    elif isinstance(thing, (list, collections.deque)):
        thing.clear()
        thing.extend(map(here, items))
    elif isinstance(thing, set):
        thing.clear()
        thing.update(map(here, items[0]))
    elif isinstance(thing, types.CellType):
        if items[0] is _Nothing:
            del thing.cell_contents
        else:
            thing.cell_contents = here(items[0])
    elif isinstance(thing, np.ndarray) and thing.shape == own.shape:
        np.copyto(thing, own)
    elif isinstance(thing, bytearray):
        thing[:] = own
    for name in _attributes(thing).keys() - attributes.keys():
        _forget(thing, name)
    for name, value in attributes.items():
        _remember(thing, name, here(value))


def _fill_tensor(
    tensor: torch.Tensor,
    value: torch.Tensor,
    requires_grad: bool | None,
    grad: torch.Tensor | None,
    hooks: Any,
) -> None:
    alike = all(
        getattr(tensor, each) == getattr(value, each) for each in ("shape", "dtype", "device")
    )
    try:
        if not alike:
            raise RuntimeError
        tensor.copy_(value)
    except RuntimeError:  # also where several entries lie in one place, as after expand()
        tensor.data = value.clone()
    if tensor.is_leaf and requires_grad is not None:
        if tensor.requires_grad != requires_grad:
            tensor.requires_grad_(requires_grad)
        tensor.grad = grad
    if tensor._backward_hooks is not hooks:
        tensor._backward_hooks = hooks


def _set_random_state(generator: Any, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    else:
        getattr(generator, "setstate", getattr(generator, "set_state", None))(state)


def _remember(thing: Any, name: str, value: Any) -> None:
    # Past __setattr__, which modules and frozen classes have for other purposes.
    if name in _kept(type(thing))[1]:
        object.__setattr__(thing, name, value)
    else:
        thing.__dict__[name] = value


def _forget(thing: Any, name: str) -> None:
    if name in _kept(type(thing))[1]:
        object.__delattr__(thing, name)
    else:
        del thing.__dict__[name]


def difference(one: Any, other: Any, path: str = "") -> str | None:
    """Return where two states differ in some bit, None if they do not."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            if key not in one or key not in other:
                return _below(path, key)
            if found := difference(one[key], other[key], _below(path, key)):
                return found
        return None
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        if len(one) != len(other):
            return path
        pairs = zip(one, other, strict=True)
        return next((path for a, b in pairs if difference(a, b, path)), None)
    return None if _equal(one, other) else path


def _equal(one: Any, other: Any) -> bool:
    """Return whether two contents, or parts of them, are the same bit by bit."""
    if one is other:
        return True
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return type(one) is type(other) and _same_values(one, other)
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        alike = type(one) is type(other) and (one.shape, one.dtype) == (other.shape, other.dtype)
        return alike and bool(((one == other) | ((one != one) & (other != other))).all())
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return bool(one == other) or (one != one and other != other)


def _unchanged(content: list, other: list) -> bool:
    """Return whether two contents are the same; in doubt they are not."""
    return content[1:] == other[1:] and _equal(content[0], other[0])


def _same_values(one: torch.Tensor, other: torch.Tensor) -> bool:
    if (one.shape, one.dtype, one.layout) != (other.shape, other.dtype, other.layout):
        return False
    if one.layout is not torch.strided:
        one, other = one.to_dense(), other.to_dense()
    return torch.equal(one, other) or torch.allclose(one, other, 0, 0, equal_nan=True)


def only_torch(made: Any) -> bool:
    """Return whether all that is trained is of torch's own classes.

    These draw no random numbers but torch's.
    """
    parts = list(vars(made).values()) if hasattr(made, "__dict__") else [made]
    parts += [each for part in parts if isinstance(part, nn.Module) for each in part.modules()]
    held = [each for part in parts for each in getattr(part, "__dict__", {}).items()]
    hooks = [content for name, content in held if "hooks" in name and isinstance(content, dict)]
    hooks += [
        of
        for part in parts
        if isinstance(part, nn.Module)
        for parameter in part.parameters(recurse=False)
        for of in (parameter._backward_hooks, parameter._post_accumulate_grad_hooks)
    ]
    patched = any(isinstance(content, types.FunctionType) for _, content in held)
    return not (patched or any(hooks)) and all(
        (type(part) if not isinstance(part, types.FunctionType) else part).__module__.startswith(
            "torch."
        )
        for part in parts
    )


_NUMPYS = np.random.MT19937(0)  # generates NumPy's global random numbers during a step


def copied(*things: Any) -> tuple[Any, ...]:
    """Return copies of objects, which may know of each other.

    Unlike ``copy.deepcopy`` it copies what functions close over, and hooks on parameters.
    """
    seen = list(
        Inventory({str(place): thing for place, thing in enumerate(things)}).things.values()
    )
    memo: dict[int, Any] = {}
    cells = {
        id(thing): (thing, types.CellType()) for thing in seen if type(thing) is types.CellType
    }
    for function in seen:
        if isinstance(function, types.FunctionType) and function.__closure__:
            closure = tuple(
                cells[id(cell)][1] for cell in function.__closure__ if id(cell) in cells
            )
            if len(closure) == len(function.__closure__):  # torch's own are left alone
                memo[id(function)] = _twin(function, closure)
    copies = copy.deepcopy(things, memo)
    for cell, twin in cells.values():
        if _inside(cell) is not _Nothing:
            twin.cell_contents = copy.deepcopy(cell.cell_contents, memo)
    for thing in seen:
        if isinstance(thing, nn.Parameter) and id(thing) in memo:
            for hook in (thing._backward_hooks or {}).values():
                memo[id(thing)].register_hook(copy.deepcopy(hook, memo))
            for hook in (thing._post_accumulate_grad_hooks or {}).values():
                memo[id(thing)].register_post_accumulate_grad_hook(copy.deepcopy(hook, memo))
    return copies


def _twin(function: types.FunctionType, closure: tuple[types.CellType, ...]) -> Any:
    """Return a function with another closure."""
    twin = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, closure
    )
    twin.__kwdefaults__, twin.__qualname__ = function.__kwdefaults__, function.__qualname__
    twin.__module__ = function.__module__
    twin.__dict__.update(function.__dict__)
    return twin


@contextlib.contextmanager
def seeded(seed: int, cuda: list[torch.device], python: bool) -> Iterator[None]:
    """Let global random numbers begin at a seed, and be the caller's again afterwards.

    Parameters
    ----------
    seed
        Any whole number.
    cuda
        The graphics cards whose generators count.
    python
        Whether those of `random` and NumPy count too, which takes 50 microseconds.
    """
    seed %= 2**64
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed is 20 times slower
        for _ in cuda:
            torch.cuda.manual_seed(seed)
        if not python:
            yield
            return
        before, numpys = random.getstate(), np.random.get_bit_generator()
        random.seed(seed)
        # NumPy's state is not copied, which is slow, but set aside.
        np.random.set_bit_generator(_NUMPYS)
        np.random.seed([seed % 2**32, seed >> 32])
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_bit_generator(numpys)
