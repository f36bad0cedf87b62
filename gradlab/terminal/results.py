"""What `gradlab ls` prints: the results of a folder, what each swept, how it ended, and its verdicts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from gradlab.diagnose.rules import ORDER, names
from gradlab.spec.named import SpecError
from gradlab.store.documents import Manifest, read_manifest
from gradlab.store.folder import Folder, results_under
from gradlab.store.parts import Parts
from gradlab.terminal.grids import Head, show_table
from gradlab.terminal.ranks import short
from gradlab.terminal.screen import counted

MOST_VERDICTS = 3
"""Verdicts that are named; two others or more are counted."""


@dataclass(frozen=True)
class Line:
    """One result in words."""

    folder: str
    started: str
    runs: str
    swept: str
    state: str
    verdicts: str


def lines(root: Path) -> list[Line]:
    """The results under ``root``, the oldest first, behind itself if it is one.

    Raises `SpecError` where there are none, or no such folder.
    """
    if not root.is_dir():
        raise SpecError(f"{root}: no such folder; gradlab ls lists the results of a folder, outputs by default")
    found = [*([root] if Folder(root).manifest.is_file() else []), *results_under(root)]
    if not found:
        raise SpecError(f"{root}: holds no results of gradlab")
    return [_line(path, root) for path in found]


def _line(path: Path, root: Path) -> Line:
    name = str(root if path == root else path.relative_to(root))
    try:
        manifest, verdicts = read_manifest(path), _verdicts(Folder(path))
    except SpecError as error:
        # A result that cannot be read must not hide the others.
        return Line(name, "", "", "", str(error).removeprefix(f"{path}: "), "")
    return Line(
        folder=name,
        started=str(manifest["started"])[:16].replace("T", " "),
        runs=f"{manifest['runs']:,}",
        swept=_swept(manifest),
        state=str(manifest["state"]),
        verdicts=verdicts,
    )


def _swept(manifest: Manifest) -> str:
    """The keys that vary; of a cure how many changes were tried, for these vary nearly all."""
    if "cure" in manifest:
        return counted(len(manifest["cure"]["changes"]) - 1, "change")
    return ", ".join(map(short, manifest["swept"]))


def _verdicts(folder: Folder) -> str:
    if not folder.table("runs").exists():
        return ""
    count: Counter[str] = Counter()
    for batch in Parts(folder.table("runs"), "runs").batches(["verdict"]):
        for one in batch["verdict"].value_counts().to_pylist():
            count.update(dict.fromkeys(names(one["values"]), one["counts"]))
    common = sorted(count, key=lambda name: (-count[name], ORDER.index(name)))
    named = common if len(common) == MOST_VERDICTS + 1 else common[:MOST_VERDICTS]
    told = ", ".join(f"{count[name]:,} {name}" for name in named)
    return told + (f" and {len(common) - len(named)} other verdicts" if len(named) < len(common) else "")


def show(out: Console, found: Sequence[Line]) -> None:
    """A row a result; folders stay whole, since they are copied, and dates are left out where the folders tell them."""
    dated = all(re.match(r"\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d", line.folder) for line in found)
    heads = [Head("folder"), Head("started"), Head("runs", number=True)]
    heads += [Head(name, text=True) for name in ("swept", "state", "verdicts")]
    rows = [[getattr(line, head.words) for head in heads] for line in found]
    kept = [place for place, head in enumerate(heads) if not (dated and head.words == "started")]
    show_table(out, [heads[place] for place in kept], [[row[place] for place in kept] for row in rows])
