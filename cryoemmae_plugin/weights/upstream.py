"""Import the checkpoints that are published with the method ("upstream") as model folders.

Such a checkpoint is a torch file ``{'model': state_dict, 'optimizer': …, 'epoch': …, 'scaler': …}``. Its encoder and
decoder have the names and the mathematics of ours, so tensors are checked and copied; nothing is converted.
"""

from __future__ import annotations

import datetime
import math
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoemmae_plugin.core.encoder import Block, Encoder, EncoderConfig, sincos_positions
from cryoemmae_plugin.errors import ModelError, OutputError
from cryoemmae_plugin.weights.card import LIMITS, ModelCard, is_model_name, make_card
from cryoemmae_plugin.weights.folder import save_model
from cryoemmae_plugin.weights.installed import list_models, user_models_dir
from cryoemmae_plugin.weights.model import CENTROIDS
from cryoemmae_plugin.weights.tensors import check_tensors, sha256_of

PUBLISHED_ENCODER = EncoderConfig()
"""Dimensions of the published models."""

STATE_KEYS = ("model", "state_dict")
"""Where a checkpoint keeps its tensors, unless it is nothing but them."""

POSITION_NAMES = ("pos_embed", "decoder_pos_embed")
DROPPED_PREFIXES = ("cls_token_classifier.", *POSITION_NAMES)
DECODER_PREFIXES = ("decoder_embed.", "decoder_blocks.", "decoder_norm.", "decoder_pred.", "mask_token")

POSITION_TOLERANCE = 1e-5
CENTROID_KEYS = ("centroids", "cluster_centers_")
MAX_CENTROID_BYTES = 2**26

UNPICKLING_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    RuntimeError,
    UnpicklingError,
    zipfile.BadZipFile,
)
"""What torch, joblib and numpy raise for files that are damaged, or not theirs."""

FindCluster = Callable[[Encoder, float, float, NDArray[np.float32]], "int | None"]
"""Tells which centroid is particles, from an encoder, mean and std of its training set, and centroids (k, dim)."""


def import_upstream(
    checkpoint: Path,
    kmeans: Path | None,
    mean: float,
    std: float,
    particle_cluster: int | None,
    name: str,
    allow_pickle: bool = False,
    encoder: EncoderConfig = PUBLISHED_ENCODER,
    find_cluster: FindCluster | None = None,
) -> Path:
    """Import a published checkpoint as a model of the user's.

    Parameters
    ----------
    checkpoint : Path
        Torch file; it is loaded without running any code of it.
    kmeans : Path or None
        Centroids of the training set's clusters: an .npz file with `centroids` or `cluster_centers_`, or the published
        joblib pickle. Without it the model has no clusters.
    mean, std : float
        Of the training set's pixels, scaled to 0..1.
    particle_cluster : int or None
        Which centroid is particles; None asks `find_cluster`.
    name : str
        What the model will be called.
    allow_pickle : bool
        Whether `kmeans` may be a pickle, which can run any code when it is opened.
    find_cluster : callable, optional
        Finds the particles' centroid; without it, it stays unknown.

    Returns
    -------
    Path
        The new model folder.

    Raises
    ------
    ModelError
        The checkpoint or the centroids cannot be used, or the name is taken.
    OutputError
        The model cannot be written.
    """
    _check_statistics(mean, std)
    target = _free_folder(name)
    encoder_state, decoder_state = read_checkpoint(checkpoint, encoder)
    clusters = {} if kmeans is None else {CENTROIDS: read_centroids(kmeans, allow_pickle)}
    if particle_cluster is not None and kmeans is None:
        raise _nothing_to_choose_from(particle_cluster)
    if particle_cluster is None and clusters and find_cluster is not None:
        particle_cluster = _found_cluster(find_cluster, encoder_state, encoder, mean, std, clusters[CENTROIDS])
    card = make_card(
        f"model {name!r}",
        name=name,
        modes=("paper",),
        encoder=encoder,
        mean=mean,
        std=std,
        particle_cluster=particle_cluster,
        data=f"imported from {checkpoint.name}, sha256 {sha256_of(checkpoint)}",
        recipe="released code of Zamanos et al., Cell Reports Methods 2025",
        hardware="not known",
        licence="that of the checkpoint",
        created=datetime.date.today().isoformat(),
    )
    _install(target, card, encoder_state, clusters, decoder_state)
    return target


