"""Safetensors files: read, check, hash, replace."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from cryoemmae_plugin.errors import ModelError
from cryoemmae_plugin.files import atomic_write_bytes

HASH_CHUNK_BYTES = 2**20


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; floats of any precision become float32.

    Raises
    ------
    ModelError
        It is missing, damaged, or of another kind.
    """
    try:
        return {
            name: tensor.to(torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True)
            for name, tensor in load_file(path).items()
        }
    except (OSError, SafetensorError, ValueError, KeyError, MemoryError, RuntimeError) as err:
        raise ModelError(f"{path}: not a safetensors file ({err}); install the model again") from err


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, which takes the place of `path` only once it is complete."""
    # bytes, not save_file: that one makes files which nobody but their owner may read
    atomic_write_bytes(path, save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}))


def check_tensors(path: Path, state: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> None:
    """Check that there are just these tensors, of these shapes, floating and finite.

    Raises
    ------
    ModelError
        Naming the first few that are missing, unexpected, of another shape, or not finite.
    """
    problems = [f"{name} is missing" for name in expected if name not in state]
    problems += [f"{name} is unexpected" for name in state if name not in expected]
    for name, shape in expected.items():
        if name not in state:
            continue
        tensor = state[name]
        if tensor.shape != shape:
            problems.append(f"{name} has shape {tuple(tensor.shape)}, not {tuple(shape)}")
        elif not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            problems.append(f"{name} holds values that are not finite numbers")
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ModelError(
            f"{path}: does not fit the model: {', '.join(problems[:3])}{more}; use the file it was made with"
        )


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises
    ------
    ModelError
        It cannot be read.
    """
    digest = hashlib.sha256()
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for ever
            raise ModelError(f"{path}: not a file; install the model again")
        with path.open("rb") as file:
            while chunk := file.read(HASH_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as err:
        raise ModelError(f"{path}: cannot be read ({err.strerror}); install the model again") from err
    return digest.hexdigest()
