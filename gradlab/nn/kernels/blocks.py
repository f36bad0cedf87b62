"""Steps of a cohort on a GPU as one launch: a block plays its member, step by step, from the calls as written down.

Off unless ``GRADLAB_KERNELS=blocks``: threads of a processor hold it to torch in the tests, and no card has seen it
yet. The kernels lie in ``source_blocks/``, a file a kind; a step that asks for one that is not there is captured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.cuda import _utils as card

from gradlab.nn.kernels.calls import KERNELS, PRECISIONS, Bools
from gradlab.nn.kernels.compiler import SWITCH, kept, on_a_gpu
from gradlab.nn.kernels.native import ACTIVATIONS, CLIPS
from gradlab.nn.kernels.program import Blocks, Uploaded

SOURCE = Path(__file__).with_name("source_blocks")

FILES = ("block.h", "products.h", "activations.h", "norms.h", "losses.h", "probes.h", "optimizers.h", "player.h")
"""One after the other they are the whole."""

OPTIONS = ["--fmad=false"]
"""What cancels in exact arithmetic cancels here; the products say where they fuse."""

THREADS = 256
"""Of a block, as in block.h."""

MOST_STEPS = 64
"""Of a launch: which of them are recorded are the bits of one number."""


def source(bits: int) -> str:
    """All of it, for numbers of so many bits."""
    numbers = [f"enum {{ {', '.join(map(str.upper, names))} }};" for names in (KERNELS, ACTIVATIONS, CLIPS)]
    parts = [(SOURCE / name).read_text(encoding="utf-8") for name in FILES]
    return "\n".join([f"#define BITS {bits}", *numbers, *parts])


def kernels() -> frozenset[str]:
    """The names of the kernels that are there."""
    return frozenset(map(str.lower, re.findall(r"\bcase (\w+):", (SOURCE / "player.h").read_text(encoding="utf-8"))))


def player(like: Tensor) -> Blocks | None:
    """What plays steps on tensors ``like`` this one; None where it is not asked for, or not for such numbers.

    Raises `RuntimeError` where it is asked for and cannot be compiled.
    """
    if not (like.is_cuda and on_a_gpu() == "blocks" and like.dtype in PRECISIONS):
        return None
    kernel = _compiled(like.dtype, like.device)
    return Blocks(kernels(), lambda *asked: _launch(kernel, *asked))


@cache
def _compiled(dtype: torch.dtype, device: torch.device) -> Any:
    """The kernel on this card."""
    try:
        with torch.cuda.device(device):
            text, name = source(8 * dtype.itemsize), "play_blocks"
            key = (text, *OPTIONS, torch.__version__, str(torch.cuda.get_device_capability()))
            made = kept(key, lambda: card._nvrtc_compile(text, name, nvcc_options=list(OPTIONS))[0])
            return cast("Mapping[str, Any]", card._cuda_load_module(made, [name]))[name]
    except (AttributeError, OSError, RuntimeError) as error:
        needs = f"PyTorch {torch.__version__} cannot compile it for this card (2.9 or newer can, beside a CUDA toolkit)"
        raise RuntimeError(f"{SWITCH}=blocks: {needs}: {error}") from error


def _launch(kernel: Any, one: Uploaded, other: Uploaded, which: Bools, first: int) -> None:
    """On the stream of the device at hand; nothing waits for it."""
    if len(which) > MOST_STEPS:
        raise ValueError(f"{len(which)} steps in a launch; expected {MOST_STEPS} at most")
    mask = sum(1 << int(step) for step in which.nonzero()[0])
    halves = (mask & 0xFFFFFFFF, mask >> 32)  # whole numbers are handed over as 32 bits
    with torch.cuda.device(one.rows.device):
        given = [one.rows, other.rows, one.count, other.count, *halves, first, len(which)]
        kernel(grid=(one.members, 1, 1), block=(THREADS, 1, 1), args=given)
