"""``cryoemmae doctor``: whether everything is there that picking needs."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from cryoemmae_plugin.cli import exits
from cryoemmae_plugin.errors import CryoemmaeError

LOW_DISK_GB, LOW_MEMORY_GB = 1.0, 3.0
"""Below these a run of large micrographs may not come through."""

TEST_SIDE_PX, TEST_DIAMETER_PX = 512, 48
TEST_CENTRES = ((120, 130), (300, 190), (200, 360), (400, 410))
"""(x, y) of the discs in the picture of the self-test."""


def doctor() -> int:
    """Check the installation: versions, devices, memory, disk, models, and a small pick."""
    console = Console(highlight=False)
    bad = 0
    for title, check in CHECKS.items():
        try:
            for line in check():
                console.print(f"{title:<8}  {line}", markup=False, soft_wrap=True)
        except CryoemmaeError as err:
            bad += 1
            console.print(f"{title:<8}  WRONG: {err}", markup=False, soft_wrap=True)
        except Exception as err:
            bad += 1
            console.print(f"{title:<8}  WRONG: {type(err).__name__}: {err}", markup=False, soft_wrap=True)
    console.print("Something is wrong: see above." if bad else "All is well.")
    return exits.NOTHING_DONE if bad else exits.ALL_DONE


def check_versions() -> Iterator[str]:
    """Versions of this package and of what picks depend on."""
    from cryoemmae_plugin.run.summary import versions

    yield ", ".join(f"{name} {number}" for name, number in versions().items())
    yield platform.platform()


def check_devices() -> Iterator[str]:
    """Processor and GPUs."""
    import torch

    from cryoemmae_plugin.run.summary import hardware_name

    yield f"cpu: {hardware_name('cpu')}, {torch.get_num_threads()} threads"
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        yield f"cuda:{index}: {torch.cuda.get_device_name(index)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    if not torch.cuda.is_available():
        built = "built without CUDA" if torch.version.cuda is None else f"built for CUDA {torch.version.cuda}"
        yield f"no GPU: PyTorch {torch.__version__} is {built}"


def check_memory() -> Iterator[str]:
    """Memory of the machine."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    yield f"{total:.1f} GB" + (f"; large micrographs need {LOW_MEMORY_GB:g}" if total < LOW_MEMORY_GB else "")


def check_disk() -> Iterator[str]:
    """Free space where results go by default."""
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    yield f"{free:.1f} GB free in {Path.cwd()}" + (" (little)" if free < LOW_DISK_GB else "")


def check_models() -> Iterator[str]:
    """Every installed model against its hashes."""
    from cryoemmae_plugin.errors import ModelError
    from cryoemmae_plugin.settings import DEFAULT_MODEL
    from cryoemmae_plugin.weights import list_models, load_model

    names = [model.name for model in list_models()]
    for name in names:
        yield f"{name}: sha256 {load_model(name).sha256[:12]}, verified"
    missing = sorted(set(DEFAULT_MODEL.values()) - set(names))
    if missing:
        raise ModelError(f"{', '.join(missing)} should be installed and is not; install the package again")


def check_picking() -> Iterator[str]:
    """Pick four dark discs in noise."""
    import numpy as np
    import torch

    from cryoemmae_plugin.core.picker import Picker
    from cryoemmae_plugin.errors import ModelError
    from cryoemmae_plugin.settings import make_settings
    from cryoemmae_plugin.weights import load_model

    rng = np.random.default_rng(0)
    image = rng.standard_normal((TEST_SIDE_PX, TEST_SIDE_PX)).astype(np.float32)
    row, column = np.mgrid[:TEST_SIDE_PX, :TEST_SIDE_PX]
    for x, y in TEST_CENTRES:
        image[(column - x) ** 2 + (row - y) ** 2 < (TEST_DIAMETER_PX / 2) ** 2] -= 1.5
    settings = make_settings(diameter_A=float(TEST_DIAMETER_PX), pixel_size_A=1.0)
    picks = Picker(load_model(settings.model_name), settings, torch.device("cpu")).pick(image, 1.0)
    best = picks.xy[: len(TEST_CENTRES)]
    found = sum(
        bool(len(best)) and float(np.hypot(*(best - centre).T).min()) < TEST_DIAMETER_PX / 4 for centre in TEST_CENTRES
    )
    if found < len(TEST_CENTRES):
        raise ModelError(f"{found} of {len(TEST_CENTRES)} discs found in the test picture; install the package again")
    yield f"{found} of {len(TEST_CENTRES)} discs found in the test picture"


CHECKS: dict[str, Callable[[], Iterator[str]]] = {
    "versions": check_versions,
    "devices": check_devices,
    "memory": check_memory,
    "disk": check_disk,
    "models": check_models,
    "picking": check_picking,
}
