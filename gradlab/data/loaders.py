"""Every data set by its name: loaded, and downloaded before that where it has to be."""

from __future__ import annotations

from collections.abc import Callable

from gradlab.data.adding import adding
from gradlab.data.characters import characters
from gradlab.data.cifar10 import SOURCE as CIFAR10
from gradlab.data.cifar10 import cifar10
from gradlab.data.copy_memory import copy_memory
from gradlab.data.dataset import DataError, Dataset, standardised
from gradlab.data.dates import dates
from gradlab.data.digits import digits
from gradlab.data.download import Source, fetch
from gradlab.data.fashion_mnist import SOURCE as FASHION_MNIST
from gradlab.data.fashion_mnist import fashion_mnist
from gradlab.data.file import digest, file
from gradlab.data.function import function
from gradlab.data.gaussian_mixture import gaussian_mixture
from gradlab.data.interval import interval
from gradlab.data.linear_teacher import linear_teacher
from gradlab.data.mnist import SOURCE as MNIST
from gradlab.data.mnist import mnist
from gradlab.data.moving_digits import moving_digits
from gradlab.data.point import point
from gradlab.data.quotations import quotations
from gradlab.data.sequential_digits import sequential_digits
from gradlab.data.silence import silence
from gradlab.data.spectral_teacher import spectral_teacher
from gradlab.data.targets import source_of
from gradlab.data.tones import tones
from gradlab.spec.run import DataSpec

LOADERS: dict[str, Callable[[DataSpec], Dataset]] = {
    "digits": digits,
    "fashion_mnist": fashion_mnist,
    "mnist": mnist,
    "cifar10": cifar10,
    "gaussian_mixture": gaussian_mixture,
    "linear_teacher": linear_teacher,
    "adding": adding,
    "interval": interval,
    "spectral_teacher": spectral_teacher,
    "silence": silence,
    "point": point,
    "copy_memory": copy_memory,
    "tones": tones,
    "moving_digits": moving_digits,
    "sequential_digits": sequential_digits,
    "dates": dates,
    "characters": characters,
    "quotations": quotations,
    "file": file,
    "function": function,
}
"""The function of every name of `choices.DATA`; each returns its inputs as they are stored or drawn."""

DOWNLOADS: dict[str, Source] = {"fashion_mnist": FASHION_MNIST, "mnist": MNIST, "cifar10": CIFAR10}
"""The data that are downloaded once, and from where."""


def prefetch(spec: DataSpec) -> None:
    """Downloads what ``spec`` needs and the cache lacks. Raises `DataError` where that fails."""
    if spec.name in DOWNLOADS and spec.root is None:
        fetch(DOWNLOADS[spec.name], spec.mirror)


def load(spec: DataSpec) -> Dataset:
    """The data of ``spec``, standardised where it says so; `input_scale` and `target_scale` are left to the engine.

    Shapes are those of the run's `Facts`. The content depends on the name, the sizes and the files alone, never on
    `data.seed`. Raises `DataError` where files cannot be downloaded or read, and where what is the user's own has
    changed since the run was made.
    """
    if spec.source is not None:
        place = str(spec.path or spec.target)
        now = digest(place) if spec.path else source_of(place)
        if now != spec.source:
            raise DataError(f"{place}: has changed since this run was made")
    data = LOADERS[spec.name](spec)
    return standardised(data) if spec.standardise else data
