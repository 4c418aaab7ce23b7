"""The optimiser of heads against PyTorch's class."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from cryoemmae_plugin.training.optimizer import AdamW


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 3))


def loss_of(model: nn.Module, step: int) -> torch.Tensor:
    images = torch.randn(2, 1, 9, 9, generator=torch.Generator().manual_seed(step))
    return model(images).square().mean()


def test_its_steps_are_those_of_pytorchs_class_also_after_a_stop() -> None:
    ours, theirs = network(), network()
    optimizer, known = AdamW(ours.parameters(), 0.01), torch.optim.AdamW(theirs.parameters(), weight_decay=0.01)
    for step in range(6):
        rate = 1e-2 / (1 + step)
        if step == 3:
            state = optimizer.state_dict()
            optimizer = AdamW(ours.parameters(), 0.01)
            optimizer.load_state_dict(state)
        torch.autograd.backward(loss_of(ours, step))
        optimizer.step(rate)
        known.param_groups[0]["lr"] = rate
        torch.autograd.backward(loss_of(theirs, step))
        known.step()
        known.zero_grad()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
        assert mine.grad is None


@pytest.mark.parametrize("state", [{}, {"steps": [], "means": [], "squares": []}])
def test_a_state_of_something_else_is_refused(state: dict[str, list[torch.Tensor]]) -> None:
    with pytest.raises((LookupError, ValueError)):
        AdamW(network().parameters(), 0.01).load_state_dict(state)


@pytest.mark.slow
def test_pytorchs_compiler_is_not_imported() -> None:
    told = (
        "import sys, torch; from torch import nn; from cryoemmae_plugin.training.optimizer import AdamW\n"
        "model = nn.Linear(3, 1); optimizer = AdamW(model.parameters(), 0.1)\n"
        "torch.autograd.backward(model(torch.ones(3))); optimizer.step(0.1)\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", told], check=False).returncode == 0
