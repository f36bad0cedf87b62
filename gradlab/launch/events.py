"""What passes between the command and its workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradlab.diagnose.thresholds import Limits
    from gradlab.grid.cohorts import Piece
    from gradlab.spec.plugins import Source
    from gradlab.spec.run import RunSpec


def _limits() -> Limits:
    # Not at import: workers are started before anything else is.
    from gradlab.diagnose.thresholds import DEFAULTS

    return DEFAULTS


@dataclass(frozen=True)
class Job:
    """A piece, its runs, the folder that takes its tables, and the thresholds that its runs are judged by.

    ``weights``: whether those that the runs end with are stored; ``plugins``: where choices of the user's own
    come from.
    """

    piece: Piece
    runs: tuple[RunSpec, ...]
    folder: Path
    limits: Limits = field(default_factory=_limits)
    weights: bool = False
    plugins: tuple[Source, ...] = ()


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
