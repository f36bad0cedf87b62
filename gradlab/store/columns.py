"""The columns of the tables, in their order and of their kinds, and tables made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from gradlab.spec.keys import KEYS, is_free

PROBE_COLUMNS = (
    "grad_norm",
    "grad_norm_clipped",
    "weight_grad_norm",
    "signal_grad_norm",
    "weight_norm",
    "update_ratio",
    "act_mean",
    "act_std",
    "act_correlation",
    "saturated",
    "dead",
    "grad_zero",
    "signal_grad_rms",
    "grad_rms",
    "attention_entropy",
    "attention_logit_max",
)
"""Of the `layers` table, after run_id, step, axis, layer and name."""

MEASURED_COLUMNS = (
    *("calls", "trunk_grad_norm", "trunk_grad_rms", "stage", "normalised", "starts_at_zero", "equal_weights"),
    *("cut", "idle", "reads", "units", "gain"),
)
"""What stands beside them of a network that is not gradlab's own."""

KEPT_OF_STEPS = ("loss", "grad_norm", "grad_norm_clipped", "clipped", "broken", "lr", "skipped", "loss_scale")
"""What is kept of each step of a training that goes on, in this order; ``broken`` is zero where all is finite."""

_KINDS = {int: pa.int64(), float: pa.float64(), bool: pa.bool_(), str: pa.string()}

RUNS = pa.schema(
    [
        ("run_id", pa.string()),
        ("state", pa.string()),
        *((key, _KINDS[rule.kind]) for key, rule in KEYS.items()),
        ("steps", pa.int64()),
        ("loss_first", pa.float64()),
        ("loss_last", pa.float64()),
        ("loss_final", pa.float64()),
        ("loss_heldout", pa.float64()),
        ("accuracy", pa.float64()),
        ("diverged_at", pa.int64()),
        ("diverged_layer", pa.int64()),
        ("rate", pa.float64()),
        ("rate_theory", pa.float64()),
        ("rate_limit", pa.float64()),
        ("chi1", pa.float64()),
        ("depth_scale", pa.float64()),
        ("vanishing_ratio", pa.float64()),
        ("verdict", pa.string()),
        ("duration_s", pa.float64()),
        ("error", pa.string()),
    ]
)
STEPS = pa.schema(
    [
        ("run_id", pa.string()),
        ("step", pa.int64()),
        ("loss", pa.float64()),
        ("lr", pa.float64()),
        ("grad_norm", pa.float64()),
        ("grad_norm_clipped", pa.float64()),
        ("clipped", pa.bool_()),
        ("loss_scale", pa.float64()),
        ("skipped", pa.bool_()),
    ]
)
LAYERS = pa.schema(
    [
        ("run_id", pa.string()),
        ("step", pa.int64()),
        ("axis", pa.string()),
        ("layer", pa.int64()),
        ("name", pa.string()),
        *((column, pa.float64()) for column in PROBE_COLUMNS),
    ]
)

INSTRUMENTS = pa.schema(
    [
        ("run_id", pa.string()),
        ("step", pa.int64()),
        ("instrument", pa.string()),
        ("quantity", pa.string()),
        ("index", pa.int64()),
        ("value", pa.float64()),
    ]
)

SCHEMAS = {"runs": RUNS, "steps": STEPS, "layers": LAYERS, "instruments": INSTRUMENTS}

SEEN = "seen"
"""A column of runs whose network is not gradlab's own: what was seen of its batch, output and activations, as JSON."""


def is_further(name: str, column: str) -> bool:
    """Whether a table may have a column beside those of its schema: of a network, or data, of the user's own."""
    return column in MEASURED_COLUMNS if name == "layers" else name == "runs" and (column == SEEN or is_free(column))


def schema_of(name: str, found: Iterable[pa.Schema] = ()) -> pa.Schema:
    """The schema of a table: its own columns, then the further ones that any of its parts has.

    A column that is of whole numbers in one part and of fractions in another holds fractions; of other kinds, texts.
    """
    kinds: dict[str, pa.DataType] = {}
    for schema in found:
        for field in schema:
            if not is_further(name, field.name) or pa.types.is_null(field.type):
                continue
            known = kinds.setdefault(field.name, field.type)
            if known != field.type:
                numbers = {known, field.type} == {pa.int64(), pa.float64()}
                kinds[field.name] = pa.float64() if numbers else pa.string()
    return pa.schema([*SCHEMAS[name], *(pa.field(column, kind) for column, kind in kinds.items())])


def table_of(name: str, columns: Mapping[str, object], rows: int) -> pa.Table:
    """A table of `SCHEMAS` with so many rows: a column that is not given is null, a NaN is a value.

    The further columns that are given stand behind its own.
    """
    further = {
        column: pa.array(values, pa.float64() if name == "layers" else None, from_pandas=False)
        for column, values in columns.items()
        if is_further(name, column)
    }
    schema = schema_of(name, [pa.schema([(column, values.type) for column, values in further.items()])])
    arrays = []
    for field in schema:
        values = further.get(field.name, columns.get(field.name))
        if values is None:
            arrays.append(pa.nulls(rows, field.type))
        elif isinstance(values, pa.Array):
            arrays.append(values.cast(field.type))
        else:
            arrays.append(pa.array(values, type=field.type, from_pandas=False))
    return pa.Table.from_arrays(arrays, schema=schema)
