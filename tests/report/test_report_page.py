"""The report in a real browser, from a folder and over ``cryoemmae view``."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import starfile

from cryoemmae_plugin.cli import main
from cryoemmae_plugin.report.scripts import encode_steps, script
from cryoemmae_plugin.report.serve import ReportServer, serve_report
from cryoemmae_plugin.report.writer import key_of, write_report
from cryoemmae_plugin.run.record import Result, Source, format_result
from cryoemmae_plugin.run.store import ResultStore, RunRecord
from cryoemmae_plugin.run.summary import saved_selection
from cryoemmae_plugin.types import Picks

MakeStore = Callable[..., Path]
READY = "document.body.dataset.ready === 'true'"
WIDE, NARROW = {"width": 1300, "height": 800}, {"width": 400, "height": 800}


@dataclass
class Seen:
    """A page, what it complained about, and what it asked for."""

    page: Any
    complaints: list[str]
    requests: list[str]

    @property
    def picks(self) -> int:
        self.settle()
        return int(self.page.locator("#totals").get_attribute("data-picks"))

    def settle(self) -> None:
        """Wait until what was changed is drawn."""
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true; the page's own rules forbid Playwright's way of doing so."""
        for _ in range(200):
            if self.page.evaluate(f"Boolean({expression})"):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never true: {expression}")

    def set_threshold(self, text: str) -> None:
        self.page.fill("#threshold", text)
        self.page.press("#threshold", "Enter")
        self.page.locator("#threshold").blur()

    def shown(self) -> str:
        return str(self.page.locator("#name strong").inner_text())

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the micrograph is on the page."""
        found = self.page.evaluate(
            "([x, y]) => { const t = transform(), box = document.getElementById('stage').getBoundingClientRect();"
            " return [box.x + t.x + (x + .5) * t.sx, box.y + t.y + (y + .5) * t.sy]; }",
            [x, y],
        )
        return found[0], found[1]


@pytest.fixture(scope="module")
def picks_folder(tmp_path_factory: pytest.TempPathFactory, make_store: MakeStore) -> Path:
    folder = make_store(tmp_path_factory.mktemp("re port #1"))  # a folder's name may be strange, too
    with ResultStore.open(folder) as store:
        write_report(store)
    return folder


@pytest.fixture
def look(browser: Any) -> Iterator[Callable[..., Seen]]:
    """Open an address; at the end nothing may have been complained about, and no request may have left the page."""
    contexts, seen = [], []

    def open_page(address: str, viewport: dict[str, int] = WIDE, context: Any = None) -> Seen:
        if context is None:
            context = browser.new_context(viewport=viewport, accept_downloads=True)
            contexts.append(context)
        one = Seen(context.new_page(), [], [])
        one.page.on("console", lambda message: one.complaints.append(message.text))
        one.page.on("pageerror", lambda error: one.complaints.append(str(error)))
        one.page.on("dialog", lambda dialog: (one.complaints.append("a dialog"), dialog.dismiss()))
        one.page.on("request", lambda request: one.requests.append(request.url))
        one.page.goto(address)
        one.wait(READY)
        one.wait("current < 0 || M.failed[current] || viewer.world.getItemCount() > 0")
        seen.append(one)
        return one

    yield open_page
    for one in seen:
        start = one.requests[0].rpartition("/")[0]
        local = (start, "data:", "blob:")
        assert [url for url in one.requests if not url.startswith(local)] == []
        assert one.complaints == []
    for context in contexts:
        context.close()


@pytest.fixture
def report(picks_folder: Path, look: Callable[..., Seen]) -> Seen:
    return look((picks_folder / "report" / "index.html").as_uri())


def counted(folder: Path, threshold: float) -> int:
    with ResultStore.open(folder) as store:
        selection = replace(saved_selection(folder, store.record), threshold=threshold)
        return sum(len(selection.picks(result)) for result in store)


def test_counts_at_every_threshold_are_those_of_rethreshold(report: Seen, picks_folder: Path, tmp_path: Path) -> None:
    for threshold in ("0", "0.123", "0.5", "0.777", "1"):
        report.set_threshold(threshold)
        assert report.picks == counted(picks_folder, float(threshold)), threshold
    copy = shutil.copytree(picks_folder, tmp_path / "copy", ignore=shutil.ignore_patterns(".lock"))
    assert main(["rethreshold", str(copy), "--threshold", "0.777"]) == 0
    assert len(starfile.read(copy / "picks.star")) == counted(picks_folder, 0.777)
    report.page.locator("#slider").evaluate("s => { s.value = 640; s.dispatchEvent(new Event('input')); }")
    assert report.picks == counted(picks_folder, 0.64)
    assert report.page.input_value("#threshold") == "0.640"


def test_scores_on_a_threshold_are_picks_as_they_are_for_rethreshold(
    tmp_path: Path, record: RunRecord, look: Callable[..., Seen]
) -> None:
    """Figures of merit that are multiples of 1/1000 are the hard case: 0.1 is no number of a computer."""
    score = (np.arange(1000, 0, -1) / 1000).astype(np.float32)
    xy = np.stack([np.arange(1000) % 40, np.arange(1000) // 40], axis=1) * 25.0 + 20
    folder = tmp_path / "picks"
    with ResultStore.create(folder, record) as store:
        source, picks = Source(Path("/nowhere/mic.mrc"), 1), Picks(xy, score, score, (700, 1100))
        result = Result("mic", "mic.mrc", source, 2.0, record.fingerprint, picks)
        store.path_of("mic").parent.mkdir(parents=True)
        store.path_of("mic").write_text(format_result(result))
        write_report(store)
    seen = look((folder / "report" / "index.html").as_uri())
    counts = seen.page.evaluate("Array.from({length: 1001}, (_, k) => above(report.steps[0], k))")
    assert counts == [len(result.picks.above(k / 1000)) for k in range(1001)]


def test_names_are_shown_as_they_are_and_never_run(report: Seen, picks_folder: Path) -> None:
    names = report.page.locator(".row .what b").all_inner_texts()
    assert names == [*sorted(path.name for path in picks_folder.parent.glob("*.mrc")), "<b>bad.mrc"]
    assert report.page.locator(".row script, .row b b").count() == 0


def test_the_list_sorts_finds_and_follows_the_keys(report: Seen) -> None:
    page = report.page
    page.click("[data-sort=picks]")
    counts = page.locator(".row:not(.failed) .count").all_inner_texts()
    numbers = [int(text.split()[0].replace(",", "")) for text in counts]
    assert numbers == sorted(numbers, reverse=True)
    page.click("[data-sort=verdict]")
    assert "failed" in page.locator(".row").first.get_attribute("class")
    assert "7 bytes & no more" in page.locator(".row.failed small").inner_text()
    page.click("[data-sort=name]")
    page.locator(".row").first.click()
    first = report.shown()
    page.keyboard.press("ArrowRight")
    report.settle()
    assert report.shown() != first
    page.keyboard.press("ArrowLeft")
    report.settle()
    assert report.shown() == first
    page.fill("#filter", "粒子")
    report.settle()
    assert page.locator(".row").count() == 1


def test_zoom_and_the_denoised_picture_keep_circles_in_place(report: Seen) -> None:
    page = report.page
    report.wait("report.coordinates.size > 0")
    before = page.evaluate("transform().sx")
    page.mouse.move(640, 400)
    page.mouse.wheel(0, -400)
    report.wait(f"transform().sx > {before} * 1.1")
    page.click("#denoise")
    report.wait("viewer.world.getItemCount() === 2 && viewer.world.getItemAt(1).getOpacity() === 1")
    sizes = page.evaluate("[0, 1].map((i) => viewer.world.getItemAt(i).getBounds().width)")
    assert sizes == [1, 1]
    drawn = page.evaluate(
        "overlay.getContext('2d').getImageData(0, 0, overlay.width, overlay.height).data.some((v) => v)"
    )
    assert drawn


def test_edits_survive_a_reload_and_become_picks(
    report: Seen, picks_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, base = report.page, counted(picks_folder, 0.5)
    report.wait("report.coordinates.size > 0")
    page.wait_for_timeout(500)  # the picture comes to rest
    name, uid = report.shown(), page.evaluate("M.uid[current]")
    x, y = page.evaluate("report.coordinates.get(M.key[current]).slice(0, 2)")
    page.keyboard.press("e")
    page.mouse.click(*report.at(x, y))
    assert report.picks == base - 1
    page.mouse.click(*report.at(3.0, 150.0))  # where no candidate is
    assert report.picks == base
    page.keyboard.press("Control+z")
    assert report.picks == base - 1
    page.mouse.click(*report.at(3.0, 150.0))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    excluded = page.evaluate("M.uid[current]")
    with_edits = report.picks
    assert with_edits < base
    page.reload()
    report.wait(READY)
    assert report.picks == with_edits
    with page.expect_download() as download:
        page.click("#export")
    edits = tmp_path / "edits.json"
    download.value.save_as(edits)
    assert "cryoemmae apply" in page.locator("#apply-command").inner_text()
    changed = json.loads(edits.read_text())["micrographs"]
    assert changed[uid]["removed"] == [[x, y]]
    assert changed[excluded]["excluded"] is True

    out = tmp_path / "edited"
    assert main(["apply", str(picks_folder), str(edits), "--out", str(out)]) == 0
    table = starfile.read(out / "picks.star")
    assert len(table) == with_edits
    mine = table[table["rlnMicrographName"] == str(picks_folder.parent / name)]
    assert not ((mine["rlnCoordinateX"] - x).abs() + (mine["rlnCoordinateY"] - y).abs() < 1).any()
    assert ((mine["rlnCoordinateX"] - 3).abs() + (mine["rlnCoordinateY"] - 150).abs() < 2).any()
    rejected = starfile.read(out / "rejected.star", always_dict=True)["micrographs"]
    assert str(rejected["rlnMicrographName"].iloc[0]).endswith(f"{excluded}.mrc")
    assert (out / "relion" / "autopick.star").exists()
    assert main(["apply", str(picks_folder), str(edits), "--out", str(out)]) != 0  # nothing is overwritten
    assert "there already" in capsys.readouterr().err


def test_one_micrograph_has_a_threshold_of_its_own(report: Seen, picks_folder: Path) -> None:
    page, base = report.page, counted(picks_folder, 0.5)
    own = page.evaluate("picksOf(current)")
    page.click("[data-scope=one]")
    report.set_threshold("1")
    assert report.picks == base - own
    page.click("[data-scope=all]")
    report.set_threshold("0")
    assert report.picks == counted(picks_folder, 0) - page.evaluate("report.steps[current].length")


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["1300", "400"])
def test_nothing_is_cut_off_at_the_sides(
    picks_folder: Path, look: Callable[..., Seen], viewport: dict[str, int], tmp_path: Path
) -> None:
    seen = look((picks_folder / "report" / "index.html").as_uri(), viewport)
    seen.settle()
    width = seen.page.evaluate("document.documentElement.scrollWidth")
    assert width <= viewport["width"]
    outside = seen.page.evaluate(
        "[...document.querySelectorAll('button, input, h1, h2, aside dd')].filter((e) => e.offsetParent &&"
        " (e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < 0)).map((e) => e.id)"
    )
    assert outside == []
    assert len(seen.page.screenshot(path=tmp_path / "page.png")) > 10_000


def inflate(report: Path, number: int, candidates: int) -> None:
    """Turn the data of a report into that of `number` stub micrographs without pictures."""
    text = (report / "data" / "run.js").read_text()
    about = json.loads(text[text.index("(") + 1 : text.rindex(")")])
    names = [f"FoilHole_{index:05d}" for index in range(number)]
    columns = dict.fromkeys(about["micrographs"], [0] * number)
    columns |= {"uid": names, "name": names, "path": names, "key": [key_of(name) for name in names]}
    columns |= {"nx": [4096] * number, "ny": [4096] * number, "pixel": [1.0] * number, "failed": [""] * number}
    about["micrographs"] = columns | {"defocus": [1 + index % 17 / 10 for index in range(number)]}
    steps = np.sort(np.random.default_rng(0).integers(0, 1000, candidates))[::-1]
    letters = encode_steps(steps) * number
    (report / "data" / "run.js").write_text(script("run", about))
    (report / "data" / "scores.js").write_text(script("scores", [candidates] * number, letters))
    (report / "micrographs" / f"{key_of(names[0])}.js").write_text(script("candidates", key_of(names[0]), [50, 50]))


def test_five_thousand_micrographs_open_quickly_and_scroll(
    picks_folder: Path, tmp_path: Path, look: Callable[..., Seen]
) -> None:
    report = shutil.copytree(picks_folder / "report", tmp_path / "report")
    inflate(report, 5000, 500)
    page = report / "index.html"
    began = time.perf_counter()
    seen = look(page.as_uri())
    seen.settle()
    opened = time.perf_counter() - began
    assert seen.page.locator("#totals b").inner_text().replace(",", "").isdecimal()
    assert seen.page.locator(".row").count() < 60
    began = time.perf_counter()
    seen.page.evaluate("document.getElementById('list').scrollTop = 58 * 4000")
    seen.wait("document.querySelector('.row b').textContent > 'FoilHole_03950'")
    for step in ("0.6", "0.7"):
        seen.set_threshold(step)
        seen.settle()
    assert opened < 15
    assert time.perf_counter() - began < 15


@pytest.fixture
def server(picks_folder: Path) -> Iterator[ReportServer]:
    with serve_report(picks_folder) as started:
        thread = threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield started
        started.shutdown()
        thread.join()


def test_view_shows_the_report_and_draws_missing_pictures(
    server: ReportServer, picks_folder: Path, look: Callable[..., Seen]
) -> None:
    missing = picks_folder / "report" / "pictures" / f"{key_of('plain')}.jpg"
    missing.unlink()
    seen = look(server.address)
    assert seen.picks == counted(picks_folder, 0.5)
    seen.page.fill("#filter", "plain")
    seen.settle()
    seen.page.locator(".row").first.click()
    seen.wait("String(viewer.world.getItemAt(0)?.source.url).endsWith('.jpg')")
    assert missing.is_file()


def answer(server: ReportServer, path: str, host: str | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    connection.putrequest("GET", path, skip_host=host is not None)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def test_view_gives_nothing_else_away(server: ReportServer, picks_folder: Path) -> None:
    report, token = picks_folder / "report", server.token
    (report / "assets" / "secret.txt").symlink_to(picks_folder / "settings.json")
    assert server.server_address[0] == "127.0.0.1"
    assert answer(server, f"/{token}/") == 200
    assert answer(server, f"/{token}/data/run.js") == 200
    for path in (
        "/",
        "/index.html",
        "/wrong/index.html",
        f"/{token[:-1]}/index.html",
        f"/{token}",
        f"/{token}/../settings.json",
        f"/{token}/%2e%2e/settings.json",
        f"/{token}/data/../../settings.json",
        f"/{token}/data/",
        f"/{token}//etc/passwd",
        f"/{token}/assets/secret.txt",
    ):
        assert answer(server, path) == 404, path
    assert answer(server, f"/{token}/", host="evil.example") == 404
    (report / "assets" / "secret.txt").unlink()
