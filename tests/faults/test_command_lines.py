"""Command lines and experiment files that nobody would write: a run, or one sentence; never another exception.

`make faults` draws 10,000 of each; ``GRADLAB_FUZZED_LINES`` says how many.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from gradlab.grid.compose import compose_run
from gradlab.grid.expand import OUTSIDE
from gradlab.spec.keys import GROUPS, KEYS
from gradlab.spec.named import SpecError
from gradlab.theory.predict import predict

hypothesis: Any = pytest.importorskip("hypothesis")
drawn: Any = pytest.importorskip("hypothesis.strategies")

LINES = int(os.environ.get("GRADLAB_FUZZED_LINES", "40"))

ODD = (
    *("", "null", "true", "???", "0", "-1", "1e308", "-1e308", "1e-320", "nan", "inf", "5e-324", "9223372036854775807"),
    *("1" * 400, "1_0", "0x10", "١", "²", "[1]", "{a: 1}", "a,b", "1,2,", "range(3)", "range(0,1e12)", "interval(0,1)"),
    *("glob(*)", "choice(relu,tanh)", "shuffle(range(5))", "sort(3,1)", "${seed}", "${oc.env:HOME}", "${model.depth}"),
    *("'", '"', "\\", "=", "@", "~", "rellu", "relu", "tanh", "rnn", "adding", "mnist", "full", "none", "batch", "he"),
)


def checked(line: list[str], **more: Any) -> None:
    """A run that theory can look at, or one line of at most a screen."""
    try:
        grid = compose_run(line, **more)
    except SpecError as refused:
        said = str(refused)
        assert said
        assert "\n" not in said
        assert len(said) < 4000
    else:
        assert predict(grid.runs[0]).note


def always(check: Any, **strategies: Any) -> None:
    settings = hypothesis.settings(
        max_examples=LINES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    settings(hypothesis.given(**strategies)(check))()


def test_no_command_line_ends_in_another_exception() -> None:
    keys = drawn.one_of(
        drawn.sampled_from([*KEYS, *OUTSIDE, *GROUPS, "experiment", "model", "train"]), drawn.text(max_size=8)
    )
    values = drawn.one_of(
        drawn.sampled_from(ODD),
        drawn.integers().map(str),
        drawn.floats().map(str),
        drawn.text(max_size=20),
        drawn.lists(drawn.sampled_from(ODD), min_size=1, max_size=3).map(",".join),
    )
    words = drawn.tuples(drawn.sampled_from(["", "", "", "+", "++", "~"]), keys, drawn.just("="), values).map("".join)

    def check(line: list[str]) -> None:
        checked(line)

    always(check, line=drawn.lists(words, min_size=1, max_size=4))


def test_no_experiment_file_ends_in_another_exception(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    names = drawn.sampled_from(
        [*("experiment", "axes", "expect", "report", "defaults", "model", "optim", "data", "seed", "x"), *KEYS]
    )
    leaves = drawn.one_of(drawn.none(), drawn.booleans(), drawn.integers(), drawn.floats(), drawn.sampled_from(ODD))
    content = drawn.recursive(
        leaves,
        lambda inner: drawn.lists(inner, max_size=3) | drawn.dictionaries(names, inner, max_size=4),
        max_leaves=12,
    )

    def check(content: Any) -> None:
        text = yaml.safe_dump(content, allow_unicode=True)
        (tmp_path / "experiment/mine.yaml").write_text(f"# @package _global_\n{text}", encoding="utf-8")
        checked([], experiment="mine", config_dirs=[tmp_path])

    always(check, content=drawn.dictionaries(names, content, max_size=5))
