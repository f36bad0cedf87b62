"""The copy task: read ten symbols, wait, and give them again in their order."""

from __future__ import annotations

import numpy as np

from gradlab.data.dataset import Dataset, split
from gradlab.spec.choices import DATA
from gradlab.spec.run import DataSpec

CONTENT = 5
"""Seed of the content, beside the length."""

SYMBOLS, REPEATED = 8, 10
BLANK, GO = SYMBOLS, SYMBOLS + 1
"""Tokens behind the symbols."""


def copy_memory(spec: DataSpec) -> Dataset:
    """20,000 sequences to train on and 2,000 held out: inputs (N, length) tokens, targets (N, 10) symbols.

    Ten symbols out of eight, blanks, the sign to begin, and blanks, at each of whose ten places a symbol is to be
    given: who guesses pays ln 8 = 2.08. Hochreiter & Schmidhuber 1997, as in Arjovsky et al. 2015, arXiv:1511.06464,
    section 4.1, where blanks are to be answered by blanks, which says nothing and makes guesses look right.
    """
    entry = DATA["copy_memory"]
    length = spec.length
    assert length is not None, "`spec.build` resolves data.length"
    rng = np.random.default_rng([CONTENT, length])
    symbols = rng.integers(0, SYMBOLS, (entry.train + entry.heldout, REPEATED))
    inputs = np.full((len(symbols), length), BLANK)
    inputs[:, :REPEATED] = symbols
    inputs[:, length - REPEATED - 1] = GO
    return split(inputs, symbols, entry.train)
