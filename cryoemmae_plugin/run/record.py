"""The text of one result file: all candidates of a micrograph, and what they came from."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryoemmae_plugin.picks.relion_coordinates import SIZE
from cryoemmae_plugin.star import quote, unquote
from cryoemmae_plugin.types import Picks

FORMAT = 1
"""Increased whenever older result files can no longer be read."""

MAGIC = "# cryoemmae result"
_COLUMNS = ("rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit", "cryoemmaePower")
_GROUP = "rlnClassNumber"
"""Label of a further column, where picks are grouped."""
_MAX_SIDE = 2**31
_MOST = 1e30
"""No number of a candidate is larger."""
_DECIMALS_XY, _DECIMALS_SCORE, _DECIMALS_POWER = 3, 6, 4
CLOCK_TOLERANCE_NS = 2 * 10**9
"""File systems round times, and clocks of two machines differ."""


@dataclass(frozen=True)
class Source:
    """The file that a micrograph was read from: absolute path, size, and time of its last change if it is known."""

    path: Path
    size: int
    time_ns: int | None = None

    @property
    def is_gone(self) -> bool:
        """Whether there is no such file any more."""
        return not self.path.exists()

    def is_at(self, path: Path) -> bool:
        """Whether a path leads to this file, also by a link."""
        return self.path == path.absolute() or os.path.realpath(self.path) == os.path.realpath(path)

    def was_moved_to(self, path: Path) -> bool:
        """Whether the file is gone, and one of the same size and time is at `path`."""
        return self.time_ns is not None and self.is_gone and self.is_unchanged(path)

    def is_unchanged(self, path: Path) -> bool:
        """Whether the file at `path` has this size and time."""
        try:
            now = path.stat()
        except OSError:
            return False
        dated = self.time_ns is None or abs(now.st_mtime_ns - self.time_ns) <= CLOCK_TOLERANCE_NS
        return dated and now.st_size == self.size

    @classmethod
    def of_header(cls, header: dict[str, str]) -> Source:
        """The file that the header of a result names; raises KeyError and ValueError where it is none."""
        time_ns = header.get("cryoemmaeSourceTime")
        size = int(header["cryoemmaeSourceBytes"])
        if "\0" in header["cryoemmaeSource"]:
            raise ValueError("no path has a null byte")
        return cls(Path(header["cryoemmaeSource"]), size, None if time_ns is None else int(time_ns))


@dataclass(frozen=True)
class Result:
    """All candidates of one micrograph, as stored.

    Attributes
    ----------
    uid : str
        Name that the result is stored under.
    micrograph : str
        Path of the micrograph as it was given.
    source : Source
        The micrograph's file.
    pixel_size_A : float
        Å per pixel that the micrograph was picked with.
    fingerprint : str
        Settings and model, see :meth:`PickerSettings.fingerprint`.
    picks : Picks
        Candidates above and below the threshold, best first.
    """

    uid: str
    micrograph: str
    source: Source
    pixel_size_A: float
    fingerprint: str
    picks: Picks


def rounded(picks: Picks) -> Picks:
    """`picks` with the digits that a result file keeps: 0.001 px, scores to 1e-6. Rounding twice changes nothing."""
    return Picks(
        np.round(picks.xy.astype(np.float64), _DECIMALS_XY) + np.float64(0),  # no -0.0
        np.round(picks.score.astype(np.float64), _DECIMALS_SCORE).astype(np.float32),
        np.round(picks.power.astype(np.float64), _DECIMALS_POWER).astype(np.float32) + np.float32(0),
        picks.shape,
        picks.group,
        None if picks.diameter_A is None else np.round(picks.diameter_A, _DECIMALS_POWER),
    )


def format_result(result: Result) -> str:
    """Write a result as STAR text: one block about the micrograph, one table of candidates."""
    picks, source = result.picks, result.source
    ny, nx = picks.shape
    header = {
        "rlnMicrographName": quote(result.micrograph),
        "cryoemmaeSource": quote(str(source.path)),
        "cryoemmaeSourceBytes": source.size,
        **({} if source.time_ns is None else {"cryoemmaeSourceTime": source.time_ns}),
        "rlnMicrographPixelSize": repr(float(result.pixel_size_A)),
        "cryoemmaeColumns": nx,
        "cryoemmaeRows": ny,
        "cryoemmaeFingerprint": quote(result.fingerprint),
        "cryoemmaeCandidates": len(picks),
    }
    lines = [f"{MAGIC}, format {FORMAT}", "", "data_micrograph", ""]
    lines += [f"_{key} {value}" for key, value in header.items()]
    lines += ["", "data_candidates", "", "loop_"]
    lines += [
        f"_{name} #{i}" for i, name in enumerate(_columns(picks.group is not None, picks.diameter_A is not None), 1)
    ]
    groups = [""] * len(picks) if picks.group is None else [f" {number}" for number in picks.group.tolist()]
    sizes = [""] * len(picks) if picks.diameter_A is None else [f" {size:.4f}" for size in picks.diameter_A.tolist()]
    rows = zip(picks.xy.tolist(), picks.score.tolist(), picks.power.tolist(), groups, sizes, strict=True)
    lines += [f"{x:.3f} {y:.3f} {score:.6f} {power:.4f}{group}{size}" for (x, y), score, power, group, size in rows]
    return "\n".join(lines) + "\n\n"


def _columns(grouped: bool, sized: bool) -> tuple[str, ...]:
    return (*_COLUMNS, *([_GROUP] if grouped else []), *([SIZE] if sized else []))


def parse_header(text: str) -> dict[str, str]:
    """Read the first block of a result.

    Raises
    ------
    ValueError
        When the text is no result, or one of another format.
    """
    found = re.match(rf"{MAGIC}, format (\d+)\n", text)
    if not found:
        raise ValueError("not a result file")
    if int(found[1]) != FORMAT:
        raise ValueError(f"a result of format {found[1]}, this version reads format {FORMAT}")
    head = text.partition("\ndata_candidates\n")[0]
    return {key: unquote(value) for key, value in re.findall(r"^_(\S+) (.*)$", head, re.MULTILINE)}


def parse_result(uid: str, text: str) -> Result:
    """Read a result.

    Raises
    ------
    ValueError
        When the text is no whole result of this format.
    """
    header = parse_header(text)
    try:
        columns = _columns(f"\n_{_GROUP} #" in text, f"\n_{SIZE} #" in text)
        rows = text.rpartition(f"_{columns[-1]} #{len(columns)}\n")[2]
        table = np.array(rows.split(), np.float64).reshape(-1, len(columns))
        if len(table) != int(header["cryoemmaeCandidates"]) or not rows.endswith("\n\n"[: 2 if len(table) else 1]):
            raise ValueError("cut short")
        shape = (int(header["cryoemmaeRows"]), int(header["cryoemmaeColumns"]))
        pixel_size_A = float(header["rlnMicrographPixelSize"])
        if (
            not (np.abs(table) < _MOST).all()
            or not 0 < pixel_size_A < np.inf
            or not all(0 < n < _MAX_SIDE for n in shape)
        ):
            raise ValueError("numbers that make no sense")
        return Result(
            uid=uid,
            micrograph=header["rlnMicrographName"],
            source=Source.of_header(header),
            pixel_size_A=pixel_size_A,
            fingerprint=header["cryoemmaeFingerprint"],
            picks=Picks(
                table[:, :2].copy(),
                table[:, 2].astype(np.float32),
                table[:, 3].astype(np.float32),
                shape,
                table[:, columns.index(_GROUP)].astype(np.int32) if _GROUP in columns else None,
                table[:, columns.index(SIZE)].copy() if SIZE in columns else None,
            ),
        )
    except KeyError as err:
        raise ValueError(f"no entry {err.args[0]}") from err
