"""Which micrograph of one table is which micrograph of another, such as a reference and picks.

Names are compared as texts, without folder and image suffix: ``a/x_10.5.mrc`` is ``x_10.5``. Where two micrographs
share such a stem, their folders tell them apart. What CryoSPARC adds to a name does not count: the number
in front, and ``_patch_aligned_doseweighted`` at the end.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.images import READABLE_SUFFIXES

_CRYOSPARC_NUMBER = re.compile(r"\d{6,}_(?=.)")
_CRYOSPARC_MOTION = re.compile(r"(?<=.)_(patch|rigid)_aligned(_doseweighted)?$")
_SUFFIXES = sorted(READABLE_SUFFIXES, key=len, reverse=True)


def stem_of(name: str) -> str:
    """Return a file name without folders and image suffix; any other suffix is part of the name."""
    last = PurePosixPath(name).name
    suffix = next((suffix for suffix in _SUFFIXES if last.lower().endswith(suffix)), "")
    return last[: len(last) - len(suffix)] or last


def keys_of(names: Iterable[str]) -> dict[str, str]:
    """Give each micrograph a short name: its stem, or its path without suffix where the stem is not its alone.

    Returns
    -------
    dict
        Short name by full name.
    """
    by_stem = _by_stem(names)
    return {
        name: stem if len(group) == 1 else str(PurePosixPath(name).with_name(stem))
        for stem, group in by_stem.items()
        for name in group
    }


def match_names(picked: Iterable[str], known: Mapping[str, str]) -> dict[str, str]:
    """Find the short name in a reference for each micrograph with picks.

    Parameters
    ----------
    picked : iterable of str
        Names in the picks.
    known : mapping
        Short name by full name of the micrographs in the reference, see :func:`keys_of`.

    Returns
    -------
    dict
        By the name in the picks; a micrograph that the reference does not have is not in it.

    Raises
    ------
    InputError
        When it cannot be told which of several micrographs with one file name is meant.
    """
    references, groups = _by_stem(known), _by_stem(picked)
    plain = {_plain(stem): stem for stem in references}
    found: dict[str, str] = {}
    merged: dict[str, list[str]] = defaultdict(list)
    for stem, names in groups.items():
        owner = stem if stem in references else plain.get(_plain(stem))
        if owner is not None:
            merged[owner] += names
    for stem, names in merged.items():
        pairs = _match_folders(names, references[stem])
        found |= {name: known[reference] for name, reference in pairs.items()}
    return found


def _by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in dict.fromkeys(names):
        groups[stem_of(name)].append(name)
    return groups


def _plain(stem: str) -> str:
    """Take away what CryoSPARC adds to a name."""
    number = _CRYOSPARC_NUMBER.match(stem)
    return _CRYOSPARC_MOTION.sub("", stem[number.end() :] if number else stem)


def _match_folders(picked: list[str], references: list[str]) -> dict[str, str]:
    """Match micrographs of one stem by their folders."""
    if len(picked) == len(references) == 1:
        return {picked[0]: references[0]}
    found: dict[str, str] = {}
    for name in picked:
        shared = {reference: _shared_folders(name, reference) for reference in references}
        best = [reference for reference in references if shared[reference] == max(shared.values())]
        if max(shared.values()) == 0:
            continue
        if len(best) > 1 or best[0] in found.values():
            raise _ambiguous(picked, references)
        found[name] = best[0]
    if not found:
        raise _ambiguous(picked, references)
    return found


def _shared_folders(one: str, other: str) -> int:
    """Count the folders above the file that are the same, from the file upwards."""
    count = 0
    for mine, theirs in zip(PurePosixPath(one).parts[-2::-1], PurePosixPath(other).parts[-2::-1], strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def _ambiguous(picked: list[str], references: list[str]) -> InputError:
    several = picked if len(picked) > 1 else references
    where = "picks" if several is picked else "reference"
    return InputError(
        f"{several[0]} and {several[1]} have one file name in the {where}, and the folders do not tell which is which",
        remedy="write the micrographs with their folders in both tables, or take one folder at a time",
    )
