"""Drops the outputs of manifest files that are gone: it lists them first, and never empties an output."""

from __future__ import annotations

from unipic.pipeline.catalog.card import counted, write_card
from unipic.pipeline.errors import JobError
from unipic.pipeline.job import Job
from unipic.pipeline.output.changes import removed
from unipic.pipeline.output.claims import take_back
from unipic.pipeline.output.heartbeat import refuse_beside_runs
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.run_record import Run
from unipic.pipeline.records import ManifestFile
from unipic.pipeline.stages.checkpoint_cache import describe
from unipic.pipeline.stages.engine import with_trained_size
from unipic.pipeline.storage.storage import Storage


def prune(job: Job, storage: Storage, *, remove: bool = False) -> list[ManifestFile]:
    """The recorded manifest files of `job`'s output that its manifest no longer has.

    Args:
        remove: also remove their receipts, parts and images from the output.

    Raises:
        OutputError: no run has begun there, or the output is another job's.
        JobError: all of the files are gone, which means a wrong manifest; or another run is at work there, which would
            do their rows again or fail for lack of them.
    """
    ledger = Ledger(job.output.uri, storage)
    job = with_trained_size(job, storage)
    ledger.check_owner(job, describe(job.model.checkpoint, storage).digest)
    record = ledger.recorded()
    manifest = ledger.discover(job)
    gone = removed(record.files, manifest.files)
    if gone:
        _check_prunable(ledger, record, gone)
    if not gone or not remove:
        return gone
    taken = take_back(ledger, job, gone)
    now = ledger.recorded()
    write_card(ledger, job, now, counted(ledger, now))
    return taken


def _check_prunable(ledger: Ledger, record: Run, gone: list[ManifestFile]) -> None:
    """Raises JobError where nothing would be left, or another run is at work."""
    if len(gone) == len(record.files):
        named = ", ".join(one.name for one in gone[:3]) + (", …" if len(gone) > 3 else "")
        files = f"{len(gone):,} manifest file{'' if len(gone) == 1 else 's'}"
        raise JobError(
            f"the manifest has none of the {files} of {ledger.output_uri} ({named})",
            remedy="Check input.manifest. To remove the whole output, delete its folder.",
        )
    refuse_beside_runs(ledger, "write these rows", action="Prune")
