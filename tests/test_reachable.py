"""Which code determines a number: nothing that does is left out, and words do not count."""

import functools
import importlib.util
import linecache
import math
import os
import re
import shutil
import sys
import textwrap
from pathlib import Path

import pytest
from tiny import ORDERS, SETTING

import revlib
from revlib import experiments, orders
from revlib.experiments.section_5 import held_out
from revlib.experiments.study import Wanted
from revlib.runs import engine
from revlib.store.reachable import _Package, code
from revlib.training import averaging, motion, settings, sweep, tasks
from revlib.training.settings import Built

FOLDER = Path(revlib.__file__).parent


def roots(name):
    """The roots of a study; for "figure" those of one that is also trained in windows."""
    study = experiments.get("figure-11" if name == "figure" else name)
    size = study.size("sample")
    return study.method.roots(size.parameters, size.cases)


def differing(one, other):
    return {name for name in one | other if one.get(name) != other.get(name)}


# The package itself.


@pytest.fixture
def edited(tmp_path):
    """A copy of the package; call it to change a module and have the function that hashes."""
    copy = tmp_path / "revlib"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("samples", "__pycache__"))

    def edit(module, old, new):
        path = copy / f"{module.replace('.', '/')}.py"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))
        return _Package(copy).code

    return edit


WORD = "range(0, n, size)"
HE = "lambda fan_in, fan_out: math.sqrt(2 / fan_in)"
LINEAR = "lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)"
SHUFFLED = "np.random.default_rng((seed, epoch)).permutation(length)"


@pytest.mark.parametrize(
    ("study", "definition", "old", "new"),
    [
        ("remedies-figure-4", "experiments.remedies.FEWER", "FEWER = 8", "FEWER = 4"),
        ("remedies-figure-7", "training.averaging.SCHEDULES", LINEAR, LINEAR.replace("0.0", "0.1")),
        ("remedies-figure-7", "orders.windowed", WORD, WORD.replace("0", "1")),
        (
            "averages-and-schedules",
            "training.averaging.SCHEDULES",
            LINEAR,
            LINEAR.replace("0.0", "0.1"),
        ),
        ("single-step", "experiments.sandler2023.FAR", "FAR = 1_000_000", "FAR = 2_000_000"),
        ("figure-14", "training.order_averaging._square", "tensor.square()", "tensor.abs()"),
        ("figure-14", "experiments.figures_14_to_19.WEIGHTS", '"λ = h²": 1.0', '"λ = h²": 1.5'),
        ("figure-14", "training.settings._plain", "tuple(map(_plain", "list(map(_plain"),
        (
            "figure-14",
            "experiments.figures_14_to_19.Training",
            "small: bool = False",
            "small = True",
        ),
        ("implicit-regularization", "experiments.smith2021.Training", "= 32", "= 16"),
        ("implicit-regularization", "experiments.smith2021.RATES", "Training(", "Training(2 * "),
        ("single-step", "experiments.study.Whole", "(parameters, seed, case):", "(0, seed, case):"),
        ("figure", "training.settings._pixels", "movedim(3, 1)", "movedim(3, 2)"),
        ("figure", "store.datasets.DIGESTS", "fdc0f30e48e41518", "0dc0f30e48e41518"),
        ("figure", "training.processes.one_thread", "threads(1)", "threads(2)"),
        ("windows-figure-7", "orders.reset", "sorted({0, *at})", "sorted({1, *at})"),
        (
            "ranking-figure-4",
            "training.sweep.SLICE_SECONDS",
            "SLICE_SECONDS = 0.1",
            "SLICE_SECONDS = 1",
        ),
        ("implicit-regularization", "training.models._STD", HE, HE.replace("2", "3")),
        ("figure", "training.models._STD", HE, HE.replace("2", "3")),
        ("figure", "orders.windowed", WORD, WORD.replace("0", "1")),
        (
            "figure",
            "training.tasks._permutation",
            SHUFFLED,
            SHUFFLED.replace("seed, epoch", "epoch, seed"),
        ),
        ("figure", "training.dense.DenseTrainer", "self._weights", "self._other"),
    ],
)
def test_a_change_of_what_determines_numbers_is_seen(edited, study, definition, old, new):
    module = definition.rpartition(".")[0]
    after = edited(module, old, new)(*roots(study))
    assert differing(code(*roots(study)), after) == {f"revlib.{definition}"}


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("training.evaluation", "  # examples evaluated at once", "  # other words"),
        ("training.settings", '"""Return the task that a setting describes', '"""Other words'),
        ("training.settings", "\n\ndef build", "\n\n\n# A heading.\n\n\ndef build"),
        (
            "training.settings",
            "\n\ndef build",
            "\n\ndef unused():\n    return build\n\n\ndef build",
        ),
        ("verdicts.remedies", "def sentence(", "def words("),
        ("orders", "range(n, at, -1)", "range(n, at + 1, -1)"),  # switch
        ("figures.plots", "import", "import os\nimport"),
        ("runs.engine", "if first:", "if not first:"),
        ("experiments.figures_2_to_11", "steps=6", "steps=7"),
    ],
)
def test_other_changes_are_not_seen(edited, module, old, new):
    assert edited(module, old, new)(*roots("figure")) == code(*roots("figure"))


