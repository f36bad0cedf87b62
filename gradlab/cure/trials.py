"""What a cure tries: first the sick run itself, then every remedy by itself, then pairs of the best; each over seeds.

The facts of a cure are plain data, and stand in the manifest as ``cure``:

    round    how many rounds are planned so far: 0 the run as it was, 1 single changes, 2 pairs
    seeds    the seeds of every change
    norms    of the run as it was, after its round: the norms of gradients that some shares of its steps exceed
    causes   of the run as it was, after its round: those of its verdicts, in most of its seeds
    guess    what one answer to every input comes to: its `loss` and its `accuracy`, null where there is none
    changes  the run as it was, then every change in the order in which it was tried: `remedies` and `kinds` (empty of
             the first), `cost`, `change` (values by key), `override` (the same as it is typed), `command` (the whole
             run, at the first seed), `members` (run ids, in the order of the seeds), `summaries` and `sources` of the
             remedies, `theory` (rate, whether it is one rate, expected ratio of the ends as a decimal logarithm, note,
             source), `answers` (those of the causes that it takes away), `unit` (what its losses are divided by, to be
             in the units of the run as it was)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gradlab.cure.changes import COSTS, Change, Norms, Remedy, Treated, cost, overrides, treated
from gradlab.cure.command import command
from gradlab.cure.ranking import ABLE, STATES, Guess, Outcome, is_healthy, outcomes
from gradlab.cure.remedies import MENDS, REMEDIES
from gradlab.cure.script import lines
from gradlab.cure.values import END_TO_END, has_squared_errors, variance_of_targets
from gradlab.data.facts import described
from gradlab.diagnose.clip_advice import advise, seen, thresholds
from gradlab.diagnose.rules import judge, names
from gradlab.diagnose.tables import histories
from gradlab.diagnose.thresholds import limits
from gradlab.grid.cohorts import cost as work_of
from gradlab.grid.expand import Grid, Round, spec_yaml
from gradlab.grid.launching import Launch
from gradlab.grid.rerun import UNNAMED
from gradlab.spec.choices import DATA, LOSSES
from gradlab.spec.named import SpecError
from gradlab.spec.run import RunSpec
from gradlab.store.documents import read_manifest, read_runs
from gradlab.store.folder import Folder, open_result
from gradlab.store.tables import load_tables
from gradlab.theory.predict import predict, profile

Facts = dict[str, Any]

SEEDS = 5
"""Seeds of each change, counted on from the run's own; a sweep over seeds brings its own."""

FEWER_SEEDS = 3
"""Where a run is large."""

LARGE = 2e10
"""Operations of the matrix products of a run; beyond them `FEWER_SEEDS` are taken. Thirty layers of 64 take 9e9."""

BEST_KINDS, LEAST_KINDS = 5, 3
"""Kinds of change that are paired with each other, each by its best remedy: at most, and at least."""

RECAST = ("lr/3", "lr*3")
"""What helps moves the best learning rate: the cheapest of those changes are tried with another one, too."""

CALMED = ("clip-norm", "lr/10")
"""Gradients that arrive may be too much for the recipe: a change that levels δ and yet does not help is tried with it.

Pascanu et al. 2013, section 3: what keeps gradients from vanishing lets them explode, and is trained with clipping.
"""

MOST_RECAST = 3
"""So many of the cheapest changes of either sort."""

FEW = 3
"""So many sick runs of a sweep are named to who must choose one."""

BY_THEORY = 3
"""Pairs tried because theory expects them to keep gradients, which neither remedy does alone."""


def patient(grid: Grid) -> Grid:
    """The first round: the run that ``grid`` describes, over several seeds.

    Raises `SpecError` where it describes several runs that differ in more than their seed, where a single seed is
    swept, and where nothing would be trained.
    """
    others = [key for key in grid.swept if key != "seed"]
    if others:
        raise SpecError(f"gradlab cure takes one run, over several seeds at most; {others[0]} is swept")
    first = grid.runs[0]
    if "seed" in grid.swept:
        runs = grid.runs
        if len(runs) < 2:
            raise SpecError("a sweep over one seed: gradlab cure compares seeds; give at least two, or seed=N alone")
    else:
        seeds = SEEDS if work_of(first).work <= LARGE else FEWER_SEEDS
        runs = _over(first, range(first.seed, first.seed + seeds))
    if first.train.steps == 0:
        raise SpecError("train.steps=0: a cure is judged by what training leads to; expected at least 1 step")
    facts: Facts = {
        "round": 0,
        "seeds": [run.seed for run in runs],
        "guess": guess(first),
        "changes": [_written((), {}, runs)],
    }
    name = "cure" if grid.name in UNNAMED or grid.name.startswith("again-") else grid.name
    return replace(grid, runs=runs, duplicates=0, swept=("seed",), name=name, expect=(), maps={}, cure=facts)


