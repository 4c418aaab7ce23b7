"""A model as a folder: verify, load, save."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from cryoemmae_plugin.core.encoder import Encoder
from cryoemmae_plugin.errors import ModelError, OutputError
from cryoemmae_plugin.files import atomic_write_bytes
from cryoemmae_plugin.weights.card import CARD_FILE, ModelCard, read_card
from cryoemmae_plugin.weights.installed import folder_of
from cryoemmae_plugin.weights.model import CENTROIDS, Model
from cryoemmae_plugin.weights.tensors import check_tensors, read_tensors, sha256_of, write_tensors

ENCODER_FILE = "encoder.safetensors"
CLUSTERS_FILE = "clusters.safetensors"
DECODER_FILE = "decoder.safetensors"


def load_model(name_or_dir: str | Path) -> Model:
    """Load a model by name or from a folder; its files are verified first.

    Parameters
    ----------
    name_or_dir : str or Path
        Name of an installed model, or a model folder. An installed name wins over a folder of that name; write
        ``./NAME`` for the folder.

    Returns
    -------
    Model
        On the CPU, float32. ``model.encoder`` maps standardised tiles (N, 1, 64, 64) to patch tokens (N, 256, 192).

    Raises
    ------
    ModelError
        It is not there, incomplete, damaged, or not a model.
    """
    folder = folder_of(name_or_dir)
    card = verify_model(folder)
    encoder = _load_encoder(folder / ENCODER_FILE, card)
    clusters = read_tensors(folder / CLUSTERS_FILE) if CLUSTERS_FILE in card.files else {}
    _check_clusters(folder / CLUSTERS_FILE, clusters, card)
    return Model(card, encoder, clusters, _identity(card))


def verify_model(folder: Path) -> ModelCard:
    """Compare every file of a model with its hash in the card, and return the card.

    Raises
    ------
    ModelError
        A file is missing or is not what the card says.
    """
    card = read_card(folder)
    if ENCODER_FILE not in card.files:
        raise ModelError(f"{folder / CARD_FILE}: names no {ENCODER_FILE}; install the model again")
    for name, expected in card.files.items():
        found = sha256_of(folder / name)
        if found != expected:
            raise ModelError(
                f"{folder / name}: its sha256 is {found}, but {CARD_FILE} says {expected}; "
                "the file is damaged or of another model: install the model again"
            )
    for name in (CLUSTERS_FILE, DECODER_FILE):
        if name not in card.files and (folder / name).exists():
            raise ModelError(f"{folder / name}: not named in {CARD_FILE}; remove it or install the model again")
    return card


def load_decoder_state(folder: Path) -> dict[str, Tensor]:
    """Load the decoder's tensors (float32) of a model that may be trained further.

    Raises
    ------
    ModelError
        The model has no decoder, or is damaged.
    """
    card = verify_model(folder)
    if DECODER_FILE not in card.files:
        raise ModelError(f"{folder}: the model has no decoder, so it cannot be trained further; start from another")
    return read_tensors(folder / DECODER_FILE)


def save_model(
    folder: Path,
    card: ModelCard,
    encoder_state: Mapping[str, Tensor],
    clusters: Mapping[str, Tensor] | None = None,
    decoder_state: Mapping[str, Tensor] | None = None,
) -> ModelCard:
    """Write a model folder; a model that is there already is replaced.

    Parameters
    ----------
    folder : Path
        Created with its parents if need be.
    card : ModelCard
        Its `files` are filled in here.
    encoder_state : mapping
        State dict of an `Encoder`. Tensors are stored in the precision they come in.
    clusters : mapping or None
        "centroids", shape (k, embed_dim), and any further tensors.
    decoder_state : mapping or None
        State dict of the decoder, for training further.

    Returns
    -------
    ModelCard
        The card as written.

    Raises
    ------
    ModelError
        The tensors do not fit the card.
    OutputError
        The folder cannot be written.
    """
    _check_encoder_state(folder / ENCODER_FILE, encoder_state, card)
    _check_clusters(folder / CLUSTERS_FILE, clusters or {}, card)
    parts = {ENCODER_FILE: encoder_state, CLUSTERS_FILE: clusters, DECODER_FILE: decoder_state}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CARD_FILE).unlink(missing_ok=True)  # the card comes last: without it a folder is not a model
        for name, tensors in parts.items():
            if tensors:
                write_tensors(folder / name, tensors)
            else:
                (folder / name).unlink(missing_ok=True)
        hashes = {name: sha256_of(folder / name) for name, tensors in parts.items() if tensors}
        card = card.model_copy(update={"files": hashes})
        atomic_write_bytes(folder / CARD_FILE, card.to_toml().encode())
    except (OSError, SafetensorError) as err:
        raise OutputError(f"{folder}: the model cannot be written ({err}); check permissions and free space") from err
    return card


def remove_model(folder: Path) -> None:
    """Delete what :func:`save_model` writes into a folder, and the folder where nothing else is in it.

    Raises
    ------
    OutputError
        Something cannot be deleted.
    """
    try:
        for name in (CARD_FILE, ENCODER_FILE, CLUSTERS_FILE, DECODER_FILE):
            (folder / name).unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()
    except OSError as err:
        raise OutputError(f"{folder}: the model cannot be deleted ({err}); check permissions") from err


def _identity(card: ModelCard) -> str:
    """Hash what picks depend on: encoder, clusters, and the numbers that are applied with them."""
    numbers = (sorted(asdict(card.encoder).items()), card.mean, card.std, card.particle_cluster)
    files = [(name, card.files.get(name)) for name in (ENCODER_FILE, CLUSTERS_FILE)]
    return hashlib.sha256(repr((files, numbers)).encode()).hexdigest()


def _load_encoder(path: Path, card: ModelCard) -> Encoder:
    state = read_tensors(path)
    _check_encoder_state(path, state, card)
    encoder = Encoder(card.encoder)
    encoder.load_state_dict(state)
    return encoder.eval().requires_grad_(False)


def _check_encoder_state(path: Path, state: Mapping[str, Tensor], card: ModelCard) -> None:
    """Compare names and shapes with those of the card's encoder, before that is allocated."""
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in Encoder(card.encoder).state_dict().items()}
    check_tensors(path, state, expected)


def _check_clusters(path: Path, clusters: Mapping[str, Tensor], card: ModelCard) -> None:
    dim = card.encoder.embed_dim
    centroids = clusters.get(CENTROIDS)
    if centroids is None:
        if clusters or card.particle_cluster is not None:
            raise ModelError(f"{path}: holds no tensor {CENTROIDS!r}; make the model's clusters again")
        return
    if centroids.ndim != 2 or centroids.shape[0] < 2 or centroids.shape[1] != dim:
        raise ModelError(f"{path}: {CENTROIDS} has shape {tuple(centroids.shape)}, not (k, {dim}) with k of 2 or more")
    if not centroids.is_floating_point() or not bool(centroids.isfinite().all()):
        raise ModelError(f"{path}: {CENTROIDS} holds values that are not finite numbers; make the clusters again")
    if card.particle_cluster is not None and card.particle_cluster >= len(centroids):
        raise ModelError(
            f"{path}: particle_cluster = {card.particle_cluster}, but there are clusters 0 to {len(centroids) - 1} only"
        )
