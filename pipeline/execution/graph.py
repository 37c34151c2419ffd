"""The one place that builds the Ray Data graph: prepare → replica pool → finish, one unit a block all the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from unipic.pipeline.context import RunContext
from unipic.pipeline.execution.blocks import Outcome, block
from unipic.pipeline.execution.ray_stages import FusedStage, ReplicaStage, commit_stage, prepare_stage
from unipic.pipeline.execution.ray_watch import RayWatch
from unipic.pipeline.records import Unit
from unipic.pipeline.stages.engine import MakeEngine
from unipic.pipeline.supervision.client import NOTICE_S, RemoteClient, ask_health
from unipic.pipeline.supervision.health import Health

# Unequal shares keep Ray from fusing neighbouring stages into one task (which would move decoding into the replica).
PREPARE_CPUS = 0.5
COMMIT_CPUS = 0.4
UNITS_PER_REPLICA = 3  # one unpacked, one on the device, one packed


class RayExecutor:
    """Runs units on the connected Ray cluster.

    Args:
        supervisor: handle of the run's `Supervisor` actor.
        watch: notices that Ray is gone.
    """

    def __init__(self, context: RunContext, supervisor: Any, make_engine: MakeEngine, watch: RayWatch) -> None:
        self.context = context
        self.supervisor = supervisor
        self.make_engine = make_engine
        self.watch = watch

    def outcomes(self, units: Sequence[Unit], *, careful: bool = False) -> Iterator[Outcome]:
        """Run `units` through a fresh graph; lazy, in order of completion.

        The iteration also ends, without an error, when Ray Data's executor is shut down: compare with the receipts.

        Args:
            careful: see `Wave`.
        """
        import ray

        compute = self.context.job.compute
        stage = {"batch_size": 1, "batch_format": "pyarrow", "zero_copy_batch": True}
        known = {"context": self.context, "supervisor": RemoteClient(self.supervisor), "careful": careful}
        replica = {
            **stage,
            "compute": self._pool(len(units), 1 if careful else UNITS_PER_REPLICA),
            "num_cpus": compute.cpus_per_replica,
            "num_gpus": compute.gpus or None,
            "fn_constructor_kwargs": {**known, "make_engine": self.make_engine, "first": units[0]},
        }
        source = pa.concat_tables([block(unit.to_json()) for unit in units])
        dataset = ray.data.from_arrow(source).repartition(target_num_rows_per_block=1)
        if compute.layout == "fused":
            dataset = dataset.map_batches(FusedStage, **replica)
        else:
            dataset = (
                dataset.map_batches(prepare_stage, fn_kwargs=known, num_cpus=PREPARE_CPUS, **stage)
                .map_batches(ReplicaStage, **replica)
                .map_batches(commit_stage, fn_kwargs=known, num_cpus=COMMIT_CPUS, **stage)
            )
        try:
            for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for row in batch.to_pylist():
                    yield Outcome.of(row)
        except Exception:
            self.check(NOTICE_S)
            raise

    def _pool(self, units: int, units_per_replica: int) -> Any:
        from ray.data import ActorPoolStrategy

        replicas = self.context.job.compute.replicas
        return ActorPoolStrategy(
            min_size=min(replicas.min, units),
            max_size=min(replicas.max, units),
            max_concurrent_calls_per_actor=units_per_replica,
            enable_true_multi_threading=True,
        )

    def health(self) -> Health:
        return ask_health(self.supervisor, self.check)

    def check(self, wait_s: float = 0.0) -> None:
        """Raises RayLost where Ray is gone; that may take `wait_s` to notice."""
        self.watch.check(wait_s=wait_s)

    def stop(self) -> None:
        self.supervisor.stop.remote()

    def unit_committed(self, unit: str) -> None:
        self.supervisor.unit_committed.remote(unit)

    def unit_returned(self, unit: str) -> None:
        self.supervisor.unit_returned.remote(unit)
