"""Modules whose operators are known: what is told of them is what each operator would have shown."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import _get_current_dispatch_mode

import gradlab
from gradlab.watching import passing
from gradlab.watching.operators import Operators

torch.set_num_threads(1)

IMAGES, CLASSES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4


def convolutional() -> nn.Sequential:
    """One of every kind that takes images, and an activation."""
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Identity()),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU(), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(8, 16), nn.LayerNorm(16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, 4)),
    )


def straight() -> nn.Sequential:
    """A network that is linear in its input."""
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Dropout(0.0), nn.Linear(8, 4))


def seen(net: nn.Module) -> pd.DataFrame:
    torch.manual_seed(1)
    return gradlab.measure(net, F.cross_entropy, (IMAGES, CLASSES))


def unknown(net: nn.Module) -> nn.Module:
    """The same network of kinds that nobody knows: each operator is looked at."""
    copy = deepcopy(net)
    for part in copy.modules():
        part.__class__ = type(f"My{type(part).__name__}", (type(part),), {})
    return copy


@pytest.mark.parametrize("net", [convolutional(), straight()], ids=["convolutional", "straight"])
def test_what_is_known_is_what_is_seen(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []
    looked = Operators.__torch_dispatch__

    def counted(mode: Operators, func: Any, *rest: Any) -> Any:
        names.append(str(func))
        return looked(mode, func, *rest)

    monkeypatch.setattr(Operators, "__torch_dispatch__", counted)
    known, few = seen(net), len(names)
    every = seen(unknown(net))
    assert few < len(names) / 3
    pd.testing.assert_frame_equal(known, every, check_exact=True)
    told = known.attrs["facts"]
    assert told == every.attrs["facts"]
    assert told["linear"] == (not told["dropped"])
    assert all(type(part) in passing.PASSING for part in net.children() if not isinstance(part, nn.ReLU | nn.GELU))


def test_hooks_of_the_users_own_are_seen() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Linear(8, 4))
    net[2].register_forward_hook(lambda _, __, output: torch.relu(output))
    assert seen(net).attrs["activations"] == {"relu": (1, 1)}


def test_what_was_detached_is_told_where_a_known_module_takes_it() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(192, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Any:
            return self.last(self.first(x.flatten(1)).detach())

    assert list(seen(Cut())["cut"])[-2:] == [1.0, 0.0]


def test_an_error_inside_one_leaves_nothing_behind() -> None:
    class Tries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wrong, self.right = nn.Linear(3, 4), nn.Linear(192, 4)

        def forward(self, x: Tensor) -> Any:
            try:
                return self.wrong(x.flatten(1))
            except RuntimeError:
                return torch.tanh(self.right(x.flatten(1)))

    assert seen(Tries()).attrs["activations"] == {"tanh": (1, 1)}
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        seen(nn.Sequential(nn.Flatten(), nn.Linear(3, 4)))
    assert _get_current_dispatch_mode() is None
