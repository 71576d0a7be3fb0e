"""The book: built by Sphinx, every link followed, and opened in a real browser that tells what it asked for."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from lab_driver import chromium

from avkit.errors import DataError
from avkit.teach import book, notebooks

SHORT = (["00", "01", "02"], ["avkit", "avkit.rtfs", "avkit.metrics", "avkit.data.labels"])


class _Page(HTMLParser):
    """What a page links to or shows, and the places that can be linked to."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.places, self.without_words = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.places |= {values.get("id"), values.get("name")} - {None}
        self.links += [values[name] for name in ("href", "src") if values.get(name)]
        if tag == "img" and not values.get("alt"):
            self.without_words.append(values.get("src", "")[:80])


def _broken_links(folder: Path) -> list[str]:
    """Links to files or places that are not there, and files that a page would fetch from another host."""
    pages = {path: _Page(path.read_text()) for path in folder.rglob("*.html")}
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                broken.append(f"{path.relative_to(folder)}: {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places:
                broken.append(f"{path.relative_to(folder)}: {link}, no such place")
    return broken


@contextlib.contextmanager
def _served(folder: Path):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class _Watch:
    """What a browser's page asks for, and what fails."""

    def __init__(self, page, address: str):
        self.outside, self.failed = [], []
        page.on("request", lambda r: r.url.startswith((address, "data:", "blob:", "about:")) or self.outside.append(r.url))
        page.on("response", lambda r: r.status < 400 or self.failed.append(f"{r.status} {r.url}"))
        page.on("pageerror", lambda error: self.failed.append(str(error)))


_SOUND = """async () => {  // every player can be played; one of each kind is
    const players = [...document.querySelectorAll("audio, video")];
    for (const player of players) {
        if (player.readyState < 1) await new Promise(done => {
            player.onloadedmetadata = player.onerror = done; player.load(); setTimeout(done, 10000); });
    }
    const bad = players.filter(p => p.error || !(p.duration > 0.1)).map(p => p.getAttribute("aria-label"));
    const played = {};
    for (const kind of ["AUDIO", "VIDEO"]) {
        const player = players.find(p => p.tagName === kind);
        if (!player) continue;
        await player.play();
        await new Promise(done => setTimeout(done, 600));
        played[kind] = player.currentTime;
        player.pause();
    }
    return {count: players.length, bad, played};
}"""
_PICTURES = """() => [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.alt)"""


def _visit(page, address: str, name: str) -> dict:
    """Open a page; pictures must be there, players must play, formulas must be set."""
    page.goto(address + name, timeout=60_000)
    page.wait_for_load_state("load")
    formulas = page.locator(".math").count()
    if formulas:
        page.wait_for_function(
            "window.MathJax?.Hub?.queue?.pending === 0 && document.querySelectorAll('.MathJax').length >= 1",
            timeout=60_000,
        )
        assert page.locator(".merror").all_inner_texts() == []
    assert page.evaluate(_PICTURES) == []
    sound = page.evaluate(_SOUND)
    assert sound["bad"] == []
    assert all(seconds > 0.1 for seconds in sound["played"].values()), sound
    return {**sound, "formulas": formulas, "pictures": page.locator(".cell_output img").count()}


def _search(page, address: str, word: str) -> list[str]:
    page.goto(address + f"search.html?q={word}", timeout=60_000)
    page.wait_for_function("document.querySelectorAll('#search-results li').length > 0", timeout=30_000)
    return page.locator("#search-results li a").all_inner_texts()


@pytest.fixture(scope="module")
def built(tmp_path_factory, repository):
    """Two notebooks and four modules; the folder, and Sphinx's warnings."""
    folder = tmp_path_factory.mktemp("book") / "book"
    return folder, book.build(repository / "notebooks", folder, *SHORT)


def test_nothing_is_misread_and_no_link_is_broken(built):
    folder, warnings = built
    assert warnings == []
    assert _broken_links(folder) == []


def test_a_broken_link_would_be_found(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html">b</a><a href="a.html#there">a</a><a href="#here" id="here">h</a>')
    assert _broken_links(tmp_path) == ["a.html: b.html", "a.html: a.html#there, no such place"]


def test_every_page_names_the_licence_and_every_picture_has_words(built):
    for path in built[0].rglob("*.html"):
        assert "CC BY 4.0" in path.read_text(), path
        assert _Page(path.read_text()).without_words == [], path
    assert 'href="https://creativecommons.org/licenses/by/4.0/"' in (built[0] / "index.html").read_text()


def test_the_reference_shows_signatures_and_docstrings(built):
    text = (built[0] / "api" / "avkit.metrics.html").read_text()
    assert 'id="avkit.metrics.si_snr"' in text and "Scale-invariant signal-to-noise ratio" in text
    assert "create_model" in (built[0] / "api" / "avkit.html").read_text()


def test_in_a_browser(built, browser):
    with _served(built[0]) as address, chromium(browser) as page:
        watch = _Watch(page, address)
        first = _visit(page, address, "course/00_listen_first.html")
        assert set(first["played"]) == {"AUDIO", "VIDEO"} and first["count"] >= 7
        assert first["formulas"] >= 3 and first["pictures"] >= 4
        assert page.locator("details").count() >= 4 and page.locator(".avkit-quiz li").count() >= 10
        page.goto(address + "index.html")
        page.locator(".sidebar-tree a", has_text="01").click()
        page.wait_for_url("**/01_sound_to_spectrogram.html")
        assert _visit(page, address, "course/02_mixtures_masks_scores.html")["formulas"] >= 20  # \\mathbb among them
        assert any("rtfs" in title for title in _search(page, address, "softmax"))
        assert watch.outside == [] and watch.failed == []


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_whole_book_in_a_browser(tmp_path, repository, browser):
    folder = tmp_path / "book"
    assert book.build(repository / "notebooks", folder) == []
    assert _broken_links(folder) == []
    with _served(folder) as address, chromium(browser) as page:
        watch = _Watch(page, address)
        for path in sorted(folder.rglob("*.html")):
            seen = _visit(page, address, str(path.relative_to(folder)))
            assert path.parent.name != "course" or seen["pictures"] >= 3, path
        for word in ("softmax", "compression", "iianet"):
            assert _search(page, address, word)
        assert watch.outside == [] and watch.failed == []


# ----------------------------------------------------------------------------------------------- its sources
def test_links_to_notebooks_that_are_not_in_the_book_become_words(tmp_path):
    made = nbformat.v4.new_notebook()
    made.cells.append(nbformat.v4.new_markdown_cell("See [the next](02_b.ipynb) and [this](01_a.ipynb#x)."))
    notebooks.write(made, tmp_path / "01_a.ipynb")
    shown = book.for_the_book(tmp_path / "01_a.ipynb", {"01_a.ipynb"})
    assert shown.cells[0].source == "See the next and [this](01_a.ipynb#x)."


def test_docstrings_are_plain_text_with_lists_code_and_listings():
    given = ["Takes *args, a|b and x_ but `y_`:", "", "* one", "", "    avkit train *", "", "Args:", "    p: more", "        of it."]
    made = book.as_restructured_text(given)
    assert made[0] == r"Takes \*args, a\|b and x\_ but `y_`:"
    assert made[2:6] == ["* one", "", "::", ""] and made[6] == "    avkit train *"
    assert made[-3:] == given[-3:]


def test_a_term_below_a_colon_is_a_listing_and_a_continued_line_is_text():
    assert book.as_restructured_text(["A row:", "    id  its name", "Then."]) == [
        "A row:", "", "::", "", "    id  its name", "", "Then.",
    ]  # fmt: skip
    assert book.as_restructured_text(["settings: such as", "    this one."]) == ["settings: such as", "this one."]
    assert book.as_restructured_text(["Gives ``[a, *b,", "    c]``."]) == ["Gives ``[a, *b, c]``."]


def test_every_public_room_has_one_page(repository):
    shown = book.public_modules()
    assert len(shown) == len(set(shown))
    rooms = {f"avkit.{path.stem}" for path in (repository / "avkit").glob("*.py") if not path.stem.startswith("_")}
    assert rooms - set(shown) == {"avkit.cli", "avkit.doctor"}
    assert {"avkit", "avkit.rtfs", "avkit.data.labels", "avkit.video", "avkit.teach", "avkit.callbacks"} <= set(shown)


def test_a_folder_with_other_things_is_not_replaced(tmp_path, repository):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="other things"):
        book.build(repository / "notebooks", tmp_path, *SHORT)
    assert (tmp_path / "mine.txt").exists()
