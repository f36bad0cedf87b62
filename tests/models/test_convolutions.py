"""`cnn` and `resnet` equal torch.nn.Conv2d networks trained by torch.optim; what they are made of; what they refuse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlab.engine.cohort import prepare
from gradlab.engine.playing import rehearse
from gradlab.models import MODELS
from gradlab.nn.initializers import initial_parameters
from gradlab.nn.kernels.program import Program
from gradlab.nn.slots import Role
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import RunSpec, build
from tests.members import content, differences, measured, on_each_engine
from tests.oracles import Plain, Seen, activation, expected, normalization

Settings = dict[str, Value]


class Numbers(nn.Module):
    """The scalars of a layer."""

    def __init__(self, **values: float) -> None:
        super().__init__()
        for name, value in values.items():
            setattr(self, name, nn.Parameter(torch.tensor([value])))


class Convolution(nn.Module):
    """A layer: torch's convolution, or the read-out; its norm, its activation, and the scalars of rezero and fixup."""

    def __init__(self, linear: nn.Conv2d | nn.Linear, run: RunSpec, *, hidden: bool, numbers: dict[str, float]) -> None:
        super().__init__()
        model = run.model
        self.linear = linear
        self.norm = self._norm(run) if hidden else None
        self.phi = activation(model.activation or "linear", model.slope or 0.0) if hidden else None
        self.numbers = Numbers(**numbers)

    @staticmethod
    def _norm(run: RunSpec) -> nn.Module | None:
        width = run.model.width
        return nn.BatchNorm2d(width) if run.model.norm == "batch" else normalization(run.model.norm or "none", width)

    @property
    def matrices(self) -> list[Tensor]:
        return [self.linear.weight]

    def convolved(self, h: Tensor) -> Tensor:
        """Channels last, there and back: that is where what is measured is taken."""
        convolved: Tensor = self.linear(h.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return convolved

    def normalise(self, z: Tensor) -> Tensor:
        normalised: Tensor = z
        if isinstance(self.norm, nn.BatchNorm2d):
            normalised = self.norm(z.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        elif self.norm is not None:
            normalised = self.norm(z)
        return normalised

    def activate(self, z: Tensor) -> Tensor:
        assert self.phi is not None
        activated: Tensor = self.phi(z)
        return activated


class PlainImages(Plain):
    """A network of torch.nn.Conv2d with gradlab's initial numbers."""

    def __init__(self, run: RunSpec) -> None:
        nn.Module.__init__(self)
        self.run = run
        self.stages = nn.ModuleList(self._stages())
        self.to(torch.float64 if run.train.precision == "float64" else torch.float32)
        self._begin()

    def _stages(self) -> Iterator[Convolution]:
        run, model, facts = self.run, self.run.model, self.run.facts
        channels = facts.shape[2] if len(facts.shape) == 3 else 1
        for layer in range(1, run.layers):
            second = layer > 1 and layer % 2 == 1
            numbers: dict[str, float] = {}
            if model.block == "fixup":
                numbers = {"behind": 0.0} | ({"before": 0.0} if layer > 1 else {}) | ({"by": 1.0} if second else {})
            elif model.block == "rezero" and second:
                numbers = {"by": 0.0}
            conv = nn.Conv2d(
                channels if layer == 1 else model.width, model.width, 3, padding=1, bias=model.block != "fixup"
            )
            hidden = model.name == "cnn" or layer > 1 or model.block in ("postact", "fixup")
            yield Convolution(conv, run, hidden=hidden, numbers=numbers)
        pre = model.block in ("preact", "rezero")
        yield Convolution(nn.Linear(model.width, facts.outputs), run, hidden=pre, numbers={})

    @property
    def layers(self) -> list[Any]:
        return list(self.stages)

    def forget(self) -> None:
        for stage in self.layers:
            if isinstance(stage.norm, nn.BatchNorm2d):
                stage.norm.momentum = 0.0

    @torch.no_grad()
    def _begin(self) -> None:
        layout = MODELS[self.run.model.name].layout(self.run.model, self.run.facts)
        flat = initial_parameters(layout, [self.run], self.dtype)[0]
        for slot, columns in zip(layout.slots, layout.columns, strict=True):
            linear, given = self.layers[slot.layer - 1].linear, flat[columns]
            if slot.role is Role.WEIGHT and isinstance(linear, nn.Conv2d):
                linear.weight.copy_(given.view(len(linear.weight), 3, 3, -1).permute(0, 3, 1, 2))
            elif slot.role is Role.WEIGHT:
                linear.weight.copy_(given.view(linear.weight.shape))
            elif slot.role is Role.BIAS and linear.bias is not None:
                linear.bias.copy_(given)

    def forward(self, x: Tensor) -> list[Seen]:
        h = x if x.dim() == 4 else x.unsqueeze(-1)
        seen = self._cnn(h) if self.run.model.name == "cnn" else self._resnet(h)
        last = self.layers[-1]
        h = seen[-1].h[0] if last.phi is None else last.activate(last.normalise(seen[-1].z[0]))
        output = last.linear(h.mean((1, 2)))
        return [*seen, Seen([output], None, [output])]

    def _cnn(self, h: Tensor) -> list[Seen]:
        seen = []
        halved = [] if self.run.model.pool == "none" else [int(part) for part in str(self.run.model.pool).split("+")]
        for layer, stage in enumerate(self.layers[:-1], start=1):
            if layer in halved:
                h = F.avg_pool2d(h.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
            z = stage.normalise(stage.convolved(h))
            h = stage.activate(z)
            seen.append(Seen([z], [z], [h]))
        return seen

    def _resnet(self, x: Tensor) -> list[Seen]:
        block, beta = self.run.model.block, self.run.model.branch_scale or 0.0
        read_in, *stages = self.layers[:-1]
        z = read_in.convolved(x)
        if block in ("preact", "rezero"):
            seen = [Seen([z], None, [z])]
            for one, two in zip(stages[::2], stages[1::2], strict=True):
                pre = one.normalise(z)
                h = one.activate(pre)
                inner = one.convolved(h)
                seen.append(Seen([inner], [pre], [h]))
                pre = two.normalise(inner)
                h = two.activate(pre)
                z = z + beta * (two.numbers.by if block == "rezero" else 1.0) * two.convolved(h)
                seen.append(Seen([z], [pre], [h]))
            return seen
        z = z + read_in.numbers.behind if block == "fixup" else read_in.normalise(z)
        s = read_in.activate(z)
        seen = [Seen([z], [z], [s])]
        for one, two in zip(stages[::2], stages[1::2], strict=True):
            if block == "fixup":
                inner = one.convolved(s + one.numbers.before) + one.numbers.behind
                h = one.activate(inner)
                branch = two.numbers.by * two.convolved(h + two.numbers.before) + two.numbers.behind
            else:
                inner = one.normalise(one.convolved(s))
                h = one.activate(inner)
                branch = two.normalise(two.convolved(h))
            seen.append(Seen([inner], [inner], [h]))
            z = s + beta * branch
            s = two.activate(z)
            seen.append(Seen([z], [z], [s]))
        return seen


BASE: Settings = {
    "train.precision": "float64",
    "train.steps": 20,
    "probe.every": 6,
    "model.width": 5,
    "data.batch_size": 16,
    "optim.lr": 0.05,
}

CNN: dict[str, Settings] = {
    "relu": {"model.depth": 4, "model.bias_var": 0.1},
    "tanh, batch, pool": {"model.activation": "tanh", "model.norm": "batch", "model.depth": 3, "model.pool": "2+3"},
    "prelu, layer": {"model.activation": "prelu", "model.norm": "layer", "model.depth": 2, "model.width": 16},
    "gelu, rms, adam": {"model.activation": "gelu", "model.norm": "rms", "optim.name": "adam", "optim.lr": 0.01},
    "delta-orthogonal": {"model.init": "delta_orthogonal", "model.depth": 9, "model.activation": "selu"},
    "one layer, wide": {"model.depth": 1, "model.width": 18, "optim.momentum": 0.9},
}
RESNET: dict[str, Settings] = {
    "preact": {"model.depth": 6, "model.bias_var": 0.1, "model.branch_scale": 0.7},
    "preact, batch": {"model.depth": 4, "model.norm": "batch", "model.activation": "elu"},
    "preact, layer, prelu": {"model.depth": 4, "model.norm": "layer", "model.activation": "prelu"},
    "postact, batch": {"model.depth": 6, "model.block": "postact", "model.norm": "batch"},
    "postact, rms": {"model.depth": 4, "model.block": "postact", "model.norm": "rms", "model.activation": "tanh"},
    "rezero": {"model.depth": 6, "model.block": "rezero", "optim.name": "adamw", "optim.lr": 0.01},
    "fixup": {"model.depth": 6, "model.block": "fixup", "optim.momentum": 0.9},
    "fixup, tanh, xavier": {
        "model.depth": 8,
        "model.block": "fixup",
        "model.activation": "tanh",
        "model.init": "xavier",
    },
    "no block": {"model.depth": 2, "model.block": "postact"},
}
WITHIN: tuple[Settings, ...] = (
    {"seed": 3},
    {"seed": 4, "clip.mode": "norm", "clip.threshold": 0.3, "data.input_scale": 1.5},
    {"seed": 5, "clip.mode": "layerwise", "clip.threshold": 0.2, "optim.weight_decay": 0.1},
)


def cohorts() -> Iterator[Any]:
    for name, many in (("cnn", CNN), ("resnet", RESNET)):
        for label, own in many.items():
            yield pytest.param([BASE | {"model.name": name} | own | within for within in WITHIN], id=f"{name} {label}")


@pytest.mark.parametrize("cohort", list(cohorts()))
def test_a_member_equals_one_network_of_torch_s(cohort: list[Settings]) -> None:
    companies = list(on_each_engine(*cohort))
    for settings, *either in zip(cohort, *companies, strict=True):
        skip = ("grad_zero",) if settings.get("model.norm") == "batch" else ()
        wanted = expected(settings, PlainImages)
        for found in either:
            assert list(differences(found, wanted, relative=1e-8, absolute=1e-13, skip=skip)) == []
    for company, (alone,) in zip(companies, on_each_engine(cohort[1]), strict=True):
        assert list(differences(alone, company[1], relative=1e-12, absolute=1e-15)) == []


@pytest.mark.parametrize("settings", [*CNN.values()], ids=CNN)
def test_a_cnn_s_step_is_written_down(settings: Settings) -> None:
    written_down({"model.name": "cnn", **settings})


@pytest.mark.parametrize("settings", [*RESNET.values()], ids=RESNET)
def test_a_resnet_s_step_is_written_down(settings: Settings) -> None:
    written_down({"model.name": "resnet", **settings})


def written_down(settings: Settings) -> None:
    runs = [build({"data.batch_size": 16, "train.steps": 20, **settings, "seed": seed}) for seed in range(2)]
    programs = rehearse(prepare(runs, content(runs[0].data), torch.device("cpu")))
    assert all(isinstance(program, Program) for program in programs.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model.name": "resnet", "model.depth": 7}, "expected an even number"),
        ({"model.name": "resnet", "model.block": "fixup", "model.norm": "batch"}, "model.block=fixup does without"),
        ({"model.name": "resnet", "model.block": "preactt"}, "did you mean 'preact'"),
        ({"model.name": "cnn", "model.pool": "2+9"}, "convolutions 1 to 6"),
        ({"model.name": "cnn", "model.pool": "2+3+4+5"}, "8x8 on 'digits' can be halved 3 times"),
        ({"model.name": "cnn", "model.pool": "1"}, "expected layers from 2 on, as in 3"),
        ({"model.name": "cnn", "model.pool": "3,4"}, "expected layers from 2 on, as in 3"),
        ({"model.name": "cnn", "data.name": "adding"}, "takes an image"),
        ({"model.init": "delta_orthogonal"}, "is for cnn and resnet"),
        ({"model.pool": "2"}, "has no key 'model.pool'"),
    ],
)
def test_what_no_network_of_images_can_have(settings: Settings, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(settings)


def test_pooled_layers_are_one_text_in_any_order() -> None:
    runs = [build({"model.name": "cnn", "model.pool": given}) for given in ("5+3", "3+5", "3+5+3")]
    assert {run.model.pool for run in runs} == {"3+5"}
    assert len({run.id for run in runs}) == 1
    assert build({"model.name": "cnn", "model.pool": 3}).model.pool == "3"


def test_a_resnet_is_judged_along_its_stream() -> None:
    settings: Settings = {"model.name": "resnet", "model.depth": 12, "model.width": 8, "data.batch_size": 8}
    (rezero,) = measured(settings | {"model.block": "rezero", "train.steps": 0})
    assert rezero.profile("signal_grad_norm")[1::2][:-1] == pytest.approx(0.0), "inside the blocks"
    assert rezero.run["rate"] == pytest.approx(1.0)
    assert rezero.run["rate_theory"] == pytest.approx(1.0)
    assert rezero.run["verdict"] == "healthy"
    (fixup,) = measured(settings | {"model.block": "fixup", "train.steps": 20, "optim.lr": 0.01})
    assert (fixup.profile("signal_grad_norm")[:-1] == 0).all(), "behind a read-out of zeros"
    assert fixup.run["verdict"] == "healthy"
    (zeros,) = measured(settings | {"model.init": "zeros", "train.steps": 20, "optim.lr": 0.01})
    assert "vanishing" in zeros.run["verdict"]
