"""The built book in a real browser, opened from the disk: what a reader sees, hears and moves."""

import io
import os
import random
import shutil
import urllib.parse

import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from built import BOOK, PAGES
from PIL import Image
from playwright.sync_api import Error, sync_playwright

import revlib
from revlib.theory import quadratic
from revlib.training.maps import noisy_quadratic

pytestmark = pytest.mark.slow

if not PAGES:
    pytest.skip("the book is not built: run `make book`", allow_module_level=True)

WIDE, LAPTOP, PHONE = ({"width": width, "height": 900} for width in (1400, 1300, 375))

# The one that the system has; None leaves it to Playwright, which may have downloaded its own.
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)

# What is left of a page when everything is taken out that may hold a dollar or a backslash; and the
# formulas that are not rendered.
MATHEMATICS = """() => {
    const main = document.querySelector("main").cloneNode(true);
    main.querySelectorAll("pre, code, script, mjx-container").forEach((part) => part.remove());
    const wrong = "mjx-merror, [data-mml-node='merror'], .math:not(:has(mjx-container))";
    return [main.textContent, [...document.querySelectorAll(wrong)].map((each) => each.outerHTML)];
}"""

# The pictures that are not shown or not described.
PICTURES = """() => {
    const drawings = "article svg:not(mjx-container *, button *, [aria-hidden=true])";
    const wrong = [...document.querySelectorAll("img")]
        .filter((image) => !(image.alt && image.complete && image.naturalWidth > 0))
        .concat([...document.querySelectorAll(drawings)].filter((drawing) => !drawing.ariaLabel));
    return wrong.map((picture) => picture.outerHTML.slice(0, 200));
}"""

# What axe-core would look at for long and to no end: formulas, which are MathJax's, and words of
# code and of signatures of which the page has a longer one that is styled in the same way.
PRUNE = """() => {
    const seen = new Set();
    const style = (element) => element.matches("pre, dt.sig")
        ? element.parentElement.className
        : `${style(element.parentElement)} ${element.localName}.${element.className}`;
    document.querySelectorAll("mjx-container").forEach((formula) => formula.remove());
    const words = [...document.querySelectorAll(":is(pre, dt.sig) span:not(:has(*))")];
    for (const word of words.sort((a, b) => b.textContent.length - a.textContent.length)) {
        const own = style(word);
        if (seen.has(own)) word.remove();
        seen.add(own);
    }
}"""

# Marks one element of each kind for axe-core to measure its contrast, which takes longer than all
# else. Of a kind are elements of one name and class in the same colours, before the same grounds;
# the one with the most text is marked, since axe-core does not judge a single character, nor what
# is scrolled out of a side bar. Kinds that were judged on an earlier page are left out.
SAMPLE = """(judged) => {
    const grounds = new Map([[null, ""]]), marked = new Map();
    const scrolledOut = (element) => {
        const bar = element.closest(".bd-sidebar")?.getBoundingClientRect();
        const { top, bottom } = element.getBoundingClientRect();
        return bar && (top < bar.top || bottom > bar.bottom);
    };
    const ground = (element) => {
        if (!grounds.has(element)) {
            const { opacity, backgroundColor, backgroundImage } = getComputedStyle(element);
            const own = [opacity, backgroundColor, backgroundImage].join();
            const seen = own === "1,rgba(0, 0, 0, 0),none" ? "" : own;
            grounds.set(element, ground(element.parentElement) + seen);
        }
        return grounds.get(element);
    };
    for (const element of document.querySelectorAll("body *")) {
        delete element.dataset.sample;
        if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
        if (scrolledOut(element)) continue;
        const { color, fontSize, fontWeight } = getComputedStyle(element);
        const name = [element.localName, element.getAttribute("class"), element.type];
        const kind = [...name, color, fontSize, fontWeight, ground(element)].join();
        const own = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE);
        const length = own.map((node) => node.data.trim()).join("").length;
        if (!(marked.get(kind)?.length >= length)) marked.set(kind, { element, length });
    }
    for (const kind of judged) marked.delete(kind);
    for (const { element } of marked.values()) element.dataset.sample = "";
    return [...marked.keys()];
}"""

# What is wider than its column, and so scrolls to the side or is cut off.
CUT_OFF = """() => [...document.querySelectorAll(".bd-article *")]
    .filter((element) => element.clientWidth && element.scrollWidth > element.clientWidth + 1)
    .filter((element) => ["auto", "scroll", "hidden"].includes(
        getComputedStyle(element).overflowX) && !element.closest("span.math, mjx-assistive-mml"))
    .map((element) => element.outerHTML.slice(0, 200))"""

