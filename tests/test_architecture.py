"""The walls of the house: what may import what, what must be documented, what must not be in the repository."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("cryoemmae_plugin", "relion_wrapper", "cryosparc_job")
MODULES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))

# Whoever lives under the first prefix imports nothing that lives under the others.
FORBIDDEN = {
    "cryoemmae_plugin.core": (
        "cryoemmae_plugin.run",
        "cryoemmae_plugin.training",
        "cryoemmae_plugin.report",
        "cryoemmae_plugin.evaluation",
        "cryoemmae_plugin.images",
        "cryoemmae_plugin.cli",
        "relion_wrapper",
        "cryosparc_job",
        "rich",
        "cyclopts",
    ),
    "cryoemmae_plugin": ("relion_wrapper", "cryosparc_job"),
    "relion_wrapper": ("cryosparc_job", "cryosparc"),
    "cryosparc_job": ("relion_wrapper",),
}
ALLOWED_TO_UNPICKLE = {"cryoemmae_plugin.weights.upstream"}  # published k-means, behind --allow-pickle


def dotted(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imported_names(path: Path) -> frozenset[str]:
    """All modules that a file imports, at any depth of its code, relative imports resolved."""
    package = dotted(path) if path.name == "__init__.py" else dotted(path).rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*base, node.module] if node.module else base)
            names.update([source, *(f"{source}.{alias.name}" for alias in node.names)])
    return frozenset(names)


def lives_under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_module_respects_the_walls(path: Path) -> None:
    crossings = [
        (name, wall)
        for inhabitant, walls in FORBIDDEN.items()
        if lives_under(dotted(path), inhabitant)
        for name in imported_names(path)
        for wall in walls
        if lives_under(name, wall)
    ]
    assert not crossings


def test_walls_see_relative_and_nested_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "REPOSITORY", tmp_path)
    path = tmp_path / "cryoemmae_plugin" / "core" / "guilty.py"
    path.parent.mkdir(parents=True)
    path.write_text("def f():\n    from ..run import store\n    import relion_wrapper.job\n")
    assert {"cryoemmae_plugin.run.store", "relion_wrapper.job"} <= imported_names(path)


def test_importing_the_package_is_light() -> None:
    heavy = ("torch", "cv2", "sklearn", "matplotlib", "pandas")
    code = f"import sys, cryoemmae_plugin; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"


def undocumented(path: Path) -> list[str]:
    """Public modules, classes, functions and methods without a docstring."""
    tree = ast.parse(path.read_text("utf-8"))
    missing = [] if ast.get_docstring(tree) else ["module"]

    def visit(parent: ast.Module | ast.ClassDef, prefix: str) -> None:
        for node in parent.body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                missing.append(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                visit(node, f"{prefix}{node.name}.")

    visit(tree, "")
    return missing


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_public_names_are_documented(path: Path) -> None:
    assert undocumented(path) == []


def tracked_text_files() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("not a git clone")
    paths = [REPOSITORY / name for name in done.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8192]]


def test_no_tracked_file_names_a_path_of_one_machine() -> None:
    # Written in pieces, so that this file does not find itself.
    places = ("work/[a-z.]", "root/", "tmp/venv", "opt/wheels", "home/[a-z]")
    machine_path = re.compile("|".join("/" + place for place in places))
    found = [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:100]}"
        for path in tracked_text_files()
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), 1)
        if machine_path.search(line)
    ]
    assert found == []


def test_modules_do_not_unpickle() -> None:
    """Nothing that a stranger could have written is unpickled, but where the user has said so."""
    unpickling = {"pickle", "dill", "cloudpickle", "joblib"}
    guilty = [dotted(path) for path in MODULES if unpickling & {name.split(".")[0] for name in imported_names(path)}]
    assert [name for name in guilty if name not in ALLOWED_TO_UNPICKLE] == []


def test_the_citation_is_of_this_version() -> None:
    citation = (REPOSITORY / "CITATION.cff").read_text("utf-8")
    project = (REPOSITORY / "pyproject.toml").read_text("utf-8")
    (version,) = re.findall(r'^version = "(.*)"', project, re.MULTILINE)
    assert f"\nversion: {version}\n" in citation