def guess(spec: RunSpec) -> Guess:
    """What one answer to every input comes to: ln K of K classes, each right as often; the variance of real targets.

    Neither where the targets do not vary, or where the loss knows none; no loss where it is not known of that which is
    trained. Where classes are not as likely as each other the loss alone: their entropy.
    """
    asked, known = spec.loss == spec.facts.loss, DATA[spec.data.name].guess
    if spec.loss not in LOSSES:
        # What an output of the user's own loss means, and so whether it is right, nobody knows.
        return {"loss": None, "accuracy": None}
    match spec.facts.loss:
        case "cross_entropy" if known is not None:
            return {"loss": known if asked else None, "accuracy": None}
        case "cross_entropy":
            of = LOSSES[spec.loss].guess
            return {"loss": None if of is None else of(spec.facts.outputs), "accuracy": 1 / spec.facts.outputs}
        case "mean_squared_error" if asked:
            variance = variance_of_targets(spec.data) * spec.data.target_scale**2
            return {"loss": variance or None, "accuracy": None}
        case _:
            return {"loss": None, "accuracy": None}


def of_result(path: Path) -> Grid:
    """The grid of the run in the result at ``path``, or of its runs where they differ in their seeds alone.

    Raises `SpecError` where ``path`` holds no result, or several runs to choose from.
    """
    runs = read_runs(open_result(path))
    if len({replace(run, seed=0) for run in runs}) > 1:
        raise SpecError(
            f"{path}: holds {len(runs)} different runs; choose one with --from {path} RUN_ID ({_sickest(path)})"
        )
    swept = ("seed",) if len(runs) > 1 else ()
    judged_by = limits(read_manifest(path).get("diagnose"))
    base = spec_yaml(runs[0])
    return Grid(runs, 0, swept, frozenset(), "cure", Launch(None, None), base, (), None, limits=judged_by)


def _sickest(path: Path) -> str:
    """How many runs of a result are sick, the first of them, and where all are: merged tables, if there are any."""
    rows = load_tables(path).read("runs", ["run_id", "verdict"]).to_pylist()
    if not rows:
        return "none has ended yet"
    merged = Folder(path).table("runs")
    there = f"; all are in {path}/{merged.name}" if merged.exists() else ""
    sick = [row for row in rows if names(row["verdict"]) not in ((), ("healthy",))]
    some = ", ".join(f"{row['run_id']} {row['verdict']}" for row in sick[:FEW])
    count = f"{len(sick)} {'is' if len(sick) == 1 else 'are'}"
    told = f"{count} sick: {some}{', ...' if len(sick) > FEW else ''}" if sick else "none is sick"
    return told + there


def whatever(_: RunSpec) -> bool:
    """Networks of gradlab's own take what their spec can say."""
    return True


def next_round(
    facts: Facts, runs: Sequence[RunSpec], tables: Mapping[str, pa.Table], takes: Callable[[RunSpec], bool] = whatever
) -> Round | None:
    """What is tried after the round that ``tables`` tell of; None where the cure is over.

    ``runs`` are those planned so far; ``takes`` says whether a network of the user's own can have what a change makes
    of it. Nothing is tried where the run is healthy and has learned something, or where every seed of it crashed.
    """
    found = outcomes(facts, tables)
    before = found[0]
    if before.state == "crashed" or is_healthy(before):
        return None
    sick = runs[0]
    if facts["round"] == 0:
        members = facts["changes"][0]["members"]
        norms = {**norms_seen(tables, members), **clipping_advised(tables, members)}
        facts = {**facts, "norms": norms, "causes": causes_seen(tables, members)}
        chosen: list[tuple[Remedy, ...]] = [(remedy,) for remedy in REMEDIES.values()]
        what = "single change"
    elif facts["round"] == 1:
        chosen, what = _pairs(sick, found, facts.get("norms", {})), "pair"
    else:
        return None
    return _round(facts, runs, chosen, what, takes)


