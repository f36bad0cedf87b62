"""The weights that runs ended with, a file a run, and a run that goes on from them for more steps. Torch-free.

A file holds the tensors by layer and role (`1.weight`, `1.bias`), running statistics (`1.running_mean`) and the
optimizer's (`optimizer.momentum.1.weight`), in the form of safetensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradlab.store.arrays import STATE, Array, Kept, read_arrays, write_arrays
from gradlab.store.folder import Folder
from gradlab.store.sources import Merged
from gradlab.store.tables import merged

if TYPE_CHECKING:
    import pyarrow as pa

FROM_WEIGHTS = {"weights": "of a finished run"}
"""What a checkpoint says that was made of weights: it is used whatever they were trained with."""


def save_weights(folder: Folder, ids: Sequence[str], kept: Kept) -> None:
    """Writes the weights of each member of a checkpoint that was taken at the end, but of those that diverged."""
    folder.weights.mkdir(exist_ok=True)
    state = {name.removeprefix(STATE): array for name, array in kept.arrays.items() if name.startswith(STATE)}
    for member in np.flatnonzero(kept.arrays["journal.ended"] < 0).tolist():
        parts = {name: _by_slot(name, array[member], kept.facts["slots"]) for name, array in state.items()}
        arrays = {name: array for part in parts.values() for name, array in part.items()}
        facts = {
            "run_id": ids[member],
            "step": kept.facts["step"] - 1,
            "parts": {name: list(part) for name, part in parts.items()},
        }
        write_arrays(folder.weights_of(ids[member]), Kept(facts, arrays))


def _by_slot(name: str, flat: Array, slots: Sequence[tuple[str, list[int]]]) -> dict[str, Array]:
    """A member's tensor, cut into the slots of the network where it has an entry for each parameter."""
    sizes = [math.prod(shape) for _, shape in slots]
    if flat.shape != (sum(sizes),):
        return {name: flat}
    prefix = "" if name == "parameters" else f"{name}."
    cuts = np.split(flat, np.cumsum(sizes)[:-1])
    return {f"{prefix}{slot}": cut.reshape(shape) for (slot, shape), cut in zip(slots, cuts, strict=True)}


def going_on(source: Folder, run_id: str, into: str) -> Kept | None:
    """A checkpoint at the end of a run of ``source``, for the run ``into`` that goes on there; None without weights.

    What was measured before the last step stands in the tables.
    """
    kept = read_arrays(source.weights_of(run_id))
    if kept is None or kept.facts.get("run_id") != run_id:
        return None
    tables = merged(source)
    step = kept.facts["step"]
    state = {
        f"{STATE}{name}": _whole([kept.arrays[part] for part in parts])[np.newaxis]
        for name, parts in kept.facts["parts"].items()
    }
    seconds = _of_run(tables["runs"], run_id)["duration_s"].to_pylist()[0]
    facts, journal = _journal(tables, run_id, step)
    told = {"step": step, "seconds": seconds, "runs": [into], "made_by": FROM_WEIGHTS}
    return Kept({**facts, **told}, {**state, **{f"journal.{name}": array for name, array in journal.items()}})


def _whole(parts: Sequence[Array]) -> Array:
    return parts[0] if len(parts) == 1 and parts[0].ndim == 0 else np.concatenate([part.ravel() for part in parts])


def _journal(tables: Merged, run_id: str, step: int) -> tuple[dict[str, Any], dict[str, Array]]:
    """What `engine.journal` packs, of one member, from the rows of its tables before ``step``."""
    from gradlab.store.columns import KEPT_OF_STEPS, MEASURED_COLUMNS, PROBE_COLUMNS

    columns_of = [*PROBE_COLUMNS, *(name for name in MEASURED_COLUMNS if name in tables["layers"].column_names)]
    steps = _of_run(tables["steps"], run_id).slice(0, step)
    columns = [np.zeros(step) if name == "broken" else _numbers(steps[name]) for name in KEPT_OF_STEPS]
    arrays: dict[str, Array] = {
        "ended": np.array([-1]),
        "steps": np.stack(columns)[:, :, np.newaxis],
    }
    layers = _before(_of_run(tables["layers"], run_id), step)
    at = np.unique(layers["step"].to_numpy())
    shape = (len(at), -1)
    rows = layers.slice(0, layers.num_rows // max(1, len(at))).select(["axis", "layer", "name"]).to_pylist()
    if len(at):
        values = [_numbers(layers[name]).reshape(shape) for name in columns_of]
        valid = [layers[name].is_valid().to_numpy().reshape(shape) for name in columns_of]
        depth = sum(row["axis"] == "depth" and row["layer"] > 0 for row in rows)
        arrays |= {
            "layers.step": at,
            "layers.values": np.stack(values, axis=1)[:, :, np.newaxis],
            "layers.valid": np.stack(valid, axis=1),
            "layers.present": np.ones((len(at), 1), dtype=np.bool_),
            "layers.finite": np.ones((len(at), 1, depth), dtype=np.bool_),
        }
    # A pre-training is gone through again, and tells what it lost.
    seen = _but_pretraining(_before(_of_run(tables["instruments"], run_id), step))
    if seen.num_rows:
        arrays |= {
            "readings.values": _numbers(seen["value"])[np.newaxis],
            "readings.index": seen["index"].drop_null().to_numpy(),
        }
    facts = {
        "columns": [*KEPT_OF_STEPS, *columns_of],
        "rows": [list(row.values()) for row in rows],
        "readings": _readings(seen),
    }
    return facts, arrays


def _readings(seen: pa.Table) -> list[list[Any]]:
    """Step, quantity, how many values, and how many of them are numbered (None: a single number, without)."""
    told: list[list[Any]] = []
    for step, quantity, index in zip(*(seen[name].to_pylist() for name in ("step", "quantity", "index")), strict=True):
        if not told or told[-1][:2] != [step, quantity]:
            told.append([step, quantity, 0, None if index is None else 0])
        told[-1][2] += 1
        if index is not None:
            told[-1][3] += 1
    return told


def _of_run(table: pa.Table, run_id: str) -> pa.Table:
    import pyarrow.compute as pc

    return table.filter(pc.equal(table["run_id"], run_id))


def _before(table: pa.Table, step: int) -> pa.Table:
    import pyarrow.compute as pc

    return table.filter(pc.less(table["step"], step))


def _but_pretraining(table: pa.Table) -> pa.Table:
    import pyarrow.compute as pc

    return table.filter(pc.not_equal(table["instrument"], "pretraining"))


def _numbers(column: pa.ChunkedArray) -> Array:
    """As float64; what is null is zero, as it was before it was called so."""
    import pyarrow.compute as pc

    numbers: Array = pc.fill_null(column.cast("float64"), 0.0).to_numpy()
    return numbers
