"""Which keys a sweep varied, what values they took, and how much each matters."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradlab.report.tables import Bools, Floats, Ints, Result
from gradlab.spec.choices import NAMED
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
    return [key for key in result.keys if len(result.runs[key].unique()) > 1]


def swept(result: Result) -> list[str]:
    """`varying` without replicates and without keys that a named choice determines (as prelu its slope).

    What is measured changes no run: beside other keys those of `probe` are left out. Of a few runs that somebody
    chose, where any key may go with any other by chance, all that vary.
    """
    if result.asked:
        return varying(result)
    keys = [key for key in varying(result) if key not in REPLICATES]
    keys = [key for key in keys if not key.startswith("probe.")] or keys
    named = [key for key in keys if key in NAMED]
    return [key for key in keys if not any(_determines(result, name, key) for name in named if name != key)]


def remaining(result: Result, used: Collection[str]) -> list[str]:
    """`varying` without ``used``, and without what a named choice among those determines."""
    named = [key for key in used if key in NAMED]
    others = [key for key in varying(result) if key not in used]
    return [key for key in others if not any(_determines(result, one, key) for one in named)]


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


def describe(result: Result, run: int, keys: Sequence[str]) -> str:
    """A run in a few words: its values of ``keys``; one that somebody asked for by its id."""
    return f"run {result.ids[run][:8]}" if result.asked else in_words(result, run, keys)


def in_words(result: Result, run: int, keys: Sequence[str], limit: int = 8) -> str:
    """The values of ``keys``; of a run of a cure the change that it tries."""
    manifest = next(iter(result.manifests.values()), {})
    for change in manifest["cure"]["changes"] if "cure" in manifest else ():
        if result.ids[run] in change["members"]:
            return "+".join(change["remedies"]) or "as it was"
    words = [f"{short(key)}={label(result.columns[key][run])}" for key in keys[:limit]]
    return ", ".join(words) or result.ids[run]
