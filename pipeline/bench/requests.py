"""How many requests a unit's commit sends to an S3 store: the real commit, counted where requests leave."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from unipic.pipeline.bench.outputs import answered, caption_job, claimed, generate_job, manifest_of
from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import JobError
from unipic.pipeline.job import Job
from unipic.pipeline.manifests.manifest import units
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.recovery import recover
from unipic.pipeline.stages.commit import commit
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.paths import join

ROWS_PER_UNIT = 8
WARM_UP = 1  # the first unit of a process also finds out what the store can do


@dataclass(frozen=True)
class RequestBench:
    """Requests of committing `units` units, by kind.

    Attributes:
        kind: what the units are of.
        files: data files of a unit: its part, and the images beside it.
        by_kind: GET, HEAD, PUT, COPY, LIST, DELETE → how many, of all units together.
    """

    kind: str
    units: int
    files: int
    by_kind: dict[str, int]

    @property
    def per_unit(self) -> float:
        return sum(self.by_kind.values()) / self.units

    @property
    def extra(self) -> float:
        """Requests of a unit beyond one put for each file and one for the receipt."""
        return self.per_unit - self.files - 1


def bench_requests(output: str, storage: StorageOptions, *, count: int = 128) -> Iterator[RequestBench]:
    """Commit `count` units of each kind into folders below `output`, which is to be empty and on S3, and delete them.

    Raises:
        JobError: it is not on S3, or not empty.
    """
    if not output.startswith("s3://"):
        raise JobError(f"{output} is not on S3; a local disk gets no requests", remedy="Give an s3:// folder.")
    jobs: dict[str, Job] = {
        "generate, images in the part": generate_job(join(output, "inline"), "inline", storage),
        "generate, images beside it": generate_job(join(output, "files"), "files", storage),
        "caption": caption_job(join(output, "caption"), storage),
    }
    for kind, job in jobs.items():
        job = job.model_copy(update={"compute": job.compute.model_copy(update={"rows_per_unit": ROWS_PER_UNIT})})
        yield _measured(kind, job, count)


def _measured(kind: str, job: Job, count: int) -> RequestBench:
    manifest = manifest_of(job, (count + WARM_UP) * ROWS_PER_UNIT)
    storage = RunContext(job, "", ()).storage
    ledger = Ledger(job.output.uri, storage)
    if next(ledger.list("", recursive=True), None) is not None:
        raise JobError(f"{job.output.uri} is not empty", remedy="Give another folder.")
    try:
        run, context = claimed(job, manifest, storage)
        planned = units(manifest, ROWS_PER_UNIT)
        for unit in islice(planned, WARM_UP):
            commit(unit, answered(unit, job), context)
        before = storage.requests.copy()
        for unit in planned:
            commit(unit, answered(unit, job), context)
        sent = storage.requests - before
        recover(ledger, ledger.snapshot(run))
    finally:
        storage.delete_all(ledger.uri(path) for path in ledger.list("", recursive=True))
    images = ROWS_PER_UNIT if job.output.images == "files" else 0
    return RequestBench(kind, count, 1 + images, dict(sorted(sent.items())))
