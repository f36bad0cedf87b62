"""Operators that are shown without a look at the others: what is told is what a look at every one would have shown."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import _get_current_dispatch_mode

import gradlab
from gradlab.watching import operators, shown
from gradlab.watching.operators import Operators

torch.set_num_threads(1)

IMAGES, CLASSES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4


def convolutional() -> nn.Module:
    """One of every usual kind, an activation that overwrites what it is given, and one that is put together."""
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Identity()),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Softsign(), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(8, 16), nn.LayerNorm(16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, 4)),
    )


def straight() -> nn.Module:
    """A network that is linear in its input."""
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Dropout(0.0), nn.Linear(8, 4))


class Attentive(nn.Module):
    """Attention by hand and fused, a mask, a gate, a choice, distances, and what is detached and used again."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.around = nn.Linear(24, 16), nn.MultiheadAttention(16, 2, batch_first=True)
        self.gate, self.out = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Any:
        h = self.enter(x.reshape(8, 8, 24))
        h = h + self.around(h, h, h)[0]
        h = h + F.scaled_dot_product_attention(h, h, h, dropout_p=0.2)
        weights = torch.softmax((h @ h.transpose(1, 2)).masked_fill(torch.ones(8, 8).triu(1) > 0, -torch.inf), -1)
        h = F.dropout(weights @ h, 0.1) * torch.sigmoid(self.gate(h).detach())
        with torch.inference_mode():
            scale = float(torch.relu(h).amax())
        h = torch.relu(deepcopy(self.gate)(h)) / scale
        kept = (h.detach().argmax(-1) > 3).float().unsqueeze(-1)
        near = torch.cdist(h, h).mean(-1, keepdim=True)
        return self.out((kept * h + near).exp().mean(1))


def seen(net: nn.Module) -> pd.DataFrame:
    torch.manual_seed(1)
    return gradlab.measure(net, F.cross_entropy, (IMAGES, CLASSES))


@pytest.mark.parametrize("kind", [convolutional, straight, Attentive])
def test_what_is_shown_is_what_a_look_at_every_operator_tells(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net, names = kind(), list[str]()
    looked = Operators.__torch_dispatch__

    def counted(mode: Operators, func: Any, *rest: Any) -> Any:
        names.append(str(func))
        return looked(mode, func, *rest)

    monkeypatch.setattr(Operators, "__torch_dispatch__", counted)
    found = seen(net)
    few = len(names)
    # As under a torch that has no such key.
    monkeypatch.setattr(operators, "shows", lambda *_: None)
    every = seen(net)
    assert few < len(names) / 3
    pd.testing.assert_frame_equal(found, every, check_exact=True)
    assert found.attrs == every.attrs
    assert found.attrs["facts"]["linear"] == (kind is straight)


def test_an_operator_that_a_hook_of_the_users_own_calls_is_seen() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Linear(8, 4))
    net[2].register_forward_hook(lambda _, __, output: torch.relu(output))
    assert seen(net).attrs["activations"] == {"relu": (1, 1)}


def test_under_a_transform_operators_are_seen_as_they_end_up() -> None:
    class Mapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(192, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Any:
            h = self.first(x.flatten(1))
            nn.Parameter(h.detach())  # torch makes it by the operator that is detach
            return self.last(torch.func.vmap(torch.tanh)(h))

    assert seen(Mapped()).attrs["activations"] == {"tanh": (1, 1)}


OFF: list[Callable[[Tensor], Tensor]] = [
    lambda one: one.detach(),
    lambda one: torch.detach(one * 1),
    lambda one: one.data,
]


@pytest.mark.parametrize("off", OFF)
def test_what_was_detached_is_told_where_a_module_takes_it(off: Callable[[Tensor], Tensor]) -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(192, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Any:
            return self.last(off(self.first(x.flatten(1))))

    assert list(seen(Cut())["cut"])[-2:] == [1.0, 0.0]


def test_an_error_inside_leaves_nothing_behind() -> None:
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
    key = torch._C._dispatch_key_parse(shown.KEY)
    assert not torch._C._dispatch_tls_is_dispatch_key_included(key)
    assert Tensor.detach is torch._C.TensorBase.detach
    assert "data" not in vars(Tensor)
