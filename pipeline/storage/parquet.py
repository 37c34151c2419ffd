"""Parquet files as this project opens them: everything is read in the caller's own thread.

Arrow's threads may let go of the bytes they read a moment after the rows are there. Where Python is ending just then,
the process aborts, and a command that went well exits as if it had crashed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from unipic.pipeline.errors import OutputError
from unipic.pipeline.storage.storage import Storage


def open_parquet(source: BinaryIO | Path, *, buffer_bytes: int = 0, checked: bool = False) -> pq.ParquetFile:
    """The file, footer read. Its readers start threads unless they get `use_threads=False`.

    Args:
        buffer_bytes: read columns as a stream through a buffer of this size; 0 reads a column's pages at once.
        checked: hold each page against its checksum, where the writer gave it one.
    """
    return pq.ParquetFile(source, buffer_size=buffer_bytes, pre_buffer=False, page_checksum_verification=checked)


def read_parquet(source: BinaryIO | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The file's rows, or these columns of them. Raises pyarrow's errors for what is no Parquet file."""
    with open_parquet(source) as file:
        return file.read(columns=None if columns is None else list(columns), use_threads=False)


def read_part(uri: str, storage: Storage, columns: Sequence[str] | None = None) -> pa.Table:
    """These columns of a part of an output; default: all.

    Raises:
        OutputError: the file is damaged, or is not a part.
    """
    remedy = "`unipic verify` names what is damaged, and with --repair makes it again."
    try:
        table = read_parquet(storage.open(uri), columns)
    except (pa.ArrowException, OSError) as error:
        raise OutputError(f"{uri} cannot be read: {str(error).partition('. ')[0]}", remedy=remedy) from error
    if missing := [name for name in columns or () if name.split(".")[0] not in table.column_names]:
        raise OutputError(f"{uri} has no column {missing[0]!r}, which every part has", remedy=remedy)
    return table


def buffer_of(data: bytes) -> pa.Buffer:
    """A copy that is Arrow's own, which any thread may let go of at any time."""
    sink = pa.BufferOutputStream()
    sink.write(data)
    return sink.getvalue()
