"""What stands on the screen while a command runs: bars in 80 columns, plain lines elsewhere, one line for an error."""

from __future__ import annotations

import fcntl
import io
import os
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from gradlab.grid.cohorts import Plan, make_plan
from gradlab.launch.devices import CPU_MEMORY
from gradlab.spec.run import build
from gradlab.terminal import progress, screen
from gradlab.terminal.grids import Head, show_table
from gradlab.terminal.progress import Tally, gauge
from gradlab.terminal.screen import say_error
from tests.commands import ENVIRONMENT, GRADLAB, forked

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def plan_of(count: int) -> Plan:
    runs = [build({"model.depth": depth, "seed": seed}) for depth in (5, 20) for seed in range(count)]
    return make_plan(runs, CPU_MEMORY, 2)


def terminal(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, height=24, force_terminal=True, highlight=False)


def written(out: Console) -> str:
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_the_bars_of_a_grid_fit_80_columns() -> None:
    plan = plan_of(216)
    out = terminal()
    tally = Tally(43_200, finished=31_234, diverged=9_876, failed=543)
    with gauge(out, plan.pieces, tally) as bars:
        for piece in plan.pieces[:6]:
            bars.started(piece.index)
            bars.moved(piece.index, 0.5)
        assert len(bars.bars) == progress.PIECE_BARS
        bars.ended(0)
        assert 0 not in bars.bars
    lines = ESCAPES.sub("", written(out)).replace("\r", "\n").splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert any(line.startswith("grid") and "left" in line for line in lines)
    assert any(line.startswith("cohort ") and "runs" in line for line in lines)
    assert any("31234 finished, 9876 diverged, 543 failed of 43200" in line for line in lines)


def test_a_single_run_has_one_bar() -> None:
    plan = make_plan([build({})], CPU_MEMORY, 2)
    out = terminal()
    with gauge(out, plan.pieces, Tally(1)) as bars:
        bars.started(0)
        bars.moved(0, 0.5)
        assert bars.bars == {}
    text = ESCAPES.sub("", written(out))
    assert "run" in text
    assert "50 %" in text
    assert "finished" not in text


def test_a_file_gets_a_plain_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr("gradlab.terminal.progress.time.monotonic", lambda: clock)
    plan = plan_of(4)
    out = Console(file=io.StringIO(), width=80)
    with gauge(out, plan.pieces, Tally(8, finished=3)) as bars:
        bars.spoke = clock
        for share in (0.1, 0.2, 0.5, 0.6):
            clock += 6
            bars.moved(0, share)
        bars.moved(0, 1.0)
    lines = written(out).splitlines()
    assert len(lines) == 2
    assert all(line.endswith("%  3 finished, 0 diverged, 0 failed of 8") for line in lines)


def test_the_tally_counts_states() -> None:
    tally = Tally(5)
    tally.add(["finished", "diverged", "finished", "failed"])
    assert str(tally) == "2 finished, 1 diverged, 1 failed of 5"


def test_prose_is_wrapped_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for columns, width in (("50", 50), (None, 80)):
        monkeypatch.delenv("COLUMNS", raising=False)
        if columns is not None:
            monkeypatch.setenv("COLUMNS", columns)
        out = screen.console()
        assert out.width == width
        out.print("word " * 60)
        path = "outputs/" + "long/" * 30
        screen.show_files(out, [("report", path)])
        *prose, files = capsys.readouterr().out.splitlines()
        assert width - 6 < max(map(cell_len, prose)) <= width
        assert files == f"report  {path}"


def test_an_error_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    say_error(f"[bold]{'long ' * 40}:+1: /path/[x]")
    assert capsys.readouterr().err == f"gradlab: error: [bold]{'long ' * 40}:+1: /path/[x]\n"


