"""Independent references: one plain torch.nn network at a time, trained with torch.optim, every column measured anew.

Written from the definitions of the columns alone. What is taken from gradlab are the data, the order of the batches
and the initial weights, each tested by itself. Rows have the shape of the tables: a dict a row, null is None.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlab.data.batches import batches
from gradlab.data.dataset import Dataset
from gradlab.models import MODELS
from gradlab.nn.initializers import initial_parameters
from gradlab.nn.slots import Role
from gradlab.spec.choices import ACTIVATIONS
from gradlab.spec.choices import MODELS as NAMED_MODELS
from gradlab.spec.run import RunSpec, build
from tests.descents import optimizer
from tests.members import Member, Row, Settings, content
from tests.schedulers import Paced

# The network.

PHI: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "hardtanh": nn.Hardtanh,
    "linear": nn.Identity,
}


def activation(name: str, slope: float) -> nn.Module:
    """The torch.nn module of an activation."""
    if name == "leaky_relu":
        return nn.LeakyReLU(slope)
    return nn.PReLU(init=slope) if name == "prelu" else PHI[name]()


def normalization(name: str, width: int) -> nn.Module | None:
    """The torch.nn module of a norm; None for `none`."""
    kinds: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "rms": nn.RMSNorm}
    return kinds[name](width) if name in kinds else None


class Stage(nn.Module):
    """The parameters of one layer."""

    def __init__(self, fan_in: int, fan_out: int, run: RunSpec, *, hidden: bool, recurrent: bool = False) -> None:
        super().__init__()
        model = run.model
        self.linear = nn.Linear(fan_in, fan_out, bias=model.name != "linear_chain")
        self.recurrent = nn.Linear(fan_out, fan_out, bias=False) if recurrent else None
        self.norm = normalization(model.norm or "none", fan_out) if hidden else None
        self.phi = activation(model.activation or "linear", model.slope or 0.0) if hidden else None

    @property
    def matrices(self) -> list[Tensor]:
        return [self.linear.weight, *([] if self.recurrent is None else [self.recurrent.weight])]

    def normalise(self, z: Tensor) -> Tensor:
        normalised: Tensor = z if self.norm is None else self.norm(z)
        return normalised

    def activate(self, z: Tensor) -> Tensor:
        assert self.phi is not None
        activated: Tensor = self.phi(z)
        return activated


@dataclass(frozen=True)
class Seen:
    """One layer's signals, a tensor a time step: where delta is taken, what enters phi (if anything), what leaves."""

    z: list[Tensor]
    pre: list[Tensor] | None
    h: list[Tensor]
    gates: list[Tensor] | None = None
    """Sigmoids, a tensor a time step, of which `saturated` is."""
    further: Row = field(default_factory=dict)
    """Columns that other layers lack."""


