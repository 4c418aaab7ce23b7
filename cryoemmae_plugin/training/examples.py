"""Simulated micrographs as the head sees them, with the answers that are known by construction.

No annotation of a real micrograph enters: many shapes, sizes and qualities are drawn, filtered and faint ones, empty
and contaminated ones among them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cryoemmae_plugin.core.default import GRID_DIAMETER_PX, extract_features
from cryoemmae_plugin.core.flattening import FlattenedMicrograph, flatten_background
from cryoemmae_plugin.core.geometry import MicrographFrame
from cryoemmae_plugin.core.head import CELL_PX
from cryoemmae_plugin.core.model import PickingModel
from cryoemmae_plugin.core.timing import StepTimer
from cryoemmae_plugin.errors import Interrupted
from cryoemmae_plugin.simulate import simulate
from cryoemmae_plugin.training.scenes import SIDES, training_scene
from cryoemmae_plugin.weights.tensors import write_tensors

FIRST_SEED = 90_000
WINDOW_PLAY = 3.0
"""Scenes of which a window is looked at are larger than that by up to so many diameters."""
SIZE_SPREAD = (-0.06, 0.1)
"""Mean and deviation of the logarithm of true over assumed diameter: users round up."""
SIZE_LIMITS = (-0.3, 0.15)
HEAT_SIGMA = 0.9
"""Width of the target around a particle's centre, in cells."""
HEAT_REACH = 5
"""Cells around a centre that the target is drawn on."""
NEAR = 2.5
"""Cells closer to a centre than this, in cells, learn the way to it."""


@dataclass(frozen=True)
class Example:
    """One simulated micrograph.

    Attributes
    ----------
    pixels : Tensor, shape (PIXEL_LAYERS, CELL_PX * rows, CELL_PX * columns), float16
    cells : Tensor, shape (CELL_LAYERS, rows / n, columns / n), float16
        What the head reads, see :func:`cryoemmae_plugin.core.head.head_inputs`.
    target : Tensor, shape (5, rows, columns), float16
        1 at a particle's centre, falling off as a Gaussian; x and y from the cell to the nearest centre, in cells; 1
        near one; 1 where the head is judged.
    xy : Tensor, shape (N, 2)
        The particles' centres where the head is judged, in grid pixels.
    """

    pixels: Tensor
    cells: Tensor
    target: Tensor
    xy: Tensor


@dataclass(frozen=True)
class SeenScene:
    """A simulated micrograph, flattened, and its answers: what of an example does not depend on an encoder.

    Attributes
    ----------
    pixels : Tensor, shape (rows, columns), float16
    valid : Tensor, shape (rows, columns), bool
        See :class:`cryoemmae_plugin.core.flattening.FlattenedMicrograph`.
    xy : Tensor, shape (N, 2), float64
        Centres of all particles in its pixels.
    """

    pixels: Tensor
    valid: Tensor
    xy: Tensor

    @property
    def flattened(self) -> FlattenedMicrograph:
        """The micrograph, of which the grid is the frame."""
        shape = (self.pixels.shape[0], self.pixels.shape[1])
        return FlattenedMicrograph(self.pixels.float(), self.valid, MicrographFrame(shape, shape), GRID_DIAMETER_PX)


Kept = TypeVar("Kept", Example, SeenScene)


def make_examples(
    model: PickingModel,
    seeds: Sequence[int],
    folder: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
    side_px: int | None = None,
    scenes: Path | None = None,
) -> list[Example]:
    """Simulate and examine the scenes of some seeds.

    Parameters
    ----------
    model : PickingModel
        Its encoder and clusters are used.
    folder : Path, optional
        Keeps finished examples, so that a second call goes on where the first was stopped.
    progress : callable
        Told how many of how many are done.
    side_px : int, optional
        Examine only a window of so many grid pixels a side, of scenes hardly larger.
    scenes : Path, optional
        Keeps what does not depend on the model, for other models.

    Raises
    ------
    Interrupted
        When `should_stop` says True.
    """
    files = {seed: folder / f"{seed}.safetensors" if folder else None for seed in seeds}
    examples = {seed: _read(kept, Example) for seed, kept in files.items()}
    missing = [seed for seed in seeds if examples[seed] is None]
    seen_ahead = _see_ahead(missing, side_px, scenes)
    if len(missing) < len(seeds):
        progress(len(seeds) - len(missing), len(seeds))
    for done, seed in enumerate(missing, start=len(seeds) - len(missing) + 1):
        if should_stop():
            seen_ahead.close()
            raise Interrupted("stopped while simulated micrographs were examined; run the same command again to go on")
        seen = next(seen_ahead)
        examples[seed] = keep_example(files[seed], partial(example_of, model, seen.flattened, seen.xy.numpy()))
        progress(done, len(seeds))
    return [example for example in examples.values() if example is not None]


