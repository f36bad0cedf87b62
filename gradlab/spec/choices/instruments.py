"""Instruments: what can be measured at the recorded steps beyond the per-layer table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradlab.spec.choices.formats import SHORT
from gradlab.spec.named import Choice, Value, table


@dataclass(frozen=True)
class Instrument(Choice):
    """``gives``: its quantities; ``needs``: the values that a key may have beside it.

    ``samples``: the least that the training part must hold, ``batch`` that a batch must; ``by_input``: it takes
    derivatives by the input; ``of_any``: it looks at parameters alone, which a network of the user's own has as well.
    """

    gives: tuple[str, ...] = ()
    needs: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    samples: int = 1
    batch: int = 1
    by_input: bool = False
    of_any: bool = False


_SINGLE = ("none", "layer", "rms", "group", "instance", "weight", None)

RANGED = ("weight", "gradient", "signal", "delta")
"""What `number_range` looks at: a layer's matrix, the loss's derivative by it, z, and the derivative by that."""

OUT_OF_RANGE = ("zero", "below", "above")
"""Entries, of those that are not zero, that a format rounds to zero, has below its normal numbers, or above all."""

INSTRUMENTS: dict[str, Instrument] = table(
    Instrument("none", "no instrument", "-"),
    Instrument(
        "jacobian_spectrum",
        "singular values of d(output)/d(input) at one sample, and how far their squares spread",
        "Pennington et al. 2017, arXiv:1711.04735",
        ("singular_value", "spread", "mean_square"),
        {"model.norm": _SINGLE},
        by_input=True,
    ),
    Instrument(
        "hidden_jacobian",
        "singular values of dz_(L-1)/dz_1 at one sample, and the largest over the least",
        "Pennington et al. 2017, arXiv:1711.04735; Xiao et al. 2018, arXiv:1806.05393",
        ("hidden_singular_value", "condition"),
        {"model.name": ("mlp", "residual_mlp", "cnn", "resnet"), "model.norm": _SINGLE},
    ),
    Instrument(
        "gradient_log",
        "ln |dy/dz_l|^2 by layer, y the first output at one sample: its moments over many seeds",
        "Hanin 2018, arXiv:1801.03744; Hanin & Nica 2018, arXiv:1812.05994",
        ("log_square",),
        {"model.norm": _SINGLE},
    ),
    Instrument(
        "gradient_noise",
        "gradient noise scale tr Sigma/|G|^2 from per-sample gradients: the batch size that is worth it",
        "McCandlish et al. 2018, arXiv:1812.06162",
        ("noise_scale", "gradient_variance", "gradient_square"),
        {"model.norm": _SINGLE},
        batch=2,
    ),
    Instrument(
        "jacobian_covariance",
        "how alike d(output)/d(input) of a batch's samples are: the score of search without training",
        "Mellor et al. 2020, arXiv:2006.04647",
        ("jacobian_score", "jacobian_correlation"),
        batch=2,
        by_input=True,
    ),
    Instrument(
        "input_autocorrelation",
        "d(output)/d(input) along a one-dimensional grid, and its autocorrelation by lag",
        "Balduzzi et al. 2017, arXiv:1702.08591",
        ("input_gradient", "autocorrelation"),
        {"data.name": ("interval",), "model.name": ("mlp", "residual_mlp")},
    ),
    Instrument(
        "recurrent_jacobian",
        "2-norm of dh_T/dh_(T-k) by the time steps k between, beside the bound (gamma rho)^k",
        "Pascanu et al. 2013, arXiv:1211.5063",
        ("jacobian_norm", "bound"),
        {"model.name": ("rnn",), "model.norm": ("none",)},
    ),
    Instrument(
        "input_correlation",
        "cosine of the signals z_l of two inputs by layer, the mean over pairs",
        "Poole et al. 2016, arXiv:1606.05340",
        ("correlation",),
        {"model.norm": _SINGLE},
        samples=2,
    ),
    Instrument(
        "token_similarity",
        "how alike the places of a sequence are by layer: distance to their mean, and their cosine",
        "Dong et al. 2021, arXiv:2103.03404",
        ("token_distance", "token_cosine"),
        {"model.name": ("transformer",)},
    ),
    Instrument(
        "tangent_kernel",
        "tangent kernel of one output: of two samples over one with itself, by layer and in all",
        "Jacot et al. 2018, arXiv:1806.07572; Hayou et al. 2019, arXiv:1905.13654",
        ("layer_ratio", "layer_predicted", "kernel_ratio", "kernel_predicted"),
        {"model.name": ("mlp",), "model.norm": ("none",)},
        samples=2,
    ),
    Instrument(
        "number_range",
        "what formats of 16 and 8 bits would lose of weights, signals and gradients; the sizes of these",
        "Micikevicius et al. 2018, arXiv:1710.03740, figure 3; Micikevicius et al. 2022, arXiv:2209.05433",
        (
            *(f"{kind}_{what}_{name}" for kind in RANGED for name in SHORT for what in OUT_OF_RANGE),
            *(f"{kind}_{what}" for kind in RANGED for what in ("exact_zero", "log2")),
        ),
    ),
    Instrument(
        "coordinates",
        "size of the signals z_l on samples that stay the same, and how far training has moved them",
        "Yang et al. 2022, arXiv:2203.03466, appendix D.1",
        ("signal_rms", "signal_change"),
    ),
    Instrument(
        "sharpness",
        "largest eigenvalue of the Hessian of the batch's loss, beside that at which descent is unstable",
        "Cohen et al. 2021, arXiv:2103.00065; Lanczos 1950",
        ("sharpness", "sharpness_error", "stable"),
    ),
    Instrument(
        "weight_motion",
        "share of the weights that training has left where they began, by layer",
        "Zamirai et al. 2020, arXiv:2010.06192",
        ("unmoved",),
        of_any=True,
    ),
    Instrument(
        "twin_distance",
        "distance to a training from nearly equal weights, and its Lyapunov exponent a step",
        "Herrmann et al. 2022, Chaotic dynamics are intrinsic to neural network training with SGD",
        ("log_distance", "exponent"),
        {"train.precision": ("float64",)},
    ),
    Instrument(
        "loss_plane",
        "loss and gradient over the plane of a single unit's recurrent weight and bias",
        "Pascanu et al. 2013, arXiv:1211.5063, figure 6",
        ("plane_loss", "plane_gradient", "plane_weight", "plane_bias", "cliff"),
        {"model.name": ("rnn",), "model.depth": (1,), "model.width": (1,), "model.norm": ("none",)},
    ),
    Instrument(
        "mode_strength",
        "strength of each mode that a linear network learns, beside Saxe's exact solution",
        "Saxe et al. 2013, arXiv:1312.6120, equation 12",
        ("strength", "predicted", "error"),
        {
            "model.name": ("linear_chain",),
            "model.depth": (2,),
            "data.name": ("spectral_teacher",),
            "data.batch_size": (256,),
            "data.input_scale": (1.0,),
            "optim.name": ("sgd",),
            "optim.schedule": ("constant",),
            "optim.warmup": (0,),
            **{f"optim.{key}": (0.0,) for key in ("momentum", "weight_decay", "l1")},
            "clip.mode": ("none",),
        },
    ),
)
"""What `probe.instrument` can be: beyond the per-layer table, each measured at the recorded steps."""
