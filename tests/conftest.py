"""What several tests share: real data where it is there, a tiny model, an image that shows every flip."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

# Tests run side by side, one for each core: each computes with one thread, and so do the programs that it starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where Python may keep no compiled code, these programs would compile PyTorch each time: here they keep it elsewhere.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    os.environ["PYTHONPYCACHEPREFIX"] = str(Path(__file__).resolve().parents[1] / ".pytest_cache" / "bytecode")

import numpy as np
import pytest
from numpy.typing import NDArray

REPOSITORY = Path(__file__).resolve().parents[1]
MARKER_XY = (60, 5)  # of the brightest pixel of `marker_image`


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests, so that no core waits for one of them at the end.

    Tests in a browser are slow by design.
    """
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than cores: some tests wait for other programs."""
    from cryoemmae_plugin.threads import usable_cores

    return usable_cores() + 1


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real micrographs with reference coordinates; optional, beside the repository."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not (folder / "README.md").is_file():
        pytest.skip("no real micrographs in ../shared/data beside the repository")
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Debian's chromium, driven by Playwright; one for all tests."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("NO BROWSER: pages are not tested; install chromium")
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        started = playwright.chromium.launch(executable_path=program, args=arguments)
        yield started
        started.close()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a module of benchmarks/, as its scripts import each other."""
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    return importlib.import_module


@pytest.fixture
def marker_image() -> NDArray[np.float32]:
    """Image of 40 rows and 80 columns, brightest at MARKER_XY, that no flip, transpose or rotation leaves alone."""
    image = np.zeros((40, 80), np.float32)
    x, y = MARKER_XY
    image[y, x] = 4.0
    image[y, x + 1 : x + 9] = 2.0
    image[y + 1 : y + 5, x] = 1.0
    return image


@pytest.fixture(scope="session")
def particles_of_40_px() -> NDArray[np.float32]:
    """A micrograph of 640 x 640 pixels with dark particles of 160 Å at 4 Å per pixel; its pixels average to 0."""
    from cryoemmae_plugin.simulate import SimulationSettings, simulate

    scene = SimulationSettings(shape=(640, 640), pixel_size_A=4.0, diameter_A=160, n_particles=60, contrast=1.2)
    image = simulate(scene, 5).image
    return ((image - image.mean()) / image.std()).clip(-6, 6).astype(np.float32)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model with one block and random weights, for both modes: right in form, blind in content."""
    import torch

    from cryoemmae_plugin.core.encoder import Encoder, EncoderConfig, initialise
    from cryoemmae_plugin.core.head import Head
    from cryoemmae_plugin.weights import ModelCard, save_model

    config = EncoderConfig(embed_dim=32, depth=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = Encoder(config)
        initialise(encoder)
        centroids = torch.randn(4, config.embed_dim)
        head = Head(config.embed_dim)
    card = ModelCard(
        name="tiny", modes=("default", "paper"), encoder=config, mean=0.5, std=0.1, particle_cluster=1, licence="MIT"
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(folder, card, encoder.state_dict(), {"centroids": centroids} | head.arrays())
    return folder
