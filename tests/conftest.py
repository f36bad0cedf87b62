"""Fixtures that every room's tests share: where the data of the tests lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gradlab.nn.kernels import program

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
