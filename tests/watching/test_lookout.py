"""The first number that is not finite is named with its module, its operator, its step and its batch."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradlab
from gradlab.diagnose.rules import judge
from gradlab.diagnose.tables import histories
from gradlab.store.tables import load_tables
from gradlab.watching.notfinite import Found

torch.set_num_threads(1)


class Odd(nn.Module):
    """A layer that breaks when it is told to, there or on the way back."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.on = how, False
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        if self.on and self.how == "forward":
            return torch.log(x - x)
        if self.on and self.how == "nan":
            return x * 0 / (x * 0)
        if self.on and self.how == "backward":
            return torch.sqrt((x - x).abs()) + x
        return x


class Net(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.first, self.odd, self.drop, self.last = nn.Linear(6, 8), Odd(how), nn.Dropout(0.5), nn.Linear(8, 3)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        hidden = self.drop(self.odd(torch.tanh(self.first(x))))
        if mask is not None:
            # As attention does: infinite on purpose, and no fault.
            hidden = hidden + hidden.masked_fill(mask, -math.inf).softmax(-1)
        out: Tensor = self.last(hidden)
        return out


def trained(how: str, out: Path, **odd: Any) -> Found | None:
    """Two ways back a step; at step 2, in its second batch, something breaks."""
    torch.manual_seed(0)
    net = Net(how)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    said: list[str] = []
    with gradlab.watch(net, optimizer, every=50, out=out, quiet=True, report=False) as seen:
        for turn in range(8):
            inputs, classes = torch.randn(16, 6), torch.randint(3, (16,))
            net.odd.on = turn == 5
            if turn == 5 and how == "inputs":
                inputs[7, 2] = math.nan
            if turn == 5 and how == "weights":
                with torch.no_grad():
                    net.odd.inner.weight[0, 0] = math.inf
            output = net(inputs, torch.rand(16, 8) < 0.3)
            loss = F.cross_entropy(output, classes)
            if how == "targets":
                wanted = F.one_hot(classes, 3).float()
                wanted[7, 2] = math.nan if turn == 5 else 0.0
                loss = F.mse_loss(output, wanted)
            if turn == 5 and how == "loss":
                loss = loss + torch.log(output.sum() * 0)
            if turn == 5 and how == "loss backward":
                loss = loss + torch.sqrt((output * 0).abs().sum())
            (loss / 2).backward()
            if turn % 2:
                optimizer.step()
                optimizer.zero_grad()
                seen.step(loss)
    del said
    (run,) = seen._runs
    if run.lookout.found is not None:
        kept = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["not_finite"]
        assert next(iter(kept.values()))["sentence"] == run.lookout.found.sentence
    return run.lookout.found


@pytest.mark.parametrize(
    ("how", "place", "module", "operator", "cause"),
    [
        ("forward", "forward", "odd", "log", "infinite_slope"),
        ("nan", "forward", "odd", "div", "infinite_slope"),
        ("backward", "backward", "odd", "SqrtBackward0", "infinite_slope"),
        ("inputs", "inputs", None, None, "input_not_finite"),
        ("targets", "targets", None, None, "labels"),
        ("weights", "weights", "odd.inner.weight", None, "learning_rate_high"),
        ("loss", "loss", None, "LogBackward0", "infinite_slope"),
    ],
)
def test_where_it_was_made(
    how: str, place: str, module: str | None, operator: str | None, cause: str, tmp_path: Path
) -> None:
    found = trained(how, tmp_path / "out")
    assert found is not None
    assert (found.place, found.module, found.operator) == (place, module, operator)
    assert (found.step, found.batch) == (2, 5)
    tables = load_tables(tmp_path / "out")
    (history,) = histories(tables["runs"], tables["steps"], tables["layers"])
    (verdict,) = judge(history)
    assert (verdict.name, verdict.cause and verdict.cause.name) == ("diverged", cause)


def test_on_the_way_back_through_the_loss(tmp_path: Path) -> None:
    found = trained("loss backward", tmp_path / "out")
    assert found is not None
    assert found.place == "loss"
    assert "SqrtBackward0" in str(found.operator)


def test_inputs_say_which_sample(tmp_path: Path) -> None:
    found = trained("inputs", tmp_path / "out")
    assert found is not None
    assert "1 of 96 numbers are NaN, first in sample 7 of the batch" in found.sentence


def test_infinities_of_a_mask_are_no_find(tmp_path: Path) -> None:
    assert trained("nothing", tmp_path / "out") is None


def test_a_second_pass_leaves_the_first_one_s_way_back_alone(tmp_path: Path) -> None:
    """Running statistics are wanted on the way back: who looks for a NaN before it must not touch them."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with gradlab.watch(net, optimizer, out=tmp_path / "out", quiet=True, report=False) as seen:
        loss = net(torch.randn(16, 6)).sum() * math.inf
        statistics = net[1].get_buffer("running_mean").clone()
        loss.backward()
        optimizer.step()
        seen.step(loss)
    assert torch.equal(net[1].get_buffer("running_mean"), statistics)
    found = seen._runs[0].lookout.found
    assert found is not None
    assert found.place == "loss"


def test_a_network_that_bears_no_second_pass_trains_on(tmp_path: Path) -> None:
    class Once(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.left = nn.Linear(6, 3), 1

        def forward(self, x: Tensor) -> Tensor:
            if not self.left:
                raise RuntimeError("only once")
            self.left -= 1
            out: Tensor = self.inner(x) * math.inf
            return out

    net = Once()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with gradlab.watch(net, optimizer, out=tmp_path / "out", quiet=True, report=False) as seen:
        loss = net(torch.randn(16, 6)).sum()
        loss.backward()
        optimizer.step()
        seen.step(loss)
    found = seen._runs[0].lookout.found
    assert found is not None
    assert "the loss; a second pass to find where it was made broke: only once" in found.sentence
