"""Downloads, against a server on this machine: what arrives is checked, and what fails leaves nothing behind."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from gradlab.data.dataset import DataError
from gradlab.data.download import Source, fetch
from gradlab.data.idx import NAMES, read_folder
from gradlab.data.loaders import load
from gradlab.spec.run import build

FILES = tuple(f"{name}.gz" for name in NAMES)


@dataclass
class Mirror:
    """A server of ``files``; ``cut``, ``silent`` and ``dripping`` name those that it serves badly."""

    files: dict[str, bytes]
    address: str = ""
    cut: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    dripping: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def mirror(idx200: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = Mirror({name: (idx200 / name).read_bytes() for name in FILES})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            served.asked.append(name)
            if name in served.silent:
                served.release.wait(20)
                return
            if name not in served.files:
                self.send_error(404)
                return
            body = served.files[name]
            self.send_response(200)
            self.send_header("Content-Type", "application/gzip")
            self.send_header("Content-Length", str(len(body) + (1000 if name in served.cut else 0)))
            self.end_headers()
            for at in range(0, len(body), 1 if name in served.dripping else len(body)):
                self.wfile.write(body[at:] if name not in served.dripping else body[at : at + 1])
                if name in served.dripping and served.release.wait(0.02):
                    return

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the name that http.server gives
            """Nothing on the screen of the tests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    served.address = f"http://127.0.0.1:{server.server_port}/images"
    yield served
    served.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def source(mirror: Mirror) -> Source:
    sums = {name: hashlib.md5(body).hexdigest() for name, body in mirror.files.items()}
    return Source("small", mirror.address, sums)


