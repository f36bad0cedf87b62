"""Which device a command takes, found out without importing torch: the driver and torch's build are asked instead."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path

from gradlab.spec.named import SpecError

CPU_MEMORY = 96 * 2**20
"""Bytes that a piece may take on a CPU unless told otherwise: the same on every machine."""


WORKER_MEMORY = 256 * 2**20
"""Bytes that a worker takes beside its piece: mostly PyTorch."""

STREAMS = 8
"""Pieces that a worker on a GPU trains by turns: each is a chain of small kernels, which leaves most of a card idle. As
many as a process has queues to it, unless CUDA_DEVICE_MAX_CONNECTIONS says otherwise."""

ROOM = 3
"""Of how many pieces of its `Device.memory`, a quarter of it, a GPU holds all that is at work: the rest is not theirs,
as the contexts of processes and what libraries take."""

PER_CORE = 2
"""Workers a core, at most: more only take turns."""


@dataclass(frozen=True)
class Device:
    """``name`` is torch's (cpu, cuda:0); ``memory`` the bytes that a piece may take by default; ``cores`` to use."""

    name: str
    label: str
    memory: int
    cores: int

    @property
    def is_cpu(self) -> bool:
        """Whether pieces run on the processor."""
        return self.name == "cpu"

    @property
    def workers(self) -> int:
        """Processes that share it by default: one a core on a CPU, one on a GPU."""
        return self.cores if self.is_cpu else 1

    @property
    def streams(self) -> int:
        """Pieces that one of these processes trains by turns, by default."""
        return 1 if self.is_cpu else STREAMS

    @property
    def room(self) -> int:
        """Bytes that pieces of a GPU may take together, where there are several."""
        return ROOM * self.memory


def choose(asked: str) -> Device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. Raises `SpecError` where it is not to be had."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", asked):
        raise SpecError(f"--device {asked}: expected auto, cpu, cuda or cuda:N")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cpu = Device("cpu", f"cpu, {cores} cores" if cores > 1 else "cpu", CPU_MEMORY, cores)
    if asked == "cpu":
        return cpu
    built = _cuda_of_torch()
    of_driver, cards = _cards() if built else (0, [])
    if of_driver < built:
        cards = []
    if asked == "auto" and not cards:
        return cpu
    index = int(asked.partition(":")[2] or 0)
    if index >= len(cards):
        why = f"torch sees {len(cards)} GPUs" if built else "the installed torch is a CPU build"
        if 0 < of_driver < built:
            why = f"its driver knows CUDA {of_driver}, and the installed torch needs {built}"
        raise SpecError(f"--device {asked}: no such GPU ({why}); expected auto, cpu or one that is there")
    name, memory = cards[index]
    return Device(f"cuda:{index}", f"cuda:{index}, {name}", memory // 4, cores)


def workers_on(device: Device, asked: int | None, largest: int) -> tuple[int, str | None]:
    """Processes for pieces of at most ``largest`` bytes, and why they are fewer than ``asked`` (None: by default)."""
    wanted = asked or device.workers
    by_cores = PER_CORE * device.cores
    by_memory = max(1, memory() // (WORKER_MEMORY + (largest if device.is_cpu else 0)))
    count = min(wanted, by_cores, by_memory)
    if count == wanted:
        return count, None
    why = f"{device.cores} cores" if by_cores <= by_memory else f"memory of {memory() / 2**30:.0f} GiB"
    return count, f"{count} worker{'s' * (count > 1)} at once instead of {wanted:,}: this machine has {why}."


def memory() -> int:
    """Bytes of this machine, or of the container that the command runs in."""
    places = map(Path, ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"))
    said = [place.read_text(encoding="ascii").strip() for place in places if place.is_file()]
    limits = [int(limit) for limit in said if limit.isdecimal()]
    return min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *limits)


def _cuda_of_torch() -> int:
    """The CUDA that the installed torch is built for, its first number; 0 of a CPU build.

    A driver serves every release of its own first number, and those before.
    """
    found = importlib.util.find_spec("torch")
    for place in (found and found.submodule_search_locations) or []:
        version = Path(place) / "version.py"
        text = version.read_text(encoding="utf-8") if version.is_file() else ""
        if said := re.search(r"^cuda\b.*= '(\d+)", text, re.MULTILINE):
            return int(said[1])
    return 0


def _cards() -> tuple[int, list[tuple[str, int]]]:
    """The first number of the CUDA that the driver knows, and name and bytes of every GPU that it shows.

    Zero and none where there is no driver.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0, []
    version, count = ctypes.c_int(), ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return version.value // 1000, []
    cards = []
    for index in range(count.value):
        device, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(128)
        if driver.cuDeviceGet(ctypes.byref(device), index) == 0:
            driver.cuDeviceGetName(name, 128, device)
            driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
            cards.append((name.value.decode(), memory.value))
    return version.value // 1000, cards
