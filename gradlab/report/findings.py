"""What the page says in words and tables."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from gradlab.diagnose import scaling
from gradlab.report.effects import MOST_EMPTY
from gradlab.report.groups import LATER, describe, label, levels, swept, varying
from gradlab.report.tables import Result
from gradlab.spec.keys import is_key
from gradlab.spec.named import Value
from gradlab.store.documents import Manifest
from gradlab.store.settings import REPLICATES, Ranking, Setting, ranking

MOST_ROWS = 1000
"""Settings in the table of runs."""

MOST_VALUES = 12


@dataclass(frozen=True)
class Table:
    """A table of the page: cells as text, which columns are numbers, and what was left out."""

    head: tuple[str, ...]
    numeric: tuple[bool, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str


def figure(value: Value) -> str:
    """A measured value for reading: four digits, ``nan`` and ``inf`` as such, null as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def sentences(result: Result) -> list[str]:
    """What came out, in plain words; how it goes with width or depth is told of the runs that were drawn."""
    drawn, result = result, result.every
    lines = [states(result)]
    keys = swept(result) or varying(result)
    early = [key for key in keys if not key.startswith(LATER)]
    along, first, last = _places(result)
    rate = result.number("rate")
    if (known := np.flatnonzero(np.isfinite(rate))).size:
        low, high = known[np.argmin(rate[known])], known[np.argmax(rate[known])]
        if result.size == 1 or low == high:
            lines.append(f"δ changes by a factor of {rate[low]:.3g} a {along} on its way to the input.")
        else:
            lines.append(
                f"The rate of δ a {along} towards the input is {rate[low]:.3g} ({describe(result, low, early)}) to "
                f"{rate[high]:.3g} ({describe(result, high, early)})."
            )
    ratio = result.number("vanishing_ratio")
    if (known := np.flatnonzero(~np.isnan(ratio))).size:
        low, high = known[np.argmin(ratio[known])], known[np.argmax(ratio[known])]
        if result.size == 1:
            lines.append(f"At step 0 the {first} gets {ratio[low]:.3g} times the δ of the {last}.")
        elif low != high:
            lines.append(
                f"‖δ‖ of the {first} over that of the {last}, at step 0, lies between {ratio[low]:.3g} "
                f"({describe(result, low, early)}) and {ratio[high]:.3g} ({describe(result, high, early)})."
            )
    lines += _losses(result, keys)
    if set(scaling.ALONG) & set(keys):
        lines += scaling.sentences(drawn.runs.to_pylist(), keys, drawn.tables["instruments"])
    return lines


def _places(result: Result) -> tuple[str, str, str]:
    """What δ is followed along, and the two places that the vanishing ratio compares: time in recurrent networks."""
    recurrent = set(result.recurrent.tolist())
    if recurrent == {True}:
        return "time step", "first time step", "last one"
    if recurrent == {False}:
        return "layer", "first layer", "last hidden one"
    return "layer (a time step in an RNN)", "first layer (time step)", "last hidden one (last one)"


def states(result: Result) -> str:
    """How many runs finished, diverged and failed, in a sentence."""
    count = Counter(result.state.tolist())
    if result.size == 1:
        state = str(result.state[0])
        if state == "diverged":
            layer = result.columns["diverged_layer"][0]
            where = f", first in layer {layer}" if layer is not None else ""
            return f"The run diverged at step {result.columns['diverged_at'][0]}{where}."
        return f"The run {state}." if state == "finished" else f"The run failed: {result.columns['error'][0]}"
    if count.get("finished") == result.size:
        return f"All {result.size} runs finished: none diverged, none failed."
    parts = [f"{count.get(state, 0)} {state}" for state in ("finished", "diverged", "failed")]
    line = f"Of {result.size} runs {', '.join(parts[:2])} and {parts[2]}."
    stop = result.number("diverged_at")
    if (known := stop[~np.isnan(stop)]).size:
        low, high = int(known.min()), int(known.max())
        line += f" Runs diverged at step {low}." if low == high else f" Runs diverged between steps {low} and {high}."
    if count.get("failed"):
        errors = Counter(str(error).strip().partition("\n")[0] for error in result.columns["error"] if error)
        line += " Failures: " + "; ".join(f"{text} ({number})" for text, number in errors.most_common(3)) + "."
    return line


