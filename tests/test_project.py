"""What people are told, and machines: pages, links, workflows, and what `make` does again when."""

import os
import re
import subprocess
import time
from pathlib import Path

import links
import pytest
import yaml
from conftest import LONGEST

from revlib import orders
from revlib.figures import drawings

ROOT = Path(__file__).resolve().parent.parent
TEXTS = "\n".join(text.read_text() for text in sorted((ROOT / "notebooks").glob("*.md")))
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):.*## ", MAKEFILE, flags=re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def tracked():
    """Return the files under version control."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("the project is not under version control here")
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).exists()]


# Pages


def test_every_module_is_in_the_reference_once():
    pages = "\n".join(page.read_text() for page in (ROOT / "book" / "api").glob("*.md"))
    shown = re.findall(r"automodule:: revlib\.([\w.]+)\n", pages)
    files = [path.relative_to(ROOT / "revlib") for path in (ROOT / "revlib").rglob("*.py")]
    modules = {".".join(path.with_suffix("").parts) for path in files if path.stem[0] != "_"}
    packages = {".".join(path.parent.parts) for path in files if path.stem == "__init__"}
    assert sorted(name for name in shown if name not in packages) == sorted(modules), (
        "give each module its lines in a page of book/api"
    )


def test_parameters_have_their_types_in_the_signature_and_not_in_the_docstring():
    typed = re.compile(r"^ +[\w*]+(, [\w*]+)* : ", flags=re.MULTILINE)
    for path in (ROOT / "revlib").rglob("*.py"):
        for part in path.read_text().split("Parameters\n")[1:]:
            entries = re.split(r"\n\n +\w+\n +---|\"\"\"", part)[0]
            assert not typed.search(entries), f"{path.name}: {typed.search(entries)[0]}"


def listed(entries):
    """Yield all files that a table of contents names."""
    for entry in entries:
        yield entry["file"]
        yield from listed(entry.get("sections", []))


def test_every_page_is_in_the_contents_once():
    contents = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())
    files = [contents["root"]]
    for part in contents["parts"]:
        files += listed(part["chapters"])
    pages = [file for file in files if not file.startswith("chapters/")]
    book = ROOT / "book"
    texts = [*book.glob("*.md"), *book.glob("api/*.md")]
    names = {str(text.relative_to(book).with_suffix("")) for text in texts}
    included = {"opening", "verdicts", "advice"}
    assert sorted(pages) == sorted(names - included)


def first_column(table):
    """Return the first cell of each row of the tables in a page, but for their heads."""
    rows = re.findall(r"^\| (.+?) \|", table, flags=re.MULTILINE)
    return [row for row in rows if row not in ("---", "symbol")]


def test_every_symbol_of_the_notation_is_used_in_a_chapter():
    cells = first_column((ROOT / "book" / "notation.md").read_text())
    symbols = [symbol for cell in cells for symbol in re.findall(r"\$(.+?)\$", cell)]
    assert len(symbols) >= len(cells) > 20
    assert [symbol for symbol in symbols if symbol not in TEXTS] == []


def test_the_glossary_is_sorted_and_its_words_are_used():
    text = (ROOT / "book" / "glossary.md").read_text()
    terms = re.findall(r"^(\w[\w ]*)\n  \S", text, flags=re.MULTILINE)
    assert len(terms) > 15
    assert terms == sorted(terms)
    assert [term for term in terms if term not in TEXTS.lower()] == []


def test_the_picture_of_the_front_page_is_that_of_the_library():
    drawn = drawings.runs([orders.forward(), orders.backward()]) + "\n"
    stored = (ROOT / "book" / "_static" / "orders.svg").read_text()
    assert stored == drawn, "run `make picture`"


# Links of the chapters


def test_the_buttons_lead_to_the_commit_that_the_page_was_built_from():
    commit = "0123456789abcdef0123456789abcdef01234567"
    source, binder = links.buttons("a-chapter", "https://forge.example/someone/book/", commit)
    assert (
        source["url"] == f"https://forge.example/someone/book/blob/{commit}/notebooks/a-chapter.md"
    )
    assert binder["url"] == (
        f"https://mybinder.org/v2/git/https%3A%2F%2Fforge.example%2Fsomeone%2Fbook/{commit}"
        "?urlpath=lab%2Ftree%2Fnotebooks%2Fa-chapter.ipynb"
    )


@pytest.mark.parametrize(("address", "commit"), [("", "0123"), ("https://forge.example/a/b", "")])
def test_without_an_address_or_a_commit_there_are_no_buttons(address, commit):
    assert links.buttons("a-chapter", address, commit) == []


@pytest.mark.parametrize("address", ["", "https://forge.example/someone/book"])
def test_only_the_pages_of_chapters_get_buttons(address):
    class App:
        class config:
            html_theme_options = {"repository_url": address}  # noqa: RUF012

    def labels(page):
        group = {"label": "download-buttons", "buttons": [{"label": "notebook"}]}
        context = {"header_buttons": [group], "pathto": lambda name, _: f"../{name}"}
        links._extend(App, page, "page.html", context, None)
        names = [button["label"] for button in context["header_buttons"]]
        return names, [button["label"] for button in group["buttons"]]

    own = ["chapter-source-button", "chapter-binder-button"] if address and links.commit() else []
    downloads = ["notebook", "download-text-button"]
    assert labels("chapters/3-1-quadratic-loss") == (["download-buttons", *own], downloads)
    assert labels("notation") == (["download-buttons"], ["notebook"])


def test_the_address_of_the_repository_stands_in_one_place():
    address = re.compile(r"https?://(?:github|gitlab)\.com/[\w.-]+/[\w.-]+")
    suffixes = {".md", ".toml", ".cff", ".yml", ".py", ".txt"}
    texts = [file for file in tracked() if file.suffix in suffixes or file.name == "Makefile"]
    assert len(texts) > 50
    elsewhere = [str(f) for f in texts if address.search(f.read_text()) and f.name != "_config.yml"]
    assert elsewhere == []


# What people and machines are told to call


def steps(workflow):
    """Yield each step of a workflow, with the values of its job's matrix filled in."""
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        matrix = job.get("strategy", {}).get("matrix", {})
        for step in job["steps"]:
            commands = [step.get("run")]
            for name, values in matrix.items():
                field = f"${{{{ matrix.{name} }}}}"
                commands = [c and c.replace(field, v) for c in commands for v in values]
            yield from ({**step, "run": command} for command in dict.fromkeys(commands))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.stem)
