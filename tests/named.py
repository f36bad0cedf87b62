"""Every named choice, with settings that it fits: small networks that are trained for two steps."""

from __future__ import annotations

from pathlib import Path

from gradlab.spec.choices import DATA, INITS, NAMED, PRETRAINING
from gradlab.spec.named import Value
from tests.images import cifar_images

OWN = ("module", "file", "function")
"""Of the user's own: `test_lent` knows."""

CHOICES = [
    (key, name) for key, names in NAMED.items() for name in names if key != "probe.instrument" and name not in OWN
]
"""Key and name; of instruments, which fit few settings each, `test_instruments` knows."""


def fitting(key: str, name: str, precision: str, folder: Path) -> dict[str, Value]:
    """Settings with the choice ``name`` of ``key``; what must be downloaded is written to ``folder`` instead."""
    settings: dict[str, Value] = {"train.steps": 2, "train.precision": precision, "optim.lr": 0.01}
    settings["data.batch_size"] = min(4, DATA[name].train) if key == "data.name" else 4
    if name != "linear_chain":
        settings["model.width"] = 8
    if key != "model.name":
        settings["model.depth"] = 3
    if name in ("mnist", "fashion_mnist"):
        settings["data.root"] = str(Path(__file__).parent / "fixtures" / "idx200")
    if name == "cifar10":
        settings["data.root"] = str(cifar_images(folder))
    if key == "model.init" and INITS[name].models:
        settings |= {"model.name": INITS[name].models[-1], "model.depth": 4}
    if key == "model.norm" and name == "instance":
        settings["model.name"] = "cnn"
    if key == "pretrain.mode" and (able := PRETRAINING[name].models):
        settings |= {"model.name": able[0], "pretrain.steps": 2}
    if key == "data.name" and DATA[name].vocabulary:
        settings["model.name"] = "gru"
    return settings | {key: name}
