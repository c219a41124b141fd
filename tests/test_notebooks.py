"""What every chapter must have. Its results are compared by nbval, which runs the notebooks."""

import ast
import itertools
import os
import re
from pathlib import Path
from types import ModuleType

import execute
import nbformat
import pair
import papermill
import pytest
import yaml

from revlib.runs import parameters

ROOT = Path(__file__).resolve().parent.parent
# An absolute path, an address in memory, or a time.
VOLATILE = re.compile(
    r"(?<![\w./:])/(home|root|tmp|Users|work|usr|opt|var|mnt)/|\b[A-Z]:\\"
    r"|\bat 0x[0-9a-f]+|\d\d:\d\d:\d\d"
)

every_chapter = pytest.mark.parametrize("text", pair.TEXTS, ids=lambda text: text.stem)


def stored(text):
    """Read the notebook that mirrors a chapter's text."""
    return nbformat.read(text.with_suffix(".ipynb"), as_version=4)


def outputs(text):
    """Yield each output of a chapter's stored notebook, with its cell."""
    for cell in stored(text).cells:
        for output in cell.get("outputs", []):
            yield cell, output


def headings(text):
    """Return a chapter's second-level headings."""
    cells = (cell.source for cell in execute.read(text).cells if cell.cell_type == "markdown")
    return re.findall(r"^## (.+)$", "\n".join(cells), flags=re.MULTILINE)


def test_the_contents_list_every_chapter_once():
    parts = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())["parts"]
    files = [entry["file"] for part in parts for entry in part["chapters"]]
    listed = [file for file in files if file.startswith("chapters/")]
    assert sorted(listed) == [f"chapters/{text.stem}" for text in pair.TEXTS]


def test_every_notebook_has_its_text():
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks == {text.stem for text in pair.TEXTS}


@every_chapter
def test_the_notebook_mirrors_its_text(text):
    assert pair.difference(text) is None


@every_chapter
def test_the_parameters_cell_is_one_and_sets_the_sample(text):
    (cell,) = (
        cell for cell in execute.read(text).cells if "parameters" in cell.metadata.get("tags", [])
    )
    assert re.search(r'^preset: str = "sample"', cell.source, flags=re.MULTILINE)


@every_chapter
def test_each_parameter_has_a_type_and_they_are_checked(text):
    given, setup, *_ = (c.source for c in execute.read(text).cells if c.cell_type == "code")
    chapter = ModuleType("chapter")
    exec(given, chapter.__dict__)
    statements = [node for node in ast.parse(given).body if not isinstance(node, ast.ImportFrom)]
    assert {node.target.id for node in statements} == chapter.__annotations__.keys()
    parameters.check(chapter)
    assert "\nparameters.check()" in setup
    known = papermill.inspect_notebook(text.with_suffix(".ipynb"))
    assert known.keys() == chapter.__annotations__.keys()


@every_chapter
def test_the_chapter_opens_with_an_overview_and_closes_with_a_summary(text):
    assert headings(text)[0] == "Overview"
    assert headings(text)[-1] == "Summary"
    overview = text.read_text().partition("\n## Overview\n")[2].partition("\n## ")[0]
    for what in ("What is claimed", "Prerequisites", "Running time"):
        assert what in overview


@every_chapter
def test_results_are_stored_and_some_are_checked(text):
    checked = [
        cell for cell, _ in outputs(text) if "nbval-check-output" in cell.metadata.get("tags", [])
    ]
    assert checked


@every_chapter
def test_figures_have_a_name_a_caption_and_alternative_text(text):
    for cell, output in outputs(text):
        if "image/png" in output.get("data", {}):
            layout = cell.metadata.get("mystnb", {})
            assert layout.get("image", {}).get("alt"), cell.source
            assert {"name", "caption"} <= layout.get("figure", {}).keys(), cell.source
            assert len(cell.outputs) == 1, f"one figure and nothing else:\n{cell.source}"


@every_chapter
def test_nothing_went_wrong_when_the_outputs_were_made(text):
    for cell, output in outputs(text):
        assert output.output_type != "error", cell.source
        assert output.get("name") != "stderr", cell.source


@every_chapter
def test_outputs_hold_nothing_of_one_run_or_machine(text):
    for cell, output in outputs(text):
        data = output.get("data", {})
        texts = [value for kind, value in data.items() if not kind.startswith("image/")]
        for line in itertools.chain([output.get("text", "")], map(str, texts)):
            assert not VOLATILE.search(line), cell.source


def chapter(*cells):
    """Return MyST text with the given code cells, each a pair of header and source."""
    front = "---\nkernelspec: {display_name: Python 3, language: python, name: python3}\n---\n\n"
    return front + "\n".join(
        f"```{{code-cell}} ipython3\n{header}\n\n{source}\n```\n" for header, source in cells
    )


PARAMETERS = (":tags: [parameters]", 'preset = "sample"')


