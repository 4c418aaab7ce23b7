"""Micrographs in a folder, of a pattern or in a list of files, without what other programs leave beside them.

Left out, and named in a warning: power spectra, movies and stacks, overviews at another magnification, and names that
no STAR file can hold. Several versions of one micrograph are refused, because only the user knows which one to pick.
"""

from __future__ import annotations

import glob
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

from cryoemmae_plugin.errors import ImageError, InputError
from cryoemmae_plugin.files import is_file, is_folder
from cryoemmae_plugin.images import ImageHeader, StackError, is_readable, read_header
from cryoemmae_plugin.images.header import UNSET_PIXEL_SIZE_A

logger = logging.getLogger(__name__)

PREVIEW_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Such a file is left out where an MRC or TIFF file of the same stem lies beside it."""

POWER_SPECTRUM = "_PS"
VERSIONS = ("_noDW", "_DW", "_DWS", "_shr", "_EVN", "_ODD", "_even", "_odd", "_denoised", "_doseweighted")
"""What motion correction and viewers append to the name of a micrograph for another version of it."""

MAGNIFICATION_STEP = 3.0
"""Pixel sizes that differ by this factor are of overviews, not of micrographs."""

MIN_SHARE = 0.1
"""Fewer images of one magnification than this share are not the micrographs of a folder."""

_COMPRESSED = (".gz", ".bz2")
_NOT_IN_FOLDERS = (".mrcs", ".st", ".rec", ".map")  # stacks and volumes: only when named
_HEADER_THREADS = 8
_PICTURES_OF_RESULTS = ("overlays", "report")
"""Folders of a result folder that hold pictures of micrographs."""


LINE_BREAK = "a name with a line break has no place in a table; rename the file"


def stem_of(path: Path) -> str:
    """The file name without its image suffix: ``a.b.mrc.gz`` is ``a.b``."""
    return Path(path.stem).stem if path.suffix.lower() in _COMPRESSED else path.stem


def has_line_break(path: Path) -> bool:
    """Whether a path cannot be written in one line of a table."""
    return any(letter in str(path) for letter in "\n\r")


def images_in(folder: Path, recursive: bool, exclude: Path | None) -> list[Path]:
    """List the micrographs in a folder by name.

    Raises
    ------
    InputError
        When there is none, or there are several versions of one micrograph.
    """
    files = [file for file in _files_in(folder, recursive, exclude) if is_readable(file)]
    images = [file for file in files if not file.name.endswith(_NOT_IN_FOLDERS)]
    if len(images) < len(files):
        logger.info("%s: left out %d stacks and volumes", folder, len(files) - len(images))
    images, broken = _split(images, [path for path in images if has_line_break(path)])
    images = _micrographs_among(images, str(folder))
    _tell(str(folder), "files with a line break in the name", broken)
    if not images:
        found = "only power spectra, movies and overviews" if files else "no micrograph"
        remedy = () if recursive else "search the folders inside too, with $recursive=yes"
        raise InputError(f"{folder}: {found} in this folder (MRC, TIFF, PNG, JPEG)", remedy=remedy)
    _refuse_versions(sorted(images))
    return sorted(images)


def images_matching(pattern: Path, exclude: Path | None) -> list[Path]:
    """List the matches of a pattern by name, without what is no micrograph; a pattern for power spectra gives these.

    Raises
    ------
    InputError
        When nothing matches, or there are several versions of one micrograph.
    """
    images = [match for match in _files_matching(pattern, exclude) if is_readable(match)]
    if not images:
        raise InputError(f"{pattern}: no micrograph matches; put the pattern in quotes, and look at where you are")
    if POWER_SPECTRUM not in pattern.name:
        images = _micrographs_among(images, str(pattern)) or images  # others fail one by one, with the reason
    _refuse_versions(sorted(images))
    return sorted(images)


def images_named(files: Sequence[Path]) -> list[Path]:
    """Leave out of files named one by one, perhaps by the shell, what is no micrograph; if nothing is, all stay."""
    if len(files) < 2:
        return list(files)
    return _micrographs_among(files, f"{len(files)} files") or list(files)


def _micrographs_among(images: Iterable[Path], where: str) -> list[Path]:
    """Leave out previews, power spectra, movies and overviews, and say so."""
    images, previews = _split(images, _previews(list(images)))
    images, spectra = _split(images, spectra_among(images))
    headers = _headers_of(images)
    images, movies = _split(images, [path for path, header in headers.items() if header is None])
    images, overviews = _split(images, _overviews(headers))
    if previews:
        logger.info("%s: left out %d previews", where, len(previews))
    _tell(where, "power spectra", spectra)
    _tell(where, "movies or stacks", movies)
    _tell(where, "images at another magnification", overviews)
    return images


def spectra_among(images: Iterable[Path]) -> list[Path]:
    """Those whose names are of power spectra."""
    return [path for path in images if stem_of(path).endswith(POWER_SPECTRUM)]


def versions_among(images: Iterable[Path]) -> list[list[Path]]:
    """Those of which there are several versions, each with its versions."""
    by_base: dict[Path, list[Path]] = defaultdict(list)
    for path in images:
        stem = stem_of(path)
        by_base[path.with_name(stem.removesuffix(_version_of(path)))].append(path)
    return [sorted(paths) for paths in by_base.values() if len({stem_of(path) for path in paths}) > 1]


def _files_in(
    folder: Path, recursive: bool, exclude: Path | None, above: frozenset[Path] = frozenset()
) -> Iterator[Path]:
    """Files in a folder; a link to a folder above and pictures of results are not followed."""
    here = above | {folder.resolve()}
    try:
        entries = list(folder.iterdir())
    except OSError as err:
        logger.warning("%s: left out, it cannot be read (%s)", folder, err.strerror or err)
        return
    has_results = {"settings.json", "results"} <= {entry.name for entry in entries}
    for entry in entries:
        if entry.name.startswith(".") or (has_results and entry.name in _PICTURES_OF_RESULTS):
            continue
        if is_folder(entry):
            if recursive and entry.resolve() not in here and (exclude is None or not _is_same(entry, exclude)):
                yield from _files_in(entry, recursive, exclude, here)
        else:
            yield entry


def _is_same(folder: Path, other: Path) -> bool:
    return folder.resolve() == other.resolve()


def _files_matching(pattern: Path, exclude: Path | None) -> Iterator[Path]:
    """Files that match; below ``**``, a link to a folder above is not followed."""
    parts = pattern.parts
    if "**" not in parts:
        yield from (match for match in map(Path, glob.glob(str(pattern))) if is_file(match))  # noqa: PTH207 (a Path cannot glob absolute patterns)
        return
    first = parts.index("**")
    for root in map(Path, glob.glob(str(Path(*parts[:first])))):  # noqa: PTH207
        files = _files_in(root, True, exclude) if is_folder(root) else ()
        yield from (file for file in files if _matches(file.relative_to(root).parts, parts[first:]))


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Say whether the names of a path match a pattern; ``**`` stands for any number of folders."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return not pattern[1:] or any(_matches(names[start:], pattern[1:]) for start in range(len(names)))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _previews(images: Sequence[Path]) -> list[Path]:
    """PNG and JPEG files beside an MRC or TIFF file of the same name."""
    taken = {path.with_name(stem_of(path)) for path in images if path.suffix.lower() not in PREVIEW_SUFFIXES}
    return [p for p in images if p.suffix.lower() in PREVIEW_SUFFIXES and p.with_name(stem_of(p)) in taken]


def _split(paths: Iterable[Path], out: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    leaving = set(out)
    return [path for path in paths if path not in leaving], sorted(leaving)


def _headers_of(paths: Sequence[Path]) -> dict[Path, ImageHeader | ImageError | None]:
    """The headers of images; None for a movie or stack, the error where it cannot be read, which picking reports."""

    def header_of(path: Path) -> ImageHeader | ImageError | None:
        try:
            return read_header(path)
        except StackError:
            return None
        except ImageError as err:
            return err

    with ThreadPoolExecutor(_HEADER_THREADS) as threads:
        return dict(zip(paths, threads.map(header_of, paths), strict=True))


def _overviews(headers: dict[Path, ImageHeader | ImageError | None]) -> list[Path]:
    """Images whose pixel size is far from that of the micrographs, which have the smallest pixels."""
    sizes = {
        path: header.pixel_size_A
        for path, header in headers.items()
        if isinstance(header, ImageHeader) and header.pixel_size_A not in (None, UNSET_PIXEL_SIZE_A)
    }
    groups: list[list[Path]] = []
    last = 0.0
    for path, size in sorted(sizes.items(), key=lambda item: (item[1] or 0.0, item[0])):
        if not groups or (size or 0.0) > MAGNIFICATION_STEP * last:
            groups.append([])
        groups[-1].append(path)
        last = size or 0.0
    chosen = next((group for group in groups if len(group) >= MIN_SHARE * len(sizes)), [])
    return [path for group in groups if group is not chosen for path in group]


def _version_of(path: Path) -> str:
    """The ending of a name that tells its version, or ""."""
    return next((ending for ending in VERSIONS if stem_of(path).endswith(ending)), "")


def _refuse_versions(images: Sequence[Path]) -> None:
    several = next(iter(versions_among(images)), None)
    if several is None:
        return
    folder, suffix = several[0].parent, several[0].suffix
    patterns = [f"'{folder / f'*{ending}{suffix}'}'" for path in several if (ending := _version_of(path))]
    plain = [path for path in images if not _version_of(path)]
    if plain and all(stem_of(path)[-1:].isdigit() for path in plain):  # endings of versions are letters
        patterns.insert(0, f"'{folder / f'*[0-9]{suffix}'}'")
    raise InputError(
        f"{folder}: holds several versions of one micrograph: {', '.join(path.name for path in several)}",
        remedy=(
            f"name one version by a pattern in quotes, such as {' or '.join(patterns)}",
            "give the micrographs STAR of the job",
        ),
    )


def _tell(where: str, what: str, paths: Sequence[Path]) -> None:
    if paths:
        shown = ", ".join(repr(path.name) if has_line_break(path) else path.name for path in paths[:3])
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        logger.warning("%s: left out %d %s: %s%s", where, len(paths), what, shown, more)
