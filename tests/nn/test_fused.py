"""The kernels in Triton beside torch: by Triton's interpreter on the processor, compiled where there is a GPU."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gradlab.engine.optim.clippers import clip, clipping
from gradlab.engine.optim.optimizers import OPTIMIZERS, rates
from gradlab.nn.float64 import sound_norm64
from gradlab.nn.kernels import calls, compiler, fused
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
    monkeypatch.setattr(calls, "kernels", lambda _: None)
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
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
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
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    for found, expected in zip((y, *back(dy)), wanted, strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRADLAB_KERNELS", raising=False)
    assert compiler.on_a_gpu() == "torch"
    monkeypatch.setenv("GRADLAB_KERNELS", "triton")
    assert compiler.on_a_gpu() == "triton"
    assert not fused.serves(torch.zeros(1))


COMPILED = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from gradlab.nn.kernels import triton_source

DOUBLE, WHOLE = {"norm", "broken", "threshold", "after", "changed", "done"}, {"count", "batch", "width"}
for name in ("sound_norm", "clip", "sgd", "adam", "layer_norm", "layer_norm_back", "affine_back"):
    kernel = getattr(triton_source, name)
    fixed = {"BLOCK": 64, "EPS": 1e-5}
    names = kernel.arg_names
    constant = {one: fixed.get(one, True) for one in names if one.isupper()}
    types = {
        one: "constexpr" if one in constant
        else "*fp64" if one in DOUBLE
        else "*i64" if one == "mode"
        else "i32" if one in WHOLE or one.endswith("stride")
        else "*fp32"
        for one in names
    }
    source = ASTSource(kernel, types, {(names.index(one),): value for one, value in constant.items()})
    assert compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
    print(name)
"""


def test_they_are_compiled_for_a_hopper_gpu(tmp_path: Path) -> None:
    """Without one: the interpreter takes what the compiler may not."""
    where = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    where |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path(fused.__file__).parents[3])}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPILED], env=where, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.split()) == 7
