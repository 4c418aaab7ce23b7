"""Settings for RELION's display of coordinates, so that circles have the particle's size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryoemmae_plugin.files import atomic_write
from cryoemmae_plugin.star import Table, find_table, format_pairs, format_table, read_star
from relion_wrapper.project import options_in

FILE = ".gui_manualpickjob.star"
SCREEN_PX = 1000
"""Width of a micrograph on the screen, about."""

_COLUMNS = ("rlnJobOptionVariable", "rlnJobOptionValue")
_DEFAULTS = {
    "angpix": "-1",
    "black_val": "0",
    "blue_value": "1",
    "color_label": "rlnAutopickFigureOfMerit",
    "do_color": "No",
    "do_queue": "No",
    "do_startend": "No",
    "fn_color": "",
    "fn_in": "",
    "highpass": "-1",
    "lowpass": "20",
    "other_args": "",
    "red_value": "0",
    "sigma_contrast": "3",
    "white_val": "0",
}
_HEAD = """
# version 30001

data_job

_rlnJobType 3
_rlnJobTypeLabel relion.manualpick
_rlnJobIsContinue 0
_rlnJobIsTomo 0


# version 30001

"""


def write_display_settings(project: Path, diameter_A: float, pixel_sizes_A: Sequence[float], width_px: int) -> None:
    """Set diameter and pixel size of RELION's Manual picking form, which the display of any coordinates uses.

    Other settings that are saved there stay as they are.

    Parameters
    ----------
    pixel_sizes_A : sequence of float
        Å per pixel of the micrographs; set only if all agree (the micrographs STAR has priority anyway).
    width_px : int
        Columns of a micrograph; sets the scale on the screen in a project without settings.

    Raises
    ------
    InputError
        When the settings that are there cannot be read.
    OutputError
        When the file cannot be written.
    """
    path = project / FILE
    saved = read_star(path) if path.exists() else []
    options = options_in(saved)
    if not options:
        options = _DEFAULTS | {"micscale": f"{min(1.0, SCREEN_PX / max(width_px, 1)):.2f}"}
    wanted = {"diameter": f"{diameter_A:g}"}
    if len(set(pixel_sizes_A)) == 1:
        wanted["angpix"] = f"{pixel_sizes_A[0]:g}"
    if options == options | wanted:
        return
    table = format_table("joboptions_values", _COLUMNS, sorted((options | wanted).items()))
    with atomic_write(path) as file:
        file.write(_head(find_table(saved, "job")) + table)


def _head(saved: Table | None) -> str:
    """The block about the job's type, as the file has it: RELION versions write it differently."""
    if not saved:
        return _HEAD
    return "\n# version 30001\n\n" + format_pairs("job", saved.records()[0]) + "\n# version 30001\n\n"
