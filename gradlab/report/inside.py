"""What the page holds of every run, so that a reader can ask it: keys, outcomes, verdicts, curves and layers.

One JSON head and the packed numbers behind it, compressed together (zlib) and written as base64. The page's own script
(`explorer/data.js`) reads it; nothing of it is HTML.
"""

from __future__ import annotations

import base64
import json
import math
import shlex
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gradlab.cure.ranking import STATES
from gradlab.diagnose import ORDER
from gradlab.report import foretold, picked
from gradlab.report.cure import Cure
from gradlab.report.groups import levels, log10, short, swept, varying
from gradlab.report.packed import Shapes, packed, shapes
from gradlab.report.tables import Ints, Result
from gradlab.spec.choices.models import MODELS

SCHEMA = 1

CURVES = ("loss", "grad_norm", "grad_norm_clipped")
PROBES = (
    *("signal_grad_norm", "weight_grad_norm", "update_ratio", "act_std", "saturated", "dead"),
    *("act_correlation", "signal_grad_rms", "attention_entropy"),
)
"""Columns of `layers` that the page holds, where they were measured."""

OF_UNEQUAL = "signal_grad_rms"
"""Of them, what says no more than the norm where all layers are of one size."""

OUTCOMES = (
    *("loss_final", "loss_heldout", "accuracy", "vanishing_ratio", "rate", "rate_theory", "chi1", "diverged_at"),
    *("loss_first", "loss_last", "steps"),
)

INSTRUMENT = "instrument "
"""How the name of a block begins that holds what an instrument gave; its quantity follows."""

PLANES = "plane_gradient"
"""A quantity over two weights, which its figure draws: no curve shows it."""

MOST_CELLS = 10_000_000
"""Numbers inside a page: some 19 MB of it."""

COARSER = ((None, None), (101, 21), (51, 11), (26, 6), (11, 2))
"""Most recorded steps of a run's curves and of its layers, tried in this order until `MOST_CELLS` holds them."""

MOST_COMMANDS = 1000
"""So many runs have the overrides that repeat them beside them; of more `--from` does."""


MOST_TOLD = 10_000
"""So many runs are judged again for their sentences; the others have their verdicts by name."""


@dataclass(frozen=True)
class Block:
    """The rows of one table along one axis: run, step and place (N,), and the columns that are held."""

    name: str
    table: pa.Table
    run: Ints
    step: Ints
    place: Ints
    columns: tuple[str, ...]

    @property
    def is_curve(self) -> bool:
        """Whether it has a single place a step."""
        return self.name == "steps"


def written(result: Result, homes: Mapping[str, Path], healing: Cure | None) -> str:
    """The data of the page as text that can stand inside a script element. ``homes``: the folder of each run."""
    blocks = _blocks(result)
    found, notes = _fitted(blocks, result.size)
    if result.whole is not None:
        notes.append(f"{result.size:,} of {result.whole.size:,} runs are here, drawn by chance.")
    if result.size > MOST_TOLD:
        notes.append(f"The sentences and commands of the first {MOST_TOLD:,} runs are here; `gradlab verdict` has all.")
    numbers = bytearray()
    head: dict[str, Any] = {
        "schema": SCHEMA,
        "ids": result.ids,
        "fields": _fields(result, healing),
        "verdicts": list(ORDER),
        "notes": notes,
        "blocks": {block.name: _block(block, one, numbers) for block, one in zip(blocks, found, strict=True)},
        "before": _before(result, healing),
        **_told(result, homes),
    }
    head["theory"] = {
        axis: theory for axis in ("depth", "time") if (theory := _theory(result, axis, numbers)) is not None
    }
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")
    whole = struct.pack("<I", len(text)) + text + bytes(numbers)
    return base64.b64encode(zlib.compress(whole, 9)).decode("ascii")


def _blocks(result: Result) -> list[Block]:
    steps, layers = result.tables["steps"], result.tables["layers"]
    names = result.tables["runs"]["model.name"].unique().to_pylist()
    alike = all(name in MODELS and not (MODELS[name].unequal or MODELS[name].free) for name in names)
    probes = [name for name in PROBES if not (alike and name == OF_UNEQUAL)]
    found = [_one("steps", steps, result, np.zeros(steps.num_rows, dtype=np.int64), CURVES)]
    for axis in ("depth", "time"):
        rows = layers.filter(pc.equal(layers["axis"], axis))
        held = tuple(name for name in probes if name in rows.column_names and rows[name].null_count < rows.num_rows)
        if rows.num_rows:
            found.append(_one(axis, rows, result, rows["layer"].to_numpy(), held))
    given = result.tables["instruments"]
    for quantity in given["quantity"].unique().to_pylist():
        rows = given.filter(pc.equal(given["quantity"], quantity))
        if quantity != PLANES:
            place = pc.fill_null(rows["index"], 0).to_numpy()
            found.append(_one(f"{INSTRUMENT}{quantity}", rows, result, place, ("value",)))
    return found


