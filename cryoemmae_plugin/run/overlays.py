"""Overlay pictures of stored results."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cryoemmae_plugin.files import atomic_write_bytes, read_bytes
from cryoemmae_plugin.images import read_image
from cryoemmae_plugin.run.overlay_picture import draw_overlay, png_bytes
from cryoemmae_plugin.run.record import Result
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.store import ResultStore

OVERLAY_FOLDER = "overlays"
_NOTE = "cryoemmae"


def write_overlay(store: ResultStore, uid: str, selection: Selection) -> Path:
    """Draw the picks of a stored result over its micrograph, into ``overlays/<uid>.png``.

    Raises
    ------
    ImageError
        When the micrograph cannot be read (any more).
    OutputError
        When the picture cannot be written.
    """
    result = store.load(uid)
    title = f"{Path(result.micrograph).name}   {store.record.settings.diameters} Å"
    picture = draw_result(result, selection, read_image(result.source.path), title)
    path = overlay_path(store, uid)
    atomic_write_bytes(path, png_bytes(picture, {_NOTE: _note(store, selection)}))
    return path


def draw_result(result: Result, selection: Selection, image: NDArray[np.float32], title: str) -> Image.Image:
    """Draw the picks of a result over the image of its micrograph."""
    diameter_px = selection.diameter_A / result.pixel_size_A
    picks, threshold = selection.picks(result), selection.threshold
    return draw_overlay(image, picks, diameter_px, threshold, title, pixel_size_A=result.pixel_size_A)


def overlay_is_current(store: ResultStore, uid: str, selection: Selection) -> bool:
    """Whether the picture of a result shows these settings and this selection."""
    path, wanted = overlay_path(store, uid), _note(store, selection)
    try:
        with Image.open(io.BytesIO(read_bytes(path))) as picture:
            current = picture.info.get(_NOTE) == wanted
        return current and path.stat().st_mtime >= store.path_of(uid).stat().st_mtime
    except Exception:  # a damaged picture may raise anything
        return False


def overlay_path(store: ResultStore, uid: str) -> Path:
    """Where the picture of a result is."""
    return store.folder / OVERLAY_FOLDER / f"{uid}.png"


def _note(store: ResultStore, selection: Selection) -> str:
    values = [value for value in selection.settings().values() if value is not None]
    shown = [value if isinstance(value, str) else f"{value:g}" for value in values]
    return " ".join([store.record.fingerprint, *shown])


def existing_overlays(store: ResultStore) -> list[str]:
    """Results that have a picture."""
    folder = store.folder / OVERLAY_FOLDER
    uids = sorted(path.relative_to(folder).as_posix().removesuffix(".png") for path in folder.glob("**/*.png"))
    return [uid for uid in uids if store.path_of(uid).exists()]