def read_checkpoint(path: Path, encoder: EncoderConfig) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read a published checkpoint.

    Returns
    -------
    encoder_state : dict of Tensor
        State dict of `Encoder`, float32.
    decoder_state : dict of Tensor
        State dict of the decoder, float32; empty if the checkpoint has none.

    Raises
    ------
    ModelError
        It needs pickle, is damaged, incomplete, or of other dimensions or positions than `encoder`.
    """
    state = _state_dict(path, _load(path))
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(DROPPED_PREFIXES)}
    decoder_state = {name: tensor for name, tensor in kept.items() if name.startswith(DECODER_PREFIXES)}
    encoder_state = {name: tensor for name, tensor in kept.items() if name not in decoder_state}
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in Encoder(encoder).state_dict().items()}
    check_tensors(path, encoder_state, expected)
    if decoder_state:
        _check_decoder(path, decoder_state, encoder)
    for name in POSITION_NAMES:
        if name in state:
            _check_positions(path, name, state[name], encoder.grid)
    return _as_float32(encoder_state), _as_float32(decoder_state)


def read_centroids(path: Path, allow_pickle: bool = False) -> Tensor:
    """Read the centroids of a k-means, shape (k, dim), float32.

    Raises
    ------
    ModelError
        The file is a pickle and those are not allowed, or it holds no centroids.
    """
    if path.suffix == ".npz":
        found = _centroids_of_npz(path)
    elif allow_pickle:
        found = _centroids_of_pickle(path)
    else:
        raise ModelError(
            f"{path}: not an .npz file, so it may be a pickle, which can run any code when it is opened",
            remedy=(
                "if you trust its source, give $allow_pickle=yes",
                "ask for its cluster_centers_ as saved by numpy.savez(FILE, centroids=...)",
            ),
        )
    centroids = np.asarray(found)
    if centroids.ndim != 2 or centroids.dtype.kind not in "fiu":
        raise ModelError(f"{path}: centroids are {centroids.dtype} of shape {centroids.shape}, not numbers (k, dim)")
    return torch.from_numpy(centroids.astype(np.float32))


def _check_statistics(mean: float, std: float) -> None:
    for name, value in (("mean", mean), ("std", std)):
        if not (math.isfinite(value) and 0 < value < 1):
            raise ModelError(
                setting=name,
                value=value,
                remedy="give the training set's, of pixels scaled to 0..1 (such as 0.53, 0.12)",
            )


def _free_folder(name: str) -> Path:
    if not is_model_name(name):
        raise ModelError(
            setting="name", value=name, remedy="use letters, digits, '.', '_' and '-', at most 64, no path"
        )
    folder = user_models_dir() / name
    taken = {model.name: model.folder for model in list_models()}
    if name in taken or folder.exists():
        raise ModelError(
            f"{taken.get(name, folder)} is there already",
            setting="name",
            value=name,
            remedy=("choose another name", "remove that model"),
        )
    return folder


def _nothing_to_choose_from(particle_cluster: int) -> ModelError:
    return ModelError(
        "there are no clusters to choose it from",
        setting="particle_cluster",
        value=particle_cluster,
        remedy="give the file of centroids too, with $kmeans",
    )


def _install(
    target: Path,
    card: ModelCard,
    encoder: Mapping[str, Tensor],
    clusters: Mapping[str, Tensor],
    decoder: Mapping[str, Tensor],
) -> None:
    """Write a model folder as a whole or not at all."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".importing-") as scratch:
            save_model(Path(scratch) / target.name, card, encoder, clusters, decoder)
            (Path(scratch) / target.name).rename(target)
    except OSError as err:
        raise OutputError(f"{target}: the model cannot be written ({err}); check permissions and free space") from err


def _load(path: Path) -> object:
    """Load a torch file without running any code of it, and without unpacking more than it holds."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                claimed = sum(member.file_size for member in archive.infolist())
            if claimed > path.stat().st_size:  # torch stores without compression
                raise ModelError(f"{path}: claims to unpack to {claimed} bytes; no checkpoint does, get it again")
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as err:
        raise ModelError(
            f"{path}: cannot be loaded without running code of it, or is not a torch file ({_first_line(err)}). "
            "Save nothing but its tensors where you trust it: torch.save({'model': checkpoint['model']}, FILE)"
        ) from err
    except UNPICKLING_ERRORS as err:
        raise ModelError(f"{path}: not a checkpoint ({_first_line(err)}); check the path, or get it again") from err


def _state_dict(path: Path, loaded: object) -> dict[str, Tensor]:
    """Return a checkpoint's tensors by name, without the prefix that data-parallel training adds."""
    if isinstance(loaded, Mapping):
        nested = [loaded[key] for key in STATE_KEYS if isinstance(loaded.get(key), Mapping)]
        state = dict(nested[0] if nested else loaded)
        if state and all(isinstance(name, str) and _is_plain(tensor) for name, tensor in state.items()):
            return {name.removeprefix("module."): tensor for name, tensor in state.items()}
    raise ModelError(
        f"{path}: holds no tensors by name, neither under {' or '.join(STATE_KEYS)} nor directly; check the path"
    )


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"


