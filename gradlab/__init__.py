"""gradlab: a laboratory for gradient pathology. What happens to the gradient, layer by layer, and what cures it?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import pandas as pd
    from torch import nn

    from gradlab.diagnose import Verdict
    from gradlab.store.tables import Frames
    from gradlab.watching.signals import LossFunction

__version__ = "0.1.0"


def load(path: str | Path) -> Frames:
    """The tables of a result folder as pandas frames: ``.runs``, ``.steps``, ``.layers``, ``.instruments``."""
    from gradlab.store.tables import load as load_frames

    return load_frames(path)


def measure(module: nn.Module, loss_fn: LossFunction, batch: tuple[Any, Any]) -> pd.DataFrame:
    """The `layers` frame of any ``torch.nn.Module`` after one pass there and back: `watching.signals.measure`.

    >>> import torch
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> batch = torch.randn(16, 4), torch.randint(2, (16,))
    >>> list(measure(network, torch.nn.functional.cross_entropy, batch)["name"])
    ['input', '0', '2']
    """
    from gradlab.watching.signals import measure as measure_module

    return measure_module(module, loss_fn, batch)


def verdict(frame: pd.DataFrame, thresholds: Mapping[str, float] | None = None) -> tuple[Verdict, ...]:
    """What is wrong with a network by its `layers` frame alone, of `measure` or of one run of a result; else `healthy`.

    ``thresholds`` replaces defaults by name (``{"vanishing_ratio": 1e-3}``). What only the course of the loss or
    clipping shows is not judged. Raises `ValueError` for a frame of several runs, one that lacks columns or is of an
    unknown precision, and a name that is no threshold.
    """
    from gradlab.diagnose import THRESHOLDS, judge, limits
    from gradlab.diagnose.tables import of_frame

    if unknown := sorted(set(thresholds or {}) - set(THRESHOLDS)):
        raise ValueError(f"unknown threshold {unknown[0]!r}; expected some of {', '.join(THRESHOLDS)}")
    return judge(of_frame(frame), limits(thresholds))
