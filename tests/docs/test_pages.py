"""The documentation builds without a warning, and shows what it is meant to show, in a real browser too."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
PAGES = sorted(path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md"))
WIDE, NARROW = 1300, 400
SCREENSHOTS = "CRYOEMMAE_SCREENSHOTS"
"""Environment variable: a folder to leave screenshots of all pages in."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    pytest.importorskip("mkdocs", reason="no mkdocs: pip install '.[dev]'")
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "true", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Counter(HTMLParser):
    """Count the elements of the page's text, and keep what stands in its paragraphs."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.paragraphs: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        if tag == "p":
            self.paragraphs.append("")
        if tag in ("p", "code"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open and tag == self._open[-1]:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open == ["p"]:
            self.paragraphs[-1] += data


def text_of(site: Path, page: str) -> Counter:
    text = (site / f"{page}.html").read_text("utf-8")
    article = re.search(r"<article.*?</article>", text, re.DOTALL)
    assert article, f"{page}: no article"
    counter = Counter()
    counter.feed(article[0])
    return counter


def without_code(markdown: str) -> str:
    return re.sub(r"^ *```.*?^ *```", "", markdown, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_lists_and_tables_of_a_page_are_lists_and_tables(site: Path, page: str) -> None:
    source = without_code((DOCS / f"{page}.md").read_text("utf-8"))
    seen = text_of(site, page)
    tables = len(re.findall(r"^ *\|(?: *:?-+:? *\|)+ *$", source, re.MULTILINE))
    assert seen.tags.get("table", 0) >= tables
    if re.search(r"^1\. ", source, re.MULTILINE):
        assert seen.tags.get("ol", 0) == len(re.findall(r"^1\. ", source, re.MULTILINE))
    for paragraph in seen.paragraphs:
        collapsed = re.search(r"(?:^|\n)\s*(?:\d+\.|-|\|) |\| ?-{3}|```", paragraph)
        assert not collapsed, f"{page}: a list, table or block of code is shown as text: {paragraph[:200]}"


def test_links_between_pages_lead_to_a_place(site: Path) -> None:
    ids = {
        path.relative_to(site).as_posix(): set(re.findall(r' id="([^"]+)"', path.read_text("utf-8")))
        for path in site.rglob("*.html")
    }
    lost = []
    for page in PAGES:
        article = re.search(r"<article.*?</article>", (site / f"{page}.html").read_text("utf-8"), re.DOTALL)
        for link in re.findall(r'href="([^"]+)"', article[0] if article else ""):
            target, _, place = html.unescape(link).partition("#")
            if "://" in target or target.startswith("mailto:"):
                continue
            found = os.path.normpath(Path(page).parent / target) if target else f"{page}.html"
            if not (site / found).exists() or (place and found in ids and unquote(place) not in ids[found]):
                lost.append(f"{page}: {link}")
    assert not lost, "\n".join(lost)


def test_steps_in_relion_are_one_numbered_list(site: Path) -> None:
    text = (site / "relion.html").read_text("utf-8")
    steps = re.search(r'id="from-nothing-to-2d-classes".*?<ol>(.*?)</ol>', text, re.DOTALL)
    assert steps
    assert len(re.findall("<li>", steps[1])) == 5
    assert "<table>" in steps[1]


def test_figures_on_the_landing_page_are_those_of_the_benchmarks() -> None:
    landing = (DOCS / "index.md").read_text("utf-8").split("## How accurate, how fast")[1].split("## Cite")[0]
    measured = "".join((DOCS / f"{name}.md").read_text("utf-8") for name in ("benchmarks", "speed"))
    figures = re.findall(r"(?<![\d.])\d*\.\d+", landing.replace("p = 0.5", ""))
    assert len(figures) >= 9
    for figure in figures:
        assert re.search(rf"(?<![\d.]){re.escape(figure)}(?!\d)", measured), f"{figure} is on no page of measurements"


def test_nothing_is_cut_on_a_screen(site: Path, browser: Any) -> None:
    cut = []
    context = browser.new_context(viewport={"width": WIDE, "height": 900})
    tab = context.new_page()
    for page in PAGES:
        tab.goto((site / f"{page}.html").as_uri())
        for width in (WIDE, NARROW):
            tab.set_viewport_size({"width": width, "height": 900})
            cut += [f"{page}, {width} wide: {what}" for what in tab.evaluate(_WHAT_IS_CUT, width == WIDE)]
            if folder := os.environ.get(SCREENSHOTS):
                tab.screenshot(path=Path(folder) / f"{page.replace('/', '-')}-{width}.png", full_page=page == "index")
        tab.set_viewport_size({"width": WIDE, "height": 900})
    context.close()
    assert not cut, "\n".join(cut)


_WHAT_IS_CUT = """wide => {
  const found = [];
  if (document.documentElement.scrollWidth > window.innerWidth + 1) found.push("the page is wider than the screen");
  for (const image of document.querySelectorAll("article img"))
    if (!image.complete || !image.naturalWidth) found.push("missing picture " + image.getAttribute("src"));
  if (!wide) return found;  // on a telephone, tables may scroll inside their box
  for (const box of document.querySelectorAll("article .md-typeset__scrollwrap, article pre > code"))
    if (box.scrollWidth > box.clientWidth + 1)
      found.push(box.scrollWidth + " > " + box.clientWidth + ": " + box.innerText.slice(0, 60));
  return found;
}"""
