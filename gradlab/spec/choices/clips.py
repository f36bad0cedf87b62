"""How gradients are clipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradlab.spec.named import Choice, Value, table


@dataclass(frozen=True)
class Clip(Choice):
    """``uses``: the keys of `clip` that act; ``defaults``: its values of them where they differ from `norm`'s.

    ``always``: it shortens nearly every gradient by design, so that doing so is no fault.
    """

    uses: tuple[str, ...] = ()
    defaults: Mapping[str, Value] = field(default_factory=dict)
    always: bool = False


CLIPS: dict[str, Clip] = table(
    Clip("none", "gradients as they are", "-"),
    Clip(
        "norm",
        "g*min(1, c/(|g|+1e-6)), |g| over all parameters",
        "Pascanu et al. 2013; torch clip_grad_norm_, Keras global_clipnorm",
        ("threshold",),
    ),
    Clip(
        "value", "each entry clamped to -c..c", "Mikolov 2012; torch clip_grad_value_, Keras clipvalue", ("threshold",)
    ),
    Clip(
        "layerwise",
        "as norm, each layer by itself; the output layer may have its own threshold",
        "Keras clipnorm is its cousin, per tensor",
        ("threshold", "output_threshold"),
    ),
    Clip(
        "normalize",
        "g*c/(|g|+1e-6), always",
        "normalized gradient descent, Hazan et al. 2015, arXiv:1507.02030",
        ("threshold",),
        always=True,
    ),
    Clip("soft", "g*c/(|g|+c), always", "Zhang et al. 2019, arXiv:1905.11881", ("threshold",), always=True),
    Clip(
        "agc",
        "each unit's gradient to at most c times the norm of its weights; c 0.01",
        "Brock et al. 2021, arXiv:2102.06171; timm, optax",
        ("threshold",),
        {"threshold": 0.01},
    ),
    Clip(
        "autoclip",
        "as norm, at the c-th percentile of all norms so far; c 10",
        "Seetharaman et al. 2020, arXiv:2007.14469",
        ("threshold",),
        {"threshold": 10.0},
        always=True,
    ),
    Clip(
        "zclip",
        "spikes alone: norms more than c deviations above their running mean; c 2.5",
        "Kumar et al. 2025, arXiv:2504.02507",
        ("threshold",),
        {"threshold": 2.5},
    ),
    Clip(
        "skip",
        "no update at all where |g| is above c",
        "Chowdhery et al. 2022, arXiv:2204.02311, section 5.1, which skips the batches of a spike",
        ("threshold",),
    ),
)
