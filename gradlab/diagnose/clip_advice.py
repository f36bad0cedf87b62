"""Which way of clipping fits a training, and at which threshold: by the norms of its gradients before clipping.

A threshold is a quantile of norms, and so a question about this training alone: ``clip.threshold=1`` clips all of one
and nothing of another. A spike is a norm that stands out of those around it; how the others scatter says from when on.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradlab.diagnose.course import learned
from gradlab.diagnose.history import Floats, History, Ints
from gradlab.diagnose.numbers import figure
from gradlab.diagnose.thresholds import DEFAULTS

SHARES = (0.01, 0.05, 0.1)
"""Shares of the steps that a threshold is told for: Pascanu et al. 2013, section 3.2, take it from the usual norms."""

AROUND = 51
"""Steps of the running median that a norm is compared with, half of them later ones."""

SPIKE, UNUSUAL = 3.0, 6.0
"""A spike is so many times the median around it, and so many deviations of ln(norm/median) (1.4826 times their median
absolute value, which a tenth of spikes hardly moves)."""

RARE = 0.05
"""More spikes than so many of the steps are no exceptions, but how these norms are distributed."""

OUTRIGHT = 10.0
"""A batch whose norm is so many times the usual one has nothing to say that the others do not contradict."""

COURSE = 10.0
"""Where the running median changes so many times, no one threshold suits the whole training."""

RUNAWAY = 100.0
"""A norm so many times the first is no measure of what is usual: it is on its way to infinity."""

LEAST = 40
"""With fewer steps nothing is advised but of a run that diverged: `diagnose.least_steps`."""

WARMUP = 25
"""Steps in which zclip gathers norms and clips nothing (Kumar et al. 2025, section 3)."""

UNEVEN, FAR = 10.0, 0.1
"""agc: a layer changes by more than a tenth of itself a step, and so many times as much as the layer in the middle."""

STEADY = 0.01
"""And what its threshold lets it change by: c*lr of itself (Brock et al. 2021, section 4.1: c 0.01 at rates near 1)."""


@dataclass(frozen=True)
class Spike:
    """Neighbouring steps that stand out, from ``first`` on: the highest of them, its norm, and the median around it."""

    first: int
    step: int
    norm: float
    around: float

    @property
    def times(self) -> float:
        """How many times the median around it."""
        return self.norm / self.around


@dataclass(frozen=True)
class Advice:
    """Which clipping fits one run: ``mode`` (of `clip.mode`) with its ``threshold``, and the ``reason`` in words.

    ``norms`` (S,) are those that count (`seen`). ``spikes`` are in order; ``spiking`` is the share of steps in them.
    ``usual`` is the most that another step is of the median around it. ``present``: the share of steps above the
    threshold that the run has, None where it has none of that kind.
    """

    norms: Floats
    spikes: tuple[Spike, ...]
    spiking: float
    usual: float
    mode: str
    threshold: float | None
    reason: str
    present: float | None = None

    @property
    def thresholds(self) -> Mapping[float, float]:
        """By the share of steps that a threshold of `clip.mode=norm` would clip."""
        return thresholds(self.norms)

    @property
    def overrides(self) -> str:
        """As it is typed."""
        return f"clip.mode={self.mode}" + ("" if self.threshold is None else f" clip.threshold={self.threshold:g}")

    @property
    def sentence(self) -> str:
        """All of it for a reader."""
        told = [f"clipping: {self.overrides} fits: {self.reason}", spikes_told(self.spikes, len(self.norms))]
        if self.present is not None:
            told.append(f"the threshold that it has is exceeded at {_percent(self.present)} of the steps")
        return "; ".join([*filter(None, told), thresholds_told(self.thresholds)])


def thresholds(norms: Floats, shares: Sequence[float] = SHARES) -> Mapping[float, float]:
    """The norm that each share of ``norms`` (S,) exceeds, to three digits."""
    return {share: _rounded(float(np.quantile(norms, 1 - share))) for share in shares} if norms.size else {}


def thresholds_told(found: Mapping[float, float]) -> str:
    """In words: which norm so many steps are above."""
    first, *more = (f"{_percent(share)} {{}}above {figure(norm)}" for share, norm in found.items())
    return ", ".join([first.format("of the norms are "), *(one.format("") for one in more)])


def spikes_told(spikes: Sequence[Spike], steps: int) -> str:
    """How many, how large, and where the largest is; empty without one."""
    if not spikes:
        return ""
    largest = max(spikes, key=lambda one: one.times)
    where = f"at step {largest.step}, {figure(largest.norm)} where {figure(largest.around)} is usual"
    if len(spikes) == 1:
        return f"one spike in {steps} steps, {where}"
    least = min(one.times for one in spikes)
    return (
        f"{len(spikes)} spikes in {steps} steps, {figure(least, 2)} to {figure(largest.times, 2)} times the median "
        f"around them, the largest {where}"
    )


def seen(norms: Floats, losses: Floats, *, diverged: bool) -> tuple[Ints, Floats]:
    """Steps and norms that a threshold may be taken from: finite and above zero.

    Of a run that diverged those up to its lowest loss and before the first that is `RUNAWAY` times that of step 0: what
    follows is what a threshold must not let pass.
    """
    end = norms.size
    if diverged and losses.size:
        high = np.flatnonzero(norms > RUNAWAY * norms[0])
        lowest = int(np.argmin(np.where(np.isfinite(losses), losses, np.inf))) + 1
        end = min(lowest, *high[:1].tolist(), end)
    kept = np.flatnonzero(np.isfinite(norms[:end]) & (norms[:end] > 0))
    return kept, norms[kept]


def advise(history: History) -> Advice | None:
    """Which clipping fits a run; None where too few norms are known of one that did not diverge."""
    made = history.grad_norm[: np.isfinite(history.clipped).sum()] if np.isfinite(history.clipped).any() else None
    all_norms = history.grad_norm if made is None or history.state == "diverged" else made
    diverged = history.state == "diverged"
    steps, norms = seen(all_norms, history.loss[: all_norms.size], diverged=diverged)
    if norms.size < (1 if diverged else LEAST):
        return None
    middle = _median_around(norms)
    ratio = norms / middle
    begun, spiking = _spiking(ratio, settled=not diverged)
    spikes = _peaks(steps, norms, middle, spiking)
    usual = float(ratio[begun:][~spiking[begun:]].max())
    present = None
    if history.clip_mode in ("norm", "skip") and (own := history.spec.get("clip.threshold")) is not None:
        present = float((norms > own).mean())
    share = float(spiking.mean())
    tail = float(np.quantile(ratio[begun:], 0.99))
    found = _diverged(history, norms) or _against_spikes(norms, middle, spikes, share, usual)
    mode, threshold, reason = found or _against_scatter(history, norms, middle, usual, tail)
    if begun > 1 and ratio[:begun].max() > usual and not diverged:
        reason += f"; the first {begun} steps, up to {figure(float(ratio[:begun].max()), 2)} times it, ask for a warmup"
    return Advice(norms, spikes, share, usual, mode, threshold, reason, present)


Chosen = tuple[str, float | None, str]


def _diverged(history: History, norms: Floats) -> Chosen | None:
    """A run whose norms grew into its divergence; where the last one was usual, clipping does not mend what broke."""
    if history.state != "diverged":
        return None
    finite = history.grad_norm[np.isfinite(history.grad_norm)]
    usual, last = float(np.median(norms)), float(finite[-1])
    if finite.size < history.grad_norm.size and last < SPIKE * usual:
        return "none", None, f"it diverged from a usual norm, {figure(last)}: what broke was no step too long"
    limit = thresholds(norms, (0.1,))[0.1]
    return "norm", limit, f"it diverged, and its norms had grown from {figure(usual)} to {figure(float(finite.max()))}"


def _against_spikes(
    norms: Floats, middle: Floats, spikes: Sequence[Spike], share: float, usual: float
) -> Chosen | None:
    """Rare ones are passed over where each is outright and apart from all others, and shortened where not."""
    if not spikes:
        return None
    if len(spikes) > RARE * norms.size:
        often = f"{_percent(share)} of the steps stand out: that is no exception but a heavy tail"
        return _tail(often, middle, thresholds(norms, (share,))[share])
    rare = f"spikes are rare, and all other norms within {figure(usual, 2)} times the median around them"
    least, rest = min(one.norm for one in spikes), float(np.sort(norms)[: -len(spikes)].max())
    if min(one.times for one in spikes) > OUTRIGHT and least > SPIKE * rest:
        between = _rounded(math.sqrt(least * rest))
        return "skip", between, f"{rare}; so large a norm is that of a batch to be passed over, and none lies between"
    if spikes[0].first < WARMUP:
        # What zclip gathers its figures from must not be a spike.
        limit = thresholds(norms, (share,))[share]
        return "norm", limit, f"{rare}; the first comes at step {spikes[0].first}, before zclip knows what is usual"
    return "zclip", 2.5, f"{rare}; it follows what is usual, and needs no number of yours"


def _against_scatter(history: History, norms: Floats, middle: Floats, usual: float, tail: float) -> Chosen:
    """Where nothing stands out: nothing, unless a loss that does not fall says that steps may be too long."""
    grown, well = float(middle[-1] / middle.min()), learned(history, DEFAULTS)
    if grown > COURSE and not well:
        before = thresholds(norms[: int(middle.argmin()) + 1], (0.1,))[0.1]
        return "norm", before, f"norms grow {figure(grown, 2)} times, and the loss has not come down"
    if (uneven := _uneven(history)) is not None:
        return uneven
    if tail > SPIKE and not well:
        scatter = f"no step stands out, but 1 % of the norms are {figure(tail, 2)} times the median around them or more"
        return _tail(scatter, middle, thresholds(norms, (0.1,))[0.1])
    in_spite = "; the loss has come down all the same" if tail > SPIKE or grown > COURSE else ""
    return "none", None, f"no norm is more than {figure(usual, 2)} times the median around it{in_spite}"


def _tail(scatter: str, middle: Floats, limit: float) -> Chosen:
    """A threshold for what scatters; none that is fixed where the usual norm itself moves."""
    change = float(middle.max() / middle.min())
    if change > COURSE:
        drift = f"the median changes {figure(change, 2)} times, which no one threshold follows"
        return "autoclip", 10.0, f"{scatter}, and {drift}"
    return "norm", limit, scatter


def _uneven(history: History) -> Chosen | None:
    """One layer that gradient descent moves out of all proportion to its weights."""
    profile, lr = history.depth, history.spec.get("optim.lr")
    if profile is None or not lr or history.adaptive or "update_ratio" not in profile.columns:
        return None
    updates = profile.columns["update_ratio"]
    updates = updates[np.isfinite(updates).any(1)]
    if not len(updates) or np.isnan(updates).all(0).any() or updates.shape[1] < 3:
        return None
    each = np.nanmedian(updates, axis=0)
    most, middle = float(each.max()), float(np.median(each))
    if not (most > FAR and most > UNEVEN * middle):
        return None
    where = profile.place(int(profile.layer[each.argmax()]))
    how = f"{where} changes by {_percent(most)} of itself a step, the layer in the middle by {_percent(middle)}"
    return "agc", _rounded(STEADY / float(lr)), f"the whole norm is even, but {how}"


def _median_around(norms: Floats) -> Floats:
    """(S,) The median over the `AROUND` steps around each, as many as there are on both sides of it at the ends."""
    half = min(AROUND, len(norms) - (len(norms) + 1) % 2) // 2
    padded = np.pad(norms, half, mode="reflect") if half else norms
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    # A million steps at once would be copied fifty times.
    return np.concatenate([np.median(windows[at : at + 2**16], axis=1) for at in range(0, len(norms), 2**16)])


def _spiking(ratio: Floats, *, settled: bool) -> tuple[int, np.typing.NDArray[np.bool_]]:
    """Where norms first come down to the median around them, and which steps (S,) stand out from then on.

    Of a run that is not ``settled`` an end that stays up is no spike.
    """
    logs = np.log(ratio)
    deviation = 1.4826 * float(np.median(np.abs(logs)))
    out = logs > max(math.log(SPIKE), UNUSUAL * deviation)
    low = np.flatnonzero(ratio <= math.sqrt(SPIKE))
    out[: low[0]] = False
    if not settled:
        out[low[-1] + 1 :] = False
    return int(low[0]), out


def _peaks(steps: Ints, norms: Floats, middle: Floats, spiking: np.typing.NDArray[np.bool_]) -> tuple[Spike, ...]:
    """The highest step of each stretch of neighbours that stand out."""
    places = np.flatnonzero(spiking)
    if not places.size:
        return ()
    found = []
    for stretch in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1):
        top = int(stretch[norms[stretch].argmax()])
        found.append(Spike(int(steps[stretch[0]]), int(steps[top]), float(norms[top]), float(middle[top])))
    return tuple(found)


def summed_up(found: Sequence[Advice]) -> str:
    """Of several runs: which mode fits how many, how many have spikes, and the thresholds over all of their steps."""
    count = Counter(one.mode for one in found)
    modes = ", ".join(f"{mode} {number}" for mode, number in count.most_common())
    spiky = sum(bool(one.spikes) for one in found)
    norms = np.concatenate([one.norms for one in found])
    return (
        f"clipping, of {len(found)} runs: {modes}; {spiky} with spikes; over all {norms.size:,} steps "
        f"{thresholds_told(thresholds(norms))}"
    )


def _percent(share: float) -> str:
    """A share in words.

    >>> _percent(0.05), _percent(0.0049), _percent(1.0)
    ('5 %', '0.49 %', '100 %')
    """
    return f"{figure(100 * share, 3 if share >= 1 else 2)} %"


def _rounded(value: float) -> float:
    """Three digits: a threshold is no finer."""
    return float(f"{value:.3g}")
