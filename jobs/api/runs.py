"""Running and planning jobs from Python."""

from __future__ import annotations

import threading
from pathlib import Path

from unipic.jobs.api.progress import showing
from unipic.jobs.spec.load import load_job
from unipic.pipeline import plan as planning
from unipic.pipeline import run as running
from unipic.pipeline.audit import prune as pruning
from unipic.pipeline.execution.progress import OnProgress, Result
from unipic.pipeline.job import Job
from unipic.pipeline.plan import Plan
from unipic.pipeline.records import ManifestFile
from unipic.pipeline.storage.remote import PATIENCE_S
from unipic.pipeline.storage.storage import Storage


def run(
    job: Job | str | Path,
    *,
    address: str | None = None,
    retry_rejected: bool = False,
    redo_changed: bool = False,
    progress: bool | OnProgress = True,
    stop: threading.Event | None = None,
    verbose: bool = False,
) -> Result:
    """Run a job, or what is left of it. Units that have a receipt are not done again.

    >>> result = unipic.run("my-job.yaml", progress=False)
    >>> result.outcome, result.ok, result.rejected
    ('done', 4, 0)

    The first Ctrl-C (in a notebook: interrupt the kernel) lets the units in flight finish and returns a result whose
    outcome is "stopped"; the second one raises KeyboardInterrupt. In both cases the same call resumes the job.

    Args:
        job: a job, or the path of a job file.
        address: of a Ray cluster; None starts a private one on this machine for this call.
        retry_rejected: also run the rejected rows once more; those that succeed join the output.
        redo_changed: run the units of manifest files that changed under their name again, instead of refusing.
        progress: True shows a bar on a terminal and plain lines elsewhere, on standard error; False shows nothing;
            a function is called with each `Progress`.
        stop: set it, from another thread, to stop early: no new unit starts, those in flight may finish.
        verbose: show Ray's own messages.

    Raises:
        JobError: the job was refused before anything started; its message lists every fault.
        UniPicError: something that no retry can solve ended the run. What is committed stays.
    """
    stop = stop or threading.Event()
    with showing(progress, stop) as on_progress:
        return running.run(
            _job(job),
            address=address,
            on_progress=on_progress,
            stop=stop,
            verbose=verbose,
            retry_rejected=retry_rejected,
            redo_changed=redo_changed,
        )


def plan(job: Job | str | Path, *, all_ids: bool = False, probe: bool = False) -> Plan:
    """What a job would do. Nothing is run and nothing is left behind.

    >>> planned = unipic.plan("my-job.yaml")
    >>> planned.rows, planned.units, planned.units_done
    (4, 1, 1)

    Args:
        job: a job, or the path of a job file.
        all_ids: count repeated and missing ids in all rows, not just in the first two million.
        probe: also load the model here and run one unit, to measure what the job costs.

    Raises:
        JobError: what `run` would refuse, all faults at once.
    """
    job = _job(job)
    return planning.plan(job, Storage(job.storage, patience_s=PATIENCE_S), all_ids=all_ids, probe=probe)


def prune(job: Job | str | Path, *, remove: bool = False) -> list[ManifestFile]:
    """Manifest files that are gone and still have outputs; with `remove`, those outputs are removed.

    >>> unipic.prune("my-job.yaml")
    []

    Args:
        job: a job, or the path of a job file.
        remove: remove the outputs; without it they are only listed.

    Raises:
        OutputError: the output folder holds no output, or another job's.
        JobError: all manifest files are gone, or another run is at work on this output.
    """
    job = _job(job)
    return pruning.prune(job, Storage(job.storage), remove=remove)


def _job(job: Job | str | Path) -> Job:
    return job if isinstance(job, Job) else load_job(job)
