"""The Python API: what a script or a notebook calls. Import its names from ``cryoemmae_plugin``."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryoemmae_plugin.core.picker import CandidatePicker
from cryoemmae_plugin.device import choose_device
from cryoemmae_plugin.errors import PYTHON, ImageError, SettingsError
from cryoemmae_plugin.images import pixel_size_of, read_header, read_image
from cryoemmae_plugin.report.finisher import report_finisher
from cryoemmae_plugin.run.inputs import find_micrographs
from cryoemmae_plugin.run.observer import Observer
from cryoemmae_plugin.run.request import NO_OUTPUTS, Outputs, RunRequest
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.service import Run, run_picking
from cryoemmae_plugin.run.store import Existing, owner_in
from cryoemmae_plugin.settings import (
    Auto,
    ComputeOptions,
    DeviceOptions,
    ExecutorOptions,
    OutputOptions,
    PickerSettings,
    RequestedSettings,
    make_options,
)
from cryoemmae_plugin.types import Picks
from cryoemmae_plugin.weights import Model, load_model

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

AnyPath = str | PathLike[str]


class MicrographImage(NamedTuple):
    """An image, shape (ny, nx), float32, and its pixel size in Å."""

    image: NDArray[np.float32]
    pixel_size_A: float

    def __repr__(self) -> str:
        ny, nx = self.image.shape
        return f"MicrographImage({nx} × {ny} px, {self.pixel_size_A:g} Å per pixel)"


def read_micrograph(path: AnyPath, pixel_size_A: float | None = None) -> MicrographImage:
    """Read a micrograph: MRC, TIFF, PNG or JPEG.

    Parameters
    ----------
    path : str or path
    pixel_size_A : float, optional
        Å per pixel; overrides the file's header.

    Returns
    -------
    MicrographImage
        Image and pixel size; row 0 is the first row stored in the file.

    Raises
    ------
    ImageError
        The file cannot be read, or its pixel size is not known.

    Examples
    --------
    >>> image, pixel_size_A = read_micrograph("micrographs/virus.mrc")
    >>> image.shape, pixel_size_A
    ((400, 480), 4.0)
    """
    path = Path(path)
    size_A = pixel_size_of(path, read_header(path), pixel_size_A)
    return MicrographImage(read_image(path), size_A)


class Picker:
    """Picks images with one model and one set of settings.

    Parameters
    ----------
    settings : PickerSettings
    model : Model, optional
        From :func:`load_model`; by default the one that the settings name.
    device : str
        "auto" (a GPU where there is one), "cpu" or "cuda:N".
    gpu_memory, precision
        As of :class:`cryoemmae_plugin.settings.ComputeOptions`.

    Raises
    ------
    DeviceError, ModelError, SettingsError

    Examples
    --------
    >>> picker = Picker(PickerSettings(diameter_A=120))
    >>> picks = picker.pick(*read_micrograph("micrographs/virus.mrc"))
    >>> len(picks) > 0, picks.shape
    (True, (400, 480))
    """

    def __init__(
        self, settings: PickerSettings, model: Model | None = None, *, device: str = "auto", **options: Any
    ) -> None:
        if not isinstance(settings, PickerSettings):
            raise SettingsError(setting="settings", value=settings, remedy="give PickerSettings(diameter_A=...)")
        (compute,) = make_options(options, ComputeOptions)
        self._picker = CandidatePicker(
            model or load_model(settings.model_name), settings, choose_device(device), compute
        )
        self.settings = settings

    def __repr__(self) -> str:
        return f"Picker({self.settings!r})"

    def pick(self, image: ArrayLike, pixel_size_A: float) -> Picks:
        """Pick one micrograph. The model is used as it is; only :func:`pick_files` adapts it to the micrographs.

        Parameters
        ----------
        image : array, shape (ny, nx)
            Pixels as stored.
        pixel_size_A : float
            Å per pixel.

        Returns
        -------
        Picks
            Those above the threshold, apart from each other and away from the edge; best first.

        Raises
        ------
        ImageError
            The image cannot be picked.
        SettingsError
            The particle is larger than the micrograph, or too small to be seen.
        """
        selection = Selection.of(self.settings)
        return selection.allowed(self.candidates(image, pixel_size_A), pixel_size_A).above(selection.threshold)

    def candidates(self, image: ArrayLike, pixel_size_A: float) -> Picks:
        """All candidates, those below the threshold too; otherwise as :meth:`pick`."""
        try:
            pixels = np.asarray(image, np.float32)
        except (TypeError, ValueError) as err:
            raise ImageError(f"not an image of numbers ({err})", remedy="give an array of shape (ny, nx)") from err
        if not pixel_size_A > 0:
            raise SettingsError(setting="pixel_size_A", value=pixel_size_A, remedy="give Å per pixel, greater than 0")
        return self._picker.pick(pixels, float(pixel_size_A))


class PickedFiles(Mapping[Path, Picks]):
    """Picks of each micrograph, by its path.

    Attributes
    ----------
    settings : PickerSettings
        What they were picked with; the diameter may have been estimated.
    failed : dict of Path to str
        Micrographs that could not be picked, and why.
    """

    def __init__(self, picks: Mapping[Path, Picks], failed: Mapping[Path, str], settings: PickerSettings) -> None:
        self._picks, self.failed, self.settings = dict(picks), dict(failed), settings

    def __getitem__(self, path: AnyPath) -> Picks:
        return self._picks[Path(path)]

    def __contains__(self, path: object) -> bool:
        return isinstance(path, (str, PathLike)) and Path(path) in self._picks

    def __iter__(self) -> Iterator[Path]:
        return iter(self._picks)

    def __len__(self) -> int:
        return len(self._picks)

    def __repr__(self) -> str:
        total = sum(map(len, self._picks.values()))
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return f"PickedFiles({total} picks from {len(self)} micrographs{failed})"

    def to_dataframe(self) -> pd.DataFrame:
        """All picks in one table: micrograph, x, y, score, power."""
        import pandas as pd

        tables = [picks.to_dataframe().assign(micrograph=str(path)) for path, picks in self._picks.items()]
        columns = ["micrograph", "x", "y", "score", "power"]
        return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def pick_files(
    paths: AnyPath | Iterable[AnyPath],
    *,
    diameter_A: float | Auto | None = None,
    out: AnyPath | None = None,
    overwrite: bool = False,
    recursive: bool = False,
    observer: Observer | None = None,
    **settings: Any,
) -> PickedFiles:
    """Pick micrograph files, as ``cryoemmae pick`` does: with several micrographs, the model adapts to them first.

    Parameters
    ----------
    paths : str, path, or several
        Micrographs (MRC, TIFF, PNG, JPEG), folders, globs, or a micrographs STAR.
    diameter_A : float or "auto"
        Longest extent of the particle in Å; "auto" estimates it from the micrographs.
    out : str or path, optional
        Folder for results, tables and overlays; a second call resumes there. Without it, no file is written.
    overwrite : bool
        Throw away what earlier runs have left in `out`.
    recursive : bool
        Search the folders inside a folder too.
    observer : Observer, optional
        Is told of every step of the run.
    **settings
        What ``cryoemmae pick`` has options for: fields of :class:`PickerSettings` (threshold, mode, model, contrast …),
        of the device and workers (device, threads, gpu_memory, workers …), and, with `out`, of the outputs (formats,
        overlays, report).

    Returns
    -------
    PickedFiles
        Picks above the threshold, by path. Micrographs that failed are in its `failed`.

    Raises
    ------
    SettingsError
        A keyword or a value is wrong.
    ImageError
        No micrograph could be picked.
    CryoemmaeError
        The run cannot go on: no such file, model or device, or `out` belongs to another run.

    Examples
    --------
    >>> found = pick_files("micrographs/*.mrc", diameter_A=120)
    >>> len(found), found.failed
    (2, {})
    >>> sorted(found.to_dataframe().columns)
    ['micrograph', 'power', 'score', 'x', 'y']
    >>> pick_files("micrographs/", diameter=120)
    Traceback (most recent call last):
        ...
    cryoemmae_plugin.errors.SettingsError: there is no setting 'diameter'; do you mean diameter_A?
    """
    given = settings if diameter_A is None else {"diameter_A": diameter_A, **settings}
    asked, device, compute, workers, outputs = make_options(
        given, RequestedSettings, DeviceOptions, ComputeOptions, ExecutorOptions, OutputOptions
    )
    existing = Existing.REPLACE if overwrite else Existing.CONTINUE
    with nullcontext(out) if out is not None else TemporaryDirectory(prefix="cryoemmae-") as folder:
        folder = Path(folder)
        micrographs = find_micrographs(
            _listed(paths),
            pixel_size_A=asked.pixel_size_A,
            recursive=recursive,
            exclude=folder,
            owner=owner_in(folder, existing),
        )
        request = RunRequest(
            asked,
            folder,
            existing=existing,
            device=device,
            compute=compute,
            workers=workers,
            outputs=NO_OUTPUTS if out is None else Outputs.of(outputs),
        )
        heard = observer or Observer()
        finishers = [] if out is None else [report_finisher(heard)]
        return _picks_of(run_picking(request, micrographs, heard, finishers=finishers))


def _listed(paths: AnyPath | Iterable[AnyPath]) -> list[str | Path]:
    try:
        several = [paths] if isinstance(paths, (str, PathLike)) else list(paths)
        return [Path(path) for path in several]
    except TypeError as err:
        raise SettingsError(setting="paths", value=paths, remedy="give a path or a list of paths") from err


def _picks_of(run: Run) -> PickedFiles:
    """Read the results of a run back, in the order of the micrographs."""
    failed = {Path(failure["micrograph"]): PYTHON(failure["reason"]) for failure in run.log.failures}
    for reason in failed.values():
        logger.warning("%s", reason)
    picks = {
        micrograph.path: run.selection.picks(run.store.load(micrograph.uid))
        for micrograph in run.micrographs
        if micrograph.path not in failed
    }
    if not picks:
        raise ImageError(f"no micrograph could be picked. {next(iter(failed.values()), '')}")
    return PickedFiles(picks, failed, run.settings)
