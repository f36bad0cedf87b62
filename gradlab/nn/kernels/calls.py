"""Kernel calls: made at once, or noted where a step is written down (`program`)."""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.nn.kernels.compiler import library

KERNELS = (
    *("product", "activate", "activate_back", "batch_norm", "batch_norm_back", "layer_norm", "layer_norm_back"),
    *("batch_sum", "add", "norms", "unsound", "spread", "distances", "gradients"),
    *("within", "dead", "gather", "gather_tokens", "copy", "look_up", "look_up_back"),
    *("attend", "attend_back", "attention_spread", "add_to_each", "mean_of_places", "mean_of_places_back"),
    *("cross_entropy", "squared_error", "clip", "sgd", "adam", "rmsprop", "adagrad"),
    *("convolve", "convolve_filters", "block_mean", "block_mean_back", "affine", "affine_back"),
    *("lstm", "lstm_back", "gru", "gru_back", "shut"),
    *("align_dot", "align_dot_back", "align_additive", "align_additive_back", "entropy", "dropout"),
    *("group_norm", "group_norm_back", "directed", "directed_back"),
    *("columns_by_two", "squash", "squash_back", "lengths", "lengths_back"),
    *("vote", "vote_back", "route", "route_back", "margins", "sound_norm"),
)
"""As source/player.c numbers them."""

SIZES, NUMBERS, PLACES = 9, 2, 12
_CALL = struct.Struct(f"={1 + SIZES}q{NUMBERS}d{PLACES}Q{2 * PLACES + 1}q")
"""`struct call` of source/player.c: kernel, sizes, numbers, addresses, bytes to the next member and step, counted."""

PRECISIONS = {torch.float32: "float32", torch.float64: "float64"}


class UnplayableError(Exception):
    """A step does something that is no kernel, and cannot be written down."""


@dataclass(frozen=True)
class Shared:
    """An argument that all members share: it has no member axis."""

    tensor: Tensor


Place = Tensor | Shared | None

Members = NDArray[np.int64]

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Row:
    """One call."""

    kernel: int
    sizes: tuple[int, ...]
    numbers: tuple[float, ...]
    at: tuple[int, ...]
    step: tuple[int, ...]

    @property
    def packed(self) -> bytes:
        """As the player reads it."""
        return _CALL.pack(self.kernel, *self.sizes, *self.numbers, *self.at, *self.step, *(0,) * (PLACES + 1))


@dataclass(frozen=True)
class Extent:
    """Memory of a tensor: where it begins, and how many bytes it has."""

    start: int
    size: int


def extent_of(tensor: Tensor) -> Extent:
    """Of a tensor without gaps."""
    return Extent(tensor.data_ptr(), tensor.nbytes)


@dataclass
class Draft:
    """Calls as they are written down, the tensors that they read and write, and those that the members share.

    ``names`` are the kernels that the blocks of a GPU have, where it is for them.
    """

    names: frozenset[str] | None = None
    members: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rows: list[Row] = field(default_factory=list)
    kept: list[Place] = field(default_factory=list)
    rooms: list[Extent] = field(default_factory=list)
    dtypes: set[torch.dtype] = field(default_factory=set)


WRITING: ContextVar[Draft | None] = ContextVar("WRITING", default=None)
_ASIDE: ContextVar[bool] = ContextVar("_ASIDE", default=False)


@dataclass(frozen=True)
class Player:
    """What plays calls once, and what plays many steps of them."""

    once: Callable[..., None]
    steps: Callable[..., None]

    def play(self, rows: bytes, count: int, members: Members) -> None:
        """Plays so many calls for ``members``."""
        self.once(rows, count, members.ctypes.data, len(members))


@cache
def kernels(dtype: torch.dtype) -> Player | None:
    """What plays calls on tensors of ``dtype``; None where there is nothing."""
    path = library(PRECISIONS[dtype]) if dtype in PRECISIONS else None
    if path is None:
        return None
    found, number, place = ctypes.CDLL(str(path)), ctypes.c_int64, ctypes.c_void_p
    found.play.argtypes = (ctypes.c_char_p, number, place, number)
    found.play_steps.argtypes = (ctypes.POINTER(ctypes.c_char_p), place, place, number, number, place, number)
    found.play.restype = found.play_steps.restype = None
    return Player(found.play, found.play_steps)


def serves(x: Tensor) -> bool:
    """Whether there are kernels for tensors like ``x``: it lies on a CPU, and a compiler was at hand.

    Of tensors on a GPU while a step is written down for its blocks.
    """
    if x.is_cuda:
        draft = WRITING.get()
        return draft is not None and draft.names is not None and x.dtype in PRECISIONS and not _ASIDE.get()
    return x.device.type == "cpu" and not _ASIDE.get() and kernels(x.dtype) is not None


@contextmanager
def aside() -> Iterator[None]:
    """Inside, no kernel serves: everything is torch's, and autograd can follow it."""
    token = _ASIDE.set(True)
    try:
        yield
    finally:
        _ASIDE.reset(token)


def new(like: Tensor, *shape: int) -> Tensor:
    """An empty tensor (M, ...) for a result; where a program is written down, one that the members share."""
    draft = WRITING.get()
    if draft is None:
        return like.new_empty(shape)
    strides = [math.prod(shape[axis + 1 :]) for axis in range(1, len(shape))]
    return _room(draft, like, shape, (0, *strides), math.prod(shape[1:]))


def scratch(like: Tensor, size: int) -> Shared:
    """Room for ``size`` numbers that one kernel needs while it works on a member."""
    draft = WRITING.get()
    return Shared(like.new_empty(size) if draft is None else _room(draft, like, (size,), (1,), size))


def _room(draft: Draft, like: Tensor, shape: Sequence[int], strides: Sequence[int], size: int) -> Tensor:
    # Nobody need hear of what only allocates.
    with nullcontext() if like.is_cuda else torch._C._DisableTorchDispatch():
        room = torch.empty_strided(shape, strides, dtype=like.dtype, device=like.device)
    draft.rooms.append(Extent(room.data_ptr(), size * room.element_size()))
    draft.kept.append(room)
    return room


def call(
    kernel: str,
    like: Tensor,
    members: int,
    sizes: Sequence[int],
    places: Sequence[Place],
    numbers: Sequence[float] = (),
) -> None:
    """One kernel for each of ``members``, made or written down. ``like`` says in which precision."""
    at, step = [0] * PLACES, [0] * PLACES
    for index, place in enumerate(places):
        if isinstance(place, Shared):
            at[index] = place.tensor.data_ptr()
        elif place is not None:
            at[index] = place.data_ptr()
            step[index] = place.stride(0) * place.element_size()
    row = Row(
        KERNELS.index(kernel),
        (*sizes, *[0] * (SIZES - len(sizes))),
        (*numbers, *[0.0] * (NUMBERS - len(numbers))),
        tuple(at),
        tuple(step),
    )
    draft = WRITING.get()
    if draft is None:
        player(like.dtype).play(row.packed, 1, _all(members))
    elif draft.names is not None and (kernel not in draft.names or max(row.sizes) >= 2**31):
        raise UnplayableError(kernel)
    else:
        draft.members, draft.device = members, like.device
        draft.rows.append(row)
        draft.kept.extend(places)
        draft.dtypes.add(like.dtype)


def player(dtype: torch.dtype) -> Player:
    """As `kernels`. Raises `RuntimeError` where there is nothing."""
    found = kernels(dtype)
    if found is None:
        raise RuntimeError(f"no kernels for {dtype}: ask `serves` first")
    return found


@cache
def _all(members: int) -> Members:
    return np.arange(members)
