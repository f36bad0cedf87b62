"""Synthetic histories of known pathology, each with the verdicts that it must get."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from gradlab.diagnose import History, Profile
from gradlab.diagnose.tables import JUDGED

RNG = np.random.default_rng(0)
LAYERS, STEPS = 20, 200


def profile(deltas: np.ndarray | None = None, axis: str = "depth", **columns: np.ndarray) -> Profile:
    """Layers 1..L at steps 0 and 200, healthy but for what is given; a column (L,) holds at both steps."""
    deltas = np.ones(LAYERS) if deltas is None else deltas
    blank = np.full(len(deltas), np.nan)
    values = dict.fromkeys(JUDGED, blank) | {
        "signal_grad_norm": deltas,
        "weight_grad_norm": np.maximum(deltas, 1e-6),
        "weight_norm": np.ones(len(deltas)),
        "act_std": np.ones(len(deltas)),
        "dead": np.full(len(deltas), 0.4),
        "saturated": np.full(len(deltas), 0.1),
        "grad_zero": np.zeros(len(deltas)),
        **columns,
    }
    both = {name: np.stack([column, column]) for name, column in values.items()}
    return Profile(axis, np.array([0, STEPS]), np.arange(1, len(deltas) + 1), both)


def at_two_steps(first: np.ndarray, last: np.ndarray) -> Profile:
    """δ (L,) at the first recorded step, and at the last."""
    one = profile(first)
    return replace(one, columns={**one.columns, "signal_grad_norm": np.stack([first, last])})


def falling(last: float = 0.1) -> np.ndarray:
    """A loss that goes from 2.3 to ``last`` with the noise of a batch."""
    loss: np.ndarray = 2.3 * (last / 2.3) ** np.linspace(0, 1, STEPS + 1) * np.exp(RNG.normal(0, 0.05, STEPS + 1))
    return loss


def healthy() -> History:
    updated = np.append(np.zeros(STEPS), np.nan)
    return History(
        along=(profile(),),
        loss=falling(),
        grad_norm=np.ones(STEPS + 1),
        grad_norm_clipped=np.where(np.isnan(updated), np.nan, 1.0),
        clipped=updated,
    )


def rate_of(factor: float, layers: int = LAYERS) -> np.ndarray:
    """‖δ_l‖ that changes by ``factor`` a layer on its way to the input, with a spread of 5 % a layer."""
    steps = RNG.normal(0, 0.05, layers)
    return np.asarray(factor ** np.arange(layers - 1, -1, -1.0) * np.exp(steps.cumsum()))


def clipping(share: float, scale: float, mode: str = "norm") -> History:
    clipped = np.append((np.arange(STEPS) < share * STEPS).astype(float), np.nan)
    after = np.where(clipped == 1, scale, 1.0)
    return replace(
        healthy(), loss=falling(1.8), clip_mode=mode, clipped=clipped, grad_norm_clipped=np.append(after[:-1], np.nan)
    )


def in_half(quantity: str, spec: dict[str, object], **columns: np.ndarray) -> History:
    """A run of float16 weights whose ``quantity`` is the first that is not finite, in layer 10 at step 200."""
    broken = {"signal": {"act_std": np.array([1.0] * 9 + [np.nan] * 11)}}[quantity] | columns
    first, last = profile().columns, profile(None, "depth", weight_norm=np.full(LAYERS, 300.0), **broken).columns
    both = {name: np.stack([first[name][0], column[0]]) for name, column in last.items()}
    return History(
        along=(replace(profile(), columns=both),),
        state="diverged",
        precision="float16",
        diverged_at=STEPS,
        diverged_layer=10,
        loss=np.append(np.linspace(2.4, 1.8, STEPS), np.nan),
        spec={"model.name": "mlp", "train.precision": "float16", **spec},
    )


def losing(loss: np.ndarray) -> History:
    return replace(healthy(), loss=loss)


def seen(*profiles: Profile) -> History:
    """A run that has hardly learned: a profile is no fact of one that has."""
    return replace(healthy(), along=profiles, loss=falling(1.8))


def passed(
    *, deltas: np.ndarray | None = None, spec: dict[str, object] | None = None, **columns: np.ndarray
) -> History:
    """One pass through somebody else's network, before any training."""
    return History(along=(profile(deltas, "depth", **columns),), measured=True, spec=spec or {}, loss=np.array([2.3]))


