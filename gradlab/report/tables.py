"""What the report draws, as numpy arrays, and the CSV files.

The tables stay Arrow's, in which null and NaN are two things. Legend for shapes: R runs, T steps, L layers (place 0 is
the input), N rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from gradlab.diagnose.tables import with_verdicts
from gradlab.diagnose.thresholds import Limits, limits
from gradlab.spec.choices import MODELS
from gradlab.spec.keys import in_order
from gradlab.spec.named import SpecError, Value
from gradlab.store.columns import schema_of
from gradlab.store.documents import Manifest, read_manifest
from gradlab.store.lean import lean
from gradlab.store.merging import promoted
from gradlab.store.pieces import TABLES
from gradlab.store.record import with_final_losses
from gradlab.store.settings import Columns, Ranking, ranking
from gradlab.store.sources import Merged
from gradlab.store.tables import load_tables

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

DENSE_CELLS = 8_000_000
"""Most cells of an array (R, T); beyond it the steps are thinned."""

MOST_DRAWN = 10_000
"""Runs of a large result whose steps and layers are read."""

LEAST_DRAWN = 100
"""So many are read, however many rows they have."""

MOST_ROWS = 2_000_000
"""Rows of each table that are read of more."""


@dataclass(frozen=True)
class Curves:
    """The steps table as arrays (R, T), NaN where a run has no such row; ``step`` (T,) numbers the columns."""

    step: Ints
    loss: Floats
    grad_norm: Floats
    grad_norm_clipped: Floats
    thinned: bool


@dataclass(frozen=True)
class Rows:
    """Rows of the layers table along one axis, as flat arrays (N,); ``run`` is the place of the run in the grid."""

    run: Ints
    step: Ints
    layer: Ints
    delta: Floats
    update_ratio: Floats

    def profile(self, runs: int, steps: Ints) -> Floats:
        """Delta by layer at one step of each run, ``steps`` (R,); shape (R, L + 1), NaN where there is no row."""
        out = np.full((runs, int(self.layer.max(initial=0)) + 1), np.nan)
        here = self.step == steps[self.run]
        out[self.run[here], self.layer[here]] = self.delta[here]
        return out

    def median_update(self, runs: int) -> Floats:
        """Median over the recorded steps of ‖ΔW‖/‖W‖, shape (R, L + 1); NaN where no step was measured."""
        width = int(self.layer.max(initial=0)) + 1
        known = ~np.isnan(self.update_ratio)
        cell, values = self.run[known] * width + self.layer[known], self.update_ratio[known]
        order = np.lexsort((values, cell))
        cell, values = cell[order], values[order]
        cells, first, count = np.unique(cell, return_index=True, return_counts=True)
        out = np.full(runs * width, np.nan)
        out[cells] = (values[first + (count - 1) // 2] + values[first + count // 2]) / 2
        return out.reshape(runs, width)

    def history(self, run: int) -> tuple[Ints, Ints, Floats]:
        """One run: the recorded steps (K,), the layers (L,) and delta (L, K), NaN where there is no row."""
        here = self.run == run
        steps, column = np.unique(self.step[here], return_inverse=True)
        layers, row = np.unique(self.layer[here], return_inverse=True)
        out = np.full((len(layers), len(steps)), np.nan)
        out[row, column] = self.delta[here]
        return steps, layers, out


@dataclass(frozen=True)
class Result:
    """One or several result folders as one: R runs in the order of their grids.

    ``asked``: whether somebody chose these runs from more, by their ids. ``whole``: all runs, where these were drawn
    from too many by chance: their keys and outcomes (`lean`), and no rows of the other tables, which are ``behind`` it.
    """

    tables: Mapping[str, pa.Table]
    manifests: Mapping[Path, Manifest]
    notes: tuple[str, ...]
    asked: bool = False
    whole: Result | None = None
    behind: Behind | None = None

    @property
    def every(self) -> Result:
        """All runs: what counts and ranks is of them, also where only some of them can be drawn."""
        return self.whole or self

    @property
    def runs(self) -> pa.Table:
        """The runs table."""
        return self.tables["runs"]

    @cached_property
    def columns(self) -> Mapping[str, list[Value]]:
        """The runs table, a list a column."""
        return Columns(self.runs)

    @cached_property
    def ids(self) -> list[str]:
        """The ids of the runs, in order."""
        return [str(run_id) for run_id in self.columns["run_id"]]

    @cached_property
    def state(self) -> npt.NDArray[np.str_]:
        """(R,) finished, diverged or failed."""
        return np.array(self.columns["state"], dtype=str)

    def number(self, name: str) -> Floats:
        """A column of `runs` as floats (R,), NaN where it is null."""
        return _floats(self.runs[name])

    def theory(self, name: str) -> Floats:
        """`number` of a column that theory filled; NaN where the tables are older than it."""
        return self.number(name) if name in self.columns else np.full(self.size, np.nan)

    @cached_property
    def settings(self) -> Ranking:
        """The runs together that differ in their seeds alone."""
        return ranking(self.runs)

    @property
    def limits(self) -> Limits:
        """The thresholds that the runs were judged by; of several folders those of the first."""
        return limits(next(iter(self.manifests.values())).get("diagnose"))

    @property
    def size(self) -> int:
        """R."""
        return len(self.state)

    def only(self, kept: Bools) -> Result:
        """The ``kept`` runs (R,) alone, with their rows."""
        ids = self.runs["run_id"].filter(pa.array(kept)).combine_chunks()
        rows = {name: table.filter(pc.is_in(table["run_id"], value_set=ids)) for name, table in self.tables.items()}
        return Result(rows, self.manifests, self.notes, self.asked)

    def rows_of(self, places: Sequence[int]) -> Mapping[str, pa.Table]:
        """All tables of the runs at these places, in their order in the grid."""
        if self.behind is not None:
            return self.behind.rows_of([self.ids[place] for place in places])
        return self.only(np.isin(np.arange(self.size), places)).tables

    @cached_property
    def own(self) -> Bools:
        """(R,) Whether a run is of an architecture of gradlab's; a training that was watched is not."""
        return np.array([name is not None for name in self.columns["model.name"]], dtype=bool)

    @cached_property
    def timed(self) -> Bools:
        """(R,) Whether a run is of a recurrent architecture, whose rates are along time."""
        names = self.columns["model.name"]
        return np.array([name is not None and MODELS[str(name)].needs_time for name in names], dtype=bool)

    @cached_property
    def keys(self) -> list[str]:
        """The keys that the runs have, in the order of `spec.KEYS`."""
        return in_order(self.columns)

    @cached_property
    def curves(self) -> Curves:
        """The steps table; of very many rows only evenly spread steps are kept, the first and last among them."""
        table = self.tables["steps"]
        run, step = self.places(table), table["step"].to_numpy()
        all_steps = np.unique(step)
        most = max(50, DENSE_CELLS // max(1, self.size))
        chosen = all_steps
        if len(all_steps) > most:
            chosen = all_steps[np.unique(np.linspace(0, len(all_steps) - 1, most).round().astype(int))]
        place = np.searchsorted(chosen, step).clip(max=max(0, len(chosen) - 1))
        kept = chosen[place] == step if len(chosen) else np.zeros(0, dtype=bool)
        dense = {}
        for name in ("loss", "grad_norm", "grad_norm_clipped"):
            dense[name] = np.full((self.size, len(chosen)), np.nan)
            dense[name][run[kept], place[kept]] = _floats(table[name])[kept]
        return Curves(
            chosen, dense["loss"], dense["grad_norm"], dense["grad_norm_clipped"], len(chosen) < len(all_steps)
        )

    @cached_property
    def _layer_rows(self) -> tuple[Rows, Rows]:
        table = self.tables["layers"]
        run, along_time = self.places(table), pc.equal(table["axis"], "time").to_numpy()
        columns = [table[name].to_numpy() for name in ("step", "layer")]
        columns += [_floats(table[name]) for name in ("signal_grad_norm", "update_ratio")]
        return _rows(run, columns, ~along_time), _rows(run, columns, along_time)

    @property
    def depth(self) -> Rows:
        """The layers table along depth."""
        return self._layer_rows[0]

    @property
    def time(self) -> Rows:
        """The layers table along time; empty without recurrent networks."""
        return self._layer_rows[1]

    @cached_property
    def recurrent(self) -> Bools:
        """The runs (R,) whose δ is followed along time: by their architecture, of one that is not known by its rows."""
        has_time = np.isin(np.arange(self.size), self.time.run)
        known = [MODELS.get(str(name)) for name in self.columns["model.name"]]
        pairs = zip(known, has_time, strict=True)
        return np.array([rows if model is None else model.needs_time for model, rows in pairs])

    def places(self, table: pa.Table) -> Ints:
        """The place in the grid of the run of each row of ``table``."""
        ids = self.runs["run_id"].combine_chunks()
        places: Ints = pc.index_in(table["run_id"], value_set=ids).to_numpy().astype(np.int64)
        return places


def _rows(run: Ints, columns: list[npt.NDArray[np.generic]], here: Bools) -> Rows:
    return Rows(run[here], *(column[here] for column in columns))  # type: ignore[arg-type]


def _floats(column: pa.ChunkedArray) -> Floats:
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=float)


