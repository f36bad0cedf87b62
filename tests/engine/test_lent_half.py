"""A network of one's own in half precision: a plain loop with autocast and GradScaler makes the same of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradlab.data.batches import batches
from gradlab.data.dataset import DataError
from gradlab.data.loaders import load
from gradlab.engine.called import answer
from gradlab.engine.train import train
from gradlab.spec.named import Value
from gradlab.spec.run import RunSpec
from gradlab.store.record import tidy
from tests.engine import networks
from tests.engine.test_lent import CASES, STEPS, allowed, spec, trained

__all__ = ["allowed"]

MIXED: dict[str, Value] = {"train.precision": "mixed_float16", "train.loss_scale": "dynamic", "data.input_scale": 200.0}
"""Inputs so large that the first scales are too."""


def plain(run: RunSpec) -> tuple[list[float], list[float], list[float]]:
    """Losses, norms of the unscaled gradient and loss scales of the same training, as anybody writes it."""
    data = load(run.data)
    torch.manual_seed(run.seed)
    module: nn.Module = getattr(networks, str(run.model.target).rpartition(":")[2])(**dict(run.model.args))
    form = {"bfloat16": torch.bfloat16, "float16": torch.float16}[run.train.precision.removeprefix("mixed_")]
    mixed = run.train.precision.startswith("mixed_")
    module = module.train() if mixed else module.to(form).train()
    optimizer = torch.optim.SGD(module.parameters(), run.optim.lr)
    scaler = torch.amp.GradScaler("cpu", enabled=run.train.loss_scale == "dynamic")
    losses, norms, scales = [], [], []
    for t in range(STEPS + 1):
        chosen = batches(run.data, len(data.train_targets), STEPS + 1)[t]
        inputs = torch.from_numpy(data.train_inputs[chosen]).float() * run.data.input_scale
        with torch.autocast("cpu", form, enabled=mixed):
            output = answer(module, inputs if mixed else inputs.to(form))
            loss = F.cross_entropy(output.float(), torch.from_numpy(data.train_targets[chosen]))
        optimizer.zero_grad()
        scales.append(scaler.get_scale())
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        losses.append(float(loss.detach()))
        found = [one.grad.double() for one in module.parameters() if one.grad is not None]
        norms.append(float(torch.stack([one.square().sum() for one in found]).sum().sqrt()))
        scaler.step(optimizer)
        scaler.update()
    return losses, norms, scales


@pytest.mark.parametrize("name", ["Mlp", "Convolutional"])
@pytest.mark.parametrize(
    "more",
    [{"train.precision": "mixed_bfloat16"}, {"train.precision": "bfloat16"}, MIXED],
    ids=["mixed", "pure", "dynamic"],
)
def test_half_precision_is_autocast_s_and_the_loss_scale_grad_scaler_s(name: str, more: dict[str, Value]) -> None:
    run = spec({**CASES[name], **more})
    losses, norms, scales = plain(run)
    record = trained(run)
    # Of pure half precision each update is rounded to eight bits, and not at the same places of the sum.
    rtol = 1e-3 if more["train.precision"] == "bfloat16" else 1e-5
    np.testing.assert_allclose(record.loss[:, 0], losses, rtol=rtol)
    np.testing.assert_allclose(record.grad_norm[:, 0], norms, rtol=10 * rtol)
    steps = tidy(record).steps.to_pandas()
    if "train.loss_scale" in more:
        assert steps["loss_scale"].tolist() == scales
        assert (scales[-1] < scales[0]) is (name == "Mlp")  # batch norm takes the size of the inputs away
        assert steps["skipped"][:STEPS].tolist() == [not np.isfinite(norm) for norm in norms[:STEPS]]


def test_a_loss_scale_is_in_no_column() -> None:
    scaled, by_itself = (
        trained(spec({**CASES["Mlp"], "train.precision": "mixed_bfloat16", "train.loss_scale": scale}))
        for scale in (1024.0, 1.0)
    )
    np.testing.assert_allclose(scaled.grad_norm, by_itself.grad_norm, rtol=1e-6)
    for one, other in zip(scaled.layers, by_itself.layers, strict=True):
        np.testing.assert_allclose(one.values, other.values, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("more", [{"train.precision": "bfloat16"}, MIXED], ids=["pure", "dynamic"])
def test_half_networks_trained_as_one_are_what_they_are_one_by_one(more: dict[str, Value]) -> None:
    runs = [spec({**CASES["Mlp"], **more, "seed": seed}) for seed in (0, 1)]
    as_one = train(runs, load(runs[0].data), torch.device("cpu"), lambda _t, _d: None, stacked=True)
    one_by_one = trained(*runs)
    np.testing.assert_allclose(as_one.loss, one_by_one.loss, rtol=0.02)
    assert as_one.heldout_loss is not None


def test_complex_numbers_have_no_half_precision() -> None:
    with pytest.raises(DataError, match=r"float16: the network has complex numbers"):
        trained(spec({**CASES["Complex"], "train.precision": "float16"}))
