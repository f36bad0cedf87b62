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

ARROWS: dict[str, set[str]] = {
    "__init__": {"store", "hooks", "diagnose"},
    "hooks": {"record"},
    "__main__": {"cli"},
    "cli": {
        "catalogue",
        "conduct",
        "config",
        "finished",
        "plan",
        "launch",
        "store",
        "report",
        "choices",
        "screen",
        "foretell",
        "cure",
    },
    "conduct": {
        *(
            "cure",
            "rounds",
            "manifest",
            "grid",
            "plan",
            "launch",
            "store",
            "report",
            "screen",
            "summary",
            "data",
            "expect",
            "diagnose",
            "spec",
            "choices",
        )
    },
    "rounds": {
        *("cure", "kernels", "manifest", "plan", "launch", "store", "screen", "diagnose", "spec", "choices"),
    },
    "manifest": {"grid", "plan", "launch", "store", "spec"},
    "finished": {"grid", "store", "choices"},
    "catalogue": {"choices", "config", "diagnose", "remedies"},
    "remedies": {"theory", "spec", "choices"},
    "cure": {"remedies", "grid", "plan", "store", "summary", "data", "diagnose", "theory", "spec", "choices"},
    "summary": {"diagnose", "store", "spec", "choices"},
    "foretell": {"theory", "summary", "spec", "choices"},
    "named": set(),
    "observed": {"named"},
    "choices": {"named", "observed"},
    "keys": {"choices"},
    "spec": {"choices", "keys", "data"},
    "grid": {"diagnose", "spec", "choices"},
    "config": {"grid", "expect", "experiment", "spec", "choices"},
    "experiment": {"grid", "spec", "choices"},
    "expect": {"spec", "choices", "record"},
    "plan": {"spec", "choices"},
    "screen": {"plan", "spec", "choices", "store"},
    "launch": {"kernels", "plan", "spec", "choices", "data", "train", "record", "store", "diagnose"},
    "train": {
        *("spec", "choices", "cohort", "models", "data", "optim", "probes", "instruments", "journal", "record", "nn"),
        "kernels",
    },
    "cohort": {"plan", "spec", "choices", "models", "data", "optim", "nn"},
    "instruments": {"choices", "cohort", "nn", "theory"},
    "journal": {"spec", "probes", "record", "optim", "instruments"},
    "probes": {"spec", "choices", "record", "nn"},
    "record": {"spec", "choices", "diagnose", "theory"},
    "models": {"spec", "choices", "nn"},
    "data": {"spec", "choices"},
    "optim": {"spec", "choices", "nn", "kernels"},
    "nn": {"spec", "choices", "kernels"},
    "kernels": set(),
    "store": {"spec", "choices", "record", "merging"},
    "merging": set(),
    "diagnose": {"named"},
    "theory": {"spec", "choices"},
    "report": {"spec", "choices", "store", "diagnose", "theory", "cure"},
}
"""The rooms that each room may import. Every room may read the version from the package itself."""

LAZY = {
    *(("__init__", room) for room in ("store", "hooks", "diagnose")),
    ("spec", "data"),
    ("catalogue", "config"),
    ("expect", "record"),
}
"""Arrows that may only be followed inside a function: what stands at their end is not paid for by who never asks."""

NARROW = {("spec", "data"): {"gradlab.data.idx"}}
"""Arrows that lead to these modules of the room alone."""

TORCH_FREE = (
    *("cli", "conduct", "catalogue", "named", "observed", "choices", "keys", "spec", "grid", "config", "plan"),
    *("record", "store", "merging", "summary", "rounds", "manifest", "finished"),
    *("diagnose", "screen", "report", "data", "theory", "expect", "experiment", "foretell", "remedies", "cure"),
)
"""Rooms whose import must not import torch: the commands that need none of it must not wait for it."""

OPTIONAL: set[str] = set()
"""Rooms that may not be there."""

