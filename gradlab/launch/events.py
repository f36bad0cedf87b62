"""What passes between the command and its workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gradlab.diagnose.thresholds import Limits
    from gradlab.grid.cohorts import Piece
    from gradlab.launch.devices import Device
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

    ``kind``: started, progress, halved (into ``chunks``), told (``details`` for the user), finished, failed (``error``
    in one line, ``details`` with the traceback), or unwritable (its tables could not be written). ``share`` of the
    piece that is done; ``diverged`` and ``failed`` runs so far.
    """

    kind: str
    piece: int
    share: float = 0.0
    diverged: int = 0
    failed: int = 0
    chunks: tuple[int, ...] = ()
    error: str | None = None
    details: str = ""


ENDS = ("finished", "failed", "unwritable")
"""Kinds of events after which nothing more is said of a piece."""


def bury(job: Job, error: str) -> Event:
    """Records that the runs of a job whose worker is gone failed, for ``error``."""
    # Arrow, which these import, is not needed before workers are started.
    from gradlab.store.folder import Folder
    from gradlab.store.pieces import save_piece
    from gradlab.store.record import failed_tables

    save_piece(Folder(job.folder), job.piece.index, failed_tables(job.runs, error))
    return Event("failed", job.piece.index, 1.0, failed=len(job.runs), error=error)


def halved(chunks: Sequence[int]) -> tuple[int, ...] | None:
    """Every chunk in two; None where each is one run already.

    >>> halved((5, 1)), halved((1, 1))
    ((3, 2, 1), None)
    """
    halves = tuple(half for chunk in chunks for half in (chunk - chunk // 2, chunk // 2) if half)
    return halves if len(halves) > len(chunks) else None


class Crew(Protocol):
    """Who runs pieces: processes of this machine (`local`), tasks of a Ray cluster (`ray`), jobs of Slurm (`slurm`)."""

    device: Device
    """What each piece is trained on."""
    here: bool
    """Whether that is this machine."""

    @property
    def there(self) -> int:
        """How many pieces at once it is ready for."""

    def at_once(self, asked: int | None, pieces: Sequence[Piece]) -> tuple[int, str | None]:
        """How many of ``pieces`` run at a time, and why they are fewer than ``asked`` (None: by default).

        Raises `SpecError` where one of them can never run.
        """

    def fit(self, count: int) -> None:
        """Makes ready for ``count`` pieces at once; with 0 all that is left is ended."""

    def run(self, jobs: Sequence[Job], *, fail_fast: bool) -> Iterator[Event]:
        """Runs ``jobs`` and yields what is said of them, as it is said; with ``fail_fast`` until the first failure."""


class DetachedError(Exception):
    """The pieces go on without this command; the text says how they are followed."""
