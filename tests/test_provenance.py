"""Provenance: what counts as the same code, and what a chapter says about its numbers."""

import datetime
import importlib.metadata
import json
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from revlib.store import provenance
from revlib.store.provenance import meaning

SOURCE = '''"""A module."""

import math

SCALE = 2.0  # a number
NAME = "no # comment"


def step(theta, rate=0.1):
    """Do a step, like ``step(1)``.

    More words.
    """
    # Why it is so.
    for n in range(3):
        theta -= rate * n  # downhill
    return theta


class Pair:
    """Two things."""

    first: int = 1


def nothing(rate=0.1): "A docstring θ beside its function."
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# a number", "# another number"),
        ("  # downhill", ""),
        ("    # Why it is so.\n", ""),
        ("    for n", "    # Added.\n\n    for n"),
        ('"""A module."""', '"""Other words,\n\non more lines.\n"""'),
        ("More words.", "Fewer # words θ."),
        ('    """Two things."""\n\n', ""),
        ("def step(theta, rate=0.1):\n", 'def step(theta, rate=0.1):\n    "A second one."\n'),
        ("\n\n\nclass", "\n\n\n\n\nclass"),
        ("θ beside its function", "ε"),
        ('"""\n\nimport', '"""\n\n\n\nimport'),
    ],
)
def test_words_about_the_code_are_not_code(old, new):
    assert old in SOURCE
    assert meaning(SOURCE) == meaning(SOURCE.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SCALE = 2.0", "SCALE = 2.5"),
        ("no # comment", "no # other comment"),
        ("rate * n", "rate * (n + 1)"),
        ("    return theta", "        return theta"),
        ("    return theta\n", ""),
        ("first: int = 1", "first: int = 2"),
        ("step(theta, rate", "step(theta, speed"),
        ("nothing(rate=0.1)", "nothing(rate=0.2)"),
        ("import math", "import cmath as math"),
    ],
)
def test_code_is_code(old, new):
    assert old in SOURCE
    assert meaning(SOURCE) != meaning(SOURCE.replace(old, new, 1))


@pytest.mark.parametrize("source", [SOURCE, *sorted(Path(provenance.__file__).parent.glob("*.py"))])
def test_lines_keep_their_places(source):
    text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
    bare, lines = provenance.bare(text), text.split("\n")
    assert len(bare) == len(lines)
    assert all(line in ("", here[: len(line)]) for line, here in zip(bare, lines, strict=True))
    assert "\n".join(line for line in bare if line) == meaning(text)


def test_the_environment_says_when_where_and_with_what():
    found = provenance.environment()
    assert json.loads(json.dumps(found)) == found
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(found["date"])
    assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=5)
    assert found["python"] == platform.python_version()
    assert found["versions"]["torch"] == importlib.metadata.version("torch")
    assert set(found["versions"]) == {"revlib", "torch", "torchvision", "numpy", "pandas"}
    assert f"cores, {platform.system()}" in found["machine"]


def test_a_package_that_is_not_installed_has_no_known_version(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("nowhere-to-be-found",))
    assert provenance.environment()["versions"] == {"nowhere-to-be-found": "unknown"}


@pytest.mark.skipif(not shutil.which("git"), reason="there is no git on this machine")
def test_the_commit_is_marked_where_files_differ_from_it(tmp_path, monkeypatch):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", "-C", tmp_path, *who, *words], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    (tmp_path / "provenance.py").write_text("")
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert provenance.commit() == "unknown"
    git("init")
    assert provenance.commit() == "unknown"  # nothing is committed yet
    git("add", ".")
    git("commit", "-m", "First")
    git("tag", "-a", "v1", "-m", "A tag is no commit")
    head = git("rev-parse", "HEAD")[:12]
    assert provenance.commit() == head
    (tmp_path / "provenance.py").write_text(SOURCE)
    assert provenance.commit() == f"{head}+changes"


def test_without_git_the_commit_is_unknown(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() == "unknown"


def test_the_line_shows_the_facts_first_and_is_one_line():
    line = provenance.line(preset="sample", seeds=2, steps_recorded="51 of 201")
    assert line.startswith("*Provenance: preset sample; seeds 2; steps recorded 51 of 201; revlib ")
    assert line.endswith(".*")
    assert "\n" not in line
    for fact in ("torch ", f"Python {platform.python_version()}", "commit ", provenance.machine()):
        assert fact in line
