"""Networks, sweeps, numbers and files beyond all measure: refused in one sentence, before anything is expanded."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gradlab.grid.compose import compose_any
from gradlab.spec.named import SpecError

SECONDS = 20.0
"""Which a refusal may take on a loaded machine; alone it takes one."""

TOO_LARGE = {
    "model.depth=1000000000": "at most 100,000",
    "model.depth=9223372036854775807": "at most 100,000",
    "model.width=1,100000000000": "no machine holds more than",
    "data.batch_size=full model.width=1000000000": "one run takes some",
    "model=rnn data=adding data.length=100000000": "at most 100,000",
    "model=rnn model.depth=9223372036854775807": "at most 100,000",
    "model.gain=shuffle(range(0,10000000000))": "a sweep of 10,000,000,000 values; expected at most 1,000,000",
    "seed=range(0,1e18)": "expected at most 1,000,000",
    "seed=range(stop=10000000000,start=1)": "expected at most 1,000,000",
    "seed=sort(range(10000000000))": "expected at most 1,000,000",
    f"++diagnose.dead={'1' * 400}": "expected a finite number",
    f"launch.memory={'9' * 400}": "expected bytes",
    "data=mnist data.root='~nosuchuser'": "no such folder",
}


@pytest.mark.parametrize("line", TOO_LARGE)
def test_what_is_too_large_is_refused_in_a_sentence(line: str) -> None:
    began = time.monotonic()
    with pytest.raises(SpecError) as refused:
        compose_any(line.split(" "))
    assert TOO_LARGE[line] in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 800
    assert time.monotonic() - began < SECONDS


FILES = {
    "nested in brackets": "x: " + "[" * 1500 + "]" * 1500,
    "nested in mappings": "".join(" " * depth + "a:\n" for depth in range(900)),
    "a cycle": "x: &a\n  y: *a\n",
    "itself": "defaults:\n  - mine\n",
    "a list as a key": "report: {x: [model.depth]}\n",
    "a list": "- 1\n",
    "no YAML": "x: [1\n",
}


@pytest.mark.parametrize("case", FILES)
def test_an_experiment_file_that_is_none(case: str, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text(f"# @package _global_\n{FILES[case]}", encoding="utf-8")
    with pytest.raises(SpecError) as refused:
        compose_any([], experiment="mine", config_dirs=[tmp_path])
    assert "\n" not in str(refused.value)
