"""A CryoSPARC to talk to: the real client over a real socket of this machine, to a stand-in with real files."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HELPERS = Path(__file__).resolve().parent / "helpers"
sys.path.insert(0, str(HELPERS))

pytest.importorskip("cryosparc", reason="cryosparc-tools is not installed")
pytest.importorskip("starlette", reason="starlette is not installed")
pytest.importorskip("uvicorn", reason="uvicorn is not installed")


@pytest.fixture(autouse=True)
def clean_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No account, token or profile of whoever runs the tests, and no waiting between attempts."""
    for name in [name for name in os.environ if name.startswith("CRYOSPARC_")]:
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "HOME"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("CRYOSPARC_COMMAND_RETRY_SECONDS", "0")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr("cryosparc_job.lifecycle.CHECK_EVERY_S", 0.05)


@dataclass
class Exposures:
    """Rows of an exposures output in the making, and their files in the project's folder."""

    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        image: Any,
        path: str | None = None,
        *,
        write: bool = True,
        pixel_size_A: float = 1.5,
        **values: Any,
    ) -> int:
        """One exposure; its uid."""
        import stub

        uid = 10_000_000_000_000_000_000 + len(self.rows)  # as large as CryoSPARC's are
        path = path or f"J1/imported/{uid}_mic.mrc"
        if write:
            stub.write_mrc(self.folder / path.removeprefix(">"), image, pixel_size_A)
        row = {
            "uid": uid,
            "micrograph_blob/path": path,
            "micrograph_blob/shape": image.shape,
            "micrograph_blob/psize_A": pixel_size_A,
            "micrograph_blob/format": "MRC/2",
            "mscope_params/exp_group_id": 7,
            "mscope_params/accel_kv": 300.0,
            "ctf/exp_group_id": 7,
            "ctf/df1_A": 10000.0 + 500 * len(self.rows),
            "ctf/df2_A": 9000.0 + 500 * len(self.rows),
        }
        self.rows.append({**row, **values})
        return uid

    def dataset(self, slots: tuple[str, ...] = ("micrograph_blob", "mscope_params", "ctf")) -> Any:
        from cryosparc.dataset import Dataset
        from testserver.state import FIELDS

        described = [(f"{slot}/{name}", dtype) for slot in slots for name, dtype in FIELDS[slot]]
        dataset = Dataset.allocate(len(self.rows), described)
        for name in ["uid", *(entry[0] for entry in described)]:
            if self.rows and name in self.rows[0]:
                dataset[name] = np.array([row[name] for row in self.rows])
        return dataset


@dataclass
class World:
    """An instance that answers, with a project P3 that has a workspace W1."""

    state: Any
    listeners: list[Any]
    base_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.base_port}"

    @property
    def project(self) -> Path:
        return self.state.projects["P3"]

    def exposures(self) -> Exposures:
        return Exposures(self.project)

    def few(self, count: int = 3, uid: str = "J2") -> Exposures:
        """An output J2.exposures of so many stub micrographs."""
        import stub

        exposures = self.exposures()
        for number in range(count):
            exposures.add(stub.stub_image(number), f"J1/imported/mic_{number:04d}.mrc")
        self.state.add_output("P3", uid, "exposures", exposures.dataset())
        return exposures

    def saved(self, job: str, output: str = "particles") -> Any:
        """The data of an output as it lies in the project's folder."""
        from cryosparc.dataset import Dataset

        return Dataset.load(self.project / self.state.jobs["P3", job].outputs[output].file)

    def credentials(self, **changes: Any) -> Any:
        from testserver.state import EMAIL, LICENSE, PASSWORD

        from cryosparc_job.credentials import Credentials

        return Credentials(**{"url": self.url, "email": EMAIL, "password": PASSWORD, "license_id": LICENSE, **changes})

    def connect(self, patience_s: float = 5.0, **changes: Any) -> Any:
        from cryosparc_job.instance import connect
        from cryosparc_job.retry import Caller

        return connect(self.credentials(**changes), Caller(patience_s=patience_s))

    def environment(self, **more: str) -> dict[str, str]:
        """Of a process that logs in to this instance."""
        from testserver.state import EMAIL, LICENSE, PASSWORD

        mine = {
            "CRYOSPARC_BASE_URL": self.url,
            "CRYOSPARC_EMAIL": EMAIL,
            "CRYOSPARC_PASSWORD": PASSWORD,
            "CRYOSPARC_LICENSE_ID": LICENSE,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        }
        return {**os.environ, **mine, **more}

    def stop(self) -> None:
        for listener in self.listeners:
            listener.stop()

    def start(self) -> None:
        for listener in self.listeners:
            listener.start()


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    from testserver.server import Listener, free_port
    from testserver.state import State

    worlds: list[World] = []

    def make(version: str = "5.0.3", **options: Any) -> World:
        state = State(tmp_path / "projects", version)
        state.add_project()
        if version.startswith("5"):
            from testserver import api5

            base = free_port()
            listeners = [Listener(api5.make_app(state, **options), base)]
        else:
            from testserver import api4

            base = free_port((0, 2, 3, 5))
            listeners = [Listener(app, base + offset) for offset, app in api4.make_apps(state, **options).items()]
        world = World(state, listeners, base)
        world.start()
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.stop()


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()
