"""The demo: micrographs with known answers, simulated, picked, scored and drawn."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cryoemmae_plugin.device import choose_device
from cryoemmae_plugin.errors import ImageError
from cryoemmae_plugin.evaluation.metrics import Evaluation, evaluate
from cryoemmae_plugin.evaluation.tables import read_picks, read_reference
from cryoemmae_plugin.files import atomic_write_bytes
from cryoemmae_plugin.images import read_image
from cryoemmae_plugin.report.finisher import report_finisher
from cryoemmae_plugin.report.writer import REPORT_FOLDER
from cryoemmae_plugin.run.observer import Observer
from cryoemmae_plugin.run.overlay_picture import png_bytes
from cryoemmae_plugin.run.overlays import draw_result
from cryoemmae_plugin.run.request import Outputs, RunRequest
from cryoemmae_plugin.run.service import run_picking
from cryoemmae_plugin.run.store import Existing
from cryoemmae_plugin.settings import DeviceOptions, RequestedSettings
from cryoemmae_plugin.simulate import Scene, demo_scenes, write_micrographs
from cryoemmae_plugin.simulate.write import REFERENCE_NAME
from cryoemmae_plugin.terminal.console import Reporter, Stages
from cryoemmae_plugin.types import Micrograph

EXPECTED_F1 = 0.9
"""Mean F1 (half_d) below which something is wrong with the installation: these micrographs are not hard."""

FIRST_SEED = 1
"""Scenes are simulated from this seed on, one each, so that every demo shows the same."""

NEXT_STEPS = """Now your own micrographs:

  cryoemmae pick MICROGRAPHS/ --diameter 160 --out picks/

160 stands for the particle's longest extent in Å. picks/picks.star is for other programs. To look at the picks, open
picks/report/index.html in a browser.
`cryoemmae rethreshold picks/ --threshold 0.6` makes picks fewer and purer; a lower threshold finds more.
Next: docs/first_picks.md; for RELION docs/relion.md, for CryoSPARC docs/cryosparc.md."""


def run_demo(
    out: Path, device: str = "auto", scenes: Sequence[Scene] | None = None, reporter: Reporter | None = None
) -> int:
    """Simulate micrographs, pick them as ``cryoemmae pick`` does, score the picks, draw them, and say what comes next.

    Parameters
    ----------
    out : Path
        Folder for micrographs, picks and overlays; what an earlier demo has left there is replaced.
    device : str
        "auto", "cpu" or "cuda:N".
    scenes : sequence of Scene, optional
        What to simulate instead of the demo's own scenes.
    reporter : Reporter, optional
        The terminal.

    Returns
    -------
    int
        0, or 1 where the picks are worse than they should be.

    Raises
    ------
    CryoemmaeError
        When a micrograph cannot be picked, or a file cannot be written.
    """
    console = Console(highlight=False, soft_wrap=True)
    scenes = demo_scenes() if scenes is None else scenes
    seeds = range(FIRST_SEED, FIRST_SEED + len(scenes))
    seconds = []
    with Stages(reporter or Reporter()) as stages:
        simulating = f"Simulating {len(scenes)} micrographs with known answers into {out / 'micrographs'}"
        paths = write_micrographs(out / "micrographs", scenes, seeds, progress=partial(stages.show, simulating))
        picking = f"Picking them on {choose_device(device)} into {out / 'picks'}"
        stages.show(picking, 0, len(scenes))
        for path, scene in zip(paths, scenes, strict=True):
            seconds.append(pick_scene(path, scene, out, device))
            stages.show(picking, len(seconds), len(scenes), scene.name)
        score = score_demo(out, scenes)
    console.print(score_table(score, seconds))
    good = score.mean["half_d"].f1 >= EXPECTED_F1
    console.print(f"Circles around the picks: {out / 'overlays'}\n")
    console.print(NEXT_STEPS if good else _apology(score))
    first = out / "picks" / scenes[0].name / REPORT_FOLDER / "index.html"
    console.print(f"\nEach micrograph has a report, to open in a browser. The first one: {first}")
    return 0 if good else 1


def pick_scene(path: Path, scene: Scene, out: Path, device: str) -> float:
    """Pick one simulated micrograph at default settings and draw its picks; seconds that picking took.

    Raises
    ------
    ImageError
        When it cannot be picked.
    """
    request = RunRequest(
        RequestedSettings(diameter_A=scene.settings.diameter_A),
        out / "picks" / scene.name,
        existing=Existing.REPLACE,
        device=DeviceOptions(device=device),
        outputs=Outputs(overlays=0),
    )
    observer = Observer()
    run = run_picking(request, [Micrograph(path, None, scene.name)], observer, finishers=[report_finisher(observer)])
    if run.reasons:
        raise ImageError(run.reasons[0])
    picture = draw_result(run.store.load(scene.name), run.selection, read_image(path), scene.name)
    atomic_write_bytes(out / "overlays" / f"{scene.name}.png", png_bytes(picture))
    return sum(run.log.seconds.values())


def score_demo(out: Path, scenes: Sequence[Scene]) -> Evaluation:
    """Compare the picks of all scenes with the known positions."""
    reference = read_reference(out / "micrographs" / REFERENCE_NAME)
    tables = [out / "picks" / scene.name / "picks.star" for scene in scenes]
    return evaluate(reference, read_picks(tables, reference))


def score_table(score: Evaluation, seconds: Sequence[float]) -> Table:
    """The scores as a table, one row a micrograph, and their means; `seconds` are of all micrographs."""
    each = sum(seconds) / max(len(seconds), 1)
    table = Table(caption=f"Right: within half a diameter of a particle. {each:.1f} s per micrograph.")
    table.add_column("micrograph")
    for title in ("particles", "picks", "found", "right", "F1"):
        table.add_column(title, justify="right")
    for row in score.micrographs:
        rule = row.rules["half_d"]
        table.add_row(
            row.micrograph,
            str(row.reference),
            str(row.picks),
            f"{rule.recall:.0%}",
            f"{rule.precision:.0%}",
            f"{rule.f1:.2f}",
        )
    mean = score.mean["half_d"]
    table.add_section()
    table.add_row("mean", "", "", f"{mean.recall:.0%}", f"{mean.precision:.0%}", f"{mean.f1:.2f}")
    return table


def _apology(score: Evaluation) -> str:
    return (
        f"The mean F1 is {score.mean['half_d'].f1:.2f}, and should be at least {EXPECTED_F1}: something is wrong here. "
        "`cryoemmae doctor` checks the models and the installation."
    )
