"""Where the network runs."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

import torch

from cryoemmae_plugin.errors import DeviceError
from cryoemmae_plugin.threads import usable_cores

logger = logging.getLogger(__name__)

GIB = 2**30


def choose_device(name: str = "auto") -> torch.device:
    """Return the device of that name; one that is asked for and absent is an error, never silently the CPU.

    Parameters
    ----------
    name : str
        "auto" (the first GPU, or the CPU without one), "cpu", "cuda" (the first GPU) or "cuda:N".

    Raises
    ------
    DeviceError
        The name is none of these, or there is no such GPU.
    """
    if name == "cpu":
        return torch.device("cpu")
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    asked = re.fullmatch(r"cuda(?::(\d{1,4}))?", name)
    if asked is None:
        raise DeviceError(setting="device", value=name, remedy="give auto, cpu or cuda:N")
    index = int(asked[1] or 0)
    if not torch.cuda.is_available():
        why, remedy = _why_no_cuda()
        raise DeviceError(why, setting="device", value=name, remedy=(remedy, "use the CPU with $device=cpu"))
    count = torch.cuda.device_count()
    if index >= count:
        raise DeviceError(
            f"this machine has the GPUs 0 to {count - 1}" if count > 1 else "this machine has GPU 0 only",
            setting="device",
            value=name,
            remedy=("choose one of them", "use the CPU with $device=cpu"),
        )
    return torch.device("cuda", index)


def _why_no_cuda() -> tuple[str, str]:
    """Why PyTorch cannot use a GPU, and what to do about it."""
    if torch.version.cuda is None:
        return f"this PyTorch ({torch.__version__}) is built without CUDA", "install one with it (pytorch.org)"
    return f"PyTorch (CUDA {torch.version.cuda}) sees no GPU", "check nvidia-smi and CUDA_VISIBLE_DEVICES"


def split_devices(name: str) -> list[str]:
    """Names of the single devices that `name` stands for: "cuda:0,2" is two of them, "cuda" is every GPU there is."""
    several = re.fullmatch(r"cuda:(\d{1,4}(?:,\d{1,4})+)", name)
    if several:
        return [f"cuda:{index}" for index in dict.fromkeys(map(int, several[1].split(",")))]
    if name == "cuda" and torch.cuda.device_count() > 1:
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [name]


def multiplies_bfloat16(device: torch.device) -> bool:
    """Tell whether the device multiplies matrices in bfloat16 itself; emulated, it takes many times as long.

    Older releases of PyTorch cannot tell of a CPU; then the answer is no.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def use_threads(count: int) -> None:
    """Set the number of CPU threads of this process; 0 takes PyTorch's own number, but no more than usable cores."""
    if count or usable_cores() < torch.get_num_threads():
        torch.set_num_threads(count or usable_cores())


def limit_gpu_memory(device: torch.device, limit_GiB: float | None) -> int | None:  # noqa: N803
    """Keep this process to so much of a GPU's memory (beside the few hundred MiB of CUDA itself).

    Returns
    -------
    int or None
        Bytes that this process may use: those that are free, and not more than the limit; None on a CPU.
    """
    if device.type != "cuda":
        if limit_GiB is not None:
            logger.info("The limit of GPU memory has no effect: picking on the CPU")
        return None
    free, total = torch.cuda.mem_get_info(device)
    if limit_GiB is None:
        return int(free)
    allowed = min(int(limit_GiB * GIB), total)
    torch.cuda.set_per_process_memory_fraction(allowed / total, device)
    return min(int(free), allowed)


def no_memory_left(device: torch.device) -> DeviceError:
    """The error that says that the memory of a GPU is used up."""
    return DeviceError(
        f"{device}: no GPU memory left, not even for a single tile. Finished micrographs are kept. See with nvidia-smi "
        "who uses the memory",
        remedy=("wait and run the same command again", "raise $gpu_memory", "choose another $device"),
    )
