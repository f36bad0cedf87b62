"""Transformers beside a network written out and trained by torch.optim, and that one beside nn.TransformerEncoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gradlab.models import MODELS
from gradlab.nn.slots import Role
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import build
from tests.members import differences, on_each_engine
from tests.models.attending import Written
from tests.oracles import expected

Settings = dict[str, Value]

TINY: Settings = {
    "model.name": "transformer",
    "model.depth": 2,
    "model.width": 8,
    "model.heads": 2,
    "data.length": 6,
    "data.batch_size": 4,
    "train.precision": "float64",
    "train.steps": 20,
    "probe.every": 6,
    "optim.name": "adam",
    "optim.lr": 0.003,
    "optim.eps": 1e-6,
}
DIGITS: Settings = {key: value for key, value in TINY.items() if key != "data.length"} | {"data.name": "digits"}

COHORTS: dict[str, Settings] = {
    "pre": {},
    "post": {"model.norm_place": "post", "model.activation": "relu", "data.batch_size": 16},
    "sandwich-rms": {"model.norm_place": "sandwich", "model.norm": "rms", "model.activation": "tanh"},
    "deepnorm": {"model.norm_place": "deepnorm", "model.init": "zero_branches"},
    "none": {"model.norm_place": "none", "model.branch_scale": 0.5, "model.init": "lecun_normal"},
    "qk-norm": {"model.qk_norm": True, "model.attention_scale": "1/d", "model.activation": "prelu"},
    "no-skip-no-feed-forward": {"model.skip": False, "model.feed_forward": 0, "model.norm": "rms"},
    "one-head-wide": {"model.heads": 1, "model.attention_scale": 1.0, "model.feed_forward": 1, "model.norm": "rms"},
    "bidirectional": DIGITS | {"model.norm_place": "pre"},
    "last-places": {"data.name": "copy_memory", "data.length": 21},
    "causal-digits": DIGITS | {"model.norm_place": "post", "model.causal": True, "model.qk_norm": True},
}
WITHIN: tuple[Settings, ...] = (
    {"seed": 0},
    {"seed": 1, "optim.lr": 0.01, "clip.mode": "norm", "clip.threshold": 0.5, "model.bias_var": 0.1},
    # A small eps would have Adam blow up what rounding leaves of the keys' biases, whose gradient is exactly 0.
    {"seed": 2, "model.gain": 1.5, "optim.weight_decay": 0.1, "optim.eps": 1e-3, "clip.mode": "layerwise"},
)


@pytest.mark.parametrize("name", COHORTS)
def test_a_member_equals_one_plain_network(name: str) -> None:
    shared = (DIGITS if "data.name" in COHORTS[name] else TINY) | COHORTS[name]
    cohort = [shared | own for own in WITHIN]
    # A bias of all keys shifts every logit of a row alike: rounding decides whether its gradient is exactly zero.
    tolerance: Any = {"relative": 1e-8, "absolute": 1e-14, "skip": ("grad_zero",)}
    companies = list(on_each_engine(*cohort))
    for settings, *either in zip(cohort, *companies, strict=True):
        wanted = expected(settings, Written)
        for found in either:
            assert found.run["state"] == "finished"
            assert list(differences(found, wanted, **tolerance)) == []
    for company, (alone,) in zip(companies, on_each_engine(cohort[1]), strict=True):
        assert list(differences(alone, company[1], **tolerance)) == []


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("name", ["gelu", "relu"])
def test_the_written_network_is_torch_nn_transformer_encoder_s(name: str, norm_first: bool) -> None:
    place = "pre" if norm_first else "post"
    run = build(TINY | {"model.norm_place": place, "model.activation": name, "model.bias_var": 0.2})
    written = Written(run)
    one = nn.TransformerEncoderLayer(8, 2, 32, 0.0, name, batch_first=True, norm_first=norm_first)
    theirs = nn.TransformerEncoder(one, 2, nn.LayerNorm(8) if norm_first else None, enable_nested_tensor=False).double()
    with torch.no_grad():
        for block, (attention, feed_forward) in enumerate(
            zip(written.layers[1:-1:2], written.layers[2:-1:2], strict=True)
        ):
            layer: Any = theirs.layers[block]
            pairs = (
                (attention, Role.WEIGHT, layer.self_attn.in_proj_weight),
                (attention, Role.BIAS, layer.self_attn.in_proj_bias),
                (attention, Role.SECOND, layer.self_attn.out_proj.weight),
                (attention, Role.SECOND_BIAS, layer.self_attn.out_proj.bias),
                (feed_forward, Role.WEIGHT, layer.linear1.weight),
                (feed_forward, Role.BIAS, layer.linear1.bias),
                (feed_forward, Role.SECOND, layer.linear2.weight),
                (feed_forward, Role.SECOND_BIAS, layer.linear2.bias),
            )
            for stage, role, parameter in pairs:
                parameter.copy_(stage.roles[role])
    tokens = torch.randint(0, 74, (3, 6), generator=torch.Generator().manual_seed(0))
    first, last = written.layers[0], written.layers[-1]
    mask = nn.Transformer.generate_square_subsequent_mask(6, dtype=torch.float64)
    stream = theirs(first.roles[Role.WEIGHT][tokens] + first.roles[Role.PLACES], mask=mask)
    torch.testing.assert_close(written(tokens)[-1].h[0], last.linear(stream), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model.heads": 3}, "3 does not divide model.width=8"),
        ({"model.norm": "none"}, "model.norm_place=none"),
        ({"model.norm": "batch"}, "model.norm=batch"),
        ({"model.skip": False, "model.norm_place": "deepnorm"}, "weighs the skips"),
        ({"model.skip": False, "model.branch_scale": 0.5}, "there is none"),
        ({"model.causal": False}, "each place has its own answer"),
        ({"model.norm_place": "before"}, "'pre' or 'post'"),
        ({"model.attention_scale": "1/x"}, "'1/d'"),
        ({"data.length": 20_001}, "20,000 at most"),
        ({"data.name": "gaussian_mixture"}, "takes a sequence"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(given: Settings, message: str) -> None:
    settings = TINY | given
    if "data.name" in given:
        settings.pop("data.length")
    with pytest.raises(SpecError) as error:
        build(settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_norms_are_nowhere_at_no_place() -> None:
    run = build(TINY | {"model.norm_place": "none"})
    assert run.model.norm == "none"
    roles = {slot.role for slot in MODELS["transformer"].layout(run.model, run.facts).slots}
    assert not roles & {Role.GAIN, Role.SHIFT}


def test_the_scale_1_over_d_is_of_a_head_s_units() -> None:
    assert build(TINY | {"model.attention_scale": "1/d"}).model.attention_scale == 0.25
    assert build(TINY).model.attention_scale is None


def test_layers_are_named_by_their_kind() -> None:
    run = build(TINY)
    names = MODELS["transformer"].layout(run.model, run.facts).names
    assert names == ("embedding", "attention_1", "feed_forward_1", "attention_2", "feed_forward_2", "read_out")
    assert run.layers == 2 * run.model.depth + 2


def test_deepnorm_begins_with_smaller_branches() -> None:
    """Values, attention's last matrix and both of feed-forward (8N)^(-1/4) times as large; queries and keys as ever."""
    plain, deep = (Written(build(TINY | {"model.norm_place": place})) for place in ("post", "deepnorm"))
    small = (8 * 2) ** -0.25
    for ours, theirs in zip(deep.layers[1:-1], plain.layers[1:-1], strict=True):
        torch.testing.assert_close(ours.roles[Role.SECOND], small * theirs.roles[Role.SECOND])
    (q, k, v), (q0, k0, v0) = (one.layers[1].roles[Role.WEIGHT].chunk(3) for one in (deep, plain))
    torch.testing.assert_close(torch.cat([q, k, v]), torch.cat([q0, k0, small * v0]))
    torch.testing.assert_close(deep.layers[2].roles[Role.WEIGHT], small * plain.layers[2].roles[Role.WEIGHT])
