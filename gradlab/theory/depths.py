"""How the first updates change the stream of a residual network as it grows deeper: exponents of the depth.

Of small steps of a `residual_mlp` with L branches. Adam's move of one, of whatever depth, goes into the stream as beta
times its learning rate, and all of them are aligned with the gradient: they add up to L beta lr. Descent's has beta in
it twice, by the branch and by the gradient that came through it. With beta as 1/sqrt(L) and the rate that
`nn.parametrization` gives, both are the same at all depths (Yang, Yu, Zhu & Hayou 2023, arXiv:2310.02244, sections 3
and 4). With one beta at all depths, and a norm at the head of each branch, the stream behind layer l is as the root of
l: what was added at l reaches the end (L/l)^(1/2) times, and the sum over l goes with L under Adam, with L ln L under
descent. Without a norm the stream itself grows exponentially, and no power is its law.
"""

from __future__ import annotations

from collections.abc import Sequence

from gradlab.spec.choices import OPTIMIZERS
from gradlab.spec.run import RunSpec

BOUNDED = ("layer", "rms")
"""Norms of single samples at the head of a branch."""


def exponent(run: RunSpec) -> int | None:
    """Of the depth, of the root mean square by which the stream's end is moved; None where nobody counted it."""
    model = run.model
    if model.name != "residual_mlp" or OPTIMIZERS[run.optim.name].as_long_as == "weights":
        return None
    if model.base_depth is not None:
        return 0
    return 1 if model.norm in BOUNDED and model.norm_order == "before" else None


def sentences(runs: Sequence[RunSpec], swept: Sequence[str]) -> list[str]:
    """What is expected along the depth, where that is asked about, or counted by the parametrization."""
    asked = {"model.depth", "model.base_depth"} & set(swept)
    said = {}
    for run in runs:
        found, model = exponent(run), run.model
        if found is not None and (asked or model.base_depth is not None):
            more = "" if found == 0 or OPTIMIZERS[run.optim.name].adaptive else ", and its logarithm"
            meant = "the deeper a network, the smaller its best" if found else "all depths have one"
            said[model.parametrization, run.optim.name, found] = (
                f"{model.parametrization} under {run.optim.name}: early changes of the stream go with the depth to the "
                f"power of {found}{more}: {meant} learning rate."
            )
    return list(said.values())
