"""Pre-training against plain loops of torch, alone and in company, and what it leaves in the tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gradlab.data.batches import batches
from gradlab.engine.pretraining import _Drawing, _seed, begun, stages
from gradlab.engine.task import task_of
from gradlab.engine.train import train
from gradlab.engine.ways import own
from gradlab.models import MODELS
from gradlab.nn.initializers import initial_parameters
from gradlab.nn.slots import Role
from gradlab.spec.named import SpecError, Value
from gradlab.spec.run import RunSpec, build
from gradlab.store.record import Tables, tidy
from gradlab.theory.predict import predict, profile
from tests.members import content

BASE: dict[str, Value] = {
    "train.precision": "float64",
    "train.steps": 0,
    "model.width": 5,
    "model.depth": 4,
    "model.activation": "tanh",
    "data.batch_size": 8,
    "pretrain.steps": 6,
    "pretrain.lr": 0.02,
    "probe.every": 1,
}
RECURRENT: dict[str, Value] = {**BASE, "model.depth": 1, "data.length": 5}


def tables(*settings: Mapping[str, Value]) -> Tables:
    runs = [build(values) for values in settings]
    return tidy(train(runs, content(runs[0].data), torch.device("cpu"), lambda *_: None))


def weights(runs: Sequence[RunSpec]) -> Tensor:
    """What a pre-training leaves, (M, P)."""
    task = task_of(runs, content(runs[0].data), torch.float64, torch.device("cpu"))
    return own(runs, task, torch.device("cpu")).parameters


def parts(run: RunSpec, flat: Tensor) -> dict[tuple[int, Role], Tensor]:
    """The parameters of one network by layer and role."""
    layout = MODELS[run.model.name].layout(run.model, run.facts)
    found = zip(layout.slots, layout.columns, strict=True)
    return {(slot.layer, slot.role): flat[columns].view(slot.shape) for slot, columns in found}


def fitted(run: RunSpec, own: Sequence[Tensor], loss: Callable[[Tensor], Tensor]) -> None:
    """Adam as torch has it, on the batches of the run's data; ``loss`` is of the samples' numbers."""
    optimizer = torch.optim.Adam(own, lr=run.pretrain.lr)
    order = batches(run.data, len(content(run.data).train_inputs), run.pretrain.steps)
    for chosen in torch.from_numpy(order):
        optimizer.zero_grad()
        loss(chosen).backward()
        optimizer.step()


def leaves(run: RunSpec, number: int) -> tuple[dict[tuple[int, Role], Tensor], RunSpec]:
    """What a stage begins with, as leaves of autograd."""
    layout = MODELS[run.model.name].layout(run.model, run.facts)
    stage = stages(run)[number]
    start = begun(stage, number, [run], layout, initial_parameters(layout, [run], torch.float64))[0]
    return {name: one.clone().requires_grad_() for name, one in parts(stage.like, start).items()}, stage.like


def test_layer_after_layer_is_a_plain_loop_of_autoencoders() -> None:
    run = build({**BASE, "pretrain.mode": "layerwise", "seed": 3})
    x = torch.from_numpy(content(run.data).train_inputs)
    x = x.flatten(1)
    found = parts(run, weights([run])[0])
    for layer in (1, 2, 3):
        own, _ = leaves(run, layer - 1)

        def encode(samples: Tensor, own: Mapping[tuple[int, Role], Tensor] = own) -> Tensor:
            return torch.tanh(samples @ own[1, Role.WEIGHT].T + own[1, Role.BIAS])

        def loss(chosen: Tensor, x: Tensor = x, own: Mapping[tuple[int, Role], Tensor] = own) -> Tensor:
            return F.mse_loss(encode(x[chosen], own) @ own[2, Role.WEIGHT].T + own[2, Role.BIAS], x[chosen])

        fitted(run, list(own.values()), loss)
        for role in (Role.WEIGHT, Role.BIAS):
            np.testing.assert_allclose(found[layer, role].numpy(), own[1, role].detach().numpy(), rtol=1e-8, atol=1e-11)
        x = encode(x).detach()
    drawn = parts(run, initial_parameters(MODELS["mlp"].layout(run.model, run.facts), [run], torch.float64)[0])
    torch.testing.assert_close(found[4, Role.WEIGHT], drawn[4, Role.WEIGHT], rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["autoencoder", "denoising", "masked"])
def test_all_layers_at_once_are_a_plain_loop(mode: str) -> None:
    run = build({**BASE, "pretrain.mode": mode, "pretrain.corruption": 0.4, "data.input_scale": 2.0, "seed": 1})
    samples = 2.0 * torch.from_numpy(content(run.data).train_inputs)
    own, _ = leaves(run, 0)
    draw = _Drawing([torch.Generator().manual_seed(_seed(run.seed, 0))], 0.4)

    def loss(chosen: Tensor) -> Tensor:
        x = samples[chosen]
        shown, asked = x, torch.ones_like(x)
        if mode == "denoising":
            shown = x + draw.noise(x.unsqueeze(0))[0]
        if mode == "masked":
            asked = draw.hidden(x.unsqueeze(0))[0]
            shown = x * (1 - asked)
        h = shown.flatten(1)
        for layer in (1, 2, 3):
            h = torch.tanh(h @ own[layer, Role.WEIGHT].T + own[layer, Role.BIAS])
        error = (h @ own[4, Role.WEIGHT].T + own[4, Role.BIAS] - x.flatten(1)) * asked.flatten(1)
        return error.square().sum() / asked.sum()

    fitted(run, list(own.values()), loss)
    found = parts(run, weights([run])[0])
    for layer in (1, 2, 3):
        wanted = own[layer, Role.WEIGHT].detach().numpy()
        np.testing.assert_allclose(found[layer, Role.WEIGHT].numpy(), wanted, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("data", ["quotations", "adding"])
def test_the_next_step_is_predicted_as_by_a_plain_recurrence(data: str) -> None:
    run = build({**RECURRENT, "model.name": "rnn", "data.name": data, "pretrain.mode": "generative"})
    samples = torch.from_numpy(content(run.data).train_inputs)
    own, _ = leaves(run, 0)

    def loss(chosen: Tensor) -> Tensor:
        x = samples[chosen]
        rows = F.one_hot(x, run.facts.vocabulary).double() if data == "quotations" else x
        h, told = torch.zeros(len(chosen), run.model.width, dtype=torch.float64), []
        for t in range(x.shape[1] - 1):
            z = rows[:, t] @ own[1, Role.WEIGHT].T + h @ own[1, Role.RECURRENT].T + own[1, Role.BIAS]
            h = torch.tanh(z)
            told.append(h @ own[2, Role.WEIGHT].T + own[2, Role.BIAS])
        output = torch.stack(told, 1)
        if data == "quotations":
            return F.cross_entropy(output.flatten(0, 1), x[:, 1:].flatten())
        return F.mse_loss(output, x[:, 1:])

    fitted(run, list(own.values()), loss)
    found = parts(run, weights([run])[0])
    for role in (Role.WEIGHT, Role.RECURRENT, Role.BIAS):
        np.testing.assert_allclose(found[1, role].numpy(), own[1, role].detach().numpy(), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(
    "settings",
    [
        {"model.name": "lstm", "data.name": "adding", **RECURRENT},
        {"model.name": "gru", "data.name": "sequential_digits", **BASE, "model.depth": 1},
        {
            "model.name": "transformer",
            "data.name": "quotations",
            **RECURRENT,
            "model.width": 8,
            "model.heads": 2,
            "model.causal": True,
        },
    ],
)
def test_other_sequences_lower_the_loss_of_the_next_step(settings: Mapping[str, Value]) -> None:
    given = {key: value for key, value in settings.items() if key != "model.activation"}
    found = tables({**given, "pretrain.mode": "generative", "pretrain.steps": 40, "probe.every": 39}).instruments
    first, *_, last = found["value"].to_pylist()
    assert last < 0.95 * first


def test_in_company_is_as_alone() -> None:
    """Members of other seeds, modes, lengths and trainings in one cohort."""
    some: list[dict[str, Value]] = [
        {**BASE, "pretrain.mode": "masked", "seed": 0},
        {**BASE, "pretrain.mode": "masked", "seed": 1, "optim.lr": 0.5},
        {**BASE, "pretrain.mode": "layerwise", "seed": 1, "pretrain.steps": 4},
        {**BASE, "pretrain.mode": "none", "seed": 1},
    ]
    runs = [build(values) for values in some]
    together = weights(runs)
    for run, found in zip(runs, together, strict=True):
        np.testing.assert_allclose(found.numpy(), weights([run])[0].numpy(), rtol=1e-8, atol=1e-12)
    plain = initial_parameters(MODELS["mlp"].layout(runs[3].model, runs[3].facts), [runs[3]], torch.float64)
    torch.testing.assert_close(together[3:], plain, rtol=0, atol=0)


def test_what_it_leaves_in_the_tables() -> None:
    """Losses by the steps of the pre-training, at step 0 of the run; the run's own steps are as many as they were."""
    some = [{**BASE, "train.steps": 3, "probe.every": 4, "pretrain.mode": mode} for mode in ("layerwise", "none")]
    found = tables(*some)
    rows = found.instruments.to_pylist()
    assert {(row["instrument"], row["quantity"], row["step"]) for row in rows} == {("pretraining", "pretrain_loss", 0)}
    assert [row["index"] for row in rows] == [0, 4, 5, 6, 10, 11, 12, 16, 17]
    assert {row["run_id"] for row in rows} == {build(some[0]).id}
    assert found.steps.num_rows == 8
    assert found.runs["pretrain.mode"].to_pylist() == ["layerwise", "none"]


def test_a_run_without_one_has_the_id_that_it_had() -> None:
    run = build({})
    assert build({"pretrain.mode": "none"}).id == run.id
    assert build({"pretrain.mode": "masked"}).id != run.id
    assert predict(run).rate is not None
    gated: dict[str, Value] = {"model.name": "lstm", "data.name": "adding", "pretrain.mode": "generative"}
    for known in (build({"pretrain.mode": "masked"}), build(gated)):
        assert predict(known).note.startswith("its weights are pre-trained")
        assert profile(known) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pretrain.mode": "layerwize"}, "did you mean 'layerwise'"),
        ({"pretrain.mode": "generative"}, "pretrain.mode=generative: is for rnn or lstm or gru or transformer; 'mlp'"),
        ({"pretrain.mode": "masked", "model.name": "cnn"}, "'cnn' has none"),
        ({"pretrain.mode": "masked", "model.depth": 1}, "model.depth=1 has none"),
        ({"pretrain.mode": "layerwise", "pretrain.steps": 0}, "expected an integer of at least 1"),
        (
            {"pretrain.mode": "generative", "model.name": "transformer", "data.name": "quotations"},
            "expected model.causal=true",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(values: Mapping[str, Value], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(values)
