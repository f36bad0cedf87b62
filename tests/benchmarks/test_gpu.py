"""The benchmark of a GPU, without one: what is seen is kept, whatever ends a part."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.choices import compared


def kept(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_part_whose_seconds_are_over_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpu.PARTS, "machine", (0.05, gpu.machine))
    gpu.run("machine", "cpu", tmp_path)
    (end,) = kept(tmp_path)
    assert (end["part"], end["what"], end["status"]) == ("machine", "end", -9)


def test_every_line_is_kept_for_a_program_and_for_a_reader(tmp_path: Path) -> None:
    gpu.note(tmp_path, "step", '{"what": "step", "members": 4}')
    gpu.note(tmp_path, "step", "a warning of somebody's\n")
    assert [line["what"] for line in kept(tmp_path)] == ["step", "said"]
    assert (tmp_path / "report.txt").read_text(encoding="utf-8").splitlines()[0] == "step: step  members 4"


def test_a_choice_is_compared_number_by_number() -> None:
    assert compared("optim.name", "sgd", "float64", "cpu") == {"apart": 0.0, "at_first": 0.0, "captured": True}
