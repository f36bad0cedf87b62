"""The fake card's order of streams: what would be a race on a real card is refused, whatever the numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from gradlab.nn.kernels.graphs import capture
from tests.card import fake_cards

PLACE = torch.device("cuda:0")
RACE = "which this one has not waited for"


@pytest.mark.parametrize(
    "use",
    [lambda x: x + 1, lambda x: x.add_(1), lambda x: x.view(2, 3).sum(), lambda x: x.tolist(), lambda x: x[2].item()],
    ids=["read", "written", "by a view", "sent", "looked at"],
)
def test_what_one_stream_wrote_another_may_not_touch_before_it_has_waited(use: Callable[[Tensor], object]) -> None:
    with fake_cards():
        one, other = torch.cuda.Stream(), torch.cuda.Stream()
        with torch.cuda.stream(one):
            x = torch.ones(6, device=PLACE) * 2
        with torch.cuda.stream(other):
            with pytest.raises(RuntimeError, match=RACE):
                use(x)
            other.wait_stream(one)
            use(x)
        one.wait_stream(other)


def test_what_one_stream_reads_another_may_not_overwrite() -> None:
    with fake_cards():
        one, other = torch.cuda.Stream(), torch.cuda.Stream()
        x = torch.ones(6, device=PLACE)
        for stream in (one, other):
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                y = x * 2
        with torch.cuda.stream(one), pytest.raises(RuntimeError, match=RACE):
            x.zero_()
        with torch.cuda.stream(other):
            y.tolist()  # the host has waited for it: what it asks for from here on comes after
        with torch.cuda.stream(one):
            x.zero_()


def test_memory_is_not_given_away_while_another_stream_is_at_it() -> None:
    def freed() -> None:
        x = torch.ones(6, device=PLACE)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            x.mul_(2)

    with pytest.raises(AssertionError, match="memory was freed"), fake_cards():
        freed()


def test_graphs_that_are_played_side_by_side_are_not_captured_on_one_stream() -> None:
    """Each goes on to use the scratch memory that cuBLAS has for the stream of its capture."""
    with fake_cards():
        one, other = torch.cuda.Stream(), torch.cuda.Stream()
        with torch.cuda.stream(one):
            kept = [torch.ones(3, 3, device=PLACE) for _ in range(2)]
            first, second = (capture({0: partial(torch.matmul, x, x)}, [x])[0] for x in kept)
        assert first is not None
        assert second is not None
        other.wait_stream(one)
        with torch.cuda.stream(one):
            first.play()
        with torch.cuda.stream(other), pytest.raises(RuntimeError, match=RACE):
            second.play()
