"""Sphinx extension: what each chapter's page links to besides other pages; and docstrings.

The pages are made from book/chapters/NAME.ipynb, which are built and in no repository. The source
of a chapter is notebooks/NAME.md, and what one runs is notebooks/NAME.ipynb beside it. So the
theme's own buttons, which assume that page and source have one name, would lead nowhere.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parent.parent
BINDER = "https://mybinder.org"


def buttons(chapter: str, repository: str, commit: str) -> list[dict[str, Any]]:
    """Return the buttons that lead to the public repository.

    Parameters
    ----------
    chapter
        Name of the chapter, for example ``3-1-quadratic-loss``.
    repository
        The repository's address, empty where there is none.
    commit
        The full commit that the page was built from. What is launched is that one and no newer one,
        so that page, notebook and library are of one version.

    Returns
    -------
    list of dict
        Buttons as the theme takes them; none without an address.
    """
    if not repository or not commit:
        return []
    repository = repository.rstrip("/")
    notebook = quote(f"lab/tree/notebooks/{chapter}.ipynb", safe="")
    return [
        {
            "type": "link",
            "url": f"{repository}/blob/{commit}/notebooks/{chapter}.md",
            "tooltip": "Source in the repository",
            "text": "",
            "icon": "fas fa-code",
            "label": "chapter-source-button",
        },
        {
            "type": "link",
            "url": f"{BINDER}/v2/git/{quote(repository, safe='')}/{commit}?urlpath={notebook}",
            "tooltip": "Run this chapter on Binder",
            "text": "",
            "icon": "fas fa-rocket",
            "label": "chapter-binder-button",
        },
    ]


def download(chapter: str, pathto: Any) -> dict[str, Any]:
    """Return the entry of the download menu for a chapter's text."""
    return {
        "type": "link",
        "url": pathto(f"_sources/notebooks/{chapter}.md", 1),
        "text": ".md",
        "tooltip": "Download the chapter's text, its source",
        "icon": "fas fa-file",
        "label": "download-text-button",
    }


def commit() -> str:
    """Return the full commit of the project, empty where it is not under version control."""
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _extend(app, pagename, templatename, context, doctree) -> None:
    """Add a chapter's links to the buttons of its page."""
    folder, _, chapter = pagename.rpartition("/")
    if folder != "chapters":
        return
    for group in context["header_buttons"]:
        if group.get("label") == "download-buttons":
            group["buttons"].insert(1, download(chapter, context["pathto"]))
    repository = app.config.html_theme_options.get("repository_url", "")
    context["header_buttons"] += buttons(chapter, repository, commit())


def _copy(app, exception) -> None:
    """Put the texts of the chapters beside the pages."""
    if exception is None and app.builder.format == "html":
        texts = Path(app.outdir, "_sources", "notebooks")
        texts.mkdir(parents=True, exist_ok=True)
        for text in (ROOT / "notebooks").glob("*.md"):
            shutil.copy(text, texts)


def _sentence(app, what, name, obj, options, lines) -> None:
    """Let the docstring of an attribute be a sentence.

    Napoleon takes what stands before a colon in the first line for a type, so that line is made
    an empty comment.
    """
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]


def setup(app) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("autodoc-process-docstring", _sentence, priority=400)  # napoleon's comes at 500
    app.connect("html-page-context", _extend, priority=502)  # the theme's come at 501
    app.connect("build-finished", _copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
