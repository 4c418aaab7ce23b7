"""The upstream code: the research code published with the method, loaded from a checkout and timed.

Nothing of it is part of this package: it is imported from the folder that the user names. It runs with the weights of
one of our paper-mode models, and without the mirroring of its preprocessing script, so that both do the same work.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import mrcfile
import numpy as np
import scipy.signal
import torch
from sklearn.cluster import KMeans

from cryoemmae_plugin.core.paper.preprocess import PAPER_GRID_PX, even_diameter
from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.errors import SettingsError
from cryoemmae_plugin.images import pixel_size_of, read_header, read_image
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.weights import Model

MODULES = ("utils.preprocess_utils", "utils.prediction_utils", "model.mae_model")
PACKAGES = ("utils", "model", "params", "datasets", "train_module")
"""Names of its top-level packages, which are common enough to hide others."""
CAP_VALUES = [round(value, 2) for value in np.linspace(1, 0, 30)]
"""Thresholds that its main script goes through."""
MRC_FLOAT32 = 2
"""The only mode of MRC that it reads; its bytes lie least first."""
HIERARCHY_FOLDER = "results/predicted_cluster_images"
STAR_FOLDER = "results/star_files"


class UpstreamCode:
    """The upstream code's steps, one micrograph at a time, with the calls of its two main scripts.

    Parameters
    ----------
    checkout : Path
        Folder of the upstream code.
    model : Model
        A paper-mode model of ours; its weights are used.
    scratch : Path
        Folder for what the code writes between its steps.

    Raises
    ------
    SettingsError
        If the folder holds no such code, or something that it needs is not installed.
    """

    name = "upstream"

    def __init__(self, checkout: Path, model: Model, diameter_A: float, device: torch.device, scratch: Path) -> None:
        self._preprocess, self._predict, network = load_upstream(checkout)
        self._diameter_A, self._scratch = diameter_A, scratch.absolute()
        self._network = _with_our_weights(network, model).to(device)
        centroids = model.centroids.float().cpu().numpy()
        self._kmeans = KMeans(len(centroids), init=centroids, n_init=1, max_iter=1).fit(centroids)
        self._cluster = model.particle_cluster
        config = model.encoder.config
        per_side = PAPER_GRID_PX // config.tile_px
        self._config = SimpleNamespace(
            ip=f"{self._scratch}/",
            pde="speed",
            mean=model.mean,
            std=model.std,
            device=str(device),
            img_size=config.tile_px,
            patches_num=config.grid,
            embed_dim=config.embed_dim,
            initial_img_patches_num=per_side**2,
            output_image_len=per_side * config.grid,
        )
        for folder in (HIERARCHY_FOLDER, STAR_FOLDER):
            (self._scratch / folder).mkdir(parents=True, exist_ok=True)

    def run(self, micrograph: Micrograph, timer: StepTimer) -> int:
        """Pick a micrograph, an MRC of 32-bit numbers; how many picks there are."""
        config, at = self._config, f"{self._scratch}/"
        pixel_size_A = pixel_size_of(micrograph.path, read_header(micrograph.path), micrograph.pixel_size_A)
        diameter_px = round(self._diameter_A / pixel_size_A)
        with _quietly_in(self._scratch):
            with timer.step("read"):
                pixels = self._preprocess.MRC(str(micrograph.path)).data[:, :, 0]
            with timer.step("preprocess"):
                scaled = np.moveaxis(self._preprocess.normalize_array(pixels) * 255, 0, 1)
                self._preprocess.relion_and_contrast_preprocess(
                    scaled, even_diameter(diameter_px), at, "micrograph", PAPER_GRID_PX
                )
            config.mshape, config.recover_resize_coeff = scaled.shape, [n / PAPER_GRID_PX for n in scaled.shape]
            fine_diameter_px = max(diameter_px / stretch for stretch in config.recover_resize_coeff) / 2
            with timer.step("encode"):
                embedding = self._predict.compute_image_latent_embeddings(
                    ["micrograph.png"], config, self._network, predict=True
                )[0]
                np.save(f"{at}micrograph.npy", embedding)
            with timer.step("cluster"):
                maps = self._predict.predict_particles_maps(
                    ["micrograph.png"], at, self._kmeans, self._cluster, config, fine_diameter_px
                )
            with timer.step("locate"):
                self._predict.pick_particles(
                    config, maps, ["micrograph.png"], "", "speed", PAPER_GRID_PX, CAP_VALUES, fine_diameter_px, at
                )
        return len(np.load(f"{at}micrograph.npy"))


def load_upstream(checkout: Path) -> tuple[Any, Any, Any]:
    """Import the upstream code's modules of preprocessing, prediction and network; nothing else sees them.

    Raises
    ------
    SettingsError
        If the folder holds no such code, or something that it needs is not installed.
    """
    missing = [name for name in MODULES if not (checkout / f"{name.replace('.', '/')}.py").is_file()]
    if missing:
        raise SettingsError(
            f"not a checkout of the Cryo-EMMAE code (it has no {missing[0].replace('.', '/')}.py)",
            setting="upstream",
            value=str(checkout),
            remedy="clone github.com/azamanos/Cryo-EMMAE and give its folder",
        )
    try:
        with _importable(checkout):
            preprocess, predict, network = (importlib.import_module(name) for name in MODULES)
    except ImportError as err:
        raise SettingsError(
            f"its code needs {err.name or 'a package'} ({err})",
            setting="upstream",
            value=str(checkout),
            remedy="install what its README names into this environment, for instance: pip install timm==1.0.3 joblib",
        ) from err
    return preprocess, predict, network


@contextlib.contextmanager
def _importable(checkout: Path) -> Iterator[None]:
    """Let modules of the checkout be imported under their own names, and leave no trace of it."""
    hidden = {name: module for name, module in sys.modules.items() if name.split(".")[0] in PACKAGES}
    bytecode, had_gaussian = sys.dont_write_bytecode, hasattr(scipy.signal, "gaussian")
    for name in hidden:
        del sys.modules[name]
    sys.path.insert(0, str(checkout.absolute()))
    sys.dont_write_bytecode = True
    if not had_gaussian:  # it asks for it where SciPy had it until 1.13
        scipy.signal.gaussian = scipy.signal.windows.gaussian
    try:
        yield
    finally:
        sys.path.remove(str(checkout.absolute()))
        sys.dont_write_bytecode = bytecode
        if not had_gaussian:
            del scipy.signal.gaussian
        for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
            del sys.modules[name]
        sys.modules.update(hidden)


@contextlib.contextmanager
def _quietly_in(folder: Path) -> Iterator[None]:
    """Work in a folder, since its paths are relative, and keep its progress lines from the screen."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        os.chdir(before)


