"""Rows of CSV and TSV manifests; their columns are all text."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.csv as pa_csv

from unipic.pipeline.errors import ManifestError
from unipic.pipeline.storage.parquet import buffer_of

USE_COMMAS = "Its columns look joined: in a CSV manifest, columns are separated by commas."


def csv_table(data: bytes, uri: str, delimiter: str) -> pa.Table:
    """All columns are text, as written."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise ManifestError(f"{uri} is empty: it has not even a line of column names.")
    names = _column_names(data, uri, delimiter)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ManifestError(f"{uri} has several columns called {', '.join(twice)}.")
    try:
        table = _read(data, names, delimiter)
    except pa.ArrowException as error:
        raise _fault(data, uri, names, delimiter) from error
    if _ends_inside_quotes(data, table, delimiter):
        raise ManifestError(
            f"{uri} ends inside double quotes that open in its last row, number {table.num_rows:,}.",
            remedy="Close the quotes there: rows after them would be read as text of that row.",
        )
    return table


def _read(data: bytes, names: Sequence[str], delimiter: str) -> pa.Table:
    return pa_csv.read_csv(
        pa.BufferReader(buffer_of(data)),
        read_options=pa_csv.ReadOptions(use_threads=False),
        parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types={name: pa.string() for name in names}, strings_can_be_null=False
        ),
    )


def _ends_inside_quotes(data: bytes, table: pa.Table, delimiter: str) -> bool:
    """Whether the last cell opens with a double quote that is never closed, which Arrow accepts."""
    cell = _last_cell(table)
    if not cell or not data.endswith(b'"' + cell.replace('"', '""').encode()):
        return False
    try:
        closed = _read(data + b'"', table.column_names, delimiter)
    except pa.ArrowException:
        return False
    return closed.num_rows == table.num_rows and _last_cell(closed) == cell


def _last_cell(table: pa.Table) -> str:
    return str(table.column(table.num_columns - 1)[table.num_rows - 1].as_py()) if table.num_rows else ""


def looks_joined(name: str) -> bool:
    """Whether a column's name looks like several, of a CSV file with other separators than commas."""
    return any(mark in name for mark in ";\t|")


def _column_names(data: bytes, uri: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8", newline=""), delimiter=delimiter))
    except UnicodeDecodeError as error:
        raise _fault(data, uri, [], delimiter) from error
    except csv.Error as error:
        raise ManifestError(f"{uri} does not begin with a line of column names.", remedy="Write it again.") from error


def _fault(data: bytes, uri: str, names: Sequence[str], delimiter: str) -> ManifestError:
    """Why the file cannot be read, looked for from its beginning."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return not_utf8(uri, data, error)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        for row in rows:
            if row and len(row) != len(names):
                cells, columns = _count(len(row), "cell"), _count(len(names), "column")
                if len(names) == 1 and looks_joined(names[0]):
                    remedy = USE_COMMAS
                elif len(row) > len(names):
                    remedy = 'A text with a comma in it stands in double quotes: "a, b".'
                else:
                    remedy = "Look for a comma that is missing, or a double quote that is never closed."
                said = f"{uri}, line {rows.line_num:,} has {cells}, but the first line names {columns}."
                return ManifestError(said, remedy=remedy)
    except csv.Error:  # such as a cell too long for this reader: then the fault is reported without its place
        pass
    return ManifestError(f"{uri} is not a readable CSV file.", remedy="Look for a double quote that is never closed.")


def not_utf8(uri: str, data: bytes, error: UnicodeDecodeError) -> ManifestError:
    """Says at which byte and line."""
    line = data.count(b"\n", 0, error.start) + 1
    return ManifestError(
        f"{uri} is not UTF-8 text: byte {error.start + 1:,}, in line {line:,}, is not.", remedy="Save it as UTF-8."
    )


def _count(number: int, one: str) -> str:
    return f"{number:,} {one}{'' if number == 1 else 's'}"