# The elements that stick out of the window to the right, and out of everything that scrolls.
STICKING_OUT = """() => {
    const scrolls = (element) => ["auto", "scroll"].includes(getComputedStyle(element).overflowX);
    const kept = (element) =>
        element && !element.matches(".bd-article-container") && (scrolls(element) ||
        kept(element.parentElement));
    return [...document.querySelectorAll(".bd-article-container *, footer *")]
        .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
        .filter((element) => !kept(element.parentElement))
        .map((element) => element.outerHTML.slice(0, 200));
}"""


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=CHROMIUM)
        except Error as error:
            # In CI there must be a browser: a skipped test would look like a passed one.
            missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
            missing(
                "Chromium did not start; install it with `apt-get install chromium`, or where"
                f" there is no apt-get with `.venv/bin/playwright install chromium`: "
                f"{error.message.splitlines()[0]}"
            )
        yield chromium
        chromium.close()


class Visit:
    """A tab as a reader has it before them, and what its page asked for and complained of."""

    def __init__(self, browser, **settings):
        options = {"viewport": WIDE, "color_scheme": "light"} | settings
        self.window, self.scheme = options["viewport"], options["color_scheme"]
        self.tab = browser.new_context(reduced_motion="reduce", offline=True, **options).new_page()
        self.tab.set_default_timeout(600_000)  # a busy machine is slow, and that is no fault
        self.requests, self.failed, self.complaints = [], [], []
        self.judged = set()  # of which kinds of elements axe-core has measured the contrast
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("requestfailed", lambda request: self.failed.append(request.url))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("console", self._hear)

    def _hear(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def open(self, page):
        """Open a page anew, whatever was done with the one before it."""
        self.page = page
        self.tab.goto("about:blank")
        for heard in (self.requests, self.failed, self.complaints):
            heard.clear()
        self.tab.set_viewport_size(self.window)
        self.tab.emulate_media(color_scheme=self.scheme)
        self.tab.goto(page.as_uri())
        self.tab.evaluate("async () => { await window.MathJax?.startup.promise; }")
        return self

    def findings(self, **options):
        """Return what axe-core finds serious or critical, as to contrast in the sample."""
        if not self.tab.evaluate("'axe' in window"):
            sample = '{ rules: [{ id: "color-contrast", selector: "[data-sample]" }] }'
            self.tab.evaluate(f"{Axe().axe_script}; axe.configure({sample});")
        if "color-contrast" in options.get("runOnly", ["color-contrast"]):
            self.judged.update(self.tab.evaluate(SAMPLE, list(self.judged)))
        options = {"resultTypes": ["violations"]} | options
        # What needs preloading, and the rule about regions, take long to find nothing serious.
        options |= {"preload": False, "rules": {"region": {"enabled": False}}}
        run = "async (options) => (await axe.run(options)).violations"
        return [
            (rule["id"], node["html"][:200])
            for rule in self.tab.evaluate(run, options)
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ]


# index.html only leads to the first page.
READ = [page for page in PAGES if page != BOOK / "index.html"]


@pytest.fixture(scope="module")
def reader(browser):
    """One tab for page after page: what they share is then compiled once."""
    visit = Visit(browser, viewport=LAPTOP)
    yield visit
    visit.tab.context.close()


@pytest.fixture(scope="module", params=READ, ids=lambda page: str(page.relative_to(BOOK)))
def visit(request, reader):
    """Every page in turn, opened once for all tests below.

    They stand in an order that changes the window rarely: a long page takes its time to fit it.
    """
    return reader.open(request.param)


def test_the_page_complains_of_nothing(visit):
    assert not visit.complaints
    assert not visit.failed


def test_the_page_asks_for_nothing_outside_the_book(visit):
    assert visit.requests
    for address in visit.requests:
        assert address.startswith((BOOK.as_uri(), "data:", "blob:")), address


def test_all_mathematics_is_rendered(visit):
    prose, wrong = visit.tab.evaluate(MATHEMATICS)
    for sign in ("$", "\\(", "\\[", "\\begin"):
        assert sign not in prose
    assert not wrong


def test_every_picture_is_shown_and_described(visit):
    assert not visit.tab.evaluate(PICTURES)


def test_figures_are_no_wider_than_can_be_read_on_a_phone(visit):
    """At 200 dots per inch: then the smallest text, of 10 points, is 7 pixels high there."""
    images = "[...document.querySelectorAll(\"article img[src$='.png']\")]"
    for width in visit.tab.evaluate(f"{images}.map((image) => image.naturalWidth)"):
        assert width <= 7 * 200


def test_nothing_is_cut_off_on_a_laptop(visit):
    visit.tab.set_viewport_size(LAPTOP)
    assert not visit.tab.evaluate(STICKING_OUT)
    assert not visit.tab.evaluate(CUT_OFF)


REACHABLE = """() => [...document.querySelectorAll("pre, .pst-scrollable-table-container, .output")]
    .every(each => each.scrollWidth <= each.clientWidth || each.tabIndex === 0)"""

# Does anything scroll that the keyboard does not reach itself, but perhaps a link in it?
UNREACHED = """() => [...document.querySelectorAll("body *")]
    .filter((each) => each.scrollWidth > each.clientWidth || each.scrollHeight > each.clientHeight)
    .filter((each) => each.tabIndex < 0 && each.checkVisibility({ visibilityProperty: true }))
    .map((each) => getComputedStyle(each))
    .some((style) => /auto|scroll/.test(style.overflowX + style.overflowY))"""


def test_the_page_fits_a_phone(visit):
    visit.tab.set_viewport_size(PHONE)
    assert visit.tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert not visit.tab.evaluate(STICKING_OUT)
    # What scrolls there must be within a keyboard's reach, once the page has noticed its new width.
    visit.tab.wait_for_function(REACHABLE)
    if visit.tab.evaluate(UNREACHED):
        assert not visit.findings(runOnly=["scrollable-region-focusable"])


# The pages of the reference are made alike, and long.
REFERENCE = [page for page in READ if page.parent.name == "api" or page.name == "genindex.html"]
DRAWN = random.SystemRandom().choice(REFERENCE)


def test_the_page_is_accessible_light_and_dark(visit):
    if visit.page in REFERENCE and visit.page != DRAWN:
        pytest.skip(f"of the reference, {DRAWN.name} was drawn for this run of the tests")
    visit.tab.evaluate(PRUNE)  # so that no test of the whole page may come after this one
    visit.tab.set_viewport_size(WIDE)
    assert visit.tab.evaluate("document.documentElement.dataset.theme") == "light"
    light = visit.findings()
    visit.tab.emulate_media(color_scheme="dark")
    visit.tab.wait_for_function("document.documentElement.dataset.theme === 'dark'")
    dark = visit.findings(runOnly=["color-contrast", "link-in-text-block"])  # all that differs
    assert not light
    assert not dark


def test_the_search_finds_a_word(browser):
    visit = Visit(browser)
    visit.tab.goto(f"{(BOOK / 'search.html').as_uri()}?q=contraction")
    visit.tab.locator("#search-results li a").first.click()
    assert "contraction" in visit.tab.inner_text("article").lower()
    assert not visit.complaints
    visit.tab.context.close()


@pytest.mark.parametrize("page", ["intro.html", "chapters/1-forward-and-backward-iterates.html"])
def test_the_ground_of_a_figure_is_the_page_also_where_that_is_dark(browser, page):
    visit = Visit(browser, color_scheme="dark").open(BOOK / page)
    # It comes into view while one scrolls, over the middle of what is at the top.
    visit.tab.add_style_tag(content="#pst-back-to-top { display: none !important }")
    for image in visit.tab.locator("article img").all():
        for _ in range(4):  # while the page moves, what lies over it may pass by
            image.evaluate("image => image.scrollIntoView({block: 'center'})")
            shot = Image.open(io.BytesIO(image.screenshot())).convert("RGB")
            ground = shot.getpixel((shot.width // 2, 1))  # between the labels, above the legend
            if max(ground) < 0x30:
                break
            visit.tab.wait_for_timeout(300)
        assert max(ground) < 0x30
        assert max(high for _, high in shot.getextrema()) > 0xC0, "text is bright"
    visit.tab.context.close()


@pytest.fixture
def claims(browser):
    visit = Visit(browser).open(BOOK / "claims.html")
    yield visit
    assert not visit.complaints
    visit.tab.context.close()


def shown(visit):
    """Return the rows of the table of claims that are shown: the texts of their cells."""
    rows = visit.tab.locator(".filterable tbody tr:visible")
    return rows.evaluate_all(
        "(rows) => rows.map((row) => [...row.cells].map((cell) => cell.innerText))"
    )


def test_the_table_of_claims_is_filtered_by_keyboard(claims):
    whole = shown(claims)
    assert claims.tab.locator(".filter output").inner_text() == f"{len(whole)} of {len(whole)} rows"
    claims.tab.get_by_label("verdict").focus()
    claims.tab.keyboard.type("reproduced")
    some = [row for row in whole if row[1] == "reproduced"]
    assert shown(claims) == some
    claims.tab.keyboard.press("Tab")
    assert claims.tab.evaluate("document.activeElement.labels[0].firstChild.data") == "figure "
    claims.tab.keyboard.type("4")
    fewer = [row for row in some if row[4] == "4"]
    assert 0 < len(fewer) < len(some) < len(whole)
    assert shown(claims) == fewer
    told = claims.tab.locator(".filter output").inner_text()
    assert told == f"{len(fewer)} of {len(whole)} rows"


def test_the_table_of_claims_is_filtered_by_chapter(claims):
    whole = shown(claims)
    claims.tab.get_by_label("chapter").select_option("a-1-regression")
    links = claims.tab.locator(".filterable tbody tr:visible a")
    addresses = links.evaluate_all("(links) => links.map((link) => link.getAttribute('href'))")
    assert 0 < len(addresses) < len(whole)
    assert set(addresses) == {"chapters/a-1-regression.html"}
    claims.tab.get_by_label("chapter").select_option("all")
    assert shown(claims) == whole


def test_without_scripts_the_table_of_claims_is_whole(browser, claims):
    tab = browser.new_context(java_script_enabled=False).new_page()
    tab.goto((BOOK / "claims.html").as_uri())
    assert tab.locator(".filterable tbody tr:visible").count() == len(shown(claims))
    assert tab.locator(".filter").count() == 0
    tab.context.close()


class LiveOrders(Visit):
    """The page whose paths are computed in the browser."""

    def open(self):
        return super().open(BOOK / "live-orders.html")

    def part(self, name):
        return self.tab.locator(f"#live-orders-{name}")

    def set(self, **values):
        for name, value in values.items():
            self.part(name).fill(str(value))

    def table(self):
        """Return the paths and their noise, from the link that downloads them."""
        address = self.part("data").get_attribute("href")
        text = urllib.parse.unquote(address.removeprefix("data:text/csv,"))
        return pd.read_csv(io.StringIO(text), index_col="step")


@pytest.fixture(scope="module")
def live_orders_tab(browser):
    visit = LiveOrders(browser)
    yield visit
    visit.tab.context.close()


@pytest.fixture
def live_orders(live_orders_tab):
    yield live_orders_tab.open()
    assert not live_orders_tab.complaints


ORDERS = ("forward", "windowed", "tail", "backward")


def orders(size=10, length=10):
    fixed = revlib.tail(length) if length else revlib.forward()
    return [revlib.forward(), revlib.windowed(size), fixed, revlib.backward()]


@pytest.mark.parametrize(
    ("h", "sigma", "size", "length"),
    [(0.2, 1, 10, 10), (1.5, 0.5, 7, 59), (1, 3, 60, 0), (2.2, 1, 1, 60), (0.05, 0, 59, 1)],
)
def test_the_paths_are_those_of_the_library(live_orders, h, sigma, size, length):
    live_orders.set(h=h, sigma=sigma, size=size, length=length)
    table = live_orders.table()
    noise = table["noise"].to_numpy()[1:]
    maps = noisy_quadratic(h, noise)
    assert len(maps) == 60
    for name, order in zip(ORDERS, orders(size, length), strict=True):
        path = [theta for _, theta in revlib.iterates(maps, 1.0, order)]
        np.testing.assert_allclose(table[name], path, rtol=1e-12, atol=1e-12)
    assert np.std(noise) == pytest.approx(sigma, rel=0.25)


def test_the_picture_shows_the_paths(live_orders):
    table = live_orders.table()
    for name in ORDERS:
        line = live_orders.part("picture").locator(f"polyline.{name}").get_attribute("points")
        x, y = np.array(line.replace(",", " ").split(), dtype=float).reshape(-1, 2).T
        for drawn, values in ((x, table.index), (-y, table[name])):  # y points down on a screen
            slope, shift = np.polyfit(values, drawn, 1)
            assert slope > 0
            np.testing.assert_allclose(slope * values + shift, drawn, atol=1e-6)


@pytest.mark.parametrize(("length", "other"), [(0, "forward"), (60, "backward")])
def test_the_ending_turns_forward_into_backward(live_orders, length, other):
    apart = live_orders.table()
    assert (apart["tail"][12:] != apart[other][12:]).all()  # until then tail(10) is backward
    live_orders.set(length=length)
    table = live_orders.table()
    assert (table["tail"] == table[other]).all()
    assert f"tail({length})" in live_orders.part("picture").inner_text()


def test_each_map_more_at_the_end_contracts_what_comes_before(live_orders):
    changes = []
    for length in (5, 6):
        live_orders.set(h=0.5, length=length)
        changes.append(np.diff(live_orders.table()["tail"][40:]))
    np.testing.assert_allclose(changes[1], changes[0] / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("step", "size", "length"),
    [(1, 10, 0), (24, 10, 10), (25, 5, 24), (60, 60, 60), (60, 1, 59), (8, 3, 9)],
)
def test_the_boxes_show_which_maps_are_applied(live_orders, step, size, length):
    live_orders.set(step=step, size=size, length=length)
    rows = live_orders.part("replays").locator("ol").all()
    told = live_orders.part("replays").locator("p").all_inner_texts()
    for row, text, order in zip(rows, told, orders(size, length), strict=True):
        word, before = order.applied(step), order.applied(step - 1)
        count = next((i for i, letter in enumerate(before) if word[i] != letter), step - 1)
        kept, now = word[:count], word[count:]
        assert row.locator("li.kept").all_inner_texts() == [f"T{i}" for i in kept]
        assert row.locator("li.now").all_inner_texts() == [f"T{i}" for i in now]
        whole = order.applied(count) == kept
        origin = f"θ({count})" if whole else f"what T{kept[0]} to T{kept[-1]} have made of θ(0)"
        assert f"{order.name if length else text.partition(':')[0]}: from {origin} apply" in text
        assert f"apply T{now[0]}" in text
        assert f"({len(now)} map" in text


def test_words_tell_what_the_picture_shows(live_orders):
    live_orders.set(h=0.5, sigma=2, size=6, length=4)
    table = live_orders.table()
    summary = live_orders.part("summary").inner_text()
    assert f"= {np.sqrt(quadratic.stationary_variance(0.5, 2)):#.3g} (the grey band)" in summary
    assert f"spread of the forward path is {table['forward'][-20:].std(ddof=0):#.3g}" in summary
    assert f"path of tail(4) {table['tail'][-20:].std(ddof=0):#.3g}" in summary
    rows = live_orders.part("table").inner_text().replace("−", "-").splitlines()
    for row, order in zip(rows, orders(6, 4), strict=True):
        name, spread, end, cost = row.split()
        assert float(spread) == pytest.approx(table[name][-20:].std(ddof=0), rel=0.005)
        assert float(end) == pytest.approx(table[name][60], rel=0.005)
        assert int(cost) == order.cost(range(61))


@pytest.mark.parametrize(
    ("h", "words"), [(1.95, "They contract"), (2, "do not contract"), (2.05, "do not contract")]
)
def test_the_condition_of_contraction_is_told(live_orders, h, words):
    live_orders.set(h=h)
    assert words in live_orders.part("summary").inner_text()
    assert live_orders.part("picture").locator(".band").count() == (4 if h < 2 else 0)


def test_new_batches_are_other_noises_and_the_same_for_every_reader(live_orders, browser):
    first = live_orders.table()
    live_orders.part("noise").click()
    second = live_orders.table()
    assert (first["noise"][1:] != second["noise"][1:]).all()
    again = LiveOrders(browser).open()
    pd.testing.assert_frame_equal(again.table(), first)
    again.tab.context.close()


def test_the_keyboard_suffices(live_orders):
    before = live_orders.table()
    live_orders.tab.get_by_label("Learning rate h").focus()
    live_orders.tab.keyboard.press("ArrowRight")
    assert live_orders.tab.locator("output[for=live-orders-h]").inner_text() == "0.25"
    after = live_orders.table()
    assert (after["noise"][1:] == before["noise"][1:]).all()
    assert (after["forward"][1:] != before["forward"][1:]).all()
    labels = ("Standard deviation σ of the noise", "Size w of the window")
    for label in (*labels, "Number m of fixed last maps", "Step n to look at"):
        live_orders.tab.keyboard.press("Tab")
        assert live_orders.tab.evaluate("document.activeElement.labels[0].innerText") == label
    live_orders.tab.keyboard.press("Tab")
    live_orders.tab.keyboard.press("Enter")
    assert (live_orders.table()["noise"][1:] != before["noise"][1:]).all()


def test_without_scripts_the_page_says_so(browser):
    tab = browser.new_context(java_script_enabled=False).new_page()
    tab.goto((BOOK / "live-orders.html").as_uri())
    assert tab.locator("noscript p").first.is_visible()
    assert not tab.locator("#live-orders").is_visible()
    tab.context.close()
