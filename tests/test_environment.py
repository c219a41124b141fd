"""The environment is stated once: the files that install it may not drift apart."""

import itertools
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def direct_requirements():
    """Return what pyproject.toml asks for, the extras included, by name."""
    extras = itertools.chain.from_iterable(PROJECT["optional-dependencies"].values())
    lines = itertools.chain(PROJECT["dependencies"], extras)
    requirements = {canonicalize_name(r.name): r for r in map(Requirement, lines)}
    requirements.pop("revlib")  # an extra that contains another one
    return requirements


def pins():
    """Return the exact versions of constraints.txt by name."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    exact = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in exact}


REQUIREMENTS, PINS = direct_requirements(), pins()


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_every_direct_dependency_is_pinned_inside_its_range(name):
    assert REQUIREMENTS[name].specifier.contains(PINS[name])


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_the_tested_version_is_installed(name):
    installed = metadata.version(name).partition("+")[0]  # torch appends its build: 2.x.y+cpu
    assert installed == PINS[name], "run `make env`"


def test_every_dependency_has_a_range():
    for requirement in REQUIREMENTS.values():
        operators = {clause.operator for clause in requirement.specifier}
        assert operators in ({">=", "<"}, {"=="}), requirement


def test_constraints_hold_nothing_that_only_one_platform_has():
    # torch pins these itself, where they exist.
    assert not [name for name in PINS if name.startswith(("nvidia-", "cuda-", "triton"))]


def test_conda_and_make_install_the_same_and_conda_names_no_versions():
    python, pip, packages = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert re.fullmatch(r"python=3\.\d+", python)
    assert pip == "pip"
    constraints, editable = packages["pip"]
    assert constraints == "-c constraints.txt"
    extras = editable.removeprefix("-e ")
    assert f'install --quiet {constraints} -e "{extras}"' in (ROOT / "Makefile").read_text()


def test_conda_python_is_one_that_the_package_accepts():
    python = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][0]
    requirement = Requirement(f"python{PROJECT['requires-python']}")
    assert requirement.specifier.contains(python.removeprefix("python=") + ".0")


def test_the_citation_is_of_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == PROJECT["version"] == metadata.version("revlib")
    assert citation["license"] == PROJECT["license"]
    (paper,) = citation["references"]
    assert paper["identifiers"][0]["value"] == "arXiv:2502.01557"
