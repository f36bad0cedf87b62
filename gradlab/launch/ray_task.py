"""What runs on the nodes of a Ray cluster: the board that tasks write on, and a piece that is trained as a task."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradlab
from gradlab.launch.events import Event, Job
from gradlab.store.folder import Folder

LOOK_SECONDS = 0.25
"""Between two looks at what tasks say, and between two sayings of one."""


class Board:
    """Where tasks say how far they are: an actor beside the command."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.ended = False

    def say(self, event: Event) -> None:
        """Keeps an event."""
        self.events.append(event)

    def stop(self) -> None:
        """From here on tasks end: who is at work keeps what it has, who comes later begins nothing."""
        self.ended = True

    def stopped(self) -> bool:
        """Whether tasks are to end."""
        return self.ended

    def take(self) -> list[Event]:
        """All that was said since."""
        said, self.events = self.events, []
        return said


def train_piece(
    job: Job, device: str, board: Any, kept: Mapping[str, bytes], mark: str, cwd: str, version: str
) -> tuple[Event, dict[str, bytes]]:
    """Trains a piece on a node: how it ended, and where the node does not see the folder the files that it left.

    A task that is told to stop keeps what it has, as a worker at home does.
    """
    if gradlab.__version__ != version:
        raise RuntimeError(f"the node has gradlab {gradlab.__version__}, and the command {version}")
    import ray
    import torch

    from gradlab.launch.keeping import ToldToStop
    from gradlab.launch.worker import keep_memory, run_job

    keep_memory()
    torch.set_num_threads(job.piece.threads)
    index, last, spoke, told = job.piece.index, Event("stopped", job.piece.index), 0.0, list[int]()

    def say(event: Event) -> None:
        nonlocal last, spoke
        if event.kind not in ("progress", "halved"):
            last = event
        elif event.kind == "halved" or time.monotonic() - spoke > LOOK_SECONDS:
            spoke = time.monotonic()
            board.say.remote(event)

    def listen() -> None:
        while not over.wait(2 * LOOK_SECONDS):
            if ray.get(board.stopped.remote()):
                told.append(signal.SIGTERM)
                return

    if ray.get(board.stopped.remote()):
        return last, {}
    over = threading.Event()
    threading.Thread(target=listen, daemon=True).start()
    board.say.remote(Event("started", index))
    shared = (Folder(job.folder).pieces / mark).is_file()
    with contextlib.ExitStack() as stack:
        if Path(cwd).is_dir():
            stack.enter_context(contextlib.chdir(cwd))
        place = job.folder if shared else Path(stack.enter_context(TemporaryDirectory(prefix="gradlab-")))
        pieces = Folder(place).pieces
        pieces.mkdir(exist_ok=True)
        for name, content in kept.items() if not shared else ():
            (pieces / name).write_bytes(content)
        try:
            run_job(replace(job, folder=place), torch.device(device), say, told)
        except ToldToStop:
            pass
        finally:
            over.set()
        left = [] if shared else [path for path in place.rglob("*") if path.is_file()]
        return last, {str(path.relative_to(place)): path.read_bytes() for path in left}


def card_memory() -> int:
    """The bytes of a GPU."""
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)
