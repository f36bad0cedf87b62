"""How gradients are clipped."""

from __future__ import annotations

from dataclasses import dataclass

from gradlab.spec.named import Choice, table


@dataclass(frozen=True)
class Clip(Choice):
    """``uses``: the keys of `clip` that act."""

    uses: tuple[str, ...] = ()


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
    ),
)
