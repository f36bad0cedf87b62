"""`docs/watching.md`: its loop prints what it says, and the scripts in `examples/` run under `gradlab watch`."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import pytest
import torch

import gradlab
from tests.commands import forked

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "watching.md").read_text(encoding="utf-8")


def test_the_loop_prints_what_it_says(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    said = re.findall(r"print\(.*\)  # (.+)$", code, re.MULTILINE)
    before = torch.get_rng_state()
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "docs/watching.md", "exec"), {"OUT": tmp_path / "out"})
    torch.set_rng_state(before)
    assert len(said) == 3
    assert out.getvalue().splitlines()[-3:] == said


def test_gradients_clipped_before_they_are_unscaled_are_named(tmp_path: Path) -> None:
    script = str(ROOT / "examples" / "clip_before_unscale.py")
    for folder, words, found in (("wrong", (), "overclipped"), ("right", ("--right",), "healthy")):
        ended = forked(("watch", "-o", folder, "--no-report", script, "--steps", "60", *words), tmp_path)
        assert ended.status == 0, ended.err
        (verdict, *_) = json.loads(forked(("verdict", folder, "--json"), tmp_path).out)["runs"][0]["verdicts"]
        assert verdict["name"] == found
        assert found == "healthy" or verdict["cause"]["name"] == "clip_scaled"


@pytest.mark.parametrize(("name", "runs"), [("transformer", ["model"]), ("dcgan", ["net_g", "net_d"])])
def test_the_examples_run(name: str, runs: list[str], tmp_path: Path) -> None:
    ended = forked(
        ("watch", "--every", "4", "-o", "out", "--no-report", str(ROOT / "examples" / f"{name}.py"), "--steps", "6"),
        tmp_path,
    )
    assert ended.status == 0, ended.err
    frames = gradlab.load(tmp_path / "out")
    assert frames.runs["steps"].tolist() == [6] * len(runs)
    told = forked(("verdict", "out", "--json"), tmp_path).out
    assert re.findall(r'^   "name": "(\w+)"', told, re.MULTILINE) == runs
