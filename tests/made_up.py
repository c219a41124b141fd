"""Made-up paths of the tiny experiment: claims about them, and a store that holds them."""

import pytest

from revlib.runs.engine import Plan
from revlib.verdicts.claims import Claim

STEPS = (8, 16, 24, 32)  # what the tiny experiment records at preset paper, but for the start
FORWARD, BACKWARD, RESET = "forward", "backward", "reset(7, 12)"


def claim(**fields):
    """A claim about the tiny experiment."""
    return Claim(
        **{
            "id": "a",
            "place": "Section 0",
            "made_by": "paper",
            "statement": "It is lower.",
            "experiment": ("tiny",),
            "quantity": ("test_loss",),
            "orders": (FORWARD, BACKWARD),
            "windows": ((24, 32),),
            "criterion": "lower",
            "chapter": "none",
        }
        | fields
    )


def paths(*of_orders, names=(FORWARD, BACKWARD, RESET)):
    """The paths of several seeds in each order: a value at each of STEPS for each."""
    return {
        (seed, order): values
        for order, of_seeds in zip(names, of_orders, strict=False)
        for seed, values in enumerate(of_seeds)
    }


def ends(*of_orders):
    """Paths that end in given values, seed by seed."""
    return paths(*([(0, 0, 0, end) for end in order] for order in of_orders))


def stored(changes=None, **quantities):
    """Store made-up paths, {(seed, order): values at STEPS}, of some quantities."""
    steps = quantities.pop("steps", STEPS)
    plan = Plan.of("tiny", "paper", changes=changes)
    rows = {}
    for quantity, own in quantities.items():
        for (seed, order), values in own.items():
            for n, value in zip(steps, values, strict=True):
                key = {"seed": seed, "order": order, "step": n}
                rows.setdefault(tuple(key.values()), key)[quantity] = float(value)
    with plan.store.writing(plan.identity(), plan.orders, plan.size.steps, 1) as writer:
        writer.add(list(rows.values()))


@pytest.fixture
def project(tiny, tmp_path):
    """A project with one chapter, in the current folder."""
    for name, text in (("book/_config.yml", ""), ("notebooks/none.md", ":label: prop-same\n")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path
