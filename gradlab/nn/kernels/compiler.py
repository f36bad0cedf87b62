"""Compiles the kernels for the machine at hand and keeps them in the user's cache. Torch-free."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).with_name("source")
"""The kernels in C, a file a kind; `player.c` includes the others."""

SWITCH = "GRADLAB_KERNELS"
"""The environment variable that says ``torch`` where nothing is to be compiled."""

FLAGS = (
    *("-std=gnu11", "-O3", "-march=native", "-fPIC", "-fopenmp-simd"),
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
)
"""Nothing that reorders sums where the source does not say so, flushes subnormals, or takes numbers for finite."""

BITS = {"float32": 32, "float64": 64}

SECONDS = 120
"""After which a compiler is given up."""


@cache
def library(precision: str) -> Path | None:
    """The kernels in ``precision`` (float32 or float64) as a shared library; None where they cannot be had.

    Compiled on first use, in about two seconds. What was compiled for another source, compiler or processor is
    another file.
    """
    command = _compiler()
    if command is None or os.environ.get(SWITCH, "native") == "torch":
        return None
    # All macros that the compiler defines: its version, and what -march=native found in the processor.
    target = _output([*command, *FLAGS, "-dM", "-E", "-x", "c", os.devnull])
    if target is None:
        return None
    bits = f"-DBITS={BITS[precision]}"
    parts = [path.read_text(encoding="utf-8") for path in sorted(SOURCE.iterdir())]
    key = hashlib.sha256("\n".join([*parts, *command, *FLAGS, target]).encode())
    import pooch

    try:
        folder = Path(pooch.os_cache("gradlab")) / "kernels"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{key.hexdigest()[:24]}-{precision}.so"
        with _alone(folder / f"{path.stem}.lock"):
            if path.exists():
                return path
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                fresh = Path(scratch) / path.name
                if (
                    _output([*command, *FLAGS, bits, "-shared", "-o", str(fresh), str(SOURCE / "player.c"), "-lm"])
                    is None
                ):
                    return None
                fresh.replace(path)
    except OSError:
        # A cache that cannot be written: torch computes the same.
        return None
    return path


def _compiler() -> list[str] | None:
    """The C compiler that $CC or Python's own build names, else cc."""
    for named in (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang"):
        words = shlex.split(named or "")
        if words and shutil.which(words[0]):
            return words
    return None


def _output(command: list[str]) -> str | None:
    """What a command prints; None where it fails, is not there, or does not end."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time: the others wait for what it compiles."""
    import fcntl

    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
