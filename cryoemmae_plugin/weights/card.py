"""A model's card: what it is, where it comes from, and the hash of every file that belongs to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cryoemmae_plugin.core.encoder import DecoderConfig, EncoderConfig
from cryoemmae_plugin.errors import ModelError
from cryoemmae_plugin.files import read_toml
from cryoemmae_plugin.settings import Mode

CARD_FILE = "card.toml"
MAX_CARD_BYTES = 2**20
NAME_LIMIT = 64
NAME_PATTERN = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{NAME_LIMIT - 1}}}")

LIMITS = {"tile_px": 256, "patch_px": 64, "embed_dim": 2048, "depth": 64, "num_heads": 64, "mlp_ratio": 16}
"""Largest dimensions of encoder and decoder that are believed, so that a broken card cannot ask for all memory."""

MAX_GRID = 64
"""Most patches along one side of a tile."""


Part = TypeVar("Part", EncoderConfig, DecoderConfig)


class TrainingSummary(BaseModel):
    """What a training has come to.

    Attributes
    ----------
    skill : float or None
        1 − error on hidden patches / error of the mean of each tile, on the training micrographs: 0 is nothing learned.
    kept_back_skill : float or None
        The same on micrographs that were not trained on.
    hours : float or None
        Time in training steps.
    curve : tuple of (step, skill)
        A dozen points of the learning curve.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    skill: float | None = Field(default=None, le=1, allow_inf_nan=False)
    kept_back_skill: float | None = Field(default=None, le=1, allow_inf_nan=False)
    hours: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    curve: tuple[tuple[int, float], ...] = ()


class ModelCard(BaseModel):
    """What is known about a model besides its weights. Frozen; validated on construction.

    Attributes
    ----------
    name, version : str
        What to call it.
    modes : tuple of str
        The picking modes it is made for: "default", "paper".
    decoder : DecoderConfig
        Dimensions of the decoder, for training further.
    mean, std : float
        Of the training set's pixels, in the scale that the model's mode hands to the encoder.
    particle_cluster : int or None
        Which centroid is particles; None until it is known.
    data, recipe, hardware, licence, created : str
        Where it comes from, for people.
    training : TrainingSummary or None
        What its training has come to; None for published models and those of earlier releases.
    files : dict
        SHA-256 of each tensor file in the folder.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    version: str = "1"
    modes: tuple[Mode, ...] = Field(min_length=1)
    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig = DecoderConfig()
    mean: float = Field(allow_inf_nan=False)
    std: float = Field(gt=0, allow_inf_nan=False)
    particle_cluster: int | None = Field(default=None, ge=0)
    data: str = ""
    recipe: str = ""
    hardware: str = ""
    licence: str = ""
    created: str = ""
    training: TrainingSummary | None = None
    files: dict[
        Annotated[str, Field(pattern=r"^[a-z_]+\.safetensors$")], Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    ] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if not is_model_name(name):
            raise ValueError("must be letters, digits, '.', '_' or '-', at most 64, beginning with a letter or digit")
        return name

    @field_validator("encoder", "decoder")
    @classmethod
    def _check_dimensions(cls, part: Part) -> Part:
        for name, limit in LIMITS.items():
            if hasattr(part, name) and not 0 < getattr(part, name) <= limit:
                raise ValueError(f"{name} = {getattr(part, name)} is not within 1 to {limit}")
        if part.embed_dim % part.num_heads or part.embed_dim % 4:
            raise ValueError(f"embed_dim = {part.embed_dim} does not divide by 4 and {part.num_heads} heads")
        return part

    @field_validator("encoder")
    @classmethod
    def _check_tiles(cls, encoder: EncoderConfig) -> EncoderConfig:
        if encoder.tile_px % encoder.patch_px or encoder.grid > MAX_GRID:
            raise ValueError(f"tiles of {encoder.tile_px} px do not divide into patches of {encoder.patch_px} px")
        return encoder

    def to_toml(self) -> str:
        """Return the card as the text of a TOML file."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def _shown(value: object) -> str:
    try:
        return f"{value!r:.60}"
    except ValueError:  # a number of thousands of digits
        return "a huge number"


def is_model_name(text: str) -> bool:
    """Say whether `text` can name a model: a plain word, never a path."""
    return NAME_PATTERN.fullmatch(text) is not None


def read_card(folder: Path) -> ModelCard:
    """Read the card of a model folder.

    Raises
    ------
    ModelError
        There is no card, or it is not one.
    """
    path = folder / CARD_FILE
    try:
        return make_card(str(path), **read_toml(path, MAX_CARD_BYTES))
    except OSError as err:
        raise ModelError(f"{folder}: not a model folder ({CARD_FILE}: {err.strerror}); check the path") from err
    except (ValueError, RecursionError) as err:
        raise ModelError(f"{path}: not a TOML file ({err}); install the model again") from err


def make_card(source: str, /, **values: Any) -> ModelCard:
    """Build a card from its fields.

    Raises
    ------
    ModelError
        Naming `source` and every field that is missing or out of range.
    """
    try:
        return ModelCard(**values)
    except ValidationError as err:
        problems = "; ".join(
            f"{'.'.join(map(str, p['loc']))} is {_shown(p['input'])}: {p['msg']}" for p in err.errors()
        )
        raise ModelError(f"{source}: not a model card: {problems}; correct it, or install the model again") from err
