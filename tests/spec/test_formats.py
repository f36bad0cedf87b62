"""What formats can hold: torch's own word for it."""

from __future__ import annotations

import pytest
import torch

from gradlab.spec.choices.formats import FORMATS


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - {"tf32"}))
def test_the_bounds_are_torchs(name: str) -> None:
    # Of TF32 torch has no dtype: tests/engine/test_tf32.py.
    form, told = FORMATS[name], torch.finfo(getattr(torch, {"float8_e4m3": "float8_e4m3fn"}.get(name, name)))
    assert (form.smallest_normal, form.largest) == (told.smallest_normal, told.max)
    assert 2.0 ** (1 - form.digits) == told.eps
    assert form.smallest == told.smallest_normal * told.eps
