"""The end of a command in the terminal: what happened, in a table and a sentence, from the tables alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.markup import escape

from gradlab.diagnose import DEFAULTS, ORDER, Limits, names, scaling
from gradlab.diagnose.noise import advised
from gradlab.diagnose.numbers import number
from gradlab.spec.choices import MODELS
from gradlab.store.record import with_final_losses
from gradlab.store.sources import Merged
from gradlab.terminal.grids import Head, show_table
from gradlab.terminal.illnesses import Illness, show_illnesses, show_verdicts
from gradlab.terminal.ranks import Run, show_ranks

LEAST_ROWS, PLAIN_ROWS, MOST_ROWS = 8, 12, 20
"""Of the per-layer table; a longer network is thinned, so that the verdict above stays in sight on a low terminal."""

BESIDE = 16
"""Lines beside the table, which a terminal must hold too."""


def thinned(names: Sequence[str], most: int) -> list[int]:
    """At most ``most`` (6 at least) of the rows ``names``: those at either end, and whole blocks at even distances.

    >>> thinned([f"conv_{layer}" for layer in range(9)], 6)
    [0, 1, 3, 5, 7, 8]
    >>> thinned(["read_in", *(f"block_{1 + row // 2}.{1 + row % 2}" for row in range(10)), "output"], 8)
    [0, 1, 2, 5, 6, 9, 10, 11]
    """
    every = range(len(names))
    if len(names) <= most:
        return list(every)
    of_blocks = [list(rows) for _, rows in groupby(every, lambda row: _block(names[row]) or row)]
    for parts in (of_blocks, [[row] for row in every]):
        large = [place for place, rows in enumerate(parts) if len(rows) > 1] or [1, len(parts) - 2]
        first, last = large[0], large[-1]
        for count in range(last - first, 1, -1):
            between = (first + round(place * (last - first) / (count - 1)) for place in range(count))
            places = (*range(first), *between, *range(last + 1, len(parts)))
            shown = [row for place in places for row in parts[place]]
            if len(shown) <= most:
                return shown
    raise ValueError(f"at most {most} rows; expected at least 6")


def _block(name: str) -> str | None:
    """What layers of one block have in common: the number in attention_3 and block_3.2, the list's place in h.3.mlp."""
    found = re.match(r".*?_(\d+)|(.*?\.\d+)\.", name)
    return found and (found[1] or found[2])


def show_run(out: Console, tables: Mapping[str, pa.Table], limits: Limits = DEFAULTS, root: Path | None = None) -> None:
    """A single run's verdicts, what happened in one sentence, and its per-layer table."""
    run: Run = with_final_losses(tables["runs"], tables["steps"]).to_pylist()[0]
    show_verdicts(out, tables, limits, root)
    zeros = exact_zeros(tables["layers"], float64=run["train.precision"] == "float64")
    out.print(escape(" ".join([sentence(run), *zeros])))
    (advice,) = advised(tables["instruments"], tables["runs"])
    if advice is not None:
        out.print(escape(advice.sentence))
    if run["state"] != "failed":
        for axis in ("depth", "time"):
            rows = tables["layers"].filter(pc.equal(tables["layers"]["axis"], axis))
            if rows.num_rows:
                _show_rows(out, rows, axis)
        out.print("[dim]δ = ‖∂loss/∂z‖, ∇W = ‖∂loss/∂W‖, ΔW/W = ‖ΔW‖/‖W‖, h = φ(z); @ = at step[/dim]")


@dataclass(frozen=True)
class Column:
    """A column of the per-layer table: what it shows, of which column of `layers`, at which step, with which digits."""

    heading: str
    source: str
    step: int
    digits: int = 2


def _show_rows(out: Console, rows: pa.Table, axis: str) -> None:
    cells: dict[tuple[int, int], Run] = {(row["step"], row["layer"]): row for row in rows.to_pylist()}
    steps, layers = (sorted({place[which] for place in cells}) for which in (0, 1))
    first, last = steps[0], steps[-1]
    # The last row is measured without an update, so the last relative update is that of the row before it.
    update = steps[max(0, len(steps) - 2)]
    columns = [Column("δ", "signal_grad_norm", first, 3)]
    if last > first:
        columns.append(Column("δ", "signal_grad_norm", last, 3))
    if axis == "depth":
        columns += [Column("∇W", "weight_grad_norm", last, 3), Column("ΔW/W", "update_ratio", update)]
    columns += [Column("mean h", "act_mean", last), Column("std h", "act_std", last)]
    columns += [Column("saturated", "saturated", last), Column("dead", "dead", last)]
    columns = [column for column in columns if any(cells[column.step, n][column.source] is not None for n in layers)]
    heads = [Head("step" if axis == "time" else "layer", number=True), Head("")]
    heads += [Head(f"{column.heading}\n@{column.step}", number=True) for column in columns]
    # Layers 1 and L-1, which the sentence compares, stand next to the input and the output: both are shown.
    most = min(MOST_ROWS, max(LEAST_ROWS, out.height - BESIDE)) if out.is_terminal else PLAIN_ROWS
    shown = [layers[place] for place in thinned([cells[first, layer]["name"] or "" for layer in layers], most)]
    values = [
        [
            str(layer),
            cells[first, layer]["name"],
            *(_cell(cells[column.step, layer][column.source], column) for column in columns),
        ]
        for layer in shown
    ]
    show_table(out, heads, values, gap=1)
    if len(shown) < len(layers):
        out.print(f"[dim]{len(shown)} of {len(layers)} rows are shown; the layers table has all.[/dim]")


def _cell(value: float | None, column: Column) -> str:
    if column.source in ("saturated", "dead") and value is not None and math.isfinite(value):
        return f"{value:.0%}"
    return number(value, column.digits)