def _round(
    facts: Facts,
    runs: Sequence[RunSpec],
    chosen: Sequence[tuple[Remedy, ...]],
    what: str,
    takes: Callable[[RunSpec], bool],
) -> Round:
    known = {run.id: run for run in runs}
    tried = {change["members"][0] for change in facts["changes"]}
    changes, added = [], 0
    for remedies in chosen:
        after = treated(runs[0], remedies, facts.get("norms", {}))
        if after is None:
            continue
        members = _over(after.spec, facts["seeds"])
        if members[0].id in tried or (after.spec.model != runs[0].model and not takes(members[0])):
            continue
        tried.add(members[0].id)
        known |= {run.id: run for run in members}
        answers = [
            cause for cause in facts.get("causes", []) if MENDS.get(cause, set()) & {one.name for one in remedies}
        ]
        further = {"answers": answers, "unit": _unit(runs[0], after.spec)}
        changes.append(_written(remedies, after.change, members) | further)
        added += len(members)
    seeds = len(facts["seeds"])
    number = facts["round"] + 1
    said = f"Round {number}: {len(changes)} {what}{'' if len(changes) == 1 else 's'} over {seeds} seeds."
    planned = {run.id for run in runs}
    entries: Facts = {**facts, "round": number, "changes": [*facts["changes"], *changes]}
    return Round(tuple(run for place, run in known.items() if place not in planned), {"cure": entries}, said)


def causes_seen(tables: Mapping[str, pa.Table], members: Sequence[str]) -> list[str]:
    """The causes of the verdicts on most of the ``members``, the most frequent first."""
    runs = tables["runs"].filter(pc.is_in(tables["runs"]["run_id"], pa.array(members)))
    seen = [
        {verdict.cause.name for verdict in judge(history) if verdict.cause}
        for history in histories(runs, tables["steps"], tables["layers"])
    ]
    count = Counter(cause for causes in seen for cause in causes)
    return [cause for cause, times in count.most_common() if 2 * times > len(seen)]


def norms_seen(tables: Mapping[str, pa.Table], members: Sequence[str]) -> Norms:
    """The norms before clipping that the shares of the remedies exceed, over the updates of all ``members``.

    Of one that diverged those before it was on its way to infinity: what follows a threshold must not let pass.
    """
    runs = tables["runs"]
    diverged = set(runs.filter(pc.equal(runs["state"], "diverged"))["run_id"].to_pylist())
    steps = tables["steps"].select(["run_id", "loss", "grad_norm", "grad_norm_clipped"])
    steps = steps.filter(pc.is_valid(steps["grad_norm_clipped"]))
    found = []
    for member in members:
        own = steps.filter(pc.equal(steps["run_id"], member))
        found.append(seen(own["grad_norm"].to_numpy(), own["loss"].to_numpy(), diverged=member in diverged)[1])
    shares = [remedy.share for remedy in REMEDIES.values() if remedy.share is not None]
    return {str(share): norm for share, norm in thresholds(np.concatenate(found), shares).items()}


def clipping_advised(tables: Mapping[str, pa.Table], members: Sequence[str]) -> Norms:
    """The way of clipping that fits most of the ``members``, with its threshold, where it is not such a norm."""
    runs = tables["runs"].filter(pc.is_in(tables["runs"]["run_id"], pa.array(members)))
    advised = [advise(history) for history in histories(runs, tables["steps"], tables["layers"])]
    fits = [(one.mode, one.threshold) for one in advised if one is not None and one.threshold is not None]
    mode, times = Counter(name for name, _ in fits).most_common(1)[0] if fits else ("none", 0)
    if mode in ("none", "norm") or 2 * times <= len(advised):
        return {}
    return {mode: float(f"{np.median([threshold for name, threshold in fits if name == mode]):.3g}")}


def _unit(sick: RunSpec, after: RunSpec) -> float:
    """By how much squared errors are larger at the scale that ``after`` has its targets at."""
    if not has_squared_errors(sick) or not sick.data.target_scale:
        return 1.0
    return (after.data.target_scale / sick.data.target_scale) ** 2


