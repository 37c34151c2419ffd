"""Columns as outputs may hold them: addresses lose what may be a signature, text that is not UTF-8 what is none.

Bytes that are text are treated as such. In other bytes, such as images, secrets are overwritten and every byte keeps
its place; only addresses of schemes that take passwords are looked for there, since random bytes look like much.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from unipic.pipeline.errors import redact_url
from unipic.pipeline.storage.paths import is_remote, local_path

_SCHEMES = rb"https?|s3[an]?|gs|az|abfss?|ftps?|sftp|ssh|git|hdfs|postgres(?:ql)?|mysql|mongodb(?:\+srv)?|rediss?"
_SECRETS = (  # a plain sign, which is found at memory speed; what comes before it; the secret behind it
    (re.compile(rb"://"), re.compile(rb"(?:" + _SCHEMES + rb")\Z"), re.compile(rb"([!-.0-?A-~]{1,500})@")),
    (re.compile(rb"Signature="), re.compile(rb"[?&][A-Za-z0-9-]{0,30}\Z"), re.compile(rb"([!-~]{8,2000})")),
    (re.compile(rb"sig="), re.compile(rb"[?&]\Z"), re.compile(rb"([!-~]{8,2000})")),
)
_BEFORE_BYTES = 32


def without_signatures(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """`column` with each cell of text or bytes, inside structs and lists too, without secrets; its type stays.

    Bytes that are no UTF-8, which Parquet lets into text, become U+FFFD.
    """
    if not _may_hold_secrets(column.type):
        return column
    return pa.chunked_array([_clean(chunk) for chunk in column.chunks], column.type)


def cell_without_signatures(cell: Any) -> Any:
    """One value, its texts passed through `redact_url`, its bytes without secrets."""
    if isinstance(cell, str):
        return redact_url(cell)
    if isinstance(cell, bytes):
        return bytes_without_secrets(cell)
    if isinstance(cell, (list, tuple)):
        return type(cell)(cell_without_signatures(one) for one in cell)
    if isinstance(cell, dict):
        return {name: cell_without_signatures(one) for name, one in cell.items()}
    return cell


def bytes_without_secrets(cell: bytes) -> bytes:
    spans = list(_secrets(cell))
    if not spans:
        return cell
    try:
        return redact_url(cell.decode()).encode()
    except UnicodeDecodeError:
        out = bytearray(cell)
        for start, end in spans:
            out[start:end] = b"x" * (end - start)
        return bytes(out)


def _secrets(data: bytes | pa.Buffer) -> Iterator[tuple[int, int]]:
    """Where secrets are in `data`: (first byte, byte behind the last)."""
    view = memoryview(data)
    for sign, before, behind in _SECRETS:
        end = 0
        for hit in sign.finditer(view):
            first = max(0, hit.start() - _BEFORE_BYTES)
            if hit.start() < end or before.search(view[first : hit.start()]) is None:
                continue
            secret = behind.match(view, hit.end())
            if secret is not None:
                end = secret.end(1)
                yield secret.span(1)


def without_folders(text: str, folders: Iterable[str | None]) -> str:
    """`text` with paths below these local folders as paths relative to them: where a machine has them is its own."""
    paths = {local_path(one).rstrip("/") for one in folders if one and not is_remote(one)}
    absolute = {form(path) for path in paths if path for form in (os.path.abspath, os.path.realpath)}
    for path in sorted(absolute, key=len, reverse=True):
        text = text.replace(f"{path}/", "").replace(path, os.path.basename(path))
    return text


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
    if pa.types.is_struct(kind):  # field by field: images in it are not copied
        fields = [
            _clean(array.field(at)) if _may_hold_secrets(kind.field(at).type) else array.field(at)
            for at in range(kind.num_fields)
        ]
        return pa.StructArray.from_arrays(fields, fields=list(kind), mask=array.is_null())
    if (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)) and not any(_secrets(array.buffers()[2] or b"")):
        return array  # as nearly always: nothing is copied
    try:
        cells = array.to_pylist()
    except UnicodeDecodeError:
        cells = [readable(cell) for cell in array]
    return pa.array([cell_without_signatures(cell) for cell in cells], kind)


def _may_hold_secrets(kind: pa.DataType) -> bool:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return True
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return True
    if pa.types.is_dictionary(kind):
        return _may_hold_secrets(kind.value_type)
    fields = range(kind.num_fields) if pa.types.is_nested(kind) else ()
    return any(_may_hold_secrets(kind.field(at).type) for at in fields)
