"""From what a user names on a command line to the list of micrographs.

A path may be a file, a folder, a glob, or a STAR file that lists micrographs. Micrographs keep the path that they were
given with, so that RELION finds them again in the STAR of picks. The same file is one micrograph, also by another path
or a link.

Each gets a `uid` to store its result under: the stem of its file name, or, where another micrograph has that stem,
the stem and eight digits that stand for its path. A uid once used for a micrograph stays its own when more
are added.
"""

from __future__ import annotations

import glob
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.files import is_file, is_folder
from cryoemmae_plugin.images import is_readable
from cryoemmae_plugin.images.header import MAX_PIXEL_SIZE_A, MIN_PIXEL_SIZE_A
from cryoemmae_plugin.run.folders import (
    LINE_BREAK,
    has_line_break,
    images_in,
    images_matching,
    images_named,
    spectra_among,
    stem_of,
    versions_among,
)
from cryoemmae_plugin.run.micrograph_table import read_defocus, read_micrographs
from cryoemmae_plugin.run.record import Source
from cryoemmae_plugin.types import Micrograph

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_STEM_BYTES = 220
"""File names have at most 255 bytes, and results add digits and suffixes to the stem."""

Owner = Callable[[str], "Source | None"]


def find_micrographs(
    paths: Sequence[str | Path],
    *,
    pixel_size_A: float | None = None,
    recursive: bool = False,
    exclude: Path | None = None,
    owner: Owner = lambda uid: None,
) -> list[Micrograph]:
    """List the micrographs that `paths` stand for, each once.

    Parameters
    ----------
    paths : sequence of str or Path
        Files, folders (their images by name, not those of the folders inside unless `recursive`), globs, and STAR files
        with rlnMicrographName. Of several files, those that are no micrographs are left out, as of a folder. A file
        that does not exist stays in the list when its suffix is an image's: it fails when its turn comes, and the
        others go on.
    pixel_size_A : float, optional
        Å per pixel for all of them; otherwise that of the STAR file, or None.
    exclude : Path, optional
        Folder that is never searched: the one that results go to.
    owner : callable
        File of the micrograph that a uid stands for already, or None.

    Raises
    ------
    InputError
        When a path leads to no micrograph.
    """
    listed: dict[str, tuple[Path, float | None]] = {}
    named = [path for path in map(Path, paths) if is_file(path) and is_readable(path)]
    images = images_named(named)
    left_out = set(named) - set(images)
    for text in paths:
        if Path(text) in left_out:
            continue
        for path, pixel_size in _expand(Path(text), recursive, exclude):
            if has_line_break(path):
                raise InputError(f"{str(path)!r}: {LINE_BREAK}")
            listed.setdefault(os.path.realpath(path), (path, pixel_size_A or _checked(path, pixel_size, Path(text))))
    _warn_of_versions(images)
    uids = name_micrographs([path.absolute() for path, _ in listed.values()], owner)
    tables = [path for path in map(Path, paths) if path.suffix.lower() == ".star" and is_file(path)]
    defocus_um = {path: value for table in tables for path, value in read_defocus(table).items()}
    return [
        Micrograph(path=path, pixel_size_A=pixel_size, uid=uid, defocus_um=defocus_um.get(path))
        for uid, (path, pixel_size) in zip(uids, listed.values(), strict=True)
    ]


def _warn_of_versions(images: Sequence[Path]) -> None:
    """Say that files which were named one by one, perhaps by the shell, are picked though they look like others."""
    if spectra := spectra_among(images):
        logger.warning(
            "%d files look like power spectra, such as %s; they are picked as named", len(spectra), spectra[0]
        )
    if versions := versions_among(images):
        shown = " and ".join(path.name for path in versions[0])
        logger.warning(
            "%s are versions of one micrograph; each is picked. To pick one version, put the pattern in quotes", shown
        )


def name_micrographs(paths: Sequence[Path], owner: Owner = lambda uid: None) -> list[str]:
    """Give each absolute path a uid: its stem, or the stem and eight digits where the stem is not its alone.

    A micrograph that has a uid already keeps it, by whatever path or link it is named now, and after a move.
    """
    shared = Counter(_short_stem(path).casefold() for path in paths)  # some file systems know no upper and lower case
    uids = []
    for path in paths:
        stem, real = _short_stem(path), os.path.realpath(path)
        long = f"{stem}-{_digits_of(real)}"
        owners = {uid: owner(uid) for uid in (stem, long, f"{stem}-{_digits_of(str(path))}")}
        own = [uid for uid, file in owners.items() if file and (file.is_at(path) or file.was_moved_to(path))]
        alone = shared[stem.casefold()] == 1 and owners[stem] is None
        uids.append(own[0] if own else stem if alone else long)
    return uids


def _digits_of(path: str) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:8]


def _short_stem(path: Path) -> str:
    """The stem, shortened where a file name made of it would be too long."""
    stem = stem_of(path)
    if len(os.fsencode(stem)) <= MAX_STEM_BYTES:
        return stem
    return f"{os.fsdecode(os.fsencode(stem)[: MAX_STEM_BYTES // 2])}-{_digits_of(stem)}"


def _expand(path: Path, recursive: bool, exclude: Path | None) -> Iterator[tuple[Path, float | None]]:
    """The micrographs that one path stands for, with their pixel size where a STAR file says it."""
    if is_folder(path):
        yield from ((image, None) for image in images_in(path, recursive, exclude))
    elif path.suffix.lower() == ".star":
        yield from read_micrographs(path)
    elif is_file(path) or not _is_glob(path):
        if not is_readable(path):
            what = "not an image" if is_file(path) else "no such file or folder"
            raise InputError(
                f"{path}: {what}; give micrographs (MRC, TIFF, PNG, JPEG), folders, globs in quotes, "
                "or a micrographs STAR"
            )
        yield path, None
    else:
        yield from ((image, None) for image in images_matching(path, exclude))


def _checked(path: Path, pixel_size_A: float | None, star: Path) -> float | None:
    """A pixel size from a STAR file."""
    if pixel_size_A is not None and not MIN_PIXEL_SIZE_A <= pixel_size_A <= MAX_PIXEL_SIZE_A:
        raise InputError(
            f"{star}: the pixel size of {path} is {pixel_size_A:g} Å, which no micrograph has",
            remedy=("correct the file", "give $pixel_size_A"),
        )
    return pixel_size_A


def _is_glob(path: Path) -> bool:
    return glob.has_magic(str(path))


def evenly_spread(items: Sequence[T], count: int) -> list[T]:
    """Choose `count` items, evenly from the first to the last; all where there are fewer."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]
