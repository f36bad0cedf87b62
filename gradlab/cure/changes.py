"""What a remedy is: a change of a run's spec, its kind, and what that costs; and a run after one or several of them.

Nothing here trains or imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gradlab.data.facts import described
from gradlab.spec.choices import CLIPS
from gradlab.spec.keys import allowed_keys
from gradlab.spec.named import Choice, SpecError, Value
from gradlab.spec.run import RunSpec
from gradlab.spec.unused import unused

Change = Mapping[str, Value]
"""Values by dotted key."""

COSTS: dict[str, int] = {
    "learning rate": 1,
    "schedule": 1,
    "clipping": 1,
    "input": 1,
    "init": 2,
    "precision": 2,
    "activation": 3,
    "output": 3,
    "norm": 4,
    "optimizer": 4,
    "pretraining": 6,
    "architecture": 6,
    "depth": 8,
    "width": 8,
}
"""What a kind of change costs; a convention of ours, documented in docs/cure.md.

A number of the recipe costs 1; where the network begins, and what its numbers are held in, 2; a function in it 3; a
further operation in every layer, or an optimizer with a state of its own, 4; other wiring, or a training before the
training, 6; another size, and so another set of functions to fit with, 8.
"""

APPLIED = (
    *("architecture", "depth", "width", "activation", "output", "norm", "init", "pretraining", "input", "optimizer"),
    *("precision", "learning rate"),
)
"""Kinds in the order in which several remedies are applied: each sees what the ones before it have made of the run."""


def _never(_: RunSpec) -> Change | None:
    return None


@dataclass(frozen=True)
class Remedy(Choice):
    """One change of the spec that may cure a verdict.

    ``kind`` is one of `COSTS`; ``change`` gives the values to set, or None where the remedy does not apply to a run.
    With a ``share`` it is a threshold of clipping instead: the norm that so many of the sick run's steps exceed.
    ``advised``: the way of clipping that fits the sick run's norms, other than a fixed norm.
    """

    kind: str = ""
    change: Callable[[RunSpec], Change | None] = field(default=_never)
    share: float | None = None
    advised: bool = False

    def of(self, spec: RunSpec, norms: Norms) -> Change | None:
        """The values to set in ``spec``, of a sick run of these norms; None where it does not apply."""
        if self.advised:
            mode = next((name for name in norms if name in CLIPS), None)
            return None if mode is None else {"clip.mode": mode, "clip.threshold": norms[mode]}
        if self.share is None:
            return self.change(spec)
        threshold = norms.get(str(self.share))
        return None if threshold is None else {"clip.mode": "norm", "clip.threshold": threshold}


Norms = Mapping[str, float]
"""Norms of the gradient before clipping, by the share of a sick run's steps that exceed each: `share` as text; and the
threshold of the way of clipping that fits them, by the name of its mode."""

UNSEEN: Norms = {}


@dataclass(frozen=True)
class Treated:
    """A run after one or several remedies, and the values in which it differs from the run before."""

    spec: RunSpec
    change: Change


def treated(spec: RunSpec, remedies: Sequence[Remedy], norms: Norms = UNSEEN) -> Treated | None:
    """``spec`` after ``remedies``, in the order of `APPLIED`; None where one does not apply or changes nothing."""
    now = spec
    touched: dict[str, None] = {}
    for remedy in sorted(remedies, key=_turn):
        change = remedy.of(now, norms)
        after = None if change is None else changed(now, change)
        if change is None or after is None or after.id == now.id:
            return None
        touched |= dict.fromkeys(change)
        now = after
    before, values = spec.flat(), now.flat()
    known = allowed_keys(now.model.name, now.data.name)
    told = {key: values[key] for key in touched if key in known and values[key] != before[key]}
    return Treated(now, told) if set(told) - unused(now) else None


def _turn(remedy: Remedy) -> int:
    return APPLIED.index(remedy.kind) if remedy.kind in APPLIED else len(APPLIED)


def changed(spec: RunSpec, change: Change) -> RunSpec | None:
    """``spec`` with other values; None where no network can have them (batch norm over a single sample)."""
    model = str(change.get("model.name", spec.model.name))
    allowed = allowed_keys(model, spec.data.name)
    if not {key for key, value in change.items() if value is not None} <= set(allowed):
        return None
    # Another architecture may lack what this one has.
    kept = {key: value for key, value in spec.flat().items() if model == spec.model.name or key in allowed}
    values = {key: value for key, value in {**kept, **change}.items() if value is not None}
    try:
        # A network of one's own is as large as it was.
        return replace(described(values), extent=spec.extent)
    except SpecError:
        return None


def overrides(change: Change) -> str:
    """A change as it is typed after the command.

    >>> overrides({"model.init": "he_normal", "optim.lr": 0.01, "model.weight_var": None})
    'model.init=he_normal optim.lr=0.01 model.weight_var=null'
    """
    return " ".join(f"{key}={typed(value)}" for key, value in change.items())


def typed(value: Value) -> str:
    """A value as it is typed behind its key; a word must be one that Hydra's grammar reads without quotes.

    >>> typed(None), typed(True), typed(0.1), typed(0.123456789)
    ('null', 'true', '0.1', '0.123456789')
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        # Six digits where they are all: what is typed again must be the same number.
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


def cost(remedies: Sequence[Remedy]) -> int:
    """What changes of these kinds cost together."""
    return sum(COSTS[remedy.kind] for remedy in remedies)
