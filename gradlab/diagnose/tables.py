"""From the tables to the runs' histories: Arrow tables of results, and the frame of one measured network."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gradlab.diagnose.broken import first_break
from gradlab.diagnose.history import EMPTY, Answers, Floats, History, Ints, Profile
from gradlab.diagnose.layers import SMALLEST_NORMAL
from gradlab.diagnose.rules import joined, judge
from gradlab.diagnose.thresholds import DEFAULTS, Limits
from gradlab.spec.choices import DATA, LOSSES, MODELS

if TYPE_CHECKING:
    import pandas as pd

JUDGED = ("signal_grad_norm", "weight_grad_norm", "weight_norm", "act_std", "saturated", "dead", "grad_zero")
"""The probes that a verdict rests on."""

_FACTS = (
    *("state", "train.precision", "train.loss", "clip.mode", "data.name", "diverged_at", "diverged_layer"),
    *("loss_heldout", "accuracy"),
)
_SPEC = (
    *(
        "model.name",
        "model.depth",
        "model.width",
        "model.norm",
        "model.init",
        "model.weight_var",
        "model.activation",
        "model.squash_eps",
        "model.skip",
        "model.output",
        "data.input_scale",
    ),
    *(
        "data.target_scale",
        "optim.name",
        "optim.lr",
        "optim.momentum",
        "optim.weight_decay",
        "optim.eps",
        "optim.maximize",
    ),
    *("clip.threshold", "train.precision", "train.rounding"),
)
"""What a run's verdicts and their causes ask of how it was made and trained."""

MEASURED = (
    *("update_ratio", "signal_grad_rms", "trunk_grad_norm", "trunk_grad_rms", "stage", "normalised", "starts_at_zero"),
    *("equal_weights", "attention_entropy", "cut", "idle", "reads", "grad_norm", "grad_rms", "calls"),
    *("units", "gain", "act_correlation", "act_mean"),
)
"""Columns that are judged where they are there: of updates, and of what `gradlab.measure` sees beside the tables."""

OPEN_ENDED = frozenset(name for name, entry in DATA.items() if entry.open_ended)

_CURVES = ("loss", "lr", "grad_norm", "grad_norm_clipped", "clipped", "loss_scale")


def histories(runs: pa.Table, steps: pa.Table, layers: pa.Table) -> list[History]:
    """The history of each row of ``runs``, in order, from the tables that the contract names."""
    facts = runs.select([name for name in (*_FACTS, *_SPEC, "seen") if name in runs.column_names]).to_pylist()
    curves = {name: _floats(steps[name]) for name in _CURVES if name in steps.column_names}
    cuts = _cuts(runs, steps)
    probes = (*JUDGED, *(name for name in MEASURED if name in layers.column_names))
    columns, places = {name: _floats(layers[name]) for name in probes}, _cuts(runs, layers)
    step, layer = layers["step"].to_numpy(), layers["layer"].to_numpy()
    along_time = pc.equal(layers["axis"], "time").to_numpy()
    names, calls = layers["name"], columns.get("calls")
    found = []
    for fact, curved, own in zip(facts, cuts, places, strict=True):
        # A network that is not gradlab's own: lent, or watched in a training of which no architecture is known.
        watched = fact.get("model.name") is None
        other = watched or bool(fact.get("seen"))
        at: Ints = np.arange(len(step))[own]
        if other and calls is not None:
            # What only holds other layers has parameters, and no signal of its own.
            at = own = at[calls[at] != 0]
        along = _profiles(
            step[own],
            layer[own],
            along_time[own],
            {name: column[own] for name, column in columns.items()},
            independent=_independent(fact),
        )
        if other:
            at = at[~along_time[at]]
            modules = dict(zip(layer[at].tolist(), names.take(pa.array(at)).to_pylist(), strict=True))
            along = tuple(_measured(replace(one, modules=modules if one.axis == "depth" else {})) for one in along)
        else:
            along = tuple(map(_starting, along))
            model = MODELS.get(fact["model.name"])
            if model is not None and model.unequal:
                along = tuple(map(_per_entry, along))
            if model is not None and model.trunk is not None:
                layers_of_trunk = model.trunk(fact["model.depth"])
                along = tuple(_on_trunk(one, layers_of_trunk) for one in along)
        found.append(
            History(
                along=along,
                **_seen(fact, other=other),
                answers=_answers(fact),
                open_ended=fact.get("data.name") in OPEN_ENDED,
                state=fact["state"],
                precision=fact["train.precision"].removeprefix("mixed_"),
                clip_mode=fact["clip.mode"],
                # What is not known of a training is not there; of a run null is a value.
                spec={name: fact[name] for name in _SPEC if name in fact and not (watched and fact[name] is None)}
                | {"train.loss": _loss(fact)},
                diverged_at=fact["diverged_at"],
                diverged_layer=fact["diverged_layer"],
                loss=curves["loss"][curved],
                lr=curves["lr"][curved] if "lr" in curves else EMPTY,
                grad_norm=curves["grad_norm"][curved],
                grad_norm_clipped=curves["grad_norm_clipped"][curved],
                clipped=curves["clipped"][curved],
                loss_scale=curves["loss_scale"][curved] if "loss_scale" in curves else EMPTY,
            )
        )
    return found


