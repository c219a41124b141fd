"""Keep each notebooks/NAME.ipynb the mirror of notebooks/NAME.md, which is the source.

python book/pair.py sync     rewrite and run the .ipynb whose text or library changed
python book/pair.py check    say which .ipynb differ from their .md
python book/pair.py format   format the code cells of the .md with ruff
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import execute
import nbformat
from joblib import Parallel, delayed

ROOT = Path(__file__).resolve().parent.parent
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


def is_stale(text: Path) -> bool:
    """Tell whether a chapter's notebook differs from its text, or is older than the library."""
    if difference(text):
        return True
    written = text.with_suffix(".ipynb").stat().st_mtime
    return any(file.stat().st_mtime > written for file in (ROOT / "revlib").rglob("*.py"))


def sync(text: Path) -> None:
    """Rewrite a chapter's notebook from its text, with the outputs of a fresh `ci` run.

    What differs from run to run is left out, so that a diff shows changes only: metadata of the
    run, cell ids, and the outputs of cells tagged ``volatile``.

    Parameters
    ----------
    text
        The chapter's ``.md`` file.
    """
    clean = execute.read(text)
    run = execute.execute(text, ROOT / "book" / "chapters" / "sync" / f"{text.stem}.ipynb", {})
    for cell, executed in zip(clean.cells, run.cells, strict=True):
        if cell.cell_type == "code" and "volatile" not in cell.metadata.get("tags", []):
            cell.update(outputs=executed.outputs, execution_count=executed.execution_count)
    nbformat.write(clean, text.with_suffix(".ipynb"))


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
    if written != original:  # a new date on the file would run the chapter again
        text.write_text(written)


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
    stale = [text for text in TEXTS if is_stale(text)]
    try:
        Parallel(arguments.jobs)(delayed(sync)(text) for text in stale)
    except execute.ChapterError as error:
        sys.exit(str(error))
    print(f"{len(stale)} of {len(TEXTS)} notebooks rewritten.")


if __name__ == "__main__":
    main()