def _check_decoder(path: Path, state: Mapping[str, Tensor], encoder: EncoderConfig) -> None:
    """Check that a decoder is complete; its width and depth are its own."""
    dim = len(state["mask_token"].flatten()) if "mask_token" in state else 0
    depth = len({name.split(".")[1] for name in state if name.startswith("decoder_blocks.")})
    if not 0 < dim <= LIMITS["embed_dim"] or dim % 4 or depth > LIMITS["depth"]:
        raise ModelError(
            f"{path}: a decoder of {depth} blocks and {dim} dimensions (mask_token) is not one; get it again"
        )
    check_tensors(path, state, _decoder_shapes(encoder, dim, depth))


def _decoder_shapes(encoder: EncoderConfig, dim: int, depth: int) -> dict[str, torch.Size]:
    """Shapes of a decoder's tensors by name."""
    pixels = encoder.patch_px**2
    outside = {
        "decoder_embed.weight": (dim, encoder.embed_dim),
        "decoder_embed.bias": (dim,),
        "mask_token": (1, 1, dim),
        "decoder_norm.weight": (dim,),
        "decoder_norm.bias": (dim,),
        "decoder_pred.weight": (pixels, dim),
        "decoder_pred.bias": (pixels,),
    }
    with torch.device("meta"):
        block = Block(dim, num_heads=1, mlp_ratio=encoder.mlp_ratio).state_dict()
    blocks = {
        f"decoder_blocks.{index}.{name}": tensor.shape for index in range(depth) for name, tensor in block.items()
    }
    return {name: torch.Size(shape) for name, shape in outside.items()} | blocks


def _check_positions(path: Path, name: str, stored: Tensor, grid: int) -> None:
    """Compare stored positions with the fixed ones that are computed here."""
    dim = stored.shape[-1] if stored.ndim == 3 else 0
    shape = (1, 1 + grid * grid, dim)
    if stored.shape != shape or not 0 < dim <= LIMITS["embed_dim"] or dim % 4:
        raise ModelError(f"{path}: {name} has shape {tuple(stored.shape)}, not {shape}; it is of another kind of model")
    difference = float((stored[0].float() - sincos_positions(dim, grid)).abs().max())
    if not difference <= POSITION_TOLERANCE:
        raise ModelError(
            f"{path}: {name} differs by {difference:.3g} from the fixed sine-cosine positions; "
            "models that learned their positions cannot be imported"
        )


def _as_float32(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().float() for name, tensor in state.items()}


def _centroids_of_npz(path: Path) -> object:
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = max((member.file_size for member in archive.infolist()), default=0)
        if claimed > MAX_CENTROID_BYTES:
            raise ModelError(f"{path}: claims to unpack to {claimed} bytes; centroids are far smaller")
        with np.load(path, allow_pickle=False) as arrays:
            for key in CENTROID_KEYS:
                if key in arrays:
                    return arrays[key]
            found = ", ".join(arrays) or "nothing"
    except UNPICKLING_ERRORS as err:
        raise ModelError(f"{path}: not an .npz file ({_first_line(err)}); check the path") from err
    raise ModelError(f"{path}: holds {found}, but neither {' nor '.join(CENTROID_KEYS)}")


def _centroids_of_pickle(path: Path) -> object:
    try:
        kmeans = joblib.load(path)
    except UNPICKLING_ERRORS as err:
        raise ModelError(f"{path}: not a joblib pickle ({_first_line(err)}); check the path") from err
    if not hasattr(kmeans, "cluster_centers_"):
        raise ModelError(f"{path}: holds a {type(kmeans).__name__}, not a fitted k-means")
    return kmeans.cluster_centers_


def _first_line(err: BaseException) -> str:
    return str(err).strip().split("\n")[0] or type(err).__name__


def _found_cluster(
    find: FindCluster, state: Mapping[str, Tensor], config: EncoderConfig, mean: float, std: float, centroids: Tensor
) -> int | None:
    """Find the particle cluster; None where the centroids do not fit the encoder, which saving the model will tell."""
    if centroids.ndim != 2 or centroids.shape[1] != config.embed_dim:
        return None
    encoder = Encoder(config)
    encoder.load_state_dict(state)
    return find(encoder, mean, std, centroids.float().numpy())
