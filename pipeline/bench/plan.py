"""How long planning a large manifest takes, and how much memory."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_PER_FILE = 250_000
ROWS_PER_GROUP = 50_000
ROWS_PER_UNIT = 64


@dataclass(frozen=True)
class PlanBench:
    """What `bench_plan` measured: `plan_s` covers finding files, footers and going through every unit."""

    rows: int
    files: int
    units: int
    manifest_bytes: int
    plan_s: float
    memory_growth_bytes: int


def bench_plan(rows: int = 10_000_000) -> PlanBench:
    """Write a manifest of about `rows` prompts into a temporary folder and plan it in a fresh process."""
    files = max(1, -(-rows // ROWS_PER_FILE))
    per_file = -(-rows // files)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(files):
            ids = [f"{number:05d}-{row:07d}" for row in range(per_file)]
            prompts = [f"a red circle beside {row} blue squares on a field of grass" for row in range(per_file)]
            table = pa.table({"id": ids, "prompt": prompts})
            pq.write_table(table, Path(folder) / f"{number:05d}.parquet", row_group_size=ROWS_PER_GROUP)
        size_bytes = sum(path.stat().st_size for path in Path(folder).iterdir())
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            units, plan_s, growth_bytes = pool.apply(_plan, (folder,))
    return PlanBench(files * per_file, files, units, size_bytes, plan_s, growth_bytes)


def _plan(folder: str) -> tuple[int, float, int]:
    """(units, seconds, growth of peak memory in bytes) of planning in this process."""
    from unipic.pipeline.job import Input
    from unipic.pipeline.manifests.discovery import discover
    from unipic.pipeline.manifests.manifest import units
    from unipic.pipeline.storage.storage import Storage

    before_bytes = peak_bytes()
    start_s = time.perf_counter()
    manifest = discover(Input(manifest=folder), Storage())
    count = sum(1 for _ in units(manifest, ROWS_PER_UNIT))
    return count, time.perf_counter() - start_s, peak_bytes() - before_bytes


def peak_bytes() -> int:
    """Peak resident memory of this process (Linux); `getrusage` would report the parent's until it is surpassed."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM line")
