"""job.star files, Schemes and Schedules as files: what RELION reads in them, and the way into a project."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cryoemmae_plugin.errors import SettingsError
from cryoemmae_plugin.star import Row, read_star, records_of
from relion_wrapper.__main__ import main
from relion_wrapper.arguments import parse_arguments
from relion_wrapper.jobstar import external_job_star, own_executable

PIPELINES = {
    "3.1": "_rlnPipeLineNodeType #2\nImport/job001/micrographs.star 1\n",
    "4": "_rlnPipeLineNodeTypeLabel #2\nImport/job001/micrographs.star MicrographsData.star.relion\n",
    "5": "_rlnPipeLineNodeTypeLabel #2\nImport/job001/micrographs.star MicrographGroupMetadata.star.relion\n",
}
SECOND_ROUND = ("refine", "extract_refined", "class2d_refined")


def options(path: Path) -> dict[str, str]:
    rows = records_of(path, "joboptions_values")
    return {row["rlnJobOptionVariable"]: row["rlnJobOptionValue"] for row in rows}


def test_make_job_writes_what_the_job_takes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "make-job --in-mics CtfFind/job003/micrographs_ctf.star --diameter 160 --gpu 0,1 --train-on 5 --threads 8"
    more = "--model emmae-base --threshold 0.4 --edge-distance 0.5 --no-adapt --train-epochs 30"
    assert main([*words.split(), *more.split()]) == 0
    assert "relion_pipeliner --addJobFromStar pick.job.star" in capsys.readouterr().out
    head = records_of(Path("pick.job.star"), "job")[0]
    assert (head["rlnJobType"], head["rlnJobTypeLabel"]) == ("99", "relion.external")
    form = options(Path("pick.job.star"))
    assert form["fn_exe"] == own_executable()
    assert Path(form["fn_exe"].split()[0]).is_absolute()
    words = ["--o", "External/job002/", "--in_mics", form["in_mic"]]
    for number in range(1, 11):
        if form.get(f"param{number}_label"):
            words += [f"--{form[f'param{number}_label']}", form[f"param{number}_value"]]
    arguments = parse_arguments([*words, "--j", form["nr_threads"]])
    assert arguments.settings.diameter_A == 160
    assert arguments.settings.threshold == 0.4
    assert (arguments.settings.edge_distance, arguments.settings.adapt, arguments.job.train_epochs) == (0.5, False, 30)
    assert (arguments.job.gpu, arguments.job.train_on, arguments.threads) == ("0,1", 5, 8)


def test_a_scheme_is_not_put_into_a_folder_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    words = "install-scheme typo --diameter 160 --pixel-size 3 --relion-version 5"
    assert main(words.split()) == 1
    assert "typo: no such folder; give the one that RELION is started in" in capsys.readouterr().err
    assert not Path("typo").exists()


def test_make_job_refuses_what_the_job_would_refuse(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["make-job", "--in-mics", "mics.star", "--diameter", "160", "--mode", "fast"]) == 2
    assert "--mode is 'fast'" in capsys.readouterr().err
    assert main(["make-job", "--in-mics", "mics.star"]) == 2
    assert main(["make-job", "--in-mics", "mics.star", "--diameter", "160", "--train-on", "-1"]) == 2
    assert "--train-on is '-1': must be at least 0" in capsys.readouterr().err
    with pytest.raises(SettingsError, match="blank"):
        external_job_star("mics.star", {"diameter": "160", "model": "my model"})
    assert not Path("pick.job.star").exists()


@pytest.mark.parametrize("second_round", [False, True])
@pytest.mark.parametrize(
    ("version", "folder", "graph"),
    [("3.1", "Schedules", "schedule.star"), ("4", "Schemes", "scheme.star"), ("5", "Schemes", "scheme.star")],
)
def test_a_scheme_hangs_together(project: Path, version: str, folder: str, graph: str, second_round: bool) -> None:
    Path("default_pipeline.star").write_text(
        f"\ndata_pipeline_nodes\n\nloop_\n_rlnPipeLineNodeName #1\n{PIPELINES[version]}\n"
    )
    words = ["install-scheme", ".", "--diameter", "160", "--pixel-size", "1.06", "--name", "otf"]
    assert main([*words, "--gpu", "0", *(["--second-round"] if second_round else [])]) == 0
    home = Path(folder, "otf")
    kind = graph.removesuffix(".star")
    blocks = {table.name: table.records() for table in read_star(home / graph)}
    prefix = f"rln{kind.capitalize()}"
    jobs = [row[f"{prefix}JobNameOriginal"] for row in blocks[f"{kind}_jobs"]]
    assert jobs == ["import", "pick", "extract", "class2d", *(SECOND_ROUND if second_round else ())]
    assert {path.parent.name for path in home.glob("*/job.star")} == set(jobs)
    assert blocks[f"{kind}_jobs"][1][f"{prefix}JobMode"] == "continue"
    nodes = {*jobs, *(row[f"{prefix}OperatorName"] for row in blocks[f"{kind}_operators"])}
    known = variables(blocks, kind, prefix)
    for edge in blocks[f"{kind}_edges"]:
        ends = [edge[f"{prefix}Edge{end}"] for end in ("InputNodeName", "OutputNodeName", "OutputNodeNameIfTrue")]
        assert set(ends) <= nodes | {"undefined"}
        assert edge[f"{prefix}EdgeBooleanVariable"] in known | {"undefined"}
    for row in blocks[f"{kind}_operators"]:
        assert {row[f"{prefix}Operator{part}"] for part in ("Output", "Input1", "Input2")} <= known | {"undefined"}
    pick, extract, classify = (options(home / job / "job.star") for job in ("pick", "extract", "class2d"))
    assert pick["in_mic"] == extract["star_mics"] == f"{folder}/otf/import/micrographs.star"
    assert (pick["param1_label"], pick["param1_value"]) == ("diameter", "$$diameter")
    listed = "coords_suffix_autopick.star" if version == "3.1" else "autopick.star"
    assert extract["coords_suffix"] == f"{folder}/otf/pick/{listed}"
    assert classify["fn_img"] == f"{folder}/otf/extract/particles.star"
    assert extract["extract_size"] == "240"  # 1.5 diameters, a size that Fourier-transforms fast
    assert not [path for path in home.rglob("*.star") if re.search("@[A-Z_]+@", path.read_text())]
    assert main(words) == 1
    if second_round:
        refine, extract, classify = (options(home / job / "job.star") for job in SECOND_ROUND)
        assert refine == {**pick, "in_part": "$$selected"}
        assert extract["coords_suffix"] == f"{folder}/otf/refine/{listed}"
        assert classify["fn_img"] == f"{folder}/otf/extract_refined/particles.star"


def variables(blocks: dict[str, list[Row]], kind: str, prefix: str) -> set[str]:
    names = {"floats": "Float", "bools": "Boolean", "strings": "String"}
    return {row[f"{prefix}{name}VariableName"] for block, name in names.items() for row in blocks[f"{kind}_{block}"]}


def test_without_a_project_the_version_has_to_be_said(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["install-scheme", ".", "--diameter", "160", "--pixel-size", "1.06"]) == 1
    assert "--relion-version" in capsys.readouterr().err
