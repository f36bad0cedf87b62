"""What ends a command early: Ctrl-C, SIGTERM and SIGHUP, each heard once, none of them lost.

Imports nothing but the standard library: it is there before anything else of a command is.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a command in good order."""

SIGHUP_STATUS = 128 + signal.SIGHUP
"""Exit status of a command whose terminal is gone."""

AGAIN_SECONDS = 2.0
"""After which an interrupt that nobody has heard is raised again: one that comes inside an import's lock is lost."""


class Stopped(KeyboardInterrupt):
    """A command was told to end; ``number`` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def status(stopped: KeyboardInterrupt) -> int:
    """The exit status: 130 of Ctrl-C, 143 of SIGTERM, 129 of SIGHUP."""
    return 128 + (stopped.number if isinstance(stopped, Stopped) else signal.SIGINT)


@contextmanager
def listening() -> Iterator[None]:
    """Within it each of `STOPPING` raises `Stopped`, until `heard`; what was ignored before (nohup) stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    last: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        last.append(number)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        raise Stopped(number)

    def again(_: int, __: FrameType | None) -> None:
        stop(last[-1], None)

    def unraisable(lost: sys.UnraisableHookArgs) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(lost)

    ignored = [one for one in STOPPING if signal.getsignal(one) == signal.SIG_IGN]
    before = {one: signal.signal(one, stop) for one in STOPPING if one not in ignored}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, again)
    sys.unraisablehook = unraisable
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = sys.__unraisablehook__
        for one, handler in before.items():
            # Who presses Ctrl-C again while Python shuts down would see its traceback.
            if one != signal.SIGINT or signal.getsignal(one) != signal.SIG_IGN:
                signal.signal(one, handler)


def heard() -> None:
    """From here on the command ends: whoever presses Ctrl-C twice has been heard the first time."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    for one in STOPPING:
        signal.signal(one, signal.SIG_IGN)


@contextmanager
def held(*signals: signal.Signals) -> Iterator[None]:
    """These signals wait until the block is left; processes that are started in it never hear of them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
