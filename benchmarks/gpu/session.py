"""One session on a GPU, in under nine minutes: CUDA tests, speed of picking and training, both models trained.

    python benchmarks/gpu/session.py --out RESULTS [--minutes 9] [--device cuda] [--prepared benchmarks/gpu/prepared]

It leaves at most eight files of at most 16 MiB: the log of the tests, a report (Markdown and JSON), the learning
curves, reconstructions, and the autoencoders, which `benchmarks/train_shipped.py --complete` turns into models. With
`--device cpu` and few minutes it is the same in small. Each part has a share of the time, and stops when it is over.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from training_data import training_data

from cryoemmae_plugin.core.picker import CandidatePicker
from cryoemmae_plugin.errors import Interrupted, TrainingError
from cryoemmae_plugin.evaluation.speed import Ours, measure, median_seconds
from cryoemmae_plugin.run.prefetch import load
from cryoemmae_plugin.settings import Mode, PickerSettings
from cryoemmae_plugin.simulate import Scene, SimulationSettings, write_micrographs
from cryoemmae_plugin.training.checkpoint import read_checkpoint
from cryoemmae_plugin.training.complete import show_reconstructions
from cryoemmae_plugin.training.curve import read_curve
from cryoemmae_plugin.training.fit import CHECKPOINT_FILE, CURVE_FILE, fit, measure_skill
from cryoemmae_plugin.training.mae import new_autoencoder
from cryoemmae_plugin.training.prepare import prepare, tile_source
from cryoemmae_plugin.training.recipe import PUBLISHED, FitSettings
from cryoemmae_plugin.training.tiles import TileSource
from cryoemmae_plugin.types import Micrograph
from cryoemmae_plugin.weights import load_model

REPOSITORY = Path(__file__).resolve().parents[2]
LEAVES_THE_PLATEAU = PUBLISHED.model_copy(
    update={"rate": 1e-3, "warmup_steps": 200, "clip_norm": 1.0, "tiles": "crops"}
)
MODELS: dict[str, tuple[Mode, FitSettings]] = {
    "emmae-paper": ("paper", LEAVES_THE_PLATEAU),
    "emmae-base": ("default", LEAVES_THE_PLATEAU.model_copy(update={"weight_decay": 0.02, "beta2": 0.95})),
}
"""The published recipe, with what leaves the plateau: a higher rate after more steps of warm-up, gradients clipped. The
number of epochs follows from the time."""
SHARES = {"tests": 0.14, "speed": 0.12, "emmae-paper": 0.45, "emmae-base": 0.2}
"""Of the session's time; what is left is for reading and simulating."""
PACE_STEPS, PACE_SHARE = 20, 0.1
"""Steps from which the pace of a training is told, and the most of its time that they take."""
CURVE_ROWS = 4000
"""Most rows of a learning curve that is kept."""
READERS = 4
SMALLEST = "seconds_for_the_papers_smallest_training"
PAPER_TILES, PAPER_EPOCHS = 5 * 256, 400
"""The paper's smallest training: five micrographs, 400 epochs."""


@dataclass
class Session:
    """What all parts share."""

    out: Path
    work: Path
    prepared: Path
    device: torch.device
    seconds: float
    size: int
    simulated: bool

    def time_for(self, part: str) -> float:
        """Seconds for one part."""
        return self.seconds * SHARES[part]


