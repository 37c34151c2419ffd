"""Captions as CSV or JSON lines, for programs that read no Parquet: streamed, in the manifest's order, all or nothing.

JSON lines hold captions to the letter. A spreadsheet runs a CSV cell that begins like a formula, so that there such
texts stand behind an apostrophe.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from unipic.pipeline.audit.outcomes import units_of
from unipic.pipeline.audit.whole_file import whole_file
from unipic.pipeline.errors import JobError
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.storage.storage import Storage

COLUMNS = ("id", "source", "question", "caption", "lineage_id")
FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
BATCH_ROWS = 2**12
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
Write = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        rows: captions.
        rejected: rows of the job that have none.
        undone: rows that no run has come to yet.
        left_out: kept columns that hold neither text nor numbers.
    """

    rows: int
    rejected: int
    undone: int
    left_out: tuple[str, ...]


def export(
    output_uri: str, to: Path, storage: Storage, *, file_format: str | None = None, force: bool = False
) -> Exported:
    """Write the captions under `output_uri` to the local file `to`: `COLUMNS`, then the job's kept columns.

    Args:
        to: it appears when it is whole.
        file_format: "csv" or "jsonl"; default: what `to` ends in.
        force: replace it where it is there.

    Raises:
        JobError: an output without captions, a name that says no format, or a file that is there or cannot be written.
        OutputError: no run has begun there, or a receipt is damaged.
    """
    file_format = file_format or FORMATS.get(to.suffix.lower())
    if file_format is None:
        raise JobError(f"{to} must end in {', '.join(FORMATS)}")
    ledger = Ledger(output_uri, storage)
    run = ledger.recorded()
    if run.task != "caption":
        raise JobError(
            f"{output_uri} holds the output of {run.task}, which is images; captions are exported as {file_format}.",
            remedy="--images DIR writes images as files, --format openai-batch as base64.",
        )
    left_out: dict[str, None] = {}
    rows = rejected = 0
    with whole_file(to, force=force) as stream:
        write: Write | None = None
        for receipt in ledger.receipts(ledger.snapshot(run), units_of(run)):
            rejected += receipt.rejected
            for _, table in ledger.data(receipt):
                kept, others = _kept(table.schema)
                for batch in table.select([*COLUMNS[:-1], "lineage", *kept]).to_batches(BATCH_ROWS):
                    left_out.update(dict.fromkeys(others))
                    write = write or _writer(stream, file_format, [*COLUMNS, *kept])
                    for row in batch.to_pylist():
                        write({**row, "lineage_id": row["lineage"]["lineage_id"].hex()})
                    rows += batch.num_rows
        if write is None:
            _writer(stream, file_format, list(COLUMNS))
    total = sum(file.rows for file in run.files)
    return Exported(rows, rejected, total - rows - rejected, tuple(left_out))


def _kept(schema: pa.Schema) -> tuple[list[str], list[str]]:
    """The kept columns that fit into a cell, and those that do not."""
    kept: list[str] = []
    others: list[str] = []
    for field in schema:
        if field.name in COLUMNS or field.name == "lineage":
            continue
        nested = (
            pa.types.is_nested(field.type) or pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)
        )
        (others if nested else kept).append(field.name)
    return kept, others


def _writer(stream: IO[str], file_format: str, columns: Sequence[str]) -> Write:
    if file_format == "jsonl":

        def write_line(row: dict[str, Any]) -> None:
            cells = {name: row.get(name) for name in columns}
            stream.write(json.dumps(cells, ensure_ascii=False, default=str) + "\n")

        return write_line
    table = csv.writer(stream)  # lines end in CR LF, so that either of them alone is quoted in a cell
    table.writerow([harmless(name) for name in columns])
    return lambda row: table.writerow([harmless(row.get(name)) for name in columns])


def harmless(cell: Any) -> Any:
    """`cell` as no spreadsheet takes it for a formula; numbers stay numbers."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell
