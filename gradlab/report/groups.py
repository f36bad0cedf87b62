"""Which keys a sweep varied, how much each matters, and which part of a figure each takes.

A figure of hundreds of runs shows a few keys (colour, panels, dashes) and pools the runs over the others; the keys that
explain most of what the figure draws are shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradlab.report.tables import Bools, Floats, Ints, Result
from gradlab.spec.choices import NAMED
from gradlab.spec.keys import DEFAULTS
from gradlab.spec.named import SpecError, Value, nearest
from gradlab.store.settings import REPLICATES

LATER = ("optim.", "clip.", "train.steps", "probe.")
"""Keys that cannot matter before the first update."""

BINS = 24
"""A numeric key of a sparse sweep is cut into at most so many bins of equal count."""


@dataclass(frozen=True)
class Levels:
    """A key's values: ``code`` (R,) is a run's place in ``labels``; ``ordered`` where the values are numbers."""

    key: str
    labels: tuple[str, ...]
    code: Ints
    ordered: bool

    def __len__(self) -> int:
        return len(self.labels)


def label(value: Value) -> str:
    """A value as it stands in an axis or a legend."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.4g}"
    return str(value)


def levels(result: Result, key: str, *, bins: int | None = None) -> Levels:
    """The values of ``key``: numbers ascending, names in the order of the grid; ``bins`` cuts numbers into so many."""
    values = result.columns[key]
    distinct = list(dict.fromkeys(values))
    numbers = [value for value in distinct if isinstance(value, (int, float)) and not isinstance(value, bool)]
    ordered = len(numbers) + (None in distinct) == len(distinct)
    if ordered:
        distinct = [*([None] if None in distinct else []), *sorted(numbers)]
        if bins is not None and len(numbers) > bins and None not in distinct:
            return _binned(key, np.array(values, dtype=float), bins)
    place = {value: code for code, value in enumerate(distinct)}
    return Levels(key, tuple(map(label, distinct)), np.array([place[value] for value in values]), ordered)


def _binned(key: str, values: Floats, bins: int) -> Levels:
    edges = np.unique(np.quantile(values[~np.isnan(values)], np.linspace(0, 1, bins + 1)))
    code = np.searchsorted(edges[1:-1], values, side="right")
    # Named by the values that it holds: edges would say of two neighbours that they overlap.
    held, code = np.unique(code, return_inverse=True)
    ends = [(values[code == place].min(), values[code == place].max()) for place in range(len(held))]
    labels = [f"{low:.3g}" if low == high else f"{low:.3g}…{high:.3g}" for low, high in ends]
    return Levels(key, tuple(labels), code, True)


def varying(result: Result) -> list[str]:
    """The keys with more than one value, in the order of `spec.KEYS`."""
    return [key for key in result.keys if len(set(result.columns[key])) > 1]


def swept(result: Result) -> list[str]:
    """`varying` without replicates and without keys that a named choice determines (as prelu its slope)."""
    keys = [key for key in varying(result) if key not in REPLICATES]
    named = [key for key in keys if key in NAMED]
    return [key for key in keys if not any(_determines(result, name, key) for name in named if name != key)]


def _determines(result: Result, name: str, key: str) -> bool:
    """Whether each value of ``name`` goes with one of ``key``; of two that determine each other the first stays."""
    pairs = len(set(zip(result.columns[name], result.columns[key], strict=True)))
    sizes = len(set(result.columns[name])), len(set(result.columns[key]))
    return pairs == sizes[0] and (sizes[1] < sizes[0] or result.keys.index(name) < result.keys.index(key))


def once(result: Result) -> Bools:
    """One run (R,) of those that are the same until their first update: δ at step 0 is not drawn once for each lr."""
    keys = [key for key in varying(result) if not key.startswith(LATER)]
    early = list(zip(*(result.columns[key] for key in keys), strict=True)) if keys else [()] * result.size
    kept = np.zeros(result.size, dtype=bool)
    # A run that crashed has nothing to draw: it stands for no other.
    first = {setting: run for run, setting in reversed(list(enumerate(early))) if result.state[run] != "failed"}
    kept[list(first.values())] = True
    return kept


