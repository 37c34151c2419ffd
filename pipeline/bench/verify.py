"""How fast `verify` audits an output of captions, and whether its memory grows with rows."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from dataclasses import dataclass

from unipic.pipeline.bench.outputs import answered, caption_job, claimed, manifest_of
from unipic.pipeline.bench.plan import peak_bytes
from unipic.pipeline.manifests.manifest import units
from unipic.pipeline.stages.commit import commit
from unipic.pipeline.storage.storage import Storage


@dataclass(frozen=True)
class VerifyBench:
    """What `bench_verify` measured.

    Attributes:
        write_s: seconds to write the output, through the same commit as a run's.
        verify_s: seconds to audit it.
        early_rows: rows audited at the first look at memory, a tenth of all.
        early_peak_bytes, peak_bytes: peak resident memory of the auditing process, then and in the end.
    """

    rows: int
    units: int
    write_s: float
    verify_s: float
    early_rows: int
    early_peak_bytes: int
    peak_bytes: int

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.verify_s

    @property
    def growth_bytes(self) -> int:
        return self.peak_bytes - self.early_peak_bytes


def bench_verify(rows: int = 1_000_000) -> VerifyBench:
    """Write an output of `rows` captions into a temporary folder, and audit it in a fresh process."""
    with tempfile.TemporaryDirectory(prefix="unipic-bench-") as folder:
        started = time.perf_counter()
        count = write_captions(folder, rows)
        write_s = time.perf_counter() - started
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            verify_s, early_rows, early_bytes, peak_bytes = pool.apply(_verify, (folder, count))
    return VerifyBench(rows, count, write_s, verify_s, early_rows, early_bytes, peak_bytes)


def write_captions(output: str, rows: int) -> int:
    """Write a valid output of a caption job over a manifest that was never there.

    Returns:
        How many units it has.
    """
    job = caption_job(output)
    manifest = manifest_of(job, rows)
    _, context = claimed(job, manifest, Storage())
    count = 0
    for unit in units(manifest, job.rows_per_unit):
        commit(unit, answered(unit, job), context)
        count += 1
    return count


def _verify(output: str, units_planned: int) -> tuple[float, int, int, int]:
    """(seconds, rows at the first look, peak bytes then, peak bytes in the end) of auditing in this process."""
    from unipic.pipeline.audit.verify import verify

    early = 0

    def look(done: int, planned: int) -> None:
        nonlocal early
        if done == max(1, planned // 10):
            early = peak_bytes()

    started = time.perf_counter()
    report = verify(output, Storage(), on_unit=look)
    seconds = time.perf_counter() - started
    if not report.ok:
        raise RuntimeError(f"the benchmark's own output is not sound: {report.problems[:3]}")
    return seconds, report.rows // 10, early, peak_bytes()