def run_tests(session: Session) -> dict[str, Any]:
    """Run the tests that need CUDA; without a GPU they skip, saying so."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "tests/training", "tests/test_device.py"]
    limit = max(session.time_for("tests"), 20.0)
    variables = os.environ | {"PYTHONPATH": _python_path()}
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=limit, env=variables)
        text, status = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired as err:
        text, status = f"stopped after {limit:.0f} s\n{err.stdout or ''}", -1
    (session.out / "tests.log").write_text(text)
    return {"exit_status": status, "last_line": text.strip().splitlines()[-1] if text.strip() else ""}


def _python_path() -> str:
    return os.pathsep.join(path for path in (str(REPOSITORY), *sys.path) if path)


def measure_speed(session: Session) -> dict[str, Any]:
    """Time picking of a simulated micrograph, step by step, and the rate of a run that reads ahead."""
    deadline = time.monotonic() + session.time_for("speed")
    settings = SimulationSettings(
        shape=(session.size, session.size),
        diameter_A=160.0,
        pixel_size_A=160.0 * 4096 / session.size / 108,
        n_particles=100,
    )
    folder = session.work / "speed"
    (path,) = write_micrographs(folder, [Scene("speed", settings)], [1])
    micrograph = Micrograph(path, settings.pixel_size_A, "speed")
    modes: dict[str, Any] = {}
    for mode, name in (("default", "emmae-base"), ("paper", "emmae-paper")):
        chosen = PickerSettings(diameter_A=settings.diameter_A, mode=mode)
        model = load_model(name)
        ours = Ours(model, chosen, session.device, folder / mode)
        on_gpu = session.device.type == "cuda"
        if on_gpu:
            measure([ours], [micrograph], 1, session.device)  # kernels are chosen, memory is claimed
        runs = measure([ours], [micrograph], 3 if on_gpu else 1, session.device)
        rate = _rate(CandidatePicker(model, chosen, session.device), micrograph, deadline)
        modes[mode] = {"seconds": median_seconds(runs, mode, "wall"), "micrographs_per_s": rate}
    return {"size": session.size, "modes": modes}


def _rate(picker: CandidatePicker, micrograph: Micrograph, deadline: float, most: int = 100) -> float:
    """Micrographs per second from file to picks, with threads that read ahead."""
    done, began = 0, time.monotonic()
    with ThreadPoolExecutor(READERS) as pool:
        waiting = [pool.submit(load, micrograph) for _ in range(READERS)]
        while done < most and (done < 1 or time.monotonic() < deadline):
            loaded = waiting.pop(0).result()
            waiting.append(pool.submit(load, micrograph))
            picker.pick(loaded.image, loaded.pixel_size_A)
            done += 1
    return done / (time.monotonic() - began)


def train(session: Session, name: str) -> dict[str, Any]:
    """Train one autoencoder for its share of the time."""
    mode, recipe = MODELS[name]
    data = training_data(session.prepared / "data", session.work, session.simulated)
    images, _ = prepare(data.micrographs, mode)
    source = tile_source(images, mode, recipe.tiles)
    held = tile_source(prepare(data.kept_back, mode)[0], mode) if data.kept_back else source
    held.mean, held.std = source.mean, source.std
    deadline = time.monotonic() + session.time_for(name)
    pace = _pace(session, mode, recipe, source, time.monotonic() + PACE_SHARE * session.time_for(name))
    epochs = max(1, int((deadline - time.monotonic()) * pace / recipe.steps_an_epoch(len(source))))
    settings = recipe.model_copy(update={"epochs": epochs})
    work, began, ended = session.work / name, time.monotonic(), "complete"
    try:
        fit(
            source,
            settings,
            work,
            start=new_autoencoder(mode, settings),
            device=session.device,
            should_stop=lambda: time.monotonic() > deadline,
        )
    except (Interrupted, TrainingError) as err:
        ended = str(err)
    seconds = time.monotonic() - began
    model = new_autoencoder(mode, settings).to(session.device)
    model.load_state_dict(read_checkpoint(work / CHECKPOINT_FILE)["model"])
    skill, kept = measure_skill(model.eval(), source), measure_skill(model, held)
    points = read_curve(work / CURVE_FILE)
    kept_points = points[:: max(1, len(points) // CURVE_ROWS)]
    log = [(p.step, p.rate, p.loss, p.trivial, None, seconds * p.step / len(points)) for p in kept_points]
    state = {key: tensor.half().cpu() for key, tensor in model.state_dict().items()}
    torch.save({"model": state, "mean": source.mean, "std": source.std, "log": log}, session.out / f"{name}.pt")
    lines = [
        "step,rate,loss,trivial,skill",
        *(f"{p.step},{p.rate:.3e},{p.loss:.5f},{p.trivial:.5f},{p.skill:.4f}" for p in kept_points),
    ]
    (session.out / f"{name}-loss.csv").write_text("\n".join(lines) + "\n")
    if mode == "paper":
        show_reconstructions(model, held, session.out / "reconstructions.png")
    tiles_per_s = len(points) * settings.batch / seconds
    return {
        "data": data.description,
        "recipe": settings.model_dump(mode="json"),
        "ended": ended,
        "steps": len(points),
        "epochs": epochs,
        "seconds": seconds,
        "tiles_per_s": tiles_per_s,
        SMALLEST: PAPER_TILES * PAPER_EPOCHS / tiles_per_s,
        "skill": skill,
        "skill_kept_back": kept,
    }


def _pace(session: Session, mode: Mode, recipe: FitSettings, source: TileSource, until: float) -> float:
    """Steps per second, from a few that are thrown away."""
    times: list[float] = []

    def stop() -> bool:
        times.append(time.monotonic())
        return len(times) > PACE_STEPS or times[-1] > until

    with tempfile.TemporaryDirectory() as folder, suppress(Interrupted):
        start = new_autoencoder(mode, recipe)
        fit(source, recipe, Path(folder), start=start, device=session.device, should_stop=stop)
    if session.device.type == "cuda":
        torch.cuda.synchronize()
    first = min(5, len(times) - 1)
    return max(len(times) - 1 - first, 1) / max(time.monotonic() - times[first], 1e-6)


def environment(device: torch.device) -> dict[str, str]:
    """Say what ran the session."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "no GPU"
    return {
        "device": card,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
    }


