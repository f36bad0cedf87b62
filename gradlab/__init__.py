"""gradlab: a laboratory for gradient pathology. What happens to the gradient, layer by layer, and what cures it?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradlab.store import Frames

__version__ = "0.1.0"


def load(path: str | Path) -> Frames:
    """The three tables of a result folder as pandas frames: ``.runs``, ``.steps``, ``.layers``."""
    from gradlab.store import load as load_frames

    return load_frames(path)
