"""CryoSPARC's data sets (.cs) of particles and exposures."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.files import MAX_TABLE_BYTES, atomic_write_binary, read_bytes, reason_of
from cryoemmae_plugin.picks.table import PickTable
from cryoemmae_plugin.types import Micrograph

_NUMPY = b"\x93NUMPY"
_PATH, _SHAPE, _PIXEL_SIZE = "location/micrograph_path", "location/micrograph_shape", "location/micrograph_psize_A"
_UID = "location/micrograph_uid"
_CENTRE = ("location/center_x_frac", "location/center_y_frac")
_SCORE = "pick_stats/ncc_score"
_BLOB = "micrograph_blob"


def read_dataset(path: Path) -> NDArray[np.void]:
    """Read a .cs file as a structured array. Nothing in it is run.

    Raises
    ------
    InputError
        When it cannot be read.
    """
    try:
        content = read_bytes(path, MAX_TABLE_BYTES)
    except OSError as err:
        raise InputError(f"{path}: cannot be read ({reason_of(err)}); give another file") from err
    try:
        packed = not content.startswith(_NUMPY)
        found = _packed(path) if packed else np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as err:  # a damaged header may raise anything
        raise InputError(f"{path}: cannot be read as a .cs file ({reason_of(err)}); export it again") from err
    if found.dtype.names is None:
        raise InputError(f"{path}: holds one array and no columns; give a .cs file of CryoSPARC")
    return np.atleast_1d(found)


def _packed(path: Path) -> NDArray[np.void]:
    """Read the compressed form, for which CryoSPARC's own client is needed."""
    try:
        from cryosparc.dataset import Dataset
    except ImportError as err:
        raise InputError(
            f"{path}: a packed .cs file needs CryoSPARC's client; pip install cryosparc-tools, or export the file from "
            "CryoSPARC again"
        ) from err
    try:
        return np.asarray(Dataset.load(str(path)).to_records(fixed=True))
    except Exception as err:  # whatever the client makes of a broken file
        raise ValueError(reason_of(err)) from err


def read_particles(path: Path) -> list[PickTable]:
    """Read the picks of a particles .cs file.

    Raises
    ------
    InputError
        When it cannot be read, or has no locations: it is a passthrough or another output.
    """
    rows = read_dataset(path)
    missing = [name for name in (_PATH, _SHAPE, *_CENTRE) if name not in (rows.dtype.names or ())]
    if missing:
        raise InputError(
            f"{path}: has no {missing[0]}; give the particles' .cs file that has locations, often the one with "
            "'passthrough' in its name"
        )
    with _columns_of(path):
        if len(rows) and not (rows[_SHAPE] > 0).all():
            raise InputError(f"{path}: {_SHAPE} of some particles is 0; export the particles again")
        order = np.argsort(rows[_PATH], kind="stable")
        names, starts = np.unique(rows[_PATH][order], return_index=True)
        parts = np.split(rows[order], starts[1:]) if len(rows) else []
        return [_table(_text(name), part) for name, part in zip(names, parts, strict=True)]


@contextmanager
def _columns_of(path: Path) -> Iterator[None]:
    """Say which file it is that has columns of another type or form."""
    try:
        yield
    except (ValueError, TypeError, LookupError, OverflowError) as err:
        raise InputError(
            f"{path}: a column is not of the kind that CryoSPARC writes ({reason_of(err)}); export it again"
        ) from err


def _table(name: str, rows: NDArray[np.void]) -> PickTable:
    ny, nx = (int(side) for side in rows[_SHAPE][0])
    xy = np.stack([rows[label].astype(np.float64) for label in _CENTRE], axis=1) * (nx, ny)
    score = rows[_SCORE].astype(np.float64) if _SCORE in _fields(rows) else np.full(len(rows), np.nan)
    pixel_size_A = float(rows[_PIXEL_SIZE][0]) if _PIXEL_SIZE in _fields(rows) else 0.0
    return PickTable(
        name.removeprefix(">"),
        xy,
        score,
        shape=(ny, nx),
        pixel_size_A=pixel_size_A if pixel_size_A > 0 else None,
        uid=int(rows[_UID][0]) if _UID in _fields(rows) else None,
    )


def read_exposures(path: Path) -> list[tuple[Micrograph, int]]:
    """Read the micrographs of an exposures .cs file, each with CryoSPARC's number of it.

    Raises
    ------
    InputError
        When it cannot be read, or lists no micrographs.
    """
    rows = read_dataset(path)
    missing = [f"{_BLOB}/{part}" for part in ("path", "shape", "psize_A") if f"{_BLOB}/{part}" not in _fields(rows)]
    if missing:
        raise InputError(f"{path}: has no {missing[0]}; give the .cs file of motion-corrected micrographs")
    found = []
    with _columns_of(path):
        for row in rows:
            name, (ny, nx) = _text(row[f"{_BLOB}/path"]).removeprefix(">"), row[f"{_BLOB}/shape"]
            size_A = float(row[f"{_BLOB}/psize_A"])
            found.append((Micrograph(Path(name), size_A, str(row["uid"]), (int(ny), int(nx))), int(row["uid"])))
    return found


def write_particles(path: Path, tables: Sequence[PickTable], min_dist_A: float) -> None:
    """Write picks as a .cs file of particles with the slots location and pick_stats.

    Raises
    ------
    InputError
        When a micrograph has no number or no shape: they come from an exposures .cs file.
    """
    wanting = next((table.micrograph for table in tables if table.uid is None or table.shape is None), None)
    if wanting is not None:
        raise InputError(
            f"{wanting}: a .cs file needs CryoSPARC's number of each micrograph",
            remedy="give the exposures' .cs file with $micrographs, or write CryoSPARC's STAR with $to=cryosparc",
        )
    width = max((len(table.micrograph.encode()) for table in tables), default=1)
    fields: list[tuple[Any, ...]] = [
        ("uid", "<u8"),
        (_UID, "<u8"),
        (_PATH, f"S{width}"),
        (_SHAPE, "<u4", (2,)),
        *((label, "<f4") for label in _CENTRE),
        (_PIXEL_SIZE, "<f4"),
        ("location/min_dist_A", "<f4"),
        ("location/exp_group_id", "<u4"),
        (_SCORE, "<f4"),
        ("pick_stats/power", "<f4"),
        ("pick_stats/template_idx", "<u4"),
        ("pick_stats/angle_rad", "<f4"),
    ]
    parts = [_rows(table, np.dtype(fields), min_dist_A) for table in tables]
    rows = np.concatenate([np.zeros(0, np.dtype(fields)), *parts])
    rows["uid"] = np.random.default_rng(len(rows)).permutation(np.arange(1, len(rows) + 1, dtype=np.uint64) << 20)
    with atomic_write_binary(path) as file:
        np.save(file, rows, allow_pickle=False)


def _rows(table: PickTable, kind: np.dtype[np.void], min_dist_A: float) -> NDArray[np.void]:
    rows = np.zeros(len(table), kind)
    assert table.shape is not None
    ny, nx = table.shape
    rows[_UID], rows[_PATH], rows[_SHAPE] = table.uid, table.micrograph.encode(), (ny, nx)
    rows[_CENTRE[0]], rows[_CENTRE[1]] = table.xy[:, 0] / nx, table.xy[:, 1] / ny
    rows[_PIXEL_SIZE], rows["location/min_dist_A"] = table.pixel_size_A or 0.0, min_dist_A
    rows[_SCORE] = np.nan_to_num(table.score)
    return rows


def _fields(rows: NDArray[np.void]) -> tuple[str, ...]:
    return rows.dtype.names or ()


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
