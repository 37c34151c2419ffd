"""What orchestration costs: whole job against bare replica, a unit's overhead, the driver's memory. All in one run."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from unipic.pipeline.context import RunContext
from unipic.pipeline.execution.graph import RayExecutor
from unipic.pipeline.execution.ray_cluster import ray_cluster, supervisor_actor
from unipic.pipeline.execution.work_queue import WAVE_UNITS
from unipic.pipeline.job import Compute, GenerateJob, ImageParams, Input, Model, Output, Replicas
from unipic.pipeline.manifests.discovery import discover
from unipic.pipeline.manifests.manifest import units
from unipic.pipeline.records import Unit
from unipic.pipeline.stages.checkpoint_cache import describe
from unipic.pipeline.stages.engine import MakeEngine, UniPicEngine
from unipic.pipeline.stages.infer import Replica
from unipic.pipeline.stages.prepare import prepare
from unipic.pipeline.storage.storage import Storage
from unipic.pipeline.supervision.client import LocalClient

MEBIBYTE = 1 << 20


class NullEngine:
    """Answers at once with a black picture: what is left is orchestration."""

    def __init__(self, context: RunContext) -> None:
        self.answer_bytes = bytes(context.job.image_size**2 * 3)

    def answer(self, rows: Sequence[dict[str, Any]]) -> list[bytes | str]:
        return [self.answer_bytes for _ in rows]

    def fault_of(self, prompt: str) -> str | None:
        return None

    def max_batch(self) -> int:
        return 64

    def facts(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Efficiency:
    """Rows a second of a whole job at steady state against the bare replica on the same rows."""

    rows: int
    job_rows_per_s: float
    bare_rows_per_s: float

    @property
    def ratio(self) -> float:
        return self.job_rows_per_s / self.bare_rows_per_s


@dataclass(frozen=True)
class Overhead:
    """What a unit costs when the replica does nothing, and the driver's memory on the way.

    Attributes:
        ms_per_unit: at steady state, from the first receipt to the last.
        driver_mb: resident memory of the driver when a tenth of the units had their receipts, and at the end.
    """

    layout: str
    units: int
    ms_per_unit: float
    driver_mb: tuple[float, float]

    @property
    def driver_growth_mb(self) -> float:
        return self.driver_mb[1] - self.driver_mb[0]


def efficiency(checkpoint: str, *, rows: int, rows_per_unit: int, batch_size: int, params: ImageParams) -> Efficiency:
    """Generate `rows` pictures as a job, and on a bare replica before and after it."""
    with _job(rows, rows_per_unit, checkpoint, params, batch_size=batch_size) as (context, todo):
        first = _bare(context, todo)
        seconds = _steady(context, todo, UniPicEngine)
        second = _bare(context, todo)
    warm = sum(unit.rows for unit in todo[1:])
    return Efficiency(rows, warm / seconds, 2 * warm / (first + second))


def overhead(*, count: int, layout: str = "staged") -> Overhead:
    """Drive `count` one-row units through a replica that does nothing, in waves as `run` does."""
    with _job(count, 1, None, ImageParams(image_size=16), layout=layout) as (context, todo):
        times: list[float] = []
        early_mb = 0.0
        with ray_cluster(None, cpus=2, verbose=False) as watch, supervisor_actor() as supervisor:
            executor = RayExecutor(context, supervisor, NullEngine, watch)
            for at in range(0, count, WAVE_UNITS):
                for outcome in executor.outcomes(todo[at : at + WAVE_UNITS]):
                    times.append(_committed(outcome))
                    if len(times) == count // 10:
                        early_mb = _rss_mb()
            driver_mb = (early_mb, _rss_mb())
    return Overhead(layout, count, 1000 * (times[-1] - times[0]) / max(1, count - 1), driver_mb)


def _bare(context: RunContext, todo: Sequence[Unit]) -> float:
    """Seconds the replica alone takes for all units but the first, which warms it up."""
    replica = Replica(context, LocalClient(), UniPicEngine)
    prepared = [prepare(unit, context) for unit in todo]
    replica.answer(todo[0], prepared[0])
    started = time.monotonic()
    for unit, table in zip(todo[1:], prepared[1:], strict=True):
        replica.answer(unit, table)
    return time.monotonic() - started


def _steady(context: RunContext, todo: Sequence[Unit], make_engine: MakeEngine) -> float:
    """Seconds between the first receipt and the last."""
    with ray_cluster(None, cpus=2, verbose=False) as watch, supervisor_actor() as supervisor:
        times = [_committed(outcome) for outcome in RayExecutor(context, supervisor, make_engine, watch).outcomes(todo)]
    return times[-1] - times[0]


def _committed(outcome: Any) -> float:
    if outcome.failure is not None:
        raise RuntimeError(outcome.failure.message)
    return time.monotonic()


class _job:
    """A generate job over a fresh manifest in a temporary folder: (context, its units)."""

    def __init__(
        self,
        rows: int,
        rows_per_unit: int,
        checkpoint: str | None,
        params: ImageParams,
        *,
        batch_size: int = 8,
        layout: str = "staged",
    ) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="unipic-bench-")
        root = Path(self.folder.name)
        (root / "manifest").mkdir()
        table = pa.table({"prompt": [f"a photo of thing number {n}" for n in range(rows)]})
        pq.write_table(table, root / "manifest" / "prompts.parquet")
        self.job = GenerateJob(
            name="bench",
            task="generate",
            input=Input(manifest=str(root / "manifest")),
            model=Model(checkpoint=checkpoint or "none", dtype="float32", device="cpu"),
            params=params,
            output=Output(uri=str(root / "out")),
            compute=Compute(
                replicas=Replicas(min=1, max=1),
                rows_per_unit=rows_per_unit,
                batch_size=batch_size,
                layout="fused" if layout == "fused" else "staged",
            ),
        )

    def __enter__(self) -> tuple[RunContext, list[Unit]]:
        storage = Storage(self.job.storage)
        manifest = discover(self.job.input, storage)
        known = self.job.model.checkpoint != "none"
        digest = describe(self.job.model.checkpoint, storage).digest if known else "none"
        context = RunContext(self.job, digest, manifest.columns)
        return context, list(units(manifest, self.job.rows_per_unit))

    def __exit__(self, *_: object) -> None:
        self.folder.cleanup()


def _rss_mb() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE
