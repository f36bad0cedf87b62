"""`docs/verdicts.md` tells every threshold and every verdict, and its example prints what it says."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import torch

from gradlab.diagnose import ORDER, THRESHOLDS
from gradlab.diagnose.meanings import CAUSES, VERDICTS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "verdicts.md").read_text(encoding="utf-8")


def test_every_threshold_has_its_row() -> None:
    rows = "\n".join(
        f"| `{entry.key}` | {entry.default:g} | {entry.meaning} | {entry.source} |" for entry in THRESHOLDS.values()
    )
    assert rows in PAGE, f"the table of thresholds should be\n{rows}"


def test_every_verdict_has_its_row_in_order() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| ([^|]+) \|", PAGE.partition("## Causes")[0], re.MULTILINE)
    assert [name for name, _ in rows] == list(ORDER)
    assert [judged for _, judged in rows] == [choice.summary.partition("; by ")[0] for choice in VERDICTS.values()]


def test_every_cause_has_its_row() -> None:
    rows = "\n".join(f"| `{name}` | {choice.summary} | {choice.source} |" for name, choice in CAUSES.items())
    assert rows in PAGE


def test_the_example_prints_what_it_says() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    said = re.findall(r"# (\w+ [\d.]+)$", code, re.MULTILINE)
    before = torch.get_rng_state()
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "docs/verdicts.md", "exec"), {})
    torch.set_rng_state(before)
    assert said
    assert out.getvalue().splitlines() == said
