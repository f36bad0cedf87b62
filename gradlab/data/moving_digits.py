"""Short films of the embedded digits, which move: which way they go is asked, or which digit it is."""

from __future__ import annotations

import numpy as np

from gradlab.data.dataset import Array, Dataset
from gradlab.data.digits import digits
from gradlab.spec.choices import DATA
from gradlab.spec.run import DataSpec

CONTENT = 7
"""Seed of the content, beside the length."""

SIZE = 12
"""Of a frame, whose edges meet: what leaves on one side comes back on the other."""

WAYS = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (0, 0))
"""Rows and columns a frame: north, then clockwise, and no move at all; the tenth way is to wander about."""


def moving_digits(spec: DataSpec) -> Dataset:
    """4,000 films to train on and 800 held out: inputs (N, length, 144), targets (N,): the way, or the digit.

    Films that are held out show held-out digits. A frame has 12x12 grey levels of 0..16; the digit begins anywhere and
    moves by one pixel a frame, or wanders: a way drawn anew for each frame.
    """
    entry = DATA["moving_digits"]
    length = spec.length
    assert length is not None, "`spec.build` resolves data.length"
    still = digits(spec)
    train = _films(still.train_inputs, still.train_targets, entry.train, length, spec.ask == "digit", 0)
    heldout = _films(still.heldout_inputs, still.heldout_targets, entry.heldout, length, spec.ask == "digit", 1)
    return Dataset(*train, *heldout)


def _films(images: Array, classes: Array, count: int, length: int, digit: bool, part: int) -> tuple[Array, Array]:
    rng = np.random.default_rng([CONTENT, length, part])
    chosen, way = rng.integers(0, len(images), count), rng.integers(0, len(WAYS) + 1, count)
    steady = np.array([*WAYS, (0, 0)])[way][:, None, :].repeat(length, axis=1)
    wandering = np.array(WAYS)[rng.integers(0, len(WAYS) - 1, (count, length))]
    moves = np.where((way == len(WAYS))[:, None, None], wandering, steady)
    moves[:, 0] = rng.integers(0, SIZE, (count, 2))
    corner = np.cumsum(moves, axis=1)
    side = np.arange(images.shape[1])
    rows, columns = ((corner[:, :, axis, None] + side) % SIZE for axis in (0, 1))
    films = np.zeros((count, length, SIZE, SIZE))
    film, frame = np.ogrid[:count, :length]
    films[film[:, :, None, None], frame[:, :, None, None], rows[:, :, :, None], columns[:, :, None, :]] = images[
        chosen
    ][:, None]
    return films.reshape(count, length, SIZE * SIZE), classes[chosen] if digit else way