def _losses(result: Result, keys: Sequence[str]) -> list[str]:
    if not np.isfinite(result.number("loss_final")).any():
        return []

    ranked = result.settings.ranked
    best, worst = result.settings.some([ranked[0], ranked[-1]])
    if result.size == 1:
        return [f"The loss went from {result.number('loss_first')[0]:.4g} to {_mean(best)}."]
    low, high = (f"{_mean(one)} ({describe(result, int(one.places[0]), keys)})" for one in (best, worst))
    if len(ranked) == 1:
        return [f"Final loss: {_mean(best)}."]
    return [f"Lowest final loss: {low}. Highest of a setting that finished: {high}."]


def _mean(one: Setting) -> str:
    """The final loss and the accuracy of a setting, with how many seeds they are the mean of."""
    right, seeds = one.mean("accuracy"), len(one.known("loss_final"))
    words = f"{one.mean('loss_final'):.4g}" + ("" if right is None else f", accuracy {right:.3g}")
    return words + (f", mean of {seeds} seeds" if seeds > 1 else "")


def questions(result: Result) -> list[tuple[str, str, str]]:
    """The named experiments that the runs are of: name, question and source, where their folders tell them."""
    told = [(manifest.get("experiment"), manifest.get("about") or {}) for manifest in result.manifests.values()]
    found = [(name, about.get("question", ""), about.get("source", "")) for name, about in told if name and about]
    return list(dict.fromkeys(found))


def mixed(result: Result) -> tuple[str, ...]:
    """Says of folders that hold different sweeps what their figures are."""
    filled = math.prod(len(levels(result, key)) for key in swept(result)) <= MOST_EMPTY * result.size
    if len(result.manifests) < 2 or result.asked or filled:
        return ()
    said = (
        "These folders hold different sweeps: a line or a cell may pool over keys that only one of them varied, as its "
        "caption says. The report of each folder tells it by itself."
    )
    return (said,)


def value_list(result: Result, key: str) -> str:
    """The values of a key that varies, in words; of many the ends."""
    labels = levels(result, key).labels
    if len(labels) <= MOST_VALUES:
        return ", ".join(labels)
    return f"{', '.join(labels[:3])}, … {labels[-1]} ({len(labels)} values)"


def base(result: Result) -> list[tuple[str, str]]:
    """The keys that all runs share, with their values; keys that no run has are left out."""
    many = set(varying(result))
    shared = [(key, result.runs[key][0].as_py()) for key in result.keys if key not in many]
    return [(key, label(value)) for key, value in shared if value is not None]


def provenance(manifest: Manifest) -> list[tuple[str, str]]:
    """What the manifest says of where and when it was run, for reading; what it does not say is left out."""
    program, *rest = manifest.get("command") or [""]
    host, device, elapsed = manifest.get("host") or {}, manifest.get("device") or {}, manifest.get("elapsed_s")
    times = [str(manifest[name]) for name in ("started", "finished") if manifest.get(name)]
    rows = {
        "command": shlex.join([Path(program).name, *rest]).strip("'"),
        "experiment": manifest.get("experiment"),
        "state": manifest.get("state"),
        "times": " to ".join(times) + (f", {elapsed:.1f} s of work" if elapsed else ""),
        "device": device.get("label"),
        "host": ", ".join(str(host[name]) for name in ("name", "system") if host.get(name)),
        "versions": ", ".join(f"{name} {version}" for name, version in (manifest.get("versions") or {}).items()),
        "git commit": manifest.get("git"),
        "duplicates": f"{manifest['duplicates']} runs asked for twice" if manifest.get("duplicates") else None,
    }
    return [(key, str(value)) for key, value in rows.items() if value]


_FIRST = ("verdict", "accuracy", "loss_final")
"""What a reader looks for stands at the left."""

_REST = (
    *("loss_heldout", "steps", "loss_first", "loss_last", "diverged_at", "diverged_layer"),
    *("rate", "rate_theory", "chi1", "depth_scale", "vanishing_ratio", "error"),
)
_SPREAD = ("accuracy", "loss_final", "loss_heldout")
"""Columns whose standard deviation between seeds stands beside their mean."""


