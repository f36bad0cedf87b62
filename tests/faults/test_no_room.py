"""Disks that are full or may not be written, a user who may have no further process, a cache that many want."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradlab.nn.kernels import calls
from gradlab.nn.kernels.compiler import library
from tests.commands import ENVIRONMENT, GRADLAB, TINY, Gradlab, assert_same_tables

GRID = ("seed=range(6)", "launch.memory=1", "--no-report")


def mount(*words: str) -> bool:
    return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own: a tmpfs, of which a size can be asked for."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or not mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)):
        pytest.skip("only root mounts a disk")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.parametrize("kilobytes", [4, 24, 120, 200])
def test_a_full_disk_is_one_sentence_and_a_resume_goes_on(
    kilobytes: int, disk: Path, gradlab_: Gradlab, tmp_path: Path
) -> None:
    assert gradlab_("sweep", *TINY, *GRID, "-o", "whole").status == 0
    assert mount("-o", f"remount,size={kilobytes}k", str(disk))
    ended = gradlab_("sweep", *TINY, *GRID, "-o", "disk/out")
    assert ended.status == 1
    assert "No space left on device" in ended.err
    assert "Traceback" not in ended.err
    assert mount("-o", "remount,size=64m", str(disk))
    begun = (disk / "out/manifest.json").exists()
    assert ("sweep --resume disk/out" in ended.err) == begun
    line = ("--resume", "disk/out", "--no-report") if begun else (*TINY, *GRID, "-o", "disk/out")
    ended = gradlab_("sweep", *line)
    assert (ended.status, ended.err) == (0, "")
    assert_same_tables(disk / "out", tmp_path / "whole")
    assert not list((disk / "out").glob(".*"))


def test_a_disk_that_may_not_be_written_is_read(disk: Path, gradlab_: Gradlab, tmp_path: Path) -> None:
    assert gradlab_("sweep", *TINY, *GRID, "-o", "disk/out").status == 0
    assert mount("-o", "remount,ro", str(disk))
    for line in (("sweep", *TINY, *GRID, "-o", "disk/new"), ("report", "disk/out"), ("run", *TINY, "-o", "disk/run")):
        ended = gradlab_(*line)
        assert ended.status in (1, 2), line
        assert "Read-only file system" in ended.err
        assert "Traceback" not in ended.err
        assert "disk/" in ended.err.splitlines()[0]
    assert gradlab_("report", "disk/out", "-o", "elsewhere").status == 0
    assert gradlab_("ls", "disk").status == 0


@pytest.mark.parametrize("most", [1, 6])
def test_a_user_who_may_have_no_further_process_is_told_so_and_loses_nothing(
    most: int, gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ulimit -u`, which does not hold for root: as another user, who may read and write what root may.

    Kernels in the cache are root's and not that user's, so that torch computes, here and there.
    """
    monkeypatch.setattr(calls, "kernels", lambda _: None)
    if os.geteuid() != 0 or shutil.which("setpriv") is None or shutil.which("prlimit") is None:
        pytest.skip("only root becomes another user")
    may = "+dac_override,+dac_read_search"
    other = f"setpriv --reuid 54321 --clear-groups --inh-caps={may} --ambient-caps={may} prlimit --nproc={most}"
    line = (*TINY, *GRID, "launch.workers=2", "--device", "cpu")
    done = subprocess.run(
        [*shlex.split(other), GRADLAB, "sweep", *line, "-o", "out"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    if done.returncode:
        assert "Resource temporarily unavailable; no further process or thread can be started: ulimit -u" in done.stderr
    assert done.returncode == (1 if most == 1 else 0)
    begun = (tmp_path / "out/manifest.json").exists()
    assert gradlab_("sweep", *line, "-o", "whole").status == 0
    assert gradlab_("sweep", *(("--resume", "out", "--no-report") if begun else (*line, "-o", "out"))).status == 0
    assert_same_tables(tmp_path / "out", tmp_path / "whole")


@pytest.mark.skipif(library("float32") is None, reason="no C compiler")
def test_many_that_find_an_empty_cache_compile_once(tmp_path: Path) -> None:
    """Four processes at once: one compiles, the others wait for it and load the same library."""
    compiler = os.environ.get("CC") or "cc"
    counted, calls = tmp_path / "cc", tmp_path / "calls"
    counted.write_text(
        f'#!/bin/sh\ncase "$*" in *-shared*) echo once >> {calls};; esac\nexec {compiler} "$@"\n', encoding="utf-8"
    )
    counted.chmod(0o755)
    code = "from gradlab.nn.kernels.compiler import library; print(library('float32'))"
    environment = {**ENVIRONMENT, "CC": str(counted), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    rivals = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    found = {process.communicate(timeout=120)[0] for process in rivals}
    assert len(found) == 1
    assert Path(found.pop().strip()).is_file()
    assert calls.read_text(encoding="utf-8") == "once\n"
