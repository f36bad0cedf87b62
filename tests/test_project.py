"""The project's own files: pins, the test command, and what must not be written anywhere."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import gradlab

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MADE = {
    ".git",
    ".venv",
    "outputs",
    "build",
    "dist",
    "node_modules",
    "__pycache__",
    ".pytest_cache",
    ".mypy_cache",
    ".ruff_cache",
    ".hypothesis",
    "multirun",
}
BINARY = {".gz", ".xz", ".npz", ".png", ".ico", ".parquet", ".woff2", ".pyc"}

REGISTRY = r"py[p]i\.org|python[h]osted|deb\.d[e]bian\.org|registry\.npm[j]s|download\.py[t]orch"
MACHINE_PATH = r"(?<![\w.<>*-])/(?:wor[k]|far[m]|hom[e]|roo[t]|Use[r]s)/"


def written() -> Iterator[tuple[str, str]]:
    """Every line of every text file that no tool made, with where it stands."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(set(folders) - MADE)
        for path in (Path(folder, name) for name in sorted(names)):
            if path.suffix not in BINARY:
                lines = path.read_text(encoding="utf-8").splitlines()
                yield from ((f"{path.relative_to(ROOT)}:{number}", line) for number, line in enumerate(lines, start=1))


def normal(name: str) -> str:
    """A distribution's name as installers compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins() -> dict[str, str]:
    """The versions in constraints.txt, by normal name; every line is a bare ``name==version``."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    wrong = [line for line in pinned if re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line) is None]
    assert not wrong, wrong
    return {normal(name): version for name, version in (line.split("==") for line in pinned)}


def test_no_host_of_a_registry_and_no_path_of_a_machine() -> None:
    forbidden = re.compile(f"{REGISTRY}|{MACHINE_PATH}")
    found = [f"{where}: {line.strip()}" for where, line in written() if forbidden.search(line)]
    assert not found, "\n".join(found)


def test_every_dependency_is_pinned() -> None:
    extras = PROJECT["optional-dependencies"]
    asked = [*PROJECT["dependencies"], *extras["test"], *extras["dev"]]
    names = {normal(re.split(r"[\[<>=!~; ]", text)[0]) for text in asked} - {"gradlab"}
    assert names <= set(pins())


def test_everything_installed_for_the_project_is_pinned() -> None:
    """Walks the requirements of what is installed here, so that a new dependency of a dependency gets its pin."""
    seen: set[str] = set()
    queue = [normal(re.split(r"[<>=!~; ]", text)[0]) for text in PROJECT["dependencies"]]
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        seen.add(name)
        for requirement in map(Requirement, metadata.requires(name) or []):
            here = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if here and normal(requirement.name) not in seen and _is_installed(requirement.name):
                queue.append(normal(requirement.name))
    from_gpu_builds = {name for name in seen if name.startswith(("nvidia-", "cuda-", "triton"))}
    assert seen - from_gpu_builds <= set(pins())


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def test_one_version() -> None:
    assert PROJECT["version"] == gradlab.__version__


def test_ci_runs_the_command_of_the_readme() -> None:
    assert re.search(r"^make test$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")