def read(paths: Sequence[Path], chosen: Iterable[str] | None = None) -> Result:
    """The folders as one result; a run found twice is kept once, where it did not fail, and a note says so.

    ``chosen``: of these runs alone. Of a result with a table of more than `parts.LARGE` rows at most `MOST_DRAWN` runs
    are read, drawn by chance, and `Result.whole` holds what is told of all.
    Raises `SpecError` where a folder holds no result, or no run at all.
    """
    if not paths:
        raise SpecError("no result folder given; expected one or more, as in gradlab report outputs/latest")
    manifests = {path: read_manifest(path) for path in paths}
    folders = [load_tables(path) for path in paths]
    own, repeated = _owned(folders)
    here = sum(map(len, own))
    if not here:
        raise SpecError(f"{paths[0]}: holds no finished run yet")
    notes = (*_unfinished(here, manifests), *_repeated(repeated))
    if chosen is not None:
        kept = set(chosen)
        return _together(folders, [[one for one in ids if one in kept] for ids in own], manifests, notes)
    share = max(sum(folder.rows(name) for folder in folders) for name in TABLES[1:]) / MOST_ROWS
    if not any(folder.large for folder in folders) or here <= (
        most := min(MOST_DRAWN, max(LEAST_DRAWN, int(here / share)))
    ):
        return _together(folders, own if repeated else None, manifests, notes)
    # Ids are digests: the smallest are drawn by chance, and the same ones each time.
    last = sorted(one for ids in own for one in ids)[most - 1]
    some = _together(folders, [[one for one in ids if one <= last] for ids in own], manifests, notes)
    drawn = (
        f"Of {here:,} runs {some.size:,}, drawn by chance, have their steps and layers in the figures, in the explorer "
        "and in steps.csv and layers.csv. What is counted, ranked or mapped is of all; gradlab export --to csv writes "
        "every row."
    )
    tables = {name: table.slice(0, 0) for name, table in some.tables.items()}
    behind = Behind(folders, own, manifests)
    whole = Result({**tables, "runs": behind.lean(repeated)}, manifests, notes, behind=behind)
    return replace(some, notes=(*notes, drawn), whole=whole)


