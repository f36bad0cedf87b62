"""What a watched run has come to, in plain numbers: how they become the tables of a result, here or elsewhere.

Torch-free, and Arrow is imported by who writes: a training has it in memory only when it is over. What is written
while it goes on, a process of its own writes.
"""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradlab.diagnose import final_loss, rate, vanishing_ratio
from gradlab.diagnose.broken import first_break
from gradlab.diagnose.history import Profile
from gradlab.spec.named import Value
from gradlab.store import documents
from gradlab.store.folder import Folder, has_begun
from gradlab.store.pieces import TABLES, write_table

if TYPE_CHECKING:
    from gradlab.store.record import Tables

Row = dict[str, Any]

WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "module.")
"""What a name has of the modules that frameworks put around the user's own."""


@dataclass(frozen=True)
class Sheet:
    """One run so far.

    ``columns`` of `steps`, a value a step; ``layers`` the rows of each recorded step; ``scalars`` what else the script
    told, by step and name; ``known`` further columns of `runs`; ``seen`` what names a cause; ``error`` of one that
    crashed.
    """

    run_id: str
    columns: Mapping[str, Sequence[Any]]
    layers: Sequence[tuple[int, Sequence[Row]]]
    scalars: Sequence[tuple[int, str, float]]
    known: Mapping[str, Value]
    seen: Mapping[str, Any]
    error: str | None = None


@dataclass(frozen=True)
class Written:
    """All that is written at once: the sheets, and the manifest beside them; ``first``: nothing was before."""

    folder: Path
    sheets: Sequence[Sheet]
    manifest: Mapping[str, Any]
    first: bool


def write(what: Written) -> Tables:
    """Writes tables and manifest, each whole or not at all."""
    from gradlab.store.record import joined

    folder = Folder(what.folder)
    tables = joined([tables_of(sheet) for sheet in what.sheets])
    for name in reversed(TABLES):
        write_table(folder.table(name), name, getattr(tables, name))
    documents.write_manifest(folder, dict(what.manifest))
    if what.first:
        has_begun(folder)
    return tables


def write_elsewhere(what: Written, place: Path) -> subprocess.Popen[bytes]:
    """The same in a process of its own, which finds it at ``place`` and removes it."""
    place.write_bytes(pickle.dumps(what, protocol=5))
    package = str(Path(__file__).resolve().parents[2])
    code = (
        f"import sys; sys.path.insert(0, {package!r}); from gradlab.watching import sheets; sheets.main({str(place)!r})"
    )
    quiet = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-c", code], stdin=quiet, stdout=quiet, stderr=quiet)


def main(place: str) -> None:
    """Writes what lies at ``place``."""
    path = Path(place)
    what: Written = pickle.loads(path.read_bytes())
    try:
        write(what)
    finally:
        path.unlink()


def tables_of(sheet: Sheet) -> Tables:
    """The tidy tables of one run, judged as those of a result are."""
    from gradlab.diagnose.tables import with_verdicts
    from gradlab.store.columns import table_of
    from gradlab.store.record import Tables

    columns, run_id = sheet.columns, sheet.run_id
    stop = _broke(columns)
    if stop is not None:
        columns = {name: values[: stop + 1] for name, values in columns.items()}
    count = len(columns["step"])
    steps = table_of("steps", {"run_id": [run_id] * count, **columns}, count)
    rows = [row | {"step": step} for step, rows in sheet.layers for row in rows if step < count]
    layers = table_of("layers", {"run_id": [run_id] * len(rows), **_columns(rows)}, len(rows))
    runs = table_of("runs", {"run_id": [run_id], **_run(sheet, columns, rows, stop)}, 1)
    scalars = _scalars(sheet, count)
    told = len(scalars["step"])
    instruments = table_of("instruments", {"run_id": [run_id] * told, **scalars}, told)
    return Tables(with_verdicts(runs, steps, layers), steps, layers, instruments)


def shown(name: str) -> str:
    """A layer's name without those of the modules around the user's own."""
    for wrapper in WRAPPERS:
        while name.startswith(wrapper) or f".{wrapper}" in name:
            name = name.removeprefix(wrapper).replace(f".{wrapper}", ".")
    return name


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    from gradlab.store.columns import LAYERS, MEASURED_COLUMNS

    names = [*(field.name for field in LAYERS if field.name != "run_id"), *MEASURED_COLUMNS]
    found = {name: [row.get(name) for row in rows] for name in names}
    return found | {"name": [shown(row["name"]) for row in rows]}


def _broke(columns: Mapping[str, Sequence[Any]]) -> int | None:
    """The first step at which the loss or the gradient is not finite, and which no loss scaler skipped."""
    for step, figures in enumerate(zip(columns["loss"], columns["grad_norm"], strict=True)):
        if not all(math.isfinite(one) for one in figures if one is not None) and not columns["skipped"][step]:
            return step
    return None


def _run(
    sheet: Sheet, columns: Mapping[str, Sequence[Any]], rows: Sequence[Row], stop: int | None
) -> dict[str, list[Value]]:
    """The row of `runs`: what is known of the optimizer and the batch stands in the columns of their keys."""
    from gradlab.store.columns import SEEN

    losses = columns["loss"]
    known = all(loss is not None for loss in losses)
    deltas = _trunk(rows)
    state = "failed" if sheet.error is not None else "finished" if stop is None else "diverged"
    values: dict[str, Value] = {
        "state": state,
        "error": sheet.error,
        **sheet.known,
        "optim.lr": columns["lr"][0],
        "train.steps": len(losses),
        "clip.mode": None if any(columns["clipped"]) else "none",
        "steps": len(losses) if stop is None else stop,
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "loss_final": final_loss(np.array(losses)) if state == "finished" and len(losses) > 1 and known else None,
        "diverged_at": stop,
        "diverged_layer": None if stop is None else _broken_layer(rows, stop),
        "rate": rate(deltas, "depth"),
        "vanishing_ratio": vanishing_ratio(deltas, "depth"),
        SEEN: json.dumps(sheet.seen, default=float) if sheet.seen else None,
    }
    return {name: [value] for name, value in values.items()}


def _trunk(rows: Sequence[Row]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Delta per entry by layer at step 0, along the trunk where it is known."""
    first = [row for row in rows if row["step"] == 0 and row["axis"] == "depth" and row["layer"] > 0]
    staged = sorted((row for row in first if "stage" in row), key=lambda row: row["stage"])
    found = [row["trunk_grad_rms"] for row in staged] or [row.get("signal_grad_rms", math.nan) for row in first]
    return np.array(found, dtype=float)


def _broken_layer(rows: Sequence[Row], stop: int) -> int | None:
    """The layer that broke first, where the step was recorded."""
    here = [row for row in rows if row["step"] == stop and row["axis"] == "depth" and row.get("calls")]
    if not here:
        return None
    names = ("act_std", "weight_norm", "weight_grad_norm", "grad_zero")
    columns = {name: np.array([[float(row.get(name, math.nan)) for row in here]]) for name in names}
    profile = Profile("depth", np.array([stop]), np.array([row["layer"] for row in here]), columns)
    found = first_break(profile)
    return None if found is None else found[1]


def _scalars(sheet: Sheet, count: int) -> dict[str, list[Any]]:
    """What else the script told, as readings of an instrument of its own."""
    kept = [one for one in sheet.scalars if one[0] < count]
    return {
        "step": [step for step, _, _ in kept],
        "instrument": ["scalars"] * len(kept),
        "quantity": [name for _, name, _ in kept],
        "value": [value for _, _, value in kept],
    }
