"""What a report says about the settings of a run."""

from __future__ import annotations

from pathlib import Path

from cryoemmae_plugin.report.facts import gather_facts
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.store import RunRecord
from cryoemmae_plugin.settings import PickerSettings


def shown_settings(settings: PickerSettings, folder: Path) -> dict[str, str]:
    record = RunRecord(version="0.1", model_name="fake", model_sha256="f" * 64, settings=settings)
    return dict(gather_facts(folder, record, Selection.of(settings)).settings)


def test_settings_are_shown_with_their_labels(tmp_path: Path) -> None:
    shown = shown_settings(PickerSettings(diameter_A=40.5, adapt=False), tmp_path)
    assert shown["Particle diameter (Å)"] == "40.5"
    assert shown["Pixel size (Å)"] == "from the files"
    assert shown["Figure of merit threshold"] == "0.5"
    assert shown["Adapt to the micrographs"] == "no"


def test_settings_of_paper_mode_are_shown_in_paper_mode_only(tmp_path: Path) -> None:
    area, radius = "Share of the area that particles cover", "Largest radius (particle radii)"
    assert not {area, radius} & shown_settings(PickerSettings(diameter_A=40), tmp_path).keys()
    paper = shown_settings(PickerSettings(diameter_A=40, mode="paper"), tmp_path)
    assert (paper[area], paper[radius]) == ("0.04", "no limit")
