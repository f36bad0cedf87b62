"""Pieces that one process trains by turns: on a GPU each has a stream of its own, and kernels of all run side by side.

A piece asks the card for a window of steps in its turn, and looks at the numbers in the next, which comes when they are
there; between the two the others have theirs, as many as they want. Nothing of a piece lies on the stream of another:
its numbers are those that it has alone.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from gradlab.launch.keeping import ToldToStop

ALONE: Literal["alone"] = "alone"

Wish: TypeAlias = Literal["alone"] | None
"""With what a piece comes back from its turn: it goes on in the next, or only when no other is at work any more."""

Work: TypeAlias = Generator[Wish, None, None]

LOOK_SECONDS = 0.0002
"""Between two looks whether the card has done what some piece has asked for."""


@dataclass(eq=False)
class _Piece:
    """Its work, its stream on a GPU with a mark behind what it has asked for, and whether it goes on alone."""

    work: Work
    stream: torch.cuda.Stream | None
    asked: torch.cuda.Event | None = None
    alone: bool = False

    @property
    def ready(self) -> bool:
        """Whether the card has done all that it has asked for."""
        return self.asked is None or self.asked.query()

    def turn(self) -> Wish:
        """One turn."""
        if self.stream is None:
            return next(self.work)
        with torch.cuda.stream(self.stream):
            wish = next(self.work)
            self.asked = torch.cuda.Event()
            self.asked.record(self.stream)
            return wish


class Turns:
    """Pieces on one device.

    Streams are made once and lent to one piece after the other: torch has few, and gives the first ones again, and what
    a piece has left free on its stream is there for the next one.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._free: list[torch.cuda.Stream] = []
        self._at_work: list[_Piece] = []
        self._waiting: list[_Piece] = []

    def __len__(self) -> int:
        return len(self._at_work) + len(self._waiting)

    @property
    def shared(self) -> bool:
        """Whether several are at work, so that memory which a piece does not find may be another's."""
        return len(self._at_work) > 1

    def begin(self, work: Work) -> None:
        """Takes up a piece: its first turn is in the next round, unless one wishes to be alone."""
        self._waiting.append(_Piece(work, self._stream()))

    def round(self) -> None:
        """A turn for each that is ready; where none is, a moment passes. Who was told to stop is kept, and gone."""
        self._admit()
        ready = [piece for piece in self._at_work if piece.ready]
        if not ready:
            time.sleep(LOOK_SECONDS)
        for piece in ready:
            try:
                wish = piece.turn()
            except StopIteration:
                self._leave(piece)
            except ToldToStop:
                self._leave(piece)
                # Those that wait have nothing that is not kept.
                for other in self._waiting:
                    other.work.close()
                self._waiting.clear()
            else:
                if wish == ALONE:
                    piece.alone = True
                    self._at_work.remove(piece)
                    self._waiting.insert(0, piece)

    def _admit(self) -> None:
        if any(piece.alone for piece in self._at_work):
            return
        if not any(piece.alone for piece in self._waiting):
            self._at_work += self._waiting
            self._waiting.clear()
        elif not self._at_work:
            self._at_work.append(self._waiting.pop(0))

    def _leave(self, piece: _Piece) -> None:
        self._at_work.remove(piece)
        if piece.stream is not None:
            self._free.append(piece.stream)

    def _stream(self) -> torch.cuda.Stream | None:
        if self._device.type != "cuda":
            return None
        stream = self._free.pop() if self._free else torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        return stream
