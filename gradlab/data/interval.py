"""A one-dimensional grid of inputs, along which an input gradient can be seen to wander or to jump."""

from __future__ import annotations

import numpy as np

from gradlab.data.dataset import Dataset
from gradlab.spec.choices import DATA
from gradlab.spec.run import DataSpec


def interval(_spec: DataSpec) -> Dataset:
    """256 numbers evenly spaced from -2 to 2, ascending, to train on, the 255 between them held out; targets sin(pi x).

    Inputs and targets are (N, 1). Balduzzi et al. 2017, arXiv:1702.08591, section 2.
    """
    points = np.linspace(-2, 2, DATA["interval"].train)[:, None]
    between = (points[1:] + points[:-1]) / 2
    return Dataset(points, np.sin(np.pi * points), between, np.sin(np.pi * between))
