"""Which modules an optimizer trains, found among all that there are in the process: a script tells nobody."""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterable, Mapping, Sequence

from torch import nn
from torch.optim import Optimizer

from gradlab.watching.unmoved import ids_of


def modules_of(optimizer: Optimizer, others: Iterable[Optimizer]) -> dict[str, nn.Module]:
    """The largest modules that hold parameters of ``optimizer`` and none of ``others``, by their names in their tops.

    Where every module shares its parameters among optimizers (matrices for one, biases for another) they are those that
    hold a parameter of this one themselves. Empty where no module holds any.
    """
    mine = ids_of(optimizer)
    foreign = {one for other in others if other is not optimizer for one in ids_of(other)} - mine
    tops = _tops(mine)
    found: dict[str, nn.Module] = {}
    taken: set[int] = set()
    for top, parts in tops:
        for name, part in parts.items():
            held = {id(one) for one in part.parameters()}
            if held & mine - taken and not held & foreign:
                found[name or type(top).__name__] = part
                taken |= held
    if found:
        return found
    for top, parts in tops:
        for name, part in parts.items():
            held = {id(one) for one in part.parameters(recurse=False)} & mine - taken
            if held:
                found[name or type(top).__name__] = part
                taken |= held
    return found


def _tops(wanted: Collection[int]) -> list[tuple[nn.Module, Mapping[str, nn.Module]]]:
    """The modules that are in no other and hold one of the ``wanted`` parameters, the largest first, with their parts.

    What `torch.compile` puts around a module is none.
    """
    there = [one for one in gc.get_objects() if issubclass(type(one), nn.Module) and "_modules" in vars(one)]
    there = [one for one in there if type(one).__name__ != "OptimizedModule"]
    holding = [one for one in there if any(id(parameter) in wanted for parameter in one.parameters())]
    inside = {id(part) for one in holding for part in one.modules() if part is not one}
    tops = [one for one in holding if id(one) not in inside]
    tops.sort(key=lambda one: -sum(1 for _ in one.modules()))
    return [(top, dict(top.named_modules())) for top in tops]


def together(modules: Mapping[str, nn.Module]) -> nn.Module:
    """One module that holds several, under their names; a single one as it is."""
    if len(modules) == 1:
        return next(iter(modules.values()))
    holder = nn.Module()
    for name, module in modules.items():
        holder.add_module(name.replace(".", "/"), module)
    return holder


def called(module: nn.Module, names: Mapping[str, object], taken: Sequence[str]) -> str:
    """What a script calls a module: a variable that holds it, or what is around it; else its class."""
    parts = {id(module)}
    holding = [
        name
        for name, value in names.items()
        if issubclass(type(value), nn.Module)
        and "_modules" in vars(value)
        and any(id(part) in parts for part in value.modules())  # type: ignore[attr-defined]
    ]
    exact = [name for name in holding if names[name] is module]
    word = (exact or holding or [type(module).__name__])[0]
    count = sum(one == word or one.startswith(f"{word}-") for one in taken)
    return word if not count else f"{word}-{count + 1}"
