"""What the job's form may say, and the answer to what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from cryoemmae_plugin.errors import SettingsError, render
from cryoemmae_plugin.settings import device_of_gpus
from relion_wrapper.arguments import PARAMETERS, JobOptions, parse_arguments

LEAST = ["--o", "External/job010/", "--in_mics", "mics.star", "--diameter", "120"]


def test_the_form_becomes_settings() -> None:
    words = "--mode paper --threshold 0.2 --model mine --gpu 0:1 --train_on 5 --relion_version 4.0"
    arguments = parse_arguments([*LEAST, *words.split(), "--contrast", "bright", "--pixel_size", "1.5", "--j", "6"])
    settings = arguments.settings
    assert (settings.diameter_A, settings.mode, settings.threshold) == (120, "paper", 0.2)
    assert (settings.model, settings.contrast, settings.pixel_size_A) == ("mine", "bright", 1.5)
    assert (arguments.folder, arguments.in_mics) == (Path("External/job010"), Path("mics.star"))
    assert (arguments.job.gpu, arguments.threads, arguments.job.train_on) == ("0:1", 6, 5)
    assert (arguments.job.relion_version, arguments.job.report) == ("4", 50)


@pytest.mark.parametrize(("text", "report"), [("all", "all"), ("none", "none"), ("7", 7), ("", 50)])
def test_the_report_is_asked_for_by_number_all_or_none(text: str, report: int | str) -> None:
    assert parse_arguments([*LEAST, "--report", text]).job.report == report


def test_the_form_says_who_picks() -> None:
    words = "--executor dask --scheduler slurm --workers 4 --slurm_partition gpu --slurm_options gres=gpu:1"
    workers = parse_arguments([*LEAST, *words.split()]).workers
    assert (workers.executor, workers.scheduler, workers.workers) == ("dask", "slurm", 4)
    assert workers.sbatch_options() == ["--gres=gpu:1"]
    assert parse_arguments([*LEAST, "--workers", ""]).workers.workers is None


def test_what_relion_adds_is_accepted_and_an_empty_value_is_the_default() -> None:
    arguments = parse_arguments(
        [*LEAST, "--model", "--threshold", "--gpu", "--j", "1", "--pipeline_control", "External/job010/"]
    )
    assert arguments.settings.model is None
    assert arguments.settings.threshold is None
    assert arguments.job.gpu == ""


def test_without_the_parameter_gpu_a_gpu_is_used_where_there_is_one() -> None:
    assert device_of_gpus(parse_arguments(LEAST).job.gpu) == "auto"


@pytest.mark.parametrize(
    ("text", "device"),
    [("0", "cuda:0"), ("0,1", "cuda:0,1"), ("0:1", "cuda:0,1"), ("2,2", "cuda:2"), ("", "cpu"), ("cpu", "cpu")],
)
def test_gpus_are_written_as_relion_does(text: str, device: str) -> None:
    assert device_of_gpus(JobOptions(gpu=text).gpu) == device


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--o", "x/", "--diameter", "1"], "Input micrographs"),
        (["--o", "x/", "--in_mics", "m.star"], "diameter is missing"),
        (["--o", "x/", "--in_mics", "m.star", "--diameter"], "diameter is missing"),
        ([*LEAST, "--in_movies", "p.star"], "movies cannot be used"),
        ([*LEAST, "--rejected", "p.star"], "fill in 'Input particles' too"),
        ([*LEAST, "--colour", "red"], "Param labels can be: diameter, pixel_size, mode, model, threshold, purity"),
        ([*LEAST, "--diameter", "-5"], "diameter is '-5'"),
        ([*LEAST, "--threshold", "high"], "threshold is 'high'"),
        ([*LEAST, "--purity", "best"], "purity is 'best'"),
        ([*LEAST, "--purity", "high", "--threshold", "0.7"], "one of the two"),
        ([*LEAST, "--mode", "fast"], "mode is 'fast'"),
        ([*LEAST, "--gpu", "all"], "something like 0, or 0,1"),
        ([*LEAST, "--train_on", "many"], "train_on is 'many'"),
        ([*LEAST, "--workers", "some"], "workers is 'some'"),
        ([*LEAST, "--scheduler", "slurm"], "give executor = dask too"),
        ([*LEAST, "--relion_version", "2"], "relion_version is '2'"),
        ([*LEAST, "--model", "my", "model"], "'model' on the command line belongs to no label"),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(words: list[str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_arguments(words)
    assert message in render(caught.value, PARAMETERS)
