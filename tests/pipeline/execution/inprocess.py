"""An executor in this process: the real stages, where a death is an exception that passes every `except Exception`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
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

    def outcomes(self, units: Sequence[Unit], *, units_per_replica: int) -> Iterator[Outcome]:
        fused = self.context.job.compute.layout == "fused"
        for unit in units:
            batch = block(unit.to_json())
            if not fused:
                batch = _until_alive(lambda batch=batch: prepare_stage(batch, self.context, self.supervisor))
            batch = _until_alive(lambda batch=batch: self._on_a_new_replica(batch, units[0], fused=fused))
            if not fused:
                batch = _until_alive(lambda batch=batch: commit_stage(batch, self.context, self.supervisor))
            yield from (Outcome.of(row) for row in batch.to_pylist())

    def _on_a_new_replica(self, batch: Any, first: Unit, *, fused: bool) -> Any:
        stage = FusedStage if fused else ReplicaStage
        self.replicas.append(stage(self.context, self.supervisor, self.make_engine, first, lambda: "actor"))
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


def _until_alive(work: Callable[..., Any]) -> Any:
    while True:
        try:
            return work()
        except Died:
            continue