def test_the_public_function_reads_the_package_that_is_imported(edited):
    found = code(*roots("figure"))
    assert found == edited("training.tasks", "", "")(*roots("figure"))
    assert list(found) == sorted(found)
    assert all(re.fullmatch("[0-9a-f]{8}", value) for value in found.values())
    assert code("revlib.training.settings.build") == code(settings.build)
    assert code("revlib.windowed") == code(orders.windowed) == code(orders.windowed(3).word)
    assert code(averaging.SCHEDULES["linear"]) == code("revlib.training.averaging.SCHEDULES")


def called(compute):
    """Return the definitions of the package of which some function is really called."""
    found, inside = set(), f"{FOLDER}{os.sep}"

    def watch(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(inside):
            name = frame.f_code.co_qualname.partition(".")[0]
            if name.isidentifier():  # no lambda
                found.add(f"{frame.f_globals['__name__']}.{name}")

    sys.setprofile(watch)
    try:
        compute()
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("compute", [sweep.compute, motion.compute])
def test_every_function_that_an_experiment_calls_is_found(compute, one_thread):
    words = [orders.named(name) for name in ORDERS]
    jobs = [sweep.Job(Built(SETTING, 0), 0, order, [3, 6]) for order in words]
    found = called(lambda: list(compute(jobs)))
    assert "revlib.training.settings.build" in found
    assert found <= code(compute, Built, *(order.word for order in words)).keys()


@pytest.mark.parametrize("name", ["figure-14", "reset-figure-4", "gradient-alignment"])
def test_every_function_that_a_study_calls_is_found(name, one_thread):
    study = experiments.get(name)
    size = study.size("sample")
    wanted = Wanted(0, size.cases[-1], [])
    function = study.method.function
    found = called(lambda: list(study.method.compute(size.parameters, [wanted])))
    assert f"{function.__module__}.{function.__name__}" in found
    assert found <= code(*roots(name)).keys()


# Small packages.


@pytest.fixture
def package(tmp_path):
    """Write a package `p` of the given modules; returned is the function that hashes."""

    def write(**modules):
        for name, text in {"__init__": "", **modules}.items():
            path = tmp_path / "p" / f"{name.replace('__of__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return _Package(tmp_path / "p").code

    return write


B = """
    from __future__ import annotations

    def f(): return 1

    def g(): return f()

    def h(): return 3
"""
WHOLE = {"p.a.root", "p.b.f", "p.b.g", "p.b.h"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from p.b import h\ndef root(): return h()", {"p.b.h"}),
        ("from p.b import g as f\ndef root(): return [f for n in range(3)]", {"p.b.g", "p.b.f"}),
        ("from p import b\ndef root(): return b.h().real", {"p.b.h"}),
        ("from p import b as c\ndef root(): return c.h.__name__", {"p.b.h"}),
        ("import p\ndef root(): return p.b.h", {"p.b.h"}),
        ("import p.b\ndef root(): return p.b.h", {"p.b.h"}),
        ("import p.b as c\ndef root(): return c.h", {"p.b.h"}),
        ("from . import b\ndef root(): return b.h", {"p.b.h"}),
        ("from .b import h\nroot = h()", {"p.b.h"}),
        ("def root():\n    from p.b import h\n    return h()", {"p.b.h"}),
        ("def root(b):\n    from p import b\n    return b.h()", {"p.b.h"}),
        (
            "try:\n    from p.b import h\nexcept ImportError:\n    h = 2\nroot = h",
            {"p.a.h", "p.b.h"},
        ),
        ("try:\n    import json\nexcept ImportError:\n    from p.b import h\nroot = h", {"p.b.h"}),
        ("match 1:\n    case _:\n        from p.b import h\nroot = h", {"p.b.h"}),
        ("from p import b\n@b.h\ndef root(): pass", {"p.b.h"}),
        ("from p import b\ndef root(n=b.h): pass", {"p.b.h"}),
        ("from p import b\ndef root(*, n=b.h): pass", {"p.b.h"}),
        ("from p import b\nclass root(b.h): pass", {"p.b.h"}),
        ("from p import b\nclass root:\n    def m(self): return lambda: b.h", {"p.b.h"}),
        ("from p import b\nclass root:\n    part: list[b.h] = 1", {"p.b.h"}),
        ("from p import b\ndef root(n: b.h) -> b.h:\n    m: b.h = n\n    return m", set()),
        ("from p import b\nroot: b.h = 1", set()),
        ("if TYPE_CHECKING:\n    from p import b\nelse:\n    b = 1\nroot = b", {"p.a.b"}),
        ("if not TYPE_CHECKING:\n    from p import b\nroot = b.h", {"p.b.h"}),
        ("from p import b\ndef root(kind): return getattr(b, kind)()", WHOLE),
        ("from p import b\nroot = b", WHOLE),
        ("from p import b\nroot = b.unknown", WHOLE),
        ("from p.b import unknown\nroot = unknown", WHOLE),
        ("h = 1\ndef root(h): return h", set()),
        ("h = f = g = 1\ndef root(*f, g, **h): return f, g, h", set()),
        ("h = 1\ndef root():\n    h = 2\n    return lambda: h", set()),
        ("h = 1\ndef root():\n    def h(): pass\n    return h", set()),
        ("h = 1\ndef root():\n    (lambda: (h := 2))()\n    return h", {"p.a.h"}),
        ("h = 1\ndef root():\n    def inner(h): pass\n    return h", {"p.a.h"}),
        ("h = 1\ndef root(k=h, *h): return 1", {"p.a.h"}),
        ("h = 1\ndef root():\n    global h\n    h = h + 1", {"p.a.h"}),
        ("h = 1\ndef root(): return [h for h in h]", {"p.a.h"}),
        ("h = 1\nclass root:\n    h = 2\n    def m(self): return h", {"p.a.h"}),
        ("h = [n for n in range(3)]\ndef root(): return n", set()),
        ("def root(): return root()", set()),
        ("import math\ndef root(): return math.pi + unknown + len(())", set()),
    ],
)
def test_names_are_followed(package, text, found):
    assert package(a=text, b=B)("p.a.root").keys() == {"p.a.root", *found}


