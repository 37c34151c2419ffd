"""What is submitted: the job as it stands here, this package, and an id that the same job always has."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unipic.pipeline.errors import JobError
from unipic.pipeline.job import Job
from unipic.pipeline.output.run_record import Identity
from unipic.pipeline.places import BUILTIN_CHECKPOINT
from unipic.pipeline.preflight import examine
from unipic.pipeline.storage.paths import is_remote, local_path
from unipic.pipeline.storage.storage import Storage

PREFIX = "unipic-"
JOB_FILE = "job.json"
STOP_SPARE_S = 60  # beyond `limits.grace_s`: committing, publishing and leaving Ray


@dataclass(frozen=True)
class Submission:
    """A job that was checked here.

    Attributes:
        id: the same for all submissions of this job to this output.
        job: with whole paths.
        rows, units_left: of its plan.
    """

    id: str
    job: Job
    rows: int

    def write(self, folder: Path) -> None:
        """Put the job file where the entrypoint finds it."""
        (folder / JOB_FILE).write_text(json.dumps(self.job.model_dump(mode="json"), indent=1), encoding="utf-8")

    def entrypoint(self, options: tuple[str, ...] = ()) -> str:
        words = ["python", "-m", "unipic.jobs.cli", "run", JOB_FILE, "--address", "auto", *options]
        return shlex.join(words)

    def variables(self) -> dict[str, str]:
        """For the driver's and the workers' environment. Credentials are the cluster's own, and never sent."""
        return {"RAY_JOB_STOP_WAIT_TIME_S": str(int(self.job.limits.grace_s) + STOP_SPARE_S)}

    def metadata(self) -> dict[str, str]:
        return {"name": self.job.name, "output": self.job.output.uri}


def check(job: Job) -> Submission:
    """Refuse here what the cluster would refuse later.

    Raises:
        JobError: the job cannot run, or has paths that mean nothing elsewhere.
    """
    job = with_whole_paths(job)
    sound = examine(job, Storage(job.storage), may_have_changed=True)
    fingerprint = Identity.of(sound.job, sound.info.digest).fingerprint
    name = hashlib.sha256(f"{job.output.uri.rstrip('/')}\n{fingerprint}".encode()).hexdigest()[:16]
    return Submission(f"{PREFIX}{name}", job, sound.manifest.rows)


def with_whole_paths(job: Job) -> Job:
    """`job` with local paths that mean the same from any folder.

    Raises:
        JobError: input.image_root is relative: it is part of what an output records, and cannot be changed.
    """
    root = job.input.image_root
    if root is not None and _whole(root) != root:
        raise JobError(f"input.image_root is relative: {root}", remedy="Give a whole path, or an s3:// address.")
    changes: dict[str, Any] = {
        "input": job.input.model_copy(update={"manifest": _whole(job.input.manifest)}),
        "model": job.model.model_copy(update={"checkpoint": _whole(job.model.checkpoint)}),
        "output": job.output.model_copy(update={"uri": _whole(job.output.uri)}),
    }
    return job.model_copy(update=changes)


def _whole(uri: str) -> str:
    if uri == BUILTIN_CHECKPOINT or "://" in uri or is_remote(uri):
        return uri
    return os.path.abspath(local_path(uri))
