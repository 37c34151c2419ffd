"""JSON, JSONL and CSV manifests: read whole, held once per process.

JSON types are kept where a column has one; a column of mixed types becomes text, other values written as JSON.
CSV columns are all text.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from unipic.pipeline.errors import ManifestError
from unipic.pipeline.manifests.cache import ManifestCache, cache_of
from unipic.pipeline.manifests.changes import check_version, current_version
from unipic.pipeline.records import ManifestFile
from unipic.pipeline.storage.errors import TooManyBytes
from unipic.pipeline.storage.parquet import buffer_of
from unipic.pipeline.storage.storage import Storage

MAX_BYTES = 2**30
CHUNK_ROWS = 50_000

USE_COMMAS = "Its columns look joined: in a CSV manifest, columns are separated by commas."
_JSON_FAULTS = {
    "Expecting value": "a value is missing there",
    "Extra data": "there is something after its end",
    "Expecting property name enclosed in double quotes": "a name in double quotes is missing there",
    "Expecting ':' delimiter": "a colon is missing there",
    "Expecting ',' delimiter": "a comma is missing there",
    "Unterminated string starting at": "the text that begins there has no end",
    "Invalid control character at": "a control character stands in a text there",
}


def load(file: ManifestFile, storage: Storage) -> pa.Table:
    """The whole manifest file. Raises ManifestError, naming it and where it is faulty."""
    cache: ManifestCache[Any] = cache_of(storage)
    key = (file.uri, current_version(file, storage), file.format)
    return cache.texts.get(key, lambda: _read(file, storage))


def _read(file: ManifestFile, storage: Storage) -> pa.Table:
    try:
        data = storage.read(file.uri, max_bytes=MAX_BYTES)
    except TooManyBytes as error:
        raise ManifestError(
            f"{file.uri} is too large to be read whole: {error.message}", remedy="Convert it to Parquet."
        ) from error
    check_version(file, storage)  # afterwards: what was read before a change is then refused too
    if file.format == "csv":
        return _csv(data, file.uri)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(file.uri, data, error) from error
    rows = _json_rows(text, file.uri) if file.format == "json" else _jsonl_rows(text, file.uri)
    return _table(rows, file.uri)


def _csv(data: bytes, uri: str) -> pa.Table:
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise ManifestError(f"{uri} is empty: it has not even a line of column names.")
    names = _column_names(data, uri)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ManifestError(f"{uri} has several columns called {', '.join(twice)}.")
    try:
        return pa_csv.read_csv(
            pa.BufferReader(buffer_of(data)),
            read_options=pa_csv.ReadOptions(use_threads=False),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types={name: pa.string() for name in names}, strings_can_be_null=False
            ),
        )
    except pa.ArrowException as error:
        raise _csv_fault(data, uri, names) from error


def looks_joined(name: str) -> bool:
    """Whether a column's name looks like several, of a CSV file with other separators than commas."""
    return any(mark in name for mark in ";\t|")


