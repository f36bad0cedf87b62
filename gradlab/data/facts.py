"""What can be known of data only by opening files; the room of specs opens none, and asks here."""

from __future__ import annotations

from collections.abc import Mapping

from gradlab.data.idx import header_sizes
from gradlab.spec.choices import DATA
from gradlab.spec.named import Value
from gradlab.spec.run import DataSpec, Facts, RunSpec, build


def described(values: Mapping[str, Value]) -> RunSpec:
    """The run that ``values`` describe, with the facts of files that its data lie in: see `spec.run.build`.

    Raises `SpecError` as that does, and `DataError` where a file is missing or broken.
    """
    return build(values, facts_of)


def facts_of(data: DataSpec) -> Facts:
    """Shape and sizes of the images in the folder `data.root`, from their headers alone."""
    assert data.root is not None, "data without files of the user's own have their facts in the named choices"
    train, heldout, rows, columns = header_sizes(data.root)
    entry = DATA[data.name]
    outputs = rows * columns if entry.outputs is None else entry.outputs
    return Facts((rows, columns), outputs, entry.loss, train, heldout)
