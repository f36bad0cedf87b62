"""What keys and their values are called in other libraries: no name here, and yet known by who types it.

They are told as what may be meant, and never taken for it.
"""

from __future__ import annotations

from collections.abc import Mapping

KEYS: dict[str, str] = {
    **dict.fromkeys(("learning_rate", "eta"), "optim.lr"),
    **dict.fromkeys(("epochs", "iterations", "max_steps", "num_steps"), "train.steps"),
    **dict.fromkeys(("layers", "num_layers", "n_layers"), "model.depth"),
    **dict.fromkeys(("hidden", "hidden_size", "hidden_dim", "units"), "model.width"),
    **dict.fromkeys(("wd", "l2"), "optim.weight_decay"),
    **dict.fromkeys(("bs", "batch"), "data.batch_size"),
    **dict.fromkeys(("max_norm", "clip_norm", "clipnorm", "clipvalue"), "clip.threshold"),
    "nonlinearity": "model.activation",
    "optimizer": "optim.name",
    "dataset": "data.name",
}
"""The last part of a key there, and the key here."""


def _of(meant: Mapping[str, str]) -> dict[str, str]:
    """From a name here to those there, apart by spaces; the other way about."""
    return {name: here for here, names in meant.items() for name in names.split()}


VALUES: dict[str, dict[str, str]] = {
    "model.name": _of(
        {
            "mlp": "fc fcn dense fullyconnected feedforward perceptron",
            "rnn": "elman simplernn recurrent",
            "cnn": "conv convnet lenet vgg",
            "transformer": "gpt gpt2 bert vit attention llm",
            "capsule": "capsnet",
            "module": "custom",
        }
    ),
    "data.name": _of({"cifar10": "cifar", "characters": "shakespeare text charlm", "fashion_mnist": "fashion fmnist"}),
    "model.activation": _of({"linear": "none", "sigmoid": "logistic sigm", "leaky_relu": "lrelu"}),
    "model.norm": _of(
        {
            "batch": "batchnorm1d batchnorm2d",
            "instance": "instancenorm instancenorm2d in",
            "weight": "weightnorm wn",
        }
    ),
    "model.norm_place": _of({"pre": "prenorm preln", "post": "postnorm postln"}),
    "model.attention": _of({"additive": "bahdanau", "dot": "luong multiplicative dotproduct"}),
    "optim.name": _of({"sgd": "gd momentum sgdm sgdmomentum sgdwithmomentum nesterov nag"}),
    "optim.schedule": _of(
        {
            "cosine": "cosineannealing cosineannealinglr cosinedecay",
            "linear": "linearlr lineardecay",
            "step": "steplr multistep multisteplr",
            "exponential": "exp exponentiallr",
            "one_cycle": "onecyclelr cyclic",
            "plateau": "reducelronplateau",
        }
    ),
    "clip.mode": _of(
        {
            "norm": "globalnorm global l2 clipnorm clipgradnorm clipbyglobalnorm gradnorm",
            "value": "clipvalue clipgradvalue clipbyvalue clamp elementwise",
            "layerwise": "perlayer clipbynorm",
            "agc": "adaptive",
            "normalize": "normalized normalised normalise ngd",
        }
    ),
    "train.precision": _of(
        {
            "float32": "32 fp32 single float full f32",
            "float64": "64 fp64 double f64",
            "float16": "fp16 half f16",
            "bfloat16": "bf16",
            "mixed_float16": "16 amp mixed fp16mixed 16mixed",
            "mixed_bfloat16": "bf16mixed mixedbf16 autocast",
        }
    ),
    "train.loss": _of(
        {"cross_entropy": "ce crossentropyloss xent categoricalcrossentropy logloss", "huber": "smoothl1"}
    ),
    "pretrain.mode": _of({"autoencoder": "ae", "denoising": "dae", "masked": "mae mlm bert", "layerwise": "greedy"}),
}
"""By key: a value there, as `named.folded` writes it, and the value here."""
