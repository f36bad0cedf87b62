"""A step on a GPU, captured once in a CUDA graph and launched whole from then on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

IDLE = 1 / 8
"""The share of a card's memory that may lie idle when a capture begins."""

WAITED = "called a synchronizing CUDA operation"
"""What torch says of a step that waits for the host, where it is asked to refuse that."""

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True)
class Graph(Generic[T]):
    """A captured function: `play` does what calling it would, and ``result`` are the tensors that it fills."""

    graph: torch.cuda.CUDAGraph
    result: T

    def play(self) -> T:
        """One launch."""
        self.graph.replay()
        return self.result


def capture(steps: Mapping[K, Callable[[], T]], moving: Sequence[Tensor]) -> dict[K, Graph[T] | None]:
    """The kernels that each of ``steps`` launches, which change ``moving`` alone; they are put back: nothing is done.

    None for a step that waits for the host, or allocates outside torch. All share one pool of memory: what a graph
    leaves stays until another is played. Raises `torch.OutOfMemoryError` where there is no room for them.
    """
    before = [tensor.clone() for tensor in moving]
    with torch.cuda.device(moving[0].device):
        # One stream for all: only what was freed on the same stream is taken again from the pool. The piece's own, if
        # there is one: a graph goes on to use the scratch memory that cuBLAS has for the stream of its capture.
        here, pool = torch.cuda.current_stream(), torch.cuda.graph_pool_handle()
        side = torch.cuda.Stream() if here == torch.cuda.default_stream() else here
        try:
            return {key: _captured(step, side, pool) for key, step in steps.items()}
        finally:
            torch.cuda.current_stream().wait_stream(side)
            for tensor, value in zip(moving, before, strict=True):
                tensor.copy_(value)


def _captured(step: Callable[[], T], side: torch.cuda.Stream, pool: Any) -> Graph[T] | None:
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        # A capture that breaks leaves torch's allocator and generators as if it went on: better none is begun. At first
        # libraries set themselves up, and may wait.
        if _waits(step) and _waits(step):
            return None
        _make_room()
        # Not `torch.cuda.graph`, which waits for all that the card is at, of other pieces too.
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin(pool=pool)
        try:
            try:
                result = step()
            finally:
                graph.capture_end()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return None
    return Graph(graph, result)


def _make_room() -> None:
    """Hands memory back that lies idle, if it is much: during a capture torch cannot."""
    whole = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    if torch.cuda.memory_reserved() - torch.cuda.memory_allocated() > IDLE * whole:
        torch.cuda.empty_cache()


def _waits(step: Callable[[], object]) -> bool:
    """Whether the host waits for the GPU in ``step``, which is done, in part where it does."""
    try:
        with refusing_to_wait():
            step()
    except RuntimeError as refusal:
        if WAITED not in str(refusal):
            raise
        return True
    return False


@contextmanager
def refusing_to_wait() -> Iterator[None]:
    """Inside, what makes the host wait for the GPU raises a `RuntimeError` that says `WAITED`."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        # That not all is found is no news: what is left over breaks the capture.
        warnings.filterwarnings("ignore", "Synchronization debug mode", UserWarning)
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(mode)
