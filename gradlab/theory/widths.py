"""How the first updates change signals as a network grows wider: exponents of the width, by parametrization.

Of small steps, counted as Yang et al. 2022 do (arXiv:2203.03466, appendix J): with n the width, an output weight of
size n^-a and its delta, a hidden matrix that has moved along delta h' (SGD) or its signs (Adam) puts out delta times n,
or n, times its learning rate; what a move brings to the output is the sum over n units that are aligned with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from gradlab.spec.choices import OPTIMIZERS
from gradlab.spec.run import RunSpec


@dataclass(frozen=True)
class Exponents:
    """Of the width, of root mean squares: the change of the first layer's z, of inner layers', and of the output."""

    first: Fraction
    hidden: Fraction
    output: Fraction

    def __str__(self) -> str:
        first, hidden, output = (str(one) for one in (self.first, self.hidden, self.output))
        return f"{first} in the first layer, {hidden} in hidden ones, {output} at the output"


def _halves(*twice: int) -> Exponents:
    return Exponents(*(Fraction(one, 2) for one in twice))


EXPONENTS: dict[tuple[str, bool], Exponents] = {
    ("standard", False): _halves(-1, 1, 2),
    ("standard", True): _halves(0, 2, 3),
    ("ntk", False): _halves(-1, -1, 0),
    ("ntk", True): _halves(0, 1, 2),
    ("mup", False): _halves(0, 0, 0),
    ("mup", True): _halves(0, 0, 0),
}
"""By parametrization, and whether the optimizer's steps are as long however small gradients are."""


def exponents(run: RunSpec) -> Exponents | None:
    """Those of a run; None where nobody counted them."""
    optimizer = OPTIMIZERS[run.optim.name]
    if run.model.parametrization is None or run.model.name != "mlp" or optimizer.as_long_as == "weights":
        return None
    return EXPONENTS[run.model.parametrization, optimizer.adaptive]


def meaning(found: Exponents) -> str:
    """What they come to."""
    if max(found.hidden, found.output) > 0:
        return "the wider a network, the smaller its best learning rate"
    if found.hidden < 0:
        return "hidden signals stay where they began in wide networks, and the tangent kernel learns"
    return "one learning rate serves all widths"


def sentences(runs: Sequence[RunSpec], swept: Sequence[str]) -> list[str]:
    """What is expected along the width; nothing where neither it nor its parametrization is asked about."""
    asked = {"model.width", "model.parametrization"} & set(swept)
    said = {}
    for run in runs:
        name, found = run.model.parametrization, exponents(run)
        if found is not None and (asked or name != "standard"):
            said[name, run.optim.name] = (
                f"{name} under {run.optim.name}: early changes of signals go with the width to the power of {found}: "
                f"{meaning(found)}."
            )
    return list(said.values())
