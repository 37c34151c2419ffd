"""The one place that builds the Ray Data graph: prepare → replica pool → finish, one unit a block all the way.

A stage never raises: a raise would abort the whole run, and Ray's own retries know nothing of rows. What went wrong
travels in the row and reaches the driver as an `Outcome`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import EngineError
from unipic.pipeline.execution.exclusive import SideBySide
from unipic.pipeline.execution.quiet import quiet_native_stderr
from unipic.pipeline.execution.ray_address import REMEDY, somebody_listens
from unipic.pipeline.execution.warmup import admitted
from unipic.pipeline.records import Receipt, Unit
from unipic.pipeline.stages.commit import finish
from unipic.pipeline.stages.engine import MakeEngine
from unipic.pipeline.stages.prepare import prepare
from unipic.pipeline.supervision.failures import Failure, essence, not_deadly
from unipic.pipeline.supervision.supervisor import Door, RemoteDoor, Start, Supervisor

# Unequal shares keep Ray from fusing neighbouring stages into one task (which would move decoding into the replica).
PREPARE_CPUS = 0.5
FINISH_CPUS = 0.4
UNITS_PER_REPLICA_AT_ONCE = 3  # one unpacked, one on the device, one packed

TRAVELLING = pa.schema([("unit", pa.string()), ("payload", pa.large_binary()), ("error", pa.string())])
"""One row a block. `payload`: an Arrow IPC stream, opened without copying; null when there is nothing to work on."""


@dataclass(frozen=True)
class Outcome:
    """What came of one unit: a receipt, a failure, or neither (the run was stopping before it began)."""

    unit: Unit
    receipt: Receipt | None
    failure: Failure | None


def pack(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def unpack(payload: pa.LargeBinaryScalar) -> pa.Table:
    return pa.ipc.open_stream(payload.as_buffer()).read_all()


def _travel(unit: str, payload: pa.Buffer | None, error: str | None = None) -> pa.Table:
    if payload is None:
        column = pa.nulls(1, pa.large_binary())
    else:  # around the bytes as they are: a unit of pictures is too large to copy for nothing
        offsets = pa.py_buffer(np.array([0, payload.size], np.int64))
        column = pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, offsets, payload])
    return pa.table([[unit], column, pa.array([error], pa.string())], schema=TRAVELLING)


def _stage(name: str, batch: pa.Table, work: Callable[[Unit, Any], pa.Buffer | None]) -> pa.Table:
    """Run `work` on the one unit in `batch`; whatever it raises goes on as data, and later stages pass it by."""
    unit, payload, error = (batch.column(column)[0] for column in TRAVELLING.names)
    if error.as_py() is not None or (name != "prepare" and not payload.is_valid):
        return _travel(unit.as_py(), None, error.as_py())
    try:
        return _travel(unit.as_py(), work(Unit.from_json(unit.as_py()), payload))
    except Exception as caught:
        return _travel(unit.as_py(), None, json.dumps(asdict(Failure.of(caught, name))))


def prepare_stage(batch: pa.Table, context: RunContext, door: Door) -> pa.Table:
    def work(unit: Unit, _: object) -> pa.Buffer | None:
        lost = door.begin(unit.id, "prepare")
        if lost is None:
            return None
        not_deadly(unit, lost, "read and decoded")
        return pack(prepare(unit, context))

    return _stage("prepare", batch, work)


class _WithReplica:
    """One replica of the pool."""

    def __init__(self, context: RunContext, door: Door, make_engine: MakeEngine, first: Unit) -> None:
        import ray

        self.context = context
        self.door = door
        actor = ray.get_runtime_context().get_actor_id()
        self.replica = admitted(context, door, make_engine, unit=first, actor=actor)
        self.units = SideBySide()

    @contextlib.contextmanager
    def _taken_up(self, unit: Unit) -> Iterator[Start | None]:
        """What is known of `unit`, which nobody else has in hand; None where the run is stopping."""
        if self.replica is None:
            yield None
            return
        with self.units.enter():
            start = self.door.start(unit.id, self.replica.name)
            if start is None or not start.lost:
                yield start
                return
        not_deadly(unit, start.lost, "held")
        with self.units.enter(alone=True):
            yield self.door.start(unit.id, self.replica.name, alone=True)


class ReplicaStage(_WithReplica):
    def __call__(self, batch: pa.Table) -> pa.Table:
        def work(unit: Unit, payload: pa.LargeBinaryScalar) -> pa.Buffer | None:
            with self._taken_up(unit) as start:
                if start is None or self.replica is None:
                    return None
                return pack(self.replica.answer(unit, unpack(payload), start.crashed))

        return _stage("replica", batch, work)


def finish_stage(batch: pa.Table, context: RunContext, door: Door) -> pa.Table:
    def work(unit: Unit, payload: pa.LargeBinaryScalar) -> pa.Buffer:
        not_deadly(unit, door.begin(unit.id, "finish") or 0, "encoded and wrote")
        return _receipt(unit, unpack(payload), context)

    return _stage("finish", batch, work)


def _receipt(unit: Unit, answered: pa.Table, context: RunContext) -> pa.Buffer:
    return pa.py_buffer(finish(unit, answered, context).to_json().encode())


class FusedStage(_WithReplica):
    """All three stages in the replica's own process: no copies, but CPU work stays on the replica's node."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        def work(unit: Unit, _: object) -> pa.Buffer | None:
            with self._taken_up(unit) as start:
                if start is None or self.replica is None:
                    return None
                answered = self.replica.answer(unit, prepare(unit, self.context), start.crashed)
                return _receipt(unit, answered, self.context)

        return _stage("prepare", batch, work)