ONLY = {
    "hydra": {"config"},
    "omegaconf": {"config"},
    "typer": {"cli"},
    "click": set(),
    "rich": {"cli", "conduct", "rounds", "screen", "summary", "foretell", "cure"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "pooch": {"data", "kernels"},
    "pyarrow": {"record", "store", "merging", "summary", "report", "expect", "diagnose", "cure"},
    "pandas": {"__init__", "store", "report", "diagnose", "hooks"},
    "torch": {
        "__init__",
        "hooks",
        "launch",
        "train",
        "cohort",
        "journal",
        "probes",
        "instruments",
        "nn",
        "kernels",
        "models",
        "optim",
    },
}
"""Packages from outside that only these rooms may import."""

EMPTY_NAMES = {"util", "utils", "helper", "helpers", "common", "misc"}
MOST_LINES = 500


@dataclass(frozen=True)
class Import:
    """One imported module, seen from a room. ``lazy``: inside a function, or for the type checker alone."""

    room: str
    module: str
    lazy: bool
    where: str


def room_of(module: str) -> str:
    """The room of a dotted module of the package: ``gradlab.data.idx`` lies in ``data``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def module_of(file: Path) -> str:
    """The dotted name of a file of the package."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(file: Path) -> Iterator[Import]:
    """Every import of a file; ``from gradlab import store`` counts as an import of ``gradlab.store``."""
    room = room_of(module_of(file))
    for node, lazy in _walk(ast.parse(file.read_text(encoding="utf-8")), lazy=False):
        where = f"{file.relative_to(ROOT)}:{node.lineno}"
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif node.level:
            raise AssertionError(f"{where}: a relative import; write it out")
        elif node.module == "gradlab":
            rooms = {room_of(module_of(path)) for path in FILES}
            modules = [f"gradlab.{alias.name}" if alias.name in rooms else "gradlab" for alias in node.names]
        else:
            modules = [node.module or ""]
        for module in modules:
            yield Import(room, module, lazy, where)


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


def test_every_room_has_its_arrows() -> None:
    rooms = {room_of(module_of(file)) for file in FILES}
    assert rooms <= set(ARROWS), f"rooms without arrows: {sorted(rooms - set(ARROWS))}"
    assert set(ARROWS) - {"__main__"} - OPTIONAL <= rooms


def test_the_arrows_hold() -> None:
    wrong = [
        f"{found.where}: {found.room} -> {room_of(found.module)}"
        for found in INSIDE
        if found.module != "gradlab" and room_of(found.module) not in ARROWS[found.room]
    ]
    assert not wrong, "\n".join(wrong)


def test_the_arrows_make_no_circle() -> None:
    """But for those that are followed lazily: ``data`` reads the spec, and the spec asks ``data.idx`` for sizes."""
    eager = {room: {end for end in ends if (room, end) not in LAZY} for room, ends in ARROWS.items()}
    order = list(TopologicalSorter(eager).static_order())
    assert order.index("choices") < order.index("spec") < order.index("cli")


def test_lazy_and_narrow_arrows() -> None:
    wrong = []
    for found in INSIDE:
        arrow = (found.room, room_of(found.module))
        if arrow in LAZY and not found.lazy:
            wrong.append(f"{found.where}: {found.module} is imported before anyone asked for it")
        if arrow in NARROW and found.module not in NARROW[arrow]:
            wrong.append(f"{found.where}: {found.module}, where only {sorted(NARROW[arrow])} may be imported")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", ONLY)
def test_packages_stay_in_their_rooms(package: str) -> None:
    wrong = [
        f"{found.where}: {found.module}"
        for found in IMPORTS
        if found.module.split(".")[0] == package and found.room not in ONLY[package]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", TORCH_FREE)
def test_torch_is_not_imported_above_the_engine(room: str) -> None:
    if room in OPTIONAL and not (PACKAGE / room).exists():
        return
    modules = [module_of(file) for file in FILES if room_of(module_of(file)) == room]
    assert modules, f"gradlab/{room} is missing"
    code = f"import sys\nimport {', '.join(modules)}\nsys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"importing {', '.join(modules)} imported torch\n{done.stderr}"


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