def sentence(run: Run) -> str:
    """What happened to a run, with its numbers."""
    if run["state"] == "failed":
        return f"Crashed: {run['error']}."
    said = f"{_outcome(run)}."
    if run["rate"] is not None:
        model = None if run["model.name"] is None else MODELS[run["model.name"]]
        along, ends = ("layer" if model is None or model.trunk is None else "block"), "layer 1 over L-1"
        if model is not None and model.needs_time:
            along, ends = "time step", "step 1 over T"
        said += (
            f" At step 0, δ is multiplied by {number(run['rate'])} per {along} on its way to the input "
            f"({ends}: {number(run['vanishing_ratio'])})."
        )
    return said


def exact_zeros(layers: pa.Table, *, float64: bool) -> list[str]:
    """Sentences on where δ is exactly zero at step 0, one an axis; a norm that merely underflowed is none.

    A layer is dead where every entry of its gradient is zero beside its δ. Along time no gradient tells, and in float64
    (``float64``) the squares of a norm can underflow, so there nothing is said.
    """
    said = []
    for axis, noun in (("depth", "layer"), ("time", "time step")):
        dead = sorted(
            row["layer"]
            for row in layers.filter(pc.equal(layers["axis"], axis)).to_pylist()
            if row["step"] == 0
            and row["layer"] > 0
            and row["signal_grad_norm"] == 0
            and (row["grad_zero"] == 1 or (axis == "time" and not float64))
        )
        if dead:
            said.append(f"At step 0, δ is exactly 0 in {noun}{'s' if len(dead) > 1 else ''} {ranges(dead)}.")
    return said


def ranges(numbers: Sequence[int]) -> str:
    """Ascending whole numbers, neighbours joined.

    >>> ranges([1, 2, 3, 7, 9, 10])
    '1..3, 7, 9..10'
    """
    spans: list[tuple[int, int]] = []
    for place in numbers:
        if spans and place == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], place)
        else:
            spans.append((place, place))
    return ", ".join(str(low) if low == high else f"{low}..{high}" for low, high in spans)


def _outcome(run: Run) -> str:
    first = number(run["loss_first"])
    if run["state"] == "diverged":
        where = "" if run["diverged_layer"] is None else f", first in layer {run['diverged_layer']}"
        return f"Diverged at step {run['diverged_at']}{where}; the loss was {first} at step 0"
    if run["steps"] == 0:
        return f"Measured at the initial weights: loss {first}"
    heldout = "" if run["loss_heldout"] is None else f"held out {number(run['loss_heldout'])}"
    right = "" if run["accuracy"] is None else f"accuracy {run['accuracy']:.1%}"
    beside = ", ".join(part for part in (heldout, right) if part)
    steps = f"{run['steps']} step{'s' if run['steps'] > 1 else ''}"
    if run["loss_first"] is None:
        return f"Finished {steps}; no call of backward was seen at their start, so the loss is not known"
    return f"Finished {steps}: loss {first} -> {number(run['loss_final'])}{f' ({beside})' if beside else ''}"


def show_sweep(
    out: Console, runs: pa.Table, swept: Sequence[str], wrong: Sequence[Illness] = (), root: Path | None = None
) -> None:
    """What became of the runs of a sweep, what is ``wrong`` with them, and its best and worst settings."""
    states = _counted(runs["state"])
    out.print(
        f"{states['finished']} finished, {states['diverged']} diverged, {states['failed']} failed of {runs.num_rows} "
        "runs."
    )
    found: Counter[str] = Counter()
    for verdict, count in _counted(runs["verdict"]).items():
        found.update(dict.fromkeys(names(verdict), count))
    if found:
        out.print(f"Verdicts: {', '.join(f'{found[name]} {name}' for name in ORDER if found[name])}.")
    errors = _counted(runs["error"].filter(pc.equal(runs["state"], "failed")))
    for error, count in errors.most_common(3):
        out.print(escape(f"{count} failed: {error}"))
    show_illnesses(out, wrong, root)
    show_ranks(out, runs, swept)


def _counted(column: pa.ChunkedArray) -> Counter[str]:
    return Counter({one["values"]: one["counts"] for one in column.value_counts().to_pylist()})


def show_scaling(out: Console, tables: Merged, swept: Sequence[str]) -> None:
    """How what was measured goes with the width or the depth, where a sweep has enough of them.

    Of a large one the report tells it, of the runs that it draws.
    """
    if set(scaling.ALONG) & set(swept) and not tables.large:
        rows = with_final_losses(tables["runs"], tables["steps"]).to_pylist()
        for line in scaling.sentences(rows, swept, tables["instruments"]):
            out.print(escape(line), soft_wrap=True)


SHOWN = {"fail": "FAIL"}
"""Results of an expectation that must not be overlooked, as they are printed."""


def show_expectations(out: Console, told: Mapping[str, Any]) -> None:
    """What the experiment was expected to show, beside what was measured; ``told`` as the store keeps it."""
    outcomes = told["outcomes"]
    met = sum(outcome["result"] == "pass" for outcome in outcomes)
    out.print(f"{met} of {len(outcomes)} expectations of {escape(str(told['experiment']))} are met:")
    show_table(
        out,
        [Head("result"), *(Head(name, text=True) for name in ("expectation", "expected", "measured"))],
        [
            [
                SHOWN.get(outcome["result"], outcome["result"]),
                *(outcome[name] for name in ("what", "expected", "measured")),
            ]
            for outcome in outcomes
        ],
        bad=[place for place, outcome in enumerate(outcomes) if outcome["result"] in SHOWN],
    )
    if told["altered"]:
        out.print(
            escape(
                f"Settings of the experiment were changed ({', '.join(told['altered'])}), so none of this has to hold."
            )
        )
