"""The walls of the house: what may import what, what must be documented, what must not be in the repository."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("cryoemmae_plugin", "relion_wrapper", "cryosparc_job")
MODULES = sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))

TABLE = REPOSITORY / "docs" / "architecture.md"
NOT_IN_THE_CORE = ("rich", "cyclopts", "torchvision", "matplotlib")
ALLOWED_TO_UNPICKLE = {"cryoemmae_plugin.weights.upstream"}  # published k-means, behind --allow-pickle


def dotted(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imported_names(path: Path) -> frozenset[str]:
    """All modules that a file imports when it runs, at any depth of its code, relative imports resolved."""
    package = dotted(path) if path.name == "__init__.py" else dotted(path).rpartition(".")[0]
    names: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for other in node.orelse:
                visit(other)
            return
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*base, node.module] if node.module else base)
            names.update([source, *(f"{source}.{alias.name}" for alias in node.names)])
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text("utf-8")))
    return frozenset(names)


def lives_under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


@dataclass(frozen=True)
class Room:
    """A row of the table: modules that live together, and the rooms that they may import from."""

    prefixes: tuple[str, ...]
    allowed: str


def read_rooms(text: str) -> list[Room]:
    """The rows of the table of packages in docs/architecture.md."""
    table = text.partition("| package |")[2].partition("\n\n")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines()[2:]]
    return [Room(tuple(re.findall(r"`([\w.]+)`", row[0])), row[2].strip()) for row in rows]


ROOMS = read_rooms(TABLE.read_text("utf-8"))
SHORT = {"ground": "cryoemmae_plugin.errors"}
"""Rooms that the table calls otherwise than by their last name."""


def room_of(name: str) -> int | None:
    """Number of the room that a module lives in: that of the longest name that fits; None for strangers."""
    fitting = [
        (len(prefix), number)
        for number, room in enumerate(ROOMS)
        for prefix in room.prefixes
        if lives_under(name, prefix)
    ]
    return max(fitting)[1] if fitting else None


def allowed_rooms(number: int) -> set[int]:
    """Rooms that the modules of a room may import from, their own included."""
    room = ROOMS[number]
    if room.allowed == "everything above":
        return set(range(number + 1))
    if room.allowed == "each other":
        return {number}
    prefixes = [SHORT.get(name, f"cryoemmae_plugin.{name}") for name in room.allowed.split(", ")]
    found = {room_of(prefix) for prefix in prefixes}
    assert None not in found, room.allowed
    return {number, *(other for other in found if other is not None)}


def test_the_table_of_packages_only_goes_down() -> None:
    """So that there can be no circle of packages."""
    assert len(ROOMS) > 10
    assert all(other <= number for number in range(len(ROOMS)) for other in allowed_rooms(number))
    assert all(room_of(prefix) == number for number, room in enumerate(ROOMS) for prefix in room.prefixes)


def test_every_module_has_a_room_in_the_table_and_the_table_nothing_that_is_gone() -> None:
    known = {dotted(path) for path in MODULES}
    assert [prefix for room in ROOMS for prefix in room.prefixes if prefix not in known] == []
    assert [name for name in known if room_of(name) is None] == []
    fallen_through = [name for name in sorted(known) if room_of(name) == room_of("cryoemmae_plugin")]
    assert fallen_through == ["cryoemmae_plugin", "cryoemmae_plugin.api"]


def crossings_of(path: Path) -> list[str]:
    """What a module imports that its room may not."""
    home = room_of(dotted(path))
    assert home is not None
    # "from package import name" is listed with and without the name: the package alone says nothing.
    names = {name for name in imported_names(path) if room_of(name) is not None}
    exact = {name for name in names if not any(other != name and lives_under(other, name) for other in names)}
    return sorted(name for name in exact if room_of(name) not in allowed_rooms(home))


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_module_imports_only_what_the_table_allows(path: Path) -> None:
    assert crossings_of(path) == []


def test_the_core_prints_nothing_and_draws_nothing() -> None:
    core = [path for path in MODULES if lives_under(dotted(path), "cryoemmae_plugin.core")]
    assert [dotted(path) for path in core for name in NOT_IN_THE_CORE if name in imported_names(path)] == []


def test_the_adapters_do_not_know_each_other_or_the_command_line() -> None:
    for adapter, others in {
        "relion_wrapper": ("cryosparc_job", "cryosparc", "cryoemmae_plugin.cli"),
        "cryosparc_job": ("relion_wrapper", "cryoemmae_plugin.cli"),
    }.items():
        mine = [path for path in MODULES if lives_under(dotted(path), adapter)]
        assert [
            (dotted(path), name)
            for path in mine
            for name in imported_names(path)
            if any(lives_under(name, other) for other in others)
        ] == []


def test_diameter_and_model_are_settled_in_one_place() -> None:
    for method in ("settle_diameter(", "settle_model(", "run_picking("):
        callers = [
            dotted(path) for path in MODULES if re.search(rf"(?<!def ){re.escape(method)}", path.read_text("utf-8"))
        ]
        front_ends = ["cli.pick", "cli.run_demo", "cryosparc_job.picking", "relion_wrapper.job"]
        expected = front_ends if "run" in method else ["run.service"]
        assert [caller.removeprefix("cryoemmae_plugin.") for caller in callers if "api" not in caller] == expected


def test_walls_see_relative_and_nested_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "REPOSITORY", tmp_path)
    path = tmp_path / "cryoemmae_plugin" / "core" / "guilty.py"
    path.parent.mkdir(parents=True)
    path.write_text("def f():\n    from ..run import store\n    import relion_wrapper.star\n")
    assert {"cryoemmae_plugin.run.store", "relion_wrapper.star"} <= imported_names(path)
    assert crossings_of(path) == ["cryoemmae_plugin.run.store", "relion_wrapper.star"]


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