def _column_names(data: bytes, uri: str) -> list[str]:
    try:
        return next(csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8", newline="")))
    except UnicodeDecodeError as error:
        raise _csv_fault(data, uri, []) from error
    except csv.Error as error:
        raise ManifestError(f"{uri} does not begin with a line of column names.", remedy="Write it again.") from error


def _csv_fault(data: bytes, uri: str, names: Sequence[str]) -> ManifestError:
    """Why the file cannot be read, looked for from its beginning."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        return _not_utf8(uri, data, error)
    rows = csv.reader(io.StringIO(text, newline=""))
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


def _not_utf8(uri: str, data: bytes, error: UnicodeDecodeError) -> ManifestError:
    line = data.count(b"\n", 0, error.start) + 1
    return ManifestError(
        f"{uri} is not UTF-8 text: byte {error.start + 1:,}, in line {line:,}, is not.", remedy="Save it as UTF-8."
    )


def _not_json(uri: str, error: Exception, line: int | None = None) -> ManifestError:
    """Args: line: of the file, where it was parsed line by line."""
    if not isinstance(error, json.JSONDecodeError):
        where = uri if line is None else f"{uri}, line {line:,}"
        how = "it is nested too deeply" if isinstance(error, RecursionError) else "a number in it has too many digits"
        return ManifestError(f"{where} is not JSON that can be read: {how}.")
    where = f"{uri}, line {error.lineno if line is None else line:,}, column {error.colno:,}"
    return ManifestError(f"{where} is not JSON: {_JSON_FAULTS.get(error.msg, 'it cannot go on like that')}.")


def _count(number: int, one: str) -> str:
    return f"{number:,} {one}{'' if number == 1 else 's'}"


def _json_rows(text: str, uri: str) -> Iterator[dict[str, Any]]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not_json(uri, error) from error
    if not isinstance(values, list):
        raise ManifestError(f"{uri} holds a JSON {_kind(values)}; a manifest is a list of objects or of texts.")
    for number, value in enumerate(values):
        yield _row(value, f"{uri}, item {number}")


def _jsonl_rows(text: str, uri: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(io.StringIO(text), start=1):  # splitlines would cut at U+2028 inside a prompt
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _not_json(uri, error, number) from error
        yield _row(value, f"{uri}, line {number}")


def _row(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, str):
        return {"prompt": value}
    if not isinstance(value, dict):
        raise ManifestError(f"{where} is a JSON {_kind(value)}, not an object or a text.")
    return value


def _table(rows: Iterator[dict[str, Any]], uri: str) -> pa.Table:
    chunks: list[dict[str, pa.Array]] = []
    sizes: list[int] = []
    part: list[dict[str, Any]] = []
    for row in rows:
        part.append(row)
        if len(part) == CHUNK_ROWS:
            chunks.append(_chunk(part, uri))
            sizes.append(len(part))
            part = []
    if part:
        chunks.append(_chunk(part, uri))
        sizes.append(len(part))
    names = list(dict.fromkeys(name for chunk in chunks for name in chunk))
    return pa.table({name: _column([chunk.get(name) for chunk in chunks], sizes) for name in names})


def _chunk(rows: Sequence[dict[str, Any]], uri: str) -> dict[str, pa.Array]:
    names = dict.fromkeys(name for row in rows for name in row)
    out = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            array = pa.array(values)
            out[name] = _as_text(values) if _has_empty_struct(array.type) else array
        except (pa.ArrowException, OverflowError):
            out[name] = _as_text(values)
        except UnicodeEncodeError as error:
            raise ManifestError(f'{uri} has half a surrogate pair in column "{name}", which is no text.') from error
    return out


def _column(arrays: Sequence[pa.Array | None], sizes: Sequence[int]) -> pa.ChunkedArray:
    try:
        return _joined(arrays, sizes, _common_type(arrays))
    except pa.ArrowException:  # whole numbers that no float64 holds, structs whose fields differ in type
        return _joined(arrays, sizes, pa.string())


def _common_type(arrays: Sequence[pa.Array | None]) -> pa.DataType:
    types = {array.type for array in arrays if array is not None and not pa.types.is_null(array.type)}
    if len(types) == 1:
        return next(iter(types))
    if types == {pa.int64(), pa.float64()}:
        return pa.float64()
    if types and all(pa.types.is_struct(found) for found in types):
        return pa.unify_schemas([pa.schema([("x", found)]) for found in types], promote_options="permissive")[0].type
    return pa.string() if types else pa.null()


def _joined(arrays: Sequence[pa.Array | None], sizes: Sequence[int], common: pa.DataType) -> pa.ChunkedArray:
    chunks = []
    for array, rows in zip(arrays, sizes, strict=True):
        if array is None:
            chunks.append(pa.nulls(rows, common))
        elif common == pa.string() and not pa.types.is_string(array.type):
            chunks.append(_as_text(array.to_pylist()))
        else:
            chunks.append(array.cast(common))
    return pa.chunked_array(chunks, common)


def _has_empty_struct(found: pa.DataType) -> bool:
    """Whether `{}` is all that is in some place: Parquet has no type for that."""
    if pa.types.is_struct(found):
        return not found.num_fields or any(_has_empty_struct(field.type) for field in found)
    return pa.types.is_list(found) and _has_empty_struct(found.value_type)


def _as_text(values: Sequence[Any]) -> pa.Array:
    texts = [
        value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values
    ]
    return pa.array(texts, pa.string())


def _kind(value: Any) -> str:
    kinds = {dict: "object", str: "text", list: "list", bool: "boolean", int: "number", float: "number"}
    return kinds.get(type(value), "null")
