"""Columns as outputs may hold them: web addresses in them lose what may be a signature."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from pipeline.errors import redact_url


def without_signatures(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`column` with each text cell, inside structs and lists too, passed through `redact_url`; its type stays."""
    if not _holds_text(column.type):
        return column
    return pa.chunked_array([_clean(chunk) for chunk in column.chunks], column.type)


def cell_without_signatures(cell: Any) -> Any:
    """One value, its texts passed through `redact_url`."""
    if isinstance(cell, str):
        return redact_url(cell)
    if isinstance(cell, (list, tuple)):
        return type(cell)(cell_without_signatures(one) for one in cell)
    if isinstance(cell, dict):
        return {name: cell_without_signatures(one) for name, one in cell.items()}
    return cell


def _clean(array: pa.Array) -> pa.Array:
    kind = array.type
    if pa.types.is_struct(kind):  # field by field: pictures in it are not copied
        fields = [
            _clean(array.field(at)) if _holds_text(kind.field(at).type) else array.field(at)
            for at in range(kind.num_fields)
        ]
        return pa.StructArray.from_arrays(fields, fields=list(kind), mask=array.is_null())
    return pa.array([cell_without_signatures(cell) for cell in array.to_pylist()], kind)


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return True
    return any(_holds_text(kind.field(at).type) for at in range(kind.num_fields)) if pa.types.is_nested(kind) else False
