"""Everything that a process trains: each optimizer that it makes is a run, as soon as it makes a step."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from gradlab.store.folder import Folder
from gradlab.watching.ears import EARS
from gradlab.watching.found import called, modules_of, together
from gradlab.watching.keeping import Book
from gradlab.watching.lookout import Say
from gradlab.watching.watched import Watched

if TYPE_CHECKING:
    from gradlab.store.record import Tables


class Everything:
    """Watches whatever is trained from here on, into the folder of ``book``."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.optimizers: list[Optimizer] = []
        self.runs: dict[int, Watched] = {}
        self._taken = ExitStack()

    def start(self) -> None:
        """From here on every optimizer that is made is known."""
        there = Optimizer.__init__

        @wraps(there)
        def made(optimizer: Optimizer, *given: Any, **named: Any) -> None:
            there(optimizer, *given, **named)
            self._note(optimizer)

        setattr(Optimizer, "__init__", made)  # noqa: B010
        self._taken.callback(setattr, Optimizer, "__init__", there)

    def _note(self, optimizer: Optimizer) -> None:
        self.optimizers.append(optimizer)
        earlier = next((one for one in self.trained if one.goes_on_with(optimizer)), None)
        if earlier is not None:
            self.runs[id(optimizer)] = earlier
            return
        # Whose a module is shows when all optimizers are there; what has not begun yet may change.
        for one in self.optimizers:
            run = self.runs.get(id(one))
            if run is None or not run.begun:
                if run is not None:
                    self._drop(run)
                self._find(one)

    def _find(self, optimizer: Optimizer) -> None:
        found = modules_of(optimizer, self.optimizers)
        if not found:
            return
        module = together(found)
        inner = next(iter(found.values()))
        taken = [run.name for run in self.book.runs]
        name = called(inner, _variables(), taken) if len(found) == 1 else called(module, {}, taken)
        run = Watched(name, module, optimizer, self.book.every, self.book.due, self.book.say)
        self.runs[id(optimizer)] = run
        self.book.runs.append(run)
        EARS.add(run)

    def _drop(self, run: Watched) -> None:
        self.runs = {key: one for key, one in self.runs.items() if one is not run}
        EARS.remove(run)
        run.stop()
        self.book.runs.remove(run)

    def stop(self) -> None:
        """Nothing is watched any more."""
        self._taken.close()
        for run in self.book.runs:
            EARS.remove(run)
            run.stop()

    @property
    def homeless(self) -> int:
        """Optimizers whose parameters lie in no module."""
        return len(self.optimizers) - len(self.runs)

    @property
    def trained(self) -> Sequence[Watched]:
        """The runs that made a step."""
        return [run for run in self.book.runs if len(run.course)]

    def write(self, state: str, errors: Mapping[str, str]) -> tuple[Folder, Tables]:
        """The last word of the tables."""
        return self.book.folder, self.book.write(state, errors)


def watched_into(name: str, out: Path | None, every: int, say: Say) -> Everything:
    """A new folder, and everything that will be watched into it."""
    return Everything(Book(name, out, every, say))


def _variables() -> dict[str, Any]:
    """The variables of whoever makes an optimizer, the nearest first, but for those of torch and of gradlab."""
    found: dict[str, Any] = {}
    frame = inspect.currentframe()
    while frame is not None:
        if not str(frame.f_globals.get("__name__", "")).startswith(("torch", "gradlab")):
            found = {**frame.f_locals, **found}
        frame = frame.f_back
    return found
