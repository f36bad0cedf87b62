"""What of a result is handed over, the same for every target: scalars, hyperparameters, outcomes and verdicts."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gradlab.diagnose import judge
from gradlab.diagnose.tables import histories
from gradlab.report import picked
from gradlab.report.groups import in_words, varying
from gradlab.report.tables import Result, judged
from gradlab.report.tables import read as read_result
from gradlab.spec.named import Value
from gradlab.store.sources import Merged
from gradlab.store.tables import load_tables

OUTCOMES = (
    *("loss_final", "accuracy", "loss_heldout", "vanishing_ratio", "rate", "rate_theory", "diverged_at"),
    *("diverged_layer", "loss_first", "loss_last", "steps", "rate_limit", "chi1", "depth_scale", "duration_s"),
)
"""Columns of `runs` that are a number of a whole run, what is looked at first at the front."""

AT_A_TIME = 500_000
"""Rows of a table of a large result that are in memory."""

Place = tuple[str, str]
"""What there is now, and where; or the command that shows it."""

Scalar = tuple[int, str, float | None]
"""A step, and what was measured at it: its name, and its value where there is one."""

Row = tuple[int, dict[str, float]]
"""A step, and what was measured at it, by name."""


@dataclass(frozen=True)
class Run:
    """One run: ``label`` names it by what is its own, ``rows`` are its scalars, a row a step, in order of the steps.

    ``settings`` are its keys' values; ``outcomes`` are numbers of the whole run; ``verdicts`` their names, and
    ``sentences`` what they say.
    """

    run_id: str
    label: str
    state: str
    settings: Mapping[str, Value]
    outcomes: Mapping[str, float]
    verdicts: tuple[str, ...]
    sentences: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def verdict(self) -> str:
        """The names of its verdicts as one word."""
        return "+".join(self.verdicts)

    @property
    def last(self) -> int:
        """The last of its steps."""
        return self.rows[-1][0] if self.rows else 0

    @property
    def seconds(self) -> float:
        """How long it took, where that is known."""
        return self.outcomes.get("duration_s", 0.0)

    @property
    def title(self) -> str:
        """Its label and the beginning of its id, as the name of a folder may be."""
        label = re.sub(r"[^\w.,=+-]+", "-", self.label.replace(", ", ",")).strip("-.")
        return f"{label[:100]}-{self.run_id[:8]}"


@dataclass(frozen=True)
class Contents:
    """A result: its name, when it began, the keys in which its runs differ, and its tables.

    ``result`` are its runs, of a large one some of them; ``tables`` have all.
    """

    name: str
    began: dt.datetime
    varying: tuple[str, ...]
    result: Result
    tables: Merged
    names: Mapping[str, str]

    def parts(self) -> Iterator[Result]:
        """Its runs in the order of the grid with their rows, of a large result some at a time."""
        if self.result.whole is None:
            yield self.result
            return
        (manifest,) = self.result.manifests.values()
        for some in self.tables.stretches(AT_A_TIME):
            yield replace(self.result, tables=judged(some, manifest), whole=None)

    def runs(self) -> Iterator[Run]:
        """Its runs in the order of the grid, each made when it is asked for: of many not all at once."""
        for part in self.parts():
            yield from self.runs_of(part)

    @cached_property
    def _digits(self) -> dict[str, int]:
        """In how many digits layers, or time steps, are numbered: the same in all runs, which share their names."""
        most: dict[str, int] = {}
        for batch in self.tables.batches("layers", ["axis", "layer"]):
            for row in batch.group_by("axis").aggregate([("layer", "max")]).to_pylist():
                most[row["axis"]] = max(row["layer_max"], most.get(row["axis"], 0))
        return {axis: len(str(layer)) for axis, layer in most.items()}

    def runs_of(self, result: Result) -> Iterator[Run]:
        """Those of one of the `parts`."""
        found = [_places(result, name) for name in ("steps", "layers", "instruments")]
        told = histories(result.runs, result.tables["steps"], result.tables["layers"])
        for place, (row, history) in enumerate(zip(result.runs.to_pylist(), told, strict=True)):
            verdicts = judge(history, result.limits) if row["state"] != "failed" else []
            crash = [f"crashed: {row['error']}"] if row["state"] == "failed" else []
            causes = [f"cause {one.cause.name}: {one.cause}" for one in verdicts if one.cause is not None]
            steps, layers, instruments = (table.take(places[place]) for table, places in found)
            yield Run(
                row["run_id"],
                self.names.get(row["run_id"]) or in_words(result, place, self.varying, limit=6) or row["run_id"],
                row["state"],
                {key: row[key] for key in result.keys if row[key] is not None},
                {name: float(row[name]) for name in OUTCOMES if row.get(name) is not None},
                tuple(one.name for one in verdicts),
                (*crash, *(one.sentence for one in verdicts), *causes),
                tuple(_rows(steps, layers, instruments, self._digits)),
            )


def read(path: Path, chosen: Sequence[str] = ()) -> Contents:
    """The result at ``path``; of its runs those alone that ``chosen`` are beginnings of the ids of.

    Raises `SpecError` where it is none, or has no such run.
    """
    result = read_result([path], picked.find([path], chosen) if chosen else None)
    manifest = result.manifests[path]
    began = dt.datetime.fromisoformat(manifest["started"]) if manifest.get("started") else dt.datetime.now(dt.UTC)
    name = re.sub(r"[^\w.-]+", "-", path.resolve().name).strip("-.") or "gradlab"
    every = Merged.of(result.tables) if result.whole is None else load_tables(path)
    return Contents(name, began, tuple(varying(result.every)), result, every, manifest.get("watched", {}))


def _places(result: Result, name: str) -> tuple[pa.Table, list[np.ndarray[Any, Any]]]:
    """A table, and for each run the places of its rows."""
    table = result.tables[name]
    owner = result.places(table)
    order = np.argsort(owner, kind="stable")
    return table, np.split(order, np.searchsorted(owner[order], np.arange(1, result.size)))


def _rows(steps: pa.Table, layers: pa.Table, instruments: pa.Table, digits: Mapping[str, int]) -> list[Row]:
    found: dict[int, dict[str, float]] = {}
    for step, name, value in chain(_of_steps(steps), _of_layers(layers, digits), _of_instruments(instruments)):
        if value is not None:
            found.setdefault(step, {})[name] = float(value)
    return sorted(found.items())


def _of_steps(table: pa.Table) -> Iterator[Scalar]:
    columns = [name for name in table.column_names if name not in ("run_id", "step")]
    return ((row["step"], name, row[name]) for row in table.to_pylist() for name in columns)


def _of_layers(table: pa.Table, digits: Mapping[str, int]) -> Iterator[Scalar]:
    """Behind the column the number of the layer, in so many digits, and its name; or the time step."""
    columns = [name for name in table.column_names if name not in ("run_id", "step", "axis", "layer", "name")]
    for row in table.to_pylist():
        number = f"{row['layer']:0{digits[row['axis']]}d}"
        place = f"/{number} {row['name']}" if row["axis"] == "depth" else f" along time/{number}"
        yield from ((row["step"], f"{name}{place}", row[name]) for name in columns)


def _of_instruments(table: pa.Table) -> Iterator[Scalar]:
    for row in table.to_pylist():
        index = "" if row["index"] is None else f" {row['index']:03d}"
        yield row["step"], f"{row['instrument']}/{row['quantity']}{index}", row["value"]
