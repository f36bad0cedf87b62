"""How many kernels a captured step of the reference grid is, counted on the fake card of the tests: no GPU is needed.

Run as ``python -m benchmarks.launches``. Operations of torch that only look at memory in another way are none.
"""

from __future__ import annotations

from typing import cast

import torch

from benchmarks.settings import BATCH, CLIPS, NORMS, STEPS, WIDTH
from gradlab.data.facts import described
from gradlab.data.loaders import load
from gradlab.engine.cohort import prepare
from gradlab.engine.launches import Captured
from gradlab.engine.playing import rehearse
from gradlab.spec.named import Value
from tests.card import FakeGraph, fake_cards

DEPTH = 10

VIEWS = {
    *("view", "_unsafe_view", "_reshape_alias", "as_strided", "alias", "detach", "transpose", "t", "permute", "slice"),
    *("select", "unsqueeze", "squeeze", "expand", "unbind", "split", "empty", "new_empty", "empty_like", "lift_fresh"),
}
"""Operations that launch nothing."""


def launches(norm: str) -> dict[bool, int]:
    """Kernels of a step of twelve networks of depth 10, recorded or not."""
    settings: dict[str, Value] = {"model.depth": DEPTH, "model.width": WIDTH, "model.norm": norm}
    more: dict[str, Value] = {"train.steps": STEPS, "data.batch_size": BATCH}
    runs = [described({**settings, **more, "clip.mode": clip, "seed": seed}) for seed in range(4) for clip in CLIPS]
    runs.sort(key=lambda run: run.clip.mode)
    with fake_cards():
        rehearsed = rehearse(prepare(runs, load(runs[0].data), torch.device("cuda:0")))
    found: dict[bool, int] = {}
    for record, step in rehearsed.items():
        if not isinstance(step, Captured):
            raise SystemExit(f"norm {norm}: the step was not captured")
        graph = cast(FakeGraph, step.graph.graph)
        found[record] = sum(call.func.overloadpacket.__name__ not in VIEWS for call in graph.calls)
    return found


def main() -> None:
    """A line for each norm."""
    print("norm    a step  recorded")
    for norm in NORMS:
        found = launches(norm)
        print(f"{norm:6} {found[False]:7} {found[True]:9}")


if __name__ == "__main__":
    main()
