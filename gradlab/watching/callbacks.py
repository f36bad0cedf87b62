"""What the callbacks of frameworks have in common: a watch that begins and ends with a training."""

from __future__ import annotations

import atexit
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

import gradlab
from gradlab.watching.found import modules_of, together
from gradlab.watching.watch import Watch
from gradlab.watching.watched import trained_by


class Watching:
    """Begins a watch with a training and ends it with that.

    ``every``, ``out``, ``name``, ``quiet`` and ``report`` as of `gradlab.watch`. The loss of a step is what the
    framework goes back from; after the training ``folder`` says where the tables are.
    """

    def __init__(
        self,
        every: int = 50,
        out: str | Path | None = None,
        name: str = "watch",
        *,
        quiet: bool = False,
        report: bool = True,
    ) -> None:
        super().__init__()
        self._wishes: dict[str, Any] = {"every": every, "out": out, "quiet": quiet, "report": report}
        self._name = name
        self._watch: Watch | None = None
        self.folder: Path | None = None

    def begin(self, module: nn.Module, optimizers: Sequence[Any]) -> None:
        """Watches a module; with several optimizers what each of them trains is a run."""
        found = [trained_by(one) for one in optimizers]
        parts = [module] if len(found) == 1 else [together(modules_of(one, found)) for one in found]
        names = [self._name] if len(found) == 1 else [f"{self._name}-{place}" for place, _ in enumerate(found, start=1)]
        self._watch = gradlab.watch(parts[0], found[0], name=names[0], **self._wishes)
        self._watch.__enter__()
        # A framework that breaks off tells nobody.
        atexit.register(self.end)
        self.folder = self._watch.folder if self._watch.writes else None
        for part, optimizer, name in zip(parts[1:], found[1:], names[1:], strict=True):
            self._watch.also(part, optimizer, name)

    def end(self, error: BaseException | None = None) -> None:
        """Ends it, once."""
        watch, self._watch = self._watch, None
        if watch is not None:
            atexit.unregister(self.end)
            watch.__exit__(None if error is None else type(error), error, None)


def needed(package: str, extra: str) -> Any:
    """A package that only a callback needs. Raises `ImportError`, which says how to get it, where it is not there."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ImportError(f"{package} is not installed; expected it, as with pip install 'gradlab[{extra}]'") from error