def _one(name: str, table: pa.Table, result: Result, place: Ints, columns: tuple[str, ...]) -> Block:
    return Block(name, table, result.places(table), table["step"].to_numpy(), place, columns)


def _fitted(blocks: Sequence[Block], runs: int) -> tuple[list[Shapes], list[str]]:
    """Where the cells lie, with as many recorded steps as `MOST_CELLS` has room for, and in words what was left out."""
    for curves, layers in COARSER:
        found = [
            shapes(block.run, block.step, block.place, runs, curves if block.is_curve else layers) for block in blocks
        ]
        if _cells(blocks, found) <= MOST_CELLS:
            break
    notes = []
    if curves is not None:
        notes.append(
            f"So many runs are held with at most {curves} of their steps and {layers} of the recorded steps of their "
            "layers, evenly spread; all stand in steps.csv and layers.csv."
        )
    if (cells := _cells(blocks, found)) > MOST_CELLS:
        kept = int(runs * MOST_CELLS / cells)
        found = [_first(one, kept) for one in found]
        notes.append(f"Of {runs} runs the first {kept} have their curves and layers in the page; all are in its files.")
    return found, notes


def _cells(blocks: Sequence[Block], found: Sequence[Shapes]) -> int:
    return sum(int(one.start[-1]) * len(block.columns) for block, one in zip(blocks, found, strict=True))


def _first(found: Shapes, runs: int) -> Shapes:
    """The cells of the first ``runs`` runs alone."""
    later = np.arange(len(found.step)) >= runs
    end = int(found.start[runs])
    return Shapes(
        found.steps,
        found.places,
        np.where(later, -1, found.step),
        np.where(later, -1, found.place),
        np.where(found.cell < end, found.cell, -1),
        np.minimum(found.start, end),
    )


def _block(block: Block, found: Shapes, numbers: bytearray) -> dict[str, Any]:
    """The head of a block; its codes and scales are put behind ``numbers``."""
    quantities = {}
    for name in block.columns:
        column = block.table[name]
        values = np.asarray(column.cast(pa.float64()).to_numpy(), dtype=float)
        codes, scales = packed(values, ~column.is_null().to_numpy(), found)
        quantities[name] = {"codes": _put(codes, numbers), "scales": _put(scales.tobytes(), numbers)}
    head = {
        "steps": found.steps,
        "places": found.places,
        "step": found.step.tolist(),
        "place": found.place.tolist(),
        "quantities": quantities,
    }
    if "name" in block.table.column_names:
        head["names"] = _names(block, found)
    elif not block.is_curve:
        # matplotlib takes half a second to import: only a page with instruments pays for it here.
        from gradlab.report.figures.instruments import OVER_INDEX

        drawing = OVER_INDEX.get(block.name.removeprefix(INSTRUMENT))
        head["index"] = "index" if drawing is None else drawing.axes[0]
    return head


def _names(block: Block, found: Shapes) -> list[list[str]]:
    """What the places are called, by the first run that has them."""
    told = []
    for which, places in enumerate(found.places):
        run = int(np.flatnonzero(found.place == which)[0]) if (found.place == which).any() else -1
        here = np.flatnonzero(block.run == run)
        names = dict(zip(block.place[here].tolist(), block.table["name"].take(here).to_pylist(), strict=True))
        told.append([str(names.get(place, "")) for place in places])
    return told


def _put(part: bytes, numbers: bytearray) -> list[int]:
    """Puts bytes behind the others at a multiple of four; where they begin, and how many they are."""
    numbers.extend(b"\0" * (-len(numbers) % 4))
    begin = len(numbers)
    numbers.extend(part)
    return [begin, len(part)]


def _theory(result: Result, axis: str, numbers: bytearray) -> dict[str, Any] | None:
    """The dashed lines: log10 of what theory expects of δ at step 0, (R, X) as float32; None where it has nothing."""
    rows = result.depth if axis == "depth" else result.time
    if not len(rows.run):
        return None
    lines = foretold.foretold(result, log10(rows.profile(result.size, np.zeros(result.size, dtype=int))), axis)
    if not np.isfinite(lines).any():
        return None
    return {"places": lines.shape[1], "lines": _put(lines.astype(np.float32).tobytes(), numbers)}


