"""Find a row of an output, and walk it back through any number of jobs to the first manifest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from pipeline.errors import JobError, UniPicError
from pipeline.ledger import Ledger
from pipeline.parquet_file import open_parquet, read_parquet
from pipeline.signatures import cell_without_signatures
from pipeline.storage import Storage, join

LINEAGE_ID = re.compile(r"[0-9a-f]{8,64}")
UNKNOWN_JOB = "a job whose output is elsewhere"
MOST_STEPS = 1_000  # a chain of jobs this long is a circle


@dataclass(frozen=True)
class Found:
    """One output row: the part that holds it, its place there, and its columns without the picture's bytes."""

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
    """

    job: str
    task: str
    output: str
    part: str
    at: int
    lineage: dict[str, Any]
    source: dict[str, Any]


def find(output_uri: str, row: str, storage: Storage) -> Found:
    """The output row that `row` names.

    Args:
        row: a lineage id or the first 8 or more digits of one, the manifest's id, or "<manifest file>:<row>"
            (the file's name is enough), with "#<sample>" behind it where a row has several.

    Raises:
        JobError: no row is named so, or several are (with their lineage ids).
    """
    name, _, sample = row.partition("#")
    matches: list[Found] = []
    for part in storage.list(join(output_uri, "data"), suffix=".parquet"):
        columns = pq.read_schema(storage.open(part.uri)).names
        wanted = [column for column in columns if column not in ("image", "caption")]
        table = read_parquet(storage.open(part.uri), wanted)
        for at, one in enumerate(table.to_pylist()):
            if _is(one, name) and (not sample or one["lineage"]["sample"] == int(sample)):
                matches.append(Found(output_uri, part.uri, at, one))
    if not matches:
        raise JobError(
            f"no row of {output_uri} is called {row!r}",
            remedy="Give a lineage id, the manifest's id, or <manifest file>:<row>; rejected rows have no output.",
        )
    if len(matches) > 1:
        ids = ", ".join(one.row["lineage"]["lineage_id"][:16] for one in matches[:10])
        raise JobError(
            f"{len(matches)} rows of {output_uri} are called {row!r}", remedy=f"Say which by lineage id: {ids}."
        )
    return matches[0]


def _is(row: dict[str, Any], name: str) -> bool:
    lineage = row["lineage"]
    if row.get("id") == name or (LINEAGE_ID.fullmatch(name) and lineage["lineage_id"].startswith(name)):
        return True
    file, colon, number = name.rpartition(":")
    return (
        bool(colon)
        and number.isdecimal()
        and lineage["source_row"] == int(number)
        and lineage["source_file"].endswith(file)
    )


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
        source = _source_row(lineage, storage)
        yield Step(
            job=run.name if run else UNKNOWN_JOB,
            task=lineage["task"],
            output=found.output,
            part=found.part,
            at=found.at,
            lineage=lineage,
            source=_readable(source),
        )
        if not isinstance(source.get("lineage"), dict):
            return
        part = lineage["source_file"]
        found = Found(part.rpartition("/data/")[0], part, lineage["source_row"], source)


def _source_row(lineage: dict[str, Any], storage: Storage) -> dict[str, Any]:
    """The manifest row an output was made from, without pictures; {} where the manifest is gone or is plain text."""
    if not lineage["source_file"].endswith(".parquet"):
        return {}
    try:
        file = open_parquet(storage.open(lineage["source_file"]))
    except UniPicError:
        return {}
    first = 0
    columns = [name for name in file.schema_arrow.names if name != "image"]
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if lineage["source_row"] < first + rows:
            table = file.read_row_group(group, columns=columns, use_threads=False)
            return table.slice(lineage["source_row"] - first, 1).to_pylist()[0]
        first += rows
    return {}


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: cell_without_signatures(value)
        for name, value in row.items()
        if name != "lineage" and not isinstance(value, bytes | dict)
    }
