"""A model to train further: its encoder and decoder, and its head where it has one."""

from __future__ import annotations

from dataclasses import dataclass

from cryoemmae_plugin.core.head import PREFIX, Head
from cryoemmae_plugin.errors import ModelError
from cryoemmae_plugin.training.mae import MaskedAutoencoder
from cryoemmae_plugin.weights import load_decoder_state, load_model
from cryoemmae_plugin.weights.installed import folder_of


@dataclass(frozen=True)
class Start:
    """What a training begins with.

    Attributes
    ----------
    head : Head or None
        None trains one from scratch.
    """

    whole: MaskedAutoencoder
    head: Head | None = None


def load_start(name: str) -> Start:
    """Load an installed model, or one in a folder, ready to be trained further.

    Raises
    ------
    ModelError
        There is no such model, it has no decoder, or its decoder does not fit its encoder.
    """
    folder = folder_of(name)
    decoder = load_decoder_state(folder)
    model = load_model(folder)
    whole = MaskedAutoencoder(model.card.encoder, model.card.decoder)
    try:
        whole.encoder.load_state_dict(model.encoder.state_dict())
        whole.decoder.load_state_dict(decoder)
        head = Head.from_arrays(model.arrays) if f"{PREFIX}version" in model.arrays else None
    except RuntimeError as err:
        raise ModelError(f"model {name}: its parts do not fit each other ({err}); choose another model") from err
    return Start(whole, head)