def in_terminal(arguments: list[str], cwd: Path, columns: int = 80) -> str:
    """What `gradlab` writes to a terminal of 24 lines."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {key: value for key, value in ENVIRONMENT.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [GRADLAB, *arguments],
        cwd=cwd,
        env=environment | {"TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    said = b""
    with open(ours, "rb", buffering=0) as end:  # noqa: PTH123 - a descriptor has no path
        while True:
            try:
                part = end.read(65536)
            except OSError:  # how Linux says that nobody holds the other end any more
                break
            if not part:
                break
            said += part
    assert process.wait(timeout=60) == 0, said
    return said.decode("utf-8")


def test_a_sweep_in_a_terminal(tmp_path: Path) -> None:
    line = ["sweep", "model.depth=2,3", "seed=range(4)", "optim.lr=0.1,1e38", "model.width=8", "train.steps=60"]
    said = in_terminal([*line, "launch.workers=1", "--no-report"], tmp_path)
    assert "\x1b[" in said
    lines = re.split(r"[\r\n]+", ESCAPES.sub("", said))
    # The path of the results is one word, to be copied, and wraps where the terminal ends.
    assert max(cell_len(text) for text in lines if "outputs/" not in text) <= 80
    assert any(text.startswith("grid") for text in lines)
    assert any(text.startswith("8 finished, 8 diverged, 0 failed of 16 runs.") for text in lines)


def test_a_deep_run_in_a_terminal(tmp_path: Path) -> None:
    line = ["run", "model.depth=50", "model.activation=sigmoid", "model.init=xavier", "model.width=8", "train.steps=1"]
    lines = re.split(r"[\r\n]+", ESCAPES.sub("", in_terminal([*line, "--no-report"], tmp_path)))
    assert max(cell_len(text) for text in lines if "outputs/" not in text) <= 80
    rows = [text for text in lines if re.match(r" {0,4}\d+ (input|hidden_\d+|output) ", text)]
    assert len(rows) == 8
    assert any("8 of 51 rows are shown" in text for text in lines)


def test_a_file_gets_no_colours(tmp_path: Path) -> None:
    ended = forked(["run", "model.depth=3", "model.width=8", "train.steps=1", "--no-report"], tmp_path)
    assert (ended.status, ended.err) == (0, "")
    assert "\x1b" not in ended.out
    assert "\r" not in ended.out
    assert max(cell_len(line) for line in ended.out.splitlines() if not line.startswith("tables")) <= 80


HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x9b2J\u202eback"
SHOWN = r"\x1b]0;owned\x07\x1b[31mred\x9b2J\u202eback"


def test_no_line_of_a_file_ends_in_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    out = screen.console()
    show_table(out, [Head("name"), Head("what it is", text=True)], [["a", "one word " * 20], ["b", "none"]])
    out.print("a sentence that goes on in the next line " * 4)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 6
    assert all(line == line.rstrip() for line in lines)


def test_control_characters_of_others_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    out = screen.Screen(file=io.StringIO(), width=200, force_terminal=True, highlight=False)
    screen.show_question(out, "mine", {"question": HOSTILE, "source": HOSTILE})
    screen.show_files(out, [("tables", f"out/{HOSTILE}")])
    show_table(out, [Head(HOSTILE), Head("what", text=True)], [[HOSTILE, HOSTILE]])
    plain = ESCAPES.sub("", written(out))
    assert plain.count(SHOWN) == 6
    assert not set(plain) & set("\x07\x1b\x9b\u202e")
    say_error(f"the server answers 404 {HOSTILE}")
    assert f"404 {SHOWN}" in capsys.readouterr().err


def test_a_size_that_is_none_is_as_if_none_were_given(tmp_path: Path) -> None:
    found = [
        subprocess.run(
            [GRADLAB, "list", "norms"],
            cwd=tmp_path,
            env={name: value for name, value in ENVIRONMENT.items() if name not in ("COLUMNS", "LINES")} | sizes,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for sizes in ({}, *({"COLUMNS": size, "LINES": size} for size in ("0", "²", "-5", "wide", "", "٣")))
    ]
    assert found == [found[0]] * 7
