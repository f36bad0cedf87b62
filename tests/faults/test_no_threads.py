"""Where the system has no thread left: one sentence and the way on, or a command that does without."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.commands import TINY, Gradlab


def test_arrow_without_threads_is_one_sentence_and_nothing_is_lost(
    gradlab_: Gradlab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object, **__: object) -> None:
        raise pa.ArrowException("Failed to launch worker thread. Resource temporarily unavailable")

    with monkeypatch.context() as patched:
        patched.setattr(pq, "ParquetWriter", none_left)
        patched.setattr(pq, "write_table", pq.write_table)
        ended = gradlab_("run", *TINY, "-o", "out", "--no-report")
    if ended.status:
        assert "Traceback" not in ended.err
        assert "gradlab sweep --resume out" in ended.err
    assert gradlab_("sweep", "--resume", "out", "--no-report").status == 0
    assert json.loads((tmp_path / "out/manifest.json").read_text(encoding="utf-8"))["state"] == "done"


def test_a_command_does_without_threads(gradlab_: Gradlab, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    ended = gradlab_("run", *TINY, "-o", "out")
    assert (ended.status, ended.err) == (0, "")
