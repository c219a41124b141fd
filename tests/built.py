"""Where the built book is, and its pages."""

from pathlib import Path

BOOK = Path(__file__).resolve().parent.parent / "book" / "_build" / "html"
PAGES = sorted(page for page in BOOK.rglob("*.html") if page.parent.name != "_static")  # templates
