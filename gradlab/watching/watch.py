"""`gradlab.watch`: a training in a script of its own, under observation while the block lasts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from torch import nn

from gradlab.store.folder import Folder
from gradlab.watching.course import Figure
from gradlab.watching.ears import EARS
from gradlab.watching.keeping import Book
from gradlab.watching.lookout import Say
from gradlab.watching.unmoved import ids_of
from gradlab.watching.watched import Watched, trained_by

if TYPE_CHECKING:
    from gradlab.store.record import Tables

Ending = Callable[[Folder, "Tables", dict[str, str]], None]
"""What is said and drawn at the end, with what the runs are called."""


class Watch:
    """A module and its optimizer, watched from `__enter__` to `__exit__`: what `gradlab.watch` gives.

    Args:
        module: any network; or what `DistributedDataParallel`, FSDP or `torch.compile` made of one.
        optimizer: the one that trains it.
        every: steps between two records of the per-layer table; step 0 is always recorded.
        out: exactly this folder; by default ``outputs/<date>/<time>-<name>``.
        name: what the folder and the run are called.
        scaler: the loss scaler, where the script has one of its own; `torch.amp.GradScaler` is heard without it.
        ending: what is said and drawn at the end.
        say: told at once where the first number that is not finite was made.

    Raises `SpecError` for a folder that holds something already, `ValueError` where the optimizer trains nothing of the
    module or ``every`` is no step count.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: Any,
        every: int = 50,
        out: str | Path | None = None,
        name: str = "watch",
        scaler: Any = None,
        *,
        ending: Ending | None = None,
        say: Say = lambda _: None,
    ) -> None:
        if every < 1 or every % 1:
            raise ValueError(f"every={every!r}; expected an integer of at least 1, the steps between two records")
        self._made = module, trained_by(optimizer), name
        _check(module, self._made[1])
        self._every, self._out, self._scaler, self._ending = every, None if out is None else Path(out), scaler, ending
        self._book: Book | None = None
        self._say = say
        self._runs: list[Watched] = []

    @property
    def folder(self) -> Path:
        """Where the tables are."""
        return self._open().folder.root

    @property
    def writes(self) -> bool:
        """Whether this process holds the folder: the first one of a training does."""
        return self._open().peers.first

    def __enter__(self) -> Self:
        module, optimizer, name = self._made
        self._book = Book(name, self._out, self._every, self._say)
        self._add(module, optimizer, name)
        return self

    def also(self, module: nn.Module, optimizer: Any, name: str) -> Seen:
        """A further module and its optimizer, as a run of the same folder: the other half of a GAN."""
        found = trained_by(optimizer)
        _check(module, found)
        return Seen(self._add(module, found, name))

    def _open(self) -> Book:
        if self._book is None:
            raise RuntimeError("nothing is watched yet; expected `with gradlab.watch(...) as seen`")
        return self._book

    def _add(self, module: nn.Module, optimizer: Any, name: str) -> Watched:
        book = self._open()
        if any(run.name == name for run in self._runs):
            raise ValueError(f"name={name!r}: a run of this folder is called so already")
        run = Watched(name, module, optimizer, self._every, book.due, book.say, scaler=self._scaler)
        book.runs.append(run)
        self._runs.append(run)
        EARS.add(run)
        return run

    def step(self, loss: Figure, **scalars: Figure) -> None:
        """Closes a step, after `optimizer.step()`: its loss, and what else shall stand in the tables.

        Under gradient accumulation it may be called for every micro-batch: the loss of a step is then their mean.
        """
        self._open()
        Seen(self._runs[0]).step(loss, **scalars)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        book = self._open()
        for run in self._runs:
            EARS.remove(run)
            run.stop()
        try:
            if not any(len(run.course) for run in book.runs):
                return
            if not book.peers.first:
                book.tell()
                return
            interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
            crashed = None if error is None or interrupted else f"{kind.__name__ if kind else ''}: {error}".strip()
            state = "interrupted" if interrupted else "done" if crashed is None else "failed"
            tables = book.write(state, {} if crashed is None else {run.name: crashed for run in book.runs})
            if self._ending is not None:
                self._ending(book.folder, tables, book.names)
        finally:
            book.close()


class Seen:
    """One run of a folder, for the script's own word on its steps."""

    def __init__(self, run: Watched) -> None:
        self._run = run

    def step(self, loss: Figure, **scalars: Figure) -> None:
        """Closes a step of this run: see `Watch.step`."""
        self._run.step(loss, **scalars)


def _check(module: nn.Module, optimizer: Any) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"the module is a {type(module).__name__}; expected a torch.nn.Module")
    trained = ids_of(optimizer)
    if not any(id(one) in trained for one in module.parameters()):
        raise ValueError("the optimizer trains none of the module's parameters; expected the one that trains it")
