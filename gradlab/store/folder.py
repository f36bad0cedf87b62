"""The folder of a result: its tables, its manifest, and how they are written so that nothing finished is lost.

The only file that knows paths. Every file is written beside its place and renamed into it, so that a torn file is
never read; the tables of a piece are there as soon as it is done, and are merged, in the order of the grid, at the end.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from gradlab.data.facts import described
from gradlab.spec.named import SpecError
from gradlab.spec.run import SCHEMA, RunSpec

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from gradlab.store.record import Tables

TABLES = ("runs", "steps", "layers", "instruments")

OPTIONAL = ("instruments",)
"""Tables that are written only where they have rows."""

Manifest = dict[str, Any]


Merged: TypeAlias = "Mapping[str, pa.Table]"
"""The tidy tables of a result, by name."""


@dataclass(frozen=True)
class Frames:
    """The tables of a result as pandas frames, columns as the contract names them."""

    runs: pd.DataFrame
    steps: pd.DataFrame
    layers: pd.DataFrame
    instruments: pd.DataFrame


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
    def dropped(self) -> Path:
        """The same while they are being removed."""
        return self.root / ".pieces"

    @property
    def errors(self) -> Path:
        """Tracebacks of runs that crashed."""
        return self.root / "errors.log"

    @property
    def expectations(self) -> Path:
        """What the experiment was expected to show, beside what was measured."""
        return self.root / "expectations.json"

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


@contextmanager
def new_result(out: Path | None, name: str, now: dt.datetime) -> Iterator[Folder]:
    """A new folder, held for this process alone: ``out`` itself, or outputs/<date>/<time>-<name>, made exclusively.

    It becomes a result with its manifest. Raises `SpecError` where ``out`` already holds one, where another process is
    at work in it, and where no folder can be made.
    """
    folder = Folder(_new_folder(now, name) if out is None else _made(out))
    with locked(folder):
        if folder.manifest.exists():
            raise SpecError(f"-o {out}: already holds a result; give a new folder, or gradlab sweep --resume {out}")
        yield folder


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
    except OSError as error:
        raise SpecError(f"-o {out}: cannot be made a folder: {error.strerror}") from error
    return out


def _day(now: dt.datetime) -> Path:
    return Path("outputs") / now.strftime("%Y-%m-%d")


def _new_folder(now: dt.datetime, name: str) -> Path:
    label = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "run"
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
        raise SpecError(f"{path}: holds no result of gradlab (no {folder.manifest.name})")
    return folder


@contextmanager
def locked(folder: Folder) -> Iterator[None]:
    """Holds the folder for this process; raises `SpecError` where another is at work in it."""
    descriptor = os.open(folder.root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SpecError(f"{folder.root}: another gradlab is at work in this folder") from None
        yield
    finally:
        os.close(descriptor)


def read_manifest(path: Path) -> Manifest:
    """The manifest of the result at ``path``. Raises `SpecError` where it is none, or of another schema."""
    folder = open_result(path)
    try:
        manifest: Manifest = json.loads(folder.manifest.read_text(encoding="utf-8"))
        schema = manifest["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise SpecError(f"{folder.manifest}: not a manifest of gradlab") from error
    if schema != SCHEMA:
        raise SpecError(f"{path}: written in schema {schema}; this gradlab reads schema {SCHEMA}")
    return manifest


def write_manifest(folder: Folder, manifest: Mapping[str, Any]) -> None:
    """Replaces the manifest."""
    _write_text(folder.manifest, json.dumps(manifest, indent=1) + "\n")


def write_expectations(folder: Folder, told: Mapping[str, Any]) -> None:
    """Replaces what the experiment was expected to show: its name, what was altered, and each outcome."""
    _write_text(folder.expectations, json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def read_expectations(path: Path) -> dict[str, Any] | None:
    """What `write_expectations` wrote into the result at ``path``; None where nothing was expected."""
    file = Folder(path).expectations
    if not file.is_file():
        return None
    try:
        told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SpecError(f"{file}: cannot be read: {error}") from error
    return told


def write_inputs(folder: Folder, config: str, overrides: Sequence[str], runs: Sequence[RunSpec]) -> None:
    """Writes what was asked for: the config, the overrides, and every run's spec."""
    _write_text(folder.config, config)
    _write_text(folder.overrides, "".join(f"- {json.dumps(override)}\n" for override in overrides) or "[]\n")
    write_runs(folder, runs)
    folder.pieces.mkdir(exist_ok=True)


def write_runs(folder: Folder, runs: Sequence[RunSpec]) -> None:
    """Replaces the specs of the runs, in the order of the grid: what `read_runs` reads."""
    keys = list(runs[0].flat())
    rows = [list(run.flat().values()) for run in runs]
    ids = [run.id for run in runs]
    _write_text(folder.grid, json.dumps({"keys": keys, "runs": rows, "ids": ids}, separators=(",", ":")) + "\n")


def read_runs(folder: Folder) -> tuple[RunSpec, ...]:
    """The runs of a result, in the order of its grid. Raises `SpecError` where they are not there."""
    grid = _grid(folder)
    given = [
        {key: value for key, value in zip(grid["keys"], row, strict=True) if value is not None} for row in grid["runs"]
    ]
    return tuple(described(values) for values in given)


