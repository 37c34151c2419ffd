"""What can be refused of a job before Ray starts or a model loads, all of it at once: for its plan as for its run."""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import TypeVar

from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import AccessDenied, JobError, OutputError, UniPicError, together
from unipic.pipeline.job import Job
from unipic.pipeline.manifests.columns import bindings, column_faults
from unipic.pipeline.manifests.manifest import Manifest
from unipic.pipeline.manifests.reading import check_readable
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.run_record import Run
from unipic.pipeline.output.unchanged import check_unchanged
from unipic.pipeline.records import UnitId
from unipic.pipeline.stages.checkpoint_cache import CheckpointInfo, describe, verify
from unipic.pipeline.stages.engine import with_trained_size
from unipic.pipeline.storage.errors import credentials_at_fault
from unipic.pipeline.storage.paths import is_remote, local_path
from unipic.pipeline.storage.storage import Storage

T = TypeVar("T")


@dataclass(frozen=True)
class Sound:
    """A job with every default filled in, its checkpoint, manifest and output, and what was recorded there."""

    job: Job
    info: CheckpointInfo
    manifest: Manifest
    ledger: Ledger
    record: Run | None

    @property
    def rows_per_unit(self) -> int:
        """As the first run fixed it, or as the job says."""
        return self.record.rows_per_unit if self.record else self.job.rows_per_unit

    def done(self) -> Container[UnitId]:
        """The units that are done; one listing of the receipts."""
        return self.ledger.snapshot(self.record) if self.record is not None else ()


def examine(job: Job, storage: Storage, *, may_have_changed: bool) -> Sound:
    """Look at everything `job` names, but for the weights' bytes.

    Args:
        may_have_changed: manifest files that changed under their name are refused later, by the claim.

    Raises:
        JobError: manifest, columns, checkpoint or output cannot work as they are; all faults in one.
        StorageUnavailable: the store does not answer now, which says nothing of the job.
    """
    faults: list[UniPicError] = []

    def tried(call: Callable[[], T]) -> T | None:
        try:
            return call()
        except UniPicError as error:
            if error.retryable:
                raise
            if not (credentials_at_fault(error) and any(map(credentials_at_fault, faults))):
                faults.append(error)  # missing credentials are one fault, however many places need them
            return None

    ledger = Ledger(job.output.uri, storage)
    info = tried(lambda: describe(job.model.checkpoint, storage))
    job = (tried(lambda: with_trained_size(job, storage)) if info is not None else None) or job
    manifest = tried(lambda: ledger.discover(job))
    if manifest is not None:
        wrong = column_faults(manifest, job)
        faults += wrong
        if not wrong:
            read = [column for role, column in bindings(job).items() if role != "image"]
            tried(lambda: check_readable(manifest, read, storage) if read else None)
    record = tried(lambda: ledger.check_owner(job, info.digest)) if info is not None else None
    if record is not None and manifest is not None and not may_have_changed:
        tried(lambda: check_unchanged(ledger, record, manifest, job))
    tried(lambda: check_place(job.output.uri, manifest.folder if manifest is not None else "", storage))
    tried(lambda: storage.check_writable(job.output.uri))
    if faults or info is None or manifest is None:
        raise together(faults, JobError)
    return Sound(job, info, manifest, ledger, record)


def check_place(output_uri: str, manifest_folder: str, storage: Storage) -> None:
    """Refuse an output where its files and those of others would mix.

    Raises:
        OutputError: the output is the manifest's own folder, or lies inside another output.
    """
    output = _whole(output_uri)
    if manifest_folder and _whole(manifest_folder) == output:
        raise OutputError(
            f"{output_uri} is the folder that the manifest is in, and an output's folder is its job's alone.",
            remedy="Choose a folder below it, or another one.",
        )
    above = output.rpartition("/")[0]
    while above.count("/") > (2 if is_remote(output) else 0):
        if _is_output(above, storage):
            raise OutputError(
                f"{output_uri} is inside {above}, which is another job's output.",
                remedy="Choose a folder outside of it.",
            )
        above = above.rpartition("/")[0]


def _is_output(folder: str, storage: Storage) -> bool:
    try:
        return Ledger(folder, storage).run() is not None
    except AccessDenied:  # credentials may be for what is below this folder alone
        return False
    except OutputError:  # a damaged one
        return True


def _whole(uri: str) -> str:
    return uri.rstrip("/") if is_remote(uri) else os.path.realpath(local_path(uri))


def preflight(job: Job, storage: Storage) -> tuple[RunContext, Manifest, Ledger]:
    """`examine` for a run, which then claims the output, and the weights' bytes. Raises JobError as that does."""
    sound = examine(job, storage, may_have_changed=True)
    if "://" not in job.model.checkpoint:
        verify(sound.info, storage)  # a remote one is checked as each machine fetches it
    return RunContext(sound.job, sound.info.digest, sound.manifest.columns), sound.manifest, sound.ledger
