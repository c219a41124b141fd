"""The rooms of the library: each stands on those below it, and nothing goes in a circle."""

import ast
import functools
import graphlib
from pathlib import Path

import pytest

import revlib

FOLDER = Path(revlib.__file__).parent

# From the bottom to the top. What decides stored numbers lies below what tells about them.
LEVELS = (
    {"orders", "iterates"},
    {"store"},
    {"training"},
    {"theory"},
    {"experiments"},
    {"runs"},
    {"figures"},
    {"verdicts"},
    {"cli"},
    {"", "__main__"},  # the package itself: what it offers comes from everywhere
)


def sources(folder):
    """Return the text of each module of a package by its dotted name, without the package's own."""
    texts = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        texts[".".join(part for part in parts if part != "__init__")] = path.read_text()
    return texts


@functools.cache
def bound(source, name):
    """Return the names that a package has once it is imported, but for its own modules."""
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and node.module == name:
            continue
        if isinstance(node, ast.ImportFrom | ast.Import):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        else:
            given = [each for each in ast.walk(node) if isinstance(each, ast.Name)]
            names |= {each.id for each in given if isinstance(each.ctx, ast.Store)}
    return names


def imported(texts, package="revlib"):
    """Return for each module the modules of its package that it imports, wherever it does so."""

    def module(name):
        """Return the name of a module without that of the package; None if it is not of it."""
        inner = name.removeprefix(package).removeprefix(".")
        return inner if name.partition(".")[0] == package and inner in texts else None

    def found(name, node):
        if isinstance(node, ast.Import):
            return [module(alias.name) for alias in node.names]
        if not isinstance(node, ast.ImportFrom):
            return []
        assert not node.level, f"{name} imports relatively: write out from where"
        source, targets = module(node.module), []
        if source is None:
            return []
        for alias in node.names:
            inner = module(f"{node.module}.{alias.name}")
            own = alias.name in bound(texts[source], node.module) and source != name
            targets.append(source if inner is None or own else inner)
        return targets

    return {
        name: {each for node in ast.walk(ast.parse(text)) for each in found(name, node)} - {None}
        for name, text in texts.items()
    }


@pytest.fixture(scope="module")
def of_the_library():
    return imported(sources(FOLDER))


def level(module):
    """Return the level of the room that a module is in, counted from the bottom."""
    room = module.partition(".")[0]
    (found,) = (number for number, rooms in enumerate(LEVELS) if room in rooms)
    return found


def upwards(graph):
    """Return the imports of a module from a room above its own."""
    return [
        f"{name} imports {other}"
        for name, others in graph.items()
        for other in sorted(others)
        if level(other) > level(name)
    ]


def test_every_module_is_in_a_room(of_the_library):
    assert {level(name) for name in of_the_library} == set(range(len(LEVELS)))
    assert sum(map(len, of_the_library.values())) > len(of_the_library) > 40


def test_no_module_imports_from_a_room_above(of_the_library):
    assert upwards(of_the_library) == []


def test_no_modules_import_each_other_in_a_circle(of_the_library):
    try:
        list(graphlib.TopologicalSorter(of_the_library).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


# The tests themselves.


@pytest.mark.parametrize(
    "line",
    [
        "import revlib.runs.engine",
        "import revlib.runs.engine as e",
        "from revlib.runs.engine import Plan",
        "from revlib.runs import engine",
        "from revlib.runs import other, engine as e",
        "def f():\n    from revlib.runs import engine",
        "if TYPE_CHECKING:\n    import revlib.runs.engine",
        "class A:\n    def f(self):\n        try:\n            import os, revlib.runs.engine",
    ],
)
def test_every_way_to_import_is_seen(line):
    line = line + "\n        finally:\n            pass" * ("try" in line)
    texts = {"": "", "store": line, "runs": "def other(): pass", "runs.engine": "def Plan(): pass"}
    graph = imported(texts)
    assert "runs.engine" in graph["store"]
    assert "store imports runs.engine" in upwards(graph)


def test_what_a_package_passes_on_is_imported_from_the_package():
    texts = {
        "runs": "from revlib.runs.shown import shown",
        "runs.shown": "def shown(): pass",
        "runs.audits": "from revlib.runs import shown",
        "experiments": "from revlib.experiments import a, b\nc = a, b",
        "experiments.a": "from revlib.experiments import b",
        "experiments.b": "",
    }
    assert imported(texts) == {
        "runs": {"runs.shown"},
        "runs.shown": set(),
        "runs.audits": {"runs"},
        "experiments": {"experiments.a", "experiments.b"},
        "experiments.a": {"experiments.b"},
        "experiments.b": set(),
    }


def test_other_packages_do_not_count():
    texts = {"": "", "store": "import os\nimport torch.nn\nfrom revlibrary import store"}
    assert imported(texts)["store"] == set()


def test_a_circle_is_found():
    texts = {"theory": "", "theory.a": "from revlib.theory import b", "theory.b": "x = 1"}
    texts["theory.b"] = "def f():\n    from revlib.theory.a import g"
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(imported(texts)).prepare()
