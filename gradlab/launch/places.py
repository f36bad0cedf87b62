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
        yield early
        return
    early.fit(0)
    needed(launch.name)
    place = importlib.import_module(f"gradlab.launch.{launch.name}")
    with place.crew_of(launch, detach=detach) as crew:
        yield crew


def needed(name: str) -> None:
    """Raises `SpecError` where the package of a launcher is not installed."""
    package = LAUNCHERS[name].package
    if package is not None and importlib.util.find_spec(package) is None:
        raise SpecError(f"launch={name}: {package} is not installed; pip install 'gradlab[{name}]'")
