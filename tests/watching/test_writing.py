"""Tables are written by a process of its own while a training goes on; and layers under a checkpoint are right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gradlab
from gradlab.watching import keeping
from tests.watching.test_watch import batch, loss_of, network, same_draws, watched

__all__ = ["same_draws"]


def trained(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    data = batch()
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(net, data).backward()
        optimizer.step()


def test_tables_are_written_while_it_trains_by_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "SECONDS", 0.0)
    monkeypatch.setattr(keeping, "SHARE", 0)
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with watched(net, optimizer, tmp_path / "out", every=4) as seen:
        trained(net, optimizer, 5)
        writer = seen._open()._writer
        assert writer is not None
        assert writer.wait(60) == 0
        frames = gradlab.load(tmp_path / "out")
        assert frames.steps["step"].tolist() == [0]  # what there was at the first record
        assert json.loads((tmp_path / "out" / "manifest.json").read_text())["state"] == "running"
        trained(net, optimizer, 5)
    assert len(gradlab.load(tmp_path / "out").steps) == 10
    assert not (tmp_path / "out" / ".watched").exists()


def test_what_cannot_be_written_elsewhere_is_written_here_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "SECONDS", 0.0)
    monkeypatch.setattr(keeping, "SHARE", 0)
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with watched(net, optimizer, tmp_path / "out", every=1) as seen:
        monkeypatch.setattr(sys, "executable", "/bin/false")
        trained(net, optimizer, 1)
        writer = seen._open()._writer
        assert writer is not None
        writer.wait(60)
        assert not (tmp_path / "out" / "runs.parquet").exists()
        trained(net, optimizer, 1)
        assert (tmp_path / "out" / "runs.parquet").exists()


def test_nothing_that_writes_tables_is_in_memory_while_it_trains(tmp_path: Path) -> None:
    code = f"""
import sys, torch, gradlab
net = torch.nn.Linear(3, 2)
optimizer = torch.optim.SGD(net.parameters(), 0.1)
with gradlab.watch(net, optimizer, every=1, out={str(tmp_path / "out")!r}, quiet=True, report=False):
    for _ in range(2):
        torch.nn.functional.cross_entropy(net(torch.randn(4, 3)), torch.tensor([0, 1, 0, 1])).backward()
        optimizer.step()
    print(sorted({{"pyarrow", "pandas", "scipy", "matplotlib"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


class Checkpointed(nn.Module):
    """Two layers inside a checkpoint, which runs them without gradients first."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.enter, self.out, self.how = nn.Linear(6, 16), nn.Linear(16, 3), how
        self.inner = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.enter(x))
        x = self.inner(x) if self.how == "none" else checkpoint(self.inner, x, use_reentrant=self.how == "reentrant")
        out: Tensor = self.out(x)
        return out


@pytest.mark.parametrize("how", ["reentrant", "other"])
def test_layers_under_a_checkpoint_have_their_own_gradients(how: str, tmp_path: Path) -> None:
    found = {}
    for kind in ("none", how):
        torch.manual_seed(0)
        net = Checkpointed(kind)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        with watched(net, optimizer, tmp_path / kind, every=1):
            trained(net, optimizer, 2)
        found[kind] = gradlab.load(tmp_path / kind).layers
    one, other = found.values()
    assert one["name"].tolist() == other["name"].tolist()
    signals = [] if how == "reentrant" else ["signal_grad_norm", "act_std"]
    for column in ("grad_norm", "weight_grad_norm", "weight_norm", "update_ratio", *signals):
        assert other[column].tolist() == pytest.approx(one[column].tolist(), nan_ok=True), column
    outside = one["name"].isin(["enter", "out"])
    for column in ("signal_grad_norm", "act_mean"):
        assert other[column][outside].tolist() == pytest.approx(one[column][outside].tolist()), column