def test_workflows_call_targets_of_make_and_nothing_else(workflow):
    commands = [step["run"] for step in steps(workflow) if step["run"]]
    assert commands
    for command in commands:
        program, target, *settings = command.split()
        assert program == "make"
        assert target in TARGETS
        assert all(re.fullmatch(r"PRESET=(sample|paper)|JOBS=\d+", setting) for setting in settings)


def test_there_is_a_workflow_for_pushes_one_for_pages_and_one_that_blocks_nothing():
    on = {w.stem: yaml.safe_load(w.read_text()) for w in WORKFLOWS}
    triggers = {
        name: set(workflow[True]) for name, workflow in on.items()
    }  # YAML reads on: as True
    assert {"push", "pull_request"} <= triggers["test"]
    assert triggers["newest"] == {"schedule", "workflow_dispatch"}
    assert on["newest"]["jobs"]["newest"]["continue-on-error"] is True
    (path,) = (
        s["with"]["path"] for s in steps(WORKFLOWS[0]) if "upload-pages" in s.get("uses", "")
    )
    assert path == "book/_build/html"


@pytest.mark.slow
def test_the_first_script_of_the_readme_shows_what_its_text_says(capsys):
    script = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    exec(compile(script, "first.py", "exec"), {})
    spread = {name: float(s) for name, s in re.findall(r"(\S+) .*± (\S+)", capsys.readouterr().out)}
    assert list(spread) == ["forward", "tail(100)", "backward"]
    assert spread["tail(100)"] < spread["forward"] / 3
    assert spread["backward"] < spread["forward"] / 3
    recorded = range(400, 501, 5)
    assert "record=range(400, 501, 5)" in script
    assert orders.tail(100).cost(recorded) < orders.backward().cost(recorded) / 3


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "notebooks/reproducibility.md"])
def test_every_target_that_people_are_told_to_call_exists(page):
    told = set(
        re.findall(r"`make ([a-z]+)|^make ([a-z]+)", (ROOT / page).read_text(), re.MULTILINE)
    )
    targets = {one or other for one, other in told}
    assert targets
    assert targets <= TARGETS


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_local_link_leads_somewhere(page):
    text = (ROOT / page).read_text()
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for address in re.findall(r"\]\(([^)]+)\)", text):
        if address.startswith("#"):
            assert address[1:] in anchors
        elif "://" not in address:
            assert (ROOT / address).exists(), address


