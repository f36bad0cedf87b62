"""A training that is watched on a GPU: a fake one (`tests.card`), beside the same on the processor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import gradlab
from tests.card import fake_cards

STEPS, EVERY = 9, 4


def watched(device: str, out: Path, count: Callable[[], int]) -> tuple[Any, list[int]]:
    """What is left of nine steps, of which three are recorded, and how often the host has waited after each."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 3)).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, foreach=False)
    x, y, waits = torch.randn(20, 6).to(device), torch.randint(3, (20,)).to(device), list[int]()
    with gradlab.watch(net, optimizer, every=EVERY, out=out, quiet=True, report=False) as seen:
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.1, foreach=False)
            optimizer.step()
            seen.step(loss)
            waits.append(count())
    return gradlab.load(out), waits


def test_a_card_is_waited_for_at_records_alone(tmp_path: Path) -> None:
    wanted, _ = watched("cpu", tmp_path / "cpu", int)
    with fake_cards() as card:
        found, waits = watched("cuda:0", tmp_path / "card", lambda: card.waits)
    waited = [t for t in range(1, STEPS) if waits[t] > waits[t - 1]]
    assert waited == [t for t in range(1, STEPS) if t % EVERY == 0], waits
    for table in ("steps", "layers"):
        mine, theirs = (getattr(one, table).select_dtypes("number") for one in (found, wanted))
        assert list(mine) == list(theirs)
        np.testing.assert_allclose(mine.to_numpy(float), theirs.to_numpy(float), rtol=1e-5, atol=1e-7)
