"""Keep each notebooks/NAME.ipynb the mirror of notebooks/NAME.md, which is the source.

python book/pair.py sync     rewrite the .ipynb whose text changed; run those whose code changed
python book/pair.py check    say which .ipynb differ from their .md
python book/pair.py format   format the code cells of the .md with ruff
"""

import argparse
import functools
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import execute
import nbformat
from joblib import Parallel, delayed

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "revlib"
TEXTS = sorted((ROOT / "notebooks").glob("*.md"))


def difference(text: Path) -> str | None:
    """Compare a chapter's text with its notebook, cell by cell.

    Parameters
    ----------
    text
        The chapter's ``.md`` file.

    Returns
    -------
    str or None
        A sentence naming the first difference, or None if the two hold the same cells.
    """
    mirror = text.with_suffix(".ipynb")
    mend = "run `make sync`."
    if not mirror.exists():
        return f"{mirror.name} is missing: {mend}"
    wanted, found = (
        [(cell.cell_type, cell.source, cell.metadata) for cell in notebook.cells]
        for notebook in (execute.read(text), nbformat.read(mirror, as_version=4))
    )
    for number, pair in enumerate(zip(wanted, found, strict=False), start=1):
        if pair[0] != pair[1]:
            return f"cell {number} of {mirror.name} is not that of {text.name}: {mend}"
    if len(wanted) != len(found):
        return f"{mirror.name} has {len(found)} cells and {text.name} has {len(wanted)}: {mend}"
    return None


@functools.cache
def library(folder: Path) -> str:
    """Return a digest of what every notebook computes with.

    Parameters
    ----------
    folder
        The library: its code, without comments and docstrings, and its samples of data.
    """
    # It brings PyTorch, for which `check` and `format` need not wait.
    from revlib.store import provenance

    whole = hashlib.sha256()
    for file in sorted([*folder.rglob("*.py"), *folder.rglob("*.npz")]):
        whole.update(f"\n{file.relative_to(folder).as_posix()}\n".encode())
        code = file.suffix == ".py"
        whole.update(provenance.meaning(file.read_text()).encode() if code else file.read_bytes())
    return whole.hexdigest()


def made_from(notebook: nbformat.NotebookNode) -> str:
    """Return a digest of what a notebook's outputs are made from: its code, and the library."""
    cells = [(cell.source, _is_volatile(cell)) for cell in _code_cells(notebook)]
    return hashlib.sha256(json.dumps([cells, library(LIBRARY)]).encode()).hexdigest()[:16]


def is_stale(text: Path) -> bool:
    """Tell whether a chapter's stored outputs are not those of today's code."""
    mirror = text.with_suffix(".ipynb")
    if not mirror.exists():
        return True
    notebook = nbformat.read(mirror, as_version=4)
    noted = notebook.metadata.get("revlib", {}).get("code")
    return not noted == made_from(notebook) == made_from(execute.read(text))


def sync(text: Path) -> bool:
    """Rewrite a chapter's notebook from its text; run it, at `sample`, if its outputs are stale.

    What differs from run to run is left out, so that a diff shows changes only: metadata of the
    run, cell ids, and the outputs of cells tagged ``volatile``.

    Parameters
    ----------
    text
        The chapter's ``.md`` file.

    Returns
    -------
    bool
        Whether the chapter was run.
    """
    clean, mirror = execute.read(text), text.with_suffix(".ipynb")
    stale = is_stale(text)
    if stale:
        run = execute.execute(text, ROOT / "book" / "chapters" / "sync" / mirror.name, {})
    else:
        run = nbformat.read(mirror, as_version=4)
    for cell, executed in zip(_code_cells(clean), _code_cells(run), strict=True):
        if not _is_volatile(cell):
            cell.update(outputs=executed.outputs, execution_count=executed.execution_count)
    clean.metadata["revlib"] = {"code": made_from(clean)}
    nbformat.write(clean, mirror)
    return stale


def reformat(text: Path) -> None:
    """Format a chapter's code cells with ruff, and leave all else in its text as it is.

    Parameters
    ----------
    text
        The chapter's ``.md`` file.
    """
    notebook = execute.read(text)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "notebook.ipynb"
        nbformat.write(notebook, copy)
        ruff = [sys.executable, "-m", "ruff"]
        config = ["--quiet", "--config", str(ROOT / "pyproject.toml"), str(copy)]
        subprocess.run([*ruff, "check", "--fix-only", *config], check=True)
        subprocess.run([*ruff, "format", *config], check=True)
        formatted = nbformat.read(copy, as_version=4)
    original = written = text.read_text()
    position = 0
    for before, after in zip(notebook.cells, formatted.cells, strict=True):
        if before.cell_type == "code":
            position = written.index(f"\n{before.source}\n```", position)
            written = written[:position] + written[position:].replace(
                before.source, after.source, 1
            )
    if written != original:  # a new date on the file would build the chapter again
        text.write_text(written)


def _code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _is_volatile(cell: nbformat.NotebookNode) -> bool:
    return "volatile" in cell.metadata.get("tags", [])


def main() -> None:
    """Do for every chapter what the command line says."""
    parser = argparse.ArgumentParser(description="Keep notebooks/*.ipynb equal to their .md.")
    parser.add_argument("action", choices=["sync", "check", "format"])
    parser.add_argument("--jobs", type=int, default=1, help="notebooks to run at a time")
    arguments = parser.parse_args()
    if arguments.action == "check":
        sys.exit("\n".join(filter(None, map(difference, TEXTS))) or 0)
    if arguments.action == "format":
        for text in TEXTS:
            reformat(text)
        return
    try:
        changed = [text for text in TEXTS if is_stale(text) or difference(text)]
        run = Parallel(arguments.jobs)(delayed(sync)(text) for text in changed)
    except execute.ChapterError as error:
        sys.exit(str(error))
    print(f"{len(changed)} of {len(TEXTS)} notebooks rewritten, {sum(run)} of them run.")


if __name__ == "__main__":
    import pair  # under its name, by which workers look up what it holds

    pair.main()
