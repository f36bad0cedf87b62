"""A block of a GPU that is none: the source of `gradlab.nn.kernels.blocks` in C, its threads those of the processor.

What is shared lies in one place, so that one block is played after the other; `__syncthreads` is a barrier.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from gradlab.nn.kernels import blocks
from gradlab.nn.kernels.program import _Player

THREADS = 4
"""Of a block here."""

SHIM = f"""
#include <pthread.h>
#include <stdint.h>
#include <tgmath.h>
#define THREADS {THREADS}
#define SHARED static
#define FUNCTION static
#define ENTRY static void
static __thread int THREAD;
static int MEMBER;
static pthread_barrier_t barrier;
#define SYNC() pthread_barrier_wait(&barrier)
"""

PLAYER = """
struct launch {
    const struct call *const *programs;
    const int64_t *counts, *members;
    int low, high, first, steps, how_many;
};

struct thread {
    const struct launch *launch;
    int number;
};

static void *threaded(void *given)
{
    const struct launch *l = ((struct thread *)given)->launch;
    THREAD = ((struct thread *)given)->number;
    for (int i = 0; i < l->how_many; i++) {
        SYNC();
        if (THREAD == 0)
            MEMBER = (int)l->members[i];
        SYNC();
        play_blocks(l->programs[0], l->programs[1], (int)l->counts[0], (int)l->counts[1], l->low, l->high, l->first,
                    l->steps);
    }
    return 0;
}

void play_steps(
    const struct call *const *programs, const int64_t *counts, const int64_t *which, int64_t first, int64_t steps,
    const int64_t *members, int64_t how_many)
{
    uint64_t mask = 0;
    for (int64_t s = 0; s < steps; s++)
        mask |= (uint64_t)which[s] << s;
    const struct launch launch = {
        programs, counts, members, (int)mask, (int)(mask >> 32), (int)first, (int)steps, (int)how_many};
    pthread_t threads[THREADS];
    struct thread given[THREADS];
    pthread_barrier_init(&barrier, 0, THREADS);
    for (int i = 0; i < THREADS; i++) {
        given[i] = (struct thread){&launch, i};
        pthread_create(threads + i, 0, threaded, given + i);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], 0);
    pthread_barrier_destroy(&barrier);
}

void play(const struct call *calls, int64_t count, const int64_t *members, int64_t how_many)
{
    const struct call *programs[] = {calls, calls};
    const int64_t counts[] = {count, count}, which = 0;
    play_steps(programs, counts, &which, 0, 1, members, how_many);
}
"""

FLAGS = ("-std=gnu11", "-O2", "-march=native", "-ffp-contract=off", "-fno-strict-aliasing", "-w", "-pthread", "-fPIC")


def compiled(folder: Path, bits: int, *more: str, source: str | None = None) -> Path:
    """The library, with ``more`` of the compiler's options."""
    path, text = folder / f"blocks{bits}.so", source or blocks.source(bits)
    path.with_suffix(".c").write_text(SHIM + text + PLAYER, encoding="utf-8")
    build = ["gcc", *FLAGS, *more, "-shared", "-o", str(path), str(path.with_suffix(".c")), "-lm"]
    subprocess.run(build, check=True)
    return path


@cache
def player(dtype: torch.dtype) -> _Player | None:
    """As `program.kernels`, of tensors on a processor."""
    if dtype not in (torch.float32, torch.float64):
        return None
    with tempfile.TemporaryDirectory() as folder:
        found = ctypes.CDLL(str(compiled(Path(folder), 8 * dtype.itemsize)))
    number, place = ctypes.c_int64, ctypes.c_void_p
    found.play.argtypes = (ctypes.c_char_p, number, place, number)
    found.play_steps.argtypes = (ctypes.POINTER(ctypes.c_char_p), place, place, number, number, place, number)
    return _Player(found.play, found.play_steps)


def kernel(dtype: torch.dtype) -> Any:
    """As what torch compiles for a card: it plays a launch on the memory of a fake one (`tests.card`)."""
