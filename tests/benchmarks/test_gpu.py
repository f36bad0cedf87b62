"""The benchmark of a GPU, without one: what is seen is kept, whatever ends a part, and becomes a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.choices import compared
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.parts import PARTS, machine, told
from benchmarks.gpu.table import read, tables


def kept(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_part_whose_seconds_are_over_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PARTS, "machine", (60, machine))
    gpu.run("machine", "cpu", tmp_path, left=0.05)
    (end,) = kept(tmp_path)
    assert (end["part"], end["what"], end["status"], end["of"]) == ("machine", "end", -9, 0.05)


def test_what_finds_no_room_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["gpu", "--seconds", "5", "--parts", "loop", "choices", "--out", str(tmp_path)])
    (tmp_path / "results.jsonl").touch()
    gpu.main()
    assert capsys.readouterr().out == "no seconds were left for: --parts loop choices\n"


def test_every_line_is_kept_for_a_program_and_for_a_reader(tmp_path: Path) -> None:
    gpu.note(tmp_path, "step", '{"what": "step", "members": 4}')
    gpu.note(tmp_path, "step", "a warning of somebody's\n")
    assert [line["what"] for line in kept(tmp_path)] == ["step", "said"]
    assert (tmp_path / "report.txt").read_text(encoding="utf-8").splitlines()[0] == "step: step  members 4"


def test_a_choice_is_compared_number_by_number() -> None:
    assert compared("optim.name", "sgd", "float64", "cpu") == {"apart": 0.0, "at_first": 0.0, "captured": True}


def test_what_another_benchmark_prints_is_told_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    told("python", "platform")
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["what"], bool(line["row"])) == ("python", True)
    with pytest.raises(SystemExit, match=r"json\.tool ended with status 2"):
        told("nothing", "json.tool", "--no-such-option")


LINES: tuple[dict[str, Any], ...] = (
    {"what": "machine", "card": "Card X", "torch": "2.11.0", "tflops": 51.26, "gigabytes_s": 4021.7},
    {"what": "grid", "runs": 432, "seconds": [11.0, 9.0], "peak_mib": 2048.0, "same": True},
    {"what": "grid", "training_s": 4.0, "of_arithmetic": 0.123, "of_bandwidth": 0.456},
    {"what": "loop", "share": 12, "seconds": 30.0, "work_s": 90.0, "scaled_s": 1080.0, "optimizer": "SGD, foreach"},
    {
        "what": "compiled",
        "runs": 3,
        "eager_s": 900.0,
        "fused_s": 800.0,
        "compiled_s": 250.0,
        "compilation_s": 1500.0,
        "graphs": 9,
        "refused": 2,
        "apart": 1e-7,
    },
    {"what": "ensembles", "share": 3, "seconds": 40.0, "work_s": 30.0, "scaled_s": 90.0},
    {"what": "tf32", "tflops": 380.0, "half": 0.0, "three_quarters": 1.0},
    {"what": "width", "runs": 432, "width": 16, "seconds": 7.0},
    {"what": "streams", "runs": 432, "streams": 4, "seconds": 12.0, "same": True},
    {"what": "workers", "runs": 4320, "workers": 2, "seconds": 61.0},
    {
        "what": "step",
        "members": 432,
        "depth": 10,
        "width": 64,
        "precision": "float32",
        "kernels": "torch",
        "rehearsed": 1.5,
        "recorded": 2.25,
        "plain": 6.0,
        "captured": True,
    },
    {"what": "architecture", "row": "rnn 0.56 -1% +42% 22.6 23.0 40.0 x 2.0 x graph"},
    {"what": "choice", "name": "relu", "precision": "float32", "at_first": 2e-6, "captured": True},
    {"what": "choice", "name": "muon", "precision": "float32", "at_first": 3e-3, "captured": False},
    {"what": "choice", "name": "agc", "precision": "float32", "failed": "RuntimeError: no"},
    {"what": "end", "part": "loop", "status": 0, "seconds": 31.0, "of": 60},
    {"what": "end", "part": "choices", "status": -9, "seconds": 120.0, "of": 120},
)


def test_lines_become_tables_with_the_card_on_each(tmp_path: Path) -> None:
    for name, part in (("one", LINES[:5]), ("two", LINES[5:])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in part), "utf-8")
    text = tables(read([tmp_path / "one", tmp_path / "two"]))
    for row in (
        "On one **Card X**, PyTorch 2.11.0: 51.3 TFLOP/s of a float32 product of 8192 rows (no TF32), 4,022 GB/s of",
        "| what, on Card X | seconds | against gradlab |  |",
        "| `gradlab sweep`, 432 runs, whole process | 10.0 |  | 9.00 to 11.0 s; the same bit for bit twice; 2,048 MiB",
        "| its training alone | 4.00 |  | 12% of fp32 arithmetic, 46% of bandwidth |",
        # 30 s, and the 90 of work eleven times more.
        "| eager loop, SGD, foreach | 1,020 | 102 times | scaled from one run in 12 |",
        "| eager loop, SGD, fused | 800 | 80.0 times | scaled from 3 runs, start-up not counted |",
        "| compiled loop, `reduce-overhead` | 250 | 25.0 times | 3 CUDA graphs a step, 2 without a CUDA graph; comp",
        "| compiled loop and its compilation | 1,750 | 175 times | 108 times |",
        "| `torch.func` ensembles of 12 | 100 | 10.0 times | scaled from one in 3 |",
        "| 432 runs, `launch.streams=4` | 12.0 |  | as with one, bit for bit |",
        "| 4,320 runs, `launch.workers=2` | 61.0 |  |  |",
        "| 432 | 10 | 64 | float32 | torch | 1.50 | 2.25 | 6.00 | yes |",
        "| rnn | 0.56 | -1% | +42% | 22.6 | 40.0 × |",
        "* TF32 rounds ties to even; a product of 8192 rows has 380 TFLOP/s in it.",
        "* 2 named choices in float32 agree with the processor to 3e-03 (muon) at the first step; not muon 3e-03, agc",
        "* Not ended well: choices (status -9, 120 s).",
    ):
        assert row in text
    assert text.count("on Card X") == 4


def test_a_call_that_saw_nothing_makes_no_table() -> None:
    assert tables([]) == ""
