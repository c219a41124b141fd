"""What the chapter on reproducibility says about adding things, done in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CHAPTER = ROOT / "notebooks" / "reproducibility.md"

USED = """
import matplotlib

matplotlib.use("Agg")
import pandas as pd

from revlib import experiments, figures, orders
from revlib.verdicts import claims

assert orders.named("newest_first").applied(4) == [4, 1, 2, 3]
assert "windows-figure-5" in experiments.STUDIES
assert experiments.get("figure-20").size("paper").setting.learning_rate == 0.01
assert "motion-figure-20" in experiments.STUDIES
table = pd.DataFrame({"order": ["forward"], "step": [1], "test_loss": [0.5]})
assert figures.ends(table, "test_loss").axes
print(" ".join(claim.id for claim in claims.load()))
"""


def diffs():
    """Return the changes that the chapter shows, as (file, lines) in their order."""
    found = []
    for block in re.findall(r"^```diff\n(.*?)^```$", CHAPTER.read_text(), re.MULTILINE | re.DOTALL):
        for part in block.split("+++ ")[1:]:
            name, *lines = part.splitlines()
            found.append((name, lines))
    return found


def applied(text, lines):
    """Return a text after a change: in the only place where what it shows of the old text stands.

    A change of which everything is new goes to the end.
    """
    old = [line[1:] for line in lines if not line.startswith("+")]
    new = [line[1:] for line in lines if not line.startswith("-")]
    have = text.splitlines()
    if not old:
        return "\n".join([*have, "", *new, ""])
    starts = [i for i in range(len(have)) if have[i : i + len(old)] == old]
    assert len(starts) == 1, f"{old} stands in {len(starts)} places"
    return "\n".join([*have[: starts[0]], *new, *have[starts[0] + len(old) :], ""])


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the project in which everything has been added that the chapter shows."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("revlib", "notebooks", "book"):
        ignored = shutil.ignore_patterns("_build", "chapters", "results", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name, lines in diffs():
        path = folder / name
        path.write_text(applied(path.read_text(), lines))
    return folder


def test_one_thing_of_each_kind_is_shown():
    kinds = {name for name, _ in diffs()}
    assert kinds == {
        "revlib/orders.py",
        "revlib/experiments/section_5/__init__.py",
        "revlib/experiments/figures_2_to_11.py",
        "revlib/figures/plots.py",
        "revlib/figures/__init__.py",
        "book/claims.yml",
        "notebooks/2-2-backward-contraction-principle.md",
    }


def test_what_was_added_is_found_by_its_name(copy):
    environment = os.environ | {"PYTHONPATH": str(copy)}
    ran = subprocess.run(
        [sys.executable, "-c", USED], cwd=copy, env=environment, capture_output=True, text=True
    )
    assert not ran.returncode, ran.stderr
    [added] = [lines for name, lines in diffs() if name == "book/claims.yml"]
    [claim] = yaml.safe_load("\n".join(line[1:] for line in added))
    assert claim["id"] in ran.stdout.split()


def test_the_cell_under_the_theorem_finds_it_true(copy):
    chapter = (copy / "notebooks" / "2-2-backward-contraction-principle.md").read_text()
    assert chapter.count(":label: cor-constant-newest") == 1
    [cell] = re.findall(r"^maps = \[Constant.*?(?=^```)", chapter, re.MULTILINE | re.DOTALL)
    imports = (
        "from revlib import iterates, orders",
        "from revlib.training.maps import Constant, noisy_quadratic",
    )
    code = "\n".join([*imports, cell])
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(ran.stdout.strip("{}\n").split(",")) == 1


def test_the_additions_are_formatted_as_the_project_is(copy):
    changed = sorted({str(copy / name) for name, _ in diffs() if name.endswith(".py")})
    config = str(ROOT / "pyproject.toml")
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check", "--config", config], ["format", "--check", "--config", config]):
        ran = subprocess.run([*ruff, *command, *changed], capture_output=True, text=True)
        assert not ran.returncode, ran.stdout + ran.stderr