def influence(result: Result, keys: Sequence[str], outcome: Floats) -> dict[str, float]:
    """The share of the variance of ``outcome`` (R,) that each key explains by itself, less what chance would explain.

    Runs whose outcome is NaN are left out; infinite ones count as half a range beyond the rest, so that a key that
    decides who diverges matters. A one-way analysis of variance, its η² corrected: 1 - (1-η²)(n-1)/(n-g).
    """
    known = ~np.isnan(outcome)
    finite = outcome[np.isfinite(outcome)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    beyond = (high - low) / 2 or 1.0
    values = np.clip(outcome[known], low - beyond, high + beyond)
    total = float(((values - values.mean()) ** 2).sum()) if values.size else 0.0
    shares = {}
    for key in keys:
        code = levels(result, key, bins=8).code[known]
        count = np.bincount(code)
        groups = int((count > 0).sum())
        if total <= 1e-12 * max(1, values.size) or groups < 2 or groups >= values.size:
            shares[key] = 0.0
            continue
        mean = np.bincount(code, values) / np.maximum(count, 1)
        between = float((count * (mean - values.mean()) ** 2).sum())
        shares[key] = max(0.0, 1 - (1 - between / total) * (values.size - 1) / (values.size - groups))
    return shares


def log_outcomes(result: Result) -> dict[str, Floats]:
    """What the maps show, as log10 (R,): the final loss, infinite where a run diverged, and the vanishing ratio."""
    loss = log10(result.number("loss_final"))
    loss[result.state == "diverged"] = np.inf
    return {"loss_final": loss, "vanishing_ratio": log10(result.number("vanishing_ratio"))}


def log10(values: Floats) -> Floats:
    """log10 of values that are not negative: zero gives -inf, NaN stays NaN, and nothing warns."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log10(values)


def calm_cap(result: Result, logs: Floats, start: Floats, *, margin: float = 2.0, share: float = 1.0) -> float:
    """Where a scale may end: ``margin`` decades above finished runs and the ``start`` of all, log10 values (R, ...).

    What lies higher is an explosion, and would flatten everything else; a single run has nothing else. ``share``: the
    quantile of the finished runs' values that counts, so that one spike of one of them stretches no scale.
    """
    if result.size == 1:
        return np.inf
    finished, begun = (part[np.isfinite(part)] for part in (logs[result.state == "finished"], start))
    calm = [float(np.quantile(finished, share))] if finished.size else []
    calm += [float(begun.max())] if begun.size else []
    return max(calm) + margin if calm else np.inf


def map_keys(result: Result, x: str | None, y: str | None) -> tuple[str, ...]:
    """The keys of the heat maps: those asked for, the rest by the influence on final loss and vanishing ratio.

    Two keys, or one where only one varies, or none. Raises `SpecError` for a key that does not exist or does not vary.
    """
    able = varying(result)
    check_asked(result, {"--x": x, "--y": y})
    keys = swept(result)
    return _best(result, keys, log_outcomes(result).values(), x, y) if keys else tuple(able[:1])


def early_keys(result: Result, x: str | None, y: str | None) -> tuple[str, ...]:
    """The keys of the map of the vanishing ratio at step 0: those asked for, the rest by their influence on it.

    Of keys that nobody asked for only those that can matter before the first update.
    """
    ratio = log_outcomes(result)["vanishing_ratio"]
    keys = [key for key in swept(result) if not key.startswith(LATER)]
    replicates = [key for key in varying(result) if key in REPLICATES]
    return _best(result, keys or ([] if x or y else replicates[:1]), [ratio], x, y)


def check_asked(result: Result, asked: Mapping[str, str | None]) -> None:
    """Raises `SpecError` where the key of an option does not exist or does not vary, and where two name the same."""
    able = varying(result)
    for option, key in asked.items():
        if key is not None and key not in able:
            known = "does not vary" if key in result.keys else "is no key"
            vary = f"keys that vary: {', '.join(able)}" if able else "no key varies"
            raise SpecError(f"{option} {key}: {known} in these runs{nearest(key, able) or ';'} {vary}")
    first, second = asked
    if asked[first] is not None and asked[first] == asked[second]:
        raise SpecError(f"{first} and {second} are both {asked[first]}; give two different keys")


def _best(
    result: Result, keys: Sequence[str], outcomes: Iterable[Floats], x: str | None, y: str | None
) -> tuple[str, ...]:
    """Those asked for, and beside them those of ``keys`` that have the most influence on the outcomes (R,)."""
    shares = [influence(result, keys, outcome) for outcome in outcomes]
    ranked = sorted(keys, key=lambda key: -sum(share[key] for share in shares))
    rest = iter([key for key in ranked if key not in (x, y)])
    chosen = (x if x is not None else next(rest, None), y if y is not None else next(rest, None))
    return tuple(key for key in chosen if key is not None)


@dataclass(frozen=True)
class Layout:
    """Which key takes which part of a figure; ``shares`` are their influences on what it draws."""

    colour: Levels | None
    rows: Levels | None
    columns: Levels | None
    dash: Levels | None
    pooled: tuple[str, ...]

    def shown(self) -> list[Levels]:
        """The keys that the figure tells apart."""
        return [part for part in (self.colour, self.rows, self.columns, self.dash) if part is not None]


@dataclass(frozen=True)
class Facets:
    """One choice for all figures of a report: which keys take the colour and the panels, and how much each matters.

    ``shares``: the influence of each swept key on what the runs came to. ``asked``: whether somebody asked for a key,
    which then has its part even where few settings could stand side by side. ``fixed``: a layout for all figures.
    """

    shares: Mapping[str, float]
    colour: str | None = None
    columns: str | None = None
    asked: bool = False
    fixed: Layout | None = None


def facets(
    result: Result, colour: str | None, columns: str | None, lengths: tuple[str | None, str | None] = (None, None)
) -> Facets:
    """The choice for all figures: the keys asked for; ``lengths`` are those that must not be pooled over, if any."""
    keys = swept(result)
    each = [influence(result, keys, outcome) for outcome in log_outcomes(result).values()]
    shares = {key: sum(share[key] for share in each) for key in keys}
    left = [key for key in lengths if key is not None and key not in (colour, columns)]
    return Facets(
        shares,
        colour if colour is not None else left.pop(0) if left else None,
        columns if columns is not None else left.pop(0) if left else None,
        asked=colour is not None or columns is not None,
    )


MOST = {"colour": 6, "panel": 4, "dash": 2}
"""How many values of a key one part of a figure can show: colours, panels along one side, dashes."""

LEAST_SHARE = 0.01
"""A key that explains less of the variance than this is pooled over."""

FEW = 8
"""So many settings are drawn one by one, each with a colour and a name of its own."""


def settings(result: Result, keys: Sequence[str]) -> Levels:
    """Each combination of the values of ``keys`` as one level, named by all of them."""
    texts = [", ".join(f"{short(key)}={label(result.columns[key][run])}" for key in keys) for run in range(result.size)]
    distinct = list(dict.fromkeys(texts))
    place = {text: code for code, text in enumerate(distinct)}
    return Levels("setting", tuple(distinct), np.array([place[text] for text in texts]), False)


def short(key: str) -> str:
    """A key without its section, where that leaves a word that says enough."""
    section, _, word = key.rpartition(".")
    return word if (section == "model" and word != "name") or key == "optim.lr" else key


def arrange(
    result: Result,
    outcome: Floats,
    *,
    keys: Sequence[str] | None = None,
    first: str | None = None,
    columns: str | None = None,
    dashes: bool = True,
    chosen: Facets | None = None,
) -> Layout:
    """The layout of a figure whose lines end in ``outcome`` (R,), over ``keys`` (by default all that are swept).

    Up to eight settings stand side by side in one panel. Of more, ``first`` (a key that must not be pooled over) takes
    the colour, ``columns`` the panels, and the keys of most influence what is left of panels, colour and dash; keys
    that explain less than one hundredth are pooled, unless the colour is free. ``dashes``: whether the dash is free.
    ``chosen``: what all figures of a report have in common, which goes before ``first``, ``columns`` and the outcome.
    """
    keys = swept(result) if keys is None else keys
    if chosen is not None and chosen.fixed is not None and _fits(chosen.fixed, result):
        return chosen.fixed
    if not (chosen is not None and chosen.asked) and (few := _side_by_side(result, keys, dashes=dashes)) is not None:
        return few
    forced = _forced(result, keys, first, columns, chosen)
    # Of a sparse sweep (numbers drawn at random, say) no two runs share a value: bins do.
    bins = MOST["panel"] if math.prod(len(levels(result, key)) for key in keys) > 4 * result.size else None
    taken = {
        part: None if (key := forced.get(part)) is None else levels(result, key, bins=bins)
        for part in ("colour", "columns", "rows", "dash")
    }
    shares = influence(result, keys, outcome) if chosen is None else {key: chosen.shares.get(key, 0.0) for key in keys}
    for key in sorted((key for key in keys if key not in forced.values()), key=lambda key: -shares[key]):
        values = levels(result, key, bins=bins)
        wrapped = taken["columns"] is not None and len(taken["columns"]) > MOST["panel"]
        closed = {"rows": wrapped, "dash": not dashes}
        # A free colour costs nothing: it shows a key however little that explains.
        able = _fitting(values) if shares[key] >= LEAST_SHARE else ("colour",)
        free = (part for part in able if taken[part] is None and not closed.get(part, False))
        if (part := next(free, None)) is not None:
            taken[part] = values
    used = {values.key for values in taken.values() if values is not None}
    return Layout(**taken, pooled=tuple(key for key in varying(result) if key not in used))


def _fits(layout: Layout, result: Result) -> bool:
    return all(len(part.code) == result.size for part in layout.shown())


def _forced(
    result: Result, keys: Sequence[str], first: str | None, columns: str | None, chosen: Facets | None
) -> dict[str, str | None]:
    """The keys whose part is settled: those chosen for all figures, then those of this one where there is room."""
    able = {*keys, *(key for key in varying(result) if key in REPLICATES)}
    forced: dict[str, str | None] = dict.fromkeys(("colour", "columns", "rows"))
    if chosen is not None:
        forced["colour"] = chosen.colour if chosen.colour in able else None
        forced["columns"] = chosen.columns if chosen.columns in able else None
    for key in (first, columns if columns in keys else None):
        if key is not None and key not in forced.values():
            order = ("colour", "columns", "rows") if key == first else ("columns",)
            if (free := next((part for part in order if forced[part] is None), None)) is not None:
                forced[free] = key
    return forced


def _side_by_side(result: Result, keys: Sequence[str], *, dashes: bool) -> Layout | None:
    """The layout where the settings are so few that each is a line of one panel, else None."""
    pooled = tuple(key for key in varying(result) if key not in keys)
    if not keys:
        alone = 1 < result.size <= FEW and set(pooled) <= set(REPLICATES)
        return (
            Layout(settings(result, pooled), None, None, None, ()) if alone else Layout(None, None, None, None, pooled)
        )
    each = settings(result, keys)
    if len(each) > FEW:
        return None
    parts = sorted((levels(result, key) for key in keys), key=len, reverse=True)
    if len(keys) == 2 and dashes and len(parts[1]) <= MOST["dash"]:
        return Layout(parts[0], None, None, parts[1], pooled)
    return Layout(parts[0] if len(keys) == 1 else each, None, None, None, pooled)


def _fitting(taken: Levels) -> tuple[str, ...]:
    """The parts of a figure that can show these values, the best first."""
    if len(taken) <= MOST["dash"]:
        return ("columns", "colour", "rows", "dash")
    if len(taken) <= MOST["panel"]:
        return ("columns", "colour", "rows")
    if not taken.ordered and len(taken) > MOST["colour"]:
        return ("columns", "colour")
    return ("colour", "columns", "rows")


def thin(part: Levels | None, most: int) -> tuple[int, ...]:
    """At most ``most`` places in the labels of ``part``, evenly spread: the first, the last and the default."""
    if part is None:
        return (0,)
    chosen = np.unique(np.linspace(0, len(part) - 1, min(most, len(part))).round().astype(int))
    usual = label(DEFAULTS[part.key]) if part.key in DEFAULTS else None
    if usual in part.labels and len(chosen) > 2 and (place := part.labels.index(usual)) not in chosen:
        # The nearest of the inner ones makes room for the default, which a reader compares with.
        chosen[1 + np.abs(chosen[1:-1] - place).argmin()] = place
    return tuple(chosen.tolist())


def members(part: Levels | None, place: int, size: int) -> Bools:
    """Which of ``size`` runs have the value at ``place``; all of them without a part."""
    return np.ones(size, dtype=bool) if part is None else part.code == place


def quantile(values: Floats, share: float) -> Floats:
    """The quantile over the first axis of log values (n, ...), NaN left out, ±inf kept; NaN where nothing is left.

    Interpolated as numpy's default, but between a finite and an infinite value it is the nearer one.
    """
    ordered = np.sort(values, axis=0)
    count = (~np.isnan(values)).sum(axis=0)
    place = share * np.maximum(count - 1, 0)
    low, fraction = np.floor(place).astype(int), place - np.floor(place)
    lower = np.take_along_axis(ordered, low[None], axis=0)[0]
    upper = np.take_along_axis(ordered, np.minimum(low + 1, np.maximum(count - 1, 0))[None], axis=0)[0]
    both = np.isfinite(lower) & np.isfinite(upper)
    gap = np.where(both, upper, 0.0) - np.where(both, lower, 0.0)
    between = np.where(both, lower, 0.0) + fraction * gap
    out: Floats = np.where(both, between, np.where(fraction < 0.5, lower, upper))
    return out


def describe(result: Result, run: int, keys: Sequence[str], limit: int = 8) -> str:
    """A run in a few words: its values of ``keys``."""
    words = [f"{short(key)}={label(result.columns[key][run])}" for key in keys[:limit]]
    return ", ".join(words) or str(result.columns["run_id"][run])
