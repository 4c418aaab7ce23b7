"""What a user may choose about a job in CryoSPARC, beside what decides the picks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cryoemmae_plugin.settings import REPORT_PICTURES, Options, ReportPictures, TrainOn, form


class JobOptions(Options):
    """How a job is made; without influence on what is picked, but for `limit`, `train_on` and `flip_y`. Frozen."""

    title: str = Field(default="cryoemmae picks", description="Title of the job.")
    output: Annotated[
        str,
        form(
            r"\A(?!exposures_(accepted|rejected)\Z)[A-Za-z][0-9A-Za-z_]*\Z",
            "particles (letters, digits and underscores, a letter first)",
        ),
    ] = Field(default="particles", description="Name of its particles output.")
    limit: int | None = Field(default=None, ge=1, description="Pick the first N exposures only.")
    train_on: TrainOn = None
    gpu: Annotated[str, form(r"\A(auto|none|cpu|(cuda:)?\d{1,3}(,\d{1,3})*)\Z", "auto, none, 0, or 0,1")] = Field(
        default="auto",
        description="auto (a GPU where there is one), none, the number of one, or several such as 0,1, for a worker "
        "on each.",
    )
    overlays: int = Field(
        default=4,
        ge=0,
        description="Number of micrographs to show with their picks in the job's log.",
    )
    report: ReportPictures = REPORT_PICTURES
    flip_y: bool = Field(
        default=False,
        description="Flip the vertical axis of the picks, for exposures that were imported upside down.",
    )


class FollowOptions(Options):
    """How a growing output is followed. Frozen."""

    session: Annotated[str, form(r"\AS\d+\Z", "S1")] | None = Field(
        default=None,
        description="In place of exposures, a Live session, such as S1: they are exported whenever more are ready. "
        "CryoSPARC 5 only.",
    )
    every: float = Field(
        default=60.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds between two looks at the exposures.",
    )
    idle: float = Field(
        default=60.0,
        gt=0,
        allow_inf_nan=False,
        description="End when no new exposure has come for this many minutes. When the job that makes them ends, this "
        "one ends too.",
    )
    least: int = Field(
        default=5,  # as many as adapting to the micrographs takes
        ge=1,
        description="Exposures to wait for before the first is picked: diameter and model are settled on them.",
    )