def _see_ahead(seeds: Sequence[int], side_px: int | None, folder: Path | None) -> Generator[SeenScene, None, None]:
    """Simulate scenes one after the other, the next ones already in other threads."""
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[SeenScene]] = deque()
        for seed in seeds:
            ahead.append(pool.submit(see_scene, seed, side_px, folder))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def keep_example(path: Path | None, make: Callable[[], Example]) -> Example:
    """Take the example that an earlier call has kept in `path`, or make it and keep it there; None keeps nothing."""
    example = _read(path, Example)
    if example is None:
        example = make()
        if path:
            write_tensors(path, vars(example))
    return example


def see_scene(seed: int, side_px: int | None = None, folder: Path | None = None) -> SeenScene:
    """Simulate the scene of a seed and condition it as the default mode does, or take what `folder` keeps of it.

    The diameter that it is flattened for is not quite right. Of a scene larger than `side_px` grid pixels a side,
    only a window of that size is taken.
    """
    kept = folder / f"{seed}.safetensors" if folder else None
    if (before := _read(kept, SeenScene)) is not None:
        return before
    sides = (side_px / GRID_DIAMETER_PX, side_px / GRID_DIAMETER_PX + WINDOW_PLAY) if side_px else SIDES
    micrograph = simulate(training_scene(seed, sides), seed)
    rng = np.random.default_rng([seed, 1])
    wrong = float(np.exp(np.clip(rng.normal(*SIZE_SPREAD), *SIZE_LIMITS)))
    seen = flatten_background(torch.from_numpy(micrograph.image), micrograph.diameter_px / wrong, GRID_DIAMETER_PX)
    if side_px is None:
        xy = seen.frame.to_grid(micrograph.xy) if len(micrograph.xy) else micrograph.xy
    else:
        seen, xy = cut_window(seen, micrograph.xy, side_px, rng)
    scene = SeenScene(seen.pixels.half(), seen.valid, torch.from_numpy(xy))
    if kept:
        write_tensors(kept, vars(scene))
    return scene


def _read(path: Path | None, kind: type[Kept]) -> Kept | None:
    """Read what an earlier call has kept; None where there is nothing, or the file is damaged."""
    try:
        return kind(**load_file(path)) if path and path.is_file() else None
    except (OSError, SafetensorError, TypeError):
        return None


def cut_window(
    seen: FlattenedMicrograph, centres: NDArray[np.float64], side_px: int, rng: np.random.Generator
) -> tuple[FlattenedMicrograph, NDArray[np.float64]]:
    """Cut a window out of a flattened micrograph, at random: itself, and all centres (N, 2), in its own pixels."""
    corner = np.array([rng.integers(max(0, n - side_px) + 1) for n in seen.pixels.shape])
    rows, columns = (slice(at, at + side_px) for at in corner)
    pixels, valid = (layer[rows, columns].contiguous() for layer in (seen.pixels, seen.valid))
    shape = (pixels.shape[0], pixels.shape[1])
    centres = seen.frame.to_grid(centres) - corner[::-1] if len(centres) else centres
    return FlattenedMicrograph(pixels, valid, MicrographFrame(shape, shape), seen.diameter_px), centres


def example_of(model: PickingModel, seen: FlattenedMicrograph, centres: NDArray[np.float64]) -> Example:
    """Look at a flattened micrograph, and set beside it the centres (N, 2) of all particles, in micrograph pixels."""
    with torch.inference_mode():
        features = extract_features(seen, model, StepTimer())
    inside_cells = features.inside_cells
    rows, columns = inside_cells.shape
    xy = seen.frame.to_grid(centres) if len(centres) else np.zeros((0, 2))
    at = np.clip(np.rint(xy).astype(int), 0, np.array(features.inside.shape[::-1]) - 1)
    target = torch.cat([draw_target(xy, rows, columns), inside_cells[None].float()])
    known = torch.from_numpy(xy[features.inside.numpy()[at[:, 1], at[:, 0]]]).float()
    return Example(features.pixels[0].half(), features.cells[0].half(), target.half(), known)


def draw_target(xy: NDArray[np.float64], rows: int, columns: int) -> Tensor:
    """Draw what the head should say of each cell: the first four layers of :class:`Example`'s target."""
    heat = torch.zeros(rows, columns)
    offset = torch.zeros(2, rows, columns)
    nearest = torch.full((rows, columns), torch.inf)
    for x, y in ((torch.from_numpy(xy) + 0.5) / CELL_PX - 0.5).tolist():
        across = slice(max(0, int(x) - HEAT_REACH), max(0, int(x) + HEAT_REACH + 2))
        down = slice(max(0, int(y) - HEAT_REACH), max(0, int(y) + HEAT_REACH + 2))
        dx = x - torch.arange(columns)[across]
        dy = y - torch.arange(rows)[down, None]
        distance = dx.square() + dy.square()
        heat[down, across] = torch.maximum(heat[down, across], torch.exp(-distance / 2 / HEAT_SIGMA**2))
        closer = distance < nearest[down, across]
        offset[0, down, across] = torch.where(closer, dx.expand_as(distance), offset[0, down, across])
        offset[1, down, across] = torch.where(closer, dy.expand_as(distance), offset[1, down, across])
        nearest[down, across] = torch.minimum(nearest[down, across], distance)
    near = (nearest < NEAR**2).float()
    return torch.stack([heat, *offset, near])