def outcomes(units: Sequence[Unit], context: RunContext, supervisor: Any, make_engine: MakeEngine) -> Iterator[Outcome]:
    """Run `units` through a fresh graph; lazy, in order of completion.

    The iteration also ends, without a word, when the executor is shut down: whoever iterates compares with the ledger.

    Args:
        supervisor: handle of the run's `Supervisor` actor.
    """
    import ray
    from ray.data import ActorPoolStrategy

    door = RemoteDoor(supervisor)
    compute = context.job.compute
    pool = ActorPoolStrategy(
        min_size=min(compute.replicas.min, len(units)),
        max_size=min(compute.replicas.max, len(units)),
        max_concurrent_calls_per_actor=UNITS_PER_REPLICA_AT_ONCE,
        enable_true_multi_threading=True,
    )
    stage = {"batch_size": 1, "batch_format": "pyarrow", "zero_copy_batch": True}
    replica = {
        **stage,
        "compute": pool,
        "num_cpus": compute.cpus_per_replica,
        "num_gpus": compute.gpus or None,
        "fn_constructor_kwargs": {"context": context, "door": door, "make_engine": make_engine, "first": units[0]},
    }
    source = pa.concat_tables([_travel(unit.to_json(), None) for unit in units])
    dataset = ray.data.from_arrow(source).repartition(target_num_rows_per_block=1)
    if compute.layout == "fused":
        dataset = dataset.map_batches(FusedStage, **replica)
    else:
        dataset = (
            dataset.map_batches(
                prepare_stage, fn_kwargs={"context": context, "door": door}, num_cpus=PREPARE_CPUS, **stage
            )
            .map_batches(ReplicaStage, **replica)
            .map_batches(finish_stage, fn_kwargs={"context": context, "door": door}, num_cpus=FINISH_CPUS, **stage)
        )
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        for row in batch.to_pylist():
            yield _outcome(row)


def _outcome(row: dict[str, Any]) -> Outcome:
    return Outcome(
        unit=Unit.from_json(row["unit"]),
        receipt=Receipt.from_json(row["payload"]) if row["payload"] else None,
        failure=Failure(**json.loads(row["error"])) if row["error"] else None,
    )


@contextlib.contextmanager
def cluster(address: str | None, *, cpus: float, verbose: bool) -> Iterator[Any]:
    """Connect to Ray (a private local one where `address` is None), quietly, and end with it.

    Yields:
        A handle of a new `Supervisor` actor.

    Raises:
        EngineError: there is no Ray at `address`, or none could be started.
    """
    if address is not None:
        somebody_listens(address)
    with contextlib.nullcontext() if verbose else quiet_native_stderr():
        yield from _connected(address, cpus=cpus, verbose=verbose)


def _connected(address: str | None, *, cpus: float, verbose: bool) -> Iterator[Any]:
    # A thread of Ray Data's that outlives its cluster would otherwise start a new one.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    if not verbose:  # read when Ray is imported: every line that it would print here for a worker or a raylet
        os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    already = ray.is_initialized()
    if not already:
        _start(address, cpus=cpus, verbose=verbose)
    _configure(verbose)
    # Beside the driver: losing any other node must not lose what the run knows of its crashes.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    supervisor = ray.remote(num_cpus=0, max_concurrency=1, scheduling_strategy=here)(Supervisor).remote()
    try:
        yield supervisor
    finally:
        ray.kill(supervisor) if already else ray.shutdown()


def _start(address: str | None, *, cpus: float, verbose: bool) -> None:
    import ray

    local: dict[str, Any] = {"include_dashboard": False, "num_cpus": max(os.cpu_count() or 1, int(cpus + 1))}
    try:
        ray.init(
            address=address or "local",
            log_to_driver=verbose,
            logging_level=logging.INFO if verbose else logging.ERROR,
            **(local if address is None else {}),
        )
    except Exception as error:  # it raises whatever comes: ConnectionError, RuntimeError, TimeoutError
        if address is None:
            raise EngineError(f"Ray could not be started here: {essence(error)}") from error
        raise EngineError(f"Ray at {address} could not be used: {essence(error)}", remedy=REMEDY) from error


def _configure(verbose: bool) -> None:
    """Blocks stay whole units, and Ray keeps its own counsel."""
    import ray

    context = ray.data.DataContext.get_current()
    context.target_max_block_size = None
    context.memory_usage_poll_interval_s = None
    context.enable_progress_bars = verbose
    context.print_on_execution_start = verbose
    if not verbose:
        for name in ("ray", "ray.data"):  # what concerns the user reaches the driver and is told in our words
            logging.getLogger(name).setLevel(logging.CRITICAL)