def test_modules_may_import_each_other(package):
    hashed = package(
        a="from p import b\ndef root(): return b.f()\ndef other(): pass",
        b="from p.a import root\ndef f(): return root()\ndef other(): pass",
    )
    assert hashed("p.a.root").keys() == hashed("p.b.f").keys() == {"p.a.root", "p.b.f"}


@pytest.mark.parametrize(
    "init",
    ["from p.b import h", "from .b import h", "from . import b\nh = b.h", "from p.c import h"],
)
def test_what_a_package_passes_on_is_followed_to_where_it_is_defined(package, init):
    hashed = package(
        __init__=init, b=B, c="from p.b import h", a="import p\ndef root(): return p.h(), p.b.g"
    )
    found = hashed("p.a.root").keys() - {"p.h"}
    assert found == {"p.a.root", "p.b.f", "p.b.g", "p.b.h"}
    assert hashed("p.h").keys() - {"p.h"} == {"p.b.h"}


def test_a_package_may_import_its_own_modules_and_have_packages_in_it(package):
    hashed = package(
        __init__="from p import b, inner",
        b=B,
        inner__of____init__="from .deep import f as passed",
        inner__of__deep="from ..b import h\nfrom .. import b\ndef f(): return h, b.f",
        a="from p import inner\nroot = inner.passed\nall = inner",
    )
    assert hashed("p.a.root").keys() == {"p.a.root", "p.inner.deep.f", "p.b.h", "p.b.f"}
    assert hashed("p.a.all").keys() == {"p.a.all", "p.inner.deep.f", "p.b.h", "p.b.f"}


