"""Find a row of an output, and walk it back through any number of jobs to the first manifest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.errors import JobError, OutputError, UniPicError, redact
from pipeline.ledger import Ledger, part_of
from pipeline.parquet_file import open_parquet, read_part
from pipeline.signatures import cell_without_signatures, readable
from pipeline.storage import Storage, join

LINEAGE_ID = re.compile(r"[0-9a-f]{8,64}")
UNKNOWN_JOB = "a job whose output is elsewhere"
MOST_STEPS = 1_000  # a chain of jobs this long is a circle
NEEDED = {"lineage_id", "source_file", "source_row", "sample", "task", "prompt"}
"""Fields of a struct that is taken for a lineage of ours."""


@dataclass(frozen=True)
class Found:
    """One output row: the part that holds it, its place there, and at least its lineage."""

    output: str
    part: str
    at: int
    row: dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One job on the way back.

    Attributes:
        job, task, output: which job made the row; the job is UNKNOWN_JOB and the output "" where a manifest brought the
            row along with its lineage alone.
        part, at: where it stands.
        lineage: the row's lineage struct.
        source: what the source row says (id, prompt, …; long values and bytes left out).
        unread: why it says nothing, where the source is gone or damaged.
    """

    job: str
    task: str
    output: str
    part: str
    at: int
    lineage: dict[str, Any]
    source: dict[str, Any]
    unread: str = ""


def find(output_uri: str, row: str, storage: Storage) -> Found:
    """The output row that `row` names.

    Args:
        row: a lineage id or the first 8 or more digits of one, the manifest's id, or "<manifest file>:<row>"
            (the file's name is enough), with "#<sample>" behind it where a row has several.

    Raises:
        JobError: no row is named so, or several are (with their lineage ids).
    """
    whole: list[Found] = []
    numbered: list[Found] = []
    passed_over = 0
    name, _, sample = row.rpartition("#")
    sample_index = _number(sample)
    done = Ledger(output_uri, storage).done()
    for part in storage.list(join(output_uri, "data"), suffix=".parquet"):
        table = _ids(part.uri, storage) if part_of(part.uri)[0] in done else None
        if table is None:
            passed_over += 1
            continue
        for at, one in enumerate(table.to_pylist()):
            found = Found(output_uri, part.uri, at, one)
            if _is(one, row):
                whole.append(found)
            elif sample_index is not None and one["lineage"]["sample"] == sample_index and _is(one, name):
                numbered.append(found)
    matches = whole or numbered  # an id may have a "#" of its own
    if not matches:
        others = f"; {passed_over} files were passed over, which `unipic verify` explains" if passed_over else ""
        raise JobError(
            f"no row of {output_uri} is called {row!r}{others}",
            remedy="Give a lineage id, the manifest's id, or <manifest file>:<row>; rejected rows have no output.",
        )
    if len(matches) > 1:
        ids = ", ".join(one.row["lineage"]["lineage_id"][:16] for one in matches[:10])
        raise JobError(
            f"{len(matches)} rows of {output_uri} are called {row!r}", remedy=f"Say which by lineage id: {ids}."
        )
    return matches[0]


def _ids(uri: str, storage: Storage) -> pa.Table | None:
    """Ids and lineage of a part; None of one that is damaged or not ours."""
    try:
        table = read_part(uri, storage, ["id", "lineage"])
    except OutputError:
        return None
    kind = table.schema.field("lineage").type
    return table if pa.types.is_struct(kind) and {field.name for field in kind} >= NEEDED else None


def _is(row: dict[str, Any], name: str) -> bool:
    lineage = row["lineage"]
    if row["id"] == name or (LINEAGE_ID.fullmatch(name) and lineage["lineage_id"].startswith(name)):
        return True
    file, _, number = name.rpartition(":")
    source: str = lineage["source_file"]
    return bool(file) and lineage["source_row"] == _number(number) and (source == file or source.endswith(f"/{file}"))


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 19 else None


def trace(output_uri: str, row: str, storage: Storage) -> list[Step]:
    """The way of `row` back to the first manifest, newest job first.

    Raises:
        JobError: the row cannot be found.
    """
    return list(_steps(find(output_uri, row, storage), storage))


def _steps(found: Found, storage: Storage) -> Iterator[Step]:
    for _ in range(MOST_STEPS):
        lineage = found.row["lineage"]
        run = Ledger(found.output, storage).run() if found.output else None
        source, unread = _source_row(lineage, storage)
        yield Step(
            job=run.name if run else UNKNOWN_JOB,
            task=lineage["task"],
            output=found.output,
            part=found.part,
            at=found.at,
            lineage=lineage,
            source=_readable(source),
            unread=unread,
        )
        brought = source.get("lineage")
        if not isinstance(brought, dict) or not brought.keys() >= NEEDED:
            return
        part = lineage["source_file"]
        found = Found(part.rpartition("/data/")[0], part, lineage["source_row"], source)


def _source_row(lineage: dict[str, Any], storage: Storage) -> tuple[dict[str, Any], str]:
    """The manifest row an output was made from, without pictures, and why it is {} where it is."""
    uri, row = lineage["source_file"], lineage["source_row"]
    if not uri.endswith(".parquet"):
        return {}, ""
    try:
        file = open_parquet(storage.open(uri))
        columns = [name for name in file.schema_arrow.names if name != "image"]
        first = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < first + rows:
                table = file.read_row_group(group, columns=columns, use_threads=False).slice(row - first, 1)
                return {name: _value(table.column(name)[0]) for name in columns}, ""
            first += rows
    except UniPicError as error:
        return {}, error.message
    except (pa.ArrowException, OSError) as error:
        return {}, redact(f"{uri} cannot be read: {str(error).partition('. ')[0]}")
    return {}, f"{uri} has no row {row} any more"


def _value(cell: pa.Scalar) -> Any:
    try:
        return readable(cell)
    except (ValueError, OverflowError):  # what Python has no type for: a time to the nanosecond, the year 12000
        return str(cell.cast(pa.string()))


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: cell_without_signatures(value)
        for name, value in row.items()
        if name != "lineage" and not isinstance(value, bytes | dict)
    }