def told_of(**facts: object) -> History:
    """The same with what was seen of its batch, its output and its loss."""
    return replace(passed(), facts=facts)


def entropy(**facts: object) -> dict[str, object]:
    """A cross-entropy over ten classes, as `measure` tells of it."""
    return {"negative_log_likelihood": {"entries": 64, "classes": 10, "present": 10, "normalised": True} | facts}


def squared(scale: float) -> dict[str, object]:
    """A squared error whose targets have this scale."""
    return {"mean_squared_error": {"target_mean": 0.0, "target_std": scale, "target_largest": 3 * scale}}


DECAYING = 0.6 ** np.arange(9, -1, -1.0)
BROKEN_AT_8 = np.where(np.arange(LAYERS) < 7, 1e-6, 1.0) * np.exp(RNG.normal(0, 0.1, LAYERS))
ODD_LAYER = np.where(np.arange(LAYERS) == 7, 1e6, 1.0)

FLAT = 2.3 * np.exp(RNG.normal(0, 0.01, STEPS + 1))
NOISY = 2.3 * np.exp(np.random.default_rng(4).normal(0, 0.1, STEPS + 1))
SPIKE = np.concatenate([[2.3, 2.2, 9.0, 14.0, 12.0, 11.0, 9.0, 5.0], np.full(STEPS - 7, 2.31)])
ZIGZAG = np.where(np.arange(STEPS + 1) % 2 == 0, 2.3, 2.9)
BROKEN = np.append(falling()[:5], np.inf)

