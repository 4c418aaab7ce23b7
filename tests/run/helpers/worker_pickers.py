"""Stand-ins for the network that workers import: the image's first two pixels say what happens."""

from __future__ import annotations

import errno
import os
import signal
import time
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.errors import DeviceError, OutputError
from cryoemmae_plugin.types import Picks

BAD_IMAGE, DEADLY, NO_GPU_MEMORY, DISK_FULL = 666, 777, 888, 999


class WorkerPicker:
    """As many candidates as the first pixel says, after the second one's seconds; some numbers are fatal."""

    def pick(self, image: NDArray[np.float32], pixel_size_A: float, timer: Any = None) -> Picks:
        n = int(image[0, 0])
        with timer.step("fake") if timer else nullcontext():
            time.sleep(float(image[0, 1]))
        if n == BAD_IMAGE:
            raise ZeroDivisionError("no such luck")
        if n == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        if n == NO_GPU_MEMORY:
            raise DeviceError("cuda:0: no GPU memory left")
        if n == DISK_FULL:
            raise OutputError(os.strerror(errno.ENOSPC))
        rng = np.random.default_rng(int(abs(image).sum()))
        xy = rng.random((n, 2)) * (image.shape[1], image.shape[0])
        score = np.sort(rng.random(n).astype(np.float32))[::-1].copy()
        return Picks(xy, score, rng.random(n).astype(np.float32), image.shape)  # type: ignore[arg-type]


def make_worker_picker(spec: Any) -> WorkerPicker:
    return WorkerPicker()
