"""Steps played by blocks of a GPU, emulated: whole trainings beside torch's, on the processor and on a fake card."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from gradlab.data.facts import described
from gradlab.engine.cohort import prepare
from gradlab.engine.launches import Captured
from gradlab.engine.playing import perform, rehearse
from gradlab.engine.train import train
from gradlab.launch.rounds import kernels as asked_for
from gradlab.nn import activations
from gradlab.nn.kernels import blocks, native
from gradlab.nn.kernels.compiler import kept
from gradlab.nn.kernels.program import Blocks, Program, Uploaded
from gradlab.spec.named import Value
from gradlab.store.record import tidy
from tests import emulation
from tests.card import Card, fake_cards
from tests.members import content, differences, measured, split, trained_with

pytestmark = emulation.needed

ROOT = Path(__file__).parents[2]

SMALL: dict[str, Value] = {
    "train.steps": 60,
    "train.precision": "float64",
    "probe.every": 7,
    "model.width": 6,
    "model.depth": 3,
    "data.batch_size": 16,
}

COHORTS: dict[str, list[dict[str, Value]]] = {
    "each way of clipping, and one that diverges": [
        {"clip.mode": mode, "optim.momentum": 0.9, "optim.nesterov": True, "optim.lr": lr}
        for mode, lr in (("none", 0.1), ("norm", 1.0), ("value", 1.0), ("layerwise", 0.5), ("normalize", 1e30))
    ],
    "batch, adam, a cosine": [
        {"model.norm": "batch", "model.activation": "tanh", "optim.name": "adam", "optim.schedule": "cosine"}
    ],
    "layer, adamw, residual": [
        {"model.norm": "layer", "model.activation": "prelu", "optim.name": "adamw", "model.name": "residual_mlp"}
    ],
    "rms, rmsprop, a plateau": [
        {
            "model.norm": "rms",
            "model.activation": "silu",
            "optim.name": "rmsprop",
            "optim.schedule": "plateau",
            "optim.momentum": 0.5,
            "optim.lr": 0.001,
        }
    ],
    "weight, adagrad, dropout": [
        {"model.norm": "weight", "model.activation": "gelu", "optim.name": "adagrad", "model.dropout": 0.2}
    ],
    "regression, mup": [
        {
            "data.name": "linear_teacher",
            "model.activation": "selu",
            "model.parametrization": "mup",
            "optim.lr": 0.05,
            "optim.weight_decay": 0.01,
            "optim.l1": 0.01,
            "model.width": 70,
            "train.steps": 12,
        }
    ],
    "a recurrence": [{"model.name": "rnn", "model.activation": "tanh", "model.depth": 1, "train.steps": 12}],
}


@pytest.mark.parametrize("cohort", COHORTS.values(), ids=COHORTS)
def test_a_training_is_torch_s(cohort: list[dict[str, Value]]) -> None:
    members = [{**SMALL, **settings, "seed": seed} for seed, settings in enumerate(cohort)]
    with trained_with("torch"):
        wanted = measured(*members)
    with trained_with("blocks"):
        found = measured(*members)
    # In front of a batch norm the gradient of a bias is what is left of numbers that cancel, or zero.
    skip = ("grad_zero",) if cohort[0].get("model.norm") == "batch" else ()
    for mine, theirs in zip(found, wanted, strict=True):
        assert not list(differences(mine, theirs, 1e-10, 1e-12, skip))


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    """A fake one that plays blocks."""
    monkeypatch.setenv("GRADLAB_KERNELS", "blocks")
    monkeypatch.setattr(blocks, "_compiled", emulation.kernel)
    with fake_cards() as made:
        yield made
    for remembered in (native._edges, native._shared_numbers, activations._shared):  # constants, on that card
        remembered.cache_clear()


@pytest.fixture(params=["fake", pytest.param("cuda", marks=pytest.mark.gpu)])
def player(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """A card that plays blocks and captures nothing, a fake one, or a real one where there is one."""
    if request.param == "fake":
        request.getfixturevalue("card")
    elif not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setenv("GRADLAB_KERNELS", "blocks")
    monkeypatch.delattr("gradlab.engine.playing.captured")
    return torch.device("cuda:0")


@pytest.mark.parametrize(
    "settings",
    [
        {"model.norm": "batch", "model.activation": "leaky_relu", "optim.schedule": "cosine", "data.name": "digits"},
        {
            "model.norm": "layer",
            "model.activation": "sigmoid",
            "optim.schedule": "plateau",
            "data.name": "linear_teacher",
        },
    ],
    ids=["classes", "numbers"],
)
def test_what_is_played_on_a_card_is_what_torch_does(player: torch.device, settings: dict[str, Value]) -> None:
    modes = ("layerwise", "norm", "none")
    members = [{**SMALL, **settings, "clip.mode": mode, "seed": seed} for seed, mode in enumerate(modes)]
    members[-1]["optim.lr"] = 1e308 if settings["data.name"] == "digits" else 0.01
    runs = [described(values) for values in members]
    with trained_with("torch"):
        wanted = measured(*members)
    found = split(runs, tidy(train(runs, content(runs[0].data), player, lambda *_: None)))
    for mine, theirs in zip(found, wanted, strict=True):
        assert not list(differences(mine, theirs, 1e-10, 1e-12, ("grad_zero",)))


def test_steps_are_launched_many_at_a_time_and_nobody_waits(card: Card) -> None:
    run = described({**SMALL, "train.precision": "float32", "optim.schedule": "cosine"})
    cohort = prepare([run], content(run.data), torch.device("cuda:0"))
    rehearsed = rehearse(cohort)
    assert all(isinstance(found, Program) for found in rehearsed.values())
    before, card.mode = card.waits, "error"
    (rows,) = perform(cohort, range(50), range(0, 50, 7), rehearsed, np.arange(1))
    assert card.waits == before
    card.mode = "default"
    assert len(rows.tables) == 8
    assert torch.isfinite(rows.values.cpu()).all()


def test_a_launch_takes_no_more_steps_than_a_number_has_bits() -> None:
    nothing = Uploaded(Blocks(frozenset(), lambda *_: None), torch.empty(0), 0, 1)
    with pytest.raises(ValueError, match="65 steps in a launch; expected 64 at most"):
        blocks._launch(None, nothing, nothing, np.ones(65, dtype=np.bool_), 0)


def test_without_a_compiler_for_the_card_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADLAB_KERNELS", "blocks")
    run = described({**SMALL, "train.steps": 12})
    with fake_cards():  # of a build without CUDA, which has no such compiler
        cohort = prepare([run], content(run.data), torch.device("cuda:0"))
        with pytest.raises(RuntimeError, match=r"GRADLAB_KERNELS=blocks: PyTorch .* cannot compile it for this card"):
            rehearse(cohort)


def test_what_was_compiled_is_kept_and_made_again_where_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = list[bytes]()

    def make() -> bytes:
        made.append(b"binary %d" % len(made))
        return made[-1]

    assert {kept(["source"], make) for _ in range(2)} == {b"binary 0"}
    assert kept(["another"], make) == b"binary 1"
    for path in tmp_path.rglob("*.bin"):
        path.write_bytes(b"rubbish")
    assert kept(["source"], make) == b"binary 2"
    (tmp_path / "gradlab" / "kernels").rename(tmp_path / "away")
    (tmp_path / "gradlab" / "kernels").write_text("in the way", encoding="utf-8")
    assert kept(["source"], make) == b"binary 3"


def test_the_manifest_says_that_blocks_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADLAB_KERNELS", "blocks")
    run = described({"train.precision": "float32"})
    assert asked_for([run], "cuda:0") == {"float32": "blocks"}
    assert asked_for([run], "cpu")["float32"] != "blocks"


RACES = """
import sys
from tests import emulation
from tests.members import measured, trained_with
from tests.nn.test_blocks import COHORTS, SMALL