def test_the_top_level_is_tidy():
    top = {file.relative_to(ROOT).parts[0] for file in tracked()}
    assert {name for name in top if not name.startswith(".")} == {
        *("book", "notebooks", "revlib", "tests"),
        *("Makefile", "constraints.txt", "environment.yml", "pyproject.toml"),
        *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "README.md"),
    }


def test_the_files_that_begin_first_exist():
    assert [name for name in LONGEST if not (ROOT / name).exists()] == []


# When what is built again


@pytest.fixture
def project(tmp_path):
    """A project of two chapters, whose programs only write down how they were called."""
    for name in (
        *("book/_config.yml", "book/_toc.yml", "book/references.bib", "book/links.py"),
        *("book/execute.py", "book/notation.md", "tests/test_book.py", "revlib/orders.py"),
        *("notebooks/one.md", "notebooks/two.md", "pyproject.toml", "constraints.txt"),
        *("venv/up-to-date", "venv/bin/python", "venv/bin/jupyter-book"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "Makefile").write_text(MAKEFILE)
    python, sphinx = tmp_path / "venv/bin/python", tmp_path / "venv/bin/jupyter-book"
    python.write_text(
        '#!/bin/sh\n[ "$1" = book/execute.py ] || exit 0\ntouch "$3"; echo "$2" $6 >> log\n'
    )
    sphinx.write_text(
        "#!/bin/sh\n[ -e book/_build/read ] && echo again >> log || echo anew >> log\n"
        "mkdir -p book/_build/html && touch book/_build/read && [ ! -e broken ]\n"
    )
    python.chmod(0o755)
    sphinx.chmod(0o755)
    return tmp_path


def built(project, *changed, **variables):
    """Change some files, call `make book`, and return what it called."""
    time.sleep(0.02)  # so that the files are newer than what was made before
    for name in changed:
        (project / name).touch()
    (project / "log").write_text("")
    settings = [f"{name}={value}" for name, value in variables.items()]
    environment = {name: v for name, v in os.environ.items() if name != "MAKEFLAGS"}
    subprocess.run(
        ["make", "-s", "book", "VENV=venv", "JOBS=1", "PYTHON=true", *settings],
        cwd=project,
        env=environment,
        capture_output=True,
        check=False,
    )
    return (project / "log").read_text().splitlines()


BOTH = ["notebooks/one.md", "notebooks/two.md"]


def test_a_change_builds_what_depends_on_it_and_nothing_else(project):
    assert built(project) == [*BOTH, "anew"]
    assert built(project) == []
    assert built(project, "notebooks/one.md") == ["notebooks/one.md --keep", "again"]
    assert built(project, "book/notation.md") == ["again"]
    assert built(project, "revlib/orders.py") == [*BOTH, "anew"]
    assert built(project, "revlib/orders.py", "notebooks/one.md") == [*BOTH, "anew"]
    assert built(project, "book/execute.py") == [*BOTH, "again"]
    assert built(project, PRESET="sample") == [*BOTH, "again"]
    for shared in ("book/_config.yml", "book/_toc.yml", "book/references.bib", "book/links.py"):
        assert built(project, shared, PRESET="sample") == ["anew"]


def test_after_a_failed_build_everything_is_read_again_until_one_succeeds(project):
    built(project)
    (project / "broken").touch()
    assert built(project, "book/notation.md") == ["again"]
    assert built(project) == ["anew"]
    (project / "broken").unlink()
    assert built(project) == ["anew"]
    assert built(project) == []


def test_pages_of_an_earlier_build_do_not_stay(project):
    built(project)
    (project / "book/_build/html/old.html").touch()
    built(project, "book/notation.md")
    assert not (project / "book/_build/html/old.html").exists()
