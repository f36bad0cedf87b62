"""The targets, and a result written for one of them: nothing half written is left behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from gradlab.export.contents import Contents, Place, read
from gradlab.spec.named import SpecError, nearest

Write = Callable[[Contents, str], list[Place]]
"""Writes all runs to a place, and says how to look at them."""


@dataclass(frozen=True)
class Target:
    """A program that keeps runs: the file beside this one that writes for it, what it imports, and what it is.

    ``variable`` is the program's own environment variable that names its store; where it is set, and no folder is
    given, it holds.
    """

    name: str
    module: str
    package: str | None
    what: str
    variable: str | None = None


TARGETS = {
    target.name: target
    for target in (
        Target("tensorboard", "to_tensorboard", "tensorboard", "event files, with hyperparameters"),
        Target("wandb", "to_wandb", "wandb", "offline runs of Weights & Biases, unless WANDB_MODE says otherwise"),
        Target("mlflow", "to_mlflow", "mlflow", "an SQLite store, or MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_URI"),
        Target("trackio", "to_trackio", "trackio", "Trackio's local store", "TRACKIO_DIR"),
        Target("csv", "to_csv", None, "the tables as CSV files, with the verdicts' sentences"),
    )
}


def find(name: str) -> Target:
    """The target of ``--to``. Raises `SpecError` for one that there is not, and where its package is not installed."""
    if name not in TARGETS:
        near = nearest(name, TARGETS) or f"; expected one of {', '.join(TARGETS)}"
        raise SpecError(f"--to {name}: no such target{near}")
    target = TARGETS[name]
    if target.package is not None and find_spec(target.package) is None:
        raise SpecError(f"--to {name}: {target.package} is not installed; pip install 'gradlab[{name}]'")
    return target


def export(path: Path, target: Target, out: Path | None, chosen: Sequence[str] = ()) -> list[Place]:
    """Writes the result at ``path``, or its ``chosen`` runs, into ``out``, by default a folder inside the result.

    Raises `SpecError` before anything is written: where there is no such result or run, and where ``out`` is taken.
    """
    contents = read(path, chosen)
    write: Write = import_module(f"gradlab.export.{target.module}").write
    store = os.environ.get(target.variable) if target.variable and out is None else None
    notes = [("note", note) for note in contents.result.every.notes]
    if store:
        return [*write(contents, store), *notes]
    with _new(path / "export" / target.name if out is None else out, given=out is not None) as folder:
        return [*write(contents, str(folder)), *notes]


@contextmanager
def _new(folder: Path, *, given: bool) -> Iterator[Path]:
    """A folder that is made for what is written now; where writing ends early all is as it was before."""
    shown = f"-o {folder}" if given else str(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise SpecError(f"{shown}: already there and not empty; give a new folder with -o")
    fresh = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(f"{shown}: cannot be made a folder: {error.strerror}") from error
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in fresh[1:]:
            parent.rmdir()
        if not fresh:
            folder.mkdir(exist_ok=True)
        raise