@pytest.mark.parametrize("cells", [[], [PARAMETERS, PARAMETERS]], ids=["none", "two"])
def test_a_chapter_without_its_one_parameters_cell_is_refused(tmp_path, cells):
    text = tmp_path / "sample.md"
    text.write_text(chapter(("", "1 + 1"), *cells))
    with pytest.raises(execute.ChapterError, match=f"{len(cells)} cells are tagged `parameters`"):
        execute.execute(text, tmp_path / "sample.ipynb", {"preset": "paper"})


def test_a_chapter_runs_with_its_parameters_in_its_own_folder(tmp_path):
    text, output = tmp_path / "sample.md", tmp_path / "chapters" / "sample.ipynb"
    source = 'import os, time\nprint(preset, flush=True)\ntime.sleep(0.5)\nprint(os.listdir("."))'
    text.write_text(chapter(PARAMETERS, ("", source)))
    execute.execute(text, output, {"preset": "paper"})
    (stream,) = nbformat.read(output, as_version=4).cells[-1].outputs
    assert stream.text.startswith("paper\n"), "printed in two pieces, it is one output"
    assert "sample.md" in stream.text
    assert [path.name for path in output.parent.iterdir()] == ["sample.ipynb"]


@pytest.mark.parametrize(
    ("source", "error"),
    [("1 / 0", "ZeroDivisionError: division by zero"), ("os._exit(1)", "the kernel died")],
    ids=["exception", "dead kernel"],
)
def test_a_failing_chapter_names_cell_and_error_and_leaves_what_it_reached(tmp_path, source, error):
    text, output = tmp_path / "sample.md", tmp_path / "sample.ipynb"
    text.write_text(chapter(PARAMETERS, ("", "import os"), ("", f"{source}\n"), ("", "2")))
    with pytest.raises(execute.ChapterError) as failure:
        execute.execute(text, output, {"preset": "sample"})
    assert f"sample.md: code cell 3, which begins `{source}`, failed: {error}" in str(failure.value)
    assert not output.exists()
    assert (tmp_path / "sample.partial.ipynb").exists()


def test_a_page_sums_up_its_parameters_in_a_line(tmp_path):
    text, output = tmp_path / "sample.md", tmp_path / "sample.ipynb"
    source = 'preset: str = "sample"\nh: float = 0.5\nseeds: list[int] = None'
    text.write_text(chapter((":tags: [parameters]", source), ("", "1")))
    execute.execute(text, output, {"preset": "paper"})
    for _ in range(2):  # when it is run, and when its outputs are kept
        written, injected, _ = (c for c in nbformat.read(output, as_version=4).cells if c.source)
        assert written.metadata.mystnb.code_prompt_show == "This page: preset = 'paper', h = 0.5"
        assert written.metadata.tags == ["parameters", "hide-input"]
        assert injected.metadata.tags == ["injected-parameters", "remove-input"]
        assert execute.keep(text, output)


def ran(tmp_path, *cells):
    """Run a chapter of some cells at preset paper, and return its text and its output."""
    text, output = tmp_path / "sample.md", tmp_path / "sample.ipynb"
    text.write_text(chapter(PARAMETERS, *cells))
    execute.execute(text, output, {"preset": "paper"})
    return text, output


def test_outputs_are_kept_where_only_words_and_captions_changed(tmp_path):
    text, output = ran(tmp_path, ("", "import time\n\nprint(preset, time.time())"), ("", "1 + 1"))
    before = nbformat.read(output, as_version=4)
    again = chapter(PARAMETERS, (":tags: [hide-input]", before.cells[2].source), ("", "1 + 1"))
    text.write_text(again + "\nMore words.\n")
    assert execute.keep(text, output)
    after = nbformat.read(output, as_version=4)
    assert after.cells[-1].source == "More words."
    code = [[c for c in notebook.cells if c.cell_type == "code"] for notebook in (before, after)]
    assert [c.source for c in code[0]] == [c.source for c in code[1]]
    assert [c.outputs for c in code[0]] == [c.outputs for c in code[1]]
    assert code[1][1].source.endswith('preset = "paper"\n')
    assert "hide-input" in code[1][2].metadata.tags
    nbformat.validate(after)


@pytest.mark.parametrize(
    "cells", [[("", "2")], [], [("", "1"), ("", "1")]], ids=["changed", "one less", "one more"]
)
def test_outputs_are_not_kept_where_code_changed(tmp_path, cells):
    text, output = ran(tmp_path, ("", "1"))
    before = output.read_text()
    text.write_text(chapter(PARAMETERS, *cells))
    assert not execute.keep(text, output)
    assert output.read_text() == before


def test_without_outputs_none_are_kept(tmp_path):
    (tmp_path / "sample.md").write_text(chapter(PARAMETERS))
    assert not execute.keep(tmp_path / "sample.md", tmp_path / "sample.ipynb")


