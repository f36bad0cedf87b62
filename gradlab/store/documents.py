"""What a result keeps as text: the manifest, the config, the specs of its runs, expectations, errors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradlab.data.facts import described
from gradlab.spec.named import SpecError
from gradlab.spec.run import SCHEMA, RunSpec
from gradlab.store.atomic import replace
from gradlab.store.folder import Folder, open_result

Manifest = dict[str, Any]


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


def ids_of(folder: Folder) -> list[str]:
    """The ids of the runs, in the order of the grid; a result written before they were kept has only the specs."""
    ids: list[str] | None = _grid(folder).get("ids")
    return [run.id for run in read_runs(folder)] if ids is None else ids


def _write_text(path: Path, text: str) -> None:
    replace(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def log_error(folder: Folder, text: str) -> None:
    """Adds a crash, with its traceback, to errors.log."""
    with folder.errors.open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")
