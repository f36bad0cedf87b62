"""Plain gated networks with gradlab's initial parameters: torch's own cells, step by step, so that every h is seen."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gradlab.models import MODELS
from gradlab.nn.initializers import initial_parameters
from gradlab.nn.slots import MATRICES
from gradlab.spec.run import RunSpec
from tests.oracles import Seen

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Layer(nn.Module):
    """One layer's parameters by their roles."""

    def __init__(self, run: RunSpec, layer: int) -> None:
        super().__init__()
        layout = MODELS[run.model.name].layout(run.model, run.facts)
        flat = initial_parameters(layout, [run], DTYPES[run.train.precision])[0]
        self.phi = None
        self.matrices: list[nn.Parameter] = []
        for slot, columns in zip(layout.slots, layout.columns, strict=True):
            if slot.layer == layer:
                parameter = nn.Parameter(flat[columns].view(slot.shape).clone())
                self.register_parameter(slot.role.value, parameter)
                if slot.role in MATRICES:
                    self.matrices.append(parameter)

    def linear(self, x: Tensor) -> Tensor:
        weight, bias = self.get_parameter("weight"), self.get_parameter("bias")
        return torch.nn.functional.linear(x, weight, bias)


def lstm_step(layer: Layer, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """The next h and c, and the gates i, f, o."""
    weight, recurrent, bias = (layer.get_parameter(name) for name in ("weight", "recurrent", "bias"))
    i, f, _, o = (x @ weight.T + state[0] @ recurrent.T + bias).chunk(4, -1)
    moved = torch._VF.lstm_cell(x, state, weight, recurrent, bias, torch.zeros_like(bias))
    return moved, torch.sigmoid(torch.cat((i, f, o), -1))


def gru_step(layer: Layer, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """The next h, and the gates r, z."""
    weight, recurrent, bias = (layer.get_parameter(name) for name in ("weight", "recurrent", "bias"))
    own = layer.get_parameter("recurrent_bias")
    r, z, _ = (x @ weight.T + state[0] @ recurrent.T + bias).chunk(3, -1)
    inner = torch.cat((own.new_zeros(2 * len(own)), own))
    h = torch._VF.gru_cell(x, state[0], weight, recurrent, bias, inner)
    return (h, h), torch.sigmoid(torch.cat((r, z), -1))


STEPS: dict[str, Callable[[Layer, Tensor, tuple[Tensor, Tensor]], tuple[tuple[Tensor, Tensor], Tensor]]] = {
    "lstm": lstm_step,
    "gru": gru_step,
}


class Gated(nn.Module):
    """An LSTM or a GRU with a read-out of the last steps."""

    along = -2

    def __init__(self, run: RunSpec) -> None:
        super().__init__()
        self.run = run
        self.stages = nn.ModuleList(Layer(run, layer) for layer in range(1, run.layers + 1))

    @property
    def layers(self) -> list[Layer]:
        return [stage for stage in self.stages if isinstance(stage, Layer)]

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def forget(self) -> None:
        """Nothing has running statistics."""

    def forward(self, x: Tensor) -> list[Seen]:
        facts = self.run.facts
        if not x.is_floating_point():
            x = torch.nn.functional.one_hot(x, facts.vocabulary).to(self.dtype)
        inputs, seen = list(x.unbind(1)), []
        for stage in self.layers[:-1]:
            state = (x.new_zeros(len(x), self.run.model.width),) * 2
            hs, gates = [], []
            for x_t in inputs:
                state, open_ = STEPS[self.run.model.name](stage, x_t, state)
                hs.append(state[0])
                gates.append(open_)
            seen.append(Seen(hs, None, hs, gates))
            inputs = hs
        top = torch.stack(inputs[-facts.positions :], 1) if facts.positions else inputs[-1]
        output = self.layers[-1].linear(top)
        return [*seen, Seen([output], None, [output])]
