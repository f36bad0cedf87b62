"""What was watched as the tables of a result, and its folder."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, chdir
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from gradlab.spec.choices import OPTIMIZERS
from gradlab.spec.named import Value
from gradlab.spec.run import SCHEMA
from gradlab.store.folder import Folder, new_result, time_here
from gradlab.store.surroundings import surroundings
from gradlab.watching.course import plain
from gradlab.watching.lookout import Say
from gradlab.watching.peers import Peers, together
from gradlab.watching.sheets import Sheet, Written, write, write_elsewhere
from gradlab.watching.unmoved import ids_of
from gradlab.watching.watched import Watched

if TYPE_CHECKING:
    from gradlab.store.record import Tables

SECONDS, SHARE = 20.0, 100
"""Tables are written while a training runs after so many seconds, and so many times what it took to hand them over."""


class Book:
    """The folder of what is watched in this process: one or several runs, written down now and then and at the end."""

    def __init__(self, name: str, out: Path | None, every: int, say: Say = lambda _: None) -> None:
        self.name, self.every, self.say = name, every, say
        self.runs: list[Watched] = []
        self._there = out is not None and out.is_dir()
        self._held = ExitStack()
        self._began = time_here()
        self._clock = time.monotonic()
        self._written, self._took = self._clock, 0.0
        self._writer: subprocess.Popen[bytes] | None = None
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
        """Has the tables written down where it is time to, by a process of its own."""
        self.peers.join()
        now = time.monotonic()
        if self.peers.first and now - self._written > max(SECONDS, SHARE * self._took) and self._at_rest():
            with chdir(self._home):
                what = self._so_far("running", {})
                self._writer = write_elsewhere(what, self._handed)
            self._written = time.monotonic()
            self._took = self._written - now

    @property
    def _handed(self) -> Path:
        """Where the process that writes finds what to write."""
        return self._home / self.folder.root / ".watched"

    def _at_rest(self) -> bool:
        """Whether nobody writes; where the last who did could not, it is done here, and says why."""
        writer = self._writer
        if writer is None or writer.poll() is None:
            return writer is None
        self._writer = None
        if writer.returncode:
            self._handed.unlink(missing_ok=True)
            self.write("running", {})
        return True

    def write(self, state: str, errors: Mapping[str, str]) -> Tables:
        """The tables and the manifest as they are now; ``errors``: of runs that crashed."""
        if self._writer is not None:
            self._writer.wait()
        with chdir(self._home):
            return write(self._so_far(state, errors))

    def _so_far(self, state: str, errors: Mapping[str, str]) -> Written:
        trained = [run for run in self.runs if len(run.course)]
        if state == "done":
            self._gather(trained)
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
        for run in trained:
            run.plays = bool(run.contested or run.judged) or any(_against(run, other) for other in trained)
        sheets = [sheet_of(run, self.id_of(run), errors.get(run.name)) for run in trained]
        return Written(self.folder.root.absolute(), sheets, dict(self._manifest), first)

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


def _against(run: Watched, other: Watched) -> bool:
    """Whether a run made steps with gradients through another one's network, which took none of them itself."""
    held = ids_of(run.optimizer)
    return run.optimizer in other.contested or any(id(one()) in held for one in other.judged)


def _device(runs: Sequence[Watched]) -> dict[str, Any]:
    """The device that the first run's parameters lie on."""
    device = next((one.device for run in runs for one in run.parameters), torch.device("cpu"))
    cores = torch.get_num_threads()
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return {"name": str(device), "label": f"{device}, {found.name}", "memory": found.total_memory, "cores": cores}
    return {"name": device.type, "label": f"{device.type}, {cores} threads", "memory": 0, "cores": cores}


def sheet_of(run: Watched, run_id: str, error: str | None = None) -> Sheet:
    """A run so far; what is still on a device is waited for."""
    steps, names, values = zip(*run.course.scalars, strict=True) if run.course.scalars else ((), (), ())
    known: dict[str, Value] = {
        **spec_of(run.optimizer),
        "data.batch_size": run.samples or None,
        "train.precision": run.precision,
        "probe.every": run.every,
        "duration_s": (run.ended or time.monotonic()) - run.began,
    }
    told = list(zip(steps, names, plain(list(values)), strict=True))
    return Sheet(run_id, run.course.columns(), run.layers, told, known, run.known, error)


def spec_of(optimizer: Optimizer) -> dict[str, Value]:
    """What an optimizer is and was set to, by the names of the keys."""
    name, group = type(optimizer).__name__.lower(), optimizer.param_groups[0]
    found: dict[str, Value] = {"optim.name": name}
    if name in OPTIMIZERS:
        keys = ("momentum", "nesterov", "weight_decay", "eps", "maximize")
        found |= {f"optim.{key}": group[key] for key in keys if isinstance(group.get(key), (int, float, bool))}
        betas = group.get("betas")
        if isinstance(betas, tuple | list) and all(isinstance(beta, float) for beta in betas):
            found |= {f"optim.beta{place}": beta for place, beta in enumerate(betas, start=1)}
    return found
