"""What 2D classification has kept: which picks these are, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cryoemmae_plugin.errors import InputError
from cryoemmae_plugin.run.class_selection import ClassSelection, judge_picks
from cryoemmae_plugin.run.reading_selection import selection_of_run
from cryoemmae_plugin.run.selection import Selection
from cryoemmae_plugin.run.store import ResultStore, RunRecord
from cryoemmae_plugin.types import Micrograph, Picks

SHAPE, DIAMETER_PX, PIXEL_SIZE_A = (800, 1000), 20.0, 2.0
RULE = Selection(threshold=0.5, diameter_A=40.0, edge_distance=0.0, min_distance=0.0)
Centres = NDArray[np.float64]


def grid(count: int = 60) -> Centres:
    return np.array([(50.0 + 80 * (i % 10), 60.0 + 70 * (i // 10)) for i in range(count)])


def judge(selected: Centres, rejected: Centres | None = None, **options: int) -> ClassSelection:
    dropped = None if rejected is None else {"a": rejected}
    return judge_picks({"a": selected}, dropped, {"a": grid(), "b": grid()}, {"a": DIAMETER_PX}, **options)


def test_selected_particles_are_the_picks_beside_them_and_all_others_are_dropped() -> None:
    selection = judge(np.rint(grid(40) + np.array([3.2, -2.9])))
    assert np.array_equal(selection.kept["a"], grid(40))
    assert np.array_equal(selection.dropped["a"], grid()[40:])
    assert selection.uids == ["a"]  # nothing was kept on the other micrograph: it is not judged


def test_rejected_particles_are_dropped_and_nothing_else_is() -> None:
    selection = judge(grid(40), np.concatenate([grid()[50:], grid(2) + 1]))
    assert np.array_equal(selection.dropped["a"], grid()[50:])  # what is kept and rejected is kept


def test_a_selected_particle_that_no_pick_is_beside_stays_where_it_is() -> None:
    selection = judge(np.concatenate([grid(30), [(10.0, 10.0)]]))
    assert selection.kept["a"][-1].tolist() == [10, 10]


def test_the_digest_knows_every_pick() -> None:
    assert judge(grid(40)).digest == judge(grid(40)).digest
    assert judge(grid(40)).digest != judge(grid(41)).digest


def test_too_few_and_particles_of_another_frame_are_refused() -> None:
    with pytest.raises(InputError, match="10 particles were kept"):
        judge(grid(10))
    with pytest.raises(InputError, match=r"only 0 of 40 .* flipped, shifted, or those of binned"):
        judge(grid(40) + 35)


def test_it_says_what_little_can_do() -> None:
    assert judge(grid(40), classes=1).notes[0].startswith("40 kept particles are few")
    assert "one class" in judge(grid(40), classes=1).notes[1]
    assert "No pick was dropped" in judge(grid()).notes[-1]


@pytest.fixture
def store(tmp_path: Path, record: RunRecord) -> ResultStore:
    (tmp_path / "mics").mkdir()
    with ResultStore.create(tmp_path / "out", record) as store:
        for name in ("x", "y"):
            path = tmp_path / "mics" / f"{name}.mrc"
            path.touch()
            score = np.linspace(0.9, 0.6, 60, dtype=np.float32)
            store.save(Micrograph(path, PIXEL_SIZE_A, name), Picks(grid(), score, score, SHAPE), PIXEL_SIZE_A, 0)
    return store


WriteParticles = Callable[..., Path]


@pytest.fixture
def particles(tmp_path: Path) -> WriteParticles:
    """Write a particles STAR as RELION's Select does, of the micrographs `names`."""

    def write(xy: Centres, *names: str, pixel_size_A: float = PIXEL_SIZE_A, class_number: int = 3) -> Path:
        rows = [f"MotionCorr/job002/{n}.mrc {x:.1f} {y:.1f} {class_number} 1" for n in names for x, y in xy]
        path = tmp_path / "particles.star"
        path.write_text(
            "\n# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnMicrographPixelSize #2\n"
            f"1 {pixel_size_A}\n\n\ndata_particles\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n"
            "_rlnCoordinateY #3\n_rlnClassNumber #4\n_rlnOpticsGroup #5\n" + "\n".join(rows) + "\n\n"
        )
        return path

    return write


def test_relions_selected_particles_are_found_by_the_names_of_their_micrographs(
    store: ResultStore, particles: WriteParticles
) -> None:
    selection = selection_of_run([particles(grid(40), "x", "z")], None, store, RULE)
    assert selection.count == (40, 20)
    assert selection.uids == ["x"]
    assert any("one class" in note for note in selection.notes)


def test_coordinates_of_binned_micrographs_are_brought_to_the_micrograph(
    store: ResultStore, particles: WriteParticles
) -> None:
    path = particles((grid(40) + 0.5) / 2 - 0.5, "x", pixel_size_A=2 * PIXEL_SIZE_A)
    assert np.allclose(selection_of_run([path], None, store, RULE).kept["x"], grid(40))


def test_cryosparcs_selected_particles_are_read_from_their_file(store: ResultStore, tmp_path: Path) -> None:
    fields = [
        ("uid", "<u8"),
        ("location/micrograph_path", "S40"),
        ("location/micrograph_shape", "<u4", (2,)),
        ("location/center_x_frac", "<f4"),
        ("location/center_y_frac", "<f4"),
    ]
    rows = np.zeros(30, np.dtype(fields))  # type: ignore[arg-type]
    rows["location/micrograph_path"], rows["location/micrograph_shape"] = b"J3/motion/000123456789_x.mrc", SHAPE
    rows["location/center_x_frac"], rows["location/center_y_frac"] = (grid(30) / SHAPE[::-1]).T
    with (tmp_path / "J30_particles_selected.cs").open("wb") as file:
        np.save(file, rows)
    assert selection_of_run([tmp_path / "J30_particles_selected.cs"], None, store, RULE).count == (30, 30)


@pytest.mark.parametrize(
    ("offset", "names", "problem"),
    [
        (0.0, ("p",), "no picks are of the micrographs given"),
        (600.0, ("x",), "lie outside of the micrograph"),
        (0.0, (), "no particle in it; select at least one class"),
    ],
)
def test_particles_of_another_run_are_refused(
    store: ResultStore, particles: WriteParticles, offset: float, names: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        selection_of_run([particles(grid(40) + offset, *names)], None, store, RULE)
