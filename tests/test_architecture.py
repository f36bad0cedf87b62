"""The house: which room imports which, who may import torch, hydra and click, and how large a file may grow."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "gradlab"
FILES = sorted(PACKAGE.rglob("*.py"))

ORDER = (
    *("spec", "diagnose", "theory", "data", "nn", "models", "store", "expect", "watching", "grid", "engine"),
    *("cure", "terminal", "report", "export", "launch", "verbs", "cli", "__init__", "__main__"),
)
"""The rooms from the ground up, and the files in the hallway: each imports only what stands before it.

Every room may read the version from the package itself.
"""

APART = {("report", "terminal")}
"""Rooms that know nothing of each other though the order would let them: a page has words of its own."""

LAZY = {
    ("expect", "store"),
    ("__init__", "store"),
    ("__init__", "watching"),
    ("__init__", "diagnose"),
    ("__init__", "report"),
}
"""Arrows that may only be followed inside a function: what stands at their end is not paid for by who never asks."""

TORCH_FREE = (
    *(
        "cli",
        "verbs",
        "spec",
        "diagnose",
        "theory",
        "data",
        "store",
        "expect",
        "grid",
        "cure",
        "terminal",
        "report",
        "export",
    ),
    *("launch.conduct", "launch.rounds", "launch.manifest", "launch.slurm"),
)
"""Rooms, or files of a room, whose import must not import torch: commands that need none of it must not wait for it."""

ONLY = {
    "hydra": {"grid.hydra"},
    "omegaconf": {"grid.hydra"},
    "typer": {"cli", "verbs"},
    "click": set(),
    "rich": {"cli", "terminal", "launch"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "pooch": {"data", "nn.kernels", "launch.speed"},
    "pyarrow": {"data", "store", "terminal", "report", "expect", "diagnose", "cure", "export"},
    "pandas": {"__init__", "store", "report", "diagnose", "watching"},
    **{name: {f"export.to_{name}"} for name in ("tensorboard", "wandb", "mlflow", "trackio")},
    "ray": {"launch.ray", "launch.ray_task"},
    "submitit": {"launch.slurm"},
    "torch": {"__init__", "watching", "launch", "engine", "nn", "models"},
}
"""Packages from outside that only these rooms, or files of a room, may import."""

EMPTY_NAMES = {"util", "utils", "helper", "helpers", "common", "misc"}
MOST_LINES = 500


@dataclass(frozen=True)
class Import:
    """One imported module, seen from a file of a room. ``lazy``: inside a function, or for the type checker alone."""

    file: str
    room: str
    module: str
    lazy: bool
    where: str


def room_of(module: str) -> str:
    """The room of a dotted module of the package: ``gradlab.data.idx`` lies in ``data``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def within(module: str, place: str) -> bool:
    """Whether a dotted module of the package lies in ``place``, a room or a file of one: `nn`, `nn.kernels`."""
    return module == "gradlab" if place == "__init__" else f"{module}.".startswith(f"gradlab.{place}.")


def module_of(file: Path) -> str:
    """The dotted name of a file of the package."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(file: Path) -> Iterator[Import]:
    """Every import of a file; ``from gradlab.store import folder`` counts as an import of ``gradlab.store.folder``."""
    room, names = room_of(module_of(file)), {module_of(path) for path in FILES}
    for node, lazy in _walk(ast.parse(file.read_text(encoding="utf-8")), lazy=False):
        where = f"{file.relative_to(ROOT)}:{node.lineno}"
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif node.level:
            raise AssertionError(f"{where}: a relative import; write it out")
        else:
            parent = node.module or ""
            modules = [name if (name := f"{parent}.{alias.name}") in names else parent for alias in node.names]
        for module in modules:
            yield Import(module_of(file), room, module, lazy, where)


def _walk(tree: ast.AST, *, lazy: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, lazy
        else:
            inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _walk(node, lazy=lazy or inside or _for_types_alone(node))


def _for_types_alone(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


IMPORTS = [found for file in FILES for found in imports_of(file)]
INSIDE = [found for found in IMPORTS if found.module.split(".")[0] == "gradlab" and room_of(found.module) != found.room]


def test_nothing_is_loose_in_the_hallway() -> None:
    rooms = {room_of(module_of(file)) for file in FILES}
    assert rooms <= set(ORDER), f"rooms without a place in the order: {sorted(rooms - set(ORDER))}"
    assert {file.stem for file in PACKAGE.glob("*.py")} <= {"__init__", "__main__", "cli"}
    for room in rooms - {"cli", "__init__", "__main__"}:
        text = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8")))
        assert text, f"gradlab/{room}/__init__.py does not say what the room is for"


def test_every_room_imports_only_those_before_it() -> None:
    wrong = [
        f"{found.where}: {found.room} -> {end}"
        for found in INSIDE
        if found.module != "gradlab"
        and ((end := room_of(found.module)) not in ORDER[: ORDER.index(found.room)] or (found.room, end) in APART)
    ]
    assert not wrong, "\n".join(wrong)


def test_files_make_no_circle() -> None:
    """Of what is imported at once; inside a function a file may come back to one that imports it."""
    files = {module_of(path) for path in FILES}
    graph: dict[str, set[str]] = {name: set() for name in files}
    for found in IMPORTS:
        if found.module in files and not found.lazy and found.module != found.file:
            graph[found.file].add(found.module)
    assert list(TopologicalSorter(graph).static_order())


def test_lazy_arrows() -> None:
    wrong = [
        f"{found.where}: {found.module} is imported before anyone asked for it"
        for found in INSIDE
        if (found.room, room_of(found.module)) in LAZY and not found.lazy
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", ONLY)
def test_packages_stay_in_their_rooms(package: str) -> None:
    wrong = [
        f"{found.where}: {found.module}"
        for found in IMPORTS
        if found.module.split(".")[0] == package and not any(within(found.file, place) for place in ONLY[package])
    ]
    assert not wrong, "\n".join(wrong)


def test_torch_is_not_imported_above_the_engine() -> None:
    rooms = {room: [name for name in map(module_of, FILES) if within(name, room)] for room in TORCH_FREE}
    assert all(rooms.values()), f"missing: {rooms}"
    code = (
        "import importlib, sys\n"
        f"for room, modules in {rooms!r}.items():\n"
        "    for name in modules: importlib.import_module(name)\n"
        "    if 'torch' in sys.modules: sys.exit(f'importing gradlab/{room} imported torch')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_itself_imports_nothing_heavy() -> None:
    code = "import sys, gradlab\nprint(*({'torch', 'pandas', 'pyarrow', 'numpy', 'hydra'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_no_file_outgrows_its_reader() -> None:
    folders = (PACKAGE, ROOT / "tests", ROOT / "benchmarks")
    files = [file for folder in folders for file in folder.rglob("*.py")]
    lines = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    long = [f"{file.relative_to(ROOT)}: {count}" for file, count in lines.items() if count > MOST_LINES]
    assert not long, f"more than {MOST_LINES} lines:\n" + "\n".join(long)


def test_every_name_says_something() -> None:
    folders = (PACKAGE, ROOT / "tests", ROOT / "benchmarks", ROOT / "configs")
    paths = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    assert not [str(path.relative_to(ROOT)) for path in paths if path.stem.lower() in EMPTY_NAMES]
