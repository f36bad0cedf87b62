"""Which clipping fits: norms whose spikes, scatter and growth are known, and a training with bad batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from gradlab.diagnose import History
from gradlab.diagnose.clip_advice import advise, summed_up, thresholds
from gradlab.diagnose.tables import histories
from tests.commands import Gradlab
from tests.diagnose.cases import at_two_steps, profile

STEPS = 300
FLAT = np.full(STEPS, 2.0)
FALLS = np.linspace(2, 0.1, STEPS)


def noise(spread: float) -> np.ndarray:
    drawn: np.ndarray = np.exp(np.random.default_rng(0).normal(0, spread, STEPS))
    return drawn


def spiked(times: float, *places: int) -> np.ndarray:
    norms = noise(0.2)
    norms[list(places)] *= times
    return norms


def trained(norms: np.ndarray, loss: np.ndarray = FLAT, **more: object) -> History:
    clipped = np.append(np.zeros(len(norms) - 1), np.nan)
    history = History(along=(), loss=loss[: len(norms)], grad_norm=norms, grad_norm_clipped=norms, clipped=clipped)
    return replace(history, **more)  # type: ignore[arg-type]


OFTEN = spiked(12.0, *range(3, STEPS, 8))
DRIFT = np.exp(-np.linspace(0, 4, STEPS))

CASES: dict[str, tuple[History, str]] = {
    "even": (trained(noise(0.2)), "none"),
    "rare spikes": (trained(spiked(6.0, 60, 110, 205)), "zclip"),
    "a spike before zclip knows what is usual": (trained(spiked(6.0, 12, 110, 205)), "norm"),
    "bad batches": (trained(spiked(50.0, 60, 110, 205)), "skip"),
    "a heavy tail": (trained(OFTEN), "norm"),
    "a heavy tail that drifts": (trained(OFTEN * DRIFT), "autoclip"),
    "scatter, nothing learned": (trained(noise(1.2)), "norm"),
    "scatter that drifts, nothing learned": (trained(noise(1.2) * DRIFT), "autoclip"),
    "scatter, learned": (trained(noise(1.2), FALLS), "none"),
    "growth, nothing learned": (trained(noise(0.2) / DRIFT), "norm"),
    "growth, learned": (trained(noise(0.2) / DRIFT, FALLS), "none"),
    "a steep start": (trained(noise(0.2) * (1 + 40 * np.exp(-np.arange(STEPS) / 4))), "none"),
    "one layer of steps too long": (
        trained(
            noise(0.2),
            along=(profile(update_ratio=np.array([0.3, *[0.001] * 19])),),
            spec={"optim.name": "sgd", "optim.lr": 0.5},
        ),
        "agc",
    ),
    "grown into infinity": (
        trained(np.append(noise(0.2)[:20], 10.0 ** np.arange(1, 12)), state="diverged", diverged_at=30),
        "norm",
    ),
    "broken from a usual norm": (trained(np.append(noise(0.2)[:50], np.nan), state="diverged", diverged_at=50), "none"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_mode_that_fits(case: str) -> None:
    history, mode = CASES[case]
    advice = advise(history)
    assert advice is not None
    assert advice.mode == mode
    assert advice.sentence.startswith(f"clipping: clip.mode={mode}")


def test_thresholds_clip_the_share_that_they_say() -> None:
    for share, norm in thresholds(noise(0.5)).items():
        assert (noise(0.5) > norm).mean() == pytest.approx(share, abs=2 / STEPS)
    advice = advise(trained(noise(0.2), clip_mode="norm", spec={"clip.threshold": 0.5}))
    assert advice is not None
    assert advice.present == 1.0
    assert "exceeded at 100 % of the steps" in advice.sentence


def test_spikes_are_told_with_the_median_around_them() -> None:
    advice = advise(trained(spiked(6.0, 60, 61, 205)))
    assert advice is not None
    norms = spiked(6.0, 60, 61, 205)
    first, second = advice.spikes
    assert (first.step, second.step) == (60 + int(norms[61] > norms[60]), 205)
    assert first.norm == norms[first.step]
    assert first.around == np.median(norms[first.step - 25 : first.step + 26])


@pytest.mark.parametrize("times", [6.0, 50.0])
def test_a_threshold_against_spikes_lets_all_others_pass(times: float) -> None:
    norms = spiked(times, 12, 110, 205)
    advice = advise(trained(norms))
    assert advice is not None
    assert advice.threshold is not None
    assert np.flatnonzero(norms > advice.threshold).tolist() == [12, 110, 205]


def test_of_a_divergence_the_norms_on_the_way_to_infinity_do_not_count() -> None:
    history = replace(CASES["grown into infinity"][0], loss=np.full(31, 2.0))
    advice = advise(replace(history, loss=np.append(np.full(30, 2.0), 0.0)))
    assert advice is not None
    assert advice.norms.max() < 100 * advice.norms[0]
    assert advise(trained(noise(0.2)[:30])) is None, "too few steps"


def test_agc_is_for_gradient_descent_and_for_a_layer_that_stands_out() -> None:
    history = CASES["one layer of steps too long"][0]
    for other in (
        replace(history, spec={"optim.name": "adam", "optim.lr": 0.5}),
        replace(history, along=(profile(update_ratio=np.full(20, 0.3)),)),
        replace(history, along=(at_two_steps(np.ones(20), np.ones(20)),)),
    ):
        advice = advise(other)
        assert advice is not None
        assert advice.mode == "none"


def test_several_runs_are_summed_up() -> None:
    found = [advise(CASES[name][0]) for name in ("even", "bad batches", "rare spikes", "scatter, learned")]
    told = summed_up([one for one in found if one is not None])
    assert told.startswith("clipping, of 4 runs: none 2, skip 1, zclip 1; 2 with spikes; over all 1,196 steps 1 % of")


def test_the_bad_batches_of_a_training_are_found(tmp_path: Path, gradlab_: Gradlab) -> None:
    bad, out = 30, tmp_path / "out"
    keys = ("model.depth=3", f"data.bad_every={bad}", "train.steps=120", "probe.every=120")
    assert gradlab_("run", "--no-report", "-o", str(out), *keys).status == 0
    tables = [pq.read_table(out / f"{name}.parquet") for name in ("runs", "steps", "layers")]
    advice = advise(histories(*tables)[0])
    assert advice is not None
    assert [spike.first for spike in advice.spikes] == [29, 59, 89, 119]
    assert advice.mode == "zclip"
