"""Which code determines a number: all that can be reached from the functions that compute it.

The source is read, not run. A *definition* is whatever a statement at the top level of a module
gives a name: a function, a class with all its methods, a constant. Where its text mentions a name,
the name is followed, through imports, to the definition that it stands for. When in doubt a
definition counts: a result that goes stale for nothing costs time, one that does not go stale
misleads.

Annotations are not followed, since they determine no numbers; but those of a class's fields are,
since they tell of which classes its parts are. Not seen is what a text does not mention: modules
and names that are put together at run time, functions that enter themselves in a table by a
decorator, changes that one module makes in another. Libraries count by the names that are used of
them, not by their code.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from revlib.store import provenance

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_SILENT = _Function | ast.ClassDef | ast.Import | ast.ImportFrom | ast.Pass
_TYPING = ("TYPE_CHECKING", "typing.TYPE_CHECKING")
_Chain = tuple[str, ...]
_Imports = dict[str, list[tuple[str, _Chain]]]


def code(*roots: Callable | type | str) -> dict[str, str]:
    """Return a hash of each definition that can be reached, blind to comments and docstrings.

    Parameters
    ----------
    *roots
        From where: functions, classes, callable objects (which stand for their class), or dotted
        names, ``"revlib.training.settings.build"`` or, for all of a module, ``"revlib.orders"``. A
        function made inside another one stands for that one; callables that it holds, as a partial
        one holds its arguments, are roots too. What is defined in a test or a notebook counts with
        what it uses of its own file or cell.

    Returns
    -------
    dict
        By dotted name, sorted: ``revlib.training.settings.build``,
        ``revlib.experiments.remedies.FEWER``. The name of a module stands for what it does besides
        when it is imported.

    Raises
    ------
    ValueError
        If a root is of no such kind, is not there, or has no source that can be read; or if a
        module that is reached imports everything from another one with a star.
    """
    return _package().code(*roots)


@functools.cache
def _package() -> _Package:
    return _Package(Path(importlib.util.find_spec("revlib").origin).parent)


@dataclass(frozen=True)
class _Statement:
    """A statement at the top level of a module: its lines and bare text, and to what it belongs."""

    node: ast.stmt
    lines: range
    text: str
    owners: set[str]


class _Module:
    """What a source file defines, and where the names come from that it imports.

    Parameters
    ----------
    name
        Its dotted name.
    source
        Its text.
    parent
        The package from which its relative imports start.
    imports
        What is known to be imported without being seen in the text, as :func:`_imports` returns
        it.
    """

    def __init__(self, name: str, source: str, parent: str = "", imports: _Imports | None = None):
        body, lines, last = ast.parse(source).body, provenance.bare(source), 0
        bound = {each for node in body for each in _bound(node)}
        self.name, self.parent = name, parent
        leaves = [leaf for node in body for leaf in _leaves(node)]
        self.imports = (imports or {}) | _imports(leaves, parent)
        self.statements: list[_Statement] = []
        self.definitions: dict[str, list[_Statement]] = {}
        for node in body:
            # From where the one before ends: decorators stand above the line of a definition.
            rows = range(min(last + 1, node.lineno), node.end_lineno + 1)
            text = "\n".join(lines[row - 1] for row in rows if lines[row - 1])
            statement = _Statement(node, rows, text, _owners(node, bound))
            self.statements.append(statement)
            for owner in statement.owners:
                self.definitions.setdefault(owner, []).append(statement)
            last = node.end_lineno


_parsed = functools.cache(_Module)
"""Modules by name and text: what copies of a package have in common is parsed once."""

_Definition = tuple[_Module | None, str]
"""A module and a name in it, "" for what names nothing; or None and a dotted name outside."""


class _Package:
    """The source of a package.

    Parameters
    ----------
    folder
        Where it is; called like the package.
    """

    def __init__(self, folder: Path):
        paths = [path.relative_to(folder.parent) for path in folder.rglob("*.py")]
        self.files = {
            ".".join(path.with_suffix("").parts).removesuffix(".__init__"): folder.parent / path
            for path in paths
        }
        self.module = functools.cache(self._module)
        self.read = functools.cache(self._read)
        self.hashes = functools.cache(self._hashes)

    def code(self, *roots: Callable | type | str) -> dict[str, str]:
        """Return what :func:`code` returns."""
        each = (self._defined(root) for root in _unfolded(roots))
        return dict(self.hashes(frozenset().union(*each)))

    def _hashes(self, roots: frozenset[_Definition]) -> dict[str, str]:
        """Return a hash of each definition that can be reached from some."""
        texts: dict[_Definition, str] = {}
        pending = list(roots)
        while pending:
            definition = pending.pop()
            if definition not in texts:
                texts[definition], references = self.read(*definition)
                pending += references
        hashed: dict[str, set[str]] = {}
        for definition, text in texts.items():  # two cells of a notebook may use the same name
            hashed.setdefault(_dotted(definition), set()).add(text)
        return {
            name: provenance.digest("\n".join(sorted(found)))[:8]
            for name, found in sorted(hashed.items())
        }

    def _module(self, name: str) -> _Module:
        path = self.files[name]
        parent = name if path.name == "__init__.py" else name.rpartition(".")[0]
        return _parsed(name, path.read_text(encoding="utf-8"), parent)

    def _read(self, module: _Module, name: str) -> tuple[str, set[_Definition]]:
        """Return the text that is hashed of a definition, and the definitions it refers to."""
        statements = module.definitions[name]
        nodes = [statement.node for statement in statements]
        text = [statement.text for statement in statements]
        local = _imports((each for node in nodes for each in ast.walk(node)), module.parent)
        # What stands at the top of a module, or of the packages around it, is run before it.
        above = {name for name in self.files if f"{module.name}.".startswith(f"{name}.")}
        around = {module, *map(self.module, above)}
        references = {(each, "") for each in around if "" in each.definitions}
        for chain in sorted({chain for node in nodes for chain in _references(node)}):
            found = self._name(module, chain, module.imports)
            found |= self._name(module, chain, local)
            if found:
                text.append(f"{'.'.join(chain)}: {', '.join(sorted(map(_dotted, found)))}")
            references |= {each for each in found if each[0] is not None}
        return "\n".join(text), references

    def _name(
        self, module: _Module, chain: _Chain, imports: _Imports, seen: frozenset = frozenset()
    ) -> set[_Definition]:
        """Return what a name in a module, with attributes, may stand for; nothing if built in."""
        for source, _ in imports.get("*", ()):
            if source in self.files:
                raise ValueError(
                    f"{module.name} imports all of {source} with a star. Import by name, so that "
                    "it can be seen what is used."
                )
        found = {(module, chain[0])} if chain[0] in module.definitions else set()
        for source, attributes in imports.get(chain[0], ()):
            found |= self._attribute(source, (*attributes, *chain[1:]), seen)
        return found

    def _attribute(self, name: str, chain: _Chain, seen: frozenset) -> set[_Definition]:
        """Return what attributes of a module may stand for: all of it where that is not seen."""
        if name not in self.files:
            return {(None, ".".join((name, *chain)))}
        if (name, chain) in seen:
            return set()  # imported in a circle
        if chain:
            module, seen = self.module(name), seen | {(name, chain)}
            inner = f"{name}.{chain[0]}"
            if found := self._name(module, chain, module.imports, seen):
                return found
            if inner in self.files:
                return self._attribute(inner, chain[1:], seen)
        return self._whole(name)

    def _whole(self, name: str) -> set[_Definition]:
        """Return all definitions of a module, or of all modules of a package."""
        modules = [each for each in self.files if f"{each}.".startswith(f"{name}.")]
        return {(m, each) for m in map(self.module, modules) for each in m.definitions}

    def _defined(self, root: Callable | type | str) -> set[_Definition]:
        """Return the definition that a function or class stands in, or that a name stands for."""
        if isinstance(root, str):
            return self._named(root)
        inside = root.__module__ in self.files
        module = self.module(root.__module__) if inside else self._outside(root)
        name = root.__qualname__.partition(".")[0]
        owners = {name} & module.definitions.keys()
        if not owners and hasattr(root, "__code__"):  # a lambda has no name of its own
            here = [x for x in module.statements if root.__code__.co_firstlineno in x.lines]
            owners = {owner for each in here for owner in each.owners}
        if not owners:
            raise _no_source(root)
        return {(module, owner) for owner in owners}

    def _named(self, name: str) -> set[_Definition]:
        parts = name.split(".")
        sources = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
        source = next((each for each in sources if each in self.files), None)
        if name == source:
            return self._whole(name)
        if source:
            module, chain = self.module(source), tuple(name.removeprefix(source + ".").split("."))
            found = self._name(module, chain, module.imports)
            if inside := {each for each in found if each[0]}:
                return inside
        raise ValueError(f"There is no definition '{name}'.")

    def _outside(self, root: Callable | type) -> _Module:
        """Return the file or cell that defines something outside the package."""
        try:
            lines, _ = inspect.findsource(root)
        except (OSError, TypeError):
            raise _no_source(root) from None
        # A cell of a notebook uses what was imported in others.
        imports = {}
        for name, value in getattr(root, "__globals__", {}).items():
            if isinstance(value, types.ModuleType):
                imports[name] = [(value.__name__, ())]
            elif getattr(value, "__module__", None) in self.files and hasattr(value, "__name__"):
                imports[name] = [(value.__module__, (value.__name__,))]
        return _Module(root.__module__, "".join(lines), imports=imports)


def _unfolded(roots: Iterable[Callable | type | str]) -> Iterator[Callable | type | str]:
    """Yield the names, functions and classes that roots consist of."""
    pending, seen = list(roots), set()
    while pending:
        root = pending.pop()
        if isinstance(root, str):
            yield root
        elif isinstance(root, functools.partial):
            pending += filter(callable, (root.func, *root.args, *root.keywords.values()))
        elif isinstance(root, types.MethodType):
            owner = root.__self__
            pending += [root.__func__, owner if isinstance(owner, type) else type(owner)]
        elif not callable(root):
            raise ValueError(f"{root!r} is not a function, a class or a dotted name.")
        else:
            root = inspect.unwrap(root)
            if not hasattr(root, "__qualname__"):
                root = type(root)
            if id(root) not in seen:
                seen.add(id(root))
                pending += _held(root)
                yield root


def _held(root: Callable | type) -> list[Callable]:
    """Return the callables that a lambda, or a function made inside another, has with it."""
    if not isinstance(root, types.FunctionType) or "<" not in root.__qualname__:
        return []
    held = [cell.cell_contents for cell in root.__closure__ or ()]
    held += [*(root.__defaults__ or ()), *(root.__kwdefaults__ or {}).values()]
    return [each for each in held if callable(each)]


def _no_source(root: Callable | type) -> ValueError:
    return ValueError(
        f"The source of '{root.__qualname__}' cannot be had, so that nothing would tell when it "
        "changes. Define it in a file or in a notebook."
    )


def _dotted(definition: _Definition) -> str:
    module, name = definition
    return ".".join(filter(None, (module and module.name, name)))


def _imports(nodes: Iterable[ast.AST], parent: str) -> _Imports:
    """Return for each name that is imported the modules, and attributes of them, it may stand for.

    ``from torch import nn`` gives ``{"nn": [("torch", ("nn",))]}``.
    """
    found: _Imports = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                top, *rest = alias.name.split(".")
                attributes = tuple(rest) if alias.asname else ()
                found.setdefault(alias.asname or top, []).append((top, attributes))
        elif isinstance(node, ast.ImportFrom):
            above = parent.split(".")[: len(parent.split(".")) + 1 - node.level]
            source = ".".join(filter(None, [*(above if node.level else ()), node.module]))
            for alias in node.names:
                found.setdefault(alias.asname or alias.name, []).append((source, (alias.name,)))
    return found


def _leaves(node: ast.AST) -> Iterator[ast.stmt]:
    """Yield the simple statements and the definitions in a statement at the top level."""
    if isinstance(node, _Function | ast.ClassDef):
        yield node
        return
    inner = [
        child
        for child in ast.iter_child_nodes(node)
        if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case)
    ]
    if isinstance(node, ast.If) and ast.unparse(node.test) in _TYPING:
        inner = node.orelse  # the rest is never run
    elif isinstance(node, ast.stmt) and not inner:
        yield node
    for child in inner:
        yield from _leaves(child)


def _owners(node: ast.stmt, bound: set[str]) -> set[str]:
    """Return to which names of a module, of all that are `bound` in it, a statement belongs.

    They are those it binds or changes. Of what does neither, like a call, it cannot be told, and
    it belongs to all that it mentions; or to the module, "", where it mentions none.
    """
    owners = set(_bound(node))
    for leaf in _leaves(node):
        words = isinstance(leaf, ast.Expr) and isinstance(leaf.value, ast.Constant)
        if words or isinstance(leaf, _SILENT):
            continue
        parts = [x for x in ast.walk(leaf) if isinstance(x, ast.Attribute | ast.Subscript)]
        changed = [x for x in parts if not isinstance(x.ctx, ast.Load)]
        for part in changed or ([] if any(_bound(leaf)) else [leaf]):
            names = {each.id for each in ast.walk(part) if isinstance(each, ast.Name)}
            owners |= (names & bound) or {""}
    return owners


def _bound(node: ast.AST) -> Iterator[str]:
    """Yield the names that a piece of code binds in its own scope, but for imported ones."""
    if isinstance(node, ast.Lambda | ast.alias):
        return
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(getattr(node, "name", None), str):
        yield node.name
    if isinstance(node, _Function | ast.ClassDef):
        return
    for child in ast.iter_child_nodes(node):
        if not (isinstance(node, ast.comprehension) and child is node.target):
            yield from _bound(child)


def _references(node: ast.AST, hidden: frozenset[str] = frozenset()) -> Iterator[_Chain]:
    """Yield the names that a piece of code uses, with their attributes: ``("tasks", "build")``.

    Parameters
    ----------
    node
        The code.
    hidden
        Names that are local where it stands.
    """
    children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Attribute | ast.Name):
        attributes = []
        while isinstance(node, ast.Attribute):
            attributes.insert(0, node.attr)
            node = node.value
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load) and node.id not in hidden:
                yield (node.id, *attributes)
            return
        children = [node]
    elif isinstance(node, _Function | ast.Lambda):
        given = node.args
        for child in (*getattr(node, "decorator_list", ()), *given.defaults, *given.kw_defaults):
            if child:
                yield from _references(child, hidden)
        children = node.body if isinstance(node.body, list) else [node.body]
        arguments = (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg)
        local = {each.arg for each in arguments if each}
        local.update(*map(_bound, children))
        inner = list(ast.walk(node))
        shared = [each.names for each in inner if isinstance(each, ast.Global)]
        hidden = hidden.union(local).difference(_imports(inner, ""), *shared)
    elif isinstance(node, ast.ClassDef):
        children += [each.annotation for each in node.body if isinstance(each, ast.AnnAssign)]
    elif isinstance(node, ast.AnnAssign):
        children.remove(node.annotation)
    for child in children:
        yield from _references(child, hidden)
