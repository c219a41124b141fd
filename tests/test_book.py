"""The built book: whole, readable without a network, and without eyes for its pictures."""

import functools
import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import links
import pytest
import yaml
from built import BOOK, PAGES

ROOT = Path(__file__).resolve().parent.parent

if not PAGES:
    pytest.skip("the book is not built: run `make book`", allow_module_level=True)

pytestmark = pytest.mark.slow

CONFIG = yaml.safe_load((ROOT / "book" / "_config.yml").read_text())
ADDRESS = CONFIG["sphinx"]["config"]["html_theme_options"]["repository_url"]
CHAPTERS = sorted(text.stem for text in (ROOT / "notebooks").glob("*.md"))

every_chapter = pytest.mark.parametrize("chapter", CHAPTERS)
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(BOOK)))


class Elements(HTMLParser):
    """Collects the elements of a page: (tag, attributes)."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page.read_text())

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@functools.cache
def elements(page):
    return Elements(page).found


def loaded(page):
    """Yield the address of everything that a browser fetches to show a page."""
    for tag, attributes in elements(page):
        if "src" in attributes:
            yield attributes["src"]
        if tag == "link" and attributes.get("rel") not in ("index", "search", "next", "prev"):
            yield attributes["href"]


@every_page
def test_nothing_is_loaded_from_outside(page):
    for address in loaded(page):
        assert not urlsplit(address).netloc, address


def test_no_style_loads_anything_from_outside():
    styles = list(BOOK.rglob("*.css"))
    assert styles
    for style in styles:
        outside = re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\s]*", style.read_text())
        assert not outside, style


@cache
def anchors(page):
    """The places of a page that an address may end in."""
    return {a[key] for _, a in elements(page) for key in ("id", "name") if a.get(key)}


@every_page
def test_every_local_address_leads_to_a_file_and_a_place_in_it(page):
    addresses = [a[key] for _, a in elements(page) for key in ("href", "src") if a.get(key)]
    for address in addresses:
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            continue
        file = page.parent / unquote(parts.path) if parts.path else page
        assert file.exists(), address
        if parts.fragment:
            assert unquote(parts.fragment) in anchors(file), address


@every_page
def test_page_and_pictures_weigh_at_most_three_megabytes(page):
    sources = {unquote(a["src"]) for tag, a in elements(page) if tag == "img"}
    files = [page, *(page.parent / source for source in sources if not urlsplit(source).scheme)]
    assert sum(file.stat().st_size for file in files) <= 3_000_000


@every_page
def test_every_image_has_alternative_text(page):
    for tag, attributes in elements(page):
        if tag == "img":
            assert attributes.get("alt"), attributes
            assert "_images/" not in attributes["alt"], "the file's name is no description"


@every_page
def test_mathematics_is_set_by_the_books_own_files(page):
    if 'class="math' in page.read_text():
        files = [address.partition("?")[0] for address in loaded(page)]
        assert any(file.endswith("mathjax/tex-chtml.js") for file in files)


@every_chapter
def test_every_chapter_can_be_downloaded_as_notebook_and_as_text(chapter):
    page = (BOOK / "chapters" / f"{chapter}.html").read_text()
    assert f'href="../_sources/chapters/{chapter}.ipynb"' in page
    assert f'href="../_sources/notebooks/{chapter}.md"' in page
    assert (BOOK / "_sources" / "chapters" / f"{chapter}.ipynb").exists()
    text = (ROOT / "notebooks" / f"{chapter}.md").read_bytes()
    assert (BOOK / "_sources" / "notebooks" / f"{chapter}.md").read_bytes() == text


@every_chapter
def test_a_chapter_links_to_its_repository_where_there_is_one_and_only_there(chapter):
    page = (BOOK / "chapters" / f"{chapter}.html").read_text()
    buttons = links.buttons(chapter, ADDRESS, links.commit())
    for button in buttons:
        assert f'href="{button["url"]}"' in page
    assert buttons or "mybinder.org" not in page
