"""Columns as outputs may hold them: addresses lose what may be a signature, text that is not UTF-8 what is none."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from unipic.pipeline.errors import redact_url


def without_signatures(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`column` with each text cell, inside structs and lists too, passed through `redact_url`; its type stays.

    Bytes that are no UTF-8, which Parquet lets into text, become U+FFFD.
    """
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


def readable(scalar: pa.Scalar) -> Any:
    """`scalar` as Python's own value; bytes in its texts that are no UTF-8 become U+FFFD."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        if isinstance(scalar, pa.StructScalar):
            return {name: readable(scalar[name]) for name in scalar}
        if isinstance(scalar, pa.MapScalar):
            entries = scalar.values
            return [
                (readable(key), readable(item)) for key, item in zip(entries.field(0), entries.field(1), strict=True)
            ]
        if isinstance(scalar, pa.ListScalar):
            return [readable(one) for one in scalar.values]
        if isinstance(scalar, pa.DictionaryScalar):
            return readable(scalar.value)
        return bytes(scalar.as_buffer()).decode("utf-8", "replace")


def _clean(array: pa.Array) -> pa.Array:
    kind = array.type
    if pa.types.is_struct(kind):  # field by field: pictures in it are not copied
        fields = [
            _clean(array.field(at)) if _holds_text(kind.field(at).type) else array.field(at)
            for at in range(kind.num_fields)
        ]
        return pa.StructArray.from_arrays(fields, fields=list(kind), mask=array.is_null())
    try:
        cells = array.to_pylist()
    except UnicodeDecodeError:
        cells = [readable(cell) for cell in array]
    return pa.array([cell_without_signatures(cell) for cell in cells], kind)


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return True
    if pa.types.is_dictionary(kind):
        return _holds_text(kind.value_type)
    return any(_holds_text(kind.field(at).type) for at in range(kind.num_fields)) if pa.types.is_nested(kind) else False