emulation.FLAGS += ("-fsanitize=thread", "-g")
with trained_with("blocks"):
    for name in ("batch, adam, a cosine", "layer, adamw, residual"):
        measured({**SMALL, **COHORTS[name][0], "train.steps": 11, "probe.every": 5})
"""


def test_no_thread_reads_what_another_is_about_to_write(tmp_path: Path) -> None:
    sanitizer = subprocess.run(["gcc", "-print-file-name=libtsan.so"], capture_output=True, text=True, check=True)
    library = Path(sanitizer.stdout.strip()).resolve()
    if not library.is_absolute() or not library.is_file():
        pytest.skip("no ThreadSanitizer")
    options = {"LD_PRELOAD": str(library), "TSAN_OPTIONS": f"log_path={tmp_path}/race ignore_noninstrumented_modules=1"}
    found = subprocess.run([sys.executable, "-c", RACES], cwd=ROOT, env={**os.environ, **options}, check=False)
    assert found.returncode == 0, "".join(path.read_text() for path in tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_the_source_is_cuda(tmp_path: Path) -> None:
    (tmp_path / "blocks.cu").write_text(blocks.source(32), encoding="utf-8")
    command = ["nvcc", "-arch=sm_90", "-ptx", *blocks.OPTIONS, "-o", str(tmp_path / "blocks.ptx")]
    subprocess.run([*command, str(tmp_path / "blocks.cu")], check=True)


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("settings", [{"model.name": "lstm"}, {"train.precision": "tf32"}], ids=["kernel", "product"])
def test_what_blocks_do_not_have_leaves_the_step_to_a_capture(settings: dict[str, Value]) -> None:
    run = described({**SMALL, **settings, "train.steps": 12})
    rehearsed = rehearse(prepare([run], content(run.data), torch.device("cuda:0")))
    assert all(isinstance(found, Captured) for found in rehearsed.values())
