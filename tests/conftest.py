"""Fixtures that the tests of several rooms share: where their data lie, both engines, and the command.

Each choice of gradlab's own config groups is composed once, and each experiment read once: Hydra takes 40 ms and YAML
10, and the tests ask thousands of times.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra

from gradlab.grid.hydra import read_file as real_read_file
from gradlab.report.figures.style import Plot
from gradlab.report.figures.style import save as real_save
from tests import emulation
from tests.commands import Gradlab, call, inline, undrawn
from tests.members import ENGINES, trained_with

DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
REPOSITORY = Path(__file__).resolve().parent.parent


@cache
def _composed(overrides: tuple[str, ...]) -> Any:
    return hydra.compose("config", list(overrides))


def _compose(name: str, overrides: list[str]) -> Any:
    """`hydra.compose`, which is asked once for what the files of the repository alone decide."""
    path = GlobalHydra.instance().config_loader().get_search_path().get_path()
    own = {entry.path for entry in path if entry.provider == "main"} == {str(REPOSITORY / "configs")}
    alone = own and overrides[0] == "hydra.searchpath=[]"
    return _composed(tuple(overrides)) if alone else hydra.compose(name, overrides)


@cache
def _content(file: Path) -> object:
    return real_read_file(file)


def _read_file(file: Path) -> object:
    """`read_file`, which is asked once for the files of the repository."""
    return deepcopy(_content(file)) if file.is_relative_to(REPOSITORY) else real_read_file(file)


@pytest.fixture(autouse=True, scope="session")
def _read_and_compose_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("gradlab.grid.hydra.compose", _compose)
        patched.setattr("gradlab.grid.compose.read_file", _read_file)
        yield


@pytest.fixture(scope="session")
def idx200() -> Path:
    """The folder of the 200-image IDX fixture: 160 images to train on, 40 held out, 28x28."""
    return Path(__file__).with_name("fixtures") / "idx200"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the larger real data (``fashion_mnist_4k``, ``mnist_10k``); skips where there is none."""
    given = os.environ.get("GRADLAB_TEST_DATA")
    folder = Path(given) if given else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: neither GRADLAB_TEST_DATA nor {folder} is a folder")
    return folder


@pytest.fixture(params=ENGINES)
def either_engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """The test twice: with the compiled kernels and with torch alone."""
    with trained_with(request.param):
        yield


@pytest.fixture(params=[*ENGINES, pytest.param("blocks", marks=emulation.needed)])
def any_engine(request: pytest.FixtureRequest) -> Iterator[None]:
    """`either_engine`, and a third time with what is played by blocks of a GPU, emulated."""
    with trained_with(request.param):
        yield


@contextmanager
def dotted(*, laid_out: bool = False, painted: Collection[str] = ()) -> Iterator[None]:
    """Reports with all figures made and none painted, which is four fifths of their time: the files hold a dot.

    What does not fit is warned of where figures are ``laid_out``, a third of that time; those that are named in
    ``painted`` are.
    """

    def save(plot: Plot, out: Path) -> tuple[Path, Path]:
        if plot.name in painted:
            return real_save(plot, out)
        layout = plot.figure.get_layout_engine()
        if laid_out and layout is not None:
            layout.execute(plot.figure)
        png, svg = out / f"{plot.name}.png", out / f"{plot.name}.svg"
        png.write_bytes(DOT)
        svg.write_text('<svg xmlns="http://www.w3.org/2000/svg"/>', encoding="utf-8")
        return png, svg

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("gradlab.report.figures.style.save", save)
        yield


@pytest.fixture
def unpainted() -> Iterator[None]:
    """`dotted`, for a whole test."""
    with dotted():
        yield


@pytest.fixture
def gradlab_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Gradlab:
    """The command in the folder of the test, trained in this process, its report not drawn."""
    inline(monkeypatch)
    undrawn(monkeypatch)
    return lambda *line: call(line, monkeypatch, capsys, tmp_path)
