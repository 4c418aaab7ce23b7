"""From what a user names on a command line to the list of micrographs.

A path may be a file, a folder, a glob, or a STAR file that lists micrographs. Micrographs keep the path that they were
given with, so that RELION finds them again in the STAR of picks; the same file named twice is one micrograph.

Each gets a `uid` to store its result under: the stem of its file name, or, where another micrograph has that stem,
the stem and eight digits that stand for its absolute path. A uid once used for a micrograph stays its own when more
are added.
"""

from __future__ import annotations

import glob
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.images import is_readable
from cryoemmae_plugin.run.micrograph_table import read_micrographs
from cryoemmae_plugin.types import Micrograph

logger = logging.getLogger(__name__)

PREVIEW_SUFFIXES = (".png", ".jpg", ".jpeg")
"""In a folder, such a file is left out where an MRC or TIFF file of the same stem lies beside it."""

_COMPRESSED = (".gz", ".bz2")
_NOT_IN_FOLDERS = (".mrcs", ".st", ".rec", ".map")  # stacks and volumes: only when named
Owner = Callable[[str], "str | None"]


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
        with rlnMicrographName. A file that does not exist stays in the list when its suffix is an image's: it fails
        when its turn comes, and the others go on.
    pixel_size_A : float, optional
        Å per pixel for all of them; otherwise that of the STAR file, or None.
    exclude : Path, optional
        Folder that is never searched: the one that results go to.
    owner : callable
        Absolute path of the micrograph that a uid stands for already, or None.

    Raises
    ------
    InputError
        When a path leads to no micrograph.
    """
    listed: dict[Path, tuple[Path, float | None]] = {}
    for text in paths:
        for path, pixel_size in _expand(Path(text), recursive, exclude):
            listed.setdefault(path.absolute(), (path, pixel_size_A or pixel_size))
    uids = name_micrographs(list(listed), owner)
    return [
        Micrograph(path=path, pixel_size_A=pixel_size, uid=uid)
        for uid, (path, pixel_size) in zip(uids, listed.values(), strict=True)
    ]


def name_micrographs(paths: Sequence[Path], owner: Owner = lambda uid: None) -> list[str]:
    """Give each absolute path a uid: its stem, or the stem and eight digits where the stem is not its alone."""
    shared = Counter(stem_of(path).casefold() for path in paths)  # as file systems without upper and lower case see it
    uids = []
    for path in paths:
        stem = stem_of(path)
        long = f"{stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        alone = shared[stem.casefold()] == 1 and owner(stem) is None and owner(long) != str(path)
        uids.append(stem if alone or owner(stem) == str(path) else long)
    return uids


def stem_of(path: Path) -> str:
    """The file name without its image suffix: ``a.b.mrc.gz`` is ``a.b``."""
    return Path(path.stem).stem if path.suffix.lower() in _COMPRESSED else path.stem


def _expand(path: Path, recursive: bool, exclude: Path | None) -> Iterator[tuple[Path, float | None]]:
    """The micrographs that one path stands for, with their pixel size where a STAR file says it."""
    if path.is_dir():
        yield from ((image, None) for image in _images_in(path, recursive, exclude))
    elif path.suffix.lower() == ".star":
        yield from read_micrographs(path)
    elif path.is_file() or not _is_glob(path):
        if not is_readable(path):
            what = "not an image" if path.is_file() else "no such file or folder"
            raise InputError(
                f"{path}: {what}; give micrographs (MRC, TIFF, PNG, JPEG), folders, globs in quotes, "
                "or a micrographs STAR"
            )
        yield path, None
    else:
        matches = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207 (a Path cannot glob absolute patterns)
        images = [match for match in matches if match.is_file() and is_readable(match)]
        if not images:
            raise InputError(f"{path}: no micrograph matches; put the pattern in quotes, and look at where you are")
        yield from ((image, None) for image in images)


def _images_in(folder: Path, recursive: bool, exclude: Path | None) -> list[Path]:
    """The micrographs in a folder, by name, without previews and hidden files."""
    files = [file for file in _files_in(folder, recursive, exclude) if is_readable(file)]
    images = [file for file in files if not file.name.endswith(_NOT_IN_FOLDERS)]
    taken = {file.with_name(stem_of(file)) for file in images if file.suffix.lower() not in PREVIEW_SUFFIXES}
    chosen = [f for f in images if f.suffix.lower() not in PREVIEW_SUFFIXES or f.with_name(stem_of(f)) not in taken]
    if len(chosen) < len(files):
        logger.info("%s: left out %d previews and stacks", folder, len(files) - len(chosen))
    if not chosen:
        remedy = () if recursive else "search the folders inside too, with $recursive=yes"
        raise InputError(f"{folder}: no micrograph in this folder (MRC, TIFF, PNG, JPEG)", remedy=remedy)
    return sorted(chosen)


def _files_in(folder: Path, recursive: bool, exclude: Path | None) -> Iterable[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith(".") or (exclude is not None and entry.absolute() == exclude.absolute()):
            continue
        if entry.is_dir():
            if recursive:
                yield from _files_in(entry, recursive, exclude)
        else:
            yield entry


def _is_glob(path: Path) -> bool:
    return glob.has_magic(str(path))
