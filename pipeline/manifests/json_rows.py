"""Rows of JSON, JSONL and plain text manifests.

JSON types are kept where a column has one; a column of mixed types becomes text, other values written as JSON.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from unipic.pipeline.errors import ManifestError

CHUNK_ROWS = 50_000

_JSON_FAULTS = {
    "Expecting value": "a value is missing there",
    "Extra data": "there is something after its end",
    "Expecting property name enclosed in double quotes": "a name in double quotes is missing there",
    "Expecting ':' delimiter": "a colon is missing there",
    "Expecting ',' delimiter": "a comma is missing there",
    "Unterminated string starting at": "the text that begins there has no end",
    "Invalid control character at": "a control character stands in a text there",
}


def json_table(text: str, uri: str) -> pa.Table:
    """A list of objects or of texts, which are prompts."""
    return _table(_json_rows(text, uri), uri)


def jsonl_table(text: str, uri: str) -> pa.Table:
    """A JSON object or text a line; blank lines are none."""
    return _table(_jsonl_rows(text, uri), uri)


def lines_table(text: str) -> pa.Table:
    """A prompt a line; blank lines are none."""
    lines = (line.rstrip("\r\n") for line in io.StringIO(text))  # splitlines would cut at U+2028 inside a prompt
    return pa.table({"prompt": pa.array([line for line in lines if line.strip()], pa.string())})


def _json_rows(text: str, uri: str) -> Iterator[dict[str, Any]]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not_json(uri, error) from error
    if not isinstance(values, list):
        raise ManifestError(f"{uri} holds a JSON {_kind(values)}; a manifest is a list of objects or of texts.")
    for number, value in enumerate(values):
        yield _row(value, f"{uri}, item {number}")


def json_lines(text: str, uri: str) -> Iterator[tuple[int, Any]]:
    """(number, value) of each line that is not blank. Raises ManifestError, naming the line that is no JSON."""
    for number, line in enumerate(io.StringIO(text), start=1):  # splitlines would cut at U+2028 inside a prompt
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _not_json(uri, error, number) from error


def _jsonl_rows(text: str, uri: str) -> Iterator[dict[str, Any]]:
    for number, value in json_lines(text, uri):
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


def _not_json(uri: str, error: Exception, line: int | None = None) -> ManifestError:
    """Args: line: of the file, where it was parsed line by line."""
    if not isinstance(error, json.JSONDecodeError):
        where = uri if line is None else f"{uri}, line {line:,}"
        how = "it is nested too deeply" if isinstance(error, RecursionError) else "a number in it has too many digits"
        return ManifestError(f"{where} is not JSON that can be read: {how}.")
    where = f"{uri}, line {error.lineno if line is None else line:,}, column {error.colno:,}"
    return ManifestError(f"{where} is not JSON: {_JSON_FAULTS.get(error.msg, 'it cannot go on like that')}.")
