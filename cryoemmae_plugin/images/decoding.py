"""Decode compressed TIFF files in a helper process, because a damaged one can crash the decoder.

A helper starts with the first such file, serves one file after the other, and ends with this process. A crash ends the
helper only: the file is refused, and the next file gets a new helper. Uncompressed files never come here.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from cryoemmae_plugin.errors import ImageError

TIME_LIMIT_S = 120.0
"""A decoder that takes longer hangs."""

_START = (
    "import os, sys; sys.path[:] = os.environ.pop({variable!r}).split(os.pathsep); from {module} import serve; serve()"
)
_PATH_VARIABLE = "CRYOEMMAE_HELPER_PATH"

_idle: queue.SimpleQueue[tuple[int, subprocess.Popen[bytes]]] = queue.SimpleQueue()
"""Helpers that wait, each with the id of the process that it belongs to: a forked process starts its own."""


def decode(path: Path) -> NDArray[np.generic]:
    """Decode the first page of a TIFF file in a helper process.

    Raises
    ------
    ImageError
        When the file is damaged, or the decoder crashes or hangs.
    """
    helper = _take_helper()
    if helper.stdin is None or helper.stdout is None:
        raise ImageError(f"{path}: no decoder could be started; free memory, and run the same command again")
    timer = threading.Timer(TIME_LIMIT_S, helper.kill)
    timer.start()
    healthy = False
    try:
        helper.stdin.write(json.dumps(os.fsdecode(path.absolute())).encode() + b"\n")
        helper.stdin.flush()
        answer = json.loads(helper.stdout.readline())
        pixels = None if "error" in answer else _receive(helper.stdout, answer["shape"], np.dtype(answer["dtype"]))
        healthy = True
    except (OSError, ValueError, EOFError) as err:
        helper.kill()
        raise ImageError(
            f"{path}: its compressed data are damaged (the decoder ended with status {helper.wait()}); copy it again"
        ) from err
    finally:
        timer.cancel()
        if healthy:
            _idle.put((os.getpid(), helper))
        else:
            helper.kill()
    if pixels is None:
        raise ImageError(f"{path}: cannot be decoded ({answer['error']}); copy it again, or convert it")
    return pixels


def _receive(stream: IO[bytes], shape: list[int], dtype: np.dtype[np.generic]) -> NDArray[np.generic]:
    raw = bytearray(math.prod(shape) * dtype.itemsize)
    view, filled = memoryview(raw), 0
    while filled < len(raw):
        count = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError
        filled += count
    return np.frombuffer(raw, dtype).reshape(shape)


def _take_helper() -> subprocess.Popen[bytes]:
    """Return an idle helper that lives, or start one."""
    while True:
        try:
            owner, helper = _idle.get_nowait()
        except queue.Empty:
            break
        if owner == os.getpid() and helper.poll() is None:
            return helper
    code = _START.format(variable=_PATH_VARIABLE, module=__name__)
    environment = os.environ | {_PATH_VARIABLE: os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,  # Ctrl-C is for the run, which then ends its helpers
    )


@atexit.register
def _end_helpers() -> None:
    while not _idle.empty():
        owner, helper = _idle.get()
        if owner == os.getpid():
            helper.kill()
            helper.wait()


def serve() -> None:
    """Decode the files that are named on stdin, until it ends; runs in the helper process."""
    from tifffile import TiffFile

    out = sys.stdout.buffer
    for line in sys.stdin.buffer:
        try:
            with TiffFile(json.loads(line)) as tiff:
                pixels = np.ascontiguousarray(tiff.pages.first.asarray())
        except Exception as err:
            answer: dict[str, object] = {"error": f"{err or type(err).__name__}"[:200].replace("\n", " ")}
            out.write(json.dumps(answer).encode() + b"\n")
        else:
            out.write(json.dumps({"shape": pixels.shape, "dtype": pixels.dtype.str}).encode() + b"\n")
            out.write(pixels.data)
        out.flush()