@dataclass(frozen=True)
class Behind:
    """What a large result is read from: its folders, and of each the runs that it tells of."""

    folders: Sequence[Merged]
    own: Sequence[Sequence[str]]
    manifests: Mapping[Path, Manifest]

    def lean(self, repeated: int) -> pa.Table:
        """The table of runs, as far as it is held; where some are ``repeated``, each once."""
        runs = lean(self.folders)
        if not repeated:
            return runs
        ends = list(accumulate((folder.rows("runs") for folder in self.folders), initial=0))
        parts = [runs.slice(first, end - first) for first, end in pairwise(ends)]
        return pa.concat_tables([_among(part, ids) for part, ids in zip(parts, self.own, strict=True)])

    def runs(self) -> Iterator[pa.Table]:
        """The whole table of runs, some at a time."""
        schema = schema_of("runs", [folder.source("runs").schema for folder in self.folders])
        for folder, ids in zip(self.folders, self.own, strict=True):
            for batch in folder.batches("runs"):
                yield promoted(_among(batch, ids) if len(self.folders) > 1 else batch, schema)

    def homes(self, run_ids: Iterable[str]) -> dict[str, Path]:
        """The folders of these runs."""
        wanted = set(run_ids)
        return {one: path for path, ids in zip(self.manifests, self.own, strict=True) for one in ids if one in wanted}

    def rows_of(self, run_ids: Sequence[str]) -> Mapping[str, pa.Table]:
        """All tables of these runs."""
        wanted = set(run_ids)
        return _together(
            self.folders, [[one for one in ids if one in wanted] for ids in self.own], self.manifests
        ).tables