def test_a_changed_cell_and_changed_metadata_are_both_told(tmp_path):
    text = tmp_path / "sample.md"
    text.write_text(chapter(PARAMETERS, (":tags: [hide-input]", "1")))
    assert "is missing" in pair.difference(text)
    nbformat.write(execute.read(text), text.with_suffix(".ipynb"))
    assert pair.difference(text) is None
    for cells in ([PARAMETERS, (":tags: [hide-input]", "2")], [PARAMETERS, ("", "1")]):
        text.write_text(chapter(*cells))
        assert "cell 2 " in pair.difference(text)
    text.write_text(chapter(PARAMETERS))
    assert "has 2 cells and sample.md has 1" in pair.difference(text)


def echoed(text, output, parameters):
    """Run a chapter as it is without a kernel: each code cell gives its own source."""
    assert not parameters
    notebook = execute.read(text)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.update(outputs=[nbformat.v4.new_output("stream", text=cell.source.strip())])
    return notebook


@pytest.fixture
def synced(tmp_path, monkeypatch):
    """A chapter with its notebook, and a library of its own."""
    monkeypatch.setattr(execute, "execute", echoed)
    monkeypatch.setattr(pair, "LIBRARY", tmp_path / "library")
    (tmp_path / "library" / "part").mkdir(parents=True)
    (tmp_path / "library" / "part" / "rates.py").write_text("RATE = 0.1  # a rate\n")
    (tmp_path / "library" / "sample.npz").write_bytes(b"1")
    text = tmp_path / "sample.md"
    text.write_text(chapter(PARAMETERS, ("", "1 + 1"), (":tags: [volatile]", "id(1)")))
    assert pair.sync(text)
    assert not stale(text)
    return text


def stale(text):
    """Tell whether a chapter is stale, after some file has changed."""
    pair.library.cache_clear()
    return pair.is_stale(text)


def test_a_notebook_is_rewritten_where_words_change_and_run_where_code_changes(synced):
    def given():
        return [[output.text for output in cell.outputs] for cell in stored(synced).cells[:3]]

    assert given() == [['preset = "sample"'], ["1 + 1"], []]
    notebook = stored(synced)
    notebook.cells[1].outputs[0].text = "2"
    nbformat.write(notebook, synced.with_suffix(".ipynb"))
    synced.write_text(synced.read_text() + "\nMore words.\n")
    assert pair.difference(synced)
    assert not pair.sync(synced)
    assert pair.difference(synced) is None
    assert stored(synced).cells[-1].source == "More words."
    assert given() == [['preset = "sample"'], ["2"], []]
    edit(synced, "1 + 1", "1 + 2")
    assert pair.sync(synced)
    assert pair.difference(synced) is None
    assert given() == [['preset = "sample"'], ["1 + 2"], []]
    nbformat.validate(stored(synced))


def edit(file, old, new):
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_only_contents_tell_what_is_stale(synced):
    for file in (*pair.LIBRARY.rglob("*"), synced, synced.with_suffix(".ipynb")):
        for moment in (0, 4e9):
            os.utime(file, (moment, moment))
            assert not stale(synced)
    rates = pair.LIBRARY / "part" / "rates.py"
    edit(rates, "# a rate", "# another rate")
    assert not stale(synced)
    edit(rates, "0.1", "0.2")
    assert stale(synced)
    edit(rates, "0.2", "0.1")
    (pair.LIBRARY / "sample.npz").write_bytes(b"2")
    assert stale(synced)
    (pair.LIBRARY / "sample.npz").write_bytes(b"1")
    assert not stale(synced)
    rates.rename(rates.with_name("speeds.py"))
    assert stale(synced)


@pytest.mark.parametrize("suffix", [".md", ".ipynb"])
@pytest.mark.parametrize(("old", "new"), [("1 + 1", "1 + 2"), ("volatile", "hide-input")])
def test_a_code_cell_that_changed_makes_its_notebook_stale(synced, suffix, old, new):
    edit(synced.with_suffix(suffix), old, new)
    assert stale(synced)


def test_a_notebook_that_is_missing_or_says_nothing_of_its_code_is_stale(synced):
    mirror = synced.with_suffix(".ipynb")
    notebook = stored(synced)
    del notebook.metadata["revlib"]
    nbformat.write(notebook, mirror)
    assert stale(synced)
    mirror.unlink()
    assert stale(synced)


def test_formatting_changes_code_and_nothing_else(tmp_path):
    text = tmp_path / "sample.md"
    cell = "```{code-cell} ipython3\n---\ntags: [hide-input]\n---\n%s\n```\n"
    prose = "\n*  Prose,   as  it is, with x=1 in it.\n\n"
    text.write_text(chapter(PARAMETERS) + prose + cell % "x=1;")
    pair.reformat(text)
    assert text.read_text() == chapter(PARAMETERS) + prose + cell % "x = 1;"
