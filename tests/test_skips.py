"""The list of allowed skips: what it takes, and that a skip that is not on it fails the run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import skips


def test_a_line_allows_its_tests_for_its_reason_alone() -> None:
    allowed = skips.parse("# why\n\ntests/test_a.py::test_gpu* | no CUDA\n")
    assert skips.unlisted([("tests/test_a.py::test_gpu[f(x)]", "Skipped: no CUDA device")], allowed) == []
    other_reason = ("tests/test_a.py::test_gpu", "Skipped: tired")
    other_test = ("tests/test_b.py::test_gpu", "Skipped: no CUDA device")
    assert skips.unlisted([other_reason, other_test], allowed) == [other_reason, other_test]


@pytest.mark.parametrize("line", ["tests/test_a.py", "tests/test_a.py |", "| reason"])
def test_a_line_without_test_and_reason_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"expected `test \| reason`"):
        skips.parse(line)


def test_the_list_parses() -> None:
    assert skips.parse(skips.LIST.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("ci", "status", "workers"), [("true", 1, []), ("", 0, []), ("true", 1, ["-n", "1"])])
def test_an_unlisted_skip_fails_in_ci_only(tmp_path: Path, ci: str, status: int, workers: list[str]) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n\ndef test_runs():\n    pass\n\ndef test_skips():\n    pytest.skip('tired')\n", encoding="utf-8"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.skips", *workers, tmp_path],
        cwd=tmp_path,
        env={"CI": ci, "PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "1 passed, 1 skipped" in done.stdout
    assert "tired" in done.stdout.partition("skipped and not in allowed_skips.txt")[2]
