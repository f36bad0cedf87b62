"""Functions of plugins, entered into the tables of gradlab's own by the processes that train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradlab import models
from gradlab.data import loaders
from gradlab.engine.optim import clippers, optimizers
from gradlab.grid.plugins import enter_file, installed
from gradlab.nn import activations, initializers
from gradlab.spec.plugins import PRESENT, Source

TABLES: dict[str, dict[str, Any]] = {
    "model.activation": activations.ACTIVATIONS,
    "model.init": initializers.INITS,
    "optim.name": optimizers.OPTIMIZERS,
    "clip.mode": clippers.CLIPPERS,
    "model.name": models.MODELS,
    "data.name": loaders.LOADERS,
}
"""By key, the functions that names stand for: what `Plugin.engine` returns one of."""


def install(sources: Sequence[Source]) -> None:
    """Enters what these sources bring. Raises `SpecError` as reading them does, and whatever a plugin's code raises."""
    for source in sources:
        if source.kind == "file":
            enter_file(Path(source.place))
        else:
            installed()
        for (key, name), (owner, plugin) in PRESENT.items():
            if owner == source and name not in TABLES[key]:
                TABLES[key][name] = plugin.engine()
