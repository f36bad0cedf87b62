"""Fused recurrent modules seen through time: delta of every step equals that of a network written cell by cell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import gradlab
from gradlab.watching.unrolled import _top, deltas, sequence

torch.set_num_threads(1)
STEPS = 9


class Fused(nn.Module):
    def __init__(self, recurrent: nn.RNNBase, read: Callable[[Any], Tensor], units: int) -> None:
        super().__init__()
        self.recurrent, self.read, self.out = recurrent, read, nn.Linear(units, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.read(self.recurrent(x)))
        return out


def by_hand(module: nn.RNNBase, x: Tensor, read: Callable[[Any], Tensor], out: nn.Linear, y: Tensor) -> list[float]:
    """||dloss/dh_t|| of the top layer of a loop over torch's cells, with the same weights."""
    kinds: dict[str, Any] = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell, "RNN_TANH": nn.RNNCell, "RNN_RELU": nn.RNNCell}
    cells = []
    for layer in range(module.num_layers):
        more = {"nonlinearity": "relu"} if module.mode == "RNN_RELU" else {}
        size = module.input_size if layer == 0 else module.hidden_size
        cell = kinds[module.mode](size, module.hidden_size, **more).to(x.dtype)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            getattr(cell, name).data.copy_(getattr(module, f"{name}_l{layer}").detach())
        cells.append(cell)
    gated = module.mode == "LSTM"
    hidden = [torch.zeros(len(x), module.hidden_size, dtype=x.dtype) for _ in cells]
    memory = [torch.zeros_like(one) for one in hidden]
    tops: list[Tensor] = []
    for step in x.unbind(1):
        below = step
        for layer, cell in enumerate(cells):
            if gated:
                hidden[layer], memory[layer] = cell(below, (hidden[layer], memory[layer]))
            else:
                hidden[layer] = cell(below, hidden[layer])
            below = hidden[layer]
        below.retain_grad()
        tops.append(below)
    final = torch.stack(hidden)
    F.cross_entropy(out(read((torch.stack(tops, 1), (final, torch.stack(memory)) if gated else final))), y).backward()
    return [0.0 if top.grad is None else float(top.grad.norm()) for top in tops]


def last(result: Any) -> Tensor:
    found: Tensor = result[0][:, -1]
    return found


def mean(result: Any) -> Tensor:
    found: Tensor = result[0].mean(1)
    return found


def final(result: Any) -> Tensor:
    """The final states, and of an LSTM what its memory holds."""
    ends = result[1]
    found: Tensor = ends[0][-1] + ends[1][-1] if isinstance(ends, tuple) else ends[-1]
    return found


@pytest.mark.parametrize("read", [last, mean, final])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(
    ("kind", "more"), [(nn.LSTM, {}), (nn.GRU, {}), (nn.RNN, {}), (nn.RNN, {"nonlinearity": "relu"})]
)
def test_delta_of_each_step_is_that_of_cells(kind: Any, more: Any, layers: int, read: Any) -> None:
    torch.manual_seed(0)
    module = kind(5, 8, num_layers=layers, batch_first=True, **more).double()
    net = Fused(module, read, 8).double()
    x, y = torch.randn(16, STEPS, 5, dtype=torch.float64), torch.randint(0, 3, (16,))
    frame = gradlab.measure(net, F.cross_entropy, (x, y))
    along = frame[frame["axis"] == "time"]
    assert list(along["layer"]) == list(range(1, STEPS + 1))
    assert list(along["signal_grad_norm"]) == pytest.approx(by_hand(module, x, read, net.out, y), rel=1e-6)
    assert set(along["reads"]) == {float(read is mean)}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_both_directions_time_first_projections_and_dropout(kind: Any) -> None:
    """With the random numbers of the first pass the second one makes what the first one made."""
    torch.manual_seed(0)
    more = {"proj_size": 4} if kind is nn.LSTM else {}
    module = kind(5, 8, num_layers=3, bidirectional=True, dropout=0.5, **more)
    x, state = torch.randn(STEPS, 16, 5), torch.get_rng_state()
    output = module(x)
    call = sequence(module, (x,), output, state)
    assert call is not None
    call.came[call.nodes[0]] = torch.ones_like(output[0])
    whole, read, entries = deltas(call)
    assert len(whole) == STEPS
    assert entries == read[0] == 16 * (4 if more else 8)
    assert torch.allclose(torch.stack(_top(call)[0]), output[0][..., : output[0].shape[-1] // 2], atol=1e-6)


def test_an_lstm_that_forgets_everything_is_seen(tmp_path: Path) -> None:
    """Forget bias 0 and 200 steps: of what the last step hears nothing is left in the first."""
    torch.manual_seed(0)
    net = Fused(nn.LSTM(5, 16, batch_first=True), last, 16)
    x, y = torch.randn(32, 200, 5), torch.randint(0, 3, (32,))
    frame = gradlab.measure(net, F.cross_entropy, (x, y))
    along = frame[frame["axis"] == "time"]["signal_grad_norm"].to_numpy()
    assert along[0] < 1e-20 * along[-1]
    assert "vanishing" in [verdict.name for verdict in gradlab.verdict(frame)]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with gradlab.watch(net, optimizer, out=tmp_path / "out", quiet=True, report=False) as seen:
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        seen.step(loss)
    frames = gradlab.load(tmp_path / "out")
    assert "vanishing" in frames.runs["verdict"][0]
    rows = frames.layers[frames.layers["axis"] == "time"]
    assert rows["signal_grad_norm"].tolist() == pytest.approx(along.tolist(), rel=1e-4)
