"""The compiled kernels: each equals torch, a written-down step equals the step, and without a compiler torch serves."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gradlab.engine.cohort import Cohort, prepare
from gradlab.engine.playing import rehearse
from gradlab.engine.step import advance
from gradlab.nn.activations import ACTIVATIONS, phi, phi_back
from gradlab.nn.kernels import calls, compiler, native, program
from gradlab.nn.kernels.calls import Shared
from gradlab.nn.kernels.compiler import SOURCE, library
from gradlab.nn.kernels.program import write_down
from gradlab.nn.products import join, split
from gradlab.spec.named import Value
from gradlab.spec.run import build
from tests.members import content, trained_with

pytestmark = pytest.mark.skipif(library("float64") is None, reason="no C compiler")


@pytest.fixture(params=["kernels", "blocks"])
def player(request: pytest.FixtureRequest) -> Iterator[None]:
    """What plays the calls: the processor, or the blocks of a GPU, emulated."""
    with trained_with(request.param):
        yield


EXACT = {torch.float32: 2e-5, torch.float64: 1e-12}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def names_of(enumeration: str) -> list[str]:
    """The names of the enumeration in the kernels' source that begins with this one."""
    source = "".join(path.read_text(encoding="utf-8") for path in SOURCE.iterdir())
    found = re.search(rf"enum \{{\s*({enumeration}\b[^}}]*)\}}", source)
    assert found is not None
    return [name.strip().lower() for name in found[1].split(",") if name.strip()]


def test_the_numbers_of_kernels_activations_and_clips_are_those_of_the_source() -> None:
    assert names_of("PRODUCT") == list(calls.KERNELS)
    assert names_of("RELU") == list(native.ACTIVATIONS)
    assert names_of("NONE") == list(native.CLIPS)


@pytest.mark.usefixtures("player")
@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize(
    "sizes",
    [(1, 1, 1), (5, 10, 3), (6, 64, 64), (13, 33, 17), (64, 10, 64), (10, 64, 64), (7, 130, 9), (3, 4, 0)],
)
def test_products_of_any_size_and_stride_equal_torch_s(sizes: tuple[int, int, int], dtype: torch.dtype) -> None:
    n, p, k = sizes
    forms = {
        "as they lie": (draw(3, n, k, dtype=dtype), draw(3, k, p, seed=1, dtype=dtype)),
        "left transposed": (draw(3, k, n, dtype=dtype).transpose(1, 2), draw(3, k, p, seed=1, dtype=dtype)),
        "right transposed": (draw(3, n, k, dtype=dtype), draw(3, p, k, seed=1, dtype=dtype).transpose(1, 2)),
        "views": (draw(3, n, k + 2, dtype=dtype)[:, :, 1:-1], draw(3, k, 2 * p, seed=1, dtype=dtype)[:, :, ::2]),
    }
    starts = (None, draw(3, 1, p, seed=2, dtype=dtype), draw(3, n, p, seed=2, dtype=dtype))
    for a, b in forms.values():
        for start in starts:
            wanted = torch.bmm(a, b) if start is None else torch.baddbmm(start, a, b)
            found = native.product(a, b, start)
            torch.testing.assert_close(found, wanted, rtol=EXACT[dtype], atol=EXACT[dtype])
    flat = draw(3, 5 + n * p, dtype=dtype)
    place = flat[:, 5:].view(3, n, p)
    wanted = torch.baddbmm(place, *forms["left transposed"])
    native.product(*forms["left transposed"], place, place)
    torch.testing.assert_close(place, wanted, rtol=EXACT[dtype], atol=EXACT[dtype])


ENDS = [0.0, -0.0, 1e-30, -1e-40, 0.3, -0.3, 1.0, -1.0, 30.0, -30.0, 90.0, -90.0, 1e4, -1e4, torch.inf, -torch.inf]


@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.parametrize("name", [name for name, entry in ACTIVATIONS.items() if entry.kernel is not None])
def test_activations_equal_torch_s_to_the_ends_of_the_range(name: str, dtype: torch.dtype) -> None:
    entry, slope = ACTIVATIONS[name], 0.25
    z = torch.cat([torch.linspace(-20, 20, 4001), torch.tensor(ENDS)]).to(dtype).view(1, 1, -1)
    dh, exact = torch.ones_like(z), 64 * torch.finfo(dtype).eps
    h = phi(entry, z, slope)
    tiny = torch.finfo(dtype).tiny
    # Far below zero torch's 1 + erf has lost what is left of gelu, and in single precision it has nan for infinity.
    wanted, least = (
        (entry.value(z.double(), slope).to(dtype), exact) if name == "gelu" else (entry.value(z, slope), tiny)
    )
    torch.testing.assert_close(h, wanted, rtol=exact / 8, atol=least, equal_nan=True)
    known = h if entry.by_value else z
    dz, _ = phi_back(entry, dh, known, slope, learned=False)
    finite = z.isfinite()
    torch.testing.assert_close(dz[finite], entry.back(dh, known, slope)[finite], rtol=exact, atol=exact)
    assert phi(entry, torch.full((1, 1, 3), torch.nan, dtype=dtype), slope).isnan().all()


