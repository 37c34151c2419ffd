"""Stage three: encode, write the parts, commit the receipt. The receipt comes last: without it nothing has happened."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from unipic.pipeline.context import RunContext
from unipic.pipeline.crashpoints import crash_point
from unipic.pipeline.errors import ObjectMissing
from unipic.pipeline.lineage import sha256
from unipic.pipeline.output.ledger import part_name, part_of, receipt_path
from unipic.pipeline.records import Part, Receipt, Unit
from unipic.pipeline.stages.parts import data_part, data_rows, rejected_part
from unipic.pipeline.storage.paths import join

RETRY_MICRO_BATCH = "micro_batch_of_retry"  # fact: number of the retry → rows a micro-batch
REJECTED_KINDS = "rejected_kinds"  # fact, where rows are rejected: kind → how many


def finish(unit: Unit, answered: pa.Table, context: RunContext) -> Receipt:
    """Write and commit one unit.

    Returns:
        The receipt that stands in storage afterwards: ours, or that of another run of the same job that was first.

    Raises:
        StorageError: something could not be written; the unit is not done and may be tried again.
    """
    started = time.monotonic()
    rows, files = data_rows(unit, answered, context)
    output = context.job.output.uri
    crash_point("finish.start")
    for path, picture in files.items():
        crash_point("finish.before_picture")
        context.storage.write(join(output, path), picture)
        crash_point("finish.after_picture")
    parts: list[Part] = []
    written: dict[str, bytes] = {}
    # Data first in the receipt, last in storage: whoever lists data/ early finds rejected rows already explained.
    for folder, data in (
        ("rejected", rejected_part(unit, answered, context)),
        ("data", data_part(unit, rows, answered, context)),
    ):
        if data is not None:
            path = f"{folder}/{part_name(unit.id, unit.retry)}"
            crash_point(f"finish.before_{folder}")
            context.storage.write(join(output, path), data)
            crash_point(f"finish.after_{folder}")
            written[path] = data
            count = len(rows) if folder == "data" else answered.num_rows - len(rows)
            parts.insert(0, Part(path, count, len(data), sha256(data)))
    facts = json.loads((answered.schema.metadata or {}).get(b"facts", b"{}")) | _rejected_kinds(answered)
    receipt = Receipt(
        unit=unit.id,
        file=unit.file.name,
        first_row=unit.first_row,
        rows=unit.rows,
        ok=len(rows),
        rejected=answered.num_rows - len(rows),
        parts=tuple(parts),
        source_version=unit.file.version,
        retry=unit.retry,
        resized=facts.pop("resized", False),
        facts=_facts(facts, time.monotonic() - started),
    )
    commit = _commit_retry if unit.retry else _commit
    return commit(unit, receipt, written, context)


def _commit(unit: Unit, receipt: Receipt, written: dict[str, bytes], context: RunContext) -> Receipt:
    """Put the receipt where it makes the unit done, unless it is done already. `written`: our parts by path."""
    uri = join(context.job.output.uri, receipt_path(receipt.unit))
    if unit.again:
        # Before the receipt: a death in between leaves a unit to be done, never a done unit with rows in two places.
        _delete(_own_paths(unit), receipt, context)
    crash_point("finish.before_receipt")
    ours = context.storage.put_if_absent(uri, receipt.to_json().encode())
    crash_point("finish.after_receipt")
    if ours:
        return receipt
    stands = Receipt.from_json(context.storage.read(uri))
    if _replaced(stands, receipt, context):
        # A row answered otherwise than in the run that was first, whose part is gone: ours is what can be kept whole.
        _write(written, context)
        context.storage.write(uri, receipt.to_json().encode())
        stands, receipt = receipt, stands
    _delete({part.path for part in receipt.parts}, stands, context)
    return stands


def _replaced(stands: Receipt, ours: Receipt, context: RunContext) -> bool:
    """Whether a part that the standing receipt names is not what it says: we wrote over it, or took it for a leftover.

    Parts of tries before ours are none of our doing.
    """
    digests = {part.path: part.sha256 for part in ours.parts}
    return any(
        part_of(part.path)[1] == ours.retry and digests.get(part.path) != part.sha256 and not _holds(part, context)
        for part in stands.parts
    )


def _holds(part: Part, context: RunContext) -> bool:
    try:
        return sha256(context.storage.read(join(context.job.output.uri, part.path))) == part.sha256
    except ObjectMissing:
        return False


def _commit_retry(unit: Unit, receipt: Receipt, written: dict[str, bytes], context: RunContext) -> Receipt:
    """Fold rows that went well this time into the unit's receipt; the rest stands in the new rejected part."""
    uri = join(context.job.output.uri, receipt_path(receipt.unit))
    before = stands = Receipt.from_json(context.storage.read(uri))
    if stands.retry < receipt.retry:
        if unit.again:
            _delete(_own_paths(unit), receipt, context)
        stands = _folded(before, receipt)
        crash_point("finish.before_receipt")
        context.storage.write(uri, stands.to_json().encode())
        crash_point("finish.after_receipt")
    elif stands.retry == receipt.retry and _replaced(stands, receipt, context):
        # Another run tried the same rows at once, got other answers, and had our parts written over its own.
        stands = _folded(before, receipt)
        _write(written, context)
        context.storage.write(uri, stands.to_json().encode())
    # Rejected rows of the try before leave last: a death before this leaves a part for the next start to sweep.
    earlier = f"rejected/{part_name(unit.id, unit.retry - 1)}"
    _delete({earlier, *(part.path for part in (*before.parts, *receipt.parts))}, stands, context)
    return stands