def _with_our_weights(network: ModuleType | Any, model: Model) -> torch.nn.Module:
    config = model.encoder.config
    theirs: torch.nn.Module = network.MaskedAutoencoderViT(
        img_size=config.tile_px,
        patch_size=config.patch_px,
        in_chans=1,
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
        decoder_embed_dim=128,
        decoder_depth=1,  # not run
        decoder_num_heads=8,
        mlp_ratio=config.mlp_ratio,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        pos_encode_weight=config.position_weight,
    )
    refused = theirs.load_state_dict(model.encoder.state_dict(), strict=False).unexpected_keys
    if refused:
        raise SettingsError(f"the upstream network does not know {', '.join(refused)}: is this another release of it?")
    return theirs.eval()


def as_float_mrc(micrograph: Micrograph, folder: Path) -> Micrograph:
    """Return a micrograph as the upstream code can read it, an MRC of 32-bit numbers; in `folder` if it is another."""
    if micrograph.path.suffix == ".mrc":
        with micrograph.path.open("rb") as head:
            mode = int.from_bytes(head.read(16)[12:], "little")
        if mode == MRC_FLOAT32:
            return micrograph
    pixel_size_A = pixel_size_of(micrograph.path, read_header(micrograph.path), micrograph.pixel_size_A)
    path = folder / f"{micrograph.path.stem}.mrc"
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(read_image(micrograph.path))
        file.voxel_size = pixel_size_A
    return Micrograph(path, pixel_size_A, micrograph.uid)