CASES: dict[str, tuple[History, str]] = {
    "healthy": (healthy(), "healthy"),
    "rate 0.5": (seen(profile(rate_of(0.5))), "vanishing"),
    "rate 0.99 in 10 layers": (seen(profile(rate_of(0.99, 10))), "healthy"),
    "rate 0.24 in 3 layers": (seen(profile(0.24 ** np.arange(2, -1, -1.0))), "healthy"),
    "rate 0.24 in 5 layers": (seen(profile(0.24 ** np.arange(4, -1, -1.0))), "vanishing"),
    "rate 0.98 in 300 layers": (seen(profile(0.98 ** np.arange(299, -1, -1.0))), "vanishing"),
    "the input's transient alone": (seen(profile(np.array([1e-3, 1e-2, 0.1, 0.5, *np.ones(16)]))), "healthy"),
    "rate 1.5": (seen(profile(rate_of(1.5))), "exploding"),
    "rate 1.05 in 10 layers": (seen(profile(rate_of(1.05, 10))), "healthy"),
    "along time": (seen(profile(), profile(rate_of(0.7, 30), axis="time")), "vanishing"),
    "exploding along time": (seen(profile(), profile(rate_of(1.3, 30), axis="time")), "exploding"),
    "nothing comes back": (
        seen(profile(np.array([*np.zeros(9), 1.0]), weight_grad_norm=np.zeros(10), grad_zero=np.ones(10))),
        "vanishing",
    ),
    "half of the units at rest": (seen(profile(dead=np.full(LAYERS, 0.6))), "healthy"),
    "dead": (seen(profile(dead=np.where(np.arange(LAYERS) == 7, 0.9, 0.3))), "dead"),
    "a dead layer stops the gradient": (
        seen(
            profile(
                np.array([*np.zeros(5), *np.ones(5)]),
                weight_grad_norm=np.array([*np.zeros(5), *np.ones(5)]),
                grad_zero=np.array([*np.ones(5), *np.full(5, 0.5)]),
                dead=np.array([0, 0, 0, 0, 1.0, 0, 0, 0, 0, np.nan]),
            )
        ),
        "dead+vanishing",
    ),
    "saturated": (seen(profile(saturated=np.where(np.arange(LAYERS) == 3, 0.7, np.nan))), "saturated"),
    "underflow": (
        seen(
            profile(
                0.01 ** np.arange(29, -1, -1.0),
                weight_grad_norm=np.array([*np.zeros(8), 1e-43, *0.01 ** np.arange(20, -1, -1.0)]),
                grad_zero=np.array([*np.ones(8), 0.6, *np.zeros(21)]),
            )
        ),
        "vanishing+underflow",
    ),
    "small numbers without a zero": (
        seen(profile(0.01 ** np.arange(18, -1, -1.0), weight_grad_norm=0.01 ** np.arange(18, -1, -1.0))),
        "vanishing",
    ),
    "the same in float64": (
        replace(seen(profile(0.01 ** np.arange(29, -1, -1.0), grad_zero=np.full(30, 0.1))), precision="float64"),
        "vanishing",
    ),
    "overclipped": (clipping(1.0, 0.01), "overclipped"),
    "every step clipped a little": (clipping(1.0, 0.8), "healthy"),
    "half of the steps clipped": (clipping(0.5, 0.01), "healthy"),
    "normalized by design": (clipping(1.0, 0.01, "normalize"), "healthy"),
    "a loss that does not move": (losing(FLAT), "stalled"),
    "a loss that has converged": (losing(np.append(2.3, FLAT[1:] / 100)), "healthy"),
    "a loss that falls slowly": (losing(np.linspace(2.3, 1.8, STEPS + 1) + RNG.normal(0, 0.02, STEPS + 1)), "healthy"),
    "a loss too noisy to tell": (losing(2.3 * np.exp(np.random.default_rng(1).normal(0, 0.5, STEPS + 1))), "healthy"),
    "a loss that climbs": (losing(2.3 * np.exp(np.minimum(np.arange(STEPS + 1) / 20, 3))), "oscillating"),
    "a loss that climbs and comes back": (losing(np.concatenate([SPIKE[:8], falling()[8:]])), "healthy"),
    "a loss that climbs and stays": (losing(SPIKE), "oscillating"),
    "a loss that alternates": (losing(ZIGZAG), "oscillating"),
    "a noisy loss that does not move from the start": (losing(NOISY), "stalled"),
    "a loss that begins to fall late": (losing(NOISY * np.minimum(1, 1.3 - np.arange(STEPS + 1) / 333)), "healthy"),
    "vanishing explains a loss that does not move": (
        replace(losing(FLAT), along=(profile(rate_of(0.5)),)),
        "vanishing",
    ),
    "clipping may explain a loss that does not move": (replace(clipping(1.0, 1e-3), loss=FLAT), "overclipped+stalled"),
    "few steps say nothing of the loss": (losing(FLAT[:30]), "healthy"),
    "a profile is no fact of a run that has learned": (replace(healthy(), along=(profile(rate_of(0.5)),)), "healthy"),
    "nor is a clip": (replace(clipping(1.0, 0.01), loss=falling()), "healthy"),
    "from a bad beginning down to a guess": (
        replace(losing(np.append(9.0, FLAT[1:])), guess=math.log(10)),
        "stalled",
    ),
    "too noisy to tell, and no better than a guess": (
        replace(losing(2.4 * np.exp(np.random.default_rng(1).normal(0, 0.5, STEPS + 1))), guess=math.log(10)),
        "stalled",
    ),
    "what was learned is lost again": (
        losing(np.concatenate([falling(0.17)[::4], np.full(STEPS - 50, 5.0)])),
        "oscillating",
    ),
    "what was learned is half lost again": (
        losing(np.concatenate([falling(0.1)[::4], np.full(STEPS - 75, 1.42), np.full(25, 1.1)])),
        "oscillating",
    ),
    "one spike early on": (losing(np.concatenate([[2.3, 2.2, 80.0], falling()[3:]])), "healthy"),
    "lost by the end": (
        replace(healthy(), loss=falling(2.2), along=(at_two_steps(np.ones(LAYERS), rate_of(0.5)),)),
        "vanishing",
    ),
    "a decay that Adam makes good": (passed(deltas=DECAYING), "healthy"),
    "the same under plain descent": (passed(deltas=DECAYING, spec={"optim.name": "sgd"}), "vanishing"),
    "the same before rectified Adam can tell the scale": (
        replace(passed(deltas=DECAYING, spec={"optim.name": "radam"}), loss=np.linspace(2.3, 2.2, 6)),
        "vanishing",
    ),
    "the same once it can": (
        replace(passed(deltas=DECAYING, spec={"optim.name": "radam"}), loss=np.linspace(2.3, 2.2, 7)),
        "healthy",
    ),
    "a decay that Adam makes good through no hundred layers": (passed(deltas=rate_of(0.96, 100)), "vanishing"),
    "growth through norms": (passed(deltas=1.3 ** np.arange(19, -1, -1.0), normalised=np.ones(LAYERS)), "healthy"),
    "growth without norms": (passed(deltas=1.3 ** np.arange(19, -1, -1.0), normalised=np.zeros(LAYERS)), "exploding"),
    "one broken layer": (passed(deltas=BROKEN_AT_8), "vanishing"),
    "one that explodes": (passed(deltas=1 / BROKEN_AT_8), "exploding"),
    "one of another scale": (passed(weight_norm=ODD_LAYER), "ill_scaled"),
    "zeros below the fit": (passed(deltas=np.array([0.0, 0.0, 0.0, *np.ones(17)])), "vanishing"),
    "zeros below what starts at zero": (
        passed(deltas=np.array([*np.zeros(19), 1.0]), starts_at_zero=np.array([*np.zeros(19), 1.0])),
        "healthy",
    ),
    "no gradient at all": (
        passed(deltas=np.zeros(LAYERS), weight_grad_norm=np.zeros(LAYERS), grad_zero=np.ones(LAYERS)),
        "no_gradient",
    ),
    "the same in half precision": (
        replace(
            passed(deltas=np.zeros(LAYERS), weight_grad_norm=np.zeros(LAYERS), grad_zero=np.ones(LAYERS)),
            precision="float16",
        ),
        "underflow",
    ),
    "a sigmoid network in half precision": (
        replace(passed(deltas=np.array([*np.zeros(4), *0.236 ** np.arange(15, -1, -1.0)])), precision="float16"),
        "vanishing",
    ),
    "eps that is zero": (in_half("signal", {"optim.name": "adam", "optim.eps": 1e-8}), "diverged"),
    "a sum beyond 65,504": (in_half("signal", {}, act_std=np.array([300.0] * 9 + [np.nan] * 11)), "diverged"),
    "weights that do not move": (
        History(
            along=(profile(weight_norm=np.full(LAYERS, 10.0), grad_norm=np.ones(LAYERS), grad_rms=np.ones(LAYERS)),),
            loss=np.random.default_rng(0).normal(2.3, 0.02, STEPS + 1),
            precision="bfloat16",
            spec={"model.name": "mlp", "optim.name": "sgd", "optim.lr": 1e-3, "train.precision": "bfloat16"},
        ),
        "stalled",
    ),
    "clipped before unscaling": (
        History(
            along=(profile(),),
            loss=np.linspace(2.3, 1.8, STEPS + 1),
            grad_norm=np.ones(STEPS),
            grad_norm_clipped=np.full(STEPS, 2.0**-16),
            clipped=np.ones(STEPS),
            loss_scale=np.full(STEPS, 2.0**16),
            clip_mode="norm",
        ),
        "overclipped",
    ),
    "a part that is cut off": (passed(cut=np.where(np.arange(LAYERS) == 9, 1.0, 0.0)), "vanishing"),
    "a cell that forgets": (
        replace(passed(), along=(profile(), profile(0.6 ** np.arange(39, -1, -1.0), axis="time"))),
        "healthy",
    ),
    "a cell that forgets at once": (
        replace(passed(), along=(profile(), profile(0.2 ** np.arange(39, -1, -1.0), axis="time"))),
        "vanishing",
    ),
    "every step is read": (
        replace(passed(), along=(profile(), replace(profile(0.2 ** np.arange(39, -1, -1.0), axis="time"), reads=True))),
        "healthy",
    ),
    "attention at one place": (passed(attention_entropy=np.full(LAYERS, 0.1)), "saturated"),
    "softmax twice": (told_of(losses=entropy(), into_loss=["log_softmax", "softmax"]), "misspecified"),
    "logits as they should be": (told_of(losses=entropy(), into_loss=["log_softmax"]), "healthy"),
    "activation on logits": (told_of(losses=entropy(), into_loss=["log_softmax", "relu"]), "misspecified"),
    "no log-probabilities": (told_of(losses=entropy(normalised=False), into_loss=["softmax"]), "misspecified"),
    "one unit": (told_of(units=1, into_loss=["softmax"]), "misspecified"),
    "one class": (told_of(losses=entropy(present=1), into_loss=["log_softmax"]), "misspecified"),
    "targets out of reach": (told_of(losses=squared(3.0), into_loss=["sigmoid"]), "misspecified"),
    "no activation": (told_of(linear=True), "misspecified"),
    "a norm over one number": (told_of(least_normed=1), "misspecified"),
    "small inputs": (told_of(input_mean=0.0, input_std=1e-4), "ill_scaled"),
    "inputs far from zero": (told_of(input_mean=1000.0, input_std=1.0), "ill_scaled"),
    "large targets": (told_of(losses=squared(1e3)), "ill_scaled"),
    "a first loss far from ln C": (replace(told_of(losses=entropy()), loss=np.array([60.0])), "ill_scaled"),
    "a penalty that decides": (
        replace(told_of(losses=entropy(value=2.3, weight=1.0)), loss=np.array([1e4]), guess=2.3),
        "ill_scaled",
    ),
    "what is left of a penalty where a network has learned": (
        replace(told_of(losses=entropy(value=1e-5, weight=1.0)), loss=np.array([0.5]), guess=2.3),
        "healthy",
    ),
    "a loss of the wrong sign": (
        replace(told_of(losses=entropy(value=2.3, weight=-1.0)), loss=np.array([-2.3])),
        "misspecified",
    ),
    "one side of a game": (replace(told_of(losses=entropy(value=2.3, weight=-1.0)), loss=np.array([2.3])), "healthy"),
    "a loss that has no end": (replace(passed(), loss=-(1.1 ** np.arange(100.0))), "misspecified"),
    "dropout of 99 %": (told_of(dropped=0.99), "ill_scaled"),
    "one output for all": (told_of(output_mean=1.0, output_std=0.0, output_between=1e-7), "collapsed"),
    "equal weights": (passed(equal_weights=np.where(np.arange(LAYERS) == 3, 1.0, 0.0)), "collapsed"),
    "growth through norms while it learns": (
        replace(seen(profile(1.3 ** np.arange(19, -1, -1.0))), spec={"model.norm": "batch"}),
        "healthy",
    ),
    "growth through norms of what does not learn": (
        replace(seen(profile(1.3 ** np.arange(19, -1, -1.0))), spec={"model.norm": "batch"}, loss=FLAT),
        "exploding",
    ),
    "growth that training brought about while it learns": (
        seen(at_two_steps(np.ones(LAYERS), rate_of(1.3))),
        "healthy",
    ),
    "growth that training brought about beyond what can be made good": (
        seen(at_two_steps(np.ones(LAYERS), rate_of(1.6))),
        "exploding",
    ),
    "growth that training brought about, and nothing learned": (
        replace(losing(FLAT), along=(at_two_steps(np.ones(LAYERS), rate_of(1.3)),)),
        "exploding",
    ),
    "a text, whose loss comes near no zero": (
        replace(
            seen(profile(rate_of(0.5))), loss=falling(2.4) + 2 * 0.5 ** np.arange(STEPS + 1), guess=3.1, open_ended=True
        ),
        "healthy",
    ),
    "the same loss where the answer can be known": (
        replace(seen(profile(rate_of(0.5))), loss=falling(2.4) + 2 * 0.5 ** np.arange(STEPS + 1), guess=3.1),
        "vanishing",
    ),
    "a loss that climbs and comes back to a guess, far below where it began": (
        replace(
            losing(np.concatenate([[1.0, 5.0, 6.0, 5.0, 5.0, 3.0], np.linspace(0.3, 0.15, STEPS - 5)])), guess=1 / 6
        ),
        "healthy",
    ),
    "a loss that falls, and would not come to a guess in twice the steps": (
        replace(losing(np.linspace(4.5, 3.8, STEPS + 1) + RNG.normal(0, 0.02, STEPS + 1)), guess=3.1),
        "stalled",
    ),
    "a loss that would": (
        replace(losing(np.linspace(4.5, 3.3, STEPS + 1) + RNG.normal(0, 0.02, STEPS + 1)), guess=3.1),
        "healthy",
    ),
    "steps too short for any gradient": (
        replace(losing(FLAT), along=(profile(rate_of(0.5), update_ratio=np.full(LAYERS, 1e-7)),)),
        "vanishing+stalled",
    ),
    "crashed": (replace(healthy(), state="failed"), ""),
    "initial weights alone": (History(along=(profile(),)), "healthy"),
    "no layers at all": (History(along=()), "healthy"),
}
