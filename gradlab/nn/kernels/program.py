"""Kernel calls written down as a program that plays a step member by member.

A step is the same calls at the same addresses every time. Written down once, it is played without Python in between;
and since members share nothing, it is played for one member after the other, whose numbers stay in the cache. What no
member needs once its step is done, the members share.
"""

from __future__ import annotations

import ctypes
from bisect import insort
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gradlab.nn.kernels.calls import (
    PLACES,
    WRITING,
    Bools,
    Draft,
    Extent,
    Members,
    Shared,
    UnplayableError,
    extent_of,
    player,
)

T = TypeVar("T")

_LINE = 64
"""Bytes of a line of the cache, at whose start every room begins."""


@dataclass(frozen=True)
class Turning:
    """A tensor as it is ``now``, and as it is at ``each`` step: what there is a row of for every one."""

    now: Tensor
    each: Tensor


@dataclass(frozen=True)
class Blocks:
    """What plays steps on a GPU, a block a member: its kernels by name, and a launch, given as `play_steps`."""

    kernels: frozenset[str]
    play: Callable[[Uploaded, Uploaded, Bools, int], None]


@dataclass(frozen=True)
class Uploaded:
    """Calls that lie on a GPU, to be played for each of so many ``members`` by the ``blocks``."""

    blocks: Blocks
    rows: Tensor
    count: int
    members: int


