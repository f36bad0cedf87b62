"""The reference grid of 432 runs: digits, width 64, batch 64, 200 steps."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass

DEPTHS = (5, 10, 20)
ACTIVATIONS = ("sigmoid", "tanh", "relu", "leaky_relu")
INITS = ("xavier", "he")
NORMS = ("none", "batch", "layer")
LRS = (0.01, 0.1)
CLIPS = ("none", "norm", "value")

WIDTH, BATCH, STEPS = 64, 64, 200

OVERRIDES = (
    f"model.depth={','.join(map(str, DEPTHS))}",
    f"model.activation={','.join(ACTIVATIONS)}",
    f"model.init={','.join(INITS)}",
    f"model.norm={','.join(NORMS)}",
    f"optim.lr={','.join(map(str, LRS))}",
    f"clip.mode={','.join(CLIPS)}",
    f"model.width={WIDTH}",
    f"data.batch_size={BATCH}",
    f"train.steps={STEPS}",
)
"""The grid in the words of ``gradlab sweep``."""


@dataclass(frozen=True)
class Setting:
    """One run of the grid."""

    depth: int = 10
    activation: str = "relu"
    init: str = "he"
    norm: str = "none"
    lr: float = 0.1
    clip: str = "none"

    def override(self) -> str:
        """The setting as a dictionary in Hydra's override grammar."""
        return "{" + ",".join(f"{key}:{value}" for key, value in asdict(self).items()) + "}"


def settings(share: int) -> list[Setting]:
    """The whole grid for a ``share`` of 1, a fixed stratified twelfth of it for 12.

    The twelfth holds each (depth, activation, norm) once. The other three axes are dealt out so that each clip mode
    meets each depth, activation and norm equally often, and each (init, lr) each depth and norm.

    >>> len(settings(1)), len(settings(12))
    (432, 36)
    """
    if share == 1:
        return list(itertools.starmap(Setting, itertools.product(DEPTHS, ACTIVATIONS, INITS, NORMS, LRS, CLIPS)))
    if share != 12:
        raise ValueError(f"share {share}: expected 1 or 12")
    return [
        Setting(
            depth,
            activation,
            INITS[(d + a + n) % 2],
            norm,
            LRS[(d + a // 2 + n) % 2],
            CLIPS[(d + a + 2 * n) % 3],
        )
        for (d, depth), (a, activation), (n, norm) in itertools.product(
            enumerate(DEPTHS), enumerate(ACTIVATIONS), enumerate(NORMS)
        )
    ]
