"""What of a run is the user's own: a network, data, a loss. Somebody who opens files looks it up for this room."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from gradlab.spec.choices import LOSSES, MODELS
from gradlab.spec.named import SpecError
from gradlab.spec.sections import DataSpec, Facts, ModelSpec, TrainSpec
from gradlab.spec.values import is_target

DRAWN_WITHIN = ("lsuv", "fixup", "identity")
"""Inits that know the network that they are of."""


class Look(Protocol):
    """Who opens what is the user's own; this room opens no file."""

    def data(self, data: DataSpec) -> Facts:
        """What a network must know of data in files, or from a function, of the user's own."""

    def source(self, target: str) -> str:
        """The SHA-256 of the file that defines ``target``, as `values.is_target` has it."""


def lent(model: ModelSpec, look: Look | None) -> ModelSpec:
    """A network of the user's own, with the digest of the file that defines it."""
    if model.target is None:
        raise SpecError("model=module: expected model.target=path/to/file.py:Name or model.target=package.module.Name")
    if not is_target(model.target):
        raise SpecError(
            f"model.target={model.target}: expected path/to/file.py:Name or package.module.Name, a class or function "
            "that returns a torch.nn.Module"
        )
    if model.init in DRAWN_WITHIN:
        raise SpecError(f"model.init={model.init}: is for networks of gradlab's own; model=module takes another")
    if model.norm is not None and model.norm not in MODELS[model.name].norms:
        raise SpecError(f"model.norm={model.norm}: model=module takes: {', '.join(MODELS[model.name].norms)}")
    if model.source is not None:
        return model
    if look is None:
        raise SpecError(f"model.target={model.target}: nobody looked at its file; see gradlab.data.facts.described")
    return dataclasses.replace(model, source=look.source(model.target))


def judged(train: TrainSpec, look: Look | None) -> TrainSpec:
    """The training with the digest of the file that defines its loss, where that is the user's own."""
    own = train.loss not in LOSSES and train.loss != "auto"
    if own and train.source is None and look is not None:
        return dataclasses.replace(train, source=look.source(train.loss))
    return train if own or train.source is None else dataclasses.replace(train, source=None)


def own_facts(data: DataSpec, look: Look | None) -> Facts:
    """The facts of data of the user's own. Raises `SpecError` where it is not said where they are."""
    if data.name == "file" and data.path is None:
        raise SpecError("data=file: expected data.path=FILE (.csv, .parquet, .npz, .safetensors) or a folder of images")
    if data.name == "function" and (data.target is None or not is_target(data.target)):
        given = "data=function" if data.target is None else f"data.target={data.target}"
        raise SpecError(f"{given}: expected data.target=path/to/file.py:name or data.target=package.module.name")
    return looked_at(data, look)


def looked_at(data: DataSpec, look: Look | None) -> Facts:
    """The facts of data in files. Raises `SpecError` where nobody can open them."""
    if look is None:
        raise SpecError(f"data.name={data.name}: nobody looked at its files; see gradlab.data.facts.described")
    return look.data(data)
