"""What the page says in words and tables."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from gradlab.report.groups import LATER, describe, label, levels, swept, varying
from gradlab.report.tables import Result
from gradlab.spec.choices import MODELS
from gradlab.spec.named import Value
from gradlab.store.documents import Manifest

MOST_ROWS = 100
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
    """What came out, in plain words."""
    count = Counter(result.state.tolist())
    lines = [_counts(result, count)]
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
    return lines


def _places(result: Result) -> tuple[str, str, str]:
    """What δ is followed along, and the two places that the vanishing ratio compares: time in recurrent networks."""
    recurrent = {MODELS[str(name)].needs_time for name in result.columns["model.name"]}
    if recurrent == {True}:
        return "time step", "first time step", "last one"
    if recurrent == {False}:
        return "layer", "first layer", "last hidden one"
    return "layer (a time step in an RNN)", "first layer (time step)", "last hidden one (last one)"


def _counts(result: Result, count: Mapping[str, int]) -> str:
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
    loss, accuracy = result.number("loss_final"), result.number("accuracy")
    known = np.flatnonzero((result.state == "finished") & np.isfinite(loss))
    if not known.size:
        return []

    def one(run: int) -> str:
        right = f", accuracy {accuracy[run]:.3g}" if not math.isnan(accuracy[run]) else ""
        return f"{loss[run]:.4g}{right}"

    if result.size == 1:
        first = result.number("loss_first")[0]
        return [f"The loss went from {first:.4g} to {one(0)}."] if result.columns["steps"][0] else []
    best, worst = known[np.argmin(loss[known])], known[np.argmax(loss[known])]
    low, high = (f"{one(run)} ({describe(result, run, keys)})" for run in (best, worst))
    return [f"Lowest final loss: {low}. Highest of a finished run: {high}."]


def value_list(result: Result, key: str) -> str:
    """The values of a key that varies, in words; of many the ends."""
    labels = levels(result, key).labels
    if len(labels) <= MOST_VALUES:
        return ", ".join(labels)
    return f"{', '.join(labels[:3])}, … {labels[-1]} ({len(labels)} values)"


def base(result: Result) -> list[tuple[str, str]]:
    """The keys that all runs share, with their values; keys that no run has are left out."""
    many = set(varying(result))
    shared = [(key, result.columns[key][0]) for key in result.keys if key not in many]
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


_MEASURED = (
    *("steps", "loss_first", "loss_last", "loss_final", "loss_heldout", "accuracy", "diverged_at", "diverged_layer"),
    *("rate", "rate_theory", "chi1", "depth_scale", "vanishing_ratio", "verdict", "error"),
)


def runs_table(result: Result) -> Table:
    """The runs, or of many the best and the worst of each state, with a note of what is left out."""
    keys = varying(result)
    known = [name for name in _MEASURED if any(value is not None for value in result.columns.get(name, ()))]
    head = ["run_id", "state", *keys, *known]
    chosen, note = _chosen(result)
    columns = [result.columns[name] for name in head]
    rows = tuple(tuple(figure(column[run]) for column in columns) for run in chosen)
    numeric = tuple(
        all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in column if v is not None)
        for column in columns
    )
    return Table(tuple(head), numeric, rows, note)


def _chosen(result: Result) -> tuple[list[int], str]:
    if result.size <= MOST_ROWS:
        return list(range(result.size)), ""
    loss = result.number("loss_final")
    finished = [int(run) for run in np.argsort(loss, kind="stable") if result.state[run] == "finished"]
    diverged = [
        int(run) for run in np.argsort(result.number("diverged_at"), kind="stable") if result.state[run] == "diverged"
    ]
    failed = [int(run) for run in np.flatnonzero(result.state == "failed")]
    bad, wrong = diverged[:20], failed[:10]
    room = MOST_ROWS - len(bad) - len(wrong)
    good = finished if len(finished) <= room else finished[: room - 20] + finished[-20:]
    note = f"{len(good) + len(bad) + len(wrong)} of {result.size} runs: "
    note += f"{len(good)} of {len(finished)} finished" + (
        ", those of lowest and highest final loss" if len(good) < len(finished) else ""
    )
    if diverged:
        note += f"; {len(bad)} of {len(diverged)} diverged, the earliest"
    if failed:
        note += f"; {len(wrong)} of {len(failed)} failed"
    return good + bad + wrong, note + ". All of them stand in runs.csv."


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
