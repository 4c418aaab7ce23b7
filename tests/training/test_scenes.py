"""The scenes that the head is trained on hold every kind, and simulating them ahead changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cryoemmae_plugin.simulate import ROUND_SHAPES
from cryoemmae_plugin.training.examples import make_examples, see_scene
from cryoemmae_plugin.training.scenes import KINDS, training_scene
from cryoemmae_plugin.weights import load_model

SCENES = [training_scene(seed) for seed in range(90_000, 90_120)]


def test_the_scenes_hold_every_kind() -> None:
    assert len(KINDS) == 30
    empty = [scene for scene in SCENES if scene.n_particles == 0]
    assert 20 <= len(empty) <= 48
    assert any(scene.ice == "leopard" for scene in empty)
    assert any(scene.ice_thickness_A > 2000 for scene in empty)
    for junk in ("grains", "frost", "crystallites", "specks", "gold"):
        assert any(getattr(scene, junk) > 2 for scene in empty), junk
    assert sum(scene.eight_bit for scene in SCENES) >= 24
    assert len({scene.particle for scene in SCENES}) >= 12


def test_round_particles_have_every_contrast_and_some_scenes_show_few() -> None:
    contrasts = [s.contrast for s in SCENES if s.particle in ROUND_SHAPES and s.n_particles > 3]
    assert min(contrasts) < 0.4
    assert max(contrasts) > 2.5
    few = [scene for scene in SCENES if 1 <= scene.n_particles <= 3]
    assert len(few) >= 8
    assert min(scene.contrast for scene in few) >= 0.35


def test_a_scene_that_was_simulated_ahead_gives_the_same_example(tiny_model: Path, tmp_path: Path) -> None:
    model = load_model(tiny_model)
    seed = min(range(90_000, 90_030), key=lambda seed: np.prod(training_scene(seed).shape))
    see_scene(seed, folder=tmp_path)
    (ahead,) = make_examples(model, [seed], scenes=tmp_path)
    (fresh,) = make_examples(model, [seed])
    assert torch.equal(ahead.pixels, fresh.pixels)
    assert torch.equal(ahead.cells, fresh.cells)
    assert torch.equal(ahead.target, fresh.target)
    assert [path.name for path in tmp_path.iterdir()] == [f"{seed}.safetensors"]
