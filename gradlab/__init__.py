"""gradlab: a laboratory for gradient pathology. What happens to the gradient, layer by layer, and what cures it?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    import pandas as pd
    from torch import nn
    from torch.optim import Optimizer

    from gradlab.diagnose import Verdicts
    from gradlab.report.notebook import Loaded
    from gradlab.store.folder import Folder
    from gradlab.store.record import Tables
    from gradlab.watching.signals import LossFunction
    from gradlab.watching.watch import Watch

__version__ = "0.1.0"


def load(path: str | Path) -> Loaded:
    """The tables of a result folder as pandas frames: ``.runs``, ``.steps``, ``.layers``, ``.instruments``.

    ``.read(name, columns, run_ids)`` gives a part of one and ``.dataset(name)`` pyarrow's data set, both without the
    rest being read: `store.tables.Frames`. A notebook shows them as a table, and ``.plot()`` gives the report's
    figures: `report.notebook.Loaded`.
    """
    from pathlib import Path as FilePath

    from gradlab.report.notebook import Loaded
    from gradlab.store.tables import loaded

    return Loaded(loaded(path), FilePath(path))


def measure(module: nn.Module, loss_fn: LossFunction, batch: Any) -> pd.DataFrame:
    """The `layers` frame of any ``torch.nn.Module`` after one pass there and back: `watching.signals.measure`.

    >>> import torch
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> batch = torch.randn(16, 4), torch.randint(2, (16,))
    >>> list(measure(network, torch.nn.functional.cross_entropy, batch)["name"])
    ['input', '0', '2']
    """
    from gradlab.watching.signals import measure as measure_module

    return measure_module(module, loss_fn, batch)


def verdict(
    frame: pd.DataFrame,
    thresholds: Mapping[str, float] | None = None,
    *,
    losses: Sequence[float] | None = None,
    optimizer: str | Optimizer | Sequence[Optimizer] | None = None,
) -> Verdicts:
    """What is wrong with a network by its `layers` frame, of `measure` or of one run of a result; else `healthy`.

    ``thresholds`` replaces defaults by name (``{"vanishing_ratio": 1e-3}``); a ratio that is given is meant as it is,
    whatever an optimizer or a norm would make good. ``losses`` are those of a training so far, from step 0 on: with
    them its course is judged, and what only a profile shows is no fact of a network that learns. ``optimizer`` is the
    name of one, one of ``torch.optim``, or all of them where several train the parts. What only clipping shows is not
    judged. Raises `ValueError` for a frame of several runs, one that lacks columns or is of an unknown precision, and a
    name that is no threshold or no optimizer.
    """
    from gradlab.diagnose import THRESHOLDS, Verdicts, judge, limits
    from gradlab.diagnose.tables import of_frame

    given = dict(thresholds or {})
    if unknown := sorted(set(given) - set(THRESHOLDS)):
        raise ValueError(f"unknown threshold {unknown[0]!r}; expected some of {', '.join(THRESHOLDS)}")
    plain = {"adaptive": 1.0, "normalised": 1.0} if {"vanishing_ratio", "exploding_ratio"} & set(given) else {}
    return Verdicts(judge(of_frame(frame, losses, _of_optimizer(optimizer)), limits(plain | given)))


def watch(
    module: nn.Module,
    optimizer: Optimizer,
    every: int = 50,
    out: str | Path | None = None,
    name: str = "watch",
    scaler: Any = None,
    *,
    quiet: bool = False,
    report: bool = True,
) -> Watch:
    """A training in a loop of your own, watched into a folder like a run's: `watching.watch.Watch`.

    >>> import tempfile, torch
    >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    >>> inputs, classes = torch.randn(16, 4), torch.randint(2, (16,))
    >>> out = tempfile.mkdtemp()
    >>> with watch(network, optimizer, every=2, out=out, quiet=True, report=False) as seen:
    ...     for _ in range(4):
    ...         optimizer.zero_grad()
    ...         loss = torch.nn.functional.cross_entropy(network(inputs), classes)
    ...         loss.backward()
    ...         optimizer.step()
    ...         seen.step(loss)
    >>> sorted(set(load(out).layers["step"])), len(load(out).steps)
    ([0, 2], 4)
    """
    from gradlab.launch import watched
    from gradlab.terminal import screen
    from gradlab.watching.watch import Watch

    def ending(folder: Folder, tables: Tables, names: dict[str, str]) -> None:
        watched.ended(screen.console(quiet=quiet), folder, tables, names, draw=report)

    say = (lambda _: None) if quiet else screen.say
    return Watch(module, optimizer, every, out, name, scaler, ending=ending, say=say)


def _of_optimizer(optimizer: str | Optimizer | Sequence[Optimizer] | None) -> dict[str, Any]:
    """What an optimizer is, by the names of the keys."""
    if optimizer is None:
        return {}
    if isinstance(optimizer, str):
        from gradlab.spec import elsewhere
        from gradlab.spec.choices import OPTIMIZERS
        from gradlab.spec.named import lookup

        return {"optim.name": lookup("optimizer", OPTIMIZERS, optimizer, elsewhere=elsewhere.VALUES["optim.name"]).name}
    every: list[Any] = [optimizer] if hasattr(optimizer, "param_groups") else list(optimizer)
    if not every:
        return {}
    set_to = every[0].param_groups[0]
    held = {one for each in every for group in each.param_groups for one in group["params"] if one.requires_grad}
    keys = ("lr", "momentum", "weight_decay", "eps")
    return {
        "optim.name": type(every[0]).__name__.lower(),
        "optim.held": sum(one.numel() for one in held),
        **{f"optim.{key}": set_to[key] for key in keys if key in set_to},
    }
