"""Train a model's head further, on simulated micrographs that it has not seen; the encoder stays as it is.

    python benchmarks/train_head.py --work DIR [--model emmae-base] [--first-seed 110000]

Scenes are examined by two processes at a time, and then two heads go on from the model's own, each in a process of its
own and with crops of its own. Their weights are averaged, then with those of the model's head, and the mean's figure of
merit is balanced on further scenes.
Everything is kept in DIR: run the same command again to go on where it was stopped. DIR/model receives the model; say
in its card what was done before you ship it.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from cryoemmae_plugin.core.head import PREFIX, Head
from cryoemmae_plugin.core.picker import load_head
from cryoemmae_plugin.training.examples import make_examples
from cryoemmae_plugin.training.head import HeadSettings, calibrate, mean_head, renew_norms, train_head
from cryoemmae_plugin.weights import load_decoder_state, load_model, save_model
from cryoemmae_plugin.weights.installed import folder_of

FIRST_ROUND, SECOND_ROUND = HeadSettings(steps=1000, rate=2e-3), HeadSettings(steps=1700, rate=2e-3)


def examine(model: str, folder: Path, seeds: range) -> None:
    """Simulate and examine scenes, one thread."""
    torch.set_num_threads(1)
    loaded = load_model(model)
    for seed in seeds:  # one at a time: what is returned is not kept
        make_examples(loaded, [seed], folder)


def train(model: str, folder: Path, seeds: range, settings: HeadSettings, start: Path | None, kept: Path) -> None:
    """Train a head further, one thread, and keep it."""
    if kept.exists():
        return
    torch.set_num_threads(1)
    loaded = load_model(model)
    begun = Head.from_arrays(load_file(start)) if start else load_head(loaded)
    head = train_head(
        make_examples(loaded, seeds, folder),
        settings,
        start=begun,
        checkpoint=kept.with_suffix(".pt"),
        progress=lambda done, total, loss: (
            print(f"{kept.stem}: step {done}/{total}  loss {loss:.4f}", flush=True) if done % 100 == 0 else None
        ),
    )
    partial_file = kept.with_suffix(".partial")
    save_file(head.arrays(), partial_file)
    partial_file.replace(kept)


def finish(model: str, folder: Path, seeds: range, held_out: range, branches: tuple[Path, Path], target: Path) -> None:
    """Average the branches, and what they have become with what they were; balance the mean, and write the model."""
    loaded = load_model(model)
    became = mean_head(*(Head.from_arrays(load_file(path)) for path in branches))
    mean = mean_head(load_head(loaded), became)
    head = calibrate(renew_norms(mean, make_examples(loaded, seeds, folder)), make_examples(loaded, held_out, folder))
    others = {name: tensor for name, tensor in loaded.clusters.items() if not name.startswith(PREFIX)}
    encoder = {name: tensor.half() for name, tensor in loaded.encoder.state_dict().items()}
    decoder = {name: tensor.half() for name, tensor in load_decoder_state(folder_of(model)).items()}
    card = loaded.card.model_copy(update={"created": datetime.datetime.now(datetime.timezone.utc).date().isoformat()})
    save_model(target, card, encoder, {**others, **head.arrays()}, decoder)


def main() -> int:
    """Train, average, balance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", default="emmae-base")
    parser.add_argument("--first-seed", type=int, default=110_000)
    parser.add_argument("--scenes", type=int, default=1280)
    parser.add_argument("--held-out", type=int, default=600)
    options = parser.parse_args()
    examples = options.work / "examples"
    seeds = range(options.first_seed, options.first_seed + options.scenes)
    held_out = range(seeds.stop, seeds.stop + options.held_out)
    first = options.work / "first.safetensors"
    branches = options.work / "branch_1.safetensors", options.work / "branch_2.safetensors"
    with ProcessPoolExecutor(len(branches), mp_context=get_context("spawn")) as pool:
        every = range(seeds.start, held_out.stop)
        list(pool.map(partial(examine, options.model, examples), [every[n :: len(branches)] for n in (0, 1)]))
        train(options.model, examples, seeds, FIRST_ROUND, None, first)
        rounds = [
            pool.submit(train, options.model, examples, seeds, replace(SECOND_ROUND, seed=n), first, kept)
            for n, kept in enumerate(branches, 1)
        ]
        for each in rounds:
            each.result()
    finish(options.model, examples, seeds, held_out, branches, options.work / "model")
    print(f"{options.work / 'model'}: say in its card what was done, then copy it to models/{options.model}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
