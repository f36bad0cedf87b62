"""What was watched as the tables of a result, and its folder."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, chdir
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from gradlab.diagnose import final_loss, rate, vanishing_ratio
from gradlab.diagnose.broken import first_break
from gradlab.diagnose.history import Profile
from gradlab.diagnose.tables import with_verdicts
from gradlab.spec.choices import OPTIMIZERS
from gradlab.spec.named import Value
from gradlab.spec.run import SCHEMA
from gradlab.store import documents
from gradlab.store.folder import Folder, has_begun, new_result, time_here
from gradlab.store.pieces import TABLES, write_table
from gradlab.store.record import LAYERS, MEASURED_COLUMNS, SEEN, Tables, joined, table_of
from gradlab.store.surroundings import surroundings
from gradlab.watching.course import Course, plain
from gradlab.watching.lookout import Say
from gradlab.watching.peers import Peers, together
from gradlab.watching.rows import Row
from gradlab.watching.watched import Watched

WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "module.")
"""What a name has of the modules that frameworks put around the user's own."""

SECONDS, SHARE = 10.0, 100
"""Tables are written while a training runs after so many seconds, and so many times what writing took the last time."""


class Book:
    """The folder of what is watched in this process: one or several runs, written down now and then and at the end."""

    def __init__(self, name: str, out: Path | None, every: int, say: Say = lambda _: None) -> None:
        self.name, self.every, self.say = name, every, say
        self.runs: list[Watched] = []
        self._there = out is not None and out.is_dir()
        self._held = ExitStack()
        self._began = time_here()
        self._clock = time.monotonic()
        self._written, self._took = -math.inf, 0.0
        self.peers = Peers()
        # A script may go elsewhere, and the folder's name is relative to where it began.
        self._home = Path.cwd()
        self._folder = self._held.enter_context(new_result(out, name, self._began)) if self.peers.first else None
        self._manifest: dict[str, Any] = {}

    @property
    def folder(self) -> Folder:
        """Where it lies: the first process of a training holds it."""
        assert self._folder is not None
        return self._folder

    def due(self) -> None:
        """Writes the tables down where it is time to."""
        self.peers.join()
        now = time.monotonic()
        if self.peers.first and now - self._written > max(SECONDS, SHARE * self._took):
            self.write("running", {})
            self._written = time.monotonic()
            self._took = self._written - now

    def write(self, state: str, errors: Mapping[str, str]) -> Tables:
        """The tables and the manifest as they are now; ``errors``: of runs that crashed."""
        with chdir(self._home):
            return self._write(state, errors)

    def _write(self, state: str, errors: Mapping[str, str]) -> Tables:
        trained = [run for run in self.runs if len(run.course)]
        if state == "done":
            self._gather(trained)
        tables = joined([tables_of(run, self.id_of(run), errors.get(run.name)) for run in trained])
        first = not self._manifest
        self._manifest = self._manifest or self._drawn_up()
        ended = None if state == "running" else time_here().isoformat(timespec="seconds")
        self._manifest |= {
            "runs": len(trained),
            "watched": self.names,
            "not_finite": {
                self.id_of(run): run.lookout.found.stored() for run in trained if run.lookout.found is not None
            },
            "state": state,
            "finished": ended,
            "elapsed_s": round(time.monotonic() - self._clock, 3),
        }
        for name in reversed(TABLES):
            write_table(self.folder.table(name), name, getattr(tables, name))
        documents.write_manifest(self.folder, self._manifest)
        if first:
            has_begun(self.folder)
        return tables

    def tell(self) -> None:
        """What a process that is not the first does at the end."""
        self.peers.tell({run.name: run.part for run in self.runs if len(run.course)})

    def _gather(self, trained: Sequence[Watched]) -> None:
        """What the other processes saw joins what this one did."""
        told = self.peers.told(wait=True)
        for run in trained:
            parts = [parts[run.name] for parts in told if run.name in parts]
            if parts:
                run.take(together([run.part, *parts], self.peers.world))
        if self.peers.world > 1 and len(told) < self.peers.world - 1:
            self.say(
                f"{len(told) + 1} of {self.peers.world} processes were watched; the tables are of their part alone"
            )

    @property
    def names(self) -> dict[str, str]:
        """What each run is called, by its id."""
        return {self.id_of(run): run.name for run in self.runs if len(run.course)}

    def close(self) -> None:
        """Lets go of the folder; one in which nothing was written is gone, unless it was there before."""
        with chdir(self._home):
            self._held.close()
            if self._folder is not None:
                self._leave(self._folder.root)

    def _leave(self, root: Path) -> None:
        if not self._there and root.is_dir() and not any(root.iterdir()):
            root.rmdir()

    def id_of(self, run: Watched) -> str:
        """A run's id: what began when, where, and under which name; no other training has it."""
        said = f"{self._began.isoformat()} {os.getpid()} {self.folder.root.absolute()} {run.name}"
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def _drawn_up(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "name": self.name,
            "command": list(sys.argv),
            "experiment": None,
            "swept": [],
            "started": self._began.isoformat(timespec="seconds"),
            **surroundings(_device(self.runs)),
            "pieces": [],
        }


def _device(runs: Sequence[Watched]) -> dict[str, Any]:
    """The device that the first run's parameters lie on."""
    device = next((one.device for run in runs for one in run.parameters), torch.device("cpu"))
    cores = torch.get_num_threads()
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return {"name": str(device), "label": f"{device}, {found.name}", "memory": found.total_memory, "cores": cores}
    return {"name": device.type, "label": f"{device.type}, {cores} threads", "memory": 0, "cores": cores}


