"""Networks of torchvision and timm, lent to the engine, train as in a plain loop, to the last bits of float64.

Both are no dependencies of gradlab: the tests are for who has them (`pip install gradlab[zoo]`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gradlab.data import function
from gradlab.data.batches import batches
from gradlab.data.facts import described
from gradlab.data.loaders import load
from gradlab.data.targets import called
from gradlab.engine.called import sow
from gradlab.engine.train import train
from gradlab.spec.named import Value

TORCHVISION = (
    *("resnet18", "resnet50", "vgg11_bn", "densenet121", "mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1"),
    *("shufflenet_v2_x0_5", "efficientnet_b0", "regnet_y_400mf", "convnext_tiny", "mnasnet0_5", "alexnet"),
)
TIMM = (
    *("resnet10t", "resnetv2_50", "mobilenetv3_small_050", "efficientnet_lite0", "convnext_atto", "regnetx_002"),
    *("vit_tiny_patch16_224", "deit_tiny_patch16_224", "mixer_s16_224", "resmlp_12_224", "poolformer_s12"),
    *("ghostnet_050", "lcnet_050", "tinynet_e", "repvgg_a0", "darknet17", "xcit_nano_12_p16_224"),
)
STEPS = 2


def pictures(samples: int = 40, size: int = 64) -> Any:
    """Noise whose mean tells the class."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 10, samples)
    found = rng.normal(size=(samples, 3, size, size)) + np.linspace(-1, 1, 10)[kind][:, None, None, None]
    return (found[32:], kind[32:]), (found[:32], kind[:32])


@pytest.mark.parametrize(
    ("target", "name"),
    [*(("torchvision.models", name) for name in TORCHVISION), *(("timm", name) for name in TIMM)],
    ids=[*TORCHVISION, *TIMM],
)
def test_a_stock_network_is_trained_as_a_plain_loop_trains_it(
    target: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(target, reason="no stock networks")
    monkeypatch.setattr(function, "_ALLOWED", [True])
    large = name.endswith("224")
    arguments: dict[str, Value] = {"num_classes": 10, **({"model_name": name} if target == "timm" else {})}
    maker = "timm.create_model" if target == "timm" else f"torchvision.models.{name}"
    values: dict[str, Value] = {
        "model.name": "module",
        "model.target": maker,
        **{f"model.args.{key}": value for key, value in arguments.items()},
        "data.name": "function",
        "data.target": f"{Path(__file__)}:pictures",
        "data.args.size": 224 if large else 64,
        "data.batch_size": 2 if large else 4,
        "train.steps": STEPS,
        "train.precision": "float64",
        "optim.lr": 0.01,
        "optim.momentum": 0.9,
    }
    run = described(values)
    data = load(run.data)
    record = train([run], data, torch.device("cpu"), lambda _t, _d: None)
    torch.manual_seed(run.seed)
    module = called(maker, dict(arguments)).double().train()
    optimizer = torch.optim.SGD(module.parameters(), 0.01, 0.9)
    losses = []
    for t, chosen in enumerate(batches(run.data, len(data.train_targets), STEPS + 1)):
        sow(run.seed, t)
        inputs, targets = torch.from_numpy(data.train_inputs[chosen]), torch.from_numpy(data.train_targets[chosen])
        loss = F.cross_entropy(module(inputs), targets)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    np.testing.assert_allclose(record.loss[:, 0], losses, rtol=1e-8)