class Plain(nn.Module):
    """One network with gradlab's initial matrices and biases, and torch's own norms and slopes."""

    along = -2
    """The place of the layer whose steps are rows along time, if it has any."""

    def __init__(self, run: RunSpec) -> None:
        super().__init__()
        model, facts = run.model, run.facts
        self.run = run
        if model.name == "rnn":
            inner = [facts.shape[1], *[model.width] * model.depth]
            stages = [Stage(a, b, run, hidden=True, recurrent=True) for a, b in itertools.pairwise(inner)]
            stages.append(Stage(model.width, facts.outputs, run, hidden=False))
        else:
            widths = [facts.inputs, *[model.width] * (model.depth - 1), facts.outputs]
            first = 1 if model.name == "residual_mlp" else 0
            stages = [
                Stage(a, b, run, hidden=first <= at < model.depth - 1 and model.name != "linear_chain")
                for at, (a, b) in enumerate(itertools.pairwise(widths))
            ]
        self.stages = nn.ModuleList(stages)
        self.to(torch.float64 if run.train.precision == "float64" else torch.float32)
        self._begin()

    @property
    def layers(self) -> list[Stage]:
        return [stage for stage in self.stages if isinstance(stage, Stage)]

    @property
    def dtype(self) -> torch.dtype:
        return self.layers[0].linear.weight.dtype

    def forget(self) -> None:
        """From here on batch norm leaves its running statistics as they are."""
        for stage in self.layers:
            if isinstance(stage.norm, nn.BatchNorm1d):
                stage.norm.momentum = 0.0

    @torch.no_grad()
    def _begin(self) -> None:
        run = self.run
        if run.model.name == "linear_chain":
            for stage in self.layers:
                stage.linear.weight.copy_(run.model.gain * torch.eye(run.model.width, dtype=torch.float64))
            return
        layout = MODELS[run.model.name].layout(run.model, run.facts)
        flat = initial_parameters(layout, [run], self.dtype)[0]
        for slot, columns in zip(layout.slots, layout.columns, strict=True):
            stage = self.layers[slot.layer - 1]
            recurrent = stage.recurrent.weight if stage.recurrent is not None else None
            drawn = {Role.WEIGHT: stage.linear.weight, Role.RECURRENT: recurrent, Role.BIAS: stage.linear.bias}
            parameter = drawn.get(slot.role)
            if parameter is not None:
                parameter.copy_(flat[columns].view(parameter.shape))

    def forward(self, x: Tensor) -> list[Seen]:
        passes = {"mlp": self._mlp, "residual_mlp": self._residual, "linear_chain": self._chain, "rnn": self._rnn}
        return passes[self.run.model.name](x)

    def _mlp(self, x: Tensor) -> list[Seen]:
        h, seen = x.flatten(1), []
        for stage in self.layers[:-1]:
            z = stage.normalise(stage.linear(h))
            h = stage.activate(z)
            seen.append(Seen([z], [z], [h]))
        output = self.layers[-1].linear(h)
        return [*seen, Seen([output], None, [output])]

    def _residual(self, x: Tensor) -> list[Seen]:
        beta = self.run.model.branch_scale or 0.0
        z = self.layers[0].linear(x.flatten(1))
        seen = [Seen([z], None, [z])]
        for stage in self.layers[1:-1]:
            pre = stage.normalise(z)
            h = stage.activate(pre)
            z = z + beta * (h @ stage.linear.weight.T) + beta * stage.linear.bias
            seen.append(Seen([z], [pre], [h]))
        output = self.layers[-1].linear(z)
        return [*seen, Seen([output], None, [output])]

    def _chain(self, x: Tensor) -> list[Seen]:
        z, seen = x, []
        for stage in self.layers:
            z = stage.linear(z)
            seen.append(Seen([z], None, [z]))
        return seen

    def _rnn(self, x: Tensor) -> list[Seen]:
        inputs, seen = list(x.unbind(1)), []
        for stage in self.layers[:-1]:
            assert stage.recurrent is not None
            h, zs, hs = x.new_zeros(len(x), self.run.model.width), [], []
            for x_t in inputs:
                z = stage.normalise(stage.linear(x_t) + stage.recurrent(h))
                h = stage.activate(z)
                zs.append(z)
                hs.append(h)
            seen.append(Seen(zs, zs, hs))
            inputs = hs
        output = self.layers[-1].linear(inputs[-1])
        return [*seen, Seen([output], None, [output])]


# The training.


def clip(run: RunSpec, network: Plain) -> None:
    """Clips the gradients in place, with torch.nn.utils where it has the mode."""
    c = run.clip.threshold
    match run.clip.mode:
        case "none":
            return
        case "norm":
            nn.utils.clip_grad_norm_(network.parameters(), c)
        case "value":
            nn.utils.clip_grad_value_(network.parameters(), c)
        case "layerwise":
            own = c if run.clip.output_threshold is None else run.clip.output_threshold
            for stage in network.layers:
                nn.utils.clip_grad_norm_(stage.parameters(), own if stage is network.layers[-1] else c)
        case "normalize":
            scale = c / (norm(_gradients(network)) + 1e-6)
            for gradient in _gradients(network):
                gradient.mul_(scale)
        case other:
            raise AssertionError(other)


def norm(tensors: Sequence[Tensor]) -> float:
    """The 2-norm over all entries, in float64."""
    return math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in tensors))