def _grid(folder: Folder) -> dict[str, Any]:
    if not folder.grid.is_file():
        raise SpecError(f"{folder.root}: its {folder.grid.name} is missing, and with it the specs of its runs")
    grid: dict[str, Any] = json.loads(folder.grid.read_text(encoding="utf-8"))
    return grid


def _ids(folder: Folder) -> list[str]:
    """The ids of the runs, in the order of the grid; a result written before they were kept has only the specs."""
    ids: list[str] | None = _grid(folder).get("ids")
    return [run.id for run in read_runs(folder)] if ids is None else ids


def _write_text(path: Path, text: str) -> None:
    _write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    write(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def log_error(folder: Folder, text: str) -> None:
    """Adds a crash, with its traceback, to errors.log."""
    with folder.errors.open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def save_piece(folder: Folder, index: int, tables: Tables) -> None:
    """Writes the tables of a piece; its runs come last, and say that the piece is whole."""
    for name in reversed(TABLES):
        _write_table(folder.piece(index, name), name, getattr(tables, name))


def _write_table(path: Path, name: str, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    if table.num_rows or name not in OPTIONAL:
        _write(path, lambda temporary: pq.write_table(table, temporary))
    else:
        path.unlink(missing_ok=True)


def _read_table(path: Path, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from gradlab.store.record import SCHEMAS

    if name in OPTIONAL and not path.is_file():
        return pa.Table.from_batches([], SCHEMAS[name])
    # Not pq.read_table: it imports pyarrow's datasets, and with them pandas.
    with pq.ParquetFile(path) as file:
        return file.read(columns=columns, use_threads=False)


def saved_pieces(folder: Folder) -> dict[int, pa.Table]:
    """The `runs` table of every piece that is whole, by its index."""
    return {index: _read_table(folder.piece(index, "runs"), "runs") for index in _whole(folder)}


def _whole(folder: Folder) -> list[int]:
    """The indices of the pieces that are whole: their runs are written last."""
    found = sorted(folder.pieces.glob("*.runs.parquet")) if folder.pieces.is_dir() else []
    return [int(path.name.split(".")[0]) for path in found]


class Finished(Mapping[str, "pa.Table"]):
    """The tables of a merged result, each read when it is first asked for."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._read: dict[str, pa.Table] = {}

    def __getitem__(self, name: str) -> pa.Table:
        """Raises `KeyError` for a name that is no table's."""
        if name not in TABLES:
            raise KeyError(name)
        if name not in self._read:
            self._read[name] = _read_table(self._folder.table(name), name)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(TABLES)

    def __len__(self) -> int:
        return len(TABLES)


def merge(folder: Folder) -> Merged:
    """Merges the pieces into the tables, runs in the order of the grid. The pieces stay: see `drop_pieces`.

    A few pieces at a time, and from the system's memory: Arrow's own allocator takes half as much again, and keeps it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from gradlab.store.record import SCHEMAS

    pa.set_memory_pool(pa.system_memory_pool())

    def write(path: Path, name: str) -> None:
        with pq.ParquetWriter(path, SCHEMAS[name]) as writer:
            for batch in _batches(folder, name):
                writer.write_table(batch)

    for name in TABLES:
        if name in OPTIONAL and not any(folder.pieces.glob(f"*.{name}.parquet")):
            folder.table(name).unlink(missing_ok=True)
        else:
            _write(folder.table(name), partial(write, name=name))
    return Finished(folder)


def drop_pieces(folder: Folder) -> None:
    """Removes the tables of the pieces, once the manifest says that all are merged; for a reader, all at once."""
    if folder.pieces.is_dir():
        folder.pieces.replace(folder.dropped)
    shutil.rmtree(folder.dropped, ignore_errors=True)


def merged(folder: Folder) -> Merged:
    """The Arrow tables of a result, whether it is finished or still in pieces."""
    if folder.table("runs").is_file() and not folder.pieces.is_dir():
        return {name: _read_table(folder.table(name), name) for name in TABLES}
    import pyarrow as pa

    from gradlab.store.record import SCHEMAS

    return {
        name: pa.concat_tables([pa.Table.from_batches([], SCHEMAS[name]), *_batches(folder, name)]) for name in TABLES
    }


def _batches(folder: Folder, name: str) -> Iterator[pa.Table]:
    """A table of the pieces that are whole, in the order of the grid."""
    from gradlab.store.merging import in_order
    from gradlab.store.record import SCHEMAS

    def read(piece: int, columns: Sequence[str] | None) -> pa.Table:
        return _read_table(folder.piece(piece, name), name, columns)

    return in_order(read, _whole(folder), _ids(folder), SCHEMAS[name])


def load_tables(path: Path) -> Merged:
    """The Arrow tables of the result at ``path``, nulls and NaNs apart. Raises `SpecError` where it is none."""
    import pyarrow as pa

    read_manifest(path)
    try:
        return merged(Folder(path))
    except pa.ArrowInvalid as error:
        raise SpecError(f"{path}: its tables cannot be read: {str(error).partition('. ')[0]}") from error


def load(path: str | Path) -> Frames:
    """The tables of a result as pandas frames: ``.runs``, ``.steps``, ``.layers``, ``.instruments``.

    Raises `SpecError` where it is none.
    """
    tables = load_tables(Path(path))
    return Frames(*(tables[name].to_pandas() for name in TABLES))
