"""What a report says about a run as a whole: settings, origin, warnings, citation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryoemmae_plugin.box_size import BOX_DIAMETERS, suggest_box_px
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.store import RunRecord
from cryoemmae_plugin.run.summary import SUMMARY_FILE, read_summary, saved_failures
from cryoemmae_plugin.settings import PAPER_ONLY, PickerSettings
from cryoemmae_plugin.version import package_version

CITATION = (
    "Zamanos A, Koromilas P, Bouritsas G, Kastritis PL, Panagakis Y. Self-supervised learning for generalizable "
    "particle picking in cryo-EM micrographs. Cell Reports Methods (2025). doi:10.1016/j.crmeth.2025.101089"
)
BIBTEX = """@article{zamanos2025cryoemmae,
  title   = {Self-supervised learning for generalizable particle picking in cryo-EM micrographs},
  author  = {Zamanos, Andreas and Koromilas, Panagiotis and Bouritsas, Giorgos and Kastritis, Panagiotis L. and
             Panagakis, Yannis},
  journal = {Cell Reports Methods},
  year    = {2025},
  doi     = {10.1016/j.crmeth.2025.101089}
}
"""
_STATUS = {
    "running": "The run is still at work, or was killed: the numbers below are of what was done by then.",
    "interrupted": "The run was stopped before all micrographs were picked. Run the same command again to go on.",
    "failed": "The run ended with an error. Run the same command again to go on.",
}
Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class RunFacts:
    """What is known about a run.

    Attributes
    ----------
    failed : dict
        Reason of each micrograph that failed, by its path.
    settings, provenance : list of (str, str)
        Labels and values, ready to show.
    """

    failed: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    settings: Rows = field(default_factory=list)
    provenance: Rows = field(default_factory=list)
    diameter: str = ""


def gather_facts(
    folder: Path, record: RunRecord, selection: Selection, failed: Mapping[str, str] | None = None
) -> RunFacts:
    """Gather what the files of a result folder say about its run; a missing summary leaves gaps, no error.

    `failed` comes from a run that is at its end, whose summary does not say so yet.
    """
    summary = read_summary(folder)
    return RunFacts(
        failed=saved_failures(folder) if failed is None else dict(failed),
        warnings=[] if failed is not None else _warnings(summary),
        settings=_settings(record.settings, selection),
        provenance=_provenance(folder, record, summary),
        diameter=_diameter(_part(summary, "diameter")),
    )


def describe_box(diameter_A: float, pixel_sizes_A: list[float]) -> dict[str, Any] | None:
    """The suggested box where all micrographs share one pixel size; None otherwise."""
    if len(pixel_sizes_A) != 1:
        return None
    box_px = suggest_box_px(diameter_A, pixel_sizes_A[0])
    return {
        "px": box_px,
        "A": round(box_px * pixel_sizes_A[0], 1),
        "pixel": pixel_sizes_A[0],
        "why": f"{BOX_DIAMETERS:g} particle diameters, rounded up to an even size that Fourier-transforms fast.",
    }


def _part(summary: dict[str, Any], name: str) -> dict[str, Any]:
    part = summary.get(name)
    return part if isinstance(part, dict) else {}


def _settings(settings: PickerSettings, selection: Selection) -> Rows:
    values = settings.model_dump() | selection.settings()
    left_out = {"model", "purity"} | ({*PAPER_ONLY} if settings.mode != "paper" else set())  # named elsewhere
    left_out |= set() if selection.drop_group else {"drop_group"}
    fields = PickerSettings.model_fields.items()
    if settings.sizes_A:
        values["sizes_A"] = settings.diameters
    return [(field.title or name, _shown(name, values[name])) for name, field in fields if name in {*values} - left_out]


def _shown(name: str, value: object) -> str:
    if value is None:
        return "from the files" if name == "pixel_size_A" else "no limit"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _provenance(folder: Path, record: RunRecord, summary: dict[str, Any]) -> Rows:
    versions, device, timings = _part(summary, "versions"), _part(summary, "device"), _part(summary, "timings")
    command = summary.get("command")
    per_micrograph = timings.get("per_micrograph_s")
    rows = [
        ("Result folder", str(folder.absolute())),
        ("Command", " ".join(map(str, command)) if isinstance(command, list) else ""),
        ("Model", f"{record.model_name} ({record.model_sha256[:12]})"),
        ("Fingerprint", record.fingerprint),
        ("Device", str(device.get("name") or device.get("torch") or "")),
        ("Time per micrograph", f"{per_micrograph:g} s" if isinstance(per_micrograph, int | float) else ""),
        ("Picked with", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("Finished", str(summary.get("written") or "")),
        ("Report made with", f"cryoemmae {package_version()}"),
    ]
    return [(label, value) for label, value in rows if value]


def _diameter(diameter: dict[str, Any]) -> str:
    if not diameter.get("estimated"):
        return "given"
    return "estimated from the micrographs"


def _warnings(summary: dict[str, Any]) -> list[str]:
    if not summary:
        return [f"No {SUMMARY_FILE} in the result folder: threshold and failures of the run are not known."]
    status = summary.get("status")
    found = [_STATUS[status]] if isinstance(status, str) and status in _STATUS else []
    said = summary.get("warnings")
    return found + ([str(text) for text in said] if isinstance(said, list) else [])
