"""The folder of a result: the places in it, how it is made, and how it is held by one process at a time.

The only file that knows paths. What is written lies in `documents`, `pieces` and `tables`.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gradlab.spec.named import SpecError
from gradlab.store.atomic import is_left_over

NAMED = 3
"""Results below a folder that a message names."""

OUTPUTS = Path("outputs")
"""Where results lie unless a folder is given."""


@dataclass(frozen=True)
class Folder:
    """A result's folder and the places in it."""

    root: Path

    @property
    def manifest(self) -> Path:
        """What was run, where, when, and the pieces of the plan."""
        return self.root / "manifest.json"

    @property
    def config(self) -> Path:
        """The resolved config; of a sweep, its base."""
        return self.root / "config.yaml"

    @property
    def overrides(self) -> Path:
        """The overrides as they were given."""
        return self.root / "overrides.yaml"

    @property
    def grid(self) -> Path:
        """Every run's spec, in order: what a resume reads."""
        return self.root / "grid.json"

    @property
    def pieces(self) -> Path:
        """Tables of finished pieces, until they are merged."""
        return self.root / "pieces"

    @property
    def weights(self) -> Path:
        """The weights that runs ended with, where they were to be stored."""
        return self.root / "weights"

    @property
    def dropped(self) -> Path:
        """The same while they are being removed."""
        return self.root / ".pieces"

    @property
    def begun(self) -> Path:
        """There until the manifest is: what lies beside it was left by a start that came no further."""
        return self.root / ".begun"

    @property
    def errors(self) -> Path:
        """Tracebacks of runs that crashed."""
        return self.root / "errors.log"

    @property
    def expectations(self) -> Path:
        """What the experiment was expected to show, beside what was measured."""
        return self.root / "expectations.json"

    @property
    def jobs(self) -> Path:
        """Which jobs of Slurm have which pieces, beside their logs; there while any may be at work."""
        return self.root / "slurm" / "jobs.json"

    @property
    def report(self) -> Path:
        """The report's folder."""
        return self.root / "report"

    def table(self, name: str) -> Path:
        """The Parquet file of one of `TABLES`."""
        return self.root / f"{name}.parquet"

    def piece(self, index: int, name: str) -> Path:
        """The same of one piece."""
        return self.pieces / f"{index:05d}.{name}.parquet"

    def said(self, index: int) -> Path:
        """What a job of Slurm said of a piece, a line an event."""
        return self.pieces / f"{index:05d}.said.jsonl"

    def checkpoint(self, index: int, start: int) -> Path:
        """A piece in the middle of its training, from its run ``start`` on."""
        return self.pieces / f"{index:05d}.from{start:05d}.safetensors"

    def checkpoints(self, index: int) -> list[Path]:
        """All of a piece."""
        return sorted(self.pieces.glob(f"{index:05d}.from*.safetensors"))

    def weights_of(self, run_id: str) -> Path:
        """The weights of one run."""
        return self.weights / f"{run_id}.safetensors"


@contextmanager
def new_result(out: Path | None, name: str, now: dt.datetime) -> Iterator[Folder]:
    """A new folder, held for this process alone: ``out`` itself, or outputs/<date>/<time>-<name>, made exclusively.

    It becomes a result with its manifest. Raises `SpecError` where ``out`` holds anything but what a start that came
    not so far left there, where another process is at work in it, and where no folder can be made.
    """
    if out is not None:
        _check_name(out)
    there = out is not None and out.is_dir()
    folder = Folder(_new_folder(now, name) if out is None else _made(out))
    with locked(folder):
        if folder.manifest.exists():
            raise SpecError(f"-o {out}: already holds a result; give a new folder, or gradlab sweep --resume {out}")
        if out is not None and (foreign := _foreign(folder)) is not None:
            raise SpecError(f"-o {out}: already there and not empty ({foreign}); give a new folder")
        sweep_up(folder)
        folder.begun.touch()
        try:
            yield folder
        except BaseException:
            _leave(folder, there=there)
            raise
        _leave(folder, there=True)


def has_begun(folder: Folder) -> None:
    """Once the manifest is there: it is a result, and `outputs/latest` points to it if it lies among the others."""
    folder.begun.unlink()
    if OUTPUTS.absolute() in folder.root.absolute().parents:
        _point_latest(folder)


def _leave(folder: Folder, *, there: bool) -> None:
    """Removes what says that a start is under way, and a folder that was not ``there`` and took nothing in."""
    if folder.manifest.exists() or list(folder.root.iterdir()) == [folder.begun]:
        folder.begun.unlink(missing_ok=True)
    if not there and not any(folder.root.iterdir()):
        folder.root.rmdir()


def _check_name(out: Path) -> None:
    try:
        str(out).encode()
    except UnicodeEncodeError:
        raise SpecError(f"-o {str(out)!r}: expected a name in UTF-8") from None


