"""What papermill may set in a chapter: right, or refused in a sentence before anything runs."""

from types import ModuleType

import pytest

from revlib.runs import parameters

CELL = """
from typing import Optional

preset: str = "sample"
h: float = 0.1
steps: int = 100
runs: Optional[int] = None
seed: int = 0
seeds: Optional[list[int]] = None
names: Optional[list[str]] = None
start: tuple[float, float] = (1.5, 1.0)
init: Optional[str] = None
sigma: float = 1.0
realisations: Optional[int] = None
"""


def chapter(**given):
    """Return a chapter's module after papermill has set parameters in it."""
    module = ModuleType("chapter")
    exec(CELL, module.__dict__)
    vars(module).update(given)
    return module


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"preset": "paper", "h": 1, "steps": 1, "runs": 5, "seed": 3},
        {"seeds": [0, 5], "names": ["figure-4"], "start": [1, 2.5], "init": "he"},
    ],
)
def test_what_is_of_its_type_passes(given):
    parameters.check(chapter(**given))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "preset",
            "papre",
            "must be sample or paper; got 'papre'. .* -p preset sample",
        ),
        ("h", "1/2", "must be a number; got '1/2'. For papermill: -p h 0.5"),
        ("h", float("nan"), "must be a number"),
        ("h", None, "must be a number; got None"),
        ("h", True, "must be a number"),
        ("steps", 0, "must be a whole number, 1 or more; got 0"),
        ("steps", 1.5, "must be a whole number, 1 or more"),
        ("runs", "many", "must be a whole number, 1 or more, or None; got 'many'"),
        ("seed", -1, "must be a whole number, 0 or more"),
        ("seeds", 0, r"must be a list of whole numbers, 0 or more, each .*; got 0.* -y 'seeds: "),
        ("seeds", "[0]", "must be a list of whole numbers"),
        ("seeds", [0.5], "must be a list of whole numbers"),
        ("seeds", [-1], "must be a list of whole numbers"),
        ("seeds", [], "must be a list of whole numbers"),
        ("seeds", [0, 0], "must be a list of whole numbers, 0 or more, each of them once"),
        ("sigma", -1.0, "must be a number, 0 or more"),
        ("realisations", 1, "must be a whole number, 2 or more"),
        ("names", "figure-4", "must be a list of texts"),
        ("start", [1.0], "must be a list of two numbers"),
        ("init", 3, "must be a text"),
    ],
)
def test_what_is_not_is_refused_with_what_is_valid(name, value, words):
    with pytest.raises(ValueError, match=f"The parameter {name} {words}"):
        parameters.check(chapter(**{name: value}))
