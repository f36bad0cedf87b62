"""In what order a card does its work: streams, what they have waited for, and who has touched which memory when.

Work of one stream is done in order. That of two is not, unless the one has waited for the other, or the host has, which
asks for all work. What one stream writes and another touches without order is a race, also where a fake card, on which
all is done as it is asked for, has the right numbers; so is memory that is given to others while it is still in use.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

POOL = 32
"""Streams that torch has of a device: whoever asks for more is given the first ones again."""

PRODUCTS = {"mm", "bmm", "addmm", "addmm_", "baddbmm", "baddbmm_", "addbmm", "addmv", "mv", "dot"}
"""Operations that use the scratch memory which cuBLAS has for the stream that they are asked for, or captured, on."""


@dataclass(eq=False)
class FakeStream:
    """An order of work: ``clock`` counts what it was asked for, ``known`` how much of others came before."""

    device: int
    clock: int = 0
    known: dict[FakeStream, int] = field(default_factory=dict)

    def wait_stream(self, other: FakeStream) -> None:
        """What this one is asked for from here on comes after what the other has been asked for."""
        learn(self.known, other)


@dataclass(eq=False)
class FakeEvent:
    """A mark on a stream; the card has come to it when it was asked for often enough, see `Order.slow`.

    That somebody has asked orders nothing here: who needs an order has to wait.
    """

    order: Order
    stream: FakeStream | None = None

    def record(self, stream: FakeStream) -> None:
        self.stream = stream

    def query(self) -> bool:
        left = 0 if self.stream is None else self.order.slow.get(self.stream, 0)
        if self.stream is not None and left:
            self.order.slow[self.stream] = left - 1
        return not left


def learn(known: dict[FakeStream, int], other: FakeStream) -> None:
    """All that ``other`` was asked for, and what came before that."""
    for stream, clock in (*other.known.items(), (other, other.clock)):
        known[stream] = max(known.get(stream, 0), clock)


@dataclass
class Memory:
    """The stream that it was taken on (None: it belongs to a graph, or to a library), and who touched it last, when."""

    home: FakeStream | None
    written: tuple[FakeStream, int] | None = None
    read: dict[FakeStream, int] = field(default_factory=dict)


class Order:
    """Of all streams of a machine. ``faults`` are what could not be said where it happened.

    ``slow``: how many times somebody looks in vain whether a stream has come to a mark.
    """

    def __init__(self) -> None:
        self.slow: dict[FakeStream, int] = {}
        self.host: dict[FakeStream, int] = {}
        self.memory: dict[Hashable, Memory] = {}
        self.faults: list[str] = []

    def waited(self, stream: FakeStream) -> None:
        """The host has waited for a stream."""
        learn(self.host, stream)

    def touch(self, what: str, stream: FakeStream, reads: Iterable[Hashable], writes: Iterable[Hashable]) -> None:
        """A stream is asked for something. Raises `RuntimeError` for what has no order."""
        stream.clock += 1
        for key in reads:
            if (memory := self.memory.get(key)) is not None:
                self._follows(what, stream, memory.written)
                memory.read[stream] = stream.clock
        for key in writes:
            if (memory := self.memory.get(key)) is not None:
                for before in (memory.written, *memory.read.items()):
                    self._follows(what, stream, before)
                memory.written, memory.read = (stream, stream.clock), {}

    def _follows(self, what: str, stream: FakeStream, before: tuple[FakeStream, int] | None) -> None:
        if before is not None and not self._ordered(stream, *before):
            raise RuntimeError(f"{what}: memory that another stream is at, which this one has not waited for")

    def _ordered(self, stream: FakeStream, other: FakeStream, clock: int) -> bool:
        return other is stream or clock <= max(stream.known.get(other, 0), self.host.get(other, 0))

    def scratch(self, stream: FakeStream) -> Hashable:
        """That of cuBLAS for a stream."""
        self.memory.setdefault(("scratch", stream), Memory(None))
        return ("scratch", stream)

    def take(self, key: Hashable, home: FakeStream | None) -> None:
        """Memory is taken, of those that were free on a stream."""
        self.memory[key] = Memory(home)

    def free(self, key: Hashable) -> None:
        """Memory may be taken again by its stream, at once: whatever others do to it must be over then."""
        memory = self.memory.pop(key, None)
        if memory is None or memory.home is None:
            return
        last = [*memory.read.items(), *([] if memory.written is None else [memory.written])]
        if not all(self._ordered(memory.home, *one) for one in last):
            self.faults.append("memory was freed on the stream that it is of, while another was at it")
