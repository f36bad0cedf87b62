"""Output that goes into a torn pipe, nowhere at all, or an encoding without Greek letters."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ENVIRONMENT, TINY

GRADLAB = [sys.executable, "-m", "gradlab"]


def piped(line: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of a shell in which `$G` is the command."""
    return subprocess.run(
        ["bash", "-c", line],
        cwd=cwd,
        env={**ENVIRONMENT, "G": " ".join(GRADLAB), **environment},
        capture_output=True,
        encoding=environment.get("PYTHONIOENCODING", "utf-8"),
        check=False,
        timeout=120,
    )


def test_a_sweep_outlives_the_reader_of_its_output(tmp_path: Path) -> None:
    line = f"$G sweep {' '.join(TINY)} seed=0,1,2 --no-report -o out | head -1; echo ${{PIPESTATUS[0]}}"
    ended = piped(line, tmp_path)
    assert ended.stdout.splitlines()[-1] == "0"
    assert ended.stderr == ""
    assert json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))["state"] == "done"


@pytest.mark.parametrize(
    "line", ["$G list norms >&-", "$G list norms 2>&-", "$G list | head -1; exit ${PIPESTATUS[0]}"]
)
def test_a_list_ends_well_whoever_reads_it(line: str, tmp_path: Path) -> None:
    ended = piped(line, tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_signs_that_an_encoding_lacks_are_spelled(encoding: str, tmp_path: Path) -> None:
    ended = piped("$G theory model.activation=tanh", tmp_path, PYTHONIOENCODING=encoding)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "critical at s" in ended.stdout
    assert "chi1 = " in ended.stdout
