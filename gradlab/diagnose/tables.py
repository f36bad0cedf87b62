"""From the tables to the runs' histories: Arrow tables of results, and the frame of one measured network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gradlab.diagnose.broken import first_break
from gradlab.diagnose.history import EMPTY, Floats, History, Ints, Profile
from gradlab.diagnose.layers import SMALLEST_NORMAL
from gradlab.diagnose.rules import joined, judge
from gradlab.diagnose.thresholds import DEFAULTS, Limits
from gradlab.spec.choices import DATA

if TYPE_CHECKING:
    import pandas as pd

JUDGED = ("signal_grad_norm", "weight_grad_norm", "weight_norm", "act_std", "saturated", "dead", "grad_zero")
"""The probes that a verdict rests on."""

_FACTS = ("state", "train.precision", "clip.mode", "data.name", "diverged_at", "diverged_layer")
_LAYERS = ("model.name", "model.norm", "model.init", "model.weight_var")
_CURVES = ("loss", "grad_norm", "grad_norm_clipped", "clipped")


def histories(runs: pa.Table, steps: pa.Table, layers: pa.Table) -> list[History]:
    """The history of each row of ``runs``, in order, from the tables that the contract names."""
    facts = runs.select([name for name in (*_FACTS, *_LAYERS) if name in runs.column_names]).to_pylist()
    curves, cuts = {name: _floats(steps[name]) for name in _CURVES}, _cuts(runs, steps)
    columns, places = {name: _floats(layers[name]) for name in JUDGED}, _cuts(runs, layers)
    step, layer = layers["step"].to_numpy(), layers["layer"].to_numpy()
    along_time = pc.equal(layers["axis"], "time").to_numpy()
    return [
        History(
            along=_profiles(
                step[own],
                layer[own],
                along_time[own],
                {name: column[own] for name, column in columns.items()},
                independent=_independent(fact),
            ),
            state=fact["state"],
            precision=fact["train.precision"],
            clip_mode=fact["clip.mode"],
            guess=_guess(fact.get("data.name")),
            diverged_at=fact["diverged_at"],
            diverged_layer=fact["diverged_layer"],
            **{name: curve[curved] for name, curve in curves.items()},
        )
        for fact, curved, own in zip(facts, cuts, places, strict=True)
    ]


def _guess(data: str | None) -> float | None:
    """The cross entropy of one answer to every input, ln K of K classes; None where a loss or a data set has none."""
    known = DATA.get(data or "")
    return math.log(known.outputs) if known and known.loss == "cross_entropy" and known.outputs else None


def _independent(fact: Mapping[str, object]) -> bool:
    """Whether a run's layers are independent draws: `Profile.independent`."""
    orthogonal = fact.get("model.init") == "orthogonal" and fact.get("model.weight_var") is None
    return fact.get("model.name") == "mlp" and fact.get("model.norm") == "none" and not orthogonal


def with_verdicts(runs: pa.Table, steps: pa.Table, layers: pa.Table, limits: Limits = DEFAULTS) -> pa.Table:
    """``runs`` with the column `verdict` filled where it is null: the names joined; a run that crashed keeps null."""
    column = runs["verdict"].combine_chunks()
    missing = pc.and_(pc.is_null(column), pc.not_equal(runs["state"].combine_chunks(), "failed"))
    if not pc.any(missing).as_py():
        return runs
    found = [joined(judge(history, limits)) for history in histories(runs.filter(missing), steps, layers)]
    filled = pc.replace_with_mask(column, missing, pa.array(found, pa.string()))
    return runs.set_column(runs.column_names.index("verdict"), pa.field("verdict", pa.string()), filled)


def of_frame(frame: pd.DataFrame) -> History:
    """The history of one network from its `layers` frame alone, of `gradlab.measure` or of one run of a result.

    ``frame.attrs`` may hold its "precision", float32 unless it says otherwise, and its "loss". What has numbers that
    are not finite has diverged. Raises `ValueError` where the frame holds several runs, lacks a column, or is of an
    unknown precision.
    """
    if "run_id" in frame and frame["run_id"].nunique() > 1:
        raise ValueError(f"the frame holds the layers of {frame['run_id'].nunique()} runs; expected those of one run")
    if missing := [name for name in ("step", "axis", "layer", *JUDGED) if name not in frame]:
        raise ValueError(f"the frame lacks {', '.join(missing)}; expected the columns of a result's layers table")
    if (precision := str(frame.attrs.get("precision", "float32"))) not in SMALLEST_NORMAL:
        raise ValueError(f"unknown precision {precision!r}; expected one of {', '.join(SMALLEST_NORMAL)}")
    modules: dict[int, str] = {}
    if "calls" in frame:
        # What only holds other layers has parameters, and no signal of its own.
        frame = frame[frame["calls"] != 0]
        modules = dict(zip(frame["layer"].tolist(), frame["name"].tolist(), strict=True))
    columns = {name: frame[name].to_numpy(dtype=float, na_value=np.nan) for name in JUDGED}
    along_time = (frame["axis"] == "time").to_numpy()
    along = _profiles(frame["step"].to_numpy(), frame["layer"].to_numpy(), along_time, columns)
    loss = np.array([frame.attrs["loss"]]) if "loss" in frame.attrs else EMPTY
    at, layer = next((found for one in along if one.axis == "depth" and (found := first_break(one))), (None, None))
    if at is None and not np.isfinite(loss).all():
        at = 0
    return History(
        along=tuple(replace(profile, modules=modules) for profile in along),
        state="finished" if at is None else "diverged",
        precision=precision,
        diverged_at=at,
        diverged_layer=layer,
        loss=loss,
    )


def _cuts(runs: pa.Table, table: pa.Table) -> Sequence[slice | Ints]:
    """Which rows of ``table`` belong to each run: slices where a run's rows stand together, as they do."""
    # A row of no run that is asked for counts as one of a run behind the last.
    found = pc.index_in(table["run_id"], value_set=runs["run_id"].combine_chunks())
    place = pc.fill_null(found, runs.num_rows).to_numpy()
    if len(place) == 0 or (np.diff(place) >= 0).all():
        edges = np.searchsorted(place, np.arange(runs.num_rows + 1))
        return [slice(low, high) for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)]
    order = np.argsort(place, kind="stable")
    edges = np.searchsorted(place[order], np.arange(runs.num_rows + 1))
    return [order[low:high] for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)]


def _profiles(
    step: Ints,
    layer: Ints,
    along_time: NDArray[np.bool_],
    columns: dict[str, Floats],
    *,
    independent: bool = False,
) -> tuple[Profile, ...]:
    """The profiles of one run; rows stand step by step, within a step layer by layer."""
    found = []
    for axis, here in (("depth", ~along_time & (layer > 0)), ("time", along_time)):
        if not here.any():
            continue
        steps, row = np.unique(step[here], return_inverse=True)
        rows, column = np.unique(layer[here], return_inverse=True)
        shaped = {}
        for name, values in columns.items():
            shaped[name] = np.full((len(steps), len(rows)), np.nan)
            shaped[name][row, column] = values[here]
        found.append(Profile(axis, steps, rows, shaped, independent=independent and axis == "depth"))
    return tuple(found)


def _floats(column: Any) -> Floats:
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=float)
