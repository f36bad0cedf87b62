"""The table of very many runs as far as a report of all needs it: what is the same in all of them is left out."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from gradlab.spec.keys import is_key
from gradlab.store.columns import schema_of
from gradlab.store.sources import Merged


def lean(folders: Sequence[Merged]) -> pa.Table:
    """The runs of all ``folders``, one behind the other; texts are numbered, and keys of one number are left out.

    A million runs take some 300 MB so, and a gigabyte as they are.
    """
    schemas = [folder.source("runs").schema for folder in folders]
    schema = schema_of("runs", schemas)
    names = [name for name in schema.names if not _one_number(folders, name)]
    batches = [
        _numbered(batch)
        for folder, own in zip(folders, schemas, strict=True)
        for batch in folder.batches("runs", [name for name in names if name in own.names])
    ]
    empty = _numbered(pa.schema([schema.field(name) for name in names]).empty_table())
    return pa.concat_tables([empty, *batches], promote_options="permissive").unify_dictionaries()


def summed(tables: Merged) -> pa.Table:
    """The runs of a result, of a large one as far as a summary needs them."""
    return lean([tables]) if tables.large else tables["runs"]


def _one_number(folders: Sequence[Merged], name: str) -> bool:
    """Whether a key is the same number in all runs, or of none."""
    having = [folder for folder in folders if name in folder.source("runs").schema.names]
    kinds = [folder.source("runs").schema.field(name).type for folder in having]
    if not is_key(name) or not all(map(pa.types.is_primitive, kinds)):
        return False
    found: set[object] = {None} if len(having) < len(folders) else set()
    for folder in having:
        for batch in folder.batches("runs", [name]):
            found |= set(batch[name].unique().to_pylist())
            if len(found) > 1:
                return False
    return True


def _numbered(batch: pa.Table) -> pa.Table:
    for place, field in enumerate(batch.schema):
        if pa.types.is_string(field.type) and field.name not in ("run_id", "error"):
            batch = batch.set_column(place, field.name, pc.dictionary_encode(batch[field.name]))
    return batch