def _over(spec: RunSpec, seeds: Sequence[int]) -> tuple[RunSpec, ...]:
    values = {key: value for key, value in spec.flat().items() if value is not None}
    return tuple(replace(described({**values, "seed": seed}), extent=spec.extent) for seed in seeds)


def _written(remedies: Sequence[Remedy], change: Change, members: Sequence[RunSpec]) -> Facts:
    """A change as the manifest keeps it."""
    said, course = predict(members[0]), profile(members[0])
    return {
        "remedies": [remedy.name for remedy in remedies],
        "kinds": [remedy.kind for remedy in remedies],
        "cost": cost(remedies),
        "change": dict(change),
        "override": overrides(change),
        "command": command(members[0], change),
        "script": lines(members[0], change) if members[0].model.free else [],
        "summaries": [remedy.summary for remedy in remedies],
        "sources": [remedy.source for remedy in remedies],
        "members": [run.id for run in members],
        "theory": {
            "rate": said.rate,
            "single_rate": said.single_rate,
            "log10_ratio": None if course is None else course.log10_ratio(1),
            "note": said.note,
            "source": said.source,
        },
    }


def _pairs(sick: RunSpec, found: Sequence[Outcome], norms: Norms) -> list[tuple[Remedy, ...]]:
    """Pairs of the best remedies of different kinds, of the best with the learning rate, and those that theory names.

    The best are those of `ABLE`, the cheapest kinds first: pairs of dear ones are no small changes. Where they are few,
    those of largest gain are added, and where none heals up to one of `BEST_KINDS` kinds: two changes may heal together
    that fail alone.
    """
    singles = [one for one in found if len(one.change["remedies"]) == 1 and one.state != "crashed"]
    best: dict[str, Outcome] = {}
    for one in sorted(singles, key=lambda one: (STATES.index(one.state), -one.least)):
        best.setdefault(one.change["kinds"][0], one)
    able = sorted((one for one in best.values() if one.state in ABLE), key=_cost)[:BEST_KINDS]
    others = sorted((one for one in best.values() if one.state not in ABLE), key=lambda one: -one.gain)
    least = LEAST_KINDS if any(one.state == "heals" for one in able) else BEST_KINDS
    chosen = [_remedy(one) for one in (*able, *others[: max(0, least - len(able))])]
    recast = [(_remedy(one), REMEDIES[name]) for one in able[:MOST_RECAST] for name in RECAST]
    loud = sorted((one for one in singles if one.state not in ABLE and _levels(one, found[0])), key=_cost)
    calmed = [(_remedy(one), REMEDIES[name]) for one in loud[:MOST_RECAST] for name in CALMED]
    different = [pair for pair in (*combinations(chosen, 2), *recast, *calmed) if pair[0].kind != pair[1].kind]
    return [*different, *_expected(sick, singles, norms)]


def _cost(one: Outcome) -> int:
    return one.cost


def _levels(one: Outcome, before: Outcome) -> bool:
    """Whether a change brings the measured ends of δ to within `END_TO_END` of each other, which were not before."""
    was, now = (one.log10_ends / math.log10(END_TO_END) for one in (before, one))
    return abs(was) > 1 >= abs(now)


def _remedy(single: Outcome) -> Remedy:
    return REMEDIES[single.change["remedies"][0]]


def _expected(sick: RunSpec, singles: Sequence[Outcome], norms: Norms) -> list[tuple[Remedy, ...]]:
    """The cheapest pairs whose expected profile is level although that of neither remedy is."""
    tried = [_remedy(one) for one in singles if not _level(one.change["theory"]["log10_ratio"])]
    found: list[tuple[float, tuple[Remedy, ...]]] = []
    for pair in combinations(tried, 2):
        if pair[0].kind == pair[1].kind or max(COSTS[one.kind] for one in pair) > COSTS["norm"]:
            continue
        after: Treated | None = treated(sick, pair, norms)
        course = None if after is None else profile(after.spec)
        if course is not None and _level(ratio := course.log10_ratio(1)):
            found.append((cost(pair) + abs(ratio), pair))
    return [pair for _, pair in sorted(found, key=lambda one: one[0])[:BY_THEORY]]


def _level(log10_ratio: float | None) -> bool:
    return log10_ratio is not None and abs(log10_ratio) <= math.log10(END_TO_END)
