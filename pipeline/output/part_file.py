"""A part as a Parquet file that any reader opens, and that is small.

Compaction writes its files with the same function, so that a row has the same columns in a small part and a large one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from unipic.pipeline.lineage import DIGESTS
from unipic.pipeline.records import PICTURE

_DIGESTS = {f"lineage.{name}" for name in DIGESTS if name != "checkpoint"}
_DIFFER = {*_DIGESTS, "id", "source", "caption", "lineage.seed", "lineage.source_row"}
"""Columns whose values hardly repeat: a dictionary would only add to them."""


def parquet_bytes(table: pa.Table) -> bytes:
    """`table` as one Parquet file. Image columns with bytes are declared the way 🤗 datasets reads them."""
    table, options = parquet_form(table)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return bytes(sink.getvalue())


def parquet_form(table: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
    """`table` as parts hold it, and the options that `pq.write_table` and `pq.ParquetWriter` take for it."""
    table = _storable(table)
    features = {name: {"_type": "Image"} for name in table.column_names if _is_image(table.column(name))}
    metadata = (
        {"huggingface": json.dumps({"info": {"features": _features(table.schema, features)}})} if features else {}
    )
    columns = list(_leaves(table.schema))
    options = {
        # Level 1: captions and lineage shrink well, encoded images pass through at memory speed.
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": [name for name in columns if name not in _DIFFER and not _is_blob(name, table)],
        "write_statistics": [name for name in columns if name not in _DIGESTS and not _is_blob(name, table)],
    }
    return table.replace_schema_metadata(metadata or None).combine_chunks(), options


def _is_image(column: pa.ChunkedArray) -> bool:
    """Whether images are inside the column. A path beside it, relative to the output, is none that datasets opens."""
    return column.type == PICTURE and pc.struct_field(column, "bytes").null_count < len(column)


def _is_blob(name: str, table: pa.Table) -> bool:
    column, _, field = name.partition(".")
    return field == "bytes" and table.schema.field(column).type == PICTURE


def _leaves(fields: pa.Schema | pa.StructType, prefix: str = "") -> Iterator[str]:
    """Parquet's names of the columns that hold `fields`, such as `lineage.seed` and `tags.list.element`."""
    for field in fields:
        yield from _leaves_of(field.type, f"{prefix}{field.name}")


def _leaves_of(kind: pa.DataType, name: str) -> Iterator[str]:
    if pa.types.is_struct(kind):
        yield from _leaves(kind, f"{name}.")
    elif pa.types.is_nested(kind):
        yield from _leaves_of(kind.value_type, f"{name}.list.element")
    else:
        yield name


def _storable(table: pa.Table) -> pa.Table:
    """`table` with columns of a type that Parquet or 🤗 datasets has no word for as the nearest that has one."""
    for at, field in enumerate(table.schema):
        column = table.column(at)
        if _holds_nothing(field.type):
            texts = [None if one is None else json.dumps(one, default=str) for one in column.to_pylist()]
            table = table.set_column(at, field.name, pa.chunked_array([texts], pa.string()))
        elif (kind := _common_type(field.type)) != field.type:
            table = table.set_column(at, field.name, column.cast(kind))
    return table


def _holds_nothing(kind: pa.DataType) -> bool:
    """Whether there is a struct without fields in it, which Parquet cannot hold."""
    if pa.types.is_struct(kind) and not kind.num_fields:
        return True
    return pa.types.is_nested(kind) and any(_holds_nothing(kind.field(at).type) for at in range(kind.num_fields))


def _common_type(kind: pa.DataType) -> pa.DataType:
    """`kind` without the maps, dictionaries and small decimals in it, which 🤗 datasets does not know."""
    if pa.types.is_map(kind):
        entry = pa.struct([("key", _common_type(kind.key_type)), ("value", _common_type(kind.item_type))])
        return pa.list_(entry)
    if pa.types.is_dictionary(kind):
        return _common_type(kind.value_type)
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_common_type(field.type)) for field in kind])
    if pa.types.is_nested(kind):
        field = kind.field(0).with_type(_common_type(kind.value_type))
        if pa.types.is_fixed_size_list(kind):
            return pa.list_(field, kind.list_size)
        return pa.large_list(field) if pa.types.is_large_list(kind) else pa.list_(field)
    return kind


def _features(schema: pa.Schema, images: Mapping[str, Any]) -> dict[str, Any]:
    """Every column's feature in datasets' own terms; it takes all of them or none."""
    from_arrow = {
        "large_string": "string",
        "double": "float64",
        "float": "float32",
        "halffloat": "float16",
        "date32[day]": "date32",
        "date64[ms]": "date64",
    }

    def feature(kind: pa.DataType) -> Any:
        if pa.types.is_struct(kind):
            return {child.name: feature(child.type) for child in kind}
        if pa.types.is_fixed_size_list(kind):
            return {"_type": "List", "feature": feature(kind.value_type), "length": kind.list_size}
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return {"_type": "List", "feature": feature(kind.value_type)}
        return {"_type": "Value", "dtype": from_arrow.get(str(kind), str(kind))}

    return {f.name: images.get(f.name) or feature(f.type) for f in schema}
