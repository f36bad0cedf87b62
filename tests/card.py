"""A GPU that is none: tensors on ``cuda:N`` in the processor's memory, and CUDA graphs of what is done to them.

It is as strict as a card where a card is strict. Tensors of different devices do not meet; whatever waits for the host
is counted, and refused during a capture or where `torch.cuda.set_sync_debug_mode` says so; a captured step is played
with what was on the host at the capture; memory may run out; what streams do to the same memory must have an order
(`tests.streams`). What it computes, the processor computes.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

from tests.streams import POOL, PRODUCTS, FakeEvent, FakeStream, Order

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "unique_dim", "_unique2", "repeat_interleave"}
"""Operations that cannot go on before the host knows a number."""

INDEXES = ("index", "index_put", "index_put_")


class OnCard(Tensor):
    """A tensor that says that it lies on ``cuda:N``; ``within`` is what there is of it.

    To the inside of torch it is on ``meta``: a build without CUDA knows no other device that is not the processor.
    """

    within: Tensor
    card: Card
    place: torch.device
    key: int

    @staticmethod
    def __new__(cls, inner: Tensor, card: Card, device: torch.device) -> OnCard:
        made: OnCard = Tensor._make_wrapper_subclass(
            cls, inner.size(), inner.stride(), inner.storage_offset(), dtype=inner.dtype, device=torch.device("meta")
        )
        made.within, made.card, made.place = inner, card, device
        card.hold(made)
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.place

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def __getitem__(self, at: Any) -> Any:
        return super().__getitem__(self._sent(at))

    def __setitem__(self, at: Any, value: Any) -> None:
        super().__setitem__(self._sent(at), value)

    def _sent(self, at: Any) -> Any:
        """Indices from the host, on their way to the card: the inside of torch would send them to ``meta``."""
        if isinstance(at, tuple):
            return tuple(map(self._sent, at))
        return torch.tensor(at, dtype=torch.int64, device=self.place) if isinstance(at, list) else at

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        self.within, self.key = value.within, value.key  # type: ignore[attr-defined]

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def data_ptr(self) -> int:
        return self.within.data_ptr()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnCard({self.within!r}, device={self.device})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        card = next(one.card for one in tree_iter((args, kwargs)) if isinstance(one, OnCard))
        return card.run(func, args, kwargs or {})


@dataclass
class Call:
    """One operation of a capture: what memory it reads and writes, and whose results are kept in place."""

    func: Any
    args: Any
    kwargs: Any
    results: tuple[Tensor, ...]
    reads: set[Hashable]
    writes: set[Hashable]


@dataclass
class Card:
    """What happened on it: how often the host waited, asked for something, and launched graphs.

    ``mode`` is the debug mode's. ``room``: bytes that all tensors may take; ``taken`` and ``peak``: those that they
    take, and have taken at most; ``idle``: those that torch keeps for later.
    """

    waits: int = 0
    launches: int = 0
    emptied: int = 0
    asked: int = 0
    idle: int = 0
    mode: str = "default"
    room: int = 2**40
    taken: int = 0
    peak: int = 0
    held: dict[int, int] = field(default_factory=dict)
    chosen: int = 0
    capturing: list[Call] | None = None
    broken: bool = False
    streams: list[FakeStream] = field(default_factory=list)
    current: list[FakeStream] = field(default_factory=list)
    order: Order = field(default_factory=Order)

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        name = func.overloadpacket.__name__
        self.asked += 1
        given = [one for one in tree_iter((args, kwargs)) if isinstance(one, Tensor)]
        ours = [one for one in given if isinstance(one, OnCard)]
        asked = kwargs.get("device")
        to = torch.device(asked) if asked is not None else ours[0].device if ours else torch.device("cpu")
        if to.type == "meta":  # a number that the inside of torch puts beside a tensor
            to = torch.device("cuda", self.chosen)
        devices = {one.device for one in ours} | ({to} if to.type == "cuda" and name != "_to_copy" else set())
        crosses = name in ("_to_copy", "copy_") and len({one.device for one in given} | {to}) > 1
        # What is sent to the card without waiting is taken at once from the host's memory.
        sent = name == "_to_copy" and kwargs.get("non_blocking", False) and to.type == "cuda"
        # What chooses among entries may lie on the host: it is sent.
        looked = given if name not in INDEXES else [one for one in given if one.dtype not in (torch.int64, torch.bool)]
        apart = [one for one in looked if not isinstance(one, OnCard) and one.dim() > 0]
        if not crosses and (len(devices) > 1 or (devices and apart)):
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, found {to} and others")
        place = next((one for one in (to, *(one.device for one in ours)) if one.type == "cuda"), None)
        waits = place is not None and ((crosses and not sent) or name in WAITS or _by_mask(name, args))
        if waits:
            self.wait(name)
        inner = _plain(args), {key: _plain(value) for key, value in kwargs.items()}
        if asked is not None:
            inner[1]["device"] = torch.device("cpu")
        result = func(*inner[0], **inner[1])
        stays = to.type == "cuda" and name != "_local_scalar_dense"
        made = tuple(one for one in tree_iter(result) if isinstance(one, Tensor) and stays)
        if self.capturing is not None:
            fixed = tree_map(lambda one: one.clone() if isinstance(one, Tensor) and one.dim() == 0 else one, inner)
            keeps = {id(one.within) for one in ours}
            held = tree_map(lambda one, was: was if id(was) in keeps else one, fixed, inner)
        known = {id(one.within): one for one in ours}
        if stays:
            result = tree_map(
                lambda one: (
                    known[id(one)] if id(one) in known else OnCard(one, self, to) if isinstance(one, Tensor) else one
                ),
                result,
            )
        if place is not None:
            stream = self.stream(place)
            reads, writes = _touched(func, args, kwargs, result if stays else ())
            writes |= {self.order.scratch(stream)} if name in PRODUCTS else set()
            if self.capturing is not None:
                self.capturing.append(Call(func, held[0], held[1], made, reads, writes))
            else:
                self.order.touch(name, stream, reads, writes)
            if waits:
                self.order.waited(stream)
        return result

    def stream(self, device: torch.device) -> FakeStream:
        """The current one."""
        index: int | None = device.index
        return self.current[self.chosen if index is None else index]

    def hold(self, made: OnCard) -> None:
        """Counts the memory of a tensor, which it may share with others. Raises where there is too little."""
        storage = made.within.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        made.key = key
        if key not in self.held:
            self.order.take(key, None if self.capturing is not None else self.stream(made.place))
            if self.taken + size > self.room:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more than this card has.")
            self.taken += size
            self.peak = max(self.peak, self.taken)
        self.held[key] = self.held.get(key, 0) + 1
        weakref.finalize(made, self.release, key, size).atexit = False

    def release(self, key: int, size: int) -> None:
        """A tensor is gone."""
        self.held[key] -= 1
        if not self.held[key]:
            del self.held[key]
            self.order.free(key)
            self.taken -= size

    def wait(self, what: str) -> None:
        """The host waits for the card."""
        self.waits += 1
        if self.capturing is not None:
            self.broken = True
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({what})")
        if self.mode == "error":
            raise RuntimeError("called a synchronizing CUDA operation")


def _touched(func: Any, args: Any, kwargs: Any, made: Any) -> tuple[set[Hashable], set[Hashable]]:
    """The memory that an operation reads, and what it writes; none of a view."""
    changed, is_view = _kind(func)
    if is_view:
        return set(), set()
    written = [kwargs.get(at) if isinstance(at, str) else args[at : at + 1] for at in changed]
    given: set[Hashable] = {one.key for one in tree_iter((args, kwargs)) if isinstance(one, OnCard)}
    writes: set[Hashable] = {one.key for one in tree_iter(written) if isinstance(one, OnCard)}
    writes |= {one.key for one in tree_iter(made) if isinstance(one, OnCard)} - given
    return given - writes, writes


@cache
def _kind(func: Any) -> tuple[tuple[int | str, ...], bool]:
    """Of the arguments of an operation those that it writes, by place or by name; and whether it gives a view."""
    schema = func._schema
    found = [one for one in enumerate(schema.arguments) if one[1].alias_info and one[1].alias_info.is_write]
    changed = tuple(argument.name if argument.kwarg_only else at for at, argument in found)
    return changed, not changed and any(one.alias_info is not None for one in schema.returns)


def _plain(tree: Any) -> Any:
    return tree_map(lambda one: one.within if isinstance(one, OnCard) else one, tree)


def _by_mask(name: str, args: Any) -> bool:
    """Whether something is chosen by a mask, whose length the host must know, or by what is sent from there."""
    return name in INDEXES and any(one is not None and (one.dtype is torch.bool or not one.is_cuda) for one in args[1])


class Placed(TorchDispatchMode):
    """Within it, what is asked for on ``cuda`` is made on a card."""

    def __init__(self, card: Card) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.card = card

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        asked = kwargs.get("device")
        if (asked is not None and torch.device(asked).type != "cpu") or any(
            isinstance(one, OnCard) for one in tree_iter((args, kwargs))
        ):
            return self.card.run(func, args, kwargs)
        return func(*args, **kwargs)


class FakeGraph:
    """What was captured, in order."""

    def __init__(self, card: Card) -> None:
        self.card, self.calls = card, list[Call]()

    def capture_begin(self, pool: Any = None) -> None:
        del pool
        if self.card.stream(torch.device("cuda")) in self.card.streams[: len(self.card.current)]:
            raise RuntimeError("CUDA graphs must be captured on a non-default stream.")
        self.card.capturing, self.card.broken = self.calls, False

    def capture_end(self) -> None:
        self.card.capturing = None
        if self.card.broken:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    def replay(self) -> None:
        self.card.launches += 1
        reads, writes = self.touched
        self.card.order.touch("a graph", self.card.stream(torch.device("cuda")), reads, writes)
        for call in self.calls:
            found = tree_iter(call.func(*call.args, **call.kwargs))
            for kept, one in zip(call.results, [one for one in found if isinstance(one, Tensor)], strict=True):
                if kept.data_ptr() != one.data_ptr():
                    kept.copy_(one)

    @cached_property
    def touched(self) -> tuple[set[Hashable], set[Hashable]]:
        """The memory that it reads, and what it writes."""
        writes = {key for call in self.calls for key in call.writes}
        return {key for call in self.calls for key in call.reads} - writes, writes


@dataclass(frozen=True)
class Properties:
    """What torch says of a card."""

    name: str
    total_memory: int = 8 << 30


class FakeCuda:
    """What gradlab asks of `torch.cuda`, of a machine with several cards of one kind."""

    def __init__(self, card: Card, count: int) -> None:
        self.card, self.count = card, count
        card.current = [FakeStream(index) for index in range(count)]
        card.streams = list(card.current)
        self.pools = [[FakeStream(index) for _ in range(POOL)] for index in range(count)]

    def install(self, patched: pytest.MonkeyPatch) -> None:
        """In place of `torch.cuda`'s own."""
        card = self.card
        for name, value in {
            "_lazy_init": lambda: None,
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "manual_seed_all": lambda _: None,
            "device_count": lambda: self.count,
            "current_device": lambda: card.chosen,
            "set_device": self.set_device,
            "device": self.device,
            "Stream": lambda device=None: self.new_stream(self._index(device)),
            "current_stream": lambda device=None: card.current[self._index(device)],
            "default_stream": lambda device=None: card.streams[self._index(device)],
            "stream": self.stream,
            "Event": lambda: FakeEvent(card.order),
            "CUDAGraph": lambda: FakeGraph(card),
            "graph_pool_handle": lambda: (0, 1),
            "empty_cache": self.empty_cache,
            "memory_reserved": lambda _=None: card.taken + card.idle,
            "memory_allocated": lambda _=None: card.taken,
            "synchronize": lambda _=None: card.wait("synchronize"),
            "get_device_name": lambda device=None: f"Fake card {self._index(device)}",
            "get_device_properties": lambda device=None: Properties(f"Fake card {self._index(device)}"),
            "get_rng_state": lambda _=None: torch.zeros(16, dtype=torch.uint8),
            "set_rng_state": lambda *_: None,
            "get_sync_debug_mode": lambda: {"default": 0, "warn": 1, "error": 2}[card.mode],
            "set_sync_debug_mode": self.set_sync_debug_mode,
        }.items():
            patched.setattr(torch.cuda, name, value)
        patched.setattr(torch.backends.cudnn, "is_acceptable", lambda _: False)

    def _index(self, device: Any) -> int:
        index = torch.device(device).index if isinstance(device, str | torch.device) else device
        return self.card.chosen if index is None else int(index)

    def new_stream(self, index: int) -> FakeStream:
        pool = self.pools[index]
        pool.append(pool.pop(0))
        self.card.streams.append(pool[-1])
        return pool[-1]

    def set_device(self, device: Any) -> None:
        self.card.chosen = self._index(device)

    @contextmanager
    def device(self, device: Any) -> Iterator[None]:
        before, self.card.chosen = self.card.chosen, self._index(device)
        try:
            yield
        finally:
            self.card.chosen = before

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        before, self.card.current[stream.device] = self.card.current[stream.device], stream
        try:
            yield
        finally:
            self.card.current[stream.device] = before

    def empty_cache(self) -> None:
        self.card.emptied += 1

    def set_sync_debug_mode(self, mode: str | int) -> None:
        warnings.warn("Synchronization debug mode is a prototype feature", UserWarning, stacklevel=2)
        self.card.mode = mode if isinstance(mode, str) else ("default", "warn", "error")[mode]


@contextmanager
def fake_cards(count: int = 1) -> Iterator[Card]:
    """A machine with ``count`` cards, for as long as it lasts."""
    card = Card()
    lifts, rounding = torch._C._only_lift_cpu_tensors(), torch.backends.cuda.matmul.allow_tf32
    cudnn = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    with pytest.MonkeyPatch.context() as patched, Placed(card):
        FakeCuda(card, count).install(patched)
        # What `torch.tensor` makes goes to its device in the open.
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            yield card
            assert not card.order.faults, card.order.faults
        finally:
            torch._C._set_only_lift_cpu_tensors(lifts)
            torch.backends.cuda.matmul.allow_tf32 = rounding
            torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = cudnn
