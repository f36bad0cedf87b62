"""Kernel calls, made at once or written down as a program that plays a step member by member.

A step is the same calls at the same addresses every time. Written down once, it is played without Python in between;
and since members share nothing, it is played for one member after the other, whose numbers stay in the cache. What no
member needs once its step is done, the members share.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gradlab.kernels.compiler import library

KERNELS = (
    *("product", "activate", "activate_back", "batch_norm", "batch_norm_back", "layer_norm", "layer_norm_back"),
    *("batch_sum", "add", "norms", "unsound", "moments", "zeros", "saturated", "dead", "gather", "cross_entropy", "squared_error", "clip", "sgd"),
)
"""As kernels.c numbers them."""

CALL = np.dtype(
    [("kernel", "i8"), ("size", "i8", 9), ("number", "f8", 2), ("at", "u8", 10), ("step", "i8", 10)], align=True
)
"""`struct call` of kernels.c."""

PRECISIONS = {torch.float32: "float32", torch.float64: "float64"}

T = TypeVar("T")


class Unplayable(Exception):
    """A step does something that is no kernel, and cannot be written down."""


@dataclass(frozen=True)
class Shared:
    """An argument that all members share: it has no member axis."""

    tensor: Tensor


Place = Tensor | Shared | None

Calls = np.ndarray[Any, Any]
"""Of dtype `CALL`."""

Members = NDArray[np.int64]


@dataclass
class _Draft:
    """Calls as they are written down, and the tensors that they read and write."""

    calls: list[Calls] = field(default_factory=list)
    kept: list[Place] = field(default_factory=list)
    dtypes: set[torch.dtype] = field(default_factory=set)


_WRITING: ContextVar[_Draft | None] = ContextVar("_WRITING", default=None)


@cache
def kernels(dtype: torch.dtype) -> Callable[..., None] | None:
    """What plays calls on tensors of ``dtype``; None where there is nothing."""
    path = library(PRECISIONS[dtype]) if dtype in PRECISIONS else None
    if path is None:
        return None
    play = ctypes.CDLL(str(path)).play
    play.argtypes = (ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)
    play.restype = None
    return play  # type: ignore[no-any-return]


def serves(x: Tensor) -> bool:
    """Whether there are kernels for tensors like ``x``: it lies on a CPU, and a compiler was at hand."""
    return x.device.type == "cpu" and kernels(x.dtype) is not None


def new(like: Tensor, *shape: int) -> Tensor:
    """An empty tensor (M, ...) for a result; in a program that is written down, one that the members share."""
    if _WRITING.get() is None:
        return like.new_empty(shape)
    return like.new_empty(1, *shape[1:]).expand(shape)


def call(
    kernel: str, like: Tensor, members: int, sizes: Sequence[int], places: Sequence[Place], numbers: Sequence[float] = ()
) -> None:
    """One kernel for each of ``members``, made or written down. ``like`` says in which precision."""
    row = np.zeros(1, CALL)
    row["kernel"] = KERNELS.index(kernel)
    row["size"][0, : len(sizes)] = sizes
    row["number"][0, : len(numbers)] = numbers
    at, step = row["at"][0], row["step"][0]
    for index, place in enumerate(places):
        if isinstance(place, Shared):
            at[index] = place.tensor.data_ptr()
        elif place is not None:
            at[index] = place.data_ptr()
            step[index] = place.stride(0) * place.element_size()
    draft = _WRITING.get()
    if draft is None:
        _play(like.dtype, row, np.arange(members))
    else:
        draft.calls.append(row)
        draft.kept.extend(places)
        draft.dtypes.add(like.dtype)


def _play(dtype: torch.dtype, calls: Calls, members: Members) -> None:
    play = kernels(dtype)
    if play is None:
        raise RuntimeError(f"no kernels for {dtype}: ask `serves` first")
    play(calls.ctypes.data, len(calls), members.ctypes.data, len(members))


class _NothingElse(TorchDispatchMode):
    """Refuses every operation of torch's but those that only allocate, or look at the same memory in another way."""

    HARMLESS = frozenset(
        "view _unsafe_view transpose t permute slice select unsqueeze squeeze expand unbind split detach alias"
        " as_strided empty new_empty new_zeros zeros new_full full lift_fresh empty_like empty_strided _reshape_alias".split()
    )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ARG002
        name = func.overloadpacket.__name__
        if name not in self.HARMLESS:
            raise Unplayable(name)
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Program(Generic[T]):
    """A function written down: `play` does what calling it would, and ``result`` are the tensors that it fills."""

    calls: Calls
    kept: tuple[Place, ...]
    dtype: torch.dtype
    result: T

    def play(self, members: Members) -> T:
        """Plays the calls for ``members`` alone; what belongs to the others stays as it was."""
        _play(self.dtype, self.calls, members)
        return self.result


def write_down(step: Callable[[], T]) -> Program[T] | None:
    """The kernel calls of ``step``, without making any; None where it does anything else to tensors.

    What ``step`` returns must be tensors of its own (M, ...), not such as `new` gives: those the members share.
    """
    draft = _Draft()
    token = _WRITING.set(draft)
    try:
        with _NothingElse():
            result = step()
    except Unplayable:
        return None
    finally:
        _WRITING.reset(token)
    if len(draft.dtypes) != 1:
        return None
    return Program(np.concatenate(draft.calls), tuple(draft.kept), draft.dtypes.pop(), result)
