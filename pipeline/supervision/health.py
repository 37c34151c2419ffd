"""How a run is, as its supervisor sees it, and what the driver makes of it: does it move, and who holds it up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from unipic.pipeline.errors import EngineError
from unipic.pipeline.supervision.admission import Report

SUPERVISOR_TIMEOUT_S = 60.0  # it answers in milliseconds; a machine that swaps may need longer

Rows = tuple[int, int]
"""Half-open range [first, last) of positions among a unit's well rows."""


@dataclass(frozen=True)
class Vitals:
    """How the run is, as its supervisor sees it.

    Attributes:
        replicas: replicas that are loaded.
        loading: replicas that began to load and have not said more; those that died doing so stay counted.
        rows_answered: rows that replicas have answered, committed or not.
        crashes: micro-batches that killed a replica.
        still_s: seconds since anything moved.
        working: unit id → (rows, replica, seconds) of the micro-batches now running.
        trial: how the first replica does, whom the others wait for.
        held: unit id → the replica that took it up and has not brought it to its end.
    """

    replicas: int
    loading: int
    rows_answered: int
    crashes: int
    still_s: float
    working: dict[str, tuple[Rows, str, float]]
    trial: Report
    held: dict[str, str] = field(default_factory=dict)

    def idle_s(self, batch_timeout_s: float) -> float:
        """Seconds in which nothing moved. A micro-batch within its own time limit is no stall, however slow it is."""
        on_device_s = [took_s for _, _, took_s in self.working.values()]
        if self.trial.answering_s is not None:
            on_device_s.append(self.trial.answering_s)
        return min([self.still_s, *(max(0.0, took_s - batch_timeout_s) for took_s in on_device_s)])

    def who_waits(self) -> str:
        """Who waits for what, in words."""
        working = "; ".join(
            f"{replica} has rows {rows[0]} to {rows[1] - 1} of unit {unit} for {seconds:.0f} s"
            for unit, (rows, replica, seconds) in self.working.items()
        )
        held = "; ".join(f"{replica} has unit {unit}, with no row on the device" for unit, replica in self.held.items())
        nobody = "no replica has a unit" if self.replicas else f"no replica is up, {self.loading} are loading"
        return working or self.trial.doing or held or nobody


def ask_vitals(supervisor: Any) -> Vitals:
    """Raises EngineError where the supervisor is gone or silent: without it nobody would see a stall."""
    import ray

    try:
        vitals: Vitals = ray.get(supervisor.vitals.remote(), timeout=SUPERVISOR_TIMEOUT_S)
    except ray.exceptions.RayError as error:
        remedy = "What is committed stays; the same command resumes."
        raise EngineError("the run's supervisor, on the driver's own node, does not answer", remedy=remedy) from error
    return vitals
