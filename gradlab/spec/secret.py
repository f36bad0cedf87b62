"""What must not be kept nor shown: the user and the password of an address."""

from __future__ import annotations

import re

NAMED = re.compile(r"(\w://)[^/\s\"']*@")
"""An address with a name before its host, such as `data.mirror` may be."""


def without_password(text: str) -> str:
    """``text`` with the user and the password of each address hidden; a token may stand in the place of either.

    >>> without_password("data.mirror=https://me:word@host/mnist: no")
    'data.mirror=https://***@host/mnist: no'
    """
    return NAMED.sub(r"\1***@", text) if "://" in text else text
