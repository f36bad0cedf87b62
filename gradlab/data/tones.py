"""Sounds like vowels: two formants on their course through sixteen bands, in noise; the class is their course."""

from __future__ import annotations

import numpy as np

from gradlab.data.dataset import Array, Dataset, split
from gradlab.spec.choices import DATA
from gradlab.spec.run import DataSpec

CONTENT = 6
"""Seed of the content, beside the length."""

BANDS, WIDTH, NOISE, SWEEP = 16, 0.8, 0.25, 3.0
"""Frequency bands, a formant's breadth in bands, the noise's deviation (a formant's peak is 1), a course's reach."""

COURSES = ("fall", "hold", "rise")


def tones(spec: DataSpec) -> Dataset:
    """4,000 sounds to train on and 1,000 held out: inputs (N, length, 16) energies, targets (N,), one of 9 classes.

    Each formant falls, holds or rises by 3 bands: class = 3 * the lower one's course + the upper one's. Where it
    begins, how loud it is, and when the sound sets in (within the first fifth of the frames) and ends (within the
    second to last fifth) are drawn. No frame says the class: the last fifth is noise alone.
    """
    entry = DATA["tones"]
    length = spec.length
    assert length is not None, "`spec.build` resolves data.length"
    rng = np.random.default_rng([CONTENT, length])
    count = entry.train + entry.heldout
    courses = rng.integers(0, len(COURSES), (count, 2))
    starts = np.stack([rng.uniform(3, 5, count), rng.uniform(10, 12, count)], axis=1)
    onset, end = length * rng.uniform(0, 0.2, count), length * rng.uniform(0.6, 0.8, count)
    loudness = rng.uniform(0.7, 1.3, (count, 2))
    inputs = NOISE * rng.standard_normal((count, length, BANDS))
    frames = np.arange(length)
    passed = np.clip((frames - onset[:, None]) / (end - onset)[:, None], 0, 1)
    sounds = (frames >= onset[:, None]) & (frames < end[:, None])
    for formant in range(2):
        at: Array = starts[:, formant, None] + SWEEP * (courses[:, formant, None] - 1) * passed
        peak = np.exp(-0.5 * ((np.arange(BANDS) - at[:, :, None]) / WIDTH) ** 2)
        inputs += loudness[:, formant, None, None] * sounds[:, :, None] * peak
    return split(inputs, len(COURSES) * courses[:, 0] + courses[:, 1], entry.train)
