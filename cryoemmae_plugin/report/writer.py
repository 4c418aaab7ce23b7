"""The report of a run: a folder with a page that opens without a server and without a network.

Layout::

    DIR/report/index.html
    DIR/report/assets/                the page's code
    DIR/report/data/                  facts about the run, and the figures of merit of all candidates
    DIR/report/micrographs/<key>.js   coordinates of all candidates of a micrograph
    DIR/report/pictures/<key>*.jpg    its pictures, for a sample of the micrographs
    DIR/report/averages/<n>.jpg       class averages of the picks

A key stands for a micrograph's name, so that no name, whatever is in it, becomes a file name or a link.
"""

from __future__ import annotations

import hashlib
import logging
import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cryoemmae_plugin.errors import ImageError
from cryoemmae_plugin.files import output_error
from cryoemmae_plugin.images import read_image
from cryoemmae_plugin.report.averages import AveragesOfPicks, pictures_of_groups
from cryoemmae_plugin.report.facts import BIBTEX, CITATION, RunFacts, describe_box, gather_facts
from cryoemmae_plugin.report.pictures import draw_pictures, jpeg_bytes
from cryoemmae_plugin.report.scripts import STEPS, encode_steps, highest_steps, script, write_plain
from cryoemmae_plugin.run.inputs import evenly_spread
from cryoemmae_plugin.run.preparation import groups_in
from cryoemmae_plugin.run.record import Result
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.store import ResultStore
from cryoemmae_plugin.run.summary import saved_selection
from cryoemmae_plugin.run.summary_table import read_known
from cryoemmae_plugin.settings import REPORT_PICTURES

logger = logging.getLogger(__name__)

REPORT_FOLDER = "report"
KINDS = ("", "-denoised", "-small")
"""Suffixes of a micrograph's pictures."""
FORMAT = 1

ReadImage = Callable[[Result], NDArray[np.float32]]


def read_source(result: Result) -> NDArray[np.float32]:
    """Read the micrograph of a result from its file; raises ImageError where it cannot be read (any more)."""
    return read_image(result.source.path)


@dataclass(frozen=True)
class ReportOptions:
    """How a report is made.

    Attributes
    ----------
    pictures : int
        Of how many micrographs, evenly spread, to draw pictures.
    should_stop : callable
        Asked before each picture; those that are left are not drawn then.
    progress : callable
        Told how many of how many pictures are done.
    """

    pictures: int = REPORT_PICTURES
    read: ReadImage = read_source
    should_stop: Callable[[], bool] = lambda: False
    progress: Callable[[int, int], None] = lambda done, total: None


@dataclass(frozen=True)
class _Row:
    """What the page knows of one micrograph; `failed` says why it could not be picked, `steps` are its candidates'."""

    uid: str
    path: str
    nx: int
    ny: int
    pixel: float
    defocus: float | None
    failed: str = ""
    count: int = 0
    steps: str = ""

    @property
    def key(self) -> str:
        """Stands for the micrograph in the names of files."""
        return key_of(self.uid)

    @property
    def name(self) -> str:
        """The micrograph's file name."""
        return Path(self.path).name


def write_report(
    store: ResultStore,
    selection: Selection | None = None,
    options: ReportOptions | None = None,
    *,
    failed: Mapping[str, str] | None = None,
) -> Path:
    """Write the report of all results in a store, which the caller has locked; its page.

    Numbers and coordinates are of all micrographs. Pictures are drawn for a sample, from the files again, one
    micrograph at a time: memory does not grow with the run. A picture that is still right is kept.

    Parameters
    ----------
    selection : Selection, optional
        Which candidates are picks; by default as the run's files have it.
    failed : mapping, optional
        Given by the run itself at its end: why micrographs have failed, by their path. Otherwise its summary says it.

    Raises
    ------
    OutputError
        When a file cannot be written.
    """
    options = options or ReportOptions()
    selection = selection or saved_selection(store.folder, store.record)
    facts = gather_facts(store.folder, store.record, selection, failed)
    folder = store.folder / REPORT_FOLDER
    _prepare(folder)
    rows = _write_candidates(store, selection, facts, folder)
    averages = _draw(store, selection, rows, folder, options)
    pictured = [all(_picture_path(folder, row.key, kind).exists() for kind in KINDS) for row in rows]
    _forget_others(folder, {row.key for row in rows})
    page = folder / "index.html"
    about = _about(store, selection, facts, rows, pictured, averages)
    scores = script("scores", [row.count for row in rows], "".join(row.steps for row in rows))
    write_plain(folder / "data" / "scores.js", scores.encode())
    write_plain(folder / "data" / "run.js", script("run", about).encode())
    return page


