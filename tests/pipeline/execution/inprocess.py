"""An executor in this process: the real stages, where a death is an exception that passes every `except Exception`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from unipic.pipeline.context import RunContext
from unipic.pipeline.execution.blocks import Outcome, block
from unipic.pipeline.execution.ray_stages import FusedStage, ReplicaStage, commit_stage, prepare_stage
from unipic.pipeline.records import Unit
from unipic.pipeline.stages.engine import MakeEngine
from unipic.pipeline.supervision.health import Health
from unipic.pipeline.supervision.supervisor import Supervisor


class Died(BaseException):
    """The process is gone."""


@dataclass
class InProcess:
    """One unit at a time; whatever dies is started anew with the same unit, for ever, as Ray does."""

    context: RunContext
    make_engine: MakeEngine
    supervisor: Supervisor = field(default_factory=Supervisor)
    replicas: list[Any] = field(default_factory=list)  # all are kept, so that no two have one name

    def outcomes(self, units: Sequence[Unit], *, careful: bool) -> Iterator[Outcome]:
        prepared, committed = (
            partial(stage, context=self.context, supervisor=self.supervisor, careful=careful)
            for stage in (prepare_stage, commit_stage)
        )
        stages: list[Callable[[Any], Any]] = [prepared, partial(self._answered, units[0], careful), committed]
        if self.context.job.compute.layout == "fused":
            stages = [partial(self._fused, units[0], careful)]
        for unit in units:
            batch = block(unit.to_json())
            for stage in stages:
                batch = _until_alive(stage, batch)
            yield from (Outcome.of(row) for row in batch.to_pylist())

    def _answered(self, first: Unit, careful: bool, batch: Any) -> Any:
        self.replicas.append(
            ReplicaStage(self.context, self.supervisor, self.make_engine, first, careful, lambda: "actor")
        )
        return self.replicas[-1](batch)

    def _fused(self, first: Unit, careful: bool, batch: Any) -> Any:
        self.replicas.append(
            FusedStage(self.context, self.supervisor, self.make_engine, first, careful, lambda: "actor")
        )
        return self.replicas[-1](batch)

    def health(self) -> Health:
        return self.supervisor.health()

    def check(self, wait_s: float = 0.0) -> None:
        pass

    def stop(self) -> None:
        self.supervisor.stop()

    def unit_committed(self, unit: str) -> None:
        self.supervisor.unit_committed(unit)

    def unit_returned(self, unit: str) -> None:
        self.supervisor.unit_returned(unit)


def _until_alive(stage: Callable[[Any], Any], batch: Any) -> Any:
    while True:
        try:
            return stage(batch)
        except Died:
            continue
