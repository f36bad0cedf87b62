"""Which swept keys matter: the variance of an outcome over the grid, split into main effects and interactions.

On a full grid with equal weights the outcome of a setting splits in one way into a mean, a function of each key, one of
each pair, and so on, all orthogonal, so that their variances add up: the functional analysis of variance (Hooker 2007,
Journal of Computational and Graphical Statistics 16, eq. 2 to 4); their shares are Sobol's indices (Sobol 1993). Runs
that differ in their seeds alone are replicates; where the same seeds stand at every setting they are a block of its own
(`crossed`), else what differs among them is the residual variance.

Legend for shapes: R runs, N of them with an outcome, K keys of n_1 .. n_K levels, C = n_1 ... n_K settings.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from gradlab.report import crossed
from gradlab.report.groups import LATER, Levels, levels, log10, swept, varying
from gradlab.report.tables import Bools, Floats, Ints, Result
from gradlab.store.settings import REPLICATES

MOST_EMPTY = 4
"""A grid of so many times more settings than runs is far from full, and is not searched for a full part."""


SAME = 1e-12
"""Outcomes that differ by no more than this are the same."""

LEAST_KEPT = 0.5
"""Of the runs with an outcome at least this share must lie in the full part of a grid with holes."""


@dataclass(frozen=True)
class Effect:
    """A ``share`` (0..1) of the variance: of one key, of two beyond what each does alone, or of what is left.

    ``kind`` is main, interaction, higher (all interactions of three keys or more), seeds (among replicates; where they
    are the same at every setting, what is common to a seed) or residual (of those, from setting to setting).
    ``total``, of a main effect: with every interaction that its key takes part in. ``freedom``: degrees of freedom.
    ``p``: how probable as much is by chance, None where the seeds are too few, or not the same at every setting.
    """

    kind: str
    keys: tuple[str, ...]
    share: float
    freedom: int
    total: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class Analysis:
    """The effects on one outcome, the largest first; none where it could not be taken apart, as the note says.

    ``replicated``: whether settings were run more than once, so that chance is told from effect.
    """

    outcome: str
    title: str
    effects: tuple[Effect, ...]
    runs: int
    settings: int
    replicated: bool
    note: str


@dataclass(frozen=True)
class Outcome:
    """What is explained by ``keys``: log10 or 0/1 ``values`` (R,), NaN where a run is left out, as ``missing`` says."""

    name: str
    title: str
    values: Floats
    keys: tuple[str, ...]
    missing: str


def analyses(result: Result) -> list[Analysis]:
    """The effects on final loss, vanishing ratio and divergence, each where it varies; none for fewer than two keys."""
    keys = swept(result)
    if len(keys) < 2:
        return []
    return [found for outcome in _outcomes(result, keys) if (found := _analysis(result, outcome)) is not None]


def _outcomes(result: Result, keys: Sequence[str]) -> Iterable[Outcome]:
    finished, ran = result.state == "finished", result.state != "failed"
    loss = _finite(np.where(finished, log10(result.number("loss_final")), np.nan))
    why = "have no final loss: they diverged, failed or made no step"
    yield Outcome("loss_final", "log final loss", loss, tuple(keys), _missing(loss, why))
    early = tuple(key for key in keys if not key.startswith(LATER))
    ratio = _finite(log10(np.abs(result.number("vanishing_ratio"))))
    why = "have no vanishing ratio, or one of 0"
    yield Outcome("vanishing_ratio", "log |vanishing ratio|", _once(result, ratio), early, _missing(ratio, why))
    diverged = np.where(ran, (result.state == "diverged").astype(float), np.nan)
    yield Outcome("diverged", "divergence (0 or 1)", diverged, tuple(keys), _missing(diverged, "failed"))


def _finite(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, np.nan)


def _missing(values: Floats, why: str) -> str:
    lost = int(np.isnan(values).sum())
    return f"{lost} of {len(values)} runs {why}." if lost else ""


def _once(result: Result, values: Floats) -> Floats:
    """The values with one run of those that are the same until their first update: the others are no replicates."""
    told = [key for key in varying(result) if not key.startswith(LATER)]
    code = np.zeros(result.size, dtype=np.int64)
    for key in told:
        part = levels(result, key)
        code = np.unique(code * len(part) + part.code, return_inverse=True)[1].astype(np.int64)
    out = np.full(result.size, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    _, first = np.unique(code[known], return_index=True)
    out[known[first]] = values[known[first]]
    return out


def _analysis(result: Result, outcome: Outcome) -> Analysis | None:
    known = ~np.isnan(outcome.values)
    if known.sum() < 2 or np.ptp(outcome.values[known]) <= SAME or not outcome.keys:
        return None
    parts = [levels(result, key) for key in outcome.keys]

    def none(why: str) -> Analysis:
        said = f"{outcome.missing} {why}".strip()
        return Analysis(outcome.name, outcome.title, (), int(known.sum()), 0, False, said)

    if math.prod(map(len, parts)) > MOST_EMPTY * known.sum():
        return none("Effects need a full grid, and these runs are far from one.")
    kept = full_part(parts, known)
    runs = np.flatnonzero(_inside(parts, kept) & known)
    told = [(part, places) for part, places in zip(parts, kept, strict=True) if len(places) > 1]
    if len(runs) < LEAST_KEPT * known.sum() or not told:
        return none("Effects need a full grid, and less than half of these runs make one.")
    values = outcome.values[runs]
    if np.ptp(values) <= SAME:
        return none("The settings that make a full grid differ in nothing.")
    codes = np.array([np.searchsorted(places, part.code[runs]) for part, places in told])
    keys, settings = [part.key for part, _ in told], math.prod(len(places) for _, places in told)
    note = f"{outcome.missing} {_dropped(parts, kept, len(runs))}".strip()
    blocks = in_blocks(codes, _seeds(result)[runs], values)
    if blocks is None:
        effects, replicated = decompose(keys, codes, values)
        return Analysis(outcome.name, outcome.title, effects, len(runs), settings, replicated, note)
    if (lost := len(runs) - blocks.size) > 0:
        note = f"{note} {lost} runs of seeds that lack a setting are left out.".strip()
    return Analysis(outcome.name, outcome.title, of_blocks(keys, blocks), blocks.size, settings, True, note)


def _seeds(result: Result) -> Ints:
    """The replicate (R,) that each run is: its seeds."""
    code = np.zeros(result.size, dtype=np.int64)
    for key in REPLICATES:
        if key in result.columns:
            part = levels(result, key)
            code = np.unique(code * len(part) + part.code, return_inverse=True)[1].astype(np.int64)
    return code


def in_blocks(codes: Ints, seed: Ints, values: Floats) -> Floats | None:
    """``values`` (N,) as (S, n_1, ..., n_K), of the seeds that stand at every setting.

    None where these are fewer than two, or hold less than half of the runs. ``codes`` (K, N) as in `decompose`.
    """
    shape = tuple(int(code.max()) + 1 for code in codes)
    cell, size = np.ravel_multi_index(tuple(codes), shape), math.prod(shape)
    kept = crossed.complete(cell, seed, size)
    if len(kept) < 2 or len(kept) * size < LEAST_KEPT * len(values):
        return None
    out = np.empty((len(kept), size))
    inside = np.isin(seed, kept)
    out[np.searchsorted(kept, seed[inside]), cell[inside]] = values[inside]
    return out.reshape(-1, *shape)


def of_blocks(keys: Sequence[str], blocks: Floats) -> tuple[Effect, ...]:
    """The effects of ``keys`` in ``blocks`` (S, n_1, ..., n_K), the largest first."""
    found = crossed.decompose(blocks)
    variance = [max(0.0, part.square - part.chance) for part in found.parts]
    whole = sum(variance) + found.between + found.within
    seeds, size = len(blocks), blocks[0].size
    effects = [
        Effect(
            part.kind,
            tuple(keys[axis] for axis in part.axes),
            share / whole,
            part.freedom,
            # Less chance, a sum of interactions may come out below nothing.
            max(share, found.totals[part.axes[0]]) / whole if part.kind == "main" else None,
            part.p,
        )
        for part, share in zip(found.parts, variance, strict=True)
    ]
    effects.append(Effect("seeds", (), found.between / whole, seeds - 1))
    effects.append(Effect("residual", (), found.within / whole, (seeds - 1) * (size - 1)))
    return tuple(sorted(effects, key=lambda effect: -effect.share))


def _dropped(parts: Sequence[Levels], kept: Sequence[Ints], runs: int) -> str:
    """Which levels were left out so that the rest is a full grid, in words."""
    words = [
        f"{part.key}={'|'.join(part.labels[place] for place in range(len(part)) if place not in places)}"
        for part, places in zip(parts, kept, strict=True)
        if len(places) < len(part)
    ]
    return f"{' and '.join(words)} left out, the other {runs} runs make a full grid." if words else ""


def full_part(parts: Sequence[Levels], known: Bools) -> list[Ints]:
    """The levels of each key whose settings all have a ``known`` (R,) run: a full grid, if a smaller one.

    One level at a time is left out, that with the largest share of empty settings, until none is empty.
    """
    shape = tuple(len(part) for part in parts)
    filled = np.zeros(shape, dtype=bool)
    filled[tuple(part.code[known] for part in parts)] = True
    kept = [np.arange(size) for size in shape]
    while not filled.all():
        worst = []
        for axis in range(len(shape)):
            empty = 1 - filled.mean(axis=tuple(other for other in range(len(shape)) if other != axis))
            worst.append((round(float(empty.max()), 12), filled.shape[axis], axis, int(empty.argmax())))
        # Of equally empty levels that of the key with most others goes: it is the least of a loss.
        _, size, axis, place = max(worst)
        if size == 1:
            return [np.zeros(0, dtype=np.int64) for _ in kept]
        filled = np.delete(filled, place, axis)
        kept[axis] = np.delete(kept[axis], place)
    return kept


def _inside(parts: Sequence[Levels], kept: Sequence[Ints]) -> Bools:
    inside = [np.isin(part.code, places) for part, places in zip(parts, kept, strict=True)]
    return np.logical_and.reduce(inside)  # type: ignore[no-any-return]


def decompose(keys: Sequence[str], codes: Ints, values: Floats) -> tuple[tuple[Effect, ...], bool]:
    """The effects of ``keys`` on ``values`` (N,), the largest first, and whether there are replicates.

    ``codes`` (K, N) are the levels of each run, every setting among them. A setting counts once, with the mean of its
    replicates. Where there are any, the shares are less what their spread would explain by chance, so that noise alone
    has shares near zero; without, they are exact for the runs that are there, and a difference may still be chance.
    """
    shape = tuple(int(code.max()) + 1 for code in codes)
    cell = np.ravel_multi_index(tuple(codes), shape)
    size = math.prod(shape)
    count = np.bincount(cell, minlength=size)
    means = (np.bincount(cell, values, size) / count).reshape(shape)
    within = float(((values - means.ravel()[cell]) ** 2).sum())
    spare = len(values) - size
    noise = within / spare if spare else 0.0  # of one run
    # Of the mean of a setting; each degree of freedom of an effect takes one C-th of it, by chance.
    chance = noise * float(np.mean(1 / count)) / size
    parts: dict[tuple[int, ...], Floats] = {}
    for axes in (*combinations(range(len(shape)), 1), *combinations(range(len(shape)), 2)):
        others = tuple(axis for axis in range(len(shape)) if axis not in axes)
        part = means.mean(axis=others, keepdims=True) - means.mean()
        for axis in axes if len(axes) == 2 else ():
            part = part - parts[(axis,)]
        parts[axes] = part
    found = []
    for axes, part in parts.items():
        freedom = math.prod(shape[axis] - 1 for axis in axes)
        kind = "main" if len(axes) == 1 else "interaction"
        found.append((kind, axes, float((part**2).mean()), freedom))
    above, left = means - means.mean() - sum(parts.values()), size - 1 - sum(one[3] for one in found)
    if left > 0:
        found.append(("higher", (), float((above**2).mean()), left))
    variance = [max(0.0, one[2] - one[3] * chance) for one in found]
    whole = sum(variance) + noise
    effects = [
        Effect(
            kind,
            tuple(keys[axis] for axis in axes),
            share / whole,
            freedom,
            max(share, _total(means, axes[0], chance)) / whole if kind == "main" else None,
        )
        for (kind, axes, _, freedom), share in zip(found, variance, strict=True)
    ]
    if spare:
        effects.append(Effect("seeds", (), noise / whole, spare))
    return tuple(sorted(effects, key=lambda effect: -effect.share)), spare > 0


def _total(means: Floats, axis: int, chance: float) -> float:
    """The variance that vanishes where the key of ``axis`` is held: its own and that of all its interactions."""
    inside = means - means.mean(axis=axis, keepdims=True)
    freedom: int = means.size - means.size // means.shape[axis]
    return max(0.0, float((inside**2).mean()) - freedom * chance)


def strongest_pair(result: Result, outcomes: Iterable[Floats]) -> tuple[str, str] | None:
    """The two swept keys that together explain most of the ``outcomes`` (R,), the stronger first.

    Their main effects and their interaction count, averaged over the outcomes. A run that diverged, with an infinite
    outcome, counts as half a range beyond the others. None where the grid has fewer than two keys, or holes.
    """
    keys = swept(result)
    parts = [levels(result, key) for key in keys]
    if len(keys) < 2 or math.prod(map(len, parts)) > result.size:
        return None
    main, joint = dict.fromkeys(keys, 0.0), dict.fromkeys(combinations(keys, 2), 0.0)
    for outcome in outcomes:
        known = ~np.isnan(outcome)
        finite = outcome[np.isfinite(outcome)]
        kept = full_part(parts, known)
        if not finite.size or any(len(places) < len(part) for places, part in zip(kept, parts, strict=True)):
            continue
        beyond = float(np.ptp(finite)) / 2 or 1.0
        values = np.clip(outcome[known], finite.min() - beyond, finite.max() + beyond)
        if np.ptp(values) <= SAME:
            continue
        effects, _ = decompose(keys, np.array([part.code[known] for part in parts]), values)
        for effect in effects:
            if effect.kind == "main":
                main[effect.keys[0]] += effect.share
            if effect.kind == "interaction":
                joint[effect.keys[0], effect.keys[1]] += effect.share
    pair = max(joint, key=lambda pair: main[pair[0]] + main[pair[1]] + joint[pair])
    if not any(joint.values()) and not any(main.values()):
        return None
    return pair if main[pair[0]] >= main[pair[1]] else (pair[1], pair[0])
