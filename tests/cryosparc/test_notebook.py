"""The notebook of the documentation runs as it is written, in a kernel of its own, with the stub as the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

pytestmark = pytest.mark.slow
NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "cryosparc_notebook.ipynb"
HELPERS = Path(__file__).resolve().parent / "helpers"


def test_notebook_picks(world: Any, tmp_path: Path) -> None:
    world.few(3)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "notebooks are kept without outputs"
    stand_in = (
        f"import sys; sys.path[:0] = [{str(HELPERS)!r}]\n"
        "import functools, stub, cryosparc_job.api as api\n"
        "usual = {'engine_factory': stub.StubEngines(), 'edge_distance': 0, 'min_distance': 0}\n"
        "api.pick = functools.partial(api.pick, **usual)"
    )
    notebook.cells.insert(0, nbformat.v4.new_code_cell(stand_in))
    client = nbclient.NotebookClient(
        notebook, timeout=300, startup_timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env=world.environment())
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "P3 J3: completed, 9 particles of 3 micrographs" in said
    assert "figure of merit from 0.60 to 0.90" in said
    assert world.state.jobs["P3", "J3"].status == "completed"
