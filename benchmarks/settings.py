"""The reference grid of 432 runs: digits, width 64, batch 64, 200 steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import asdict, dataclass

DEPTHS = (5, 10, 20)
ACTIVATIONS = ("sigmoid", "tanh", "relu", "leaky_relu")
INITS = ("xavier", "he")
NORMS = ("none", "batch", "layer")
LRS = (0.01, 0.1)
CLIPS = ("none", "norm", "value")

WIDTH, BATCH, STEPS = 64, 64, 200

SHARES = (1, 12)
"""A peer runs the whole grid, or one run in twelve."""


def overrides(*, width: int = WIDTH, steps: int = STEPS, every: int = 10) -> tuple[str, ...]:
    """The grid in the words of ``gradlab sweep``, the per-layer table recorded ``every`` so many steps."""
    return (
        f"model.depth={listed(DEPTHS)}",
        f"model.activation={listed(ACTIVATIONS)}",
        f"model.init={listed(INITS)}",
        f"model.norm={listed(NORMS)}",
        f"optim.lr={listed(LRS)}",
        f"clip.mode={listed(CLIPS)}",
        f"model.width={width}",
        f"data.batch_size={BATCH}",
        f"train.steps={steps}",
        f"probe.every={every}",
    )


def plane(side: int) -> tuple[str, ...]:
    """``side`` squared networks of depth 30 and width 128, measured at their initial weights alone.

    Weight variances go from 0.04 to 4 and bias variances from 0 to 0.25: order, chaos and the line between them.
    """
    return (
        "train.steps=0",
        "model.activation=tanh",
        "model.depth=30",
        "model.width=128",
        f"model.weight_var={listed(round(4 * (i + 1) / side, 6) for i in range(side))}",
        f"model.bias_var={listed(round(0.25 * i / side, 6) for i in range(side))}",
    )


def listed(values: Iterable[object]) -> str:
    """The values as a sweep takes them.

    >>> listed((5, 10))
    '5,10'
    """
    return ",".join(map(str, values))


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
    """The whole grid for a ``share`` of 1, a fixed stratified twelfth of it for 12, three of those runs for 144.

    The twelfth holds each (depth, activation, norm) once. The other three axes are dealt out so that each clip mode
    meets each depth, activation and norm equally often, and each (init, lr) each depth and norm. The three have each
    depth, each norm and each clip mode once.

    >>> len(settings(1)), len(settings(12)), len(settings(144))
    (432, 36, 3)
    """
    if share == 1:
        return list(itertools.starmap(Setting, itertools.product(DEPTHS, ACTIVATIONS, INITS, NORMS, LRS, CLIPS)))
    if share not in (12, 144):
        raise ValueError(f"share {share}: expected 1, 12 or 144")
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
        if share == 12 or d == a == n
    ]


def ensembles(share: int) -> list[list[Setting]]:
    """The grid by architecture, largest networks first: each list holds the 12 runs of one (depth, activation, norm).

    A twelfth would be three architectures of 36, too few to stand for the rest; for a ``share`` of 3 it is twelve of
    them: each (depth, activation) once, each norm four times. The runs of a list are sorted by clip mode.

    >>> [(len(ensembles(share)), len(ensembles(share)[0])) for share in (1, 3)]
    [(36, 12), (12, 12)]
    """
    if share not in (1, 3):
        raise ValueError(f"share {share}: expected 1 or 3")
    chosen = [
        (depth, activation, norm)
        for (d, depth), (a, activation), (n, norm) in itertools.product(
            enumerate(DEPTHS), enumerate(ACTIVATIONS), enumerate(NORMS)
        )
        if (d + a + n) % share == 0
    ]
    return [
        [Setting(depth, activation, init, norm, lr, clip) for clip in CLIPS for init in INITS for lr in LRS]
        for depth, activation, norm in sorted(chosen, key=lambda choice: -choice[0])
    ]