def test_a_star_is_refused_where_it_hides_what_is_used(package):
    hashed = package(a="from p.b import *\nroot = h", b=B, c="from math import *\nroot = pi")
    assert hashed("p.c.root").keys() == {"p.c.root"}
    with pytest.raises(ValueError, match=r"^p\.a imports all of p\.b with a star\. .*\.$"):
        hashed("p.a.root")


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("X = 1", "X = 2", {"X"}),
        ("X += 1", "X += 2", {"X"}),
        ("Y, (*Z,) = 1, (2,)", "Y, (*Z,) = 1, (3,)", {"Y", "Z"}),
        ("TABLE: dict = {}", "TABLE: dict = {1: 1}", {"TABLE"}),
        ('TABLE["a"] = 1', 'TABLE["a"] = 2', {"TABLE"}),
        ("TABLE.update(b=1)", "TABLE.update(b=2)", {"TABLE"}),
        ("TABLE[n] = 0", "TABLE[n] = 1", {"TABLE", "n"}),
        ('V, TABLE["c"] = 1, 1', 'V, TABLE["c"] = 1, 2', {"TABLE", "V"}),
        ("del TABLE", "pass", {"TABLE"}),
        ("root.cache = 1", "root.cache = 2", {"root"}),
        ("A = 1", "A = 2", {"A"}),
        ("A = 3", "A = 4", {"A"}),
        ("W = 1", "W = 2", {"E", "W"}),
        ("as E", "as E, open('b')", {"E", "W"}),
        ("D = 1; D2 = 2", "D = 1; D2 = 3", {"D", "D2"}),
        ("return 'decorated'", "return 'other'", {"decorated"}),
        ("    1,\n", "    2,\n", {"decorated"}),
        ("import math", "import cmath as math", {"root"}),
        ("from p.b import g as h", "from p.b import f as h", {"root"}),
        ("torch.set_default_dtype(1)", "torch.set_default_dtype(2)", {""}),
        ("return 'unused'", "return 'other'", set()),
        ("'''On X.'''", "'''On Y.'''", set()),
    ],
)
def test_every_kind_of_statement_belongs_to_what_it_changes(package, old, new, changed):
    text = """
        import math
        from p.b import g as h
        import torch

        torch.set_default_dtype(1)
        X = 1
        '''On X.'''
        X += 1
        Y, (*Z,) = 1, (2,)
        TABLE: dict = {}
        TABLE["a"] = 1
        TABLE.update(b=1)
        V, TABLE["c"] = 1, 1
        for n in (1, 2):
            TABLE[n] = 0
        try:
            A = 1
        except OSError:
            if Y:
                A = 3
        with open("a") as E:
            W = 1
        D = 1; D2 = 2

        @(
            X,
            1,
        )
        def decorated():
            return 'decorated'

        def root():
            return X, V, Y, Z, TABLE, A, W, D, D2, E, n, h, math.pi, decorated

        root.cache = 1
        del TABLE

        def unused():
            return 'unused'
    """
    text = textwrap.dedent(text)
    assert old in text
    before = package(a=text, b=B)("p.a.root", "p.b.g")
    after = package(a=text.replace(old, new, 1), b=B)("p.a.root", "p.b.g")
    assert {name.removeprefix("p.a").strip(".") for name in differing(before, after)} == changed


def test_what_a_package_does_when_it_is_imported_counts_for_all_in_it(package):
    hashed = package(__init__="import torch\ntorch.set_default_dtype(1)", b=B)
    assert hashed("p.b.h").keys() == {"p", "p.b.h"}


def test_a_module_of_that_name_is_all_of_it(package):
    hashed = package(a="root = 1", b=B)
    assert hashed("p.b").keys() == WHOLE - {"p.a.root"}
    assert hashed("p").keys() == WHOLE


# Roots.


class Callable:
    def __call__(self):
        return sweep.Job

    def method(self):
        return sweep.Job


def helper():
    return settings.precision


def made(rule, second, third):
    def step(n, second=second, *, third=third):
        return rule(n), second, third

    return step


HERE = "test_reachable"
LAMBDAS = (lambda: orders.reset, lambda: orders.switch)


def test_what_a_partial_holds_counts():
    partial = functools.partial(held_out.held_out, 3, orders.forward, key=orders.switch)
    assert code(partial) == code(held_out.held_out, orders.forward, orders.switch)


def test_what_a_closure_holds_counts():
    held = orders.windowed, orders.backward, orders.reset
    assert code(made(*held)).keys() == {f"{HERE}.made", *code(*held)}
    assert code(functools.cache(made(*held))) == code(made(*held))


def circle():
    def one():
        return two

    def two():
        return one

    return one, two


