"""Templates for containers, conda and modules agree with the package."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

REPOSITORY = Path(__file__).parents[2]
PACKAGING = REPOSITORY / "packaging"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    return found


@pytest.fixture(scope="module")
def environment() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((PACKAGING / "environment.yml").read_text("utf-8"))
    return found


def minor(version: str) -> tuple[int, int]:
    major, minor, *_ = version.split(".")
    return int(major), int(minor)


def least_python(project: dict[str, Any]) -> tuple[int, int]:
    return minor(project["requires-python"].removeprefix(">="))


def supported(project: dict[str, Any], python: str) -> bool:
    return f"Programming Language :: Python :: {python}" in project["classifiers"]


def pip_lines(environment: dict[str, Any]) -> list[str]:
    (nested,) = [one["pip"] for one in environment["dependencies"] if isinstance(one, dict)]
    lines: list[str] = nested
    return lines


def extras_of(requirement: str) -> set[str]:
    found = re.search(r"\[([a-z,]+)\]", requirement)
    assert found, requirement
    return set(found[1].split(","))


def section(definition: str, name: str) -> str:
    found = re.search(rf"^%{name}\n(.*?)(?=^%|\Z)", definition, re.DOTALL | re.MULTILINE)
    assert found, f"no section %{name}"
    return found[1]


def test_conda_environment_has_the_package_name_and_a_supported_python(
    project: dict[str, Any], environment: dict[str, Any]
) -> None:
    (python,) = [one for one in environment["dependencies"] if str(one).startswith("python=")]
    version = python.removeprefix("python=")
    assert environment["name"] == project["name"]
    assert minor(version) >= least_python(project)
    assert supported(project, version)


def test_conda_environment_installs_this_folder_with_the_tested_torch(
    project: dict[str, Any], environment: dict[str, Any]
) -> None:
    constraint, package = pip_lines(environment)
    folder, _ = package.split("[")
    assert (PACKAGING / folder / "pyproject.toml").resolve() == REPOSITORY / "pyproject.toml"
    assert (PACKAGING / constraint.removeprefix("--constraint ")).resolve() == REPOSITORY / "constraints.txt"
    assert extras_of(package) <= set(project["optional-dependencies"])


def test_container_definition_agrees_with_the_project(project: dict[str, Any]) -> None:
    text = (PACKAGING / "cryoemmae.def").read_text("utf-8")
    base = re.search(r"^From: python:(\d+\.\d+)-", text, re.MULTILINE)
    assert base
    assert supported(project, base[1])
    install = section(text, "post")
    assert "--constraint constraints.txt" in install
    assert extras_of(install) <= set(project["optional-dependencies"])
    labels = dict(line.split() for line in section(text, "labels").splitlines() if line.strip())
    assert labels["org.opencontainers.image.title"] == project["name"]
    assert labels["org.opencontainers.image.version"] == project["version"]
    assert labels["org.opencontainers.image.licenses"] == project["license"]
    assert section(text, "runscript").split()[1] in project["scripts"]


def test_module_file_names_version_description_and_every_program(project: dict[str, Any]) -> None:
    text = (PACKAGING / "cryoemmae.lua").read_text("utf-8")
    assert f'whatis("Version: {project["version"]}")' in text
    assert f"/{project['name']}/{project['version']}" in text
    assert f"{project['name']}/{project['version']}.lua" in text
    assert project["description"].startswith(re.search(r"Description: ([^\"]+)", text)[1])  # type: ignore[index]
    assert set(re.findall(r"\.\./bin/(\S+)", text)) == set(project["scripts"])


def test_templates_name_the_tested_torch_through_the_constraints_alone() -> None:
    tested = re.search(r"^torch==(\S+)$", (REPOSITORY / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    assert tested
    for template in PACKAGING.iterdir():
        assert "torch==" not in template.read_text("utf-8"), template.name


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_packages_and_the_models(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="no hatchling: pip install '.[dev]'")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    for package in ("cryoemmae_plugin", "relion_wrapper", "cryosparc_job", "models"):
        files = [path.relative_to(REPOSITORY) for path in (REPOSITORY / package).rglob("*") if path.is_file()]
        wanted = {path.as_posix() for path in files if path.parent.name != "__pycache__"}
        if package == "models":
            wanted = {f"cryoemmae_plugin/{name}" for name in wanted}
        assert not wanted - packed
    kinds = {"report/site/index.html": 1, "schemes/": 2, "/card.toml": 2}  # that the packages hold these at all
    for part, least in kinds.items():
        assert sum(part in name for name in packed) >= least, part


def test_installation_page_names_the_templates_and_the_constraints() -> None:
    page = (REPOSITORY / "docs" / "installation.md").read_text("utf-8")
    for template in PACKAGING.iterdir():
        assert f"packaging/{template.name}" in page, template.name
    assert "pip install --constraint constraints.txt ." in page
    assert "uv tool install --constraints constraints.txt ." in page
    assert 'pipx install --pip-args="--constraint constraints.txt" .' in page
