"""A whole job with the 5.0 client, from exposures to particles."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stub
from ask import pick, request
from PIL import Image
from testserver.state import FIELDS, Refusal

from cryoemmae_plugin.run.adapting import AdaptationNote
from cryoemmae_plugin.run.hooks import Hooks
from cryosparc_job.create import begin


def test_job_goes_from_exposures_to_particles(world: Any) -> None:
    exposures = world.few(3)
    report, job = pick(world, title="my picks")
    assert (report.status, job.statuses, report.failed) == ("completed", ["running", "completed"], ())
    assert (job.title, job.workspaces, job.type) == ("my picks", ["W1"], "snowflake")
    assert job.inputs["micrographs"].connections == [("J2", "exposures")]
    particles = world.saved(report.job)
    assert len(particles) == report.picks == 3 * 3  # of five candidates three are above the threshold
    assert sorted(set(particles["location/micrograph_uid"])) == [row["uid"] for row in exposures.rows]
    assert len(np.unique(particles["uid"])) == len(particles)


def test_what_is_odd_about_a_file_stands_in_the_jobs_log(world: Any) -> None:
    world.few(2)
    with (world.project / "J1/imported/mic_0001.mrc").open("ab") as file:
        file.write(bytes(512))
    report, job = pick(world)
    assert report.picks == 2 * 3
    said = [event.text for event in job.events if event.kind == "warning"]
    assert sum("mic_0001.mrc: 512 surplus bytes" in text for text in said) == 1


def test_rows_are_what_the_output_asks_for(world: Any, marker_image: Any) -> None:
    exposures = world.exposures()
    uid = exposures.add(marker_image * 25, "J1/imported/marker.mrc", pixel_size_A=1.5)  # 40 rows, 80 columns
    world.state.add_output("P3", "J2", "exposures", exposures.dataset())
    _, job = pick(world, settings={"threshold": 0.85, "min_distance": 0.5})
    particles = world.saved(job.uid)
    expected = [(f"{slot}/{name}", kind) for slot in ("location", "pick_stats") for name, kind in FIELDS[slot]]
    assert sorted(particles.fields(exclude_uid=True)) == sorted(name for name, _ in expected)
    row = {name: particles[name][0] for name in particles.fields()}
    assert row["location/micrograph_uid"] == uid
    assert row["location/micrograph_path"] == "J1/imported/marker.mrc"
    assert row["location/exp_group_id"] == 7
    assert tuple(row["location/micrograph_shape"]) == (40, 80)
    assert row["location/center_x_frac"] == np.float32(60 / 80)  # MARKER_XY, no half pixel added
    assert row["location/center_y_frac"] == np.float32(5 / 40)
    assert row["location/micrograph_psize_A"] == 1.5
    assert row["location/min_dist_A"] == 15
    assert row["pick_stats/ncc_score"] == np.float32(0.9)
    assert row["pick_stats/power"] == pytest.approx(3.7)


def test_flip_y_turns_the_vertical_axis_round(world: Any, marker_image: Any) -> None:
    exposures = world.exposures()
    exposures.add(marker_image * 25)
    world.state.add_output("P3", "J2", "exposures", exposures.dataset())
    _, job = pick(world, settings={"threshold": 0.85}, flip_y=True)
    particles = world.saved(job.uid)
    assert particles["location/center_y_frac"][0] == np.float32((39 - 5) / 40)
    assert particles["location/center_x_frac"][0] == np.float32(60 / 80)


def test_scores_spread(world: Any) -> None:
    world.few(3)
    _, job = pick(world)
    particles = world.saved(job.uid)
    for name in ("pick_stats/ncc_score", "pick_stats/power"):
        assert len(np.unique(particles[name])) == 3, "the sliders of Inspect Particle Picks need values that differ"


def test_paths_of_every_kind_are_found(world: Any, tmp_path: Path) -> None:
    exposures = world.exposures()
    raw = stub.write_mrc(tmp_path / "raw" / "a b.mrc", stub.stub_image(0))
    link = world.project / "J1" / "imported" / "link.mrc"
    link.parent.mkdir(parents=True)
    link.symlink_to(raw)
    exposures.add(stub.stub_image(0), "J1/imported/link.mrc", write=False)
    exposures.add(stub.stub_image(0), str(raw), write=False)
    exposures.add(stub.stub_image(1), ">J1/imported/exported.mrc")
    exposures.add(stub.stub_image(2), "J1/motioncorrected/ä relative.mrc")
    world.state.add_output("P3", "J2", "exposures", exposures.dataset())
    report, job = pick(world)
    assert (report.micrographs, report.failed) == (4, ())
    paths = set(world.saved(job.uid)["location/micrograph_path"])
    assert paths == {row["micrograph_blob/path"] for row in exposures.rows}, "paths go back as they came"
    assert "projects.download_file" not in world.state.calls


def test_files_out_of_sight_are_downloaded_one_by_one(world: Any) -> None:
    world.few(4)
    world.state.advertised["P3"] = Path("/nowhere/on/this/host")
    report, job = pick(world)
    assert (report.status, report.picks, report.failed) == ("completed", 12, ())
    # Four to pick, and four more to draw; none is kept.
    assert world.state.calls.count("projects.download_file") == 8
    assert not list(report.folder.glob("scratch/.download*"))
    assert Path("/nowhere") not in report.folder.parents
    assert str(report.folder) in job.texts


def test_half_precision_micrographs_are_read(world: Any) -> None:
    exposures = world.exposures()
    exposures.add(stub.stub_image(3).astype(np.float16), **{"micrograph_blob/format": "MRC/12"})
    world.state.add_output("P3", "J2", "exposures", exposures.dataset())
    report, _ = pick(world)
    assert (report.picks, report.failed) == (3, ())


def test_micrographs_without_picks_are_no_failure(world: Any) -> None:
    exposures = world.exposures()
    exposures.add(stub.stub_image(0, particles=0))
    exposures.add(stub.stub_image(1))
    world.state.add_output("P3", "J2", "exposures", exposures.dataset())
    report, job = pick(world)
    assert (report.status, report.picks, report.micrographs) == ("completed", 3, 2)
    assert "without any" in job.texts


def test_no_picks_at_all_make_an_empty_output(world: Any) -> None:
    exposures = world.exposures()
    exposures.add(stub.stub_image(0, particles=0))
    world.state.add_output("P3", "J2", "exposures", exposures.dataset())
    report, job = pick(world)
    assert (report.status, job.status, report.picks) == ("completed", "completed", 0)
    assert len(world.saved(job.uid)) == 0


def test_a_bad_micrograph_is_left_out_and_named(world: Any) -> None:
    exposures = world.exposures()
    exposures.add(stub.stub_image(0))
    exposures.add(stub.stub_image(1), "J1/imported/gone.mrc", write=False)
    (exposures.folder / "J1/imported/torn.mrc").write_bytes(b"not a micrograph")
    exposures.add(stub.stub_image(1), "J1/imported/torn.mrc", write=False)
    world.state.add_output("P3", "J2", "exposures", exposures.dataset())
    report, job = pick(world)
    assert (report.status, report.micrographs, len(report.failed)) == ("completed", 1, 2)
    warnings = [event.text for event in job.events if event.kind == "warning"]
    assert any("gone.mrc" in text and "mount" in text for text in warnings)
    assert any("torn.mrc" in text for text in warnings)


def test_a_job_without_any_good_micrograph_fails(world: Any) -> None:
    exposures = world.exposures()
    exposures.add(stub.stub_image(0) - 1000)
    world.state.add_output("P3", "J2", "exposures", exposures.dataset())
    with pytest.raises(Exception, match="none of 1 micrographs could be picked"):
        pick(world)
    job = world.state.jobs["P3", "J3"]
    assert job.status == "failed"
    assert "none of 1 micrographs could be picked" in job.error
    assert "too dark to pick" in job.texts


def divided_exposures(world: Any) -> tuple[list[int], list[int]]:
    """Three exposures, with picks, without any, and torn; uids of the first, and of the others."""
    exposures = world.exposures()
    good = exposures.add(stub.stub_image(0), "J1/imported/good.mrc")
    empty = exposures.add(stub.stub_image(1, particles=0))
    (exposures.folder / "J1/imported/torn.mrc").write_bytes(b"not a micrograph")
    torn = exposures.add(stub.stub_image(1), "J1/imported/torn.mrc", write=False)
    exposures.add(stub.stub_image(2))
    world.state.add_output("P3", "J2", "exposures", exposures.dataset())
    return [good], [empty, torn]


def test_exposures_with_picks_and_without_are_outputs(world: Any) -> None:
    with_picks, without = divided_exposures(world)
    _, job = pick(world, limit=3)
    accepted, rejected = (world.saved(job.uid, f"exposures_{kind}") for kind in ("accepted", "rejected"))
    assert (list(accepted["uid"]), list(rejected["uid"])) == (with_picks, without)
    assert accepted["micrograph_blob/path"][0] == "J1/imported/good.mrc"
    assert tuple(accepted["micrograph_blob/shape"][0]) == stub.SHAPE
    assert accepted["micrograph_blob/psize_A"][0] == 1.5
    for name in ("exposures_accepted", "exposures_rejected"):
        output = job.outputs[name]
        assert (output.type, output.passthrough) == ("exposure", "micrographs")


@pytest.mark.parametrize("refused", ["jobs.add_external_output", "jobs.save_output"])
def test_a_version_that_refuses_exposures_outputs_gets_particles(world: Any, refused: str) -> None:
    divided_exposures(world)

    def refuse_the_second(state: Any) -> None:
        if state.calls.count(refused) > 1:
            raise Refusal(422, "no such slot")

    world.state.hooks[refused] = refuse_the_second
    report, job = pick(world)
    assert (report.status, len(world.saved(job.uid))) == ("completed", report.picks)
    assert any(event.kind == "warning" and "exposures_accepted" in event.text for event in job.events)


@pytest.mark.slow
def test_a_job_leaves_a_report_with_as_many_pictures_as_asked_for(world: Any) -> None:
    world.few(3)
    report, job = pick(world, report=2)
    folder = report.folder / "picks" / "report"
    assert f"Report, to open in a browser: {folder / 'index.html'}" in job.texts
    assert len(list(folder.glob("pictures/*-small.jpg"))) == 2
    without, job = pick(world, report="none")
    assert not (without.folder / "picks" / "report").exists()
    assert "to open in a browser" not in job.texts


def test_limit_takes_the_first(world: Any) -> None:
    exposures = world.few(5)
    report, job = pick(world, limit=2)
    assert report.micrographs == 2
    uids = [row["uid"] for row in exposures.rows[:2]]
    assert sorted(set(world.saved(job.uid)["location/micrograph_uid"])) == uids


def test_exposures_without_microscope_and_ctf_are_enough(world: Any) -> None:
    exposures = world.exposures()
    exposures.add(stub.stub_image(0))
    world.state.add_output("P3", "J2", "imported_micrographs", exposures.dataset(("micrograph_blob",)))
    report, job = pick(world, exposures="J2.imported_micrographs")
    assert report.picks == 3
    assert set(world.saved(job.uid)["location/exp_group_id"]) == {0}
    assert "no exposure groups" in job.texts
    assert "Pick density against defocus" not in job.plots


def test_log_and_pictures_say_what_a_user_wants_to_know(world: Any) -> None:
    world.few(6)
    _, job = pick(world, overlays=3)
    for words in ("J2.exposures", "6 micrographs", "30 Å", "1.5 Å per pixel", "stub", "cpu", "figure of merit"):
        assert words in job.texts
    progress = [event for event in job.events if event.text.startswith("Picking")]
    assert len(progress) == 1, "5.x writes progress over the same line"
    assert "6 / 6" in progress[0].text
    assert sum(event.kind == "checkpoint" for event in job.events) == 2
    assert [plot.split(" in ")[0] for plot in job.plots[:3]] == ["3 picks"] * 3
    assert job.plots[3:] == [
        "Figures of merit of all candidates",
        "Picks per micrograph",
        "Pick density against defocus",
    ]
    for asset in (job.tile, job.outputs["particles"].image, *(event.files[0] for event in job.events if event.files)):
        with Image.open(BytesIO(world.state.assets[asset])) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 32


def test_names_and_titles_do_not_burst_the_address(world: Any) -> None:
    exposures = world.exposures()
    exposures.add(stub.stub_image(0), f"J1/imported/{'ü' * 110}.mrc")
    world.state.add_output("P3", "J2", "exposures", exposures.dataset())
    report, job = pick(world, title="Å" * 5000)
    assert report.status == "completed"
    assert job.title.startswith("ÅÅÅ")
    assert world.state.longest_url < 2500
    assert len(job.plots) == 4


def test_output_name_is_the_users(world: Any) -> None:
    world.few(1)
    _, job = pick(world, output="emmae_picks")
    assert list(job.outputs) == ["emmae_picks", "exposures_accepted", "exposures_rejected"]
    assert len(world.saved(job.uid, "emmae_picks")) == 3


def test_a_job_picks_with_the_model_that_was_adapted_to_its_exposures(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Engines(stub.StubEngines):
        def __call__(self, settings: Any, *more: Any) -> Any:
            models.append(settings.model_name)
            return super().__call__(settings, *more)

    def adapt(settings: Any, model: Any, micrographs: Any, folder: Path, state: Any, hooks: Hooks) -> Any:
        hooks.observer.progress("Adapting", 1, 1)
        sizes.extend(hooks.loader(micrograph).image.shape for micrograph in micrographs)
        return AdaptationNote(
            adapted=True, why="", base_sha256=model.sha256, diameter_A=30, contrast="dark", pixel_size_A=None
        )

    models: list[str] = []
    sizes: list[tuple[int, int]] = []
    monkeypatch.setattr("cryoemmae_plugin.run.preparation.adapt_model", adapt)
    world.few(3)
    report, _ = pick(world, engines=Engines())
    assert report.status == "completed"
    assert models[0] == "emmae-base"
    assert models[-1].endswith("picks/model")
    assert len(sizes) == 3


@pytest.mark.slow
def test_a_wrong_size_is_said_once_in_the_log_and_on_the_terminal(world: Any, particles_of_40_px: Any) -> None:
    exposures = world.exposures()
    exposures.add(particles_of_40_px, pixel_size_A=4.0)
    world.state.add_output("P3", "J2", "exposures", exposures.dataset())
    told: list[str] = []
    asked = request(diameter_A=320.0, settings={"adapt": False})
    report = begin(world.connect(), asked, stub.StubEngines(), tell=told.append).run()
    said = [event.text for event in world.state.jobs["P3", report.job].events if event.kind == "warning"]
    assert len(said) == 1
    assert "The particles seem to be smaller than 320 Å at 4 Å/px. Check, in this order: --pixel-size" in said[0]
    assert [line for line in told if line.startswith("Warning: ")] == [f"Warning: {said[0]}"]
