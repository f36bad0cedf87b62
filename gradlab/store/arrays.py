"""Arrays in a file that is read whole or not at all: the form of safetensors, with a digest of the file in it.

The form is eight bytes with the length of a header, the header in JSON, and the arrays one after the other
(https://github.com/huggingface/safetensors); nothing in it can be code. Torch-free.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradlab.store.atomic import replace

Array = NDArray[Any]

KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "BOOL": "|b1"}
"""What safetensors calls the kinds of numbers that are kept."""

STATE = "state."
"""What the names of a training's own tensors begin with among the arrays; the others are what it has measured."""

BEGINNING = b'{"__metadata__":{"sha256":"'
"""Of every header of ours: the digest has a fixed place, and is of the file with zeros there."""

PLACE = slice(8 + len(BEGINNING), 8 + len(BEGINNING) + 64)


@dataclass(frozen=True)
class Kept:
    """Named ``arrays``, and ``facts`` beside them, which JSON can hold."""

    facts: Mapping[str, Any]
    arrays: Mapping[str, Array]


def write_arrays(path: Path, kept: Kept) -> None:
    """Replaces the file, all at once. Raises `KeyError` for a kind of number that has no name in `KINDS`."""
    replace(path, partial(_write, kept))


def read_arrays(path: Path) -> Kept | None:
    """What `write_arrays` wrote; None where there is no such file, or not the whole of it as it was written."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    blank = hashlib.sha256(raw[: PLACE.start])
    blank.update(b"0" * 64)
    blank.update(memoryview(raw)[PLACE.stop :])
    if not raw[8:].startswith(BEGINNING) or raw[PLACE] != blank.hexdigest().encode():
        return None
    # From here on the content is what was written.
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    facts = json.loads(header.pop("__metadata__")["gradlab"])
    arrays = {}
    for name, entry in header.items():
        first, end = entry["data_offsets"]
        numbers = np.frombuffer(memoryview(raw)[start + first : start + end], dtype=KINDS[entry["dtype"]])
        arrays[name] = numbers.reshape(entry["shape"])
    return Kept(facts, arrays)


def _write(kept: Kept, path: Path) -> None:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for part in _parts(kept):
            digest.update(part)
            file.write(part)
        file.seek(PLACE.start)
        file.write(digest.hexdigest().encode())


def _parts(kept: Kept) -> Iterator[bytes | memoryview]:
    names = {np.dtype(kind): name for name, kind in KINDS.items()}
    entries, end = {}, 0
    for name, array in kept.arrays.items():
        offsets = [end, end + array.nbytes]
        entries[name] = {"dtype": names[array.dtype], "shape": list(array.shape), "data_offsets": offsets}
        end += array.nbytes
    metadata = {"sha256": "0" * 64, "gradlab": json.dumps(kept.facts)}
    header = json.dumps({"__metadata__": metadata, **entries}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    yield len(header).to_bytes(8, "little")
    yield header
    for array in kept.arrays.values():
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
