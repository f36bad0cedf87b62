"""Compiles the kernels for the machine at hand and keeps them in the user's cache. Torch-free."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TextIO

SOURCE = Path(__file__).with_name("source")
"""The kernels in C, a file a kind; `player.c` includes the others."""

SWITCH = "GRADLAB_KERNELS"
"""The environment variable that says ``torch`` where nothing is to be compiled; ``triton``, or ``blocks``, on a GPU."""

FLAGS = (
    *("-std=gnu11", "-O3", "-march=native", "-fPIC", "-fopenmp-simd"),
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
)
"""Nothing that reorders sums where the source does not say so, flushes subnormals, or takes numbers for finite."""

BITS = {"float32": 32, "float64": 64}

ASK_SECONDS, COMPILE_SECONDS, TRY_SECONDS = 20, 60, 20
"""After which a compiler is given up that is asked for its macros, and one that compiles; after which a library is."""

REMEMBERED_SECONDS = 24 * 3600
"""How long a compiler that failed is not tried again."""

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

FAILED = "failed"
"""What stands in a lock's file, instead of the library's checksum, where nothing that works came out."""

TRIAL = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).play(None, ctypes.c_int64(0), None, ctypes.c_int64(0))"
"""Run in a process of its own before a library is ever loaded into another: rubbish ends that one alone."""


@cache
def library(precision: str) -> Path | None:
    """The kernels in ``precision`` (float32, float64) as a shared library; None where they cannot be had, or are none.

    Compiled on first use, in about two seconds. What was compiled for another source, compiler or processor is
    another file. A library is the user's own, writable by nobody else, and has the checksum that was noted when it had
    been compiled and tried; else it is compiled again.
    """
    command = _compiler()
    if precision not in ("float32", "float64") or command is None or os.environ.get(SWITCH, "native") == "torch":
        return None
    try:
        folder = _private_folder()
        target = _target(folder, command)
        if target is None:
            return None
        parts = [path.read_text(encoding="utf-8") for path in sorted(SOURCE.iterdir())]
        key = hashlib.sha256("\n".join([*parts, *command, *FLAGS, target]).encode())
        path = folder / f"{key.hexdigest()[:24]}-{precision}.so"
        with _alone(folder / f"{path.stem}.lock") as note:
            noted = note.read()
            if noted == _checksum(path):
                return path
            if noted == FAILED and _is_recent(note):
                return None
            path.unlink(missing_ok=True)
            works = _compiled(command, precision, path)
            _write(note, (_checksum(path) or FAILED) if works else FAILED)
            return path if works else None
    except (OSError, RuntimeError):
        # No place for a cache (no home, no space, a folder of somebody else's): torch computes the same.
        return None


def kept(key: Sequence[str], make: Callable[[], bytes]) -> bytes:
    """What ``make`` gives: made once, and from then on taken from the cache, where there can be one.

    It is the user's own, as a `library` is.
    """
    try:
        folder, name = _private_folder(), hashlib.sha256("\0".join(key).encode()).hexdigest()[:24]
        path = folder / f"{name}.bin"
        with _alone(folder / f"{path.stem}.lock") as note:
            if note.read() == _checksum(path):
                return path.read_bytes()
            made = make()
            path.unlink(missing_ok=True)
            path.touch(0o600)
            path.write_bytes(made)
            _write(note, _checksum(path) or FAILED)
            return made
    except (OSError, RuntimeError):
        return make()


def on_a_gpu() -> str:
    """What computes there: ``blocks`` or ``triton`` where that is asked for (Triton: and installed), else ``torch``."""
    asked = os.environ.get(SWITCH, "torch")
    there = asked == "blocks" or (asked == "triton" and importlib.util.find_spec("triton") is not None)
    return asked if there else "torch"


def _private_folder() -> Path:
    """The cache's folder, the user's own and writable by nobody else. Raises `PermissionError` for another's."""
    import pooch

    folder = Path(pooch.os_cache("gradlab")) / "kernels"
    if not folder.is_absolute():
        raise FileNotFoundError(f"{folder}: no place for a cache")
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(f"{folder}: not a folder of this user") from None
        if found.st_mode & OTHERS_WRITE:
            # Whatever lies there may be anybody's.
            folder.chmod(0o700)
            for path in folder.iterdir():
                if not path.is_dir() or path.is_symlink():
                    path.unlink()
    return folder


def _target(folder: Path, command: Sequence[str]) -> str | None:
    """All macros that the compiler defines: its version, and what -march=native found in the processor."""
    program = Path(shutil.which(command[0]) or command[0])
    found = program.stat()
    words = [*command, *map(str, (program.resolve(), found.st_size, found.st_mtime_ns))]
    name = hashlib.sha256("\n".join(words).encode(errors="surrogateescape")).hexdigest()[:24]
    silent = folder / f"{name}.silent"
    if silent.exists() and time.time() - silent.stat().st_mtime < REMEMBERED_SECONDS:
        return None
    try:
        return _output([*command, *FLAGS, "-dM", "-E", "-x", "c", os.devnull], ASK_SECONDS)
    except subprocess.TimeoutExpired:
        silent.touch()
        return None


def _compiled(command: Sequence[str], precision: str, path: Path) -> bool:
    """Whether the compiler makes a library that can be loaded; it is in its place then, and on the disk."""
    _sweep_up(path.parent)
    bits = f"-DBITS={BITS[precision]}"
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        fresh = Path(scratch) / path.name
        build = [*command, *FLAGS, bits, "-shared", "-o", str(fresh), str(SOURCE / "player.c"), "-lm"]
        try:
            if _output(build, COMPILE_SECONDS) is None or not fresh.is_file():
                return False
            if _output([sys.executable, "-I", "-S", "-c", TRIAL, str(fresh)], TRY_SECONDS) is None:
                return False
        except subprocess.TimeoutExpired:
            return False
        fresh.chmod(0o700)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(path)
    return True


def _sweep_up(folder: Path) -> None:
    """Removes the scratch folders of compilations that were killed: older than one that is still at work can be."""
    for scratch in folder.glob("tmp*"):
        with suppress(OSError):
            if scratch.is_dir() and time.time() - scratch.stat().st_mtime > COMPILE_SECONDS + TRY_SECONDS:
                shutil.rmtree(scratch)


def _checksum(path: Path) -> str | None:
    """SHA-256 of a library; None where there is none that is a file of the user's own, writable by nobody else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        own = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & OTHERS_WRITE
        return hashlib.sha256(file.read()).hexdigest() if own else None


def _compiler() -> list[str] | None:
    """The C compiler that $CC or Python's own build names, else cc."""
    for named in (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang"):
        try:
            words = shlex.split(named or "")
        except ValueError:
            # A quotation that does not end.
            continue
        if words and shutil.which(words[0]):
            return words
    return None


def _output(command: Sequence[str], seconds: float) -> str | None:
    """What a command prints; None where it fails or cannot be run.

    Raises `subprocess.TimeoutExpired` where it does not end, which is ended then with all that it has started.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except OSError:
        return None
    with process:
        try:
            out, _ = process.communicate(timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return out if process.returncode == 0 else None


@contextmanager
def _alone(path: Path) -> Iterator[TextIO]:
    """One process at a time: the others wait for what it compiles. Gives the file, and what was noted in it."""
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+", encoding="ascii", errors="replace") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle


def _write(note: TextIO, text: str) -> None:
    note.seek(0)
    note.truncate()
    note.write(text)
    note.flush()
    os.fsync(note.fileno())


def _is_recent(note: TextIO) -> bool:
    return time.time() - os.fstat(note.fileno()).st_mtime < REMEMBERED_SECONDS
