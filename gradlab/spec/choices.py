"""Every named choice: its name, what it is, where it comes from, the keys it adds and the shapes it needs.

The tables are literal and torch-free, so that ``gradlab list``, ``--plan`` and every error message cost no import of
torch. The engine maps the same names to functions, and a test holds the two equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from gradlab.spec.named import Choice as Choice
from gradlab.spec.named import SpecError as SpecError
from gradlab.spec.named import Value as Value
from gradlab.spec.named import closest as closest
from gradlab.spec.named import lookup as lookup
from gradlab.spec.named import nearest as nearest
from gradlab.spec.named import table
from gradlab.spec.observed import INSTRUMENTS as INSTRUMENTS
from gradlab.spec.observed import PROBES as PROBES


@dataclass(frozen=True)
class Activation(Choice):
    """``piecewise_linear``: no `saturated`; ``relu_family``: has `dead`; ``slope``: the default of model.slope."""

    piecewise_linear: bool = False
    relu_family: bool = False
    slope: float = 0.01


@dataclass(frozen=True)
class Norm(Choice):
    """``over_batch``: statistics are shared by the samples of a batch, so a batch of one is an error."""

    over_batch: bool = False


@dataclass(frozen=True)
class Optimizer(Choice):
    """``uses``: the keys of `optim` that act; ``defaults``: torch's values of them where they differ from SGD's."""

    uses: tuple[str, ...] = ()
    defaults: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Clip(Choice):
    """``uses``: the keys of `clip` that act."""

    uses: tuple[str, ...] = ()


def _feed_forward(depth: int, width: int, shape: tuple[int, ...], outputs: int) -> list[tuple[int, int, int]]:
    widths = [math.prod(shape), *[width] * (depth - 1), outputs]
    return [(fan_in, fan_out, 1) for fan_in, fan_out in pairwise(widths)]


def _recurrent(depth: int, width: int, shape: tuple[int, ...], outputs: int) -> list[tuple[int, int, int]]:
    steps, features = shape
    inputs = [features, *[width] * (depth - 1)]
    return [*((fan_in + width, width, steps) for fan_in in inputs), (width, outputs, 1)]


@dataclass(frozen=True)
class Model(Choice):
    """``keys``: the keys of `model` with their defaults; ``data``: the data it takes unless told otherwise."""

    keys: Mapping[str, Value] = field(default_factory=dict)
    data: str = "digits"
    norms: tuple[str, ...] = ("none", "batch", "layer", "rms")
    least_depth: int = 1
    needs_time: bool = False
    matrices: Callable[[int, int, tuple[int, ...], int], list[tuple[int, int, int]]] = _feed_forward


@dataclass(frozen=True)
class Data(Choice):
    """One data set: its extra keys with their defaults, and the shapes that do not depend on them.

    ``loss`` is ``cross_entropy`` (nats), ``mean_squared_error`` or ``quartic``; ``shape`` is (features,) or (time,
    features), with None where a key (`data.features`, `data.length`) decides; ``outputs`` None means as many as there
    are inputs.
    """

    loss: str = "cross_entropy"
    shape: tuple[int | None, ...] = ()
    outputs: int | None = None
    train: int = 0
    heldout: int = 0
    keys: Mapping[str, Value] = field(default_factory=dict)


ACTIVATIONS: dict[str, Activation] = table(
    Activation("sigmoid", "1/(1+exp(-z)); slope at most 1/4", "Glorot & Bengio 2010"),
    Activation("tanh", "odd and bounded; slope 1 at the origin", "LeCun et al. 1998, Efficient BackProp"),
    Activation("relu", "max(z, 0)", "Nair & Hinton 2010", piecewise_linear=True, relu_family=True),
    Activation("leaky_relu", "z, or slope*z below zero", "Maas et al. 2013", piecewise_linear=True, relu_family=True),
    Activation(
        "prelu",
        "leaky_relu whose slope is learned, one a layer",
        "He et al. 2015, arXiv:1502.01852",
        piecewise_linear=True,
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
    Activation("hardtanh", "z clamped to -1..1", "Collobert 2004", piecewise_linear=True),
    Activation("linear", "z itself", "Saxe et al. 2013, arXiv:1312.6120", piecewise_linear=True),
)

INITS: dict[str, Choice] = table(
    Choice("xavier_normal", "N(0, 2/(fan_in+fan_out)); alias xavier", "Glorot & Bengio 2010"),
    Choice("xavier_uniform", "uniform of variance 2/(fan_in+fan_out)", "Glorot & Bengio 2010"),
    Choice("he_normal", "N(0, 2/fan_in), whatever the slope; alias he", "He et al. 2015, arXiv:1502.01852"),
    Choice("he_uniform", "uniform of variance 2/fan_in", "He et al. 2015, arXiv:1502.01852"),
    Choice("lecun_normal", "N(0, 1/fan_in); alias lecun", "LeCun et al. 1998, Efficient BackProp"),
    Choice("lecun_uniform", "uniform of variance 1/fan_in", "LeCun et al. 1998, Efficient BackProp"),
    Choice(
        "orthogonal",
        "a random orthogonal matrix (semi-orthogonal where not square)",
        "Saxe et al. 2013, arXiv:1312.6120",
    ),
    Choice(
        "torch_default",
        "uniform of variance 1/(3 fan_in), biases too, as torch.nn.Linear",
        "PyTorch documentation, torch.nn.Linear",
    ),
    Choice("zeros", "every weight 0: no symmetry is broken", "Goodfellow et al. 2016, Deep Learning, section 8.4"),
)

NORMS: dict[str, Norm] = table(
    Norm("none", "no normalization", "-"),
    Norm(
        "batch",
        "each unit over the batch, with running statistics",
        "Ioffe & Szegedy 2015, arXiv:1502.03167",
        over_batch=True,
    ),
    Norm("layer", "each sample over its units", "Ba et al. 2016, arXiv:1607.06450"),
    Norm("rms", "each sample over the root mean square of its units", "Zhang & Sennrich 2019, arXiv:1910.07467"),
)

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

_DECAYS = ("lr", "weight_decay", "l1")
OPTIMIZERS: dict[str, Optimizer] = table(
    Optimizer(
        "sgd",
        "gradient descent, with momentum or Nesterov's",
        "torch.optim.SGD; Sutskever et al. 2013",
        (*_DECAYS, "momentum", "nesterov"),
    ),
    Optimizer(
        "adam",
        "running mean over the root of the running square",
        "torch.optim.Adam; Kingma & Ba 2014, arXiv:1412.6980",
        (*_DECAYS, "beta1", "beta2", "eps"),
    ),
    Optimizer(
        "adamw",
        "adam with decoupled weight decay",
        "torch.optim.AdamW; Loshchilov & Hutter 2017, arXiv:1711.05101",
        (*_DECAYS, "beta1", "beta2", "eps"),
        {"weight_decay": 0.01},
    ),
    Optimizer(
        "rmsprop",
        "gradient over the root of its running square; beta2 is torch's alpha",
        "torch.optim.RMSprop; Hinton 2012, lecture 6e",
        (*_DECAYS, "momentum", "beta2", "eps"),
        {"beta2": 0.99},
    ),
    Optimizer(
        "adagrad",
        "gradient over the root of the sum of its squares",
        "torch.optim.Adagrad; Duchi et al. 2011",
        (*_DECAYS, "eps"),
        {"eps": 1e-10},
    ),
)

_NETWORK: dict[str, Value] = {
    "depth": 10,
    "width": 64,
    "activation": "relu",
    "slope": None,
    "init": "he_normal",
    "gain": 1.0,
    "weight_var": None,
    "bias_var": 0.0,
    "norm": "none",
}
MODELS: dict[str, Model] = table(
    Model("mlp", "L fully connected layers, each linear, norm, activation", "Rumelhart et al. 1986", _NETWORK),
    Model(
        "residual_mlp",
        "pre-activation residual branches between a read-in and a read-out",
        "He et al. 2016, arXiv:1603.05027",
        {**_NETWORK, "branch_scale": 1.0},
        least_depth=2,
    ),
    Model(
        "linear_chain",
        "L square matrices gain*I and nothing else: gradients are powers of gain",
        "Saxe et al. 2013, arXiv:1312.6120",
        {"depth": 10, "width": 64, "gain": 1.0},
        data="linear_teacher",
    ),
    Model(
        "rnn",
        "K stacked Elman layers unrolled in time, and a read-out of the last step",
        "Elman 1990; Pascanu et al. 2013, arXiv:1211.5063",
        {**_NETWORK, "depth": 1},
        norms=("none", "layer", "rms"),
        needs_time=True,
        matrices=_recurrent,
    ),
)

_IDX: dict[str, Value] = {"root": None, "mirror": None}
DATA: dict[str, Data] = table(
    Data(
        "digits",
        "1,797 hand-written digits of 8x8 grey pixels, embedded; rows are time steps",
        "UCI optical recognition of handwritten digits, Alpaydin & Kaynak 1998",
        shape=(8, 8),
        outputs=10,
        train=1437,
        heldout=360,
    ),
    Data(
        "fashion_mnist",
        "70,000 pieces of clothing of 28x28 grey pixels; rows are time steps",
        "Xiao et al. 2017, arXiv:1708.07747",
        shape=(28, 28),
        outputs=10,
        train=60_000,
        heldout=10_000,
        keys=_IDX,
    ),
    Data(
        "mnist",
        "70,000 hand-written digits of 28x28 grey pixels; rows are time steps",
        "LeCun et al. 1998",
        shape=(28, 28),
        outputs=10,
        train=60_000,
        heldout=10_000,
        keys=_IDX,
    ),
    Data(
        "gaussian_mixture",
        "10 normal clouds with normal centres, one a class",
        "Schoenholz et al. 2016, arXiv:1611.01232, as a stand-in for images",
        shape=(None,),
        outputs=10,
        train=4096,
        heldout=1024,
        keys={"features": 64},
    ),
    Data(
        "linear_teacher",
        "normal inputs and a random linear map of them to learn; as many outputs as inputs",
        "Saxe et al. 2013, arXiv:1312.6120",
        loss="mean_squared_error",
        shape=(None,),
        train=4096,
        heldout=1024,
        keys={"features": None},
    ),
    Data(
        "adding",
        "add the two marked numbers of a sequence; guessing their mean costs 1/6",
        "Hochreiter & Schmidhuber 1997; Le et al. 2015, arXiv:1504.00941",
        loss="mean_squared_error",
        shape=(None, 2),
        outputs=1,
        train=20_000,
        heldout=2_000,
        keys={"length": 50},
    ),
    Data(
        "interval",
        "256 evenly spaced numbers from -2 to 2, and one wave of a sine over them",
        "Balduzzi et al. 2017, arXiv:1702.08591",
        loss="mean_squared_error",
        shape=(1,),
        outputs=1,
        train=256,
        heldout=255,
        keys={"batch_size": "full", "standardise": False},
    ),
    Data(
        "spectral_teacher",
        "whitened inputs and a symmetric linear map of them with the singular values K, K-1, ..., 1",
        "Saxe et al. 2013, arXiv:1312.6120",
        loss="mean_squared_error",
        shape=(None,),
        train=256,
        heldout=64,
        keys={"batch_size": "full", "standardise": False, "features": 4},
    ),
    Data(
        "silence",
        "one sequence of zeros, after which the answer is 0.7",
        "Pascanu et al. 2013, arXiv:1211.5063, figure 6",
        loss="mean_squared_error",
        shape=(None, 1),
        outputs=1,
        train=1,
        heldout=1,
        keys={"batch_size": 1, "standardise": False, "length": 50},
    ),
    Data(
        "point",
        "the number 1, with the loss f(y) = y^4 of what is made of it",
        "Zhang et al. 2019, arXiv:1905.11881",
        loss="quartic",
        shape=(1,),
        outputs=1,
        train=1,
        heldout=1,
        keys={"batch_size": 1, "standardise": False},
    ),
)

ALIASES: dict[str, dict[str, str]] = {
    "model.activation": {"leaky": "leaky_relu"},
    "model.init": {"xavier": "xavier_normal", "he": "he_normal", "lecun": "lecun_normal"},
}
"""Other names of a choice, by key; resolved before anything is compared or digested."""

NAMED: dict[str, Mapping[str, Choice]] = {
    "model.name": MODELS,
    "data.name": DATA,
    "optim.name": OPTIMIZERS,
    "clip.mode": CLIPS,
    "model.activation": ACTIVATIONS,
    "model.init": INITS,
    "model.norm": NORMS,
    "probe.instrument": INSTRUMENTS,
}
"""The keys whose values are names, with the table of each."""

NOUNS: dict[str, str] = {
    "model.name": "model",
    "data.name": "data",
    "optim.name": "optimizer",
    "clip.mode": "clip mode",
    "model.activation": "activation",
    "model.init": "init",
    "model.norm": "norm",
    "probe.instrument": "instrument",
}
