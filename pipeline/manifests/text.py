"""Manifests of text (JSON, JSONL, CSV, TSV, plain lines), gzip- or zstd-compressed or not: read whole, held once."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from unipic.pipeline.errors import ManifestError
from unipic.pipeline.manifests import openai_batch
from unipic.pipeline.manifests.cache import ManifestCache, cache_of
from unipic.pipeline.manifests.changes import check_version, current_version
from unipic.pipeline.manifests.csv_rows import csv_table, not_utf8
from unipic.pipeline.manifests.json_rows import json_table, jsonl_table, lines_table
from unipic.pipeline.records import ManifestFile
from unipic.pipeline.storage.errors import TooManyBytes, too_many_bytes
from unipic.pipeline.storage.storage import Storage

MAX_BYTES = 2**30  # of a file, compressed and as text
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_COMPRESSED = {b"\x1f\x8b": "gzip", b"(\xb5/\xfd": "zstd"}


def load(file: ManifestFile, storage: Storage) -> pa.Table:
    """The whole manifest file. Raises ManifestError, naming it and where it is faulty."""
    cache: ManifestCache[Any] = cache_of(storage)
    key = (file.uri, current_version(file, storage), file.format)
    return cache.texts.get(key, lambda: _read(file, storage))


def _read(file: ManifestFile, storage: Storage) -> pa.Table:
    uri = file.uri
    try:
        data = _unpacked(storage.read(uri, max_bytes=MAX_BYTES), uri)
    except TooManyBytes as error:
        raise ManifestError(
            f"{uri} is too large to be read whole: {error.message}", remedy="Convert it to Parquet."
        ) from error
    check_version(file, storage)  # afterwards: what was read before a change is then refused too
    if file.format in _DELIMITERS:
        return csv_table(data, uri, _DELIMITERS[file.format])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise not_utf8(uri, data, error) from error
    if file.format == "txt":
        return lines_table(text)
    if file.format == openai_batch.FORMAT:
        return openai_batch.table(text, uri)
    return json_table(text, uri) if file.format == "json" else jsonl_table(text, uri)


def _unpacked(data: bytes, uri: str) -> bytes:
    """`data`, decompressed if its first bytes say that it is compressed. Raises TooManyBytes beyond MAX_BYTES."""
    codec = next((codec for sign, codec in _COMPRESSED.items() if data.startswith(sign)), None)
    if codec is None:
        return data
    try:
        with pa.CompressedInputStream(pa.BufferReader(data), codec) as stream:
            text: bytes = stream.read(MAX_BYTES + 1)
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(
            f"{uri} cannot be decompressed: it is damaged or ends too early.", remedy="Write it again."
        ) from error
    if len(text) > MAX_BYTES:
        raise too_many_bytes(uri, len(text), MAX_BYTES)
    return text
