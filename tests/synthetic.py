"""Result folders made of formulas: what the report must draw, without training anything.

A run's delta profile is a power of one rate, its loss an exponential decay, and it diverges where the caller says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gradlab.data.facts import described
from gradlab.diagnose import final_loss
from gradlab.spec.keys import KEYS
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec

RATES = {"sigmoid": 0.236, "tanh": 0.93, "relu": 0.75, "leaky_relu": 0.78, "linear": 1.0}

_ARROW = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}
_RUNS = pa.schema(
    [
        ("run_id", pa.string()),
        ("state", pa.string()),
        *((key, _ARROW[rule.kind]) for key, rule in KEYS.items()),
        ("steps", pa.int64()),
        *((name, pa.float64()) for name in ("loss_first", "loss_last", "loss_final", "loss_heldout", "accuracy")),
        ("diverged_at", pa.int64()),
        ("diverged_layer", pa.int64()),
        *((name, pa.float64()) for name in ("rate", "rate_theory", "rate_limit", "chi1", "depth_scale")),
        ("vanishing_ratio", pa.float64()),
        ("verdict", pa.string()),
        ("duration_s", pa.float64()),
        ("error", pa.string()),
    ]
)
_STEPS = pa.schema(
    [
        ("run_id", pa.string()),
        ("step", pa.int64()),
        *((name, pa.float64()) for name in ("loss", "lr", "grad_norm", "grad_norm_clipped")),
        ("clipped", pa.bool_()),
    ]
)
_MEASURED = (
    "grad_norm",
    "grad_norm_clipped",
    "weight_grad_norm",
    "signal_grad_norm",
    "weight_norm",
    "update_ratio",
    "act_mean",
    "act_std",
    "act_correlation",
    "saturated",
    "dead",
    "grad_zero",
)
_LAYERS = pa.schema(
    [
        ("run_id", pa.string()),
        ("step", pa.int64()),
        ("axis", pa.string()),
        ("layer", pa.int64()),
        ("name", pa.string()),
        *((name, pa.float64()) for name in _MEASURED),
    ]
)


def grid(axes: Mapping[str, Iterable[Value]], base: Mapping[str, Value] | None = None) -> list[dict[str, Value]]:
    """The Cartesian product of ``axes`` over ``base``, the last axis running fastest."""
    return [{**(base or {}), **dict(zip(axes, point, strict=True))} for point in product(*axes.values())]


GRID_432: dict[str, Sequence[Value]] = {
    "model.depth": [5, 10, 20],
    "model.activation": ["sigmoid", "tanh", "relu", "leaky_relu"],
    "model.init": ["xavier", "he"],
    "model.norm": ["none", "batch", "layer"],
    "optim.lr": [0.01, 0.1],
    "clip.mode": ["none", "norm", "value"],
}


def explosive(spec: RunSpec) -> int | None:
    """The step at which a run of the large grid diverges: deep, badly scaled, fast and unclipped ones do."""
    if rate_of(spec) > 1.02 and spec.optim.lr >= 0.1 and spec.clip.mode == "none":
        return 3 + 200 // spec.model.depth
    return None


def rate_of(spec: RunSpec) -> float:
    """The factor by which delta changes per layer towards the input."""
    rate = RATES.get(spec.model.activation or "linear", 0.9)
    if spec.model.weight_var is not None:
        rate = math.sqrt(spec.model.weight_var) * 0.75
    elif spec.model.init == "he_normal":
        rate *= math.sqrt(2)
    if spec.model.norm == "batch":
        rate = 1.21 - 0.2 * (rate < 0.5)
    elif spec.model.norm == "layer":
        rate = math.sqrt(rate)
    return rate * spec.model.gain


def write_result(
    folder: Path,
    grid_values: Sequence[Mapping[str, Value]],
    *,
    name: str = "run",
    diverge: Mapping[int, int] | None = None,
    fail: Mapping[int, str] | None = None,
    rule: bool = False,
    zeros: bool = False,
) -> Path:
    """Writes one result folder and returns it.

    ``diverge`` maps a run's place in the grid to the step at which it diverges, ``fail`` to the text of its error;
    ``rule``: `explosive` decides beside them. ``zeros``: the layers near the input have a delta of exactly zero.
    """
    runs, steps, layers = [], [], []
    for place, values in enumerate(grid_values):
        spec = described(values)
        stop = (diverge or {}).get(place, explosive(spec) if rule else None)
        error = (fail or {}).get(place)
        profile, row = _profile(spec, zeros), _run_row(spec, stop, error)
        if error is None:
            steps.append(_steps(spec, stop))
            layers.append(_layers(spec, stop, profile))
            row["loss_first"] = float(steps[-1]["loss"][0].as_py())
            row["loss_last"] = float(steps[-1]["loss"][-1].as_py())
            if stop is None and spec.train.steps:
                row["loss_final"] = final_loss(steps[-1]["loss"].to_numpy())
            row["vanishing_ratio"] = float(profile[1] / profile[-2]) if len(profile) > 3 and profile[-2] else None
            row["rate"] = rate_of(spec) if not zeros else None
            last = float(steps[-1]["loss"][-1].as_py())
            if stop is None and spec.train.steps:
                row["loss_heldout"] = last * 1.1
                if spec.facts.loss == "cross_entropy":
                    row["accuracy"] = min(1.0, max(0.1, 1 - last / 2.5))
        runs.append(row)
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(runs, schema=_RUNS), folder / "runs.parquet")
    pq.write_table(pa.concat_tables([_STEPS.empty_table(), *steps]), folder / "steps.parquet")
    pq.write_table(pa.concat_tables([_LAYERS.empty_table(), *layers]), folder / "layers.parquet")
    manifest = {
        "schema": 1,
        "name": name,
        "command": ["/opt/bin/gradlab", "sweep", f"name={name}"],
        "experiment": None,
        "swept": [],
        "runs": len(runs),
        "duplicates": 0,
        "elapsed_s": 90.0,
        "versions": {"gradlab": "0.1.0", "torch": "2.13.0+cpu", "python": "3.11.2"},
        "git": "0123456789abcdef",
        "host": {"name": "bench", "system": "Linux", "cores": 2},
        "device": {"name": "cpu", "label": "cpu, 2 cores", "memory": 67108864, "cores": 2},
        "started": "2026-11-21T10:00:00+00:00",
        "finished": "2026-11-21T10:01:30+00:00",
        "state": "done",
        "pieces": [{"runs": len(runs)}],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _noise(spec: RunSpec, size: int) -> np.ndarray:
    noise: np.ndarray = np.exp(np.random.default_rng([spec.seed, spec.model.depth]).normal(0, 0.08, size))
    return noise


def _profile(spec: RunSpec, zeros: bool) -> np.ndarray:
    """Delta of layers 0..L at step 0; shape (L + 1,)."""
    layers = np.arange(spec.layers + 1)
    profile: np.ndarray = 0.1 * rate_of(spec) ** (spec.layers - layers).astype(float) * _noise(spec, spec.layers + 1)
    if zeros:
        profile[: spec.layers // 2] = 0.0
    return profile


def _rows(spec: RunSpec, stop: int | None) -> np.ndarray:
    return np.arange((spec.train.steps if stop is None else stop) + 1)


def _run_row(spec: RunSpec, stop: int | None, error: str | None) -> dict[str, object]:
    state = "failed" if error is not None else "finished" if stop is None else "diverged"
    row: dict[str, object] = dict.fromkeys(_RUNS.names)
    row.update(spec.flat())
    row.update(run_id=spec.id, state=state, error=error, duration_s=0.5)
    if error is None:
        row.update(steps=spec.train.steps if stop is None else stop, diverged_at=stop)
        row["diverged_layer"] = None if stop is None else spec.layers
    return row


def _steps(spec: RunSpec, stop: int | None) -> pa.Table:
    step = _rows(spec, stop)
    speed = spec.optim.lr * 0.3 * min(1.0, rate_of(spec)) ** spec.layers * (1 if spec.clip.mode != "value" else 0.7)
    loss = 2.3 * np.exp(-speed * step) * _noise(spec, len(step)) + 0.01
    grad = np.sqrt(loss) * max(1.0, rate_of(spec)) ** spec.layers
    if stop is not None:
        loss, grad = loss * 4.0**step, grad * 9.0**step
        loss[-1], grad[-1] = (np.inf, np.nan) if stop else (np.nan, np.nan)
    after = np.minimum(grad, spec.clip.threshold) if spec.clip.mode in ("norm", "value") else grad
    last = np.arange(len(step)) == (len(step) - 1 if stop is None else -1)
    columns = {
        "run_id": pa.array([spec.id] * len(step)),
        "step": step,
        "loss": loss,
        "lr": np.full(len(step), spec.optim.lr),
        "grad_norm": grad,
        "grad_norm_clipped": pa.array(after, mask=last),
        "clipped": pa.array(after < grad, mask=last),
    }
    return pa.table(columns, schema=_STEPS)


def _layers(spec: RunSpec, stop: int | None, profile: np.ndarray) -> pa.Table:
    rows = _rows(spec, stop)
    recorded = rows[(rows % spec.probe.every == 0) | (rows == rows[-1])]
    step, layer = (index.ravel() for index in np.meshgrid(recorded, np.arange(spec.layers + 1), indexing="ij"))
    fade = np.exp(-0.004 * step)
    delta = profile[layer] * fade * np.where(layer == 0, 1.0, _noise(spec, len(step)))
    update = spec.optim.lr * delta / 20
    last = step == (rows[-1] if stop is None else -1)
    if stop is not None:
        broken = step == stop
        delta, update = np.where(broken, np.where(layer < 3, np.nan, np.inf), delta), np.where(broken, np.nan, update)
    given, entry = np.zeros(len(step), dtype=bool), layer == 0
    masks = dict.fromkeys(_MEASURED, entry) | {
        "signal_grad_norm": given,
        "act_mean": given,
        "act_std": given,
        "act_correlation": given,
    }
    masks |= {"update_ratio": entry | last, "grad_norm_clipped": entry | last}
    masks |= dict.fromkeys(("saturated", "dead"), entry | (layer == spec.layers))
    values = {name: np.clip(delta, 0, 1) for name in _MEASURED}
    values |= {
        "signal_grad_norm": delta,
        "update_ratio": update,
        "grad_norm": delta * 3,
        "weight_norm": np.full(len(delta), 8.0),
    }
    table = _layer_table(
        spec, step, "depth", layer, {name: pa.array(values[name], mask=masks[name]) for name in _MEASURED}
    )
    if spec.model.name != "rnn":
        return table
    length = spec.facts.shape[0]
    step, layer = (index.ravel() for index in np.meshgrid(recorded, np.arange(1, length + 1), indexing="ij"))
    delta = 0.1 * 0.6 ** (length - layer).astype(float) * np.exp(-0.004 * step)
    columns = {name: pa.nulls(len(step), pa.float64()) for name in _MEASURED} | {"signal_grad_norm": pa.array(delta)}
    return pa.concat_tables([table, _layer_table(spec, step, "time", layer, columns)])


def _layer_table(
    spec: RunSpec, step: np.ndarray, axis: str, layer: np.ndarray, columns: Mapping[str, pa.Array]
) -> pa.Table:
    names = {number: "input" if number == 0 else f"layer {number}" for number in set(layer.tolist())}
    return pa.table(
        {
            "run_id": pa.array([spec.id] * len(step)),
            "step": step,
            "axis": pa.array([axis] * len(step)),
            "layer": layer,
            "name": pa.array([names[number] for number in layer.tolist()]),
            **columns,
        },
        schema=_LAYERS,
    )
