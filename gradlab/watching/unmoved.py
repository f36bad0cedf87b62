"""What of a watched network nothing moves: no optimizer holds it, its rate is 0, or no loss comes back to it."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from gradlab.watching.course import sharded
from gradlab.watching.facts import as_drawn
from gradlab.watching.recording import Recording
from gradlab.watching.rows import parameters_of, parts_of
from gradlab.watching.sheets import shown
from gradlab.watching.told import counted


class Unmoved:
    """Of one module: it hears of every optimizer of the process that makes a step, and keeps what a record saw."""

    def __init__(self, module: nn.Module, optimizer: Optimizer) -> None:
        self._module = module
        self._optimizers = weakref.WeakSet[Optimizer]([optimizer])
        self._moved: set[int] = set()
        self._resting: set[int] | None = None
        self._strangers: list[tuple[weakref.ref[nn.Parameter], int]] = []
        self._feeders: list[weakref.ref[nn.Parameter]] = []
        self._severed: list[weakref.ref[nn.Parameter]] = []
        self._replaced = False

    def heed(self, optimizer: Optimizer) -> None:
        """One that makes a step."""
        if optimizer not in self._optimizers:
            self._optimizers.add(optimizer)
            # It may be gone before the end.
            self._moved |= ids_of(optimizer)

    def rest(self, optimizer: Optimizer) -> None:
        """The module's own at a recorded step: what rests has a rate of 0 at all of them."""
        still = {id(one) for group in optimizer.param_groups if group.get("lr") == 0 for one in group["params"]}
        self._resting = still if self._resting is None else self._resting & still

    def see(self, recording: Recording, held: Sequence[nn.Parameter]) -> None:
        """The first record; ``held`` are the parameters of the module's own optimizer."""
        # Cut off from the first loss of a step, and no other loss has reached them since.
        apart = set(recording.told.get("facts", {}).get("severed", ()))
        names = parameters_of(parts_of(self._module)).items() if apart else ()
        self._severed = [weakref.ref(one) for one, name in names if name in apart and one.grad is None]
        self._strangers = [(weakref.ref(one), one.numel()) for one in recording.strangers]
        self._feeders = [weakref.ref(one) for one in recording.feeders]
        there = {id(one) for one in self._module.parameters()}
        self._replaced = any(id(one) not in there and one.grad is None for one in held)

    def facts(self, trainable: int, *, several: bool) -> dict[str, Any]:
        """As `told.told` gives them, of ``trainable`` numbers; ``several`` steps were recorded."""
        held = self._moved.union(*map(ids_of, self._optimizers))
        own = {one: shown(name) for one, name in parameters_of(parts_of(self._module)).items() if one.requires_grad}
        # Where parameters are gathered and cut again, the one that an optimizer holds is not always there.
        cut = sharded(self._module)
        unheld = {name: one.numel() for one, name in own.items() if id(one) not in held and not cut}
        resting = (self._resting or set()) if several else set()
        unmoved = [one for one in own if id(one) not in held or id(one) in resting]
        feeding = [one for one in _there(self._feeders) if id(one) not in held]
        severed = [] if cut else _there(self._severed)
        facts: dict[str, Any] = {"held": trainable - sum(unheld.values()), "unheld": list(unheld)}
        facts["resting"] = [name for one, name in own.items() if id(one) in resting]
        facts["never_moved"] = any(as_drawn(one) for one in (*unmoved, *feeding) if one.dim() > 1 and not cut)
        facts["severed"] = [own[one] for one in severed if one in own]
        facts["never_reached"] = any(as_drawn(one) for one in severed if one.dim() > 1)
        # Those that are made anew at each call have gone again.
        facts |= counted([numbers for one, numbers in self._strangers if id(one()) not in held])
        facts |= counted([one.numel() for one in feeding], "feeders")
        return facts | ({"replaced": True} if self._replaced else {})


def _there(references: Sequence[weakref.ref[nn.Parameter]]) -> list[nn.Parameter]:
    """Those that are still there, each once."""
    found = (reference() for reference in references)
    return list({id(one): one for one in found if one is not None}.values())


def ids_of(optimizer: Optimizer) -> set[int]:
    """Its parameters, each by its identity."""
    return {id(one) for group in optimizer.param_groups for one in group["params"]}
