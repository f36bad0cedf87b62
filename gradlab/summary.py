"""The end of a command in the terminal: what happened, in a table and a sentence, from the tables alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.markup import escape
from rich.table import Table

MOST_ROWS = 20
"""Of the per-layer table; a longer network is thinned."""

BEST_AND_WORST = 5
"""Runs of a sweep shown at either end."""

Run = dict[str, Any]
"""A row of the `runs` table."""


def number(value: float | None, digits: int = 3) -> str:
    """A figure that stays readable from 1e-32 to 1e32; a dash where there is none.

    >>> number(0.25), number(1.4421e-32), number(None), number(math.nan)
    ('0.25', '1.44e-32', '-', 'nan')
    """
    if value is None:
        return "-"
    if not math.isfinite(value) or value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.{digits}g}"
    return f"{value:.{digits - 1}e}"


def thinned(count: int, most: int) -> list[int]:
    """At most ``most`` of 0..count-1, evenly spread, both ends among them.

    >>> thinned(5, 3)
    [0, 2, 4]
    """
    if count <= most:
        return list(range(count))
    return sorted({round(index * (count - 1) / (most - 1)) for index in range(most)})


def show_run(out: Console, tables: dict[str, pa.Table]) -> None:
    """The per-layer table of a single run, and what happened in one sentence."""
    run: Run = tables["runs"].to_pylist()[0]
    if run["state"] != "failed":
        for axis in ("depth", "time"):
            rows = tables["layers"].filter(pc.equal(tables["layers"]["axis"], axis))
            if rows.num_rows:
                _show_rows(out, rows, axis)
    out.print(escape(sentence(run)), soft_wrap=False)


def _show_rows(out: Console, rows: pa.Table, axis: str) -> None:
    steps = sorted(set(rows["step"].to_pylist()))
    first, last = (
        {row["layer"]: row for row in rows.filter(pc.equal(rows["step"], at)).to_pylist()}
        for at in (steps[0], steps[-1])
    )
    before_last = {
        row["layer"]: row for row in rows.filter(pc.equal(rows["step"], steps[max(0, len(steps) - 2)])).to_pylist()
    }
    shown = thinned(len(first), MOST_ROWS)
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    table.add_column("step" if axis == "time" else "layer", justify="right")
    table.add_column("", no_wrap=True)
    for heading in (f"δ, step {steps[0]}", f"δ, step {steps[-1]}"):
        table.add_column(heading, justify="right", no_wrap=True)
    if axis == "depth":
        table.add_column("∇W", justify="right", no_wrap=True)
        table.add_column("ΔW/W", justify="right", no_wrap=True)
    table.add_column("mean h", justify="right", no_wrap=True)
    table.add_column("std h", justify="right", no_wrap=True)
    table.add_column("idle", justify="right", no_wrap=True)
    for layer in [list(first)[place] for place in shown]:
        start, end = first[layer], last[layer]
        cells = [str(layer), start["name"], number(start["signal_grad_norm"]), number(end["signal_grad_norm"])]
        if axis == "depth":
            cells += [number(end["weight_grad_norm"]), number(before_last[layer]["update_ratio"], 2)]
        idle = end["dead"] if end["saturated"] is None else end["saturated"]
        cells += [number(end["act_mean"], 2), number(end["act_std"], 2), "-" if idle is None else f"{idle:.0%}"]
        table.add_row(*cells)
    out.print(table)
    words = f"δ = norm of ∂loss/∂z. Idle: units dead or entries saturated. Last column block at step {steps[-1]}."
    if len(shown) < len(first):
        words = f"{len(shown)} of {len(first)} rows are shown; layers.csv has all. " + words
    out.print(f"[dim]{words}[/dim]")


def sentence(run: Run) -> str:
    """What happened to a run, with its numbers."""
    if run["state"] == "failed":
        return f"Crashed: {run['error']}"
    parts = []
    if run["state"] == "diverged":
        where = "" if run["diverged_layer"] is None else f", first in layer {run['diverged_layer']}"
        parts.append(f"Diverged at step {run['diverged_at']}{where} (loss {number(run['loss_first'])} at step 0)")
    elif run["steps"] == 0:
        parts.append(f"Measured at the initial weights: loss {number(run['loss_first'])}")
    else:
        heldout = f", {number(run['loss_heldout'])} held out" if run["loss_heldout"] is not None else ""
        right = f", accuracy {run['accuracy']:.1%}" if run["accuracy"] is not None else ""
        steps = f"{run['steps']} step{'s' if run['steps'] > 1 else ''}"
        parts.append(
            f"Finished {steps}: loss {number(run['loss_first'])} -> {number(run['loss_last'])}{heldout}{right}"
        )
    if run["rate"] is not None:
        along = "time step" if run["model.name"] == "rnn" else "layer"
        trend = "shrinks" if run["rate"] < 1 else "grows"
        ratio = number(run["vanishing_ratio"])
        parts.append(
            f"at step 0 the signal gradient {trend} by {number(run['rate'])} a {along} towards the input "
            f"(first over last: {ratio})"
        )
    return "; ".join(parts) + "."


def show_sweep(out: Console, runs: pa.Table, swept: Sequence[str]) -> None:
    """The best and the worst runs of a sweep by their last loss, and what became of the others."""
    rows: list[Run] = runs.to_pylist()
    states = [row["state"] for row in rows]
    finished = sorted((row for row in rows if row["state"] == "finished"), key=lambda row: row["loss_last"])
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for heading in ("loss", "held-out", "right", "rate", "δ1/δL-1"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("setting", overflow="fold")
    best = finished[:BEST_AND_WORST]
    worst = finished[max(len(best), len(finished) - BEST_AND_WORST) :]
    for group, after in ((best, bool(worst)), (worst, False)):
        for row in group:
            right = "-" if row["accuracy"] is None else f"{row['accuracy']:.0%}"
            figures = (number(row[name]) for name in ("loss_last", "loss_heldout"))
            table.add_row(
                *figures, right, number(row["rate"]), number(row["vanishing_ratio"]), escape(setting(row, swept))
            )
        if after and len(finished) > 2 * BEST_AND_WORST:
            table.add_row("...", "", "", "", "", f"{len(finished) - len(best) - len(worst)} more")
    if finished:
        out.print(table)
    out.print(
        f"{states.count('finished')} finished, {states.count('diverged')} diverged, {states.count('failed')} failed "
        f"of {len(rows)} runs."
    )
    for row in [row for row in rows if row["state"] == "failed"][:3]:
        out.print(escape(f"failed: {setting(row, swept)}: {row['error']}"))


def setting(row: Run, swept: Sequence[str]) -> str:
    """The swept keys of a run with their values, without their sections."""
    shown = ((key.partition(".")[2] or key, row[key]) for key in swept if key in row)
    return " ".join(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in shown)
