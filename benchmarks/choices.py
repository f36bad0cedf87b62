"""A step on a GPU, looked at closely: every named choice beside the processor, what is launched, how long it takes.

Parts of `benchmarks.gpu`.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from gradlab.data.facts import described
from gradlab.data.loaders import load
from gradlab.engine.cohort import Cohort, prepare
from gradlab.engine.playing import Rehearsed, perform, rehearse
from gradlab.engine.step import advance
from gradlab.engine.train import train
from gradlab.nn.kernels.graphs import refusing_to_wait
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec, build
from gradlab.store.record import Record, tidy
from tests.named import CHOICES, fitting

STEPS = 12
"""Enough for a rehearsal."""

TURNS = 40
"""Steps that are timed."""


def named() -> list[tuple[str, str]]:
    """Every choice, by key and name."""
    return CHOICES


def compared(key: str, name: str, precision: str, device: str) -> dict[str, Any]:
    """Losses and gradient norms of two runs on ``device``, beside the processor's: the largest relative difference.

    Losses grow apart as trainings do; those of the first step are told alone too.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings: dict[str, Value] = {**fitting(key, name, precision, Path(folder)), "train.steps": STEPS}
        runs = [described({**settings, "seed": seed}) for seed in (0, 1)]
        data = load(runs[0].data)
        found, wanted = (_figures(runs, train(runs, data, torch.device(on), lambda *_: None)) for on in (device, "cpu"))
        captured = rehearse(prepare(runs, data, torch.device(device)))
    apart = np.abs(found - wanted) / np.maximum(np.abs(wanted), 1e-12)
    apart = np.where(np.isnan(found) & np.isnan(wanted), 0.0, apart)
    return {
        "apart": float(apart.max()),
        "at_first": float(apart[:, 0].max()),
        "captured": None not in captured.values(),
    }


def _figures(runs: list[RunSpec], record: Record) -> Any:
    rows = tidy(record).steps.to_pylist()
    return np.array([[row[name] for row in rows] for name in ("loss", "grad_norm")], dtype=float)[
        :, np.argsort([row["step"] for row in rows], kind="stable")
    ].reshape(2 * len(runs), -1, order="F")


def _ready(device: str, members: int, depth: int, width: int, precision: str = "float32") -> tuple[Cohort, Rehearsed]:
    settings: dict[str, Value] = {"model.depth": depth, "model.width": width, "model.norm": "layer"}
    more: dict[str, Value] = {"optim.name": "adam", "clip.mode": "norm", "optim.lr": 1e-3, "train.steps": 10_000}
    more["train.precision"] = precision
    runs = [build({**settings, **more, "seed": seed}) for seed in range(members)]
    found = prepare(runs, load(runs[0].data), torch.device(device))
    return found, rehearse(found)


def profiled(device: str, *, record: bool) -> dict[str, Any]:
    """How often CUDA is called in twenty steps of a cohort, by the names that the profiler gives."""
    found, rehearsed = _ready(device, 12, 5, 32)
    members = np.arange(12)
    due = range(TURNS if record else 0)
    perform(found, range(2), due, rehearsed, members)
    with torch.profiler.profile() as seen, contextlib.nullcontext() if device == "cpu" else refusing_to_wait():
        perform(found, range(20), due, rehearsed, members)
    calls = Counter(event.name for event in seen.events() if event.name.startswith("cuda"))
    return {"captured": None not in rehearsed.values(), "calls": dict(calls)}


def step_seconds(device: str, members: int, depth: int, width: int, precision: str) -> dict[str, Any]:
    """Milliseconds a step of a cohort with nothing recorded, rehearsed and as it stands, and of a recorded one."""
    found, rehearsed = _ready(device, members, depth, width, precision)
    everyone = np.arange(members)
    plain: Rehearsed = {True: None, False: None}
    figures = {}
    for name, record, how in (("rehearsed", False, rehearsed), ("recorded", True, rehearsed), ("plain", False, plain)):
        spent = math.inf
        for _ in range(3):
            _wait(device)
            began = perf_counter()
            perform(found, range(TURNS), range(TURNS if record else 0), how, everyone)
            _wait(device)
            spent = min(spent, perf_counter() - began)
        figures[name] = 1e3 * spent / TURNS
    last = advance(found, 0, record=False).loss
    return {**figures, "finite": bool(last.isfinite().all()), "captured": None not in rehearsed.values()}


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)