def _kept(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


def test_good_files_arrive_once(mirror: Mirror, source: Source, tmp_path: Path, idx200: Path) -> None:
    folder = fetch(source, cache=tmp_path)
    assert folder == tmp_path / "small"
    assert _kept(tmp_path) == sorted(FILES)
    np.testing.assert_array_equal(read_folder(str(folder)).train_inputs, read_folder(str(idx200)).train_inputs)
    assert sorted(mirror.asked) == sorted(FILES)
    fetch(source, cache=tmp_path)
    assert len(mirror.asked) == len(FILES)


@pytest.mark.parametrize("ending", ["", "/"])
def test_another_address_is_asked_instead(ending: str, mirror: Mirror, source: Source, tmp_path: Path) -> None:
    closed = Source(source.name, "http://127.0.0.1:9/", source.md5)
    fetch(closed, mirror.address + ending, tmp_path)
    assert _kept(tmp_path) == sorted(FILES)


def _refused(source: Source, cache: Path, timeout: float = 5.0) -> str:
    with pytest.raises(DataError) as caught:
        fetch(source, cache=cache, retries=0, timeout=timeout)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("data.name=small: ")
    assert "data.root=" in message
    assert "data.mirror=" in message
    return message


def test_a_corrupt_file_is_refused_and_a_second_try_works(mirror: Mirror, source: Source, tmp_path: Path) -> None:
    good = mirror.files[FILES[1]]
    mirror.files[FILES[1]] = good[:-1] + b"?"
    message = _refused(source, tmp_path)
    assert f"{mirror.address}/{FILES[1]}: its MD5 sum is not the published one" in message
    assert _kept(tmp_path) == [FILES[0]]
    mirror.files[FILES[1]] = good
    fetch(source, cache=tmp_path)
    assert _kept(tmp_path) == sorted(FILES)
    assert mirror.asked.count(FILES[0]) == 1


def test_a_missing_file_is_refused(mirror: Mirror, source: Source, tmp_path: Path) -> None:
    del mirror.files[FILES[2]]
    assert f"{mirror.address}/{FILES[2]}: the server answers 404 Not Found" in _refused(source, tmp_path)
    assert _kept(tmp_path) == sorted(FILES[:2])
    assert mirror.asked.count(FILES[2]) == 1


def test_a_cut_connection_is_refused(mirror: Mirror, source: Source, tmp_path: Path) -> None:
    mirror.cut.add(FILES[0])
    assert f"{FILES[0]}: the connection was cut" in _refused(source, tmp_path)
    assert _kept(tmp_path) == []


def test_silence_is_refused_in_time(mirror: Mirror, source: Source, tmp_path: Path) -> None:
    mirror.silent.add(FILES[0])
    begin = time.monotonic()
    assert "no answer within 0.2 s" in _refused(source, tmp_path, timeout=0.2)
    assert time.monotonic() - begin < 5
    assert _kept(tmp_path) == []


def test_a_file_that_drips_is_given_up(mirror: Mirror, source: Source, tmp_path: Path) -> None:
    mirror.dripping.add(FILES[0])
    with pytest.raises(DataError, match=rf"{FILES[0]}: \d+ bytes in 0\.3 s, and it is not whole; try again"):
        fetch(source, cache=tmp_path, retries=0, limit=0.3)
    mirror.release.set()
    assert _kept(tmp_path) == []


def test_no_server_is_refused(source: Source, tmp_path: Path) -> None:
    closed = Source("small", "http://127.0.0.1:9/", source.md5)
    assert "http://127.0.0.1:9/train-images-idx3-ubyte.gz: no connection" in _refused(closed, tmp_path)


@pytest.mark.parametrize("address", ["nonsense", "file:///images"])
def test_no_address_is_refused(address: str, source: Source, tmp_path: Path) -> None:
    assert address in _refused(Source("small", address, source.md5), tmp_path)


def test_one_failure_is_tried_again(mirror: Mirror, source: Source, tmp_path: Path) -> None:
    good = mirror.files.pop(FILES[3])

    def mend() -> None:
        while FILES[3] not in mirror.asked:
            time.sleep(0.01)
        mirror.files[FILES[3]] = good

    thread = threading.Thread(target=mend)
    thread.start()
    fetch(source, cache=tmp_path, retries=1)
    thread.join()
    assert mirror.asked.count(FILES[3]) == 2
    assert _kept(tmp_path) == sorted(FILES)


def test_a_spoilt_file_in_the_cache_is_fetched_anew(mirror: Mirror, source: Source, tmp_path: Path) -> None:
    folder = fetch(source, cache=tmp_path)
    (folder / FILES[0]).write_bytes(b"spoilt")
    fetch(source, cache=tmp_path)
    assert (folder / FILES[0]).read_bytes() == mirror.files[FILES[0]]


def test_a_cache_that_cannot_be_written_is_refused(source: Source, tmp_path: Path) -> None:
    (tmp_path / "small").write_bytes(b"a file where the folder should be")
    with pytest.raises(DataError, match=r"data\.name=small: cannot keep train-images-idx3-ubyte\.gz in .*small: "):
        fetch(source, cache=tmp_path, retries=0)


def _fetch_and_read(source: Source, cache: Path, failures: multiprocessing.SimpleQueue[str]) -> None:
    folder = fetch(source, cache=cache)
    for name, digest in source.md5.items():
        if hashlib.md5((folder / name).read_bytes()).hexdigest() != digest:
            failures.put(name)


def test_processes_may_fetch_at_the_same_time(source: Source, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    failures = context.SimpleQueue()
    workers = [context.Process(target=_fetch_and_read, args=(source, tmp_path, failures)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert failures.empty()
    assert _kept(tmp_path) == sorted(FILES)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_alone(
    terminal: bool, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    fetch(source, cache=tmp_path)
    shown = screen.getvalue()
    assert (f"downloading {FILES[0]} 100%" in shown) == terminal
    assert terminal or not shown
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["fashion_mnist", "mnist"])
def test_load_downloads_into_the_users_cache(
    name: str, mirror: Mirror, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way, but for the sums, which are those of the fixture."""
    module = sys.modules[f"gradlab.data.{name}"]
    monkeypatch.setattr(module, "SOURCE", Source(name, "http://127.0.0.1:9/", source.md5))
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    data = load(build({"data.name": name, "data.mirror": mirror.address}).data)
    assert data.train_inputs.shape == (160, 28, 28)
    assert _kept(tmp_path / "gradlab" / name) == sorted(FILES)


@pytest.mark.parametrize("name", ["fashion_mnist", "mnist"])
def test_published_sums_guard_a_mirror(
    name: str, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    with pytest.raises(DataError, match=f"data.name={name}: .*MD5"):
        load(build({"data.name": name, "data.mirror": mirror.address}).data)
    assert _kept(tmp_path) == []
    assert mirror.asked == [FILES[0]] * 2