class _Draft(Draft):
    """What becomes of the calls once they all are written down."""

    @property
    def at(self) -> NDArray[np.int64]:
        """(calls, PLACES): addresses."""
        return np.array([row.at for row in self.rows])

    def folded(self) -> tuple[int, list[int]]:
        """How the rooms lie in one piece of memory: its size in bytes, and the place of each of ``rooms``.

        A room is in use from the first call that names it to the last; what is in use at no same call may share its
        place, so that a step's passing results stay in the cache.
        """
        found = _found(self.rooms, self.at)
        call, named = np.nonzero(found >= 0)[0], found[found >= 0]
        used = dict(zip(named[::-1].tolist(), call[::-1].tolist(), strict=True))  # the first of its calls stays
        until = dict(zip(named.tolist(), call.tolist(), strict=True))
        places, size = [0] * len(self.rooms), 0
        taken: list[tuple[int, int, int]] = []
        for room, first in sorted(used.items(), key=lambda one: (one[1], until[one[0]])):
            # What is in use at the same time, in the order of its place: the room takes the first gap that holds it.
            taken = [other for other in taken if other[2] >= first]
            bytes_, place = -(-self.rooms[room].size // _LINE) * _LINE, 0
            for start, end, _ in taken:
                if start - place >= bytes_:
                    break
                place = max(place, end)
            places[room] = place
            insort(taken, (place, place + bytes_, until[room]))
            size = max(size, place + bytes_)
        return size, places

    def outside(self) -> list[Tensor]:
        """What the calls name that is no room: rooms are done with when all calls are moved."""
        named = [place.tensor if isinstance(place, Shared) else place for place in self.kept if place is not None]
        found = _found(self.rooms, np.array([tensor.data_ptr() for tensor in named], dtype=np.int64))
        return [tensor for tensor, room in zip(named, found.tolist(), strict=True) if room < 0]

    def moved(
        self, places: Sequence[int], turning: Sequence[Turning], slots: Sequence[Turning], apart: int = 0
    ) -> bytes:
        """The calls, with the rooms at these addresses, and so many bytes apart from member to member.

        What is ``turning`` lies where the step's number says, and a result in one of its ``slots``.
        """
        at, step, more = self.at, np.array([row.step for row in self.rows]), (*turning, *slots)
        known = [*self.rooms, *(extent_of(one.now) for one in more)]
        found = _found(known, at)
        # What is not found is the last one, which is moved by nothing.
        starts = [*places, *(one.each.data_ptr() for one in more)]
        by = np.array([there - one.start for there, one in zip(starts, known, strict=True)] + [0])
        turns = [0] * len(places) + [one.each.stride(0) * one.each.element_size() for one in more] + [0]
        calls = np.array([(row.kernel, *row.sizes) for row in self.rows])
        numbers = np.array([row.numbers for row in self.rows]).view(np.int64)
        step[(found >= 0) & (found < len(places))] = apart
        counted = (found >= len(places) + len(turning)) @ (1 << np.arange(PLACES))
        return np.hstack([calls, numbers, at + by[found], step, np.array(turns)[found], counted[:, None]]).tobytes()


def _found(known: Sequence[Extent], at: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which of what is known each address lies in; -1 where in none."""
    if not known:
        return np.full(at.shape, -1)
    starts = np.array([one.start for one in known])
    order = np.argsort(starts)
    ends = (starts + np.array([one.size for one in known]))[order]
    index = np.searchsorted(starts[order], at, side="right") - 1
    return np.where((index >= 0) & (at < ends[index]), order[index], -1)


class _NothingElse(TorchDispatchMode):
    """Refuses every operation of torch's but those that only allocate, or look at the same memory in another way."""

    HARMLESS = frozenset(
        {
            *(
                "empty",
                "new_empty",
                "empty_like",
                "empty_strided",
                "zeros",
                "new_zeros",
                "full",
                "new_full",
                "lift_fresh",
            ),
            *("view", "_unsafe_view", "_reshape_alias", "as_strided", "alias", "detach", "transpose", "t", "permute"),
            *("lift_fresh", "slice", "select", "unsqueeze", "squeeze", "expand", "unbind", "split"),
        }
    )

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch asks; yes would wrap each call, and import its compiler for a second."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        kwargs = kwargs or {}
        # A constant on its way to a GPU.
        sent = name == "_to_copy" and not args[0].is_cuda and torch.device(kwargs.get("device") or "cpu").type == "cuda"
        if name not in self.HARMLESS and not sent:
            raise UnplayableError(name)
        return func(*args, **kwargs)


@dataclass(frozen=True)
class Program(Generic[T]):
    """A function written down: `play` does what calling it would, and ``result`` are the tensors that it fills.

    ``parts`` are the calls, once for each thread, with rooms of its own for what the members share. ``slots``: of each
    result that was named to `write_down`, where it is left by the first play of `play_steps`, by the second, ... What
    is ``uploaded`` is played by `play_steps` alone.
    """

    parts: tuple[bytes, ...]
    count: int
    kept: tuple[Tensor, ...]
    dtype: torch.dtype
    result: T
    slots: tuple[Tensor, ...] = ()
    uploaded: Uploaded | None = None

    def play(self, members: Members) -> T:
        """Plays the calls for ``members`` alone; what belongs to the others stays as it was."""
        once = player(self.dtype).play
        _share_out(lambda part, share: once(self.parts[part], self.count, share), members, len(self.parts))
        return self.result


def play_steps(programs: tuple[Program[T], Program[T]], which: Bools, first: int, members: Members) -> None:
    """Plays the steps from ``first`` on for ``members``, step i by the second program if ``which[i]``, else the first.

    All of them for one member after the other, so that its numbers stay in the cache from step to step; on a GPU for
    all members at once, whoever is named.
    """
    one, other = programs
    if one.uploaded is not None and other.uploaded is not None:
        one.uploaded.blocks.play(one.uploaded, other.uploaded, which, first)
        return
    counts, chosen, steps = np.array([one.count, other.count]), which.astype(np.int64), player(one.dtype).steps

    def play(part: int, share: Members) -> None:
        calls = (ctypes.c_char_p * 2)(one.parts[part], other.parts[part])
        at = (calls, counts.ctypes.data, chosen.ctypes.data)
        steps(*at, first, len(chosen), share.ctypes.data, len(share))

    _share_out(play, members, len(one.parts))


def _share_out(play: Callable[[int, Members], None], members: Members, threads: int) -> None:
    """Calls ``play`` in every thread, with its number and its share of the members."""
    if threads == 1:
        play(0, members)
    else:
        list(_pool(threads).map(play, range(threads), np.array_split(members, threads)))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def write_down(
    step: Callable[[], T],
    threads: int = 1,
    passing: Sequence[Tensor] = (),
    turning: Sequence[Turning] = (),
    results: Callable[[T], Sequence[Tensor]] = lambda _: (),
    slots: int = 1,
    blocks: Blocks | None = None,
) -> Program[T] | None:
    """The kernel calls of ``step``, without making any; None where it does anything else to tensors.

    ``step`` must not look at numbers, which are not there yet. What it returns must be tensors of its own (M, ...), not
    such as `new` gives: those the members share. They share what is ``passing``, too, (M, P) each, rows of which
    ``step`` fills before it reads them: the tensors themselves stay as they are. ``threads`` play it, each for some of
    the members. What is ``turning`` is read where the number of a step says, and of the ``results`` there are as many
    ``slots``: for `play_steps`, which fills one slot a play. The ``blocks`` of a GPU play all members at the same time:
    each has a place of its own for what members share elsewhere.
    """
    draft = _Draft(None if blocks is None else blocks.kernels, rooms=[extent_of(tensor[0]) for tensor in passing])
    token = WRITING.set(draft)
    try:
        with _NothingElse():  # type: ignore[no-untyped-call]
            result = step()
    except UnplayableError:
        return None
    finally:
        WRITING.reset(token)
    if len(draft.dtypes) != 1:
        return None
    size, places = draft.folded()
    dtype = draft.dtypes.pop()
    apart, owners = (0, 1) if blocks is None else (size, draft.members)
    arenas = [torch.empty(owners * size // dtype.itemsize, dtype=dtype, device=draft.device) for _ in range(threads)]
    filled = [Turning(one, one.expand(slots, *one.shape).clone()) for one in results(result)]
    parts = tuple(
        draft.moved([arena.data_ptr() + place for place in places], turning, filled, apart) for arena in arenas
    )
    kept = (*draft.outside(), *arenas, *(one.each for one in turning))
    left, uploaded = tuple(one.each for one in filled), None
    if blocks is not None:
        rows = torch.frombuffer(bytearray(parts[0]), dtype=torch.uint8).to(draft.device)
        parts, uploaded = (), Uploaded(blocks, rows, len(draft.rows), draft.members)
    return Program(parts, len(draft.rows), kept, dtype, result, left, uploaded)
