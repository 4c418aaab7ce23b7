"""Simulated micrographs: what the answers say is where the image shows it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import label
from scipy.spatial.distance import pdist

from cryoemmae_plugin.errors import OutputError, SettingsError
from cryoemmae_plugin.simulate import (
    PARTICLE_SHAPES,
    Scene,
    SimulationSettings,
    demo_scenes,
    random_scene,
    simulate,
    write_micrographs,
)
from cryoemmae_plugin.simulate.model import particle_model
from cryoemmae_plugin.simulate.place import place_centres
from cryoemmae_plugin.simulate.specimen import project

NOT_SQUARE = (300, 420)
SMALL = SimulationSettings(shape=NOT_SQUARE, pixel_size_A=4.0, diameter_A=160.0, n_particles=20)


def settings(**changes: object) -> SimulationSettings:
    return SimulationSettings(**{**SMALL.model_dump(), **changes})


def distances(xy: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Distance of every pixel to the nearest of the centres."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.min([np.hypot(x - cx, y - cy) for cx, cy in xy], axis=0)


# --- same seed, same micrograph -----------------------------------------------------------------------------------


def test_same_seed_gives_the_same_micrograph():
    first, second = simulate(SMALL, 3), simulate(SMALL, 3)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.xy, second.xy)


def test_another_seed_gives_another_micrograph():
    first, second = simulate(SMALL, 3), simulate(SMALL, 4)
    assert not np.array_equal(first.image, second.image)
    assert not np.array_equal(first.xy[:5], second.xy[:5])


def test_coordinates_do_not_depend_on_what_happens_after_placement():
    first, second = simulate(SMALL, 3), simulate(settings(dose_e_A2=20.0, defocus_um=3.0, noise=False), 3)
    np.testing.assert_array_equal(first.xy, second.xy)


def test_random_scenes_repeat_with_their_generator_and_keep_what_is_fixed():
    def draw() -> list[SimulationSettings]:
        rng = np.random.default_rng(5)
        return [random_scene(rng, shape=(256, 320), particle="rod", n_particles=4) for _ in range(5)]

    assert draw() == draw()
    assert {(scene.shape, scene.particle, scene.n_particles) for scene in draw()} == {((256, 320), "rod", 4)}
    assert len({scene.defocus_um for scene in draw()}) == 5


# --- geometry -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("particle", PARTICLE_SHAPES)
@pytest.mark.parametrize("pixel_size_A", [2.0, 5.0])
def test_centre_of_an_isolated_particle_is_its_reference(particle, pixel_size_A):
    scene = SimulationSettings(
        shape=(220, 340), pixel_size_A=pixel_size_A, diameter_A=30 * pixel_size_A, particle=particle, n_particles=1,
        border=2.0, noise=False, ice_gradient=0.0, defocus_um=0.0, cs_mm=0.0, amplitude_contrast=0.5, b_factor_A2=0.0,
    )  # fmt: skip
    micrograph = simulate(scene, 12)
    dark = micrograph.image[0, 0] - micrograph.image.astype(float)
    y, x = np.mgrid[: scene.shape[0], : scene.shape[1]]
    centre = np.array([(dark * x).sum(), (dark * y).sum()]) / dark.sum()
    assert np.abs(micrograph.xy[0] - [169.5, 109.5]).min() > 5, "the particle lies too central to show a flip"
    np.testing.assert_allclose(centre, micrograph.xy[0], atol=0.1)


@pytest.mark.parametrize("particle", PARTICLE_SHAPES)
def test_model_is_centred_and_fills_its_sphere(particle):
    model = particle_model(particle, variant=2)
    radius = np.linalg.norm(model.points, axis=1)
    assert np.abs(model.weights @ model.points).max() < 1e-9
    assert radius.max() == pytest.approx(0.5, abs=1e-6)
    outermost = model.points[radius > 0.49]  # a minimal sphere is touched from all sides
    assert len(outermost) >= 2
    directions = np.random.default_rng(0).normal(size=(200, 3))
    assert (directions @ outermost.T > 0).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("pixel_size_A", [0.8, 3.0, 8.0])
def test_projected_particle_spans_its_diameter_at_any_pixel_size(pixel_size_A):
    scene = settings(pixel_size_A=pixel_size_A, particle="shell")
    canvas, centre = (300, 400), np.array([[180.3, 140.8]])
    image = project(particle_model("shell"), centre, scene, canvas, np.random.default_rng(0))
    reach = distances(centre, canvas)[image > 0].max()
    assert scene.diameter_px / 2 - 1.5 < reach < scene.diameter_px / 2 + 1.5


def test_orientations_differ_from_particle_to_particle():
    scene = settings(particle="rod")
    centres = np.array([[80.0, 80.0], [200.0, 80.0], [320.0, 80.0]])
    image = project(particle_model("rod"), centres, scene, (160, 400), np.random.default_rng(1))
    tiles = [image[40:120, x - 40 : x + 40] for x in (80, 200, 320)]
    assert all(np.corrcoef(a.ravel(), b.ravel())[0, 1] < 0.9 for a, b in pairwise(tiles))


@pytest.mark.parametrize("min_distance", [0.8, 1.0, 1.5])
def test_no_two_particles_are_closer_than_asked(min_distance):
    micrograph = simulate(settings(n_particles=400, min_distance=min_distance), 2)
    gaps = pdist(micrograph.xy) / micrograph.diameter_px
    assert min_distance <= gaps.min() < 1.2 * min_distance


def test_border_keeps_particles_off_the_frame_and_its_absence_lets_it_cut_them():
    inside = simulate(settings(n_particles=30, border=0.6, min_distance=0.8), 1)
    margin = 0.6 * inside.diameter_px
    assert inside.xy.min() >= margin - 0.5
    assert (inside.xy <= np.array([420, 300]) - margin).all()
    cut = simulate(settings(n_particles=200, min_distance=0.8), 1)
    assert len(cut.xy) > 40
    assert cut.xy.min() < margin / 2
    assert ((cut.xy >= -0.5) & (cut.xy <= np.array([419.5, 299.5]))).all(), "only centres inside the frame count"


def test_placing_stops_when_nothing_more_fits():
    blocked = np.zeros((100, 100), bool)
    blocked[:, :50] = True
    xy = place_centres(10_000, (0, 0), (99, 99), 20.0, blocked, np.random.default_rng(0))
    assert 5 < len(xy) < 30
    assert xy[:, 0].min() > 49


# --- contrast, optics, noise --------------------------------------------------------------------------------------


@pytest.mark.parametrize("particle", PARTICLE_SHAPES)
def test_particles_are_dark(particle):
    micrograph = simulate(settings(particle=particle, min_distance=1.5, ice_gradient=0.0), 7)
    gap = distances(micrograph.xy, micrograph.image.shape) / micrograph.diameter_px
    inside, outside = micrograph.image[gap < 0.4], micrograph.image[(gap > 0.7) & (gap < 1.2)]
    error = np.hypot(inside.std() / np.sqrt(inside.size), outside.std() / np.sqrt(outside.size))
    assert inside.mean() < outside.mean() - 3 * error


def test_noise_follows_the_dose():
    image = simulate(settings(n_particles=0, ice_thickness_A=0.0, ice_gradient=0.0, pixel_size_A=2.0), 1).image
    electrons = 40.0 * 0.6 * 4.0
    assert image.mean() == pytest.approx(electrons, rel=0.01)
    assert image.var() == pytest.approx(electrons, rel=0.03)


@pytest.mark.parametrize("defocus_um", [0.8, 2.0])
def test_thon_rings_vanish_where_the_contrast_transfer_does(defocus_um):
    scene = SimulationSettings(
        shape=(512, 512), pixel_size_A=1.5, n_particles=0, defocus_um=defocus_um, astigmatism_um=0.0, b_factor_A2=0.0,
        dose_e_A2=500.0, ice_thickness_A=500.0, ice_gradient=0.0,
    )  # fmt: skip
    image = simulate(scene, 4).image
    window = np.hanning(512)[:, None] * np.hanning(512)
    power = np.abs(np.fft.rfft2((image - image.mean()) * window)) ** 2
    k = np.hypot(np.fft.fftfreq(512, 1.5)[:, None], np.fft.rfftfreq(512, 1.5))
    wavelength_A = 0.0196875  # of 300 kV electrons
    phase = np.pi * wavelength_A * defocus_um * 1e4 * k**2 - 0.5 * np.pi * 2.7e7 * wavelength_A**3 * k**4
    transfer = np.sin(phase + np.arcsin(0.1)) ** 2
    shot_noise = image.mean() * (window**2).sum()

    def power_where(low: float, high: float) -> float:
        return float(power[(transfer >= low) & (transfer <= high) & (k > 0.02) & (k < 0.15)].mean()) / shot_noise

    assert 0.9 < power_where(0, 0.003) < 1.5, "only shot noise is left at the zeros, and what leaks from beside them"
    assert power_where(0.99, 1) > 8
    assert power_where(0.49, 0.51) == pytest.approx((power_where(0, 0.003) + power_where(0.99, 1)) / 2, rel=0.1)


# --- what is not a particle ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "junk",
    [
        {},
        {"frost": 6},
        {"crystals": 4},
        {"carbon": 1.0},
        {"ice": "crystalline"},
        {"ice": "leopard"},
        {"aggregates": 2},
        {"crystallites": 60},
        {"specks": 20},
        {"vesicles": 4},
        {"gold": 5, "foil": 0.3},
    ],
)
def test_micrograph_without_particles_is_possible(junk):
    micrograph = simulate(settings(n_particles=0, **junk), 1)
    assert micrograph.xy.shape == (0, 2)
    assert micrograph.image.shape == NOT_SQUARE
    assert np.isfinite(micrograph.image).all()
    assert micrograph.image.std() > 0


def test_carbon_is_darker_and_carries_no_particle():
    bare = settings(n_particles=60, min_distance=0.9, ice_gradient=0.0, contrast=0.1)
    without, with_carbon = simulate(bare, 5), simulate(bare.model_copy(update={"carbon": 0.4}), 5)
    ratio = with_carbon.image / without.image.mean()
    smooth = ratio[: 300 // 20 * 20, : 420 // 20 * 20].reshape(15, 20, 21, 20).mean(axis=(1, 3))
    carbon = smooth < 0.94
    assert 0.25 < carbon.mean() < 0.55
    cells = np.clip(with_carbon.xy // 20, 0, [20, 14]).astype(int)
    assert not carbon[cells[:, 1], cells[:, 0]].any()
    assert len(with_carbon.xy) > 5


@pytest.mark.parametrize("kind", ["frost", "crystals", "gold"])
def test_contamination_is_dark_and_keeps_particles_away(kind):
    plain = settings(n_particles=0, noise=False, ice_gradient=0.0)
    dirty = simulate(plain.model_copy(update={kind: 3}), 6).image
    assert dirty.min() < 0.95 * np.median(dirty)
    crowded = simulate(settings(n_particles=300, noise=False, ice_gradient=0.0, contrast=0.01, **{kind: 3}), 6)
    darkness = np.median(crowded.image) - crowded.image
    at = np.clip(np.rint(crowded.xy), 0, [419, 299]).astype(int)
    assert len(at) > 10
    assert darkness[at[:, 1], at[:, 0]].max() < 0.3 * darkness.max()


def test_aggregates_and_debris_are_seen_but_not_in_the_reference():
    plain = settings(noise=False)
    clean, dirty = simulate(plain, 8), simulate(plain.model_copy(update={"aggregates": 2, "debris": 20}), 8)
    np.testing.assert_array_equal(clean.xy, dirty.xy)
    assert (clean.image - dirty.image).max() > 0.01 * clean.image.mean()


@pytest.mark.parametrize(("kind", "many"), [("crystallites", 40), ("specks", 40)])
def test_small_junk_has_all_sizes(kind: str, many: int) -> None:
    plain = settings(n_particles=0, noise=False, ice_gradient=0.0, shape=(800, 800))
    dirty = simulate(plain.model_copy(update={kind: many}), 3).image
    dark = dirty < 0.97 * np.median(dirty)
    _, areas = np.unique(label(dark)[0], return_counts=True)
    areas = areas[1:][areas[1:] > 4]
    assert len(areas) > 10
    assert np.quantile(areas, 0.9) > 4 * np.quantile(areas, 0.1)


def test_gold_is_darkest_and_of_one_size() -> None:
    plain = settings(n_particles=0, noise=False, ice_gradient=0.0, shape=(800, 800), pixel_size_A=2.0)
    image = simulate(plain.model_copy(update={"gold": 24, "gold_A": 100.0}), 3).image
    components, count = label(image < 0.5 * np.median(image))
    areas = np.bincount(components.ravel())[1:]
    assert count >= 8
    assert np.median(areas) == pytest.approx(np.pi * 25**2, rel=0.3)


def test_mottled_ice_is_dark_in_places_much_larger_than_noise() -> None:
    plain = settings(n_particles=0, ice_gradient=0.0, shape=(800, 800))
    spread = []
    for ice in ("vitreous", "leopard"):
        image = simulate(plain.model_copy(update={"ice": ice}), 5).image
        spread.append(image.reshape(40, 20, 40, 20).mean((1, 3)).std() / image.mean())
    assert spread[1] > 4 * spread[0]


# --- viruses, vesicles, discs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", range(4))
def test_full_capsids_have_a_core_and_empty_ones_do_not(variant: int) -> None:
    inner = {}
    for shape in ("full_capsid", "empty_capsid"):
        model = particle_model(shape, variant)
        inner[shape] = model.weights[np.linalg.norm(model.points, axis=1) < 0.3].sum() / model.weights.sum()
    assert inner["full_capsid"] > 0.1
    assert inner["empty_capsid"] == 0


def test_sizes_vary_only_where_they_shall() -> None:
    scene = settings(particle="liposome", n_particles=30, shape=(600, 600))
    model, centres = particle_model("liposome"), np.array([[100.0, 100.0], [300.0, 100.0], [500.0, 100.0]])
    image = project(model, centres, scene, (200, 600), np.random.default_rng(0), np.array([0.8, 1.0, 1.2]))
    widths = [(image[:, x - 60 : x + 60].sum(0) > 0).sum() for x in (100, 300, 500)]
    assert widths[0] < widths[1] < widths[2]
    same, varied = simulate(scene, 4), simulate(scene.model_copy(update={"size_spread": 0.2}), 4)
    np.testing.assert_array_equal(same.xy, varied.xy)
    assert not np.array_equal(same.image, varied.image)


# --- looks --------------------------------------------------------------------------------------------------------


def test_eight_bit_look_has_whole_numbers_and_a_smeared_border_without_reference():
    look = {"eight_bit": True, "lowpass_A": 30.0, "highpass_A": 900.0, "smeared_border_px": 20}
    micrograph = simulate(settings(n_particles=100, min_distance=0.8, **look), 1)
    image = micrograph.image
    assert image.min() >= 0
    assert image.max() <= 255
    np.testing.assert_array_equal(image, np.rint(image))
    np.testing.assert_array_equal(image[:20, 50:-50], np.broadcast_to(image[20, 50:-50], (20, 320)))
    assert micrograph.xy.min() >= 19.5
    assert micrograph.xy[:, 0].max() <= 420 - 19.5


def test_hot_pixels_are_as_many_as_asked():
    plain = settings(n_particles=0)
    cold, hot = simulate(plain, 1).image, simulate(plain.model_copy(update={"hot_pixels": 17}), 1).image
    assert np.count_nonzero(hot != cold) == 17
    assert (hot >= cold).all()


# --- settings and files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"pixel_size_A": 0.0},
        {"diameter_A": -1.0},
        {"shape": (8, 8)},
        {"particle": "teapot"},
        {"smeared_border_px": 200},
        {"carbon": float("nan")},
        {"colour": "blue"},
    ],
)
def test_impossible_settings_are_refused_by_name(wrong):
    with pytest.raises(SettingsError, match=f"{next(iter(wrong))}|pixels"):
        settings(**wrong)


def test_written_files_hold_image_pixel_size_and_reference(tmp_path: Path):
    scenes = [Scene("first", SMALL), Scene("empty", settings(n_particles=0, shape=(64, 96)))]
    paths = write_micrographs(tmp_path / "new", scenes, [1, 2])
    assert [path.name for path in paths] == ["first.mrc", "empty.mrc"]
    expected = simulate(SMALL, 1)
    with mrcfile.open(paths[0]) as mrc:
        assert int(mrc.header.mode) == 2
        assert float(mrc.voxel_size.x) == pytest.approx(4.0)
        np.testing.assert_array_equal(mrc.data, expected.image)
    table = pd.read_csv(tmp_path / "new" / "reference.csv")
    assert list(table.columns) == ["micrograph", "x", "y", "diameter"]
    assert set(table["micrograph"]) == {"first.mrc"}
    np.testing.assert_allclose(table[["x", "y"]], expected.xy, atol=1e-3)
    assert (table["diameter"] == 40.0).all()


def test_half_precision_files_have_mode_12(tmp_path: Path):
    (path,) = write_micrographs(tmp_path, [Scene("half", SMALL)], [1], dtype="float16")
    with mrcfile.open(path) as mrc:
        assert int(mrc.header.mode) == 12
        np.testing.assert_allclose(mrc.data, simulate(SMALL, 1).image, rtol=1e-3)


def test_unwritable_folder_is_an_output_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_micrographs(tmp_path / "file", [Scene("first", SMALL)], [1])


@pytest.mark.slow
def test_demo_and_benchmark_show_what_they_promise(script):
    demo = [scene.settings for scene in demo_scenes()]
    assert 5 <= len(demo) <= 6
    assert len({scene.particle for scene in demo}) >= 5
    assert any(scene.shape[0] != scene.shape[1] for scene in demo)
    assert any(scene.carbon for scene in demo)
    assert any(scene.frost or scene.crystals for scene in demo)
    scenes = script("scenes")
    benchmark = [scene.settings for scene in scenes.benchmark_scenes()]
    diameters = [scene.diameter_A for scene in benchmark]
    assert len({scene.particle for scene in benchmark}) >= 6
    assert min(diameters) <= 80
    assert max(diameters) >= 400
    assert len({scene.pixel_size_A for scene in benchmark}) >= 2
    assert sum(scene.n_particles == 0 for scene in benchmark) >= 3
    faint = [scene.settings for scene in scenes.faint_scenes()]
    assert all(scene.contrast < 0.8 and scene.n_particles > 40 for scene in faint)
    assert len({scene.particle for scene in faint}) == len(faint)
    names = [scene.name for scene in demo_scenes() + scenes.benchmark_scenes() + scenes.faint_scenes()]
    assert len(names) == len(set(names))
