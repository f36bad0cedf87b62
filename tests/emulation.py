"""A block of a GPU that is none: the source of `gradlab.nn.kernels.blocks` as C, its threads those of the processor.

What its threads share lies in one place, so that one block is played after the other; ``SYNC`` is a barrier. It plays
what is written down for a processor (`player`), and what is uploaded to a fake card (`kernel`).
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gradlab.nn.kernels import blocks, calls

needed = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")

FLAGS = ("-std=gnu11", "-O2", "-march=native", "-ffp-contract=off", "-fno-strict-aliasing", "-w", "-pthread", "-fPIC")

SHIM = """
#include <pthread.h>
#include <stdint.h>
#include <tgmath.h>
#define THREADS 4
#define SHARED static
#define FUNCTION static
#define KERNEL static
#define ENTRY static void
static __thread int THREAD;
static int MEMBER;
static pthread_barrier_t barrier;
#define SYNC() pthread_barrier_wait(&barrier)
"""

PLAYER = """
struct launch {
    const struct call *one, *other;
    int ones, others, low, high, first, steps, how_many;
    const int64_t *members;
};

static void *threaded(void *given)
{
    static int number;
    const struct launch *l = given;
    THREAD = __atomic_fetch_add(&number, 1, __ATOMIC_RELAXED) % THREADS;
    for (int i = 0; i < l->how_many; i++) {
        if (THREAD == 0)
            MEMBER = (int)l->members[i];
        SYNC();
        play_blocks(l->one, l->other, l->ones, l->others, l->low, l->high, l->first, l->steps);
    }
    return 0;
}

void launch(
    const struct call *one, const struct call *other, int ones, int others, int low, int high, int first, int steps,
    const int64_t *members, int how_many)
{
    struct launch given = {one, other, ones, others, low, high, first, steps, how_many, members};
    pthread_t threads[THREADS];
    pthread_barrier_init(&barrier, 0, THREADS);
    for (int i = 0; i < THREADS; i++)
        pthread_create(threads + i, 0, threaded, &given);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], 0);
    pthread_barrier_destroy(&barrier);
}
"""


def compiled(folder: Path, source: str, *more: str) -> Path:
    """A library of the source, with ``more`` options of the compiler."""
    text, path = folder / "blocks.c", folder / "blocks.so"
    text.write_text(SHIM + source + PLAYER, encoding="utf-8")
    subprocess.run(["gcc", *FLAGS, *more, "-shared", "-o", str(path), str(text), "-lm"], check=True)
    return path


@cache
def _launch(dtype: torch.dtype) -> Callable[..., None]:
    """Compiled once a process."""
    number, place = ctypes.c_int, ctypes.c_void_p
    with tempfile.TemporaryDirectory() as folder:
        found = ctypes.CDLL(str(compiled(Path(folder), blocks.source(8 * dtype.itemsize)))).launch
    found.argtypes, found.restype = (place, place, *(number,) * 6, place, number), None
    return found


@cache
def player(dtype: torch.dtype) -> calls.Player | None:
    """As `calls.kernels`."""
    if dtype not in calls.PRECISIONS:
        return None
    launch = _launch(dtype)

    def once(rows: bytes, count: int, members: int, how_many: int) -> None:
        launch(rows, rows, count, count, 0, 0, 0, 1, members, how_many)

    def steps(rows: Any, counts: int, which: int, first: int, span: int, members: int, how_many: int) -> None:
        several = (ctypes.c_int64 * 2).from_address(counts)
        mask = sum(bit << step for step, bit in enumerate((ctypes.c_int64 * span).from_address(which)))
        both = (ctypes.c_void_p * 2).from_buffer(rows)
        launch(*both, *several, mask & 0xFFFFFFFF, mask >> 32, first, span, members, how_many)

    return calls.Player(once, steps)


def kernel(dtype: torch.dtype, device: torch.device) -> Callable[..., None]:
    """As what torch compiles for a card, of one that is none (`tests.card`): its tensors lie in the host's memory."""
    del device

    def asked(grid: tuple[int, ...], block: tuple[int, ...], args: list[Tensor | int]) -> None:
        one, other, *numbers = args
        members = np.arange(grid[0])
        assert (grid[1:], block) == ((1, 1), (blocks.THREADS, 1, 1))
        assert isinstance(one, Tensor)
        assert isinstance(other, Tensor)
        _launch(dtype)(one.data_ptr(), other.data_ptr(), *numbers, members.ctypes.data, len(members))

    return asked
