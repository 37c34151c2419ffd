"""Stage three: encode the answers, stage the parts, commit the receipt, publish what it names.

The receipt is the commit: put if absent, under a name that no other commit of the unit has. Before it nothing counts;
after it the parts are moved to where readers look, by this process or by any that finds them staged. The protocol is
described in `pipeline/output/__init__.py`.
"""

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
from unipic.pipeline.errors import OutputError
from unipic.pipeline.lineage import sha256
from unipic.pipeline.output.attempt import Attempt, publish, supersede
from unipic.pipeline.output.layout import (
    DATA,
    REJECTED,
    epoch_path,
    parse_part,
    part_path,
    receipt_path,
)
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.records import Facts, Part, Receipt, Revision, Unit
from unipic.pipeline.stages.parts import data_part, data_rows, rejected_part


def commit(unit: Unit, answered: pa.Table, context: RunContext) -> Receipt:
    """Write and commit one unit.

    Returns:
        The receipt that counts afterwards: ours, or that of another attempt that was first.

    Raises:
        OutputError: a redo or a prune took the unit's rows back while it was being made.
        StorageError: something could not be written; the unit is not done and may be tried again.
    """
    started = time.monotonic()
    ledger = Ledger(context.job.output.uri, context.storage)
    attempt = Attempt(unit, ledger.output_uri, context.storage)
    crash_point("commit.start")
    parts, rows_ok = _stage(unit, answered, context, attempt)
    facts: dict[str, Any] = json.loads((answered.schema.metadata or {}).get(b"facts", b"{}"))
    resized = facts.pop("resized", False)
    finished = {"commit_s": round(time.monotonic() - started, 4), "finished": round(time.time(), 3)}
    receipt = Receipt(
        unit=unit.id,
        file=unit.file.name,
        first_row=unit.first_row,
        rows=unit.rows,
        ok=rows_ok,
        rejected=answered.num_rows - rows_ok,
        parts=parts,
        source_version=unit.file.version,
        revision=unit.revision,
        attempt=attempt.name,
        resized=resized,
        facts=Facts.known({**facts, **finished, "rejected_kinds": _rejected_kinds(answered)}),
    )
    context.storage.conditional(ledger.output_uri)  # known once in this process, it saves a request a unit
    if packed := _check_epoch(unit, context, ledger):
        attempt.discard()
        return packed
    before = _before(unit, ledger)
    receipt = _folded(before, receipt) if before else receipt
    counts, ours = _commit(unit, receipt, ledger)
    if before is not None:
        supersede(before, counts, ledger.output_uri, ledger.storage)
    if ours:
        attempt.publish()
    elif unit.restores and counts.parts == receipt.parts:
        _restore(unit, counts, attempt, context, ledger)
    else:
        attempt.discard()
    crash_point("commit.after_publish")
    return counts


def _stage(unit: Unit, answered: pa.Table, context: RunContext, attempt: Attempt) -> tuple[tuple[Part, ...], int]:
    """Write images and parts under names of this attempt's own; the parts, data first, and the number of data rows."""
    rows, images = data_rows(unit, answered, context)
    for path, image in images.items():
        crash_point("commit.before_image")
        attempt.write(path, image)
        crash_point("commit.after_image")
    parts: list[Part] = []
    for folder, data in (
        (REJECTED, rejected_part(unit, answered, context)),
        (DATA, data_part(unit, rows, answered, context)),
    ):
        if data is not None:
            path = part_path(folder, unit.id, unit.revision)
            crash_point(f"commit.before_{folder}")
            attempt.write(path, data)
            crash_point(f"commit.after_{folder}")
            count = len(rows) if folder == DATA else answered.num_rows - len(rows)
            parts.insert(0, Part(path, count, len(data), sha256(data)))
    return tuple(parts), len(rows)