def _fields(result: Result, healing: Cure | None) -> list[dict[str, Any]]:
    """The columns that a reader may ask by: what varies, with its values in order, then the outcomes."""
    asked = {*swept(result), *(key for key in varying(result) if key.startswith("probe."))}
    fields = [] if healing is None else changes(result, healing)
    for key in varying(result):
        part = levels(result, key)
        field: dict[str, Any] = {"name": key, "short": short(key), "labels": part.labels, "code": part.code.tolist()}
        if part.ordered:
            field["numbers"] = [_number(value) for value in result.columns[key]]
        fields.append(field | {"kind": "key", "swept": key in asked})
    for name in ("verdict", "state"):
        words = [str(value or "none") for value in result.columns[name]]
        labels = sorted(dict.fromkeys(words), key=_gravity)
        place = {word: code for code, word in enumerate(labels)}
        fields.append(
            {"name": name, "short": name, "labels": labels, "code": [place[word] for word in words], "kind": "state"}
        )
    for name in OUTCOMES:
        if name in result.columns and any(value is not None for value in result.columns[name]):
            values = [_number(value) for value in result.columns[name]]
            fields.append({"name": name, "short": name, "numbers": values, "kind": "outcome"})
    return fields


def _gravity(word: str) -> tuple[int, str]:
    """States and verdicts from good to bad: the first of several colours is that of what is well."""
    first = word.partition("+")[0]
    return (-1 if first in ("healthy", "finished") else len(ORDER) - ORDER.index(first) if first in ORDER else 99, word)


def _number(value: object) -> float | str | None:
    """A number as JSON can have it: six digits, and words for what is not finite."""
    if not isinstance(value, (int, float)):
        return None
    return float(f"{value:.6g}") if math.isfinite(value) else str(float(value))


def changes(result: Result, healing: Cure) -> list[dict[str, Any]]:
    """Of a cure: which change each run is of, and what that came to."""
    told = (healing.before, *healing.tried)
    labels = list(dict.fromkeys(one.name for one in told))
    of = {run_id: labels.index(one.name) for one in told for run_id in one.change["members"]}
    if not of.keys() >= set(result.ids):
        labels.append("–")
    code = [of.get(run_id, len(labels) - 1) for run_id in result.ids]
    change = {"name": "change", "short": "change", "labels": labels, "code": code, "kind": "key", "swept": True}
    state = {one.name: one.state for one in healing.tried} | {healing.before.name: healing.before.name, "–": "–"}
    # In this order what heals is green and what harms is orange.
    order = (healing.before.name, "harms", "heals", "helps", "no help", *STATES, "–")
    states = sorted({state[name] for name in labels}, key=order.index)
    came_to = [states.index(state[labels[place]]) for place in code]
    return [change, {"name": "result", "short": "result", "labels": states, "code": came_to, "kind": "state"}]


def _before(result: Result, healing: Cure | None) -> list[int] | None:
    """Of a cure: for each run the run as it was before any change, with the same seed."""
    if healing is None:
        return None
    place = {run_id: number for number, run_id in enumerate(result.ids)}
    seeds = result.columns["seed"]
    before = {seeds[place[one]]: place[one] for one in healing.before.change["members"] if one in place}
    first = next(iter(before.values()))
    return [before.get(seed, first) for seed in seeds]


def _told(result: Result, homes: Mapping[str, Path]) -> dict[str, Any]:
    """Each run's verdicts as sentences with what they were judged by, and the commands that repeat and heal it.

    Of more than `MOST_TOLD` runs the first ones.
    """
    sources: dict[str, int] = {}
    texts = []
    many = result.size > MOST_COMMANDS
    again, cures = [], []
    told_of = result if result.size <= MOST_TOLD else result.only(np.arange(result.size) < MOST_TOLD)
    for one in picked.runs(told_of, homes, commands=not many):
        texts.append([[told, sources.setdefault(source, len(sources))] for told, source in one.verdicts])
        from_folder = f"gradlab run --from {shlex.quote(str(homes[one.run_id]))} {one.run_id}"
        again.append(from_folder if one.own and many else one.again)
        cures.append(one.cure)
    errors = {str(run): str(error) for run, error in enumerate(result.columns["error"]) if error}
    return {"told": texts, "sources": list(sources), "again": again, "cures": cures, "errors": errors}
