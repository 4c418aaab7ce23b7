"""Read picks of any program: the file's name says which, and every reader gives the same tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.files import MAX_TABLE_BYTES, read_bytes, reason_of
from cryoemmae_plugin.picks import boxes, cryosparc, csv_table, relion, topaz
from cryoemmae_plugin.picks.identity import stem_of
from cryoemmae_plugin.picks.table import PickTable

READERS: dict[str, Callable[[Path], list[PickTable]]] = {
    ".star": relion.read_star_picks,
    ".cs": cryosparc.read_particles,
    ".cbox": lambda path: [boxes.read_cbox(path)],
    ".box": lambda path: [boxes.read_box(path)],
    ".txt": topaz.read_topaz,
    ".tsv": topaz.read_topaz,
    ".csv": csv_table.read_csv,
}
"""What reads a file of picks, by its suffix."""

_LISTS = ("picks.star", "autopick.star", "manualpick.star", f"{relion.SUFFIX_LIST}_autopick.star")
_NAMED_AFTER = ("_autopick", "_manualpick", "_topaz", "_picks", "_extract")
"""What programs add to a micrograph's name for its file of coordinates."""


def read_picks(path: Path) -> list[PickTable]:
    """Read the picks of a file, or of a folder with files of one program.

    Raises
    ------
    InputError
        When there is nothing to read, or files of several programs.
    """
    return [table for file in files_of(path) for table in _reader(file)(file)]


def read_all(paths: Sequence[Path]) -> list[PickTable]:
    """Read several files as one table each micrograph and name; raises as :func:`read_picks` does."""
    return [table for path in paths for table in read_picks(path)]


def files_of(path: Path) -> list[Path]:
    """The files of picks that a path stands for.

    Raises
    ------
    InputError
        When there is none, or a folder has those of several programs.
    """
    if not path.is_dir():
        if not path.exists():
            raise InputError(f"{path}: no such file; check the path")
        return [path]
    listing = next((path / name for name in _LISTS if (path / name).is_file()), None)
    if listing is not None:
        return [listing]
    kinds: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(path.rglob("*")):
        if file.suffix.lower() in (".star", ".cbox", ".box") and not file.name.startswith(".") and _has_picks(file):
            kinds[file.suffix.lower()].append(file)
    if not kinds:
        raise InputError(f"{path}: no files of picks in it; give a folder with .star, .box or .cbox files")
    if len(kinds) > 1:
        counts = ", ".join(f"{len(files)} {suffix}" for suffix, files in kinds.items())
        raise InputError(f"{path}: files of several programs in it ({counts}); give the files of one of them")
    return next(iter(kinds.values()))


def _has_picks(path: Path) -> bool:
    """Whether a file has coordinates; RELION's folders have other STAR files too."""
    if path.suffix.lower() != ".star":
        return True
    try:
        return relion.X.encode() in read_bytes(path, MAX_TABLE_BYTES)
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({reason_of(err)}); move it away, or make it readable") from err


def _reader(path: Path) -> Callable[[Path], list[PickTable]]:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: not a file of picks by its name; readable are {' '.join(READERS)}")
    return reader


def name_by_files(tables: Iterable[PickTable], known: Iterable[str] = ()) -> list[PickTable]:
    """Name the micrograph of tables whose file names none: ``mic_10_autopick.star`` is of ``mic_10``.

    Where `known` micrographs fit, the one with the longest name is taken. Else the file's own name is, without what
    programs add to it.
    """
    stems = {stem_of(name) for name in known}
    return [
        replace(table, micrograph=named_by(Path(table.micrograph), stems)) if table.named_by_file else table
        for table in tables
    ]


def named_by(path: Path, stems: Iterable[str]) -> str:
    """The micrograph that a file of coordinates is called after."""
    fitting = [s for s in stems if _stands_alone(s, path.name)]
    if fitting:
        return str(path.parent / max(fitting, key=len))
    stem = path.stem
    for ending in _NAMED_AFTER:
        stem = stem.removesuffix(ending) or stem
    return str(path.parent / stem)


def _stands_alone(stem: str, name: str) -> bool:
    """Whether a file's name begins with a micrograph's."""
    return name.startswith(stem) and not name[len(stem) : len(stem) + 1].isalnum()


def join(tables: Iterable[PickTable]) -> list[PickTable]:
    """Put tables of the same micrograph name together, in their order."""
    parts: dict[str, list[PickTable]] = defaultdict(list)
    for table in tables:
        parts[table.micrograph].append(table)
    joined = []
    for group in parts.values():
        labels = {label for table in group for label in table.extras}
        extras = {
            label: np.concatenate([table.extras.get(label, np.full(len(table), np.nan)) for table in group])
            for label in sorted(labels)
        }
        xy, score = (np.concatenate([getattr(table, name) for table in group]) for name in ("xy", "score"))
        joined.append(replace(group[0], xy=xy, score=score, extras=extras))
    return joined
