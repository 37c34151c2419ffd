"""Rows of manifests, as a trace shows them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from unipic.pipeline.errors import ObjectMissing, UniPicError, redact
from unipic.pipeline.output.layout import DATA, parse_part
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.packed import Slice
from unipic.pipeline.stages.redaction import cell_without_signatures, readable
from unipic.pipeline.storage.parquet import open_parquet
from unipic.pipeline.storage.storage import Storage


def source_row(uri: str, row: int, storage: Storage) -> tuple[dict[str, Any], str]:
    """A manifest row that an output was made from, without pictures, and why it is {} where it is."""
    if not uri.endswith(".parquet"):
        return {}, ""
    try:
        file = open_parquet(storage.open(uri))
        columns = [name for name in file.schema_arrow.names if name != "image"]
        first = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < first + rows:
                table = file.read_row_group(group, columns=columns, use_threads=False).slice(row - first, 1)
                return {name: value_of(table.column(name)[0]) for name in columns}, ""
            first += rows
    except ObjectMissing as error:
        packed = _packed_row(uri, row, storage)
        return ({}, error.message) if packed is None else (packed, "")
    except UniPicError as error:
        return {}, error.message
    except (pa.ArrowException, OSError) as error:
        return {}, redact(f"{uri} cannot be read: {str(error).partition('. ')[0]}")
    return {}, f"{uri} has no row {row} any more"


def _packed_row(uri: str, row: int, storage: Storage) -> dict[str, Any] | None:
    """A row of a part of another output that was merged into a larger file since; None where `uri` is no such part."""
    output, _, name = uri.rpartition(f"/{DATA}/")
    named = parse_part(f"{DATA}/{name}")
    if not output or named is None:
        return None
    ledger = Ledger(output, storage)
    try:
        packed = ledger.packed(ledger.recorded())
        for part in ledger.receipt(named.unit, named.revision).parts:
            where = packed.locate(named.unit, part)
            if part.path == f"{DATA}/{name}" and row < part.rows and where.path in packed.index.paths:
                table = packed.rows(Slice(where.path, where.first + row, 1))
                return {column: value_of(table.column(column)[0]) for column in table.column_names if column != "image"}
    except UniPicError:
        return None
    return None


def value_of(cell: pa.Scalar) -> Any:
    try:
        return readable(cell)
    except (ValueError, OverflowError):  # what Python has no type for: a time to the nanosecond, the year 12000
        return str(cell.cast(pa.string()))


def readable_row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: cell_without_signatures(value)
        for name, value in row.items()
        if name != "lineage" and not isinstance(value, bytes | dict)
    }
