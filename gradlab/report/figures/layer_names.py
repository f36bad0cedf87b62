"""Layers told by their names on an axis, where these say more than numbers: blocks, sub-layers, encoder and decoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow.compute as pc
from matplotlib.axis import Axis, XAxis

from gradlab.report.figures.style import integer_ticks
from gradlab.report.tables import Result

WIDE = 24
"""Names that stand side by side under a figure, turned."""
HIGH = 24
"""Names above each other beside a figure of one panel."""

LONGEST = 22


def names_of(result: Result) -> dict[int, str]:
    """The name of each layer, where all runs call it the same, and they are of several kinds; else nothing."""
    table = result.tables["layers"]
    known = table.filter(pc.equal(table["axis"], "depth")).group_by(["layer", "name"]).aggregate([])
    layers, names = known["layer"].to_pylist(), known["name"].to_pylist()
    found = dict(sorted(zip(layers, map(str, names), strict=True)))
    return found if len(found) == len(layers) and of_several_kinds(found.values()) else {}


def of_several_kinds(names: Iterable[str]) -> bool:
    """Whether layers are of more kinds than one, beside the input and the output.

    >>> of_several_kinds(["input", "conv_1", "conv_2", "output"]), of_several_kinds(["read_in", "block_1.2", "output"])
    (False, True)
    """
    return len({name.rstrip("_.0123456789") for name in names} - {"input"}) > 2


def layer_ticks(axis: Axis, names: dict[int, str], most: int, *, numbers: int = 9) -> None:
    """Ticks at layers, by their ``names`` where there are any; never more than ``most``, so that none meets another."""
    if not names:
        integer_ticks(axis, numbers)
        return
    layers = thinned(sorted(names), most)
    axis.set_ticks(layers, [_short(names[layer]) for layer in layers], fontsize=7)
    if isinstance(axis, XAxis):
        for label in axis.get_ticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")


def thinned(layers: Sequence[int], most: int) -> list[int]:
    """Layers from the first on, and the last, at even distances that keep to one of two kinds that take turns.

    >>> thinned(range(1, 27), 24), thinned(range(4), 24)
    ([1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 26], [0, 1, 2, 3])
    """
    if len(layers) <= most:
        return list(layers)
    stride = 2 * -(-(len(layers) - 1) // (2 * (most - 1)))
    found = list(layers[::stride])
    return found if found[-1] == layers[-1] else [*found[:-1], layers[-1]]


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"