def test_functions_that_hold_each_other_are_read_once():
    one, two = circle()
    assert code(one) == code(two) == code(circle)


def test_a_callable_object_is_its_class():
    assert code(Callable()) == code(Callable().method) == code(Callable)
    assert {f"{HERE}.Callable", "revlib.training.sweep.Job"} < code(Callable).keys()
    assert code(Built(SETTING, 0)) == code(Built)
    assert code(engine.Plan.of) == code(engine.Plan)


def test_a_wrapped_function_is_the_function():
    assert code(tasks._permutation).keys() == {"revlib.training.tasks._permutation"}


def test_what_is_defined_outside_counts_with_what_it_uses():
    used = code("revlib.orders.reset", "revlib.orders.switch")
    assert code(*LAMBDAS).keys() == {f"{HERE}.LAMBDAS", *used}
    assert code(lambda: helper()).keys() > {f"{HERE}.helper", "revlib.training.settings.precision"}


def test_what_is_defined_outside_is_blind_to_comments_and_to_nothing_else(tmp_path):
    path = tmp_path / "mine.py"

    def hashed(text):
        path.write_text(text)
        spec = importlib.util.spec_from_file_location("mine", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return code(module.rule)

    before = hashed("A = 1\ndef rule(n):\n    return n - A\n")
    assert before.keys() == {"mine.A", "mine.rule"}
    assert hashed("A = 1  # one\n\ndef rule(n):\n    'Words.'\n    return n - A\n") == before
    assert differing(hashed("A = 2\ndef rule(n):\n    return n - A\n\n"), before) == {"mine.A"}
    changed = hashed("A = 1\ndef rule(n):\n    return n - A - 10\n")
    assert differing(changed, before) == {"mine.rule"}


@pytest.fixture
def cell():
    """Run a cell of a notebook."""
    names = {"__name__": "__main__"}

    def run(text):
        file = f"<cell {len(linecache.cache)}>"
        linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
        exec(compile(text, file, "exec"), names)
        return names

    yield run
    for file in [file for file in linecache.cache if file.startswith("<cell ")]:
        del linecache.cache[file]


def test_a_cell_of_a_notebook_may_use_what_another_one_imports(cell):
    cell(
        "import revlib\nfrom revlib import orders as o\n"
        "from revlib.training.settings import precision as p"
    )
    first = cell("rule = [lambda n: (o.reset, p, revlib.training.sweep.Row)][0]")["rule"]
    used = code(
        "revlib.orders.reset", "revlib.training.settings.precision", "revlib.training.sweep.Row"
    )
    assert code(first).keys() == {"__main__.rule", *used}
    second = cell("rule = [lambda n: n - 1][0]")["rule"]
    assert code(second).keys() == {"__main__.rule"}
    hashes = {code(*rules)["__main__.rule"] for rules in [(first,), (second,), (first, second)]}
    assert len(hashes) == 3
    assert code(first, second) == code(second, first)


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (math.cos, r"The source of 'cos' cannot be had, .* in a notebook\."),
        (functools.partial(helper, math.cos), r"The source of 'cos' cannot be had, .*\."),
        (eval("lambda n: n", {"__name__": "nowhere"}), r"The source of '<lambda>' cannot .*\."),
        (
            eval("lambda n: n", {"__name__": "revlib.training.maps"}),
            r"The source of '<lambda>' cannot .*\.",
        ),
        (
            type("Made", (), {"__module__": "revlib.training.maps"}),
            r"The source of 'Made' cannot .*\.",
        ),
        (orders.forward(), r"Order\(.*\) is not a function, a class or a dotted name\."),
        (
            "revlib.training.tasks.nothing",
            r"There is no definition 'revlib\.training\.tasks\.nothing'\.",
        ),
        ("revlib.training.tasks.np", r"There is no definition 'revlib\.training\.tasks\.np'\."),
        ("torch.nn", r"There is no definition 'torch\.nn'\."),
    ],
)
def test_what_cannot_be_read_is_refused(root, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        code(root)


def test_each_file_is_read_once(edited, monkeypatch):
    hashed, read = edited("training.tasks", "", ""), []
    text = Path.read_text
    monkeypatch.setattr(
        Path, "read_text", lambda path, **how: read.append(path) or text(path, **how)
    )
    for name in ("figure-14", "remedies-figure-7", "figure", "figure-14"):
        hashed(*roots(name))
    assert 5 < len(read) == len(set(read)) < 30  # and not those that do not matter
