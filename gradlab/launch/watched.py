"""The end of a training that was watched: what happened, the report, the files; and a script run to its end."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from gradlab.diagnose import DEFAULTS
from gradlab.launch import interrupts
from gradlab.spec.named import SpecError
from gradlab.store.folder import Folder
from gradlab.store.pieces import TABLES
from gradlab.terminal import screen
from gradlab.watching.script import Script, when_imported

if TYPE_CHECKING:
    from gradlab.store.record import Tables
    from gradlab.watching.everything import Everything

OWN = str(Path(__file__).resolve().parents[1])
"""Where gradlab's own files are, which a traceback of a script leaves out."""

MOST_TOLD = 8
"""Runs of a folder whose verdicts are told one by one."""


def ended(out: Console, folder: Folder, tables: Tables, names: dict[str, str], *, draw: bool = True) -> None:
    """What happened, the report and the files."""
    # A training has nothing in memory that is needed at its end alone.
    from gradlab.launch import conduct
    from gradlab.terminal import summary

    found = {name: getattr(tables, name) for name in TABLES}
    if tables.runs.num_rows == 1:
        summary.show_run(out, found)
    else:
        _show_several(out, tables, names)
    written = ",".join(name for name in TABLES if folder.table(name).is_file())
    places = [("tables", f"{folder.root}/{{{written}}}.parquet")]
    if draw:
        conduct.report([folder.root], folder.report, out)
        places.append(("report", str(folder.report / "index.html")))
    screen.show_files(out, places)


def _show_several(out: Console, tables: Tables, names: dict[str, str]) -> None:
    """Each run in a sentence, and its verdicts."""
    from gradlab.diagnose.tables import histories
    from gradlab.terminal import illnesses, summary

    runs = tables.runs.to_pylist()
    for run, history in list(zip(runs, histories(tables.runs, tables.steps, tables.layers), strict=True))[:MOST_TOLD]:
        out.print(f"[bold]{escape(names.get(run['run_id'], run['run_id']))}[/bold] {escape(summary.sentence(run))}")
        illnesses.tell(out, history, DEFAULTS)
    if len(runs) > MOST_TOLD:
        out.print(f"{MOST_TOLD} of {len(runs)} runs are told here; the report has all.")


def run_script(script: Script, every: int, out: Path | None, console: Console, *, draw: bool) -> int:
    """Runs a script under observation, to its end; the exit status, which is its own. Raises `SpecError` before."""
    script.check()
    name = script.target.rpartition(".")[2] if script.module else Path(script.target).stem
    watching: list[Everything] = []
    home = Path.cwd()

    def listen() -> None:
        from gradlab.watching.everything import watched_into

        with chdir(home):
            watching.append(watched_into(name, out, every, screen.say))
        watching[0].start()

    if out is not None and out.is_dir() and any(out.iterdir()):
        raise SpecError(f"-o {out}: already there and not empty; give a new folder")
    when_imported("torch", listen)
    with _its_own(), _Outcome() as outcome:
        script.run()
    if watching:
        # The script may have gone elsewhere; where its folder lies is told from where it was started.
        with chdir(home):
            _close(watching[0], console, outcome.state, outcome.error, draw=draw)
    else:
        screen.say_error(f"{script.target} never imported torch: nothing was watched")
    return outcome.status


def _close(watching: Everything, out: Console, state: str, error: str | None, *, draw: bool) -> None:
    """What gradlab has to say of a script that is over."""
    watching.stop()
    try:
        trained = watching.trained
        if not watching.book.peers.first:
            watching.book.tell()
            return
        if not trained:
            screen.say_error(_nothing(watching))
            return
        folder, tables = watching.write(state, {run.name: error for run in trained} if error is not None else {})
        ended(out, folder, tables, watching.book.names, draw=draw)
    finally:
        watching.book.close()


def _nothing(watching: Everything) -> str:
    """Why nothing was watched."""
    if not watching.optimizers:
        return "no torch.optim.Optimizer was made: the script trains no module in this process; nothing was watched"
    if watching.homeless == len(watching.optimizers):
        return "the script trains tensors that lie in no torch.nn.Module; nothing was watched"
    return "no optimizer made a step: the script trains no module; nothing was watched"


class _Outcome:
    """How a script ended, once it has: its exit status, the state of its result, and of one that crashed why."""

    def __init__(self) -> None:
        self.status, self.state = 0, "done"
        self.error: str | None = None

    def __enter__(self) -> _Outcome:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Says what Python would, and lets nothing through: what was seen of the training is still to be kept."""
        if isinstance(error, SystemExit):
            self.status = _status(error)
        elif error is not None and kind is not None:
            interrupted = isinstance(error, KeyboardInterrupt)
            self.state = "interrupted" if interrupted else "failed"
            self.status = interrupts.status(error) if isinstance(error, KeyboardInterrupt) else 1
            self.error = None if interrupted else f"{kind.__name__}: {error}"
            # What is no Python at all never ran.
            own = None if isinstance(error, SyntaxError) and _from(trace) is trace else _from(trace)
            sys.excepthook(kind, error.with_traceback(own), own)
        return True


def _status(stop: SystemExit) -> int:
    """As Python's own: a text is printed, and is 1."""
    if stop.code is None:
        return 0
    if isinstance(stop.code, int):
        return stop.code
    sys.stderr.write(f"{stop.code}\n")
    return 1


def _from(trace: TracebackType | None) -> TracebackType | None:
    """A traceback from the script on."""
    here = trace
    while here is not None and here.tb_frame.f_code.co_filename.startswith(("<frozen", OWN)):
        here = here.tb_next
    return here or trace


@contextmanager
def _its_own() -> Iterator[None]:
    """Standard streams and Ctrl-C as a script expects them; SIGTERM and SIGHUP still end it in good order."""
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = sys.__stdout__ or sys.stdout, sys.__stderr__ or sys.stderr
    main = threading.current_thread() is threading.main_thread()
    handler: Callable[..., object] | int | None = signal.getsignal(signal.SIGINT)
    if main and handler is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = streams
        if main and handler is not None:
            signal.signal(signal.SIGINT, handler)
