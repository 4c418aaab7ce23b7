"""Many exposures: memory does not grow with them."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest
import stub
from ask import request

from cryosparc_job.create import begin

pytestmark = pytest.mark.slow
COUNT = 400
SIDE = 256  # an image of 256 KiB: were they kept, they would be 100 MiB


class Measuring(stub.StubPicker):
    """Notes how much memory is in use, now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: list[int] = []

    def pick(self, *details: Any, **more: Any) -> Any:
        if self.picked % 50 == 20:
            gc.collect()
            self.bytes.append(tracemalloc.get_traced_memory()[0])
        return super().pick(*details, **more)


def test_memory_is_flat_over_hundreds_of_exposures(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryosparc_job.particles.FIRST_SAVE_S", 3600.0)  # the server, here, keeps what is saved
    exposures = world.exposures()
    image = stub.stub_image(1, (SIDE, SIDE))
    first = stub.write_mrc(world.project / "J1" / "imported" / "first.mrc", image)
    for number in range(COUNT):
        path = f"J1/imported/{number:05d}.mrc"
        (world.project / path).symlink_to(first)
        exposures.add(np.empty((SIDE, SIDE)), path, write=False)
    world.state.add_output("P3", "J2", "exposures", exposures.dataset())
    picker = Measuring()

    class Engines(stub.StubEngines):
        def __call__(self, *arguments: Any) -> Any:
            engine = super().__call__(*arguments)
            return type(engine)(picker, engine.model_name, engine.model_sha256, engine.device)

    tracemalloc.start()
    try:
        report = begin(world.connect(), request(), Engines()).run()
    finally:
        tracemalloc.stop()
    assert (report.status, report.micrographs, report.picks) == ("completed", COUNT, 3 * COUNT)
    assert len(world.saved(report.job)) == 3 * COUNT
    growth = min(picker.bytes[-3:]) - picker.bytes[0]  # what is under way at one instant is not kept
    assert growth < 10 * image.nbytes, f"{growth / COUNT:.0f} bytes for each of {COUNT} exposures"
    calls = [
        call for call in world.state.calls if call != "jobs.find_one"
    ]  # looks at the status, every so many seconds
    assert len(calls) < 100, "the instance is not told about every micrograph"
