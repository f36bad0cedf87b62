"""Members of a cohort as the tests look at them: trained here, split by run, compared number by number."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gradlab.data.dataset import Dataset
from gradlab.data.facts import described
from gradlab.data.loaders import load
from gradlab.engine.train import train
from gradlab.nn.kernels import calls
from gradlab.spec.named import Value
from gradlab.spec.run import DataSpec, RunSpec
from gradlab.store.record import Tables, tidy
from tests import emulation

torch.set_num_threads(1)  # the networks are tiny, and the tests share the cores among themselves

Settings = Mapping[str, Value]
Row = dict[str, Any]

LAYER_KEYS = ("step", "axis", "layer")
OUTCOME = (
    "state",
    "steps",
    "loss_first",
    "loss_last",
    "loss_final",
    "loss_heldout",
    "accuracy",
    "diverged_at",
    "diverged_layer",
    "rate",
    "vanishing_ratio",
)
"""Columns of `runs` that a training decides, but for its duration."""


ENGINES = ("kernels", "torch")


@contextmanager
def trained_with(engine: str) -> Iterator[None]:
    """The compiled kernels, as on any machine with a compiler; or torch alone; or the blocks of a GPU, emulated."""
    with pytest.MonkeyPatch.context() as patched:
        if engine == "torch":
            patched.setattr(calls, "kernels", lambda _: None)
        if engine == "blocks":
            patched.setattr(calls, "kernels", emulation.player)
        yield


@dataclass(frozen=True)
class Member:
    """What is known of one run: its row of `runs`, its rows of `steps` and of `layers`."""

    run: Row
    steps: list[Row]
    layers: list[Row]

    def at(self, step: int, layer: int, axis: str = "depth") -> Row:
        """The row of `layers` of this step and layer."""
        (row,) = [row for row in self.layers if (row["step"], row["axis"], row["layer"]) == (step, axis, layer)]
        return row

    def profile(self, column: str, step: int = 0, axis: str = "depth") -> NDArray[np.float64]:
        """A column of `layers` at one step, layers 1..L or time steps 1..T."""
        rows = [row for row in self.layers if row["step"] == step and row["axis"] == axis and row["layer"] > 0]
        return np.array([row[column] for row in rows], dtype=np.float64)

    @property
    def recorded(self) -> list[int]:
        """The steps that have rows in `layers`."""
        return list(dict.fromkeys(row["step"] for row in self.layers))


def content(spec: DataSpec) -> Dataset:
    """The data of ``spec``, loaded once for all that share their content."""
    return _content(replace(spec, batch_size=1, seed=0, input_scale=1.0, target_scale=1.0))


@lru_cache(maxsize=8)
def _content(spec: DataSpec) -> Dataset:
    return load(spec)


def measured(*settings: Settings) -> list[Member]:
    """Trains ``settings`` as one cohort on the CPU and splits its tables by member."""
    runs = [described(values) for values in settings]
    assert len({run.id for run in runs}) == len(runs), "two members of the same id cannot be told apart"
    return split(runs, tidy(train(runs, content(runs[0].data), torch.device("cpu"), lambda *_: None)))


def on_each_engine(*settings: Settings) -> Iterator[list[Member]]:
    """`measured` with the kernels, and then with torch alone: what both are compared with need be made only once."""
    for engine in ENGINES:
        with trained_with(engine):
            found = measured(*settings)
        yield found


def split(runs: Sequence[RunSpec], tables: Tables) -> list[Member]:
    """The tables by member, in the order of ``runs``."""
    steps: dict[str, list[Row]] = {run.id: [] for run in runs}
    layers: dict[str, list[Row]] = {run.id: [] for run in runs}
    for row in tables.steps.to_pylist():
        steps[row["run_id"]].append(row)
    for row in tables.layers.to_pylist():
        layers[row["run_id"]].append(row)
    return [Member(row, steps[row["run_id"]], layers[row["run_id"]]) for row in tables.runs.to_pylist()]


def differences(
    found: Member, wanted: Member, relative: float = 0.0, absolute: float = 0.0, skip: Collection[str] = ()
) -> Iterator[str]:
    """Each number of ``found`` that is not that of ``wanted``, in words. Null equals null alone, nan equals nan.

    Columns in ``skip`` are not compared; without tolerances every bit is.
    """
    yield from _row_differences("runs", found.run, wanted.run, OUTCOME, relative, absolute)
    for name, mine, theirs, keys in (
        ("steps", found.steps, wanted.steps, ("step",)),
        ("layers", found.layers, wanted.layers, LAYER_KEYS),
    ):
        order = [tuple(row[key] for key in keys) for row in theirs]
        if [tuple(row[key] for key in keys) for row in mine] != order:
            yield f"{name}: other rows"
            return
        for at, row, other in zip(order, mine, theirs, strict=True):
            columns = [column for column in other if column not in (*keys, *skip, "run_id", "name")]
            yield from _row_differences(f"{name} {at}", row, other, columns, relative, absolute)


def _row_differences(
    where: str, found: Row, wanted: Row, columns: Sequence[str], relative: float, absolute: float
) -> Iterator[str]:
    for column in columns:
        a, b = found[column], wanted[column]
        if isinstance(a, float) and isinstance(b, float):
            # A mean of numbers that cancel, and the spread of equal ones, are as exact as the numbers are.
            moment = column in ("act_mean", "act_std") and absolute > 0
            slack = 1e-12 * max(1.0, abs(wanted["act_mean"]), abs(wanted["act_std"])) if moment else absolute
            same = (math.isnan(a) and math.isnan(b)) or a == b or math.isclose(a, b, rel_tol=relative, abs_tol=slack)
        else:
            same = type(a) is type(b) and a == b
        if not same:
            yield f"{where}: {column} is {a!r}, not {b!r}"
