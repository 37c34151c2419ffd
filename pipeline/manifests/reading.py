"""Reading one unit's rows, whatever the format of its file; and the first rows, for people."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from unipic.pipeline.errors import ManifestError, redact_url
from unipic.pipeline.manifests import image_folder, parquet_footers, parquet_rows, webdataset
from unipic.pipeline.manifests import text as text_manifests
from unipic.pipeline.manifests.manifest import Manifest
from unipic.pipeline.manifests.parquet_rows import Unreadable
from unipic.pipeline.manifests.table_formats import partitions
from unipic.pipeline.records import Unit
from unipic.pipeline.storage.storage import Storage

SHORT_TEXT = 200
ALIKE_FILES = 8  # of one schema, in which a readable row is looked for


def read_rows(unit: Unit, columns: Sequence[str], storage: Storage) -> tuple[pa.Table, list[Unreadable]]:
    """The unit's rows and just these columns, in manifest order, text and bytes in their plain types.

    Returns:
        The table, and the rows of the file, some of which may be the unit's, that are damaged. Their cells that cannot
        be read are null.

    Raises:
        ManifestError: the file is another than the one that was planned, or lacks a column.
    """
    in_path = partitions(unit.file.name)
    if unit.file.format == "parquet":
        return parquet_rows.read(unit, columns, storage, in_path)
    if unit.file.format == "webdataset":
        own = parquet_rows.own_columns(webdataset.SCHEMA.names, columns, in_path, unit.file.uri)
        table, unreadable = webdataset.read(unit.file, unit.first_row, unit.rows, own, storage)
        return parquet_rows.completed(table, unit.rows, columns, in_path), unreadable
    table = text_manifests.load(unit.file, storage)
    if table.num_rows < unit.first_row + unit.rows:
        raise ManifestError(f"{unit.file.uri} has {table.num_rows:,} rows, fewer than the run was planned for.")
    own = parquet_rows.own_columns(table.schema.names, columns, in_path, unit.file.uri)
    rows = table.select(own).slice(unit.first_row, unit.rows)
    return parquet_rows.completed(rows, unit.rows, columns, in_path), []


def read_unit(unit: Unit, columns: Sequence[str], storage: Storage) -> pa.Table:
    """`read_rows`, where all of them are needed. Raises ManifestError where one of the unit's cannot be read."""
    table, unreadable = read_rows(unit, columns, storage)
    for lost in unreadable:
        if lost.first_row < unit.first_row + unit.rows and unit.first_row < lost.first_row + lost.rows:
            raise parquet_footers.unreadable(unit.file.uri, "its rows cannot be decoded")
    return table


def check_readable(manifest: Manifest, columns: Sequence[str], storage: Storage) -> None:
    """Hold what Parquet footers say against bytes: of each schema, one row somewhere must be readable.

    A row that cannot be read is rejected when it is met; files without a readable row are another matter. The other
    formats were read whole when they were found.

    Raises:
        ManifestError: naming a file none of whose tried rows can be read.
    """
    further = {name for name, _ in manifest.others}
    files = [file for file in manifest.files if file.uri and file.rows and file.format == "parquet"]
    alike = [file for file in files if file.name not in further][:ALIKE_FILES]
    for candidates in (alike, *([file] for file in files if file.name in further)):
        faults: list[ManifestError] = []
        tried = [Unit(file, row, 1) for file in candidates for row in (0, file.rows - 1, file.rows // 2)]
        for unit in tried:
            try:
                read_unit(unit, columns, storage)
                break
            except ManifestError as error:
                faults.append(error)
        else:
            if faults:
                raise faults[0]


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
            table, _ = read_rows(unit, names, storage)
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
