"""A transformer written out in torch, with gradlab's initial parameters, for tests to train and to look into."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.models import MODELS
from gradlab.nn.initializers import initial_parameters
from gradlab.nn.slots import Role
from gradlab.spec.run import RunSpec
from tests.oracles import Seen, activation


class Stage(nn.Module):
    """The parameters of one layer, by the names of their roles, matrices first."""

    def __init__(self, run: RunSpec, parameters: dict[Role, Tensor]) -> None:
        super().__init__()
        self.roles: dict[Role, nn.Parameter] = {
            role: nn.Parameter(value) for role, value in parameters.items() if role is not Role.SLOPE
        }
        for role, value in self.roles.items():
            self.register_parameter(role.value, value)
        # PReLU's slope is a parameter of its own, which feed-forward layers have.
        learned = run.model.activation == "prelu" and Role.SLOPE not in parameters
        self.phi = activation("linear" if learned else run.model.activation or "", run.model.slope or 0.0).double()

    @property
    def matrices(self) -> list[Tensor]:
        return [self.roles[role] for role in (Role.WEIGHT, Role.SECOND, Role.PLACES) if role in self.roles]

    def norm(self, x: Tensor, gain: Role = Role.GAIN, shift: Role = Role.SHIFT) -> Tensor:
        if gain not in self.roles:
            return x
        if shift in self.roles:
            return nn.functional.layer_norm(x, x.shape[-1:], self.roles[gain], self.roles[shift])
        return nn.functional.rms_norm(x, x.shape[-1:], self.roles[gain])

    def linear(self, x: Tensor, weight: Role = Role.WEIGHT, bias: Role = Role.BIAS) -> Tensor:
        return nn.functional.linear(x, self.roles[weight], self.roles[bias])


class Written(nn.Module):
    """One transformer with gradlab's initial parameters."""

    def __init__(self, run: RunSpec) -> None:
        super().__init__()
        self.run, self.dtype = run, torch.float64
        layout = MODELS["transformer"].layout(run.model, run.facts)
        flat = initial_parameters(layout, [run], self.dtype)[0]
        found: list[dict[Role, Tensor]] = [{} for _ in layout.names]
        for slot, columns in zip(layout.slots, layout.columns, strict=True):
            found[slot.layer - 1][slot.role] = flat[columns].view(slot.shape).clone()
        self.stages = nn.ModuleList(Stage(run, each) for each in found)

    @property
    def layers(self) -> list[Any]:
        return list(self.stages)

    def forget(self) -> None:
        """No running statistics."""

    def forward(self, x: Tensor) -> list[Seen]:
        model, first, last = self.run.model, self.layers[0], self.layers[-1]
        z = first.linear(x) if x.is_floating_point() else first.roles[Role.WEIGHT][x]
        z = z + first.roles[Role.PLACES]
        seen = [Seen([z], None, [z])]
        for stage, name in zip(self.layers[1:-1], self._names, strict=True):
            place = model.norm_place
            h = stage.norm(z) if place in ("pre", "sandwich") else z
            pre, behind = None, None
            told: dict[str, Any] = {}
            if name == "attention":
                branch, told = self._attention(stage, h)
            else:
                pre = stage.linear(h)
                behind = stage.phi(pre)
                branch = stage.linear(behind, Role.SECOND, Role.SECOND_BIAS)
            if place == "sandwich":
                branch = stage.norm(branch, Role.SECOND_GAIN, Role.SECOND_SHIFT)
            if model.skip:
                alpha = (2 * model.depth) ** 0.25 if place == "deepnorm" else 1.0
                z = alpha * z + (model.branch_scale or 0.0) * branch
            else:
                z = branch
            if place in ("post", "deepnorm"):
                z = stage.norm(z)
            seen.append(Seen([z], None if pre is None else [pre], [z if behind is None else behind], further=told))
        if model.norm_place in ("pre", "sandwich"):
            z = last.norm(z)
        places = self.run.facts.positions
        output = last.linear(z[:, -places:] if places else z.mean(1))
        return [*seen, Seen([output], None, [output])]

    @property
    def _names(self) -> Sequence[str]:
        return (["attention", "feed_forward"] if self.run.model.feed_forward else ["attention"]) * self.run.model.depth

    def _attention(self, stage: Any, h: Tensor) -> tuple[Tensor, dict[str, float]]:
        model = self.run.model
        assert model.heads is not None
        q, k, v = (part.unflatten(-1, (model.heads, -1)).transpose(1, 2) for part in stage.linear(h).chunk(3, dim=-1))
        if model.qk_norm:
            size = q.shape[-1:]
            q = nn.functional.rms_norm(q, size, stage.roles[Role.QUERY_GAIN])
            k = nn.functional.rms_norm(k, size, stage.roles[Role.KEY_GAIN])
        causal, scale = bool(model.causal), model.attention_scale
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
        logits = (q @ k.transpose(-1, -2)).detach() * (q.shape[-1] ** -0.5 if scale is None else scale)
        ahead = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1) & causal
        weights = logits.masked_fill(ahead, -math.inf).softmax(-1)
        told = [
            -sum(p * math.log(p) for p in row if p > 0) / math.log(1 + place if causal else len(row))
            for head in weights.flatten(0, 1).tolist()
            for place, row in enumerate(head)
            if place or not causal
        ]
        seen = {
            "attention_entropy": sum(told) / len(told),
            "attention_logit_max": float(logits[..., ~ahead].abs().max()),
        }
        return stage.linear(mixed.transpose(1, 2).flatten(2), Role.SECOND, Role.SECOND_BIAS), seen