def _folded(before: Receipt, retry: Receipt) -> Receipt:
    """The receipt of a unit that stood as `before` says when its rejected rows were tried again.

    Rounding depends on the micro-batch, so each try's stays on record: the first one's as it was, a retry's by number.
    """
    kept = tuple(p for p in before.parts if p.path.startswith("data/") and part_of(p.path)[1] < retry.retry)
    facts = {name: value for name, value in retry.facts.items() if name != "micro_batch"}
    facts |= {name: before.facts[name] for name in ("micro_batch", RETRY_MICRO_BATCH) if name in before.facts}
    if "micro_batch" in retry.facts:
        facts[RETRY_MICRO_BATCH] = {
            **facts.get(RETRY_MICRO_BATCH, {}),
            str(retry.retry): retry.facts["micro_batch"],
        }
    return replace(
        retry,
        ok=sum(part.rows for part in kept) + retry.ok,
        parts=(*kept, *retry.parts),
        resized=before.resized or retry.resized,
        facts=facts,
    )


def micro_batch(receipt: Receipt, retry: int) -> int | None:
    """Rows that a micro-batch of that try (0: the first) had; None where it is not on record."""
    size = receipt.facts.get(RETRY_MICRO_BATCH, {}).get(str(retry)) if retry else receipt.facts.get("micro_batch")
    return int(size) if size else None


def _write(parts: dict[str, bytes], context: RunContext) -> None:
    for path, data in parts.items():
        context.storage.write(join(context.job.output.uri, path), data)


def _own_paths(unit: Unit) -> set[str]:
    """The parts that this try of `unit` may write."""
    return {f"{folder}/{part_name(unit.id, unit.retry)}" for folder in ("data", "rejected")}


def _delete(paths: set[str], receipt: Receipt, context: RunContext) -> None:
    """Delete those of `paths` that the receipt does not name: rows that failed in another try, or went well there."""
    for path in sorted(paths - {part.path for part in receipt.parts}):
        context.storage.delete(join(context.job.output.uri, path))


def _rejected_kinds(answered: pa.Table) -> dict[str, dict[str, int]]:
    """The fact `REJECTED_KINDS`; none where all rows are well. After a retry it is of what is still rejected."""
    faults = answered.column("fault").combine_chunks()
    kinds = Counter(pc.struct_field(faults, "kind").drop_null().to_pylist())
    return {REJECTED_KINDS: dict(sorted(kinds.items()))} if kinds else {}


def _facts(facts: dict[str, Any], finish_s: float) -> dict[str, Any]:
    return {**facts, "finish_s": round(finish_s, 4), "finished": round(time.time(), 3)}