def runs_table(result: Result) -> Table:
    """One row a setting, with mean and spread over its seeds; or a run, of a single setting and of those asked for.

    Of very many settings those of lowest and of highest final loss, as the note says: all runs stand in runs.csv.
    """
    each = result.asked or len(result.settings) < 2
    chosen, note = _chosen(ranking(result.runs, each=True) if each else result.settings)
    pooled = any(len(one) > 1 for one in chosen)
    keys = [key for key in varying(result) if not pooled or key not in REPLICATES]
    known = {name for name in (*_FIRST, *_REST) if any(v is not None for v in result.columns.get(name, ()))}
    columns: list[tuple[str, list[Value]]] = [
        ("run_id", [one.middle for one in chosen]),
        ("state", [one.state for one in chosen]),
    ]
    if pooled:
        columns.append(("runs", [len(one) for one in chosen]))
    for name in (*(name for name in _FIRST if name in known), *keys, *(name for name in _REST if name in known)):
        columns.append((name, [_cell(one, name) for one in chosen]))
        if pooled and name in _SPREAD:
            columns.append((f"± {name}", [one.deviation(name) for one in chosen]))
    numeric = tuple(
        all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in cells if v is not None)
        for _, cells in columns
    )
    rows = tuple(tuple(figure(cells[place]) for _, cells in columns) for place in range(len(chosen)))
    if pooled:
        note = (
            f"One row a setting: means over its runs, which differ in their seeds, and ± their standard deviation; "
            f"run_id is that of the run in the middle. {note}"
        )
    return Table(tuple(name for name, _ in columns), numeric, rows, note.strip())


def _cell(one: Setting, name: str) -> Value:
    """A key's value, the verdict of most runs, or the mean of what was measured."""
    first: Value = one.first(name)
    if len(one) == 1 or is_key(name):
        return first
    if name == "verdict":
        return one.verdict
    if name == "error":
        return next((str(value) for value in one.values(name) if value), None)
    mean = one.mean(name)
    return next((value for value in one.values(name) if value is not None), None) if mean is None else mean


def _chosen(every: Ranking) -> tuple[Sequence[Setting], str]:
    """All settings, or of more than the page holds the best and the worst, and a note of what the table holds."""
    if len(every) <= MOST_ROWS:
        return every.some(range(len(every))), ""
    ranked, half = every.ranked.tolist(), MOST_ROWS // 2
    kept = ranked if len(ranked) <= half else [*ranked[: half - half // 5], *ranked[len(ranked) - half // 5 :]]
    kept = [*kept, *every.behind[: MOST_ROWS - len(kept)].tolist()]
    good = min(half, len(ranked))
    note = (
        f"The table holds {len(kept)} of {len(every)} settings, and sorts these alone: {good} of {len(ranked)} that "
        f"have a final loss, the lowest and the highest, and {len(kept) - good} of {len(every.behind)} that have none. "
        "All runs stand in runs.csv."
    )
    return every.some(kept), note


_PER_LAYER = ("signal_grad_norm", "weight_grad_norm", "grad_norm", "weight_norm", "update_ratio", "act_mean", "act_std")


def layers_tables(result: Result) -> list[tuple[str, Table]]:
    """The tables of a single run along depth and, of a recurrent network, along time, each under its title."""
    found = (("Layers", _layers_table(result, "depth")), ("Time steps", _layers_table(result, "time")))
    return [(title, table) for title, table in found if table is not None]


def _layers_table(result: Result, axis: str) -> Table | None:
    """Delta at both ends of training, the rest at step 0; None where the run has no such rows."""
    names = ("step", "axis", "layer", "name", *_PER_LAYER, "saturated", "dead", "grad_zero")
    table = result.tables["layers"].select(list(names))
    table = table.filter(pc.equal(table["axis"], axis))
    if not table.num_rows:
        return None
    step = table["step"].to_numpy()
    first = {name: column.to_pylist() for name, column in zip(names, table.filter(step == 0).columns, strict=True)}
    last = table.filter(step == step.max())
    end = dict(zip(last["layer"].to_pylist(), last["signal_grad_norm"].to_pylist(), strict=True))
    shown = [
        name for name in (*_PER_LAYER, "saturated", "dead", "grad_zero") if any(v is not None for v in first[name])
    ]
    head = ["layer" if axis == "depth" else "time step", "name", *shown]
    body = [first["layer"], first["name"], *(first[name] for name in shown)]
    note = "Measured at step 0"
    if step.max() > 0:
        head.insert(3, f"signal_grad_norm, step {step.max()}")
        body.insert(3, [end.get(layer) for layer in first["layer"]])
        note += f"; δ also at the last recorded step, {step.max()}"
    rows = tuple(tuple(map(figure, row)) for row in zip(*body, strict=True))
    numeric = tuple(name != "name" for name in head)
    return Table(tuple(head), numeric, rows, f"{note}. Every recorded step stands in layers.csv.")
