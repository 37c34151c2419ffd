"""Footers of Parquet manifests: how many rows a file has and of which columns, and why one is refused."""

from __future__ import annotations

import base64
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from unipic.pipeline.errors import ManifestError
from unipic.pipeline.storage.storage import FileInfo, Storage

_MAGIC = b"PAR1"
_PICKLED = "ray.data."  # Ray's extension types may unpickle what is in the file
_PLAIN = {
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
}


def footer(info: FileInfo, storage: Storage) -> tuple[int, pa.Schema]:
    """Row count and plain schema of a file, from its footer. Raises ManifestError naming the file."""
    uri = info.uri
    with storage.open(uri, info=info) as file:
        try:
            metadata = pq.read_metadata(file)
            schema = metadata.schema.to_arrow_schema()
        except (pa.ArrowException, OSError) as error:
            raise unreadable(uri, _footer_fault(file, info.size_bytes, error)) from error
    _refuse_pickled(uri, metadata, schema)
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise ManifestError(
            f"{uri} has several columns called {', '.join(twice)}.", remedy="Write it with a name for each column."
        )
    return metadata.num_rows, pa.schema([pa.field(field.name, plain_type(field.type)) for field in schema])


def plain_type(found: pa.DataType) -> pa.DataType:
    """`found` without the encodings that differ between writers of the same data."""
    if pa.types.is_dictionary(found):
        return plain_type(found.value_type)
    if isinstance(found, pa.BaseExtensionType):
        return plain_type(found.storage_type)
    if pa.types.is_struct(found):
        return pa.struct([pa.field(field.name, plain_type(field.type)) for field in found])
    return _PLAIN.get(found, found)


def unreadable(uri: str, why: str) -> ManifestError:
    return ManifestError(f"{uri} is not a readable Parquet file: {why}.", remedy="Write it again, or remove it.")


def reason(error: Exception, else_: str) -> str:
    if isinstance(error, pa.ArrowNotImplementedError):
        return "it uses a kind of Parquet that is not supported here"
    return error.strerror if isinstance(error, OSError) and error.strerror else else_


def _refuse_pickled(uri: str, metadata: Any, schema: pa.Schema) -> None:
    written = (metadata.metadata or {}).get(b"ARROW:schema", b"")
    found = [field.name for field in schema if _PICKLED in _extension(field)]
    if found or _PICKLED.encode() in base64.b64decode(written):
        raise ManifestError(
            f"{uri} has columns of Ray's own extension types ({', '.join(found) or 'inside others'}), "
            "which may hold pickled objects; they are never read.",
            remedy="Write the manifest with plain Parquet types.",
        )


def _extension(field: pa.Field) -> str:
    if isinstance(field.type, pa.BaseExtensionType):
        return str(field.type.extension_name)
    return (field.metadata or {}).get(b"ARROW:extension:name", b"").decode("utf-8", "replace")


def _footer_fault(file: BinaryIO, size_bytes: int, error: Exception) -> str:
    """Why there is no footer to read: Arrow's own words are about its insides."""
    if not size_bytes:
        return "it is empty"
    file.seek(0)
    begin = file.read(len(_MAGIC))
    file.seek(max(0, size_bytes - len(_MAGIC)))
    end = file.read(len(_MAGIC))
    if begin == _MAGIC and end != _MAGIC:
        return "its end is missing"
    if end == b"PARE":
        return "it is encrypted"
    return reason(error, "it does not begin and end like one" if end != _MAGIC else "its footer is damaged")
