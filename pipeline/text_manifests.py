"""JSON, JSONL and CSV manifests: read whole, held once per process.

JSON types are kept where a column has one; a column of mixed types becomes text, other values written as JSON.
CSV columns are all text.
"""

from __future__ import annotations

import csv
import io
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from pipeline.errors import ManifestError
from pipeline.parquet_file import buffer_of
from pipeline.parquet_rows import check_version
from pipeline.records import ManifestFile
from pipeline.storage import Storage
from pipeline.storage_errors import TooManyBytes

MAX_BYTES = 2**30
CHUNK_ROWS = 50_000
CACHED_FILES = 4
CACHED_BYTES = 2**30

_lock = threading.Lock()
_tables: OrderedDict[tuple[str, str, str], pa.Table] = OrderedDict()


def load(file: ManifestFile, storage: Storage) -> pa.Table:
    """The whole manifest file. Raises ManifestError, naming it and where it is faulty."""
    key = (file.uri, file.version, file.format)
    with _lock:
        if key not in _tables:
            _tables[key] = _read(file, storage)
        _tables.move_to_end(key)
        table = _tables[key]
        while len(_tables) > 1 and (
            len(_tables) > CACHED_FILES or sum(held.nbytes for held in _tables.values()) > CACHED_BYTES
        ):
            _tables.popitem(last=False)
        return table


def _read(file: ManifestFile, storage: Storage) -> pa.Table:
    check_version(file.uri, file.version, storage.info(file.uri).version)
    try:
        data = storage.read(file.uri, max_bytes=MAX_BYTES)
    except TooManyBytes as error:
        raise ManifestError(
            f"{file.uri} is too large to be read whole: {error.message}", remedy="Convert it to Parquet."
        ) from error
    if file.format == "csv":
        return _csv(data, file.uri)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{file.uri} is not UTF-8 text: byte {error.start:,} is not.") from error
    rows = _json_rows(text, file.uri) if file.format == "json" else _jsonl_rows(text, file.uri)
    return _table(rows, file.uri)


def _csv(data: bytes, uri: str) -> pa.Table:
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise ManifestError(f"{uri} is empty: it has not even a line of column names.")
    try:
        names = next(csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8", newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{uri} is not UTF-8 text with a line of column names: {error}.") from error
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
        raise ManifestError(f"{uri} is not a readable CSV file: {error}.") from error


def _json_rows(text: str, uri: str) -> Iterator[dict[str, Any]]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{uri} is not JSON: {error}.") from error
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
            raise ManifestError(f"{uri}, line {number} is not JSON: {error}.") from error
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