def _foreign(folder: Folder) -> str | None:
    """The name of something in the folder that no start of gradlab's own left there."""
    own = (folder.config, folder.overrides, folder.grid, folder.begun, folder.pieces)
    for path in sorted(folder.root.iterdir()):
        left = path in own and not path.is_symlink() and not (path == folder.pieces and any(path.iterdir()))
        if not folder.begun.exists() or not (left or is_left_over(path)):
            return path.name
    return None


def time_here() -> dt.datetime:
    """The time, in the zone of this machine; in UTC where that is one that no place on earth has (TZ=UTC+99)."""
    try:
        return dt.datetime.now().astimezone()
    except ValueError:
        return dt.datetime.now(dt.UTC)


def sweep_up(folder: Folder) -> None:
    """Removes what processes that were killed left behind in a folder that this one holds."""
    # Jobs of Slurm write their pieces without holding the folder.
    for place in (folder.root, folder.report, *(() if folder.jobs.is_file() else (folder.pieces,))):
        for path in place.iterdir() if place.is_dir() else ():
            if not is_left_over(path):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    if folder.manifest.exists():
        folder.begun.unlink(missing_ok=True)


def _point_latest(folder: Folder) -> None:
    """Lets `outputs/latest` point to the folder, where the file system has links and the name is not taken."""
    latest = OUTPUTS / "latest"
    fresh = OUTPUTS / f".latest.{os.getpid()}"
    if latest.exists() and not latest.is_symlink():
        return
    with suppress(OSError):  # A file system without links: the result is no worse for it.
        fresh.symlink_to(folder.root.absolute().relative_to(OUTPUTS.absolute()), target_is_directory=True)
        fresh.replace(latest)


@contextmanager
def new_report(out: Path | None, now: dt.datetime) -> Iterator[Path]:
    """A new folder for a report of several results, which is removed again where the report is refused.

    Raises `SpecError` where ``out`` holds something already.
    """
    if out is not None and out.is_dir() and any(out.iterdir()):
        raise SpecError(f"-o {out}: already there and not empty; give a new folder")
    wanted = out or _day(now)
    fresh = [path for path in (wanted, *wanted.parents) if not path.exists()]
    if out is None:
        to = _new_folder(now, "report")
        fresh.insert(0, to)
    else:
        to = _made(out)
    try:
        yield to
    except SpecError:
        for path in fresh:
            if not any(path.iterdir()):
                path.rmdir()
        raise


def _made(out: Path) -> Path:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        what = "a symbolic link to nothing" if out.is_symlink() and not out.exists() else "no folder"
        raise SpecError(f"-o {out}: cannot be made a folder: it is there, and {what}") from error
    except OSError as error:
        raise SpecError(f"-o {out}: cannot be made a folder: {error.strerror}") from error
    return out


def _day(now: dt.datetime) -> Path:
    return OUTPUTS / now.strftime("%Y-%m-%d")


def _new_folder(now: dt.datetime, name: str) -> Path:
    # Letters of every script, as far as names of files here can have them.
    known = name.encode(sys.getfilesystemencoding(), "replace").decode(sys.getfilesystemencoding())
    label = re.sub(r"[^\w.-]+", "-", known).strip("-.")[:60].strip("-.") or "run"
    day = _day(now)
    stem, number = f"{now.strftime('%H-%M-%S')}-{label}", 1
    while True:
        path = day / (stem if number == 1 else f"{stem}-{number}")
        try:
            day.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except FileExistsError:
            if not day.is_dir():
                raise SpecError(f"{day}: is no folder; give one with -o") from None
            number += 1
        except OSError as error:
            raise SpecError(f"{path}: cannot be made: {error.strerror}; give a folder with -o") from error
        else:
            return path


def open_result(path: Path) -> Folder:
    """The folder of a result. Raises `SpecError` where ``path`` is none."""
    folder = Folder(path)
    if not path.exists():
        raise SpecError(f"{path}: no such folder")
    if not folder.manifest.is_file():
        inside = results_under(path)
        some = ", ".join(map(str, inside[-NAMED:]))
        others = f" and {len(inside) - NAMED} more" if len(inside) > NAMED else ""
        more = f"; results below it: {some}{others} (gradlab ls {path})" if inside else ""
        raise SpecError(f"{path}: holds no result of gradlab (no {folder.manifest.name}){more}")
    return folder


def results_under(path: Path) -> list[Path]:
    """The folders at most three levels below ``path`` that hold a result, by their names, so the oldest first."""
    found = {file.parent for depth in range(1, 4) for file in path.glob(f"{'*/' * depth}manifest.json")}
    return sorted(folder for folder in found if not folder.is_symlink())


@contextmanager
def locked(folder: Folder) -> Iterator[None]:
    """Holds the folder for this process; raises `SpecError` where another is at work in it."""
    descriptor = os.open(folder.root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SpecError(f"{folder.root}: another gradlab is at work in this folder") from None
        except OSError as error:
            raise SpecError(
                f"{folder.root}: its file system cannot lock a folder ({error.strerror}), so that two commands could "
                "write into it at once; give a folder elsewhere, with -o DIR"
            ) from error
        yield
    finally:
        os.close(descriptor)