def rms(tensors: Iterable[Tensor | None]) -> float:
    """The root mean square of all entries, in float64."""
    entries = torch.cat([tensor.flatten() for tensor in tensors if tensor is not None])
    return norm([entries]) / math.sqrt(len(entries))


def _gradients(module: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def loss_of(run: RunSpec, output: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch: margins, cross-entropy, squared errors of scaled targets, or fourth powers of the output."""
    if run.loss == "margin":
        right = F.one_hot(targets, output.shape[-1])
        return (right * F.relu(0.9 - output) ** 2 + 0.5 * (1 - right) * F.relu(output - 0.1) ** 2).sum(-1).mean()
    if run.facts.loss == "quartic":
        return output.pow(4).mean()
    if run.facts.loss == "cross_entropy":
        return F.cross_entropy(output.flatten(0, -2), targets.flatten())
    return F.mse_loss(output, targets * run.data.target_scale)


def expected(settings: Settings, make: Callable[[RunSpec], Any] | None = None) -> Member:
    """What a plain training of ``settings`` gives, of the network that ``make`` makes: with the parts of a `Plain`."""
    run = build(settings)
    network = Plain(run) if make is None else make(run)
    mover = optimizer(run, network)
    paced = Paced(mover, run)
    data = content(run.data)
    order = batches(run.data, len(data.train_inputs), run.train.steps + 1)
    inputs, targets = _parts(data.train_inputs, data.train_targets, run, network.dtype)
    steps: list[Row] = []
    layers: list[Row] = []
    diverged: tuple[int, int | None] | None = None
    for t in range(run.train.steps + 1):
        last = t == run.train.steps
        if last:
            network.forget()
        chosen = torch.from_numpy(order[t])
        x = inputs[chosen].requires_grad_(inputs.is_floating_point())
        seen, loss = _differentiate(run, network, x, targets[chosen])
        step: Row = {"step": t, "loss": loss.item(), "lr": paced.lr, "grad_norm": norm(_gradients(network))}
        step |= {"grad_norm_clipped": None, "clipped": None}
        if not _finite([loss, *network.parameters(), *_gradients(network)]):
            diverged = (t, _broken_layer(network, seen))
        recorded = t % run.probe.every == 0 or last or diverged is not None
        rows = _layer_rows(run, t, network, x, seen) if recorded else []
        if not last:
            step |= _update(run, network, mover, rows[int(x.is_floating_point()) :])
            paced.step(loss.item())
        steps.append(step)
        layers += rows
        if diverged is not None:
            break
    return Member(_outcome(run, network, data, steps, layers, diverged), steps, layers)


def _differentiate(run: RunSpec, network: Plain, x: Tensor, y: Tensor) -> tuple[list[Seen], Tensor]:
    """One pass forward and back: gradients of the parameters, of ``x`` and of every z_l."""
    seen: list[Seen] = network(x)
    for tensor in itertools.chain.from_iterable(layer.z for layer in seen):
        tensor.retain_grad()
    network.zero_grad()
    loss = loss_of(run, seen[-1].h[0], y)
    torch.autograd.backward(loss)
    return seen, loss


def _update(run: RunSpec, network: Plain, mover: torch.optim.Optimizer, rows: Sequence[Row]) -> Row:
    """Clips and steps; adds what an update shows to the ``rows`` of layers 1..L and returns it of the whole network."""
    before = [[matrix.detach().clone() for matrix in stage.matrices] for stage in network.layers]
    unclipped = [gradient.clone() for gradient in _gradients(network)]
    clip(run, network)
    changed = [bool((a != b).any()) for a, b in zip(unclipped, _gradients(network), strict=True)]
    shown: Row = {"grad_norm_clipped": norm(_gradients(network)), "clipped": any(changed)}
    for row, stage in zip(rows, network.layers, strict=False):
        row["grad_norm_clipped"] = norm(_gradients(stage))
    for parameter in network.parameters():
        assert parameter.grad is not None
        parameter.grad.add_(parameter.detach().sign(), alpha=run.optim.l1)
    mover.step()
    for row, stage, old in zip(rows, network.layers, before, strict=False):
        moved = norm([new.detach() - was for new, was in zip(stage.matrices, old, strict=True)])
        row["update_ratio"] = quotient(moved, norm(old))
    return shown


def _finite(tensors: Sequence[Tensor]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def _parts(inputs: Any, targets: Any, run: RunSpec, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    x = torch.from_numpy(inputs)
    x = x.to(dtype) * run.data.input_scale if x.is_floating_point() else x
    y = torch.from_numpy(targets)
    return x, y.to(dtype) if y.is_floating_point() else y


def quotient(a: float, b: float) -> float:
    return a / b if b else (math.nan if a == 0 or math.isnan(a) else math.inf)


def _broken_layer(network: Plain, seen: Sequence[Seen]) -> int | None:
    for number, layer in enumerate(seen, start=1):
        if not _finite(layer.z):
            return number
    for number, stage in reversed(list(enumerate(network.layers, start=1))):
        if not _finite(_gradients(stage)):
            return number
    return None


def _layer_rows(run: RunSpec, t: int, network: Plain, x: Tensor, seen: Sequence[Seen]) -> list[Row]:
    blank: dict[str, Any] = dict.fromkeys(
        ("grad_norm", "grad_norm_clipped", "weight_grad_norm", "weight_norm", "update_ratio", "saturated", "dead")
    )
    blank |= {"grad_zero": None}
    delta = norm([x.grad]) if x.grad is not None else None
    rows = []
    if x.is_floating_point():
        rows.append({**blank, "step": t, "axis": "depth", "layer": 0, "signal_grad_norm": delta, **_moments([x])})
    for number, (stage, layer) in enumerate(zip(network.layers, seen, strict=True), start=1):
        entries = torch.cat([gradient.flatten() for gradient in _gradients(stage)])
        row = {**blank, "step": t, "axis": "depth", "layer": number}
        row |= {
            "grad_norm": norm(_gradients(stage)),
            "weight_grad_norm": norm([matrix.grad for matrix in stage.matrices if matrix.grad is not None]),
            "signal_grad_norm": norm([z.grad for z in layer.z if z.grad is not None]),
            "weight_norm": norm(stage.matrices),
            "grad_zero": float((entries == 0).double().mean()),
            "signal_grad_rms": rms(z.grad for z in layer.z if z.grad is not None),
            "grad_rms": rms(_gradients(stage)),
        }
        row |= layer.further
        rows.append(row | _moments(layer.h) | _slopes(run, stage, layer.pre) | _shut(layer.gates))
    if NAMED_MODELS[run.model.name].needs_time:
        stage, top = network.layers[network.along], seen[network.along]
        for step, (z, h) in enumerate(zip(top.z, top.h, strict=True), start=1):
            row = {**blank, "step": t, "axis": "time", "layer": step, **_moments([h])}
            if z.grad is not None:
                row["signal_grad_rms"] = rms([z.grad])
            row |= _slopes(run, stage, top.pre and [z]) | _shut(top.gates and top.gates[step - 1 : step])
            rows.append(row | {"signal_grad_norm": norm([z.grad]) if z.grad is not None else None})
    return rows


def _shut(gates: Sequence[Tensor] | None) -> Row:
    """The share of sigmoids whose slope is below 5 % of 1/4."""
    if gates is None:
        return {}
    entries = torch.stack([gate.detach() for gate in gates]).double()
    return {"saturated": float((entries * (1 - entries) < 0.0125).double().mean())}


def _moments(h: Sequence[Tensor]) -> Row:
    """Mean, population standard deviation, and the mean cosine of two samples that are not all zero."""
    entries = torch.stack([piece.detach() for piece in h]).double()
    row: Row = {"act_mean": float(entries.mean()), "act_std": float(entries.std(correction=0))}
    cosines, pairs = 0.0, 0
    for step in entries.flatten(2):
        rows = step[step.norm(dim=1) != 0]
        unit = rows / rows.norm(dim=1, keepdim=True)
        cosines += float((unit @ unit.T).triu(1).sum())
        pairs += len(rows) * (len(rows) - 1) // 2
    alike = {"act_correlation": cosines / pairs if pairs else math.nan}
    return row | (alike if entries.shape[1] > 1 else {})


def _slopes(run: RunSpec, stage: Stage, pre: Sequence[Tensor] | None) -> Row:
    """`saturated` and `dead`, with phi' from autograd."""
    name = run.model.activation
    if pre is None or name is None or stage.phi is None:
        return {}
    z = torch.stack([piece.detach() for piece in pre]).requires_grad_()
    (slope,) = torch.autograd.grad(stage.phi(z).sum(), z)
    found: Row = {}
    if not ACTIVATIONS[name].never_saturates:
        found["saturated"] = float((slope.abs() < 0.05 * steepest(name)).double().mean())
    if ACTIVATIONS[name].relu_family and z.shape[1] >= 16:
        found["dead"] = float((slope == 0).flatten(0, -2).all(0).double().mean())
    return found


@lru_cache(maxsize=32)
def steepest(name: str) -> float:
    """The largest |phi'| on a fine grid, by autograd; slopes of the leaky family below 1."""
    z = torch.cat(
        [torch.linspace(-3, 3, 60001, dtype=torch.float64), torch.tensor([-1e-9, -30.0, 30.0])]
    ).requires_grad_()
    (slope,) = torch.autograd.grad(activation(name, 0.1).double()(z).sum(), z)
    return float(slope.abs().max())


@torch.no_grad()
def _mean_of_the_end(steps: list[Row]) -> float | None:
    """Over the last tenth of the steps, at least five, without the loss before the first."""
    losses = [row["loss"] for row in steps[1:]]
    last = losses[len(losses) - min(len(losses), max(5, len(losses) // 10)) :]
    return sum(last) / len(last) if last else None


def _outcome(
    run: RunSpec,
    network: Plain,
    data: Dataset,
    steps: list[Row],
    layers: list[Row],
    diverged: tuple[int, int | None] | None,
) -> Row:
    row: Row = {
        "state": "finished" if diverged is None else "diverged",
        "steps": run.train.steps if diverged is None else diverged[0],
        "loss_first": steps[0]["loss"],
        "loss_last": steps[-1]["loss"],
        "loss_final": _mean_of_the_end(steps) if diverged is None else None,
        "loss_heldout": None,
        "accuracy": None,
        "diverged_at": None if diverged is None else diverged[0],
        "diverged_layer": None if diverged is None else diverged[1],
    }
    along = "time" if NAMED_MODELS[run.model.name].needs_time else "depth"
    of = "signal_grad_rms" if NAMED_MODELS[run.model.name].unequal else "signal_grad_norm"
    deltas = [r[of] for r in layers if (r["step"], r["axis"]) == (0, along) and r["layer"] > 0]
    if along == "depth" and (trunk := NAMED_MODELS[run.model.name].trunk) is not None:
        deltas = [deltas[layer - 1] for layer in trunk(run.model.depth)]
    row |= {"rate": fitted_rate(deltas, along), "vanishing_ratio": ratio(deltas, along)}
    if diverged is None and run.train.steps > 0:
        network.eval()
        x, y = _parts(data.heldout_inputs, data.heldout_targets, run, network.dtype)
        output = network(x)[-1].h[0]
        row["loss_heldout"] = loss_of(run, output, y).item()
        if run.facts.loss == "cross_entropy":
            row["accuracy"] = float((output.argmax(-1) == y).double().mean())
    return row


def fitted_rate(deltas: Sequence[float], along: str) -> float | None:
    """exp(-slope) of the least-squares line through ln delta: layers 5..L-1 (1..L-1 where L < 8), or all of time."""
    points = list(enumerate(deltas, start=1))
    if along == "depth":
        points = points[0 if len(deltas) < 8 else 4 : -1]
    if len(points) < 2 or any(not math.isfinite(delta) or delta == 0 for _, delta in points):
        return None
    at = np.array([layer for layer, _ in points], dtype=float)
    return float(np.exp(-np.polyfit(at, np.log([delta for _, delta in points]), 1)[0]))


def ratio(deltas: Sequence[float], along: str) -> float | None:
    """Layer 1 over layer L-1, or time step 1 over T."""
    points = deltas[:-1] if along == "depth" else deltas
    return quotient(points[0], points[-1]) if points else None
