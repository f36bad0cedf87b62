"""The kernels in Triton beside torch: by Triton's interpreter on the processor, compiled where there is a GPU."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from gradlab.engine.optim.clippers import clip, clipping
from gradlab.engine.optim.optimizers import OPTIMIZERS, rates
from gradlab.nn.float64 import sound_norm64
from gradlab.nn.kernels import compiler, fused, program
from gradlab.nn.norms import Affine, Mode, layer_norm, rms_norm
from gradlab.nn.slots import Layout
from gradlab.spec.named import Value
from gradlab.spec.run import build

if importlib.util.find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)

ON = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
if ON.type == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are first imported, which is in the first test

pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|divide by zero) encountered:RuntimeWarning")

SIZE = 1500
"""Parameters: more than one block, and no multiple of it."""


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.dtype]:
    """Nothing is left to the C kernels; `by_triton` turns the others on."""
    monkeypatch.setattr(program, "kernels", lambda _: None)
    torch.manual_seed(0)
    return request.param  # type: ignore[no-any-return]


def by_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "serves", lambda _: True)


def close(found: Tensor, wanted: Tensor) -> None:
    tolerance = 1e-12 if found.dtype == torch.float64 == wanted.dtype else 1e-6
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)


def test_norms_of_flat_storage(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(4, SIZE + 3, dtype=dtype, device=ON)[:, :SIZE] * 1e-30
    rows[2, -1], rows[3, 0] = torch.inf, torch.nan
    wanted = sound_norm64(rows)
    by_triton(monkeypatch)
    for found, expected in zip(sound_norm64(rows), wanted, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0, equal_nan=True)


def test_clipping(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = (("none", 1.0), ("norm", 0.5), ("norm", 1e9), ("value", 0.7), ("value", 9.0), ("normalize", 3.0))
    runs = [build({"clip.mode": mode, "clip.threshold": most}) for mode, most in (*ways, ("norm", 1.0))]
    rows = torch.randn(len(runs), SIZE, dtype=dtype, device=ON)
    rows[-1, 7] = torch.nan
    how = clipping(runs, rows, torch.zeros(1, dtype=torch.float64, device=ON))
    norm, other = sound_norm64(rows)[0], rows.clone()
    wanted = clip(rows, norm, how, Layout((), ()))
    by_triton(monkeypatch)
    found = clip(other, norm, how, Layout((), ()))
    close(other, rows)
    close(found.norm, wanted.norm)
    assert torch.equal(found.changed == 0, wanted.changed == 0)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sgd", {"optim.weight_decay": 0.1}),
        ("sgd", {"optim.momentum": 0.9, "optim.l1": 0.01}),
        ("sgd", {"optim.momentum": 0.9, "optim.nesterov": True}),
        ("adam", {"optim.weight_decay": 0.1}),
        ("adamw", {"optim.weight_decay": 0.1, "optim.l1": 0.01}),
    ],
)
def test_descent(name: str, settings: dict[str, Value], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [build({"optim.name": name, **settings, "optim.lr": lr}) for lr in (0.1, 0.01)]
    optimizer, columns = OPTIMIZERS[name], rates(runs, torch.empty(0, dtype=dtype, device=ON))
    begun, gradients = torch.randn(2, SIZE, dtype=dtype, device=ON), torch.randn(3, 2, SIZE, dtype=dtype, device=ON)

    def trained() -> Tensor:
        weights = begun.clone()
        state = optimizer.state(weights, columns)
        for t, gradient in enumerate(gradients):
            done = torch.full((1,), float(t), dtype=torch.float64, device=ON)
            optimizer.update(weights, gradient.clone(), state, columns, done)
        return weights

    wanted = trained()
    by_triton(monkeypatch)
    tolerance = 1e-11 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(trained(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("norm", [layer_norm, rms_norm])
def test_norms_of_a_sample(norm: object, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(norm)
    z, dy = torch.randn(2, 3, 5, 20, dtype=dtype, device=ON)
    gain, shift = torch.randn(2, 3, 20, dtype=dtype, device=ON)
    affine = Affine(gain, shift if norm is layer_norm else None, None)
    y, back = norm(z, affine, Mode.TRAIN)
    wanted = y, *back(dy)
    by_triton(monkeypatch)
    y, back = norm(z, affine, Mode.TRAIN)
    for found, expected in zip((y, *back(dy)), wanted, strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            torch.testing.assert_close(found, expected, rtol=1e-5 if dtype == torch.float32 else 1e-11, atol=1e-6)


def test_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADLAB_KERNELS", raising=False)
    assert not compiler.by_triton()
    monkeypatch.setenv("GRADLAB_KERNELS", "triton")
    assert compiler.by_triton()
    assert not fused.serves(torch.zeros(1))
