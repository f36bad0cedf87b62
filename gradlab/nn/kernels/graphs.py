"""A step on a GPU, captured once in a CUDA graph and launched whole from then on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from gradlab.nn.kernels.program import Members

WARM_UP = 3
"""Steps before a capture, in which libraries set themselves up; the capture would forbid it."""

T = TypeVar("T")


@dataclass(frozen=True)
class Graph(Generic[T]):
    """A captured function: `play` does what calling it would, and ``result`` are the tensors that it fills."""

    graph: torch.cuda.CUDAGraph
    result: T

    def play(self, members: Members) -> T:
        """Launches the graph, for all members: a GPU gains nothing from leaving some out."""
        del members
        self.graph.replay()
        return self.result


def capture(step: Callable[[], T], moving: Sequence[Tensor]) -> Graph[T] | None:
    """The kernels that ``step`` launches, which changes ``moving`` alone; they are put back, so that nothing is done.

    None where the step cannot be captured: it then waits for the host, or allocates outside torch.
    """
    before = [tensor.clone() for tensor in moving]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            result = step()
    except RuntimeError:
        return None
    finally:
        for tensor, value in zip(moving, before, strict=True):
            tensor.copy_(value)
    return Graph(graph, result)
