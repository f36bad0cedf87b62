"""TF32: products of single numbers as a GPU's tensor cores take them, and the same on a processor.

Operands of matrix products and convolutions are rounded to 11 significant bits; what they are multiplied and added to
is single, and so is all else. A processor rounds to the nearest, ties away from zero, as `cvt.rna.tf32.f32` does (PTX
ISA, section "cvt"); a library's kernel on a card may cut bits off instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from gradlab.nn.kernels.calls import aside

_ATEN = torch.ops.aten

OPERANDS: Mapping[Any, tuple[int, ...]] = {
    **dict.fromkeys((_ATEN.mm, _ATEN.bmm, _ATEN.convolution), (0, 1)),
    **dict.fromkeys((_ATEN.addmm, _ATEN.addmm_, _ATEN.baddbmm, _ATEN.baddbmm_, _ATEN.addbmm), (1, 2)),
    _ATEN.convolution_backward: (0, 1, 2),
}
"""Which arguments of an operator are rounded. A product with a vector is none of a tensor core's."""

LAST_KEPT = 1 << 13
"""The least significant of a single number's bits that TF32 has."""


def rounded(x: Tensor) -> Tensor:
    """Single numbers, any shape, as TF32 holds them; what is not finite stays."""
    bits = (x.view(torch.int32) + LAST_KEPT // 2) & -LAST_KEPT
    return torch.where(x.isfinite(), bits.view(torch.float32), x)


def products(device: torch.device) -> AbstractContextManager[None]:
    """Inside, products and convolutions of single numbers on ``device`` are TF32's."""
    return _on_a_card() if device.type == "cuda" else _on_a_processor()


@contextmanager
def _on_a_card() -> Iterator[None]:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = True
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


@contextmanager
def _on_a_processor() -> Iterator[None]:
    mkldnn, mha = torch.backends.mkldnn, torch.backends.mha
    before = mkldnn.set_flags(False)[0], mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        # Inside what torch fuses with a product nobody can round.
        with aside(), sdpa_kernel(SDPBackend.MATH), _Rounding():
            yield
    finally:
        mkldnn.set_flags(before[0])
        mha.set_fastpath_enabled(before[1])


class _Rounding(TorchDispatchMode):
    """Within it the operands of products are rounded."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: torch would import its compiler, for seconds, to keep it away from this mode."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        places = OPERANDS.get(func.overloadpacket, ())
        if places and args[places[0]].dtype is torch.float32:
            args = tuple(rounded(one) if place in places else one for place, one in enumerate(args))
        return func(*args, **(kwargs or {}))
