"""A report that follows its result: served to this machine alone, drawn anew when runs have ended."""

from __future__ import annotations

import shutil
import signal
import socket
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradlab.report import serving, write_report
from gradlab.report.serving import Follower
from gradlab.spec.named import SpecError
from tests.conftest import dotted
from tests.synthetic import write_result


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[Follower]:
    folder = write_result(tmp_path / "result", [{"seed": seed} for seed in range(2)])
    with dotted():
        yield Follower(folder, tmp_path / "report", lambda source, out: write_report([source], out))


def get(address: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as answer:
            return answer.status, answer.read().decode("utf-8")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


def test_it_answers_this_machine_with_the_page_and_its_files(follower: Follower) -> None:
    with serving.serving(follower) as address:
        assert address.startswith("http://127.0.0.1:")
        status, page = get(address)
        assert status == 200
        assert "gradlab report, 2 runs" in page
        assert 'fetch("version")' in page
        assert get(f"{address}runs.csv")[1].startswith('"run_id"')
        assert get(f"{address}version") == (200, "1")
        for name in ("nothing", "../result/manifest.json", "%2e%2e/result/manifest.json"):
            assert get(address + name)[0] == 404
        assert get(address, Host="somewhere.example:80")[0] == 403
        with pytest.raises(SpecError, match=r"--port \d+: .*--port 0"):
            serving.serving(follower, int(address.rstrip("/").rpartition(":")[2])).__enter__()
    with pytest.raises(urllib.error.URLError):
        get(address)


def test_it_is_drawn_anew_only_where_runs_have_ended(follower: Follower, tmp_path: Path) -> None:
    assert follower.look()
    assert not follower.look()
    more = write_result(tmp_path / "more", [{"seed": seed} for seed in range(3)])
    shutil.copytree(more, follower.folder, dirs_exist_ok=True)
    assert follower.look()
    assert follower.version == 2
    assert "gradlab report, 3 runs" in follower.page()


def test_a_folder_without_a_run_waits(follower: Follower, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    empty = write_result(tmp_path / "empty", [])
    waiting = Follower(empty, tmp_path / "out", follower.draw)
    assert not waiting.look()
    assert "No run has ended yet." in waiting.page()
    assert 'fetch("version")' in waiting.page()
    with serving.serving(waiting) as address:
        assert get(address + "favicon.ico")[0] == 404
        with socket.create_connection(("127.0.0.1", int(address.rstrip("/").rpartition(":")[2]))) as leaving:
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            leaving.send(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
        assert get(address)[0] == 200
    assert capfd.readouterr().err == ""


def test_the_command_says_where_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    folder = write_result(tmp_path / "result", [{"train.steps": 10, "seed": 0}])
    command = [sys.executable, "-m", "gradlab", "report", "--serve", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = line.split()[1]
            assert "gradlab report, 1 run" in get(address)[1]
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""
        finally:
            process.kill()
    assert not (folder / "report").exists()
