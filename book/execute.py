"""Run one chapter: MyST text in, executed notebook out.

python book/execute.py notebooks/NAME.md book/chapters/NAME.ipynb --preset paper
"""

import argparse
import ast
import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

# One thread for each notebook, since the numbers depend on it and several run side by side; and the
# kernel that is installed with this Python, whatever other kernels the user has.
ENVIRONMENT = {
    "JUPYTER_PATH": str(Path(sys.prefix) / "share" / "jupyter"),
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class ChapterError(Exception):
    """A chapter that cannot be run; the message is one sentence for its author."""


def read(text: Path) -> nbformat.NotebookNode:
    """Read a chapter's MyST text as a notebook.

    Parameters
    ----------
    text
        The chapter's ``.md`` file.

    Returns
    -------
    NotebookNode
        The notebook, without outputs and without cell ids (which jupytext draws at random).

    Raises
    ------
    ChapterError
        If not exactly one cell is tagged ``parameters``: papermill would only warn, and the
        chapter would silently run with another preset than the one it was asked for.
    """
    notebook = jupytext.read(text, fmt="md:myst")
    tagged = sum("parameters" in cell.metadata.get("tags", []) for cell in notebook.cells)
    if tagged != 1:
        raise ChapterError(
            f"{os.path.relpath(text)}: {tagged} cells are tagged `parameters`; tag exactly one,"
            " the one that sets the preset."
        )
    notebook.nbformat_minor = 4
    for cell in notebook.cells:
        cell.pop("id", None)
    return notebook


def execute(text: Path, output: Path, parameters: dict[str, str]) -> nbformat.NotebookNode:
    """Run a chapter in its own folder with papermill.

    The output appears only when every cell has run. Otherwise what was reached stays beside it
    as ``NAME.partial.ipynb``.

    Parameters
    ----------
    text
        The chapter's ``.md`` file.
    output
        The executed notebook to write.
    parameters
        What papermill is to set; empty to leave the chapter as it is written.

    Returns
    -------
    NotebookNode
        The executed notebook.

    Raises
    ------
    ChapterError
        If a cell fails or the kernel dies: names the notebook, the cell and the error.
    """
    os.environ.update(ENVIRONMENT)
    partial = output.with_suffix(".partial.ipynb").absolute()
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        notebook = papermill.execute_notebook(
            read(text),
            partial,
            parameters=parameters,
            kernel_name="python3",
            cwd=text.parent,
            progress_bar=sys.stderr.isatty(),
            extra_arguments=["--IPKernelApp.log_level=50"],  # no remarks about transports
            coalesce_streams=True,  # on a busy machine what is printed comes in more pieces
        )
    except (PapermillExecutionError, DeadKernelError) as error:
        raise ChapterError(_failure(text, partial, error)) from None
    _sum_up(notebook)
    del notebook.metadata["papermill"]  # a copy of the input, and places on this machine
    nbformat.write(notebook, partial)
    partial.replace(output)
    return notebook


def keep(text: Path, output: Path) -> bool:
    """Take a chapter's new text and the outputs that it has, if its code is still the same.

    Parameters
    ----------
    text
        The chapter's ``.md`` file.
    output
        The executed notebook, which is rewritten.

    Returns
    -------
    bool
        Whether that could be done. If not, nothing is changed.

    Raises
    ------
    ChapterError
        If not exactly one cell is tagged ``parameters``.
    """
    notebook = read(text)
    if not output.exists():
        return False
    executed = nbformat.read(output, as_version=4)
    injected, ran = [], []
    for cell in executed.cells:
        if cell.cell_type == "code":
            tags = cell.metadata.get("tags", [])
            (injected if "injected-parameters" in tags else ran).append(cell)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.source for cell in cells] != [cell.source for cell in ran]:
        return False
    for cell, before in zip(cells, ran, strict=True):
        cell.update(outputs=before.outputs, execution_count=before.execution_count)
    [place] = (
        number
        for number, cell in enumerate(notebook.cells, start=1)
        if "parameters" in cell.metadata.get("tags", [])
    )
    for cell in injected:
        cell.pop("id", None)
    notebook.cells[place:place] = injected
    notebook.metadata = executed.metadata
    _sum_up(notebook)
    nbformat.write(notebook, output)
    return True


def _sum_up(notebook: nbformat.NotebookNode) -> None:
    """Fold the two cells of parameters into one line, which says how they are set on this page."""
    values = {}
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "parameters" in tags:
            written = cell
        elif "injected-parameters" not in tags:
            continue
        elif "remove-input" not in tags:
            tags.append("remove-input")
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.Assign | ast.AnnAssign):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                values[target.id] = ast.unparse(node.value)
    if "hide-input" not in written.metadata["tags"]:
        written.metadata["tags"].append("hide-input")
    line = ", ".join(f"{name} = {value}" for name, value in values.items() if value != "None")
    prompts = dict.fromkeys(("code_prompt_show", "code_prompt_hide"), f"This page: {line}")
    written.metadata["mystnb"] = prompts


def _failure(text: Path, partial: Path, error: Exception) -> str:
    """Say in one sentence which cell of a chapter failed and how."""
    reached = [
        cell
        for cell in nbformat.read(partial, as_version=4).cells
        if cell.cell_type == "code"
        and "injected-parameters" not in cell.metadata.get("tags", [])
        and cell.metadata.papermill.start_time
    ]
    first_line = reached[-1].source.strip().splitlines()[0]
    what = getattr(error, "ename", "the kernel died")
    why = getattr(error, "evalue", "out of memory, perhaps")
    return (
        f"{os.path.relpath(text)}: code cell {len(reached)}, which begins `{first_line}`, failed:"
        f" {what}: {why}\n"
        f"How far it came: {os.path.relpath(partial)}"
    )


def main() -> None:
    """Run the chapter named on the command line."""
    parser = argparse.ArgumentParser(description="Run one chapter with papermill.")
    parser.add_argument("text", type=Path, metavar="NOTEBOOK.md")
    parser.add_argument("output", type=Path, metavar="OUT.ipynb")
    parser.add_argument("--preset", choices=["sample", "paper"], required=True)
    parser.add_argument(
        "--keep", action="store_true", help="run it only if its code is not that of the output"
    )
    arguments = parser.parse_args()
    start = time.perf_counter()
    try:
        if arguments.keep and keep(arguments.text, arguments.output):
            print(f"{arguments.text}: its code has not changed; the outputs are kept")
            return
        execute(arguments.text, arguments.output, {"preset": arguments.preset})
    except ChapterError as error:
        sys.exit(str(error))
    print(f"{arguments.text} ({arguments.preset}): {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
