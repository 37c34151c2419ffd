"""State of a run as its supervisor sees it: is there progress, and which replica is doing what."""

from __future__ import annotations

from dataclasses import dataclass, field

from unipic.pipeline.supervision.admission import AdmissionReport

Rows = tuple[int, int]
"""Half-open range [first, last) of positions among a unit's valid rows."""


@dataclass(frozen=True)
class Health:
    """A snapshot of the supervisor's state.

    Attributes:
        replicas: replicas that are loaded.
        loading: replicas that began to load and have not reported since; those that died meanwhile stay counted.
        rows_answered: rows that replicas have answered, committed or not.
        crashes: micro-batches that killed a replica.
        since_progress_s: seconds since the last progress.
        working: unit id → (rows, replica, seconds) of the micro-batches now on a device.
        admission: state of the warm-up.
        held: unit id → the replica that took it and has not finished it.
    """

    replicas: int = 0
    loading: int = 0
    rows_answered: int = 0
    crashes: int = 0
    since_progress_s: float = 0.0
    working: dict[str, tuple[Rows, str, float]] = field(default_factory=dict)
    admission: AdmissionReport = field(default_factory=AdmissionReport)
    held: dict[str, str] = field(default_factory=dict)

    def stalled_s(self, batch_timeout_s: float) -> float:
        """Seconds without progress. A micro-batch within its own time limit is no stall, however slow it is."""
        on_device_s = [took_s for _, _, took_s in self.working.values()]
        if self.admission.answering_s is not None:
            on_device_s.append(self.admission.answering_s)
        return min([self.since_progress_s, *(max(0.0, took_s - batch_timeout_s) for took_s in on_device_s)])

    def activity(self) -> str:
        """What replicas are doing, in words."""
        working = "; ".join(
            f"{replica} has been working on rows {rows[0]} to {rows[1] - 1} of unit {unit} for {seconds:.0f} s"
            for unit, (rows, replica, seconds) in self.working.items()
        )
        held = "; ".join(f"{replica} has unit {unit}, with no row on the device" for unit, replica in self.held.items())
        idle = "no replica has a unit" if self.replicas else f"no replica is up, {self.loading} are loading"
        return working or self.admission.activity or held or idle
