"""Number formats that networks are trained in: what they can hold."""

from __future__ import annotations

from dataclasses import dataclass

from gradlab.spec.named import Choice, table


@dataclass(frozen=True)
class Format(Choice):
    """Of one number: ``digits`` significant bits, the least ``exponent`` of a normal number, the ``largest`` number."""

    digits: int = 0
    exponent: int = 0
    largest: float = 0.0

    @property
    def smallest_normal(self) -> float:
        """Below it a number loses digits."""
        return 2.0**self.exponent

    @property
    def smallest(self) -> float:
        """Below half of it a number is rounded to zero."""
        return 2.0 ** (self.exponent - self.digits + 1)


_IEEE = "IEEE 754-2019"
_FP8 = "Micikevicius et al. 2022, arXiv:2209.05433"

FORMATS: dict[str, Format] = table(
    Format("float64", "double", _IEEE, 53, -1022, (2 - 2.0**-52) * 2.0**1023),
    Format("float32", "single", _IEEE, 24, -126, (2 - 2.0**-23) * 2.0**127),
    Format(
        "tf32",
        "single's range, 11 digits, of operands of products alone",
        "NVIDIA 2020, A100 Tensor Core GPU architecture",
        *(11, -126, (2 - 2.0**-10) * 2.0**127),
    ),
    Format("float16", "half", _IEEE, 11, -14, 65504.0),
    Format("bfloat16", "single's range, 8 digits", "Kalamkar et al. 2019, arXiv:1905.12322", 8, -126, 255 * 2.0**120),
    Format("float8_e4m3", "eight bits, no infinity", _FP8, 4, -6, 448.0),
    Format("float8_e5m2", "eight bits of half's range", _FP8, 3, -14, 57344.0),
)
"""By the names of `train.precision`, and those of eight bits."""

SHORT = ("float16", "bfloat16", "float8_e4m3", "float8_e5m2")
"""Formats whose range a training can leave."""

HALF = {"float16", "bfloat16"}
"""Formats of two bytes, by themselves or mixed with single weights."""
