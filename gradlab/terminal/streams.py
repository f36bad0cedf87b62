"""Standard output as it comes: a pipe whose reader has gone, and an encoding that lacks the letters of the formulas."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterable
from typing import TextIO

from gradlab.spec.secret import without_password

SPELLED = {
    **dict(zip("σδΔ∂‖×₁–·", "sdDd|x1-*", strict=True)),
    "φ": "phi",
    "χ": "chi",
    "ξ": "xi",
    "∇": "grad ",
    "√": "sqrt ",
    "²": "^2",
    "±": "+-",
    "→": "->",
    "…": "...",
    "≥": ">=",
    "≤": "<=",
    "∞": "inf",
    **{bar: str(height) for height, bar in enumerate("▁▂▃▄▅▆▇█", start=1)},
}
"""Signs that an encoding may lack, in letters that each has."""


CONTROLS = {
    **{code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"},
    **{code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))},
}
"""Characters that would move the cursor, colour what follows or turn its direction, as they are shown."""


def visible(text: str) -> str:
    r"""``text`` with its control characters as they are written, and no password.

    >>> visible("\x1b[31mred")
    '\\x1b[31mred'
    """
    return without_password(text).translate(CONTROLS)


class Nowhere(io.TextIOBase):
    """A text stream that keeps nothing."""

    def write(self, text: str) -> int:
        """The length of ``text``, as a file says it."""
        return len(text)


class Enduring:
    """A text stream that goes on without its reader: what is written into a broken pipe is lost, and nothing else.

    A sweep whose output goes into ``head`` is still a sweep, and its tables are what it is for.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As the stream's; nowhere once its reader has gone."""
        try:
            written = self._stream.write(text)
            if "\n" in text:
                self._stream.flush()
        except BrokenPipeError:
            self._forsake()
            return len(text)
        return written

    def writelines(self, lines: Iterable[str]) -> None:
        """As the stream's."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """As the stream's."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._forsake()

    def _forsake(self) -> None:
        """Lets the descriptor lead nowhere, so that what Python still holds is lost without a word at its end."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def endure() -> None:
    """Makes standard output and error such streams, which spell what their encoding lacks.

    A size of the terminal that is none is forgotten.
    """
    for name in ("COLUMNS", "LINES"):
        # Neither 0 nor ², a digit to Python, is a size: who reads one fails, or prints nothing.
        if not (said := os.environ.get(name, "1")).isascii() or not said.isdigit() or int(said) == 0:
            del os.environ[name]
    codecs.register_error("gradlab", _spelled)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell: >&-
            setattr(sys, name, Nowhere())
        # What stands in their place in a test or a notebook is left alone.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="gradlab")
            setattr(sys, name, Enduring(stream))


def _spelled(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs.

    >>> codecs.register_error("spelled", _spelled)
    >>> "σ² ± 0.1 ▁█ 漢".encode("ascii", "spelled")
    b's^2 +- 0.1 18 ?'
    """
    assert isinstance(error, UnicodeEncodeError)
    return "".join(SPELLED.get(sign, "?") for sign in error.object[error.start : error.end]), error.end
