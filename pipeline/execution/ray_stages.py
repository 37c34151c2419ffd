"""What Ray's workers run: the three stages of a unit, each reporting to the run's supervisor."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from unipic.pipeline.context import RunContext
from unipic.pipeline.execution.blocks import pack, through_stage, unpack
from unipic.pipeline.execution.careful import CAREFUL_DEATHS, checked_carefully, prepare_carefully
from unipic.pipeline.execution.warmup import admit
from unipic.pipeline.records import Unit
from unipic.pipeline.stages.commit import commit
from unipic.pipeline.stages.engine import MakeEngine
from unipic.pipeline.stages.infer import Replica
from unipic.pipeline.stages.prepare import prepare
from unipic.pipeline.supervision.client import SupervisorClient
from unipic.pipeline.supervision.failures import DEATHS_PER_ATTEMPT, check_deaths
from unipic.pipeline.supervision.supervisor import UnitHistory


def prepare_stage(
    batch: pa.Table, context: RunContext, supervisor: SupervisorClient, *, careful: bool = False
) -> pa.Table:
    """`careful`: the unit has killed workers, so that the rows at fault are looked for."""

    def work(unit: Unit, _: object) -> pa.Buffer | None:
        deaths = supervisor.begin_task(unit.id, "prepare")
        if deaths is None:
            return None
        context.enter_folder()
        check_deaths(unit, deaths, "read and decoded", most=CAREFUL_DEATHS if careful else DEATHS_PER_ATTEMPT)
        prepared = prepare_carefully(unit, context, supervisor) if careful else prepare(unit, context)
        return None if prepared is None else pack(prepared)

    return through_stage("prepare", batch, work)


def commit_stage(
    batch: pa.Table, context: RunContext, supervisor: SupervisorClient, *, careful: bool = False
) -> pa.Table:
    """`careful`: as for `prepare_stage`."""

    def work(unit: Unit, payload: pa.LargeBinaryScalar) -> pa.Buffer | None:
        deaths = supervisor.begin_task(unit.id, "commit") or 0
        context.enter_folder()
        check_deaths(unit, deaths, "encoded and wrote", most=CAREFUL_DEATHS if careful else DEATHS_PER_ATTEMPT)
        answered = unpack(payload)
        checked = checked_carefully(unit, answered, context, supervisor) if careful else answered
        return None if checked is None else _receipt(unit, checked, context)

    return through_stage("commit", batch, work)


def ray_actor_id() -> str:
    """Tells the actor that runs this from all others, and stays the same when Ray restarts it."""
    import ray

    actor_id: str = ray.get_runtime_context().get_actor_id()
    return actor_id


class ReplicaStage:
    """One replica of the pool. Its model loads in the constructor, once the supervisor allows it.

    Args:
        first: the unit whose first row is the warm-up row.
        actor_id: see `ray_actor_id`.
    """

    def __init__(
        self,
        context: RunContext,
        supervisor: SupervisorClient,
        make_engine: MakeEngine,
        first: Unit,
        careful: bool = False,
        actor_id: Callable[[], str] = ray_actor_id,
    ) -> None:
        self.careful = careful
        self.context = context
        self.supervisor = supervisor
        self.replica = admit(context, supervisor, make_engine, unit=first, actor=actor_id())

    def __call__(self, batch: pa.Table) -> pa.Table:
        def work(unit: Unit, payload: pa.LargeBinaryScalar) -> pa.Buffer | None:
            taken = self._take(unit)
            if taken is None:
                return None
            replica, history = taken
            return pack(replica.answer(unit, unpack(payload), history.crashed))

        return through_stage("replica", batch, work)

    def _take(self, unit: Unit) -> tuple[Replica, UnitHistory] | None:
        """The replica, and what is known of `unit`; None where the run is stopping."""
        if self.replica is None:
            return None
        history = self.supervisor.start_unit(unit.id, self.replica.name)
        if history is None:
            return None
        check_deaths(unit, history.deaths, "held")
        return self.replica, history


class FusedStage(ReplicaStage):
    """All three stages in the replica's own process: no copies, but CPU work stays on the replica's node."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        def work(unit: Unit, _: object) -> pa.Buffer | None:
            if self.careful:
                return self._carefully(unit)
            taken = self._take(unit)
            if taken is None:
                return None
            replica, history = taken
            answered = replica.answer(unit, prepare(unit, self.context), history.crashed)
            return _receipt(unit, answered, self.context)

        return through_stage("prepare", batch, work)

    def _carefully(self, unit: Unit) -> pa.Buffer | None:
        deaths = self.supervisor.begin_task(unit.id, "prepare")
        if deaths is None:
            return None
        check_deaths(unit, deaths, "worked on", most=CAREFUL_DEATHS)
        prepared = prepare_carefully(unit, self.context, self.supervisor)
        taken = self._take(unit)
        if prepared is None or taken is None:
            return None
        replica, history = taken
        answered = replica.answer(unit, prepared, history.crashed)
        self.supervisor.release_unit(unit.id)
        checked = checked_carefully(unit, answered, self.context, self.supervisor)
        return None if checked is None else _receipt(unit, checked, self.context)


def _receipt(unit: Unit, answered: pa.Table, context: RunContext) -> pa.Buffer:
    return pa.py_buffer(commit(unit, answered, context).to_json().encode())
