"""Fixtures that the tests of several rooms share: where their data lie, both engines, and the command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gradlab.nn.kernels import program
from tests.commands import Gradlab, call, inline, undrawn

REPOSITORY = Path(__file__).resolve().parent.parent


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


@pytest.fixture(params=["kernels", "torch"])
def either_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test twice: with the compiled kernels, as on any machine with a compiler, and with torch alone."""
    if request.param == "torch":
        monkeypatch.setattr(program, "kernels", lambda _: None)


@pytest.fixture
def gradlab_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Gradlab:
    """The command in the folder of the test, trained in this process, its report not drawn."""
    inline(monkeypatch)
    undrawn(monkeypatch)
    return lambda *line: call(line, monkeypatch, capsys, tmp_path)
