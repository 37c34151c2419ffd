"""Refuses a manifest whose files, or images that were answered, changed under their names since they were recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from unipic.pipeline.job import Job
from unipic.pipeline.manifests.manifest import Manifest
from unipic.pipeline.output.changes import Changed, altered, refuse, settled
from unipic.pipeline.output.layout import unit_of
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.run_record import Run
from unipic.pipeline.records import UnitId


def check_unchanged(ledger: Ledger, there: Run, manifest: Manifest, job: Job) -> None:
    """Raises ManifestError naming manifest files and answered images that changed since `there` was recorded."""
    files = settled(there.files, there.digests, manifest.files, ledger.storage)
    found = altered(files, there.digests, manifest.files)
    if manifest.replaced:
        found += _answered(ledger, there, manifest, job)
    if found:
        refuse(found)


def _answered(ledger: Ledger, there: Run, manifest: Manifest, job: Job) -> Iterator[Changed]:
    """Those of the replaced images that the output has an answer to.

    The others were not looked at yet, or rejected, and may have been repaired since.
    """
    keys = {one.name: one.key for one in manifest.files}
    done = ledger.snapshot(there)
    for one in manifest.replaced:
        if one.name not in keys:
            continue
        rejected: dict[UnitId, Counter[int]] = {}
        for row, name, undo in zip(one.rows, one.images, one.touch_commands, strict=True):
            unit = unit_of(keys[one.name], row, there.rows_per_unit)
            revision = done.revision(unit)
            if revision is None:
                continue
            if unit not in rejected:
                rejected[unit] = Counter(source for source, _ in ledger.rejected(ledger.receipt(unit, revision)))
            if rejected[unit][row] < job.samples_per_row:
                yield Changed(name, "its modification time differs" if undo else "", undo)
