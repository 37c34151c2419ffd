"""Reading one unit's rows, whatever the format of its file; and the first rows, for people."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from unipic.pipeline.errors import redact_url
from unipic.pipeline.manifests import image_folder, parquet_rows
from unipic.pipeline.manifests import text as text_manifests
from unipic.pipeline.manifests.manifest import Manifest
from unipic.pipeline.records import Unit
from unipic.pipeline.storage.storage import Storage

SHORT_TEXT = 200


def read_unit(unit: Unit, columns: Sequence[str], storage: Storage) -> pa.Table:
    """The unit's rows and just these columns, in manifest order, text and bytes in their plain types."""
    if unit.file.format == "parquet":
        return parquet_rows.read(unit, columns, storage)
    table = text_manifests.load(unit.file, storage)
    parquet_rows.check_there(table.schema.names, columns, unit.file.uri)
    return table.select(list(columns)).slice(unit.first_row, unit.rows)


def head(manifest: Manifest, n: int, storage: Storage) -> list[dict[str, object]]:
    """The first `n` rows, long text shortened and bytes counted, for people."""
    rows: list[dict[str, object]] = []
    names = list(manifest.columns)
    for file in manifest.files:
        if len(rows) >= n:
            break
        if not file.uri:  # a listing that is not stored yet
            assert manifest.listing is not None
            table = image_folder.read_listing(manifest.listing).slice(0, n - len(rows))
        else:
            unit = Unit(file=file, first_row=0, rows=min(file.rows, n - len(rows)))
            table = read_unit(unit, names, storage)
        rows.extend(
            {name: _short(_value(table.column(name)[at])) for name in table.schema.names} for at in range(len(table))
        )
    return rows


def _value(cell: pa.Scalar) -> object:
    """The cell for people: what Python cannot hold is named, as text that is not UTF-8 or a day of the year 12000."""
    try:
        return cell.as_py()
    except (ValueError, OverflowError):
        return f"<unreadable {cell.type}>"


def _short(value: object) -> object:
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    if isinstance(value, str):
        text = redact_url(value)
        return text if len(text) <= SHORT_TEXT else f"{text[:SHORT_TEXT]}… ({len(text):,} characters)"
    if isinstance(value, dict):
        return {name: _short(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_short(inner) for inner in value[:5]] + ["…"] * (len(value) > 5)
    return value