def _seen(fact: Mapping[str, Any], *, other: bool) -> dict[str, Any]:
    """What was seen of a network that is not gradlab's own, at its first recorded step."""
    if not fact.get("seen"):
        return {"guess": _guess(fact), "measured": other}
    told = json.loads(fact["seen"])
    facts = told.get("facts", {}) | {"at_first": True}
    activations = {name: tuple(counts) for name, counts in told.get("activations", {}).items()}
    return {"guess": _guess_of(facts), "facts": facts, "activations": activations, "measured": True}


def _loss(fact: Mapping[str, Any]) -> str | None:
    """The loss that a run of gradlab's own is trained by; None where it is not known."""
    known, model = DATA.get(fact.get("data.name") or ""), MODELS.get(fact.get("model.name") or "")
    told = fact.get("train.loss")
    if told is not None and told != "auto":
        return str(told)
    own = model.loss if model is not None else None
    return own or (known.loss if known is not None else None)


def _guess(fact: Mapping[str, Any]) -> float | None:
    """The loss of one answer to every input: its entropy, ln K of K classes, or a variance; None if not known."""
    known, loss = DATA.get(fact.get("data.name") or ""), _loss(fact)
    if known is None:
        return None
    if known.guess is not None and loss == known.loss:
        return known.guess
    if known.loss == "cross_entropy":
        of = LOSSES[loss].guess if loss in LOSSES else None
        return of(known.outputs) if of is not None and known.outputs else None
    if loss != known.loss:
        return None
    return None if known.variance is None else known.variance * float(fact.get("data.target_scale") or 1.0) ** 2


def _answers(fact: Mapping[str, Any]) -> Answers | None:
    """Of a run on classes that are as frequent as each other, one a sample; else nothing is known."""
    known, loss, right = DATA.get(fact.get("data.name") or ""), fact.get("loss_heldout"), fact.get("accuracy")
    if known is None or loss is None or right is None or not (known.heldout and known.outputs):
        return None
    alike = known.loss == "cross_entropy" and known.guess is None and known.positions == 0
    return Answers(loss, right, known.heldout, known.outputs) if alike else None


def _independent(fact: Mapping[str, object]) -> bool:
    """Whether a run's layers are independent draws: `Profile.independent`."""
    other = fact.get("model.init") in ("orthogonal", "lsuv", "identity") and fact.get("model.weight_var") is None
    return fact.get("model.name") == "mlp" and fact.get("model.norm") == "none" and not other


def with_verdicts(runs: pa.Table, steps: pa.Table, layers: pa.Table, limits: Limits = DEFAULTS) -> pa.Table:
    """``runs`` with the column `verdict` filled where it is null: the names joined; a run that crashed keeps null."""
    column = runs["verdict"].combine_chunks()
    missing = pc.and_(pc.is_null(column), pc.not_equal(runs["state"].combine_chunks(), "failed"))
    if not pc.any(missing).as_py():
        return runs
    found = [joined(judge(history, limits)) or None for history in histories(runs.filter(missing), steps, layers)]
    filled = pc.replace_with_mask(column, missing, pa.array(found, pa.string()))
    return runs.set_column(runs.column_names.index("verdict"), pa.field("verdict", pa.string()), filled)


def of_frame(
    frame: pd.DataFrame, losses: Sequence[float] | None = None, spec: Mapping[str, Any] | None = None
) -> History:
    """The history of one network from its `layers` frame, of `gradlab.measure` or of one run of a result.

    ``frame.attrs`` may hold its "precision", float32 unless it says otherwise, its "loss", and what else `measure` saw.
    ``losses`` are those of a training so far, from step 0 on; ``spec`` is what is known of the training by the names of
    the keys. What has numbers that are not finite has diverged. Raises `ValueError` where the frame holds several runs,
    lacks a column, or is of an unknown precision, and `TypeError` for what is no frame.
    """
    if not hasattr(frame, "columns"):
        raise TypeError(f"the frame is of type {type(frame).__name__}; expected the frame of a layers table")
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
        depth = frame[frame["axis"] == "depth"]
        modules = dict(zip(depth["layer"].tolist(), depth["name"].tolist(), strict=True))
    probes = (*JUDGED, *(name for name in MEASURED if name in frame))
    columns = {name: frame[name].to_numpy(dtype=float, na_value=np.nan) for name in probes}
    along_time = (frame["axis"] == "time").to_numpy()
    along = _profiles(frame["step"].to_numpy(), frame["layer"].to_numpy(), along_time, columns)
    loss = np.array(losses, dtype=float) if losses is not None else EMPTY
    if losses is None and "loss" in frame.attrs:
        loss = np.array([frame.attrs["loss"]])
    at, layer = next((found for one in along if one.axis == "depth" and (found := first_break(one))), (None, None))
    if at is None and not np.isfinite(loss).all():
        at = int(np.flatnonzero(~np.isfinite(loss))[0])
    facts = frame.attrs.get("facts", {})
    return History(
        along=tuple(_measured(replace(one, modules=modules if one.axis == "depth" else {})) for one in along),
        state="finished" if at is None else "diverged",
        precision=precision,
        guess=_guess_of(facts),
        diverged_at=at,
        diverged_layer=layer,
        loss=loss,
        spec=spec or {},
        facts=facts,
        activations=frame.attrs.get("activations", {}),
        measured="stage" in frame,
    )


