"""Where the pieces of a command run: which crew a `launch` asks for, and what must be installed for it."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gradlab.grid.launching import LAUNCHERS, Launch
from gradlab.launch import local
from gradlab.launch.devices import CPU_MEMORY, Device
from gradlab.spec.named import SpecError

if TYPE_CHECKING:
    from gradlab.launch.events import Crew

GPU_MEMORY = 4 * 2**30
"""Bytes that a piece may take on a GPU that this machine cannot see, unless told otherwise."""


def elsewhere(overrides: Sequence[str]) -> bool:
    """Whether overrides choose another place than this machine: then nobody imports torch here in advance."""
    return any(re.match(r"\+*launch(\.name)?=(?!local$)", text) for text in overrides)


@contextmanager
def crew_for(launch: Launch, early: local.Crew, *, detach: bool = False) -> Iterator[Crew]:
    """The crew that ``launch`` asks for: ``early``, the workers of this machine, or that of another place.

    ``detach``: the command ends as soon as all is handed over. Raises `SpecError` where the place cannot be had.
    """
    if detach and launch.name != "slurm":
        raise SpecError(f"--detach: launch={launch.name} ends with its command; expected launch=slurm")
    if launch.name == "local":
        early.streams = launch.streams or early.streams
        yield early
        return
    early.fit(0)
    needed(launch.name)
    place = importlib.import_module(f"gradlab.launch.{launch.name}")
    with place.crew_of(launch) as crew:
        if detach:
            crew.detach = True
        yield crew


def planned_for(launch: Launch) -> Device:
    """What pieces are planned for elsewhere: a processor, or a GPU whose memory is not known here."""
    kind, name, memory = ("GPU", "cuda:0", GPU_MEMORY) if launch.gpus else ("cpu", "cpu", CPU_MEMORY)
    return Device(name, f"{kind}, {launch.name.capitalize()}", memory, launch.cores)


def needed(name: str) -> None:
    """Raises `SpecError` where the package of a launcher is not installed."""
    package = LAUNCHERS[name].package
    if package is not None and importlib.util.find_spec(package) is None:
        raise SpecError(f"launch={name}: {package} is not installed; pip install 'gradlab[{name}]'")
