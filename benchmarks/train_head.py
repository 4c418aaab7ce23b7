"""Train a head for a model's encoder on simulated micrographs, in steps that each go on where they stopped.

    python benchmarks/train_head.py scenes  --work DIR [--scenes N] [--processes P]
    python benchmarks/train_head.py head MODEL --work DIR [--scenes N] [--processes P] [--start emmae-base] ...

`scenes` simulates, flattens and keeps what does not depend on an encoder (DIR/scenes): it can run before there is one.
`head` simulates what is missing, encodes every scene with MODEL's encoder (DIR/examples), trains (DIR/head.pt), sets
the balance on scenes that were held out, and writes the model with its new head to DIR/model. The head begins with that
of `--start`; where its tokens have another size, the layer that reads them begins anew. Where they have the same size,
`--share` mixes the weights before and after.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from cryoemmae_plugin.core.head import PREFIX, Head
from cryoemmae_plugin.training.examples import make_examples, see_scene
from cryoemmae_plugin.training.head import HeadSettings, calibrate, mean_head, train_head
from cryoemmae_plugin.weights import Model, load_decoder_state, load_model, save_model
from cryoemmae_plugin.weights.installed import folder_of

REPORT_STEPS = 20
FIRST_SEED = 200_000
"""Of the scenes; the shipped head was trained on 90000 to 91759, adapting uses others from 99000 on."""


def main() -> int:
    """Run one step."""
    options = _options()
    os.nice(options.niceness)
    seeds = range(options.first_seed, options.first_seed + options.scenes + options.held_out)
    scenes = options.work / "scenes"
    if options.step == "scenes":
        _in_parallel(partial(_see, folder=scenes), _missing(seeds, scenes), options.processes, "scenes")
        return 0
    examples = options.work / "examples"
    examine = partial(_examine, model=options.model, folder=examples, scenes=scenes)
    _in_parallel(examine, _missing(seeds, examples), options.processes, "examples")
    torch.set_num_threads(options.threads)
    model = load_model(options.model)
    start = Head.from_arrays(load_model(options.start).arrays) if options.start else None
    head = _train(model, list(seeds), start, options)
    _save(model, head, folder_of(options.model), options)
    print(f"{options.work / 'model'}: the model with its new head")
    return 0


def _train(model: Model, seeds: list[int], start: Head | None, options: argparse.Namespace) -> Head:
    """Train on the scenes and balance on those held out."""
    examples = make_examples(model, seeds, options.work / "examples")
    settings = HeadSettings(steps=options.steps, rate=options.rate, batch=options.batch)
    begun = time.monotonic()

    def report(done: int, total: int, loss: float) -> None:
        if done % REPORT_STEPS == 0 or done == total:
            print(f"step {done}/{total}  loss {loss:.4f}  {time.monotonic() - begun:.0f} s", flush=True)

    head = train_head(
        examples[: options.scenes], settings, start=start, checkpoint=options.work / "head.pt", progress=report
    )
    if start is not None and start.embed_dim == head.embed_dim:
        head = mean_head(start, head, options.share)
    return calibrate(head, examples[options.scenes :])


def _save(model: Model, head: Head, folder: Path, options: argparse.Namespace) -> None:
    """Write the model with the new head in place of its own."""
    others = {name: tensor for name, tensor in model.clusters.items() if not name.startswith(PREFIX)}
    recipe = (
        f"{model.card.recipe} Head: {options.steps} steps from {options.rate:g} in batches of {options.batch} crops on "
        f"{options.scenes} simulated micrographs (seeds from {options.first_seed}), begun with that of "
        f"{options.start or 'nothing'}; score balanced on the following {options.held_out}."
    )
    encoder = {name: tensor.half() for name, tensor in model.encoder.state_dict().items()}
    card = model.card.model_copy(update={"recipe": recipe})
    has_decoder = (folder / "decoder.safetensors").exists()
    decoder = load_decoder_state(folder) if has_decoder else None
    save_model(options.work / "model", card, encoder, {**others, **head.arrays()}, decoder)


def _see(seed: int, folder: Path) -> None:
    torch.set_num_threads(1)
    see_scene(seed, folder=folder)


def _examine(seed: int, model: str, folder: Path, scenes: Path) -> None:
    torch.set_num_threads(1)
    make_examples(_loaded(model), [seed], folder, scenes=scenes)


_models: dict[str, Model] = {}


def _loaded(name: str) -> Model:
    """Load a model once a process."""
    if name not in _models:
        _models[name] = load_model(name)
    return _models[name]


def _missing(seeds: Iterable[int], folder: Path) -> list[int]:
    return [seed for seed in seeds if not (folder / f"{seed}.safetensors").exists()]


def _in_parallel(work: Callable[[int], None], seeds: list[int], processes: int, what: str) -> None:
    """Do what is missing in several processes."""
    if not seeds:
        return
    begun = time.monotonic()
    with get_context("spawn").Pool(processes) as pool:
        for done, _ in enumerate(pool.imap_unordered(work, seeds), start=1):
            if done % REPORT_STEPS == 0 or done == len(seeds):
                print(f"{what} {done}/{len(seeds)}  {time.monotonic() - begun:.0f} s", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    for name in ("scenes", "head"):
        step = steps.add_parser(name)
        step.add_argument("--work", type=Path, required=True)
        step.add_argument("--scenes", type=int, default=500)
        step.add_argument("--held-out", type=int, default=60)
        step.add_argument("--first-seed", type=int, default=FIRST_SEED)
        step.add_argument("--processes", type=int, default=1)
        step.add_argument("--niceness", type=int, default=15, help="on a busy machine, 15 gets next to nothing")
    step.add_argument("model", help="name or folder of the model whose encoder the head shall read")
    step.add_argument("--start", default="emmae-base", help="model whose head it begins with; '' for none")
    step.add_argument("--steps", type=int, default=1500)
    step.add_argument("--rate", type=float, default=2e-3)
    step.add_argument("--batch", type=int, default=4)
    step.add_argument("--share", type=float, default=0.7, help="of the trained weights, the rest being the start's")
    step.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
