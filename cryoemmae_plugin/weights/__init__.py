"""Models on disk: find them, verify them, load them, save them.

A model is a folder: a card (`card.toml`) and tensors (`encoder.safetensors`; `clusters.safetensors` if it has clusters;
`decoder.safetensors` if it may be trained further). Nothing in it can run code.
"""

from cryoemmae_plugin.weights.card import CARD_FILE, ModelCard, TrainingSummary, is_model_name, read_card
from cryoemmae_plugin.weights.folder import load_decoder_state, load_model, save_model, verify_model
from cryoemmae_plugin.weights.installed import (
    InstalledModel,
    find_model,
    list_models,
    shipped_models_dir,
    user_models_dir,
)
from cryoemmae_plugin.weights.model import Model

__all__ = [
    "CARD_FILE",
    "InstalledModel",
    "Model",
    "ModelCard",
    "TrainingSummary",
    "find_model",
    "is_model_name",
    "list_models",
    "load_decoder_state",
    "load_model",
    "read_card",
    "save_model",
    "shipped_models_dir",
    "user_models_dir",
    "verify_model",
]