def _check_epoch(unit: Unit, context: RunContext, ledger: Ledger) -> Receipt | None:
    """Refuse a unit whose rows were taken back since this run began. One small request, unless an epoch was opened.

    Returns:
        The receipt of another attempt at this commit that a compaction has taken into a pack since; else None.

    What is staged by now is deleted by the redo or prune itself if it comes after this check, so that nothing of the
    unit can be published then either.
    """
    if not context.storage.exists(ledger.uri(epoch_path(context.epoch + 1))):
        return None
    run = ledger.recorded()
    known = {one.key for one in run.files}
    if unit.file.key not in known or run.since(unit.id) != unit.revision.since:
        raise OutputError(
            f"another run took the rows of {unit.file.name} back while this one was making them "
            f"(epoch {run.epoch.number}, {run.epoch.action})",
            remedy="Run the same command again: it reads the manifest as it is now.",
        )
    packed = run.packed.number(unit.id)
    if packed is None or packed < unit.revision.number:
        return None
    return ledger.receipt(unit.id, Revision(unit.revision.since, packed))


def _before(unit: Unit, ledger: Ledger) -> Receipt | None:
    """The commit before this one, which a retry of rejected rows adds to."""
    revision = unit.revision
    return ledger.receipt(unit.id, Revision(revision.since, revision.number - 1)) if revision.number else None


def _commit(unit: Unit, receipt: Receipt, ledger: Ledger) -> tuple[Receipt, bool]:
    """The receipt that counts, and whether it is `receipt`."""
    crash_point("commit.before_receipt")
    uri = ledger.uri(receipt_path(unit.id, unit.revision))
    ours = ledger.storage.put_if_absent(uri, receipt.to_json().encode())
    crash_point("commit.after_receipt")
    return (receipt if ours else ledger.receipt(unit.id, unit.revision)), ours


def _restore(unit: Unit, counts: Receipt, attempt: Attempt, context: RunContext, ledger: Ledger) -> None:
    """Publish equal bytes in place of damaged files: from where the committed attempt staged its own.

    Whatever takes that commit back deletes them there, or is seen by the check; where a retry or a compaction came
    next, recovery publishes what of them still counts.
    """
    attempt.hand_over(counts.attempt)
    packed = _check_epoch(unit, context, ledger)
    following = Revision(unit.revision.since, unit.revision.number + 1)
    if packed is None and not ledger.storage.exists(ledger.uri(receipt_path(unit.id, following))):
        publish(counts.attempt, attempt.paths, ledger.output_uri, ledger.storage)


def _folded(before: Receipt, retry: Receipt) -> Receipt:
    """The receipt of a unit whose rejected rows were retried: the data parts before, and what the retry added.

    Rounding depends on the micro-batch, so each attempt's stays on record: the first one's as it was, a retry's by
    number.
    """
    kept = tuple(part for part in before.parts if part.path.startswith(f"{DATA}/"))
    of_retries = {**before.facts.micro_batch_of_retry}
    if retry.facts.micro_batch:
        of_retries[str(retry.revision.number)] = retry.facts.micro_batch
    return replace(
        retry,
        ok=sum(part.rows for part in kept) + retry.ok,
        parts=(*kept, *retry.parts),
        resized=before.resized or retry.resized,
        facts=replace(retry.facts, micro_batch=before.facts.micro_batch, micro_batch_of_retry=of_retries),
    )


def micro_batch(receipt: Receipt, part: str) -> int | None:
    """Rows that a micro-batch had in the attempt that wrote `part` (a path); None where it is not on record."""
    named = parse_part(part)
    if named is None:
        return None
    number = named.revision.number
    size = receipt.facts.micro_batch_of_retry.get(str(number), 0) if number else receipt.facts.micro_batch
    return size or None


def _rejected_kinds(answered: pa.Table) -> dict[str, int]:
    """Kind → how many rows are rejected for it; after a retry, of what is still rejected."""
    faults = answered.column("fault").combine_chunks()
    kinds = Counter(pc.struct_field(faults, "kind").drop_null().to_pylist())
    return dict(sorted(kinds.items()))