def _among(runs: pa.Table, ids: Sequence[str]) -> pa.Table:
    return runs.filter(pc.is_in(runs["run_id"], value_set=pa.array(ids, pa.string())))


def _owned(folders: Sequence[Merged]) -> tuple[list[list[str]], int]:
    """Of each folder the runs that it tells of, and how many stand in others too: one that did not fail is told."""
    told = [folder.read("runs", ["run_id", "state"]) for folder in folders]
    if len(folders) == 1:
        return [told[0]["run_id"].to_pylist()], 0
    owner: dict[str, tuple[int, bool]] = {}
    repeated = 0
    for number, runs in enumerate(told):
        for run_id, state in zip(runs["run_id"].to_pylist(), runs["state"].to_pylist(), strict=True):
            repeated += run_id in owner
            if run_id not in owner or (owner[run_id][1] and state != "failed"):
                owner[run_id] = number, state == "failed"
    found: list[list[str]] = [[] for _ in folders]
    for run_id, (number, _) in owner.items():
        found[number].append(run_id)
    return found, repeated


def _together(
    folders: Sequence[Merged],
    own: Sequence[Sequence[str]] | None,
    manifests: Mapping[Path, Manifest],
    notes: tuple[str, ...] = (),
) -> Result:
    """All tables of the folders, of each those of its ``own`` runs, one behind the other."""
    some = folders if own is None else [folder.of_runs(ids) for folder, ids in zip(folders, own, strict=True)]
    known = [judged(tables, manifest) for tables, manifest in zip(some, manifests.values(), strict=True)]
    whole = {name: pa.concat_tables([one[name] for one in known], promote_options="permissive") for name in TABLES}
    return Result(whole, manifests, notes)


def judged(tables: Mapping[str, pa.Table], manifest: Manifest) -> dict[str, pa.Table]:
    """The tables with what an older gradlab left out: final losses, and verdicts by the thresholds of the manifest."""
    runs = with_final_losses(tables["runs"], tables["steps"])
    return {**tables, "runs": with_verdicts(runs, tables["steps"], tables["layers"], limits(manifest.get("diagnose")))}


def _unfinished(here: int, manifests: Mapping[Path, Manifest]) -> tuple[str, ...]:
    """Says where a folder's runs are not all there: a sweep still running, or interrupted."""
    asked = sum(int(manifest["runs"]) for manifest in manifests.values())
    if here >= asked or len(manifests) > 1:
        return ()
    state = next(iter(manifests.values()))["state"]
    return (f"Of {asked} planned runs {here} are here (the sweep is marked {state!r}).",)


def _repeated(repeated: int) -> tuple[str, ...]:
    if not repeated:
        return ()
    subject = "One run stands" if repeated == 1 else f"{repeated} runs stand"
    return (f"{subject} in more than one folder (same run_id); each is kept once.",)
