"""`Watch`: a training of Lightning's Trainer, watched: ``Trainer(..., callbacks=[Watch()])``.

Lightning is an extra (``pip install 'gradlab[lightning]'``), and is imported with the first look at `Watch`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gradlab.watching.callbacks import Watching, needed


class _Hooks(Watching):
    """The hooks of a Lightning callback: from the start of the fit to its end, or to what breaks it."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.begin(pl_module, trainer.optimizers)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        del trainer, pl_module
        self.end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        del trainer, pl_module
        self.end(exception)


@cache
def _callback() -> type:
    try:
        base = needed("lightning.pytorch", "lightning").Callback
    except ImportError:
        base = needed("pytorch_lightning", "lightning").Callback
    return type("Watch", (_Hooks, base), {"__doc__": Watching.__doc__, "__module__": __name__})


def __getattr__(name: str) -> Any:
    if name == "Watch":
        return _callback()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
