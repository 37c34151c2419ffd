"""Find a row of an output, and walk it back through any number of jobs to the first manifest."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from unipic.pipeline.audit.source_rows import readable_row, source_row, value_of
from unipic.pipeline.errors import JobError, OutputError, redact
from unipic.pipeline.lineage import from_row
from unipic.pipeline.output.layout import parse_part
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.neighbours import find_beside
from unipic.pipeline.output.packed import Packed, Slice
from unipic.pipeline.output.run_record import Run
from unipic.pipeline.records import Revision
from unipic.pipeline.stages.parts import REJECTION
from unipic.pipeline.storage.parquet import read_part
from unipic.pipeline.storage.storage import Storage

LINEAGE_ID = re.compile(r"[0-9a-f]{8,64}")
UNKNOWN_JOB = "a job whose output is elsewhere"
BLOCK_ROWS = 2**15
MOST_STEPS = 1_000  # a chain of jobs this long is a circle
NEEDED = {"lineage_id", "source_file", "source_row", "sample_index", "task", "prompt_sent"}
"""Fields of a struct that is taken for a lineage of ours."""
NEEDED_OF = {"lineage": NEEDED, "rejection": set(REJECTION.names)}


@dataclass(frozen=True)
class Found:
    """One output row: the part that holds it, its place there, and at least its lineage, digests as hex text."""

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
        lineage: the row's lineage, digests as hex text.
        source_uri: where its manifest file is, as that job's record has it; "" where no record is known.
        source: what the source row says (id, prompt, …; long values and bytes left out).
        unread: why it says nothing, where the source is gone or damaged.
    """

    job: str
    task: str
    output: str
    part: str
    at: int
    lineage: dict[str, Any]
    source_uri: str
    source: dict[str, Any]
    unread: str = ""


def find(output_uri: str, row: str, storage: Storage) -> Found:
    """The output row that `row` names.

    Args:
        row: a lineage id or the first 8 or more digits of one, the manifest's id, or "<manifest file>:<row>"
            (the file's name is enough), with "#<sample>" behind it where a row has several.

    Raises:
        JobError: no row is named so, or several are (with their lineage ids); or it was rejected (with the reason).
        OutputError: no run has begun there.
    """
    ledger = Ledger(output_uri, storage)
    passed_over: list[str] = []
    matches = _called(row, _rows(ledger, "data", "id", passed_over))
    if not matches:
        raise _not_found(ledger, row, passed_over)
    if len(matches) > 1:
        ids = ", ".join(one.row["lineage"]["lineage_id"][:16] for one in matches[:10])
        raise JobError(
            f"{len(matches)} rows of {output_uri} are called {row!r}", remedy=f"Say which by lineage id: {ids}."
        )
    return matches[0]


def _not_found(ledger: Ledger, row: str, passed_over: list[str]) -> JobError:
    """Why no output row is called `row`: it was rejected, or there is none. Raises OutputError: no output of ours."""
    run = ledger.recorded()
    rejected = _called(row, _rows(ledger, "rejected", run.fields["columns"].get("id"), passed_over))
    latest = {_place(one): one.row["rejection"] for one in sorted(rejected, key=lambda one: _revision(one, ledger))}
    if latest:
        first, *more = latest.values()
        sample = f", sample {first['sample']}" if run.fields["params"].get("samples_per_row", 1) > 1 else ""
        also = f" (and {len(more)} more called so)" if more else ""
        where = f"row {first['source_row']} of {first['source_file']}{sample}{also}"
        return JobError(
            f"{row!r} was rejected and has no output: {where}: {first['kind']}: {first['message']}",
            remedy="`unipic run JOB --retry-rejected` tries rejected rows once more.",
        )
    others = f"; {len(passed_over)} files were passed over, which `unipic verify` explains" if passed_over else ""
    return JobError(
        f"no row of {ledger.output_uri} is called {row!r}{others}",
        remedy="Give a lineage id, the manifest's id, or <manifest file>:<row>.",
    )


def _revision(found: Found, ledger: Ledger) -> Revision:
    named = parse_part(ledger.path_of(found.part))
    return named.revision if named is not None else Revision()


def _place(found: Found) -> tuple[str, int, int]:
    rejection = found.row["rejection"]
    return rejection["source_file"], rejection["source_row"], rejection["sample"]


def _rows(ledger: Ledger, folder: str, identity: str | None, passed_over: list[str]) -> Iterator[Found]:
    """Id and lineage, or id and rejection, of every row in the parts of `folder`.

    Args:
        identity: the column that has the ids; None where there are none.
        passed_over: gets the parts that are damaged or not ours.
    """
    struct = "lineage" if folder == "data" else "rejection"
    run = ledger.recorded()
    snapshot, packed = ledger.snapshot(run), ledger.packed(run)
    for path in ledger.list(folder, suffix=".parquet"):
        uri = ledger.uri(path)
        counts = snapshot.has_data(path) if folder == "data" else snapshot.holds(parse_part(path))
        first = 0
        for table in _tables(path, ledger, packed, identity, struct) if counts else [None]:
            if table is None:
                passed_over.append(uri)
                continue
            ids = table.column("id").to_pylist() if folder == "data" else _ids(table, identity)
            for at, value in enumerate(table.column(struct).to_pylist()):
                if value is not None:
                    facts = from_row(value) if struct == "lineage" else value
                    yield Found(ledger.output_uri, uri, first + at, {"id": ids[at], struct: facts})
            first += table.num_rows


