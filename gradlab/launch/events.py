"""What passes between the command and its workers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gradlab.plan import Piece
from gradlab.spec import RunSpec


@dataclass(frozen=True)
class Job:
    """A piece, its runs, and the folder that takes its tables."""

    piece: Piece
    runs: tuple[RunSpec, ...]
    folder: Path


@dataclass(frozen=True)
class Event:
    """What is said of a piece.

    ``kind``: started, progress, halved (into ``chunks``), finished, failed (``error`` in one line, ``details`` with the
    traceback), or unwritable (its tables could not be written). ``share`` of the piece that is done; ``diverged`` and
    ``failed`` runs so far.
    """

    kind: str
    piece: int
    share: float = 0.0
    diverged: int = 0
    failed: int = 0
    chunks: tuple[int, ...] = ()
    error: str | None = None
    details: str = ""
