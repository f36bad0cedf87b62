"""CIFAR-10's binary files: what is read, from a folder and from a server on this machine, and what is refused."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from gradlab.data import cifar10
from gradlab.data.dataset import DataError
from gradlab.data.download import Source
from gradlab.data.facts import described
from gradlab.data.loaders import load
from gradlab.spec.named import SpecError
from gradlab.spec.run import build
from tests.images import cifar_images, cifar_records


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """80 images to train on in two files, 20 held out."""
    return cifar_images(tmp_path / "images")


def test_a_folder_is_read_as_it_is_stored(folder: Path) -> None:
    run = described({"data.name": "cifar10", "data.root": str(folder), "data.standardise": False})
    assert (run.facts.shape, run.facts.outputs, run.facts.train, run.facts.heldout) == ((32, 32, 3), 10, 80, 20)
    assert run.facts.forms == ("image", "sequence")
    data = load(run.data)
    assert data.train_inputs.shape == (80, 32, 32, 3)
    assert data.heldout_targets.tolist() == [number % 10 for number in range(20)]
    raw = (folder / "data_batch_2.bin").read_bytes()
    for image, row, column, channel in ((0, 0, 0, 0), (7, 3, 29, 1), (39, 31, 31, 2)):
        at = image * 3073 + 1 + channel * 1024 + row * 32 + column
        assert data.train_inputs[40 + image, row, column, channel] == raw[at]


def test_a_network_of_images_trains_on_them(folder: Path) -> None:
    for settings in ({"model.name": "cnn", "model.pool": "2+3"}, {"model.name": "rnn"}, {"model.name": "mlp"}):
        run = described({**settings, "data.name": "cifar10", "data.root": str(folder)})
        assert run.id == build({**settings, "data.name": "cifar10"}).id, "where data lie is no part of what a run is"


@pytest.fixture
def mirror(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of an archive as it is published, all files in it, with its sum in place of the published one."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = tmp_path / "served"
    served.mkdir()
    with tarfile.open(served / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name in (*cifar10.TRAIN, cifar10.HELDOUT):
            body = (folder / "data_batch_1.bin" if name != cifar10.HELDOUT else folder / name).read_bytes()
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in served.iterdir()}
    monkeypatch.setattr(cifar10, "SOURCE", Source("cifar10", "http://127.0.0.1:9/", sums))
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_archive_is_downloaded_once_and_read_as_it_is(mirror: str, tmp_path: Path) -> None:
    data = load(build({"data.name": "cifar10", "data.mirror": mirror}).data)
    assert data.train_inputs.shape == (200, 32, 32, 3)
    assert data.heldout_inputs.shape == (20, 32, 32, 3)
    assert [path.name for path in (tmp_path / "gradlab" / "cifar10").iterdir()] == ["cifar-10-binary.tar.gz"]
    assert abs(float(data.train_inputs.mean())) < 1e-9


def test_the_published_sum_guards_a_mirror(mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"}
    monkeypatch.setattr(cifar10, "SOURCE", Source("cifar10", "http://127.0.0.1:9/", sums))
    with pytest.raises(DataError, match=r"data.name=cifar10: .*MD5"):
        load(build({"data.name": "cifar10", "data.mirror": mirror}).data)


def test_what_is_missing_or_torn_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    def refused(root: Path) -> str:
        with pytest.raises(SpecError) as caught:
            described({"data.name": "cifar10", "data.root": str(root)})
        message = str(caught.value)
        assert message.startswith(f"data.root={root}: ")
        assert "\n" not in message
        return message

    assert "no such folder" in refused(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "no file data_batch_1.bin there" in refused(tmp_path / "empty")
    torn = folder / "test_batch.bin"
    torn.write_bytes(torn.read_bytes()[:-1])
    assert "test_batch.bin has 61,459 bytes; expected one or more records of 3,073 bytes" in refused(folder)
    torn.unlink()
    assert "no file test_batch.bin there" in refused(folder)


def test_an_eleventh_class_is_refused(folder: Path) -> None:
    (folder / "test_batch.bin").write_bytes(cifar_records(np.array([3, 10])))
    with pytest.raises(DataError, match=r"a class is 10; expected 0\.\.9"):
        load(described({"data.name": "cifar10", "data.root": str(folder)}).data)
