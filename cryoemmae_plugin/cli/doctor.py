"""``cryoemmae doctor``: whether everything is there that picking needs."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from cryoemmae_plugin.errors import CryoemmaeError
from cryoemmae_plugin.terminal import exits
from cryoemmae_plugin.terminal.console import Reporter

LOW_DISK_GB, LOW_MEMORY_GB = 1.0, 3.0
"""Below these a run of large micrographs may not come through."""


def doctor() -> int:
    """Check the installation: versions, devices, memory, disk, models, and a small pick."""
    reporter = Reporter()
    reporter.say("Checking the installation")  # before the imports, which take seconds
    bad = 0
    with reporter.alive():
        for title, check in CHECKS.items():
            try:
                for line in check():
                    reporter.say(f"{title:<8}  {line}")
            except CryoemmaeError as err:
                bad += 1
                reporter.say(f"{title:<8}  WRONG: {err}")
            except Exception as err:
                bad += 1
                reporter.say(f"{title:<8}  WRONG: {type(err).__name__}: {err}")
    reporter.say("Something is wrong: see above." if bad else "All is well.")
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
    """Pick a simulated micrograph, the demo's first."""
    import torch

    from cryoemmae_plugin.cli.run_demo import EXPECTED_F1, FIRST_SEED
    from cryoemmae_plugin.core.picker import CandidatePicker
    from cryoemmae_plugin.errors import ModelError
    from cryoemmae_plugin.evaluation.metrics import Reference, Scored, evaluate
    from cryoemmae_plugin.settings import PickerSettings
    from cryoemmae_plugin.simulate import demo_scenes, simulate
    from cryoemmae_plugin.weights import load_model

    scene = demo_scenes()[0]
    shown = simulate(scene.settings, FIRST_SEED)
    settings = PickerSettings(diameter_A=scene.settings.diameter_A)
    picker = CandidatePicker(load_model(settings.model_name), settings, torch.device("cpu"))
    picks = picker.pick(shown.image, scene.settings.pixel_size_A).above(settings.pick_threshold)
    known = {scene.name: Reference(shown.xy, shown.diameter_px)}
    found = evaluate(known, {scene.name: Scored(picks.xy, picks.score.astype(float))}).mean["half_d"]
    counted = f"{found.recall:.0%} of {len(shown.xy)} particles found"
    line = f"{counted} in a simulated micrograph, {found.precision:.0%} of the picks right"
    if found.f1 < EXPECTED_F1:
        raise ModelError(f"{line}: {EXPECTED_F1:.0%} of both are normal; install the package again")
    yield line


CHECKS: dict[str, Callable[[], Iterator[str]]] = {
    "versions": check_versions,
    "devices": check_devices,
    "memory": check_memory,
    "disk": check_disk,
    "models": check_models,
    "picking": check_picking,
}
