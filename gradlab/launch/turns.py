"""Pieces that one process trains by turns: on a GPU each has a stream of its own, and kernels of all run side by side.

A piece asks the card for a window of steps in its turn, and looks at the numbers in the next; between the two the
others have theirs. Nothing of a piece lies on the stream of another, so numbers are those of a piece alone.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from gradlab.launch.keeping import ToldToStop

ALONE: Literal["alone"] = "alone"

Wish: TypeAlias = Literal["alone"] | None
"""With what a piece comes back from its turn: it goes on in the next, or only when no other is at work any more."""

Work: TypeAlias = Generator[Wish, None, None]


@dataclass(eq=False)
class _Piece:
    """Its work, its stream on a GPU, and whether it goes on alone."""

    work: Work
    stream: torch.cuda.Stream | None
    alone: bool = False


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
        """A turn for each. One that was told to stop has kept what it had; those that wait have kept all."""
        self._admit()
        for piece in tuple(self._at_work):
            try:
                with self._on(piece):
                    wish = next(piece.work)
            except StopIteration:
                self._leave(piece)
            except ToldToStop:
                self._leave(piece)
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

    def _on(self, piece: _Piece) -> AbstractContextManager[object]:
        return nullcontext() if piece.stream is None else torch.cuda.stream(piece.stream)
