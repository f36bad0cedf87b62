"""`Watch`: a training of Hugging Face's Trainer, watched: ``Trainer(..., callbacks=[Watch()])``.

transformers is an extra (``pip install 'gradlab[transformers]'``), and is imported with the first look at `Watch`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gradlab.watching.callbacks import Watching, needed


class _Hooks(Watching):
    """The events of a Trainer's callback: from the beginning of the training to its end."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        del args, state, control
        self.begin(given["model"], [given["optimizer"]])

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        del args, state, control, given
        self.end()


@cache
def _callback() -> type:
    base = needed("transformers", "transformers").TrainerCallback
    return type("Watch", (_Hooks, base), {"__doc__": Watching.__doc__, "__module__": __name__})


def __getattr__(name: str) -> Any:
    if name == "Watch":
        return _callback()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
