"""What can be known of data, and of what is the user's own, only by opening files; the room of specs opens none."""

from __future__ import annotations

from collections.abc import Mapping

from gradlab.data import file, function
from gradlab.data.cifar10 import CHANNELS, CLASSES, SIDE, sizes
from gradlab.data.idx import header_sizes
from gradlab.data.targets import source_of
from gradlab.spec.choices import DATA
from gradlab.spec.named import Value
from gradlab.spec.run import DataSpec, Facts, RunSpec, build


def described(values: Mapping[str, Value]) -> RunSpec:
    """The run that ``values`` describe, with the facts of what is the user's own: see `spec.run.build`.

    Raises `SpecError` as that does, and `DataError` where a file is missing or broken. No code of the user's own runs
    here but what has been allowed (`data.function.allow`).
    """
    return build(values, LOOK)


class _Look:
    """Opens what a run names."""

    def data(self, data: DataSpec) -> Facts:
        if DATA[data.name].free:
            return function.facts(data)
        return file.facts(data) if DATA[data.name].own else _of_images(data)

    def source(self, target: str) -> str:
        return source_of(target)


LOOK = _Look()


def _of_images(data: DataSpec) -> Facts:
    """Shape and sizes of the images in the folder `data.root`, from their headers, or the sizes of the files, alone."""
    assert data.root is not None, "data without files of the user's own have their facts in the named choices"
    entry = DATA[data.name]
    if data.name == "cifar10":
        train, heldout = sizes(data.root)
        return Facts((SIDE, SIDE, CHANNELS), CLASSES, entry.loss, train, heldout, image=True)
    train, heldout, rows, columns = header_sizes(data.root)
    outputs = rows * columns if entry.outputs is None else entry.outputs
    return Facts((rows, columns), outputs, entry.loss, train, heldout, image=True)