SETTINGS: dict[str, dict[str, Value]] = {
    "relu": {},
    "batch, tanh, momentum": {"model.norm": "batch", "model.activation": "tanh", "optim.momentum": 0.9},
    "layer, prelu, adam": {"model.norm": "layer", "model.activation": "prelu", "optim.name": "adam", "optim.lr": 0.01},
    "rms, silu, adamw": {"model.norm": "rms", "model.activation": "silu", "optim.name": "adamw", "optim.lr": 0.01},
    "a cosine behind a warmup": {"optim.schedule": "cosine", "optim.warmup": 3, "optim.lr": 0.3},
    "residual, selu": {"model.name": "residual_mlp", "model.activation": "selu", "model.branch_scale": 0.5},
    "chain": {"model.name": "linear_chain", "data.name": "linear_teacher", "model.width": 8, "model.gain": 0.9},
    "a transformer": {"model.name": "transformer", "model.depth": 1, "data.length": 5, "model.activation": "softplus"},
    "a transformer, qk norm, rows of digits": {
        "model.name": "transformer",
        "model.depth": 1,
        "data.name": "digits",
        "model.qk_norm": True,
        "model.norm_place": "sandwich",
    },
    "digits row by row": {"model.name": "rnn", "model.depth": 1, "model.activation": "tanh"},
}


def cohort(settings: dict[str, Value], **more: Value) -> Cohort:
    common: dict[str, Value] = {"model.width": 16, "model.depth": 4, "train.steps": 20, "data.batch_size": 32}
    modes = ("layerwise", "none", "norm", "normalize", "value")
    runs = [build({**common, **settings, **more, "clip.mode": mode, "seed": seed}) for seed, mode in enumerate(modes)]
    return prepare(runs, content(runs[0].data), torch.device("cpu"))


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_step_written_down_is_the_step_bit_for_bit(settings: dict[str, Value], precision: str, threads: int) -> None:
    made, played = (
        cohort(settings, **{"train.precision": precision}),
        cohort(settings, **{"train.precision": precision}),
    )
    programs = rehearse(played)
    written = [record for record, found in programs.items() if found is not None]
    assert False in written
    for t in range(6):
        record = t % 3 == 0 and True in written
        wanted = advance(made, t, record=record)
        found = programs[record]
        assert found is not None
        assert isinstance(found, program.Program)
        assert len(found.parts) == threads
        lr = played.pace.turn_to(t)
        program.play_steps((found, found), np.array([False]), t, np.arange(len(played.runs)))
        row = found.result.with_figures(t, lr, [slot[0] for slot in found.slots])
        assert torch.equal(row.loss, wanted.loss)
        assert torch.equal(row.grad_norm, wanted.grad_norm)
        assert row.clipped is not None
        assert wanted.clipped is not None
        assert torch.equal(row.clipped.norm, wanted.clipped.norm)
        assert torch.equal(row.clipped.changed, wanted.clipped.changed)
        if record:
            assert row.measurement is not None
            assert wanted.measurement is not None
            assert torch.equal(row.measurement.values, wanted.measurement.values)
            assert (row.measurement.held == wanted.measurement.held).all()
    for mine, theirs in zip(played.moving, made.moving, strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.usefixtures("player")
def test_members_that_are_not_played_stay_as_they_are() -> None:
    found = cohort(SETTINGS["batch, tanh, momentum"])
    before = [tensor.clone() for tensor in found.moving]
    step = rehearse(found)[False]
    assert isinstance(step, program.Program)
    assert all(torch.equal(*pair) for pair in zip(found.moving, before, strict=True)), "written down, not made"
    found.task.turn_to(0)
    step.play(np.array([1, 3]))
    for now, then in zip(found.moving, before, strict=True):
        assert torch.equal(now[[0, 2, 4]], then[[0, 2, 4]])
        assert not torch.equal(now[[1, 3]], then[[1, 3]])


@pytest.mark.parametrize("output", ["tanh", "softmax"])
def test_what_is_more_than_kernels_is_not_written_down(output: str) -> None:
    assert rehearse(cohort({"model.output": output}))[False] is None


@pytest.mark.usefixtures("player")
@pytest.mark.parametrize("dtype", EXACT)
def test_the_tails_of_gelu_are_right_to_the_last_digits(dtype: torch.dtype) -> None:
    """Beside erfc in double precision, which torch's gelu is not made of."""
    z = torch.linspace(-9, 9, 4001, dtype=dtype).view(1, 1, -1)
    wide = z.double()
    wanted = wide * 0.5 * torch.special.erfc(-wide / math.sqrt(2))
    found = phi(ACTIVATIONS["gelu"], z, 0.0).double()
    # The exponent z^2/2 is as exact as its rounding.
    torch.testing.assert_close(found, wanted, rtol=100 * torch.finfo(dtype).eps, atol=0)


def test_an_operation_of_torch_s_is_refused_before_it_is_lost() -> None:
    x, out = draw(2, 3, 4), draw(2, 3, 4)
    assert write_down(lambda: native.add(x, None, 2.0, out=out)) is not None
    assert write_down(lambda: native.add(x * 2, None, 2.0, out=out)) is None
    assert write_down(lambda: float(native.add(x, None, out=out).sum())) is None


@pytest.mark.usefixtures("player")
def test_what_is_passing_has_one_place_for_all_members_and_stays_as_it_is() -> None:
    x, passing, out = draw(3, 4), torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3, 4, dtype=torch.float64)

    def step() -> Tensor:
        native.add(x, None, 2.0, out=passing)
        return native.add(passing[:, 1:3], x[:, 1:3], 3.0, out=out[:, 1:3])

    program = write_down(step, passing=[passing])
    assert program is not None
    assert torch.equal(program.play(np.arange(3)), 3.0 * (2.0 * x[:, 1:3]) + x[:, 1:3])
    assert not passing.any()
    assert not out[:, [0, 3]].any()