def _guess_of(facts: Mapping[str, Any]) -> float | None:
    """The loss of one answer to every input, from what was seen of a batch, as it counts in the whole."""
    losses = facts.get("losses", {})
    if len(losses) != 1 or not (weight := next(iter(losses.values())).get("weight", 1.0)) > 0:
        return None
    # Of micro-batches the losses add up.
    weight *= facts.get("ways", 1)
    if entropy := losses.get("negative_log_likelihood"):
        return weight * math.log(entropy["classes"]) if entropy["classes"] > 1 else None
    squared = losses.get("mean_squared_error")
    return weight * float(squared["target_std"]) ** 2 or None if squared else None


def _measured(profile: Profile) -> Profile:
    """A profile of a measured module: δ per entry, on the trunk where it is known, and which time steps are read."""
    if profile.axis == "time" or "stage" not in profile.columns:
        reads = bool(np.nansum(profile.columns["reads"]) > 0) if "reads" in profile.columns else False
        return replace(profile, reads=reads)
    stage, own = profile.columns["stage"][0], profile.columns["signal_grad_norm"][0]
    if np.isnan(stage).all():
        return profile
    # What is called before all that the loss depends on, and gets exactly nothing, is on the way: it is cut off, unless
    # it feeds branches that start at zero.
    first = int(np.nanargmin(stage))
    starts = float(np.nansum(profile.column("starts_at_zero", 0))) > 0
    waits = (profile.column("idle", 0) > 0) & starts
    before = [place for place in range(first) if own[place] == 0 and np.isnan(stage[place]) and not waits[place]]
    known = [*before, *(place for place in np.argsort(stage, kind="stable").tolist() if not math.isnan(stage[place]))]
    columns = {name: column[:, known] for name, column in profile.columns.items()}
    zero = np.where(np.isin(known, before), 0.0, np.nan)
    trunk = columns | {
        "signal_grad_norm": np.where(zero == 0, 0.0, columns["trunk_grad_rms"]),
        "frobenius": np.where(zero == 0, 0.0, columns["trunk_grad_norm"]),
        "gain": _gains(profile, known),
    }
    return replace(profile, trunk=Profile("depth", profile.step, profile.layer[known], trunk, profile.modules))


def _starting(profile: Profile) -> Profile:
    """With the layers that start at zero and have a gradient: as fixup's read-out they let δ pass after one step."""
    starts = (profile.columns["weight_norm"] == 0) & (profile.columns["weight_grad_norm"] > 0)
    return replace(profile, columns={**profile.columns, "starts_at_zero": starts.astype(float)})


def _per_entry(profile: Profile) -> Profile:
    """A profile of gradlab's own network whose layers differ in size, and along depth the same by root mean squares."""
    columns = profile.columns
    if profile.axis != "depth" or not np.isfinite(columns.get("signal_grad_rms", np.nan)).any():
        return profile
    by_entry = {"signal_grad_norm": columns["signal_grad_rms"], "frobenius": columns["signal_grad_norm"]}
    return replace(profile, trunk=Profile("depth", profile.step, profile.layer, {**columns, **by_entry}))


def _on_trunk(profile: Profile, layers: Sequence[int]) -> Profile:
    """A profile of gradlab's own network, and along depth that of its trunk."""
    if profile.axis != "depth":
        return profile
    known = np.isin(profile.layer, layers)
    columns = {name: column[:, known] for name, column in (profile.trunk or profile).columns.items()}
    return replace(profile, trunk=Profile("depth", profile.step, profile.layer[known], columns, by_block=True))


def _gains(profile: Profile, known: Sequence[int]) -> Floats:
    """(K, R) The smallest gain in the branches between each layer of the trunk and the one that follows it."""
    gains = profile.columns.get("gain", np.full((len(profile.step), len(profile.layer)), np.nan))
    found = np.full((len(gains), len(known)), np.nan)
    for place, (one, other) in enumerate(itertools.pairwise(known)):
        between = np.where(np.isnan(gains), np.inf, gains)[:, min(one, other) : max(one, other) + 1]
        found[:, place] = np.where(between.min(1) < np.inf, between.min(1), np.nan)
    return found


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