def _tables(path: str, ledger: Ledger, packed: Packed, identity: str | None, struct: str) -> Iterator[pa.Table | None]:
    """These two columns of a file's rows, a pack's in blocks; None for a file that is damaged or not ours."""
    pack = packed.index.paths.get(path)
    if pack is None:
        yield _read(ledger.uri(path), ledger.storage, identity, struct)
        return
    columns = list(dict.fromkeys([identity or struct, struct]))
    for first in range(0, pack.part.rows, BLOCK_ROWS):
        try:
            yield packed.rows(Slice(path, first, min(BLOCK_ROWS, pack.part.rows - first)), columns)
        except OutputError:
            yield None
            return


def _read(uri: str, storage: Storage, identity: str | None, struct: str) -> pa.Table | None:
    """These two columns of a part; None of one that is damaged or not ours."""
    try:
        table = read_part(uri, storage, list(dict.fromkeys([identity or struct, struct])))
    except OutputError:
        return None
    kind = table.schema.field(struct).type
    return table if pa.types.is_struct(kind) and {field.name for field in kind} >= NEEDED_OF[struct] else None


def _ids(table: pa.Table, identity: str | None) -> list[str | None]:
    """Rejected rows' ids, which stand there as the manifest had them, in the text that data rows have."""
    if identity is None:
        return [None] * table.num_rows
    return [str(value_of(cell)) if cell.is_valid else None for cell in table.column(identity)]


def _called(name: str, rows: Iterable[Found]) -> list[Found]:
    """Those of `rows` that `name` names, as a whole or but for a "#<sample>" behind it."""
    whole: list[Found] = []
    numbered: list[Found] = []
    unnumbered, _, sample = name.rpartition("#")
    sample_index = _number(sample)
    for found in rows:
        facts = found.row.get("lineage") or found.row["rejection"]
        if _is(found.row["id"], facts, name):
            whole.append(found)
        elif sample_index is not None and sample_index == facts.get("sample_index", facts.get("sample")):
            numbered += [found] if _is(found.row["id"], facts, unnumbered) else []
    return whole or numbered  # an id may have a "#" of its own


def _is(identity: str | None, facts: dict[str, Any], name: str) -> bool:
    """`facts`: the row's lineage or rejection."""
    if identity == name or (LINEAGE_ID.fullmatch(name) and facts.get("lineage_id", "").startswith(name)):
        return True
    file, _, number = name.rpartition(":")
    source: str = facts["source_file"]
    names = source == file or source.endswith(f"/{file}") or file.endswith(f"/{source}")
    return bool(file) and facts["source_row"] == _number(number) and names


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 19 else None


def trace(output_uri: str, row: str, storage: Storage) -> list[Step]:
    """The way of `row` back to the first manifest, newest job first.

    A manifest may bring rows of an output along with their lineage alone: that output is looked for in the folders
    beside those of the jobs already found.

    Raises:
        JobError: the row cannot be found.
    """
    return list(_steps(find(output_uri, row, storage), storage))


def _steps(found: Found, storage: Storage) -> Iterator[Step]:
    near = [found.output]
    for _ in range(MOST_STEPS):
        lineage = found.row["lineage"]
        run = Ledger(found.output, storage).run() if found.output else None
        uri = _source_uri(lineage, run)
        source, unread = source_row(uri, lineage["source_row"], storage) if uri else ({}, _unknown(lineage, run))
        yield Step(
            job=run.name if run else UNKNOWN_JOB,
            task=lineage["task"],
            output=found.output,
            part=found.part,
            at=found.at,
            lineage=lineage,
            source_uri=uri,
            source=readable_row(source),
            unread=unread,
        )
        if not isinstance(source.get("lineage"), dict) or not source["lineage"].keys() >= NEEDED:
            return
        near = [*dict.fromkeys([*near, uri.rpartition("/")[0]])]
        found = _brought(uri, lineage["source_row"], {"lineage": from_row(source["lineage"])}, near, storage)
        near = [*dict.fromkeys([*near, *([found.output] if found.output else [])])]


def _brought(uri: str, at: int, row: dict[str, Any], near: Sequence[str], storage: Storage) -> Found:
    """The row of an output that stands in another job's manifest, the file `uri`, at the place `at`."""
    output = uri.rpartition("/data/")[0]
    if output and Ledger(output, storage).identity() is not None:
        return Found(output, uri, at, row)
    made = find_beside(near, row["lineage"], storage)
    return Found(made.output, made.part, made.at, row) if made is not None else Found("", uri, at, row)


def _unknown(lineage: dict[str, Any], run: Run | None) -> str:
    """Why the source row of a lineage cannot be looked up."""
    if run is None:
        return "the output that it was copied from is not beside those of this trace"
    return f"{lineage['source_file']} is no longer in the manifest of {run.name}"


def _source_uri(lineage: dict[str, Any], run: Run | None) -> str:
    """Where the record of the row's job has its manifest file; "" where that is not known."""
    files = run.files if run else ()
    return next((redact(one.uri) for one in files if one.name == lineage["source_file"]), "")