def key_of(uid: str) -> str:
    """Twelve hexadecimal digits that stand for a micrograph in the names of files."""
    return hashlib.sha256(uid.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _prepare(folder: Path) -> None:
    """Make the folder, and put the page's code there."""
    try:
        for name in ("assets", "data", "micrographs", "pictures", "averages"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise output_error(folder, err) from err
    for item in resources.files("cryoemmae_plugin.report").joinpath("site").iterdir():
        place = folder if item.name == "index.html" else folder / "assets"
        write_plain(place / item.name, item.read_bytes())


def _write_candidates(store: ResultStore, selection: Selection, facts: RunFacts, folder: Path) -> list[_Row]:
    """Write the coordinates of each micrograph; what else the page needs of all of them."""
    known = read_known(store.folder)

    def defocus_of(micrograph: str) -> float | None:
        value = known.get(micrograph, (math.nan, math.nan))[1]
        return None if math.isnan(value) else round(value, 4)

    rows = []
    for result in store:
        candidates, (ny, nx) = selection.candidates(result), result.picks.shape
        steps, defocus = encode_steps(highest_steps(candidates.score)), defocus_of(result.micrograph)
        row = _Row(
            result.uid, result.micrograph, nx, ny, result.pixel_size_A, defocus, count=len(candidates), steps=steps
        )
        rows.append(row)
        xy = [round(value, 3) for value in candidates.xy.ravel().tolist()]
        sizes = [] if candidates.diameter_A is None else [[round(size, 2) for size in candidates.diameter_A.tolist()]]
        write_plain(folder / "micrographs" / f"{row.key}.js", script("candidates", row.key, xy, *sizes).encode())
    done = {row.path for row in rows}
    for micrograph, reason in facts.failed.items():
        if micrograph not in done:
            why = reason.replace(f"{micrograph}: ", "", 1) or "no reason is known"
            rows.append(_Row(micrograph, micrograph, 0, 0, 1.0, defocus_of(micrograph), why))
    return rows


def _draw(
    store: ResultStore, selection: Selection, rows: Sequence[_Row], folder: Path, options: ReportOptions
) -> list[str]:
    """Draw the pictures of a sample, and class averages of the picks in them; the averages' captions."""
    picked = [row.uid for row in rows if not row.failed]
    sample = [uid for uid in evenly_spread(picked, options.pictures) if not pictures_are_current(store, folder, uid)]
    averages, missing = AveragesOfPicks(), list[ImageError]()
    for done, uid in enumerate(sample, 1):
        if options.should_stop():
            break
        try:
            draw_one(store, selection, folder, uid, averages, options.read)
        except ImageError as err:
            missing.append(err)
        options.progress(done, len(sample))
    if missing:
        logger.warning("No picture in the report of %d of %d micrographs: %s", len(missing), len(sample), missing[0])
    groups = groups_in(store.folder)
    return _write_averages(folder, averages.average() if groups is None else pictures_of_groups(groups))


def draw_one(
    store: ResultStore,
    selection: Selection,
    folder: Path,
    uid: str,
    averages: AveragesOfPicks | None = None,
    read: ReadImage = read_source,
) -> None:
    """Draw the pictures of one micrograph, and add its picks to `averages`.

    Raises
    ------
    ImageError
        When the micrograph cannot be read (any more).
    """
    result, settings = store.load(uid), store.record.settings
    image = read(result)
    if image.shape != result.picks.shape:
        raise ImageError(f"{result.source.path}: its size has changed since it was picked; pick it again")
    pictures = draw_pictures(
        image,
        settings.diameter_A / result.pixel_size_A,
        bright_particles=settings.contrast == "bright",
        note=store.record.fingerprint,
    )
    if averages is not None:
        averages.add(pictures, selection.picks(result))
    for kind, content in zip(KINDS, (pictures.low_passed, pictures.denoised, pictures.thumbnail), strict=True):
        write_plain(_picture_path(folder, key_of(uid), kind), content)


def pictures_are_current(store: ResultStore, folder: Path, uid: str) -> bool:
    """Whether the pictures of a result are there, and no older than it."""
    try:
        made = min(_picture_path(folder, key_of(uid), kind).stat().st_mtime for kind in KINDS)
        with Image.open(_picture_path(folder, key_of(uid), "")) as picture:
            same = picture.info.get("comment") == store.record.fingerprint.encode()
        return same and made >= store.path_of(uid).stat().st_mtime
    except OSError:
        return False


def _picture_path(folder: Path, key: str, kind: str) -> Path:
    return folder / "pictures" / f"{key}{kind}.jpg"


def _write_averages(folder: Path, made: list[tuple[NDArray[np.uint8], str]]) -> list[str]:
    """Write new class averages; where there are none, those of before stay. Their captions."""
    if not made:
        return [caption for _, caption in _kept_averages(folder)]
    for path, _ in list(_kept_averages(folder)):
        path.unlink(missing_ok=True)
    for number, (grey, caption) in enumerate(made, 1):
        write_plain(folder / "averages" / f"{number}.jpg", jpeg_bytes(grey, caption))
    return [caption for _, caption in made]


def _kept_averages(folder: Path) -> Iterator[tuple[Path, str]]:
    """The pictures of class averages that are there, and their captions."""
    number = 1
    while (path := folder / "averages" / f"{number}.jpg").is_file():
        try:
            with Image.open(path) as picture:
                yield path, bytes(picture.info.get("comment", b"")).decode()
        except (OSError, ValueError):
            return
        number += 1


def _forget_others(folder: Path, keys: set[str]) -> None:
    """Delete what is left of micrographs that are no longer in the store."""
    try:
        for path in [*(folder / "micrographs").glob("*.js"), *(folder / "pictures").glob("*.jpg")]:
            if path.stem.partition("-")[0] not in keys:
                path.unlink()
    except OSError as err:
        raise output_error(folder, err) from err


def _about(
    store: ResultStore,
    selection: Selection,
    facts: RunFacts,
    rows: Sequence[_Row],
    pictured: list[bool],
    averages: list[str],
) -> dict[str, Any]:
    """All that the page shows, but for coordinates and figures of merit."""
    place = str(store.folder.absolute())
    identity = f"{store.record.fingerprint} {selection.edge_distance} {selection.min_distance} {place}"
    identity += f" {selection.drop_group}" if selection.drop_group else ""
    sizes = sorted({round(row.pixel, 4) for row in rows if not row.failed})
    names = ("uid", "key", "name", "path", "nx", "ny", "pixel", "defocus", "failed")
    micrographs = {name: [getattr(row, name) for row in rows] for name in names}
    step = round(selection.threshold * STEPS)
    warnings = list(facts.warnings)
    if not math.isclose(step / STEPS, selection.threshold, abs_tol=1e-9):
        warnings.append(f"The threshold is {selection.threshold:g}; the report shows the picks at {step / STEPS:g}.")
    return {
        "format": FORMAT,
        "id": hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16],
        "fingerprint": store.record.fingerprint,
        "title": f"{store.folder.absolute().parent.name}/{store.folder.absolute().name}",
        "folder": place,
        "shellFolder": shlex.quote(str(store.folder)),
        "step": step,
        "diameter_A": selection.diameter_A,
        "diameterFrom": facts.diameter,
        **({"diameters": store.record.settings.diameters} if store.record.settings.sizes_A else {}),
        "box": describe_box(selection.diameter_A, sizes),
        "averages": averages,
        "settings": facts.settings,
        "provenance": facts.provenance,
        "warnings": warnings,
        "citation": CITATION,
        "bibtex": BIBTEX,
        "micrographs": micrographs | {"picture": [int(there) for there in pictured]},
    }