def write_report(report: dict[str, Any], out: Path) -> None:
    """Write what was measured, for people and for programs."""
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    lines = ["# GPU session", "", ", ".join(f"{k} {v}" for k, v in report["environment"].items()), ""]
    if "tests" in report:
        lines += [f"CUDA tests: exit status {report['tests']['exit_status']}, {report['tests']['last_line']}", ""]
    if "speed" in report:
        lines += ["| mode | s a micrograph | micrographs/s, reading ahead |", "| --- | --- | --- |"]
        for mode, found in report["speed"]["modes"].items():
            lines.append(f"| {mode} | {found['seconds']['total']:.3f} | {found['micrographs_per_s']:.1f} |")
        lines += ["", f"Simulated micrographs of {report['speed']['size']}² pixels, float32 MRC.", ""]
    trained = {name: report[name] for name in MODELS if name in report}
    if trained:
        lines += [
            "| model | steps | tiles/s | skill | kept-back skill | 5 micrographs, 400 epochs: s |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        for name, f in trained.items():
            figures = (f"{f['skill']:.2f}", f"{f['skill_kept_back']:.2f}", f"{f[SMALLEST]:.0f}")
            lines.append(f"| {name} | {f['steps']} | {f['tiles_per_s']:.0f} | {' | '.join(figures)} |")
    (out / "report.md").write_text("\n".join(lines) + "\n")


def main() -> int:
    """Run the parts one after the other; a part that fails is reported, and the next one runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prepared", type=Path, default=Path(__file__).parent / "prepared")
    parser.add_argument("--minutes", type=float, default=8.5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, default=4096, help="side of the micrograph that speed is measured on")
    parser.add_argument("--no-simulated", action="store_true", help="train on the real images alone")
    parser.add_argument("--only", nargs="*", choices=SHARES, default=list(SHARES))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="gpu-session-"))
    session = Session(
        options.out,
        work,
        options.prepared,
        torch.device(options.device),
        60 * options.minutes,
        options.size,
        not options.no_simulated,
    )
    report: dict[str, Any] = {"environment": environment(session.device)}
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "tests": lambda: run_tests(session),
        "speed": lambda: measure_speed(session),
        "emmae-paper": lambda: train(session, "emmae-paper"),
        "emmae-base": lambda: train(session, "emmae-base"),
    }
    failed = False
    for name in (part for part in parts if part in options.only):
        began = time.monotonic()
        try:
            report[name] = parts[name]()
        except Exception as err:  # a session on a lent machine is not lost for one part
            failed = True
            report.setdefault("failed", {})[name] = f"{type(err).__name__}: {err}"
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
        write_report(report, options.out)
    shutil.rmtree(work, ignore_errors=True)
    print((options.out / "report.md").read_text())
    if failed:
        print("failed:", report["failed"])
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
