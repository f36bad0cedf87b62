"""Which key takes which part of a figure: colour, panels, dashes; and which are pooled over.

A figure of hundreds of runs shows a few keys and pools the runs over the others; the keys that explain most of what the
figure draws are shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradlab.report.groups import Levels, influence, label, levels, log_outcomes, remaining, settings, swept, varying
from gradlab.report.tables import Floats, Result
from gradlab.spec.keys import DEFAULTS
from gradlab.store.settings import REPLICATES


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
    which then has its part even where few settings could stand side by side. ``fixed``: the layout of any figure, by
    the runs that it draws.
    """

    shares: Mapping[str, float]
    colour: str | None = None
    columns: str | None = None
    asked: bool = False
    fixed: Callable[[Result], Layout] | None = None


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
    if chosen is not None and chosen.fixed is not None:
        return chosen.fixed(result)
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
    return Layout(**taken, pooled=tuple(remaining(result, used)))


def by_id(
    key: str, labels: tuple[str, ...], place: Mapping[str, int], pooled: tuple[str, ...]
) -> Callable[[Result], Layout]:
    """A layout whose colours are ``labels``: that of a run is at the ``place`` of its id, whichever runs are drawn."""

    def fixed(result: Result) -> Layout:
        code = np.array([place[run_id] for run_id in result.ids])
        return Layout(Levels(key, labels, code, False), None, None, None, pooled)

    return fixed


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
    pooled = tuple(remaining(result, keys))
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
