"""Trainings of several processes: what each has seen of its part of the batch, and of the weights, put together.

Nothing is exchanged while they train, and nobody waits for one that is not watched: each lays what it saw into the
store that the processes met by, and the first one reads what is there at the end.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradlab.watching.merging import OF_SIGNALS, added
from gradlab.watching.rows import Row

PATIENCE = dt.timedelta(seconds=60)
"""How long the first process waits for another that is watched and has not come to its end."""

OF_SHARDS = ("grad_norm", "grad_norm_clipped", "weight_grad_norm", "weight_norm")
"""Norms of parameters that lie on several processes: squares of the parts add up."""

RMS = ("signal_grad_rms", "trunk_grad_rms")

_BOOKS = iter(range(sys.maxsize))
"""Which folder of this process it is: the same number in all processes of one training."""


@dataclass(frozen=True)
class Part:
    """What one process saw of a run: its losses and norms by step, and the rows of its recorded steps."""

    loss: Sequence[float | None]
    grad_norm: Sequence[float]
    grad_norm_clipped: Sequence[float | None]
    layers: Sequence[tuple[int, Sequence[Row]]]
    sharded: bool


class Peers:
    """The processes of a training: this one's place among them, and where they leave what they saw."""

    def __init__(self) -> None:
        self.rank, self.world = int(os.environ.get("RANK") or 0), 1
        self._store: Any = None
        self._key = f"gradlab/{next(_BOOKS)}"
        self.join()

    def join(self) -> None:
        """Meets the others, once there is something to meet by."""
        distributed = sys.modules.get("torch.distributed")
        if self._store is not None or distributed is None or not distributed.is_available():
            return
        if distributed.is_initialized():
            self.rank, self.world = distributed.get_rank(), distributed.get_world_size()
            self._store = distributed.distributed_c10d._get_default_store()
            self._store.set(f"{self._key}/{self.rank}/here", "1")

    @property
    def first(self) -> bool:
        """Whether this process writes the folder."""
        return self.rank == 0

    def tell(self, parts: Mapping[str, Part]) -> None:
        """Leaves what this process saw for the first one."""
        if self._store is not None:
            said = json.dumps({name: vars(part) for name, part in parts.items()})
            self._store.set(f"{self._key}/{self.rank}/parts", zlib.compress(said.encode()))

    def told(self, *, wait: bool) -> list[dict[str, Part]]:
        """What the others that are watched have left; with patience, where all is well."""
        if self._store is None:
            return []
        found = []
        for rank in range(1, self.world):
            here, parts = f"{self._key}/{rank}/here", f"{self._key}/{rank}/parts"
            if not self._store.check([here]):
                continue
            if wait and not self._store.check([parts]):
                self._store.wait([parts], PATIENCE)
            if self._store.check([parts]):
                said = json.loads(zlib.decompress(self._store.get(parts)))
                found.append({name: Part(**part) for name, part in said.items()})
        return found


def together(parts: Sequence[Part], world: int) -> Part:
    """The parts of several processes as that of one training whose loss is the mean over all.

    A process's own delta is the derivative of its own mean: of the mean over all it is that over their count. Of
    parameters that lie on several processes the squares add up; those that lie on each are the first one's.
    """
    first = parts[0]
    steps = range(min(len(part.loss) for part in parts))
    losses = [[part.loss[step] for part in parts] for step in steps]
    loss = [None if None in each else sum(one for one in each if one is not None) / len(each) for each in losses]
    before: Sequence[Any] = first.grad_norm
    after: Sequence[Any] = first.grad_norm_clipped
    if first.sharded:
        before, after = (
            [None if column[0] is None else math.hypot(*column) for column in zip(*columns, strict=False)]
            for columns in ([part.grad_norm for part in parts], [part.grad_norm_clipped for part in parts])
        )
    others = [dict(part.layers) for part in parts[1:]]
    layers = [
        (step, _rows([rows, *(other[step] for other in others if step in other)], world, sharded=first.sharded))
        for step, rows in first.layers
    ]
    return Part(loss, before, after, layers, first.sharded)


def _rows(several: Sequence[Sequence[Row]], world: int, *, sharded: bool) -> list[Row]:
    """The rows of one step: each layer's of all processes as one."""
    found = []
    for row in several[0]:
        same = [
            other
            for rows in several[1:]
            for other in rows
            if (other["axis"], other["name"], other["layer"]) == (row["axis"], row["name"], row["layer"])
        ]
        whole = row
        for passes, other in enumerate(same, start=1):
            whole = added(whole, other, passes) | {"calls": row.get("calls")}
        whole |= {name: whole[name] / world for name in (*OF_SIGNALS, *RMS) if name in whole}
        kept = {name: row[name] for name in (*OF_SHARDS, "update_ratio", "grad_rms", "grad_zero") if name in row}
        found.append(whole | (_of_shards([row, *same]) if sharded else kept))
    return found


def _of_shards(rows: Sequence[Row]) -> Row:
    """The columns of parameters of which each process holds a part."""
    names = [name for name in OF_SHARDS if any(name in row for row in rows)]
    whole: Row = {name: math.hypot(*(row.get(name, 0.0) for row in rows)) for name in names}
    sizes = [(row["grad_norm"] / row["grad_rms"]) ** 2 if row.get("grad_rms") else 0.0 for row in rows]
    if any(sizes):
        whole["grad_rms"] = whole["grad_norm"] / math.sqrt(sum(sizes))
        zeros = (size * row.get("grad_zero", 0.0) for size, row in zip(sizes, rows, strict=True))
        whole["grad_zero"] = sum(zeros) / sum(sizes)
    moved = math.hypot(*(row.get("update_ratio", 0.0) * row.get("weight_norm", 0.0) for row in rows))
    if whole.get("weight_norm"):
        whole["update_ratio"] = moved / whole["weight_norm"]
    return whole
