"""Every named choice of a run, one small table a kind: a frozen entry with one line and its source, found by its name.

Literal dictionaries, torch-free: the engine maps the same names to functions, and a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping

from gradlab.spec.choices.activations import ACTIVATIONS, Activation
from gradlab.spec.choices.clips import CLIPS, Clip
from gradlab.spec.choices.data import DATA, Data
from gradlab.spec.choices.inits import INITS, Init
from gradlab.spec.choices.instruments import INSTRUMENTS, Instrument
from gradlab.spec.choices.losses import LOSSES, Loss
from gradlab.spec.choices.models import MODELS, Model
from gradlab.spec.choices.norms import NORMS, Norm
from gradlab.spec.choices.optimizers import OPTIMIZERS, Optimizer
from gradlab.spec.choices.pretraining import PRETRAINING, Pretraining
from gradlab.spec.choices.probes import PROBES
from gradlab.spec.choices.schedules import SCHEDULES, Schedule
from gradlab.spec.named import Choice

__all__ = [
    "ACTIVATIONS",
    "ALIASES",
    "CLIPS",
    "DATA",
    "INITS",
    "INSTRUMENTS",
    "LOSSES",
    "MODELS",
    "NAMED",
    "NORMS",
    "NOUNS",
    "OPTIMIZERS",
    "PRETRAINING",
    "PROBES",
    "SCHEDULES",
    "Activation",
    "Clip",
    "Data",
    "Init",
    "Instrument",
    "Loss",
    "Model",
    "Norm",
    "Optimizer",
    "Pretraining",
    "Schedule",
]

ALIASES: dict[str, dict[str, str]] = {
    "model.activation": {"leaky": "leaky_relu", "swish": "silu", "identity": "linear"},
    "model.init": {
        "xavier": "xavier_normal",
        "glorot": "xavier_normal",
        "glorot_normal": "xavier_normal",
        "glorot_uniform": "xavier_uniform",
        "he": "he_normal",
        "kaiming": "he_normal",
        "kaiming_normal": "he_normal",
        "kaiming_uniform": "he_uniform",
        "lecun": "lecun_normal",
    },
    "model.norm": {
        "batchnorm": "batch",
        "bn": "batch",
        "layernorm": "layer",
        "ln": "layer",
        "rmsnorm": "rms",
        "groupnorm": "group",
        "gn": "group",
    },
    "optim.schedule": {"none": "constant", "noam": "inverse_sqrt", "reduce_on_plateau": "plateau"},
    "train.loss": {
        "mse": "mean_squared_error",
        "l1": "mean_absolute_error",
        "mae": "mean_absolute_error",
        "bce": "binary_cross_entropy",
        "nll": "negative_log_likelihood",
    },
}
"""Other names of a choice, by key, in any case; resolved before anything is compared or digested."""


NAMED: dict[str, Mapping[str, Choice]] = {
    "model.name": MODELS,
    "data.name": DATA,
    "optim.name": OPTIMIZERS,
    "optim.schedule": SCHEDULES,
    "clip.mode": CLIPS,
    "model.activation": ACTIVATIONS,
    "model.init": INITS,
    "model.norm": NORMS,
    "train.loss": LOSSES,
    "pretrain.mode": PRETRAINING,
    "probe.instrument": INSTRUMENTS,
}
"""The keys whose values are names, with the table of each."""


NOUNS: dict[str, str] = {
    "model.name": "model",
    "data.name": "data",
    "optim.name": "optimizer",
    "optim.schedule": "schedule",
    "clip.mode": "clip mode",
    "model.activation": "activation",
    "model.init": "init",
    "model.norm": "norm",
    "train.loss": "loss",
    "pretrain.mode": "pre-training",
    "probe.instrument": "instrument",
}
