"""Runs a part of a job here, without saving it, to estimate what the whole job costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from dataclasses import dataclass, replace

from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import redact
from unipic.pipeline.job import Job
from unipic.pipeline.manifests.manifest import Manifest, units
from unipic.pipeline.records import Unit, UnitId
from unipic.pipeline.stages.engine import MakeEngine
from unipic.pipeline.stages.infer import Replica
from unipic.pipeline.stages.parts import data_part, data_rows
from unipic.pipeline.stages.prepare import prepare
from unipic.pipeline.supervision.client import LocalClient

LONGEST_UNIT_S = 120.0
"""A unit that would take longer, judged by its first row, is not run; the estimate then rests on that row."""

OnStep = Callable[[str], None]
"""Called with what the probe does next."""


@dataclass(frozen=True)
class Probe:
    """The cost of one unit, or of its first row if the unit would take too long.

    Attributes:
        rows: output rows, with rejected ones.
        load_s: seconds to load the replica.
        unit_s: seconds from manifest rows to the encoded part.
        part_bytes: size of the data part.
        total_s: estimate for the rest of the job on `replicas` replicas like this one.
        total_bytes: estimate for the whole output.
    """

    rows: int
    rejected: int
    load_s: float
    unit_s: float
    part_bytes: int
    replicas: int
    total_s: float
    total_bytes: int


@dataclass(frozen=True)
class Work:
    """`digest`: of the checkpoint; `done`: ids of finished units."""

    job: Job
    manifest: Manifest
    digest: str
    rows_per_unit: int
    done: Container[UnitId]

    def units(self) -> tuple[int, int]:
        """(units in all, units done)."""
        planned = [unit.id for unit in units(self.manifest, self.rows_per_unit)]
        return len(planned), sum(unit in self.done for unit in planned)


def probe(work: Work, make_engine: MakeEngine, on_step: OnStep = lambda _: None) -> Probe | None:
    """Loads a replica and runs the first unit that is left; None for a folder of images without a listing yet.

    Raises:
        EngineError: the model cannot be loaded here.
    """
    job, manifest = work.job, work.manifest
    every = list(units(manifest, work.rows_per_unit))
    left = [unit for unit in every if unit.id not in work.done]
    unit = (left or every)[0]
    if not unit.file.uri:
        return None
    context = RunContext(job, work.digest, manifest.columns)
    on_step("loading the model")
    started = time.monotonic()
    replica = Replica(context, LocalClient(), make_engine)
    load_s = time.monotonic() - started
    on_step("running one row")
    measured = _measure(replace(unit, rows=1), replica, context)
    if unit.rows > 1 and measured[2] * unit.rows <= LONGEST_UNIT_S:
        on_step(redact(f"running {unit.rows} rows of {unit.file.name}"))
        measured = _measure(unit, replica, context)
    rows, ok, unit_s, part_bytes = measured
    rows_left = sum(each.rows for each in left) * job.samples_per_row
    replicas = job.compute.replicas.max
    return Probe(
        rows=rows,
        rejected=rows - ok,
        load_s=load_s,
        unit_s=unit_s,
        part_bytes=part_bytes,
        replicas=replicas,
        total_s=rows_left * unit_s / rows / replicas,
        total_bytes=int(part_bytes / rows * manifest.rows * job.samples_per_row),
    )


def _measure(unit: Unit, replica: Replica, context: RunContext) -> tuple[int, int, float, int]:
    """(output rows, those that succeeded, seconds, bytes of the data part)."""
    started = time.monotonic()
    answered = replica.answer(unit, prepare(unit, context))
    rows, _ = data_rows(unit, answered, context)
    part = data_part(unit, rows, answered, context) or b""
    return answered.num_rows, len(rows), time.monotonic() - started, len(part)
