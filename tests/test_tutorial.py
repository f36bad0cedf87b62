"""Pages of commands: each of them runs, in its order, and prints what the page shows, but for what is left out."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import forked

DOCS = Path(__file__).resolve().parents[1] / "docs"

PAGES = {"tutorial": ["run", "theory", "sweep", "sweep", "cure"], "your-network": ["run", "sweep"]}
"""The verbs on each page, in their order."""

CODE = re.compile(r"^```python\n# (\S+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A file that the page has the reader save."""

BLOCK = re.compile(r"^```console\n\$ gradlab ([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

CLOSE = 0.05
"""By which numbers may differ on another machine: the last digits of a float32 training are its processor's."""


@dataclass(frozen=True)
class Shown:
    """A command of the page, and pieces of its output: lines without a gap, each further down than the one before."""

    words: list[str]
    pieces: list[list[str]]


def shown(page: str) -> list[Shown]:
    """The commands of a page, in order."""
    found = BLOCK.findall(page)
    return [
        Shown(shlex.split(line), [piece.splitlines() for piece in re.split(r"^\.\.\.\n", output, flags=re.MULTILINE)])
        for line, output in found
    ]


def alike(one: str, other: str) -> bool:
    """Whether two lines have the same words, and numbers near each other; ids of runs and bars are of the draw."""
    left, right = one.split(), other.split()
    return len(left) == len(right) and all(map(_alike, left, right))


def _alike(one: str, other: str) -> bool:
    if one == other or re.fullmatch(r"[▁▂▃▄▅▆▇█]+", one):
        return True
    numbers = [re.fullmatch(r"[(]?(-?[\d.,]+(?:e[-+]\d+)?)[%;:,)]*", word) for word in (one, other)]
    if numbers[0] is None or numbers[1] is None:
        return False
    near, far = (float(found[1].rstrip(".,")) for found in numbers if found is not None)
    return near == pytest.approx(far, rel=CLOSE, abs=1e-12)


def place(piece: list[str], lines: list[str], start: int) -> int | None:
    """Where ``piece`` stands in ``lines``, not before ``start``; None where it does not."""
    places = range(start, len(lines) - len(piece) + 1)
    return next((at for at in places if all(map(alike, piece, lines[at : at + len(piece)]))), None)


@pytest.mark.parametrize("name", PAGES)
def test_the_page_says_what_the_commands_print(name: str, tmp_path: Path) -> None:
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    for file, code in CODE.findall(page):
        (tmp_path / file).write_text(f"# {file}\n{code}", encoding="utf-8")
    told = shown(page)
    assert [one.words[0] for one in told] == PAGES[name]
    for one in told:
        quick = [] if one.words[0] == "theory" else ["--no-report"]
        ended = forked([*one.words, *quick], tmp_path)
        assert (ended.status, ended.err) == (0, "")
        lines = [line.rstrip() for line in ended.out.splitlines()]
        at = 0
        for piece in one.pieces:
            found = place(piece, lines, at)
            assert found is not None, f"gradlab {shlex.join(one.words)} does not print\n" + "\n".join(piece)
            at = found + len(piece)


def test_lines_with_other_numbers_are_not_alike() -> None:
    assert alike("loss 2.31 -> 0.0451, 10.3%;", "loss 2.31 -> 0.0452, 10.4%;")
    assert not alike("loss 2.31", "loss 2.91")
    assert not alike("Verdict vanishing: 1", "Verdict exploding: 1")
    assert place(["b", "c"], ["a", "b", "b", "c"], 1) == 2
    assert place(["a"], ["a", "b"], 1) is None
