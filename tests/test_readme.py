"""The README tells the truth about keys: one row each, with its default and the line that the error messages use."""

from __future__ import annotations

from pathlib import Path

from gradlab.spec.choices import DATA, MODELS, NAMED
from gradlab.spec.keys import DEFAULTS, KEYS
from gradlab.spec.named import Value

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def default(key: str) -> str:
    """The default as the README shows it: the model's and data's own where they differ."""
    section, _, name = key.partition(".")
    if key in DEFAULTS:
        return shown(DEFAULTS[key])
    owners = MODELS if section == "model" else DATA
    first: dict[str, str] = {}
    for choice in owners.values():
        if name in choice.keys:
            first.setdefault(shown(choice.keys[name]), choice.name)
    (usual, _), *others = first.items()
    return ", ".join([usual, *(f"{value} of {owner}" for value, owner in others)])


def shown(value: Value) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def row(key: str) -> str:
    names = f" (`gradlab list {KINDS[key]}`)" if key in NAMED else ""
    return f"| `{key}` | {default(key)} | {KEYS[key].summary}{names} |"


KINDS = {
    "model.name": "models",
    "data.name": "data",
    "optim.name": "optimizers",
    "optim.schedule": "schedules",
    "clip.mode": "clips",
    "model.activation": "activations",
    "model.init": "inits",
    "model.norm": "norms",
    "train.loss": "losses",
    "pretrain.mode": "pretraining",
    "probe.instrument": "probes",
}


def test_every_key_has_its_row() -> None:
    table = "\n".join(["| key | default | what it is |", "| --- | --- | --- |", *map(row, KEYS)])
    assert table in README, f"the README's table of keys should be\n{table}"
