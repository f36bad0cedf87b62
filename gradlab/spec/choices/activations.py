"""The activations: what enters a layer's signal z and comes out as h = φ(z)."""

from __future__ import annotations

from dataclasses import dataclass

from gradlab.spec.named import Choice, table


@dataclass(frozen=True)
class Activation(Choice):
    """``never_saturates``: has no `saturated`; ``relu_family``: has `dead`; ``slope``: the default of model.slope."""

    never_saturates: bool = False
    relu_family: bool = False
    slope: float = 0.01


ACTIVATIONS: dict[str, Activation] = table(
    Activation("sigmoid", "1/(1+exp(-z)); slope at most 1/4", "Glorot & Bengio 2010"),
    Activation("tanh", "odd and bounded; slope 1 at the origin", "LeCun et al. 1998, Efficient BackProp"),
    Activation("relu", "max(z, 0)", "Nair & Hinton 2010", never_saturates=True, relu_family=True),
    Activation("leaky_relu", "z, or slope*z below zero", "Maas et al. 2013", never_saturates=True, relu_family=True),
    Activation(
        "prelu",
        "leaky_relu whose slope is learned, one a layer",
        "He et al. 2015, arXiv:1502.01852",
        never_saturates=True,
        relu_family=True,
        slope=0.25,
    ),
    Activation("elu", "z, or exp(z)-1 below zero", "Clevert et al. 2015, arXiv:1511.07289"),
    Activation(
        "selu", "scaled elu whose fixed point has mean 0, variance 1", "Klambauer et al. 2017, arXiv:1706.02515"
    ),
    Activation("gelu", "z*Phi(z), Phi the normal distribution function", "Hendrycks & Gimpel 2016, arXiv:1606.08415"),
    Activation("silu", "z*sigmoid(z), also called swish", "Elfwing et al. 2017, arXiv:1702.03118"),
    Activation("softplus", "ln(1+exp(z)), a smooth relu", "Dugas et al. 2001"),
    Activation("hardtanh", "z clamped to -1..1", "Collobert 2004"),
    Activation("linear", "z itself", "Saxe et al. 2013, arXiv:1312.6120", never_saturates=True),
)
