"""What travels: the wheel, built as an installer builds it, works from another folder in a new environment."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import gradlab

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Environment:
    """A new virtual environment with the wheel in it, and an empty folder that its commands run in."""

    folder: Path
    cwd: Path

    def run(self, program: str, *arguments: str) -> str:
        """The standard output of ``program``, one of the environment's own; anything but success fails the test."""
        names = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        environment = {key: value for key, value in os.environ.items() if key not in names}
        done = subprocess.run(
            [self.scripts / program, *arguments],
            cwd=self.cwd,
            env=environment | {"PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{program} {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @property
    def scripts(self) -> Path:
        """Where the environment keeps its programs."""
        return Path(sysconfig.get_path("scripts", "venv", {"base": str(self.folder)}))

    @property
    def packages(self) -> Path:
        """Where the environment keeps its packages."""
        return Path(sysconfig.get_path("purelib", "venv", {"base": str(self.folder)}))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist and with the wheel that was built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel alone is installed; its dependencies are seen where the present environment has them.

    A ``.pth`` file adds a folder without reading the ``.pth`` files in it, so an editable install is not seen.
    """
    environment = Environment(tmp_path_factory.mktemp("venv"), tmp_path_factory.mktemp("elsewhere"))
    venv.create(environment.folder, with_pip=False, symlinks=os.name != "nt")
    present = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (environment.packages / "dependencies.pth").write_text("\n".join(sorted(present)) + "\n", encoding="utf-8")
    python = environment.scripts / "python"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return environment


def names(folder: Path) -> set[str]:
    """The files below ``folder`` that are no bytecode, relative to it."""
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix() for path in files}


def test_the_wheel_carries_the_package_its_configs_and_docs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        carried = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {f"gradlab/{name}" for name in names(ROOT / "gradlab")}
    for beside in ("configs", "docs"):
        expected |= {f"gradlab/{beside}/{name}" for name in names(ROOT / beside)}
    assert carried == expected


def test_the_sdist_carries_what_the_tests_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        carried = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"tests/{name}" for name in names(ROOT / "tests")} <= carried
    assert {"LICENSE", "README.md", "CHANGELOG.md", "constraints.txt", "Makefile", "pyproject.toml"} <= carried


def test_the_package_comes_from_the_wheel(installed: Environment) -> None:
    code = "import gradlab, gradlab.cli; print(gradlab.__file__); print(gradlab.cli.__file__)"
    for line in installed.run("python", "-c", code).splitlines():
        assert Path(line).is_relative_to(installed.packages)
    assert gradlab.__version__ in installed.run("gradlab", "--version")


def test_list_names_the_choices_and_the_experiments(installed: Environment) -> None:
    assert "leaky_relu" in installed.run("gradlab", "list", "activations")
    listed = installed.run("gradlab", "list", "experiments")
    experiments = {path.stem for path in (ROOT / "configs" / "experiment").glob("*.yaml")}
    assert experiments
    assert not {name for name in experiments if name not in listed}


def test_the_docs_are_found(installed: Environment) -> None:
    pages = Path(installed.run("gradlab", "docs").splitlines()[0])
    assert pages.is_relative_to(installed.packages)
    assert {path.name for path in pages.glob("*.md")} == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_a_run_on_the_embedded_digits_with_its_report(installed: Environment) -> None:
    installed.run("gradlab", "run", "train.steps=2", "model.depth=3", "model.width=8", "-o", "first")
    tables = {"manifest.json", "config.yaml", "runs.parquet", "steps.parquet", "layers.parquet"}
    pages = {"report/index.html", "report/runs.csv", "report/steps.csv", "report/layers.csv"}
    assert tables | pages <= names(installed.cwd / "first")
    installed.run("gradlab", "report", "first", "-o", "second")
    assert "index.html" in {Path(name).name for name in names(installed.cwd / "second")}
    code = "import gradlab; print(*gradlab.load('first').steps['step'])"
    assert installed.run("python", "-c", code).split() == ["0", "1", "2"]