def tables_of(run: Watched, run_id: str, error: str | None = None) -> Tables:
    """The tidy tables of one run, judged as those of a result are."""
    columns = run.course.columns()
    stop = _broke(columns)
    if stop is not None:
        columns = {name: values[: stop + 1] for name, values in columns.items()}
    count = len(columns["step"])
    steps = table_of("steps", {"run_id": [run_id] * count, **columns}, count)
    rows = [row | {"step": step} for step, rows in run.layers for row in rows if step < count]
    layers = table_of("layers", {"run_id": [run_id] * len(rows), **_columns(rows)}, len(rows))
    runs = table_of("runs", {"run_id": [run_id], **_run(run, columns, rows, stop, error)}, 1)
    scalars = _scalars(run.course, count)
    told = len(scalars["step"])
    instruments = table_of("instruments", {"run_id": [run_id] * told, **scalars}, told)
    return Tables(with_verdicts(runs, steps, layers), steps, layers, instruments)


def shown(name: str) -> str:
    """A layer's name without those of the modules around the user's own."""
    for wrapper in WRAPPERS:
        while name.startswith(wrapper) or f".{wrapper}" in name:
            name = name.removeprefix(wrapper).replace(f".{wrapper}", ".")
    return name


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    names = [*(field.name for field in LAYERS if field.name != "run_id"), *MEASURED_COLUMNS]
    found = {name: [row.get(name) for row in rows] for name in names}
    return found | {"name": [shown(row["name"]) for row in rows]}


def _broke(columns: Mapping[str, Sequence[Any]]) -> int | None:
    """The first step at which the loss or the gradient is not finite, and which no loss scaler skipped."""
    for step, figures in enumerate(zip(columns["loss"], columns["grad_norm"], strict=True)):
        if not all(map(math.isfinite, figures)) and not columns["skipped"][step]:
            return step
    return None


def _run(
    run: Watched, columns: Mapping[str, Sequence[Any]], rows: Sequence[Row], stop: int | None, error: str | None
) -> dict[str, list[Value]]:
    """The row of `runs`: what is known of the optimizer and the batch stands in the columns of their keys."""
    losses = columns["loss"]
    deltas = _trunk(rows)
    state = "failed" if error is not None else "finished" if stop is None else "diverged"
    values: dict[str, Value] = {
        "state": state,
        "error": error,
        **spec_of(run.optimizer),
        "optim.lr": columns["lr"][0],
        "data.batch_size": run.samples or None,
        "train.steps": len(losses),
        "train.precision": run.precision,
        "clip.mode": None if any(columns["clipped"]) else "none",
        "probe.every": run.every,
        "steps": len(losses) if stop is None else stop,
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "loss_final": final_loss(np.array(losses)) if state == "finished" and len(losses) > 1 else None,
        "diverged_at": stop,
        "diverged_layer": None if stop is None else _broken_layer(rows, stop),
        "rate": rate(deltas, "depth"),
        "vanishing_ratio": vanishing_ratio(deltas, "depth"),
        "duration_s": (run.ended or time.monotonic()) - run.began,
        SEEN: json.dumps(run.seen, default=float) if run.seen else None,
    }
    return {name: [value] for name, value in values.items()}


def spec_of(optimizer: Optimizer) -> dict[str, Value]:
    """What an optimizer is and was set to, by the names of the keys."""
    name, group = type(optimizer).__name__.lower(), optimizer.param_groups[0]
    found: dict[str, Value] = {"optim.name": name}
    if name in OPTIMIZERS:
        keys = ("momentum", "nesterov", "weight_decay", "eps")
        found |= {f"optim.{key}": group[key] for key in keys if isinstance(group.get(key), (int, float, bool))}
        betas = group.get("betas")
        if isinstance(betas, tuple | list) and all(isinstance(beta, float) for beta in betas):
            found |= {f"optim.beta{place}": beta for place, beta in enumerate(betas, start=1)}
    return found


def _trunk(rows: Sequence[Row]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Delta per entry by layer at step 0, along the trunk where it is known."""
    first = [row for row in rows if row["step"] == 0 and row["axis"] == "depth" and row["layer"] > 0]
    staged = sorted((row for row in first if "stage" in row), key=lambda row: row["stage"])
    found = [row["trunk_grad_rms"] for row in staged] or [row.get("signal_grad_rms", math.nan) for row in first]
    return np.array(found, dtype=float)


def _broken_layer(rows: Sequence[Row], stop: int) -> int | None:
    """The layer that broke first, where the step was recorded."""
    here = [row for row in rows if row["step"] == stop and row["axis"] == "depth" and row.get("calls")]
    if not here:
        return None
    names = ("act_std", "weight_norm", "weight_grad_norm", "grad_zero")
    columns = {name: np.array([[float(row.get(name, math.nan)) for row in here]]) for name in names}
    profile = Profile("depth", np.array([stop]), np.array([row["layer"] for row in here]), columns)
    found = first_break(profile)
    return None if found is None else found[1]


def _scalars(course: Course, count: int) -> dict[str, list[Any]]:
    """What else the script told, as readings of an instrument of its own."""
    kept = [one for one in course.scalars if one[0] < count]
    return {
        "step": [step for step, _, _ in kept],
        "instrument": ["scalars"] * len(kept),
        "quantity": [name for _, name, _ in kept],
        "value": plain([value for _, _, value in kept]),
    }
