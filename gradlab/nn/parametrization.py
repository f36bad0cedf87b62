"""How initial weights and learning rates go with the width, and the depth: by `model.parametrization`.

A parametrization is told without multipliers: a matrix that acts as s w, w being what is trained, is kept as it acts.
Then w's learning rate counts s^2 times where steps are as large as gradients (SGD), and s times where they are not
(Adam and its kin, whose eps counts 1/s times); gradients, clipping and decay are of what acts, in every
parametrization alike.

`mup` (Yang et al. 2022, arXiv:2203.03466, table 3; table 8 is the same with a multiplier of the output) is relative to
`model.base_width`, at which it is the standard one. `ntk` (Jacot et al. 2018, arXiv:1806.07572): every matrix acts as w
over the root of its fan-in, whatever the base.

Along the depth `mup` divides branches by the root of the depth over `model.base_depth`, where that is given, and with
them the rates at which Adam moves what is in them (Yang, Yu, Zhu & Hayou 2023, arXiv:2310.02244, table 1): L branches,
each of which moves the stream by 1/L, move it alike. A gradient has the root in it, so descent keeps its rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gradlab.nn.slots import MATRICES, Layout, Slot
from gradlab.spec.run import ModelSpec, RunSpec

GROWING = ("fan_in", "fan_out", "torch_fan", "size")
"""What of a slot may be proportional to `model.width`."""


@dataclass(frozen=True)
class Powers:
    """Of the width over the base: what the standard deviation at the base's fans, and a learning rate, go with."""

    deviation: float
    descent: float
    adaptive: float


MUP: dict[tuple[bool, bool], Powers] = {
    (False, False): Powers(0.0, 0.0, 0.0),
    (False, True): Powers(0.0, 1.0, 0.0),
    (True, True): Powers(-0.5, 0.0, -1.0),
    (True, False): Powers(-1.0, -1.0, -1.0),
}
"""Table 3 by whether the fan-in and the fan-out grow: input matrices and all vectors, hidden ones, output ones."""


def growing(layout: Layout, twice: Layout) -> Layout:
    """``layout`` with what grows in each of its slots, seen from the same at ``twice`` the width."""
    pairs = zip(layout.slots, twice.slots, strict=True)
    slots = tuple(
        replace(own, grows=frozenset(name for name in GROWING if getattr(wider, name) > getattr(own, name)))
        for own, wider in pairs
    )
    return Layout(slots, layout.names)


def at_base(slot: Slot, model: ModelSpec) -> tuple[Slot, float]:
    """The slot whose fans an init is asked with, and what the deviation that it gives is multiplied by."""
    if model.parametrization != "mup":
        return slot, 1.0
    ratio = _ratio(model)
    base = replace(slot, **{name: round(getattr(slot, name) / ratio) for name in slot.grows - {"size"}})
    return base, ratio ** MUP[_kind(slot)].deviation


def rate_factor(slot: Slot, model: ModelSpec, *, adaptive: bool) -> float:
    """What the learning rate of a parameter is multiplied by."""
    if model.parametrization == "mup":
        powers = MUP[_kind(slot)]
        return float(_ratio(model) ** (powers.adaptive if adaptive else powers.descent))
    if model.parametrization == "ntk" and slot.role in MATRICES:
        return float(slot.fan_in ** (-0.5 if adaptive else -1.0))
    return 1.0


def rate_factors(layout: Layout, runs: Sequence[RunSpec], *, adaptive: bool) -> list[tuple[slice, list[float]]]:
    """Neighbouring columns that share their factors, and those of the members; nothing where all are 1."""
    found: list[tuple[slice, list[float]]] = []
    for slot, span in zip(layout.slots, layout.columns, strict=True):
        inside = adaptive and 1 < slot.layer < len(layout.names)
        depth = [run.model.deeper**-0.5 if inside else 1.0 for run in runs]
        factors = [own * rate_factor(slot, run.model, adaptive=adaptive) for own, run in zip(depth, runs, strict=True)]
        if found and found[-1][1] == factors:
            found[-1] = (slice(found[-1][0].start, span.stop), factors)
        else:
            found.append((span, factors))
    return found if any(factor != 1 for _, factors in found for factor in factors) else []


def _ratio(model: ModelSpec) -> float:
    return model.width / model.drawn_width


def _kind(slot: Slot) -> tuple[bool, bool]:
    """Whether its fan-in and its fan-out grow; a vector has but one side."""
    if slot.role in MATRICES:
        return "fan_in" in slot.grows, "fan_out" in slot.grows
    return False, "size" in slot.grows
