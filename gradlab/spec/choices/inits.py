"""How initial weights are scaled."""

from __future__ import annotations

from dataclasses import dataclass

from gradlab.spec.named import Choice, table


@dataclass(frozen=True)
class Init(Choice):
    """``models``: the architectures that it is for; every one that has `model.init` where there is none.

    ``by_fans``: its entries are independent, of a variance that goes by the fans alone.
    """

    models: tuple[str, ...] = ()
    by_fans: bool = False


INITS: dict[str, Init] = table(
    Init("xavier_normal", "N(0, 2/(fan_in+fan_out)); alias xavier", "Glorot & Bengio 2010", by_fans=True),
    Init("xavier_uniform", "uniform of variance 2/(fan_in+fan_out)", "Glorot & Bengio 2010", by_fans=True),
    Init("he_normal", "N(0, 2/fan_in), whatever the slope; alias he", "He et al. 2015, arXiv:1502.01852", by_fans=True),
    Init("he_uniform", "uniform of variance 2/fan_in", "He et al. 2015, arXiv:1502.01852", by_fans=True),
    Init("lecun_normal", "N(0, 1/fan_in); alias lecun", "LeCun et al. 1998, Efficient BackProp", by_fans=True),
    Init("lecun_uniform", "uniform of variance 1/fan_in", "LeCun et al. 1998, Efficient BackProp", by_fans=True),
    Init(
        "orthogonal",
        "a random orthogonal matrix (semi-orthogonal where not square)",
        "Saxe et al. 2013, arXiv:1312.6120",
    ),
    Init(
        "torch_default",
        "uniform of variance 1/(3 fan_in), biases too, as torch.nn.Linear",
        "PyTorch documentation, torch.nn.Linear",
        by_fans=True,
    ),
    Init(
        "lsuv",
        "orthogonal, then scaled layer by layer to signals W h of unit variance on the first batch",
        "Mishkin & Matas 2015, arXiv:1511.06422",
        ("mlp", "residual_mlp", "cnn", "resnet"),
    ),
    Init(
        "identity",
        "I from step to step, all else N(0, 0.001^2); without time I where square, else lecun_normal",
        "Le, Jaitly & Hinton 2015, arXiv:1504.00941",
    ),
    Init(
        "fixup",
        "of L branches of m layers all but the last he_normal by L^(-1/(2m-2)), it and the read-out 0",
        "Zhang et al. 2019, arXiv:1901.09321",
        ("residual_mlp", "resnet"),
        by_fans=True,
    ),
    Init(
        "delta_orthogonal",
        "an orthogonal matrix at the middle tap of a convolution and nothing around it",
        "Xiao et al. 2018, arXiv:1806.05393",
        ("cnn", "resnet"),
    ),
    Init(
        "zero_branches",
        "what ends a residual branch begins at 0, all else as xavier_normal",
        "Goyal et al. 2017, arXiv:1706.02677, section 5.1; Bachlechner et al. 2020, arXiv:2003.04887",
        ("transformer",),
        by_fans=True,
    ),
    Init(
        "zeros",
        "every weight 0: no symmetry is broken",
        "Goodfellow et al. 2016, Deep Learning, section 8.4",
        by_fans=True,
    ),
)
