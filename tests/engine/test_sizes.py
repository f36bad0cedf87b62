"""The instruments that tell of sizes, of numbers and of signals that move, against plain torch.nn networks."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from gradlab.data.batches import batches
from gradlab.spec.run import build
from tests.engine.test_instruments import BASE, read, with_instrument
from tests.members import content
from tests.oracles import Plain


def test_the_range_of_numbers_is_that_of_autograds_rounded() -> None:
    values = with_instrument("number_range", model__activation="sigmoid", model__depth=6, model__gain=6.0, seed=3)
    run, (found,) = build(values), read(values)
    network = Plain(run)
    data = content(run.data)
    chosen = batches(run.data, len(data.train_inputs), 1)[0]
    seen = network(torch.from_numpy(data.train_inputs[chosen]))
    loss = nn.functional.cross_entropy(seen[-1].z[0], torch.from_numpy(data.train_targets[chosen]))
    z, w = [layer.z[0] for layer in seen], [stage.linear.weight for stage in network.layers]
    derived = torch.autograd.grad(loss, [*z, *w])
    entries = {"weight": w, "signal": z, "delta": derived[: len(z)], "gradient": derived[len(z) :]}
    formats = {"float16": (2.0**-14, np.float16), "float8_e5m2": (2.0**-14, None)}
    for kind, tensors in entries.items():
        layers = [tensor.detach().numpy().ravel() for tensor in tensors]
        exact = [np.mean(one == 0) for one in layers]
        np.testing.assert_allclose(found[0, f"{kind}_exact_zero"], exact, atol=1e-12)
        some = [np.abs(one[one != 0]) for one in layers]
        for name, (normal, dtype) in formats.items():
            below = [np.mean(one < normal) for one in some]
            np.testing.assert_allclose(found[0, f"{kind}_below_{name}"], below, atol=1e-12)
            # e5m2 is float16 with two of its ten digits behind the point: half of 2^-16 is rounded to zero, to even.
            zero = [np.mean(one.astype(dtype) == 0 if dtype else one <= 2.0**-17) for one in some]
            np.testing.assert_allclose(found[0, f"{kind}_zero_{name}"], zero, atol=1e-12)
        above = [np.mean(one > 448) for one in some]
        np.testing.assert_allclose(found[0, f"{kind}_above_float8_e4m3"], above, atol=1e-12)
        exponent = np.floor(np.log2(np.concatenate(some))).clip(-80, 40)
        np.testing.assert_allclose(
            found[0, f"{kind}_log2"], [np.mean(exponent == e) for e in range(-80, 41)], atol=1e-12
        )
    assert found[0, "delta_zero_float16"][0] > 0


def test_coordinates_are_how_far_the_signals_of_fixed_samples_have_moved() -> None:
    settings = {**BASE, "model.depth": 3, "train.steps": 3, "probe.every": 3, "data.batch_size": 8, "optim.lr": 0.2}
    settings["probe.instrument"] = "coordinates"
    found, other = read(settings, settings | {"seed": 1})
    run = build(settings)
    network, data = Plain(run), content(run.data)
    inputs, targets = torch.from_numpy(data.train_inputs).double(), torch.from_numpy(data.train_targets)
    before = [seen.z[0].detach() for seen in network(inputs[:32])]
    mover = torch.optim.SGD(network.parameters(), lr=0.2)
    for chosen in batches(run.data, len(inputs), 3):
        mover.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(network(inputs[chosen])[-1].z[0], targets[chosen]))
        mover.step()
    after = [seen.z[0].detach() for seen in network(inputs[:32])]
    sizes = [float(z.square().mean().sqrt()) for z in after]
    changes = [float((z - was).square().mean().sqrt()) for z, was in zip(after, before, strict=True)]
    np.testing.assert_allclose(found[3, "signal_rms"], sizes, rtol=1e-10)
    np.testing.assert_allclose(found[3, "signal_change"], changes, rtol=1e-10)
    assert (0, "signal_change") not in found
    assert not np.allclose(other[3, "signal_change"], changes)
