"""Asking and repairing outputs from Python: each function takes the output's folder, local or `s3://`."""

from __future__ import annotations

import os
import threading

from unipic.jobs.api.progress import showing
from unipic.pipeline.audit import repair as repairing
from unipic.pipeline.audit import replay as replaying
from unipic.pipeline.audit import status as asking
from unipic.pipeline.audit import trace as tracing
from unipic.pipeline.audit import verify as verifying
from unipic.pipeline.audit.repair import Repaired
from unipic.pipeline.audit.replay import Replayed
from unipic.pipeline.audit.report import Report
from unipic.pipeline.audit.status import Status
from unipic.pipeline.audit.trace import Step
from unipic.pipeline.execution.progress import OnProgress
from unipic.pipeline.output import compaction as compacting
from unipic.pipeline.output import seal as sealing
from unipic.pipeline.output.compaction import PART_MB, Compacted
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.seal import Seal
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.remote import PATIENCE_S
from unipic.pipeline.storage.storage import Storage

Folder = str | os.PathLike[str]


def status(output: Folder, *, storage: StorageOptions | None = None) -> Status:
    """How far a job is, read from its output alone; the run may be at work on another machine.

    >>> now = unipic.status("out/pictures")
    >>> now.finished, now.ok, now.rejected, now.rejected_kinds
    (True, 4, 0, {})

    Args:
        output: the job's output folder.
        storage: how to reach S3; default: as the environment says.

    Raises:
        OutputError: no run has begun there.
    """
    return asking.status(os.fspath(output), Storage(storage or StorageOptions(), patience_s=PATIENCE_S))


def verify(output: Folder, *, replay: int = 0, digest: str = "", storage: StorageOptions | None = None) -> Report:
    """Audit a whole output: every unit, part, row, image and lineage against its receipt.

    >>> report = unipic.verify("out/pictures")
    >>> report.ok, report.counts
    (True, {})

    Args:
        output: the job's output folder.
        replay: also make so many randomly chosen rows again and compare; this loads the model.
        digest: that `seal` returned: also check that nothing changed since.
        storage: how to reach S3; default: as the environment says.

    Raises:
        OutputError: no run has begun there.
    """
    uri, reached = os.fspath(output), _reached(storage)
    report = verifying.verify(uri, reached, digest=digest)
    for problem in replaying.replay_sample(uri, replay, reached, damaged=report.damaged_units):
        report.add(problem)
    return report


def seal(output: Folder, *, storage: StorageOptions | None = None) -> Seal:
    """Seal a finished output: the digest pins down every row, for someone who keeps it elsewhere.

    >>> digest = unipic.seal("out/pictures").digest
    >>> unipic.verify("out/pictures", digest=digest).seal
    'intact'

    Args:
        output: the job's output folder.
        storage: how to reach S3; default: as the environment says.

    Raises:
        OutputError: no run has begun there, it is not finished, or a record is damaged.
        JobError: a run is active there.
    """
    return sealing.seal(Ledger(os.fspath(output), _reached(storage)))


def compact(output: Folder, *, part_mb: int = PART_MB, storage: StorageOptions | None = None) -> Compacted:
    """Merge the small data files of an output into few large ones; rows and lineage stay as they are.

    >>> unipic.compact("out/pictures").files_after
    1

    Args:
        output: the job's output folder.
        part_mb: size of a merged file, about, in MiB (1 to 1024).
        storage: how to reach S3; default: as the environment says.

    Raises:
        OutputError: no run has begun there, a part is damaged, or another process changed the output meanwhile.
        JobError: a run is active there.
    """
    return compacting.compact(Ledger(os.fspath(output), _reached(storage)), part_mb=part_mb)


def repair(
    output: Folder,
    *,
    progress: bool | OnProgress = True,
    stop: threading.Event | None = None,
    storage: StorageOptions | None = None,
) -> Repaired:
    """Audit an output and run its damaged units again. Units that cannot be made again stay as they are.

    >>> unipic.repair("out/pictures", progress=False).units
    0

    Args:
        output: the job's output folder.
        progress, stop: as for `run`.
        storage: how to reach S3; default: as the environment says.

    Raises:
        OutputError: no run has begun there.
        JobError: another run is at work there.
        UniPicError: something that no retry can solve ended the run of the damaged units.
    """
    uri, reached = os.fspath(output), _reached(storage)
    report = verifying.verify(uri, reached)
    stop = stop or threading.Event()
    with showing(progress, stop) as on_progress:
        return repairing.repair(uri, reached, report, on_progress=on_progress, stop=stop)


def trace(output: Folder, row: str, *, storage: StorageOptions | None = None) -> list[Step]:
    """Where a row comes from: one step for each job back to the first manifest, newest first.

    >>> [step.lineage["prompt_sent"] for step in unipic.trace("out/pictures", "a-2")]
    ['a blue square']

    Args:
        output: the job's output folder.
        row: a lineage id (8 digits or more), the manifest's id, or "FILE:ROW"; "#SAMPLE" may follow.
        storage: how to reach S3; default: as the environment says.

    Raises:
        JobError: no row has this name, or several have.
    """
    return tracing.trace(os.fspath(output), row, _reached(storage))


def replay(
    output: Folder, row: str, *, against: bytes | None = None, storage: StorageOptions | None = None
) -> Replayed:
    """Make a row again and compare it with the stored one; this loads the model.

    >>> unipic.replay("out/pictures", "a-2").identical
    True

    Args:
        output: the job's output folder.
        row: as for `trace`.
        against: compare with this file's bytes instead of what the output holds.
        storage: how to reach S3; default: as the environment says.

    Raises:
        JobError: the row, its manifest or its checkpoint is not what it was.
        EngineError: the model cannot be loaded on this machine.
    """
    return replaying.replay(os.fspath(output), row, _reached(storage), against=against)


def _reached(options: StorageOptions | None) -> Storage:
    return Storage(options or StorageOptions())
