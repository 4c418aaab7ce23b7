"""``job.star``: an External job's form as a file, read by RELION 3.1, 4 and 5 alike."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from cryoemmae_plugin.errors import SettingsError
from cryoemmae_plugin.star import format_table
from relion_wrapper.arguments import FROM_RELION, parse_arguments

MAX_PARAMETERS = 10
PROGRAM = "cryoemmae-relion"
_HEAD = """
# version 30001

data_job

_rlnJobType 99
_rlnJobTypeLabel relion.external
_rlnJobIsContinue 0
_rlnJobIsTomo 0


# version 30001

"""


def own_executable() -> str:
    """How RELION should start the job whatever its own environment is: the program beside this Python, or Python."""
    program = Path(sys.executable).parent / PROGRAM
    return str(program) if program.exists() else f"{sys.executable} -m relion_wrapper"


def external_job_star(
    in_mics: str,
    parameters: Mapping[str, str],
    *,
    in_parts: str | None = None,
    threads: int = 4,
    executable: str | None = None,
) -> str:
    """The text of the ``job.star`` of a picking job.

    Parameters
    ----------
    in_mics : str
        Micrographs STAR, relative to the project; may name a Scheme's job.
    parameters : mapping
        Labels and values, "diameter" and so on.
    in_parts : str, optional
        STAR of the particles that a Select job has kept, to refine by.
    executable : str, optional
        Program to start; by default this installation's.

    Raises
    ------
    SettingsError
        When the job would refuse the parameters.
    """
    check_parameters(in_mics, parameters, in_parts)
    options = {
        "do_queue": "No",
        "fn_exe": executable or own_executable(),
        "in_mic": in_mics,
        **({"in_part": in_parts} if in_parts else {}),
        "nr_threads": str(threads),
    }
    for number, (label, value) in enumerate(parameters.items(), 1):
        options |= {f"param{number}_label": label, f"param{number}_value": value}
    columns = ("rlnJobOptionVariable", "rlnJobOptionValue")
    return _HEAD + format_table("joboptions_values", columns, options.items())


def check_parameters(in_mics: str, parameters: Mapping[str, str], in_parts: str | None = None) -> None:
    """Refuse here what the job would refuse later; a ``$$variable`` is filled in by RELION and may be anything.

    Raises
    ------
    SettingsError
        Naming the parameter and what it may be.
    """
    if len(parameters) > MAX_PARAMETERS:
        raise SettingsError(
            f"{len(parameters)} parameters, and RELION's External job has {MAX_PARAMETERS}: leave some out"
        )
    for label, value in parameters.items():
        if label in FROM_RELION or any(blank in value for blank in " \t\n"):
            raise SettingsError(
                f"{label} is {value!r}: not a parameter, or one with a blank, which RELION does not pass on"
            )
    known = {label: value for label, value in parameters.items() if not value.startswith("$$")}
    filled = {"diameter": "100"} | known if "diameter" in parameters else known
    words = [word for label, value in filled.items() for word in (f"--{label}", value)]
    inputs = ["--in_mics", in_mics, *(["--in_parts", in_parts] if in_parts else [])]
    parse_arguments(["--o", "External/job000/", *inputs, *words])
