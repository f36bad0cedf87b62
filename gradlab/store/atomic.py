"""How a file is written so that a torn one is never read: beside its place, then renamed into it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Replaces ``path`` by what ``write`` writes, all at once; what breaks leaves ``path`` as it was, and nothing else.

    The content is on the disk before the name is: a power cut leaves the old file or the new one.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        # Who reads of it knows the file that was to be written, and no other.
        if isinstance(error, OSError) and error.filename == str(temporary):
            error.filename = str(path)
        raise


def is_left_over(path: Path) -> bool:
    """Whether ``path`` is what a process that was killed while it wrote left beside a file's place."""
    return re.fullmatch(r"\.\w[\w.-]*\.\d+", path.name) is not None
