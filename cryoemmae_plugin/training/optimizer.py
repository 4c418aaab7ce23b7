"""PyTorch's AdamW without the class around it, which takes five seconds to begin with: it imports a compiler.

Adapting to a folder of micrographs is a matter of seconds, so this counts there. The arithmetic is PyTorch's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""As :class:`torch.optim.AdamW` has them."""


class AdamW:
    """Steps of AdamW, on all of a network's weights alike.

    Parameters
    ----------
    parameters : iterable of Parameter
    weight_decay : float
    """

    def __init__(self, parameters: Iterable[nn.Parameter], weight_decay: float) -> None:
        self._parameters = list(parameters)
        self._weight_decay = weight_decay
        self._steps = [torch.tensor(0.0) for _ in self._parameters]
        self._means = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in self._parameters]

    def step(self, rate: float) -> None:
        """Take a step of the learning rate `rate` along the gradients, and forget these."""
        used = [at for at, parameter in enumerate(self._parameters) if parameter.grad is not None]
        with torch.no_grad():
            adamw(
                [self._parameters[at] for at in used],
                [gradient for parameter in self._parameters if (gradient := parameter.grad) is not None],
                [self._means[at] for at in used],
                [self._squares[at] for at in used],
                [],
                [self._steps[at] for at in used],
                amsgrad=False,
                beta1=BETA1,
                beta2=BETA2,
                lr=rate,
                weight_decay=self._weight_decay,
                eps=EPSILON,
                maximize=False,
            )
        for parameter in self._parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, list[Tensor]]:
        """Return the state, for a checkpoint."""
        return {"steps": self._steps, "means": self._means, "squares": self._squares}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state.

        Raises
        ------
        LookupError, RuntimeError, ValueError
            When it is not that of such a network.
        """
        for mine, theirs in ((self._steps, "steps"), (self._means, "means"), (self._squares, "squares")):
            for here, there in zip(mine, state[theirs], strict=True):
                here.copy_(there)