@pytest.mark.usefixtures("player")
def test_an_argument_that_all_share_has_no_member_axis() -> None:
    slope = Shared(torch.tensor([0.5], dtype=torch.float64))
    found = native.activate("leaky", -torch.ones(3, 2, 2, dtype=torch.float64), slope)
    assert found.unique().tolist() == [-0.5]


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and nothing remembered of what was compiled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library.cache_clear()
    yield tmp_path
    library.cache_clear()


def test_kernels_are_compiled_once_into_the_cache(fresh: Path) -> None:
    first = library("float32")
    assert first is not None
    assert first.is_relative_to(fresh)
    written = first.stat().st_mtime_ns
    library.cache_clear()
    assert library("float32") == first
    assert first.stat().st_mtime_ns == written
    assert {file.suffix for file in first.parent.iterdir()} == {".so", ".lock"}


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("named", ["false", "true", "no-such-compiler -O2"])
def test_a_compiler_that_fails_is_none(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_compiler", named.split)
    assert library("float32") is None


@pytest.mark.usefixtures("fresh")
def test_no_compiler_and_the_switch_leave_the_work_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADLAB_KERNELS", "torch")
    assert library("float32") is None
    library.cache_clear()
    monkeypatch.delenv("GRADLAB_KERNELS")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    assert library("float32") is None


def test_a_cache_that_cannot_be_written_leaves_the_work_to_torch(fresh: Path) -> None:
    (fresh / "gradlab").write_text("in the way", encoding="utf-8")
    assert library("float32") is None


@pytest.mark.parametrize("dtype", EXACT)
def test_rows_are_copied_looked_up_and_added_up_as_torch_does(dtype: torch.dtype) -> None:
    steps = draw(2, 3, 4, 5, dtype=dtype)
    torch.testing.assert_close(native.copied(steps[:, :, 1]), steps[:, :, 1], rtol=0, atol=0)
    torch.testing.assert_close(join(split(steps)), steps, rtol=0, atol=0)
    tokens = torch.tensor([[[0, 6, 6], [2, 0, 6]]]).expand(2, -1, -1).contiguous()
    bias, grad = draw(2, 4, dtype=dtype), draw(2, 2, 3, 4, seed=1, dtype=dtype)
    for table in (draw(2, 7, 4, seed=2, dtype=dtype), draw(2, 4, 7, seed=2, dtype=dtype).transpose(1, 2)):
        known = table.clone().requires_grad_()
        wanted = torch.stack([functional.embedding(*one) for one in zip(tokens, known, strict=True)])
        torch.testing.assert_close(native.look_up(table, tokens, None), wanted, rtol=0, atol=0)
        torch.testing.assert_close(native.look_up(table, tokens, bias), wanted + bias[:, None, None], rtol=0, atol=0)
        (found,) = torch.autograd.grad(wanted, known, grad)
        for more in (False, True):
            place = torch.empty_like(table).copy_(table)
            native.look_up_back(place, tokens, grad, more=more)
            torch.testing.assert_close(place, found + more * table, rtol=EXACT[dtype], atol=EXACT[dtype])


@pytest.mark.usefixtures("player")
@pytest.mark.parametrize("dtype", EXACT)
def test_cross_entropy_of_several_places_is_torch_s(dtype: torch.dtype) -> None:
    output, chosen = draw(2, 3, 4, 5, dtype=dtype).requires_grad_(), torch.tensor([6, 0, 3])
    classes = torch.randint(5, (7, 4), generator=torch.Generator().manual_seed(0))
    targets = classes[chosen].flatten()
    wanted = torch.stack([functional.cross_entropy(one.flatten(0, 1), targets) for one in output])
    (derivative,) = torch.autograd.grad(wanted.sum(), output)
    loss, slope = native.cross_entropy(output.detach(), classes, chosen)
    torch.testing.assert_close(loss, wanted.detach(), rtol=EXACT[dtype], atol=EXACT[dtype])
    torch.testing.assert_close(slope, derivative, rtol=EXACT[dtype], atol=EXACT[dtype])
