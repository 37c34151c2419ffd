"""State that must outlive a worker: is the run stopping, which rows was a dead worker working on, how far is the run.

One small Ray actor a run, or a plain object where there is no Ray (`client.py` has the ways to call it). A replica
reports each micro-batch before it begins; when the same unit is started again with a micro-batch still open, that
micro-batch killed the replica. A replica also reports each unit that it takes; when the unit is started again with no
micro-batch open, its holder died of something else, such as unpacking or packing the unit. Tasks report the units that
they begin; a task that begins a unit again has died of it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from unipic.pipeline.supervision.admission import Admission, Permission
from unipic.pipeline.supervision.failures import Failure
from unipic.pipeline.supervision.health import Health, Rows

TASKS = ("prepare", "commit")
LIVE_S = 20.0  # since a replica was last heard of: it says every `ALIVE_EVERY_S` that it is there


def task_key(unit: str, stage: str) -> str:
    """What a task that attempts `unit` carefully calls it, apart from the replica's own attempts."""
    return f"{unit} {stage}"


@dataclass(frozen=True)
class UnitHistory:
    """What a replica must know of a unit that it takes.

    Attributes:
        crashed: the micro-batches of this unit during which replicas died, oldest first, with repeats.
        deaths: how often a replica died that held this unit, with nothing on its device to explain it.
    """

    crashed: list[Rows]
    deaths: int = 0


@dataclass
class Supervisor:
    """The state itself. Single-threaded: Ray runs an actor's calls one after another.

    Attributes:
        clock: seconds, monotonic.
    """

    stop_requested: bool = False
    crashed: dict[str, list[Rows]] = field(default_factory=dict)
    in_flight: dict[str, tuple[Rows, str, float]] = field(default_factory=dict)
    begun: Counter[tuple[str, str]] = field(default_factory=Counter)
    held: dict[str, str] = field(default_factory=dict)
    deaths: Counter[str] = field(default_factory=Counter)
    died_on_device: set[str] = field(default_factory=set)
    settled: dict[str, set[Rows]] = field(default_factory=dict)
    loading: set[str] = field(default_factory=set)
    live: dict[str, float] = field(default_factory=dict)
    rows_answered: int = 0
    crashes: int = 0
    clock: Callable[[], float] = time.monotonic
    admission: Admission = field(init=False)
    progress_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.admission = Admission(clock=self.clock)
        self.progress_at = self.clock()

    def stop(self) -> None:
        """Begin no unit any more."""
        self.stop_requested = True

    def request_load(self, actor: str) -> Permission:
        """What the replica in `actor` may do; see `Admission.request`."""
        permission: Permission = "leave" if self.stop_requested else self.admission.request(actor)
        if permission == "warm up":
            self.progress_at = self.clock()
        if self.admission.failure is not None:
            self.stop_requested = True
        return permission

    def warmup_loaded(self, seconds: float) -> None:
        self.admission.loaded(seconds)
        self.progress_at = self.clock()

    def warmup_passed(self, message: str) -> None:
        self.admission.passed(message)
        self.progress_at = self.clock()

    def warmup_failed(self, failure: Failure) -> None:
        """The job cannot run: begin no unit."""
        self.admission.failed(failure)
        self.stop_requested = True

    def replica_loading(self, replica: str) -> None:
        self.loading.add(replica)

    def replica_loaded(self, replica: str) -> None:
        """Not progress: otherwise a replica that dies and is restarted for ever would look busy."""
        self.loading.discard(replica)
        self.live[replica] = self.clock()

    def replica_alive(self, replica: str) -> None:
        """A loaded replica is there. Those of an earlier wave, or of a node that is gone, say so no more."""
        self.live[replica] = self.clock()

    def begin_task(self, unit: str, stage: str) -> int | None:
        """A task of `stage` ("prepare" or "commit") is about to work on `unit`.

        Returns:
            How often a task died of it there; None if the run is stopping and the unit has not been begun.
        """
        if stage == "prepare" and self.stop_requested:
            return None
        self.begun[unit, stage] += 1
        return self.begun[unit, stage] - 1

    def start_unit(self, unit: str, replica: str) -> UnitHistory | None:
        """`replica` takes `unit`.

        Returns:
            None if the run is stopping, so that the unit is left to the next run.
        """
        if self.stop_requested:
            return None
        holder = self.held.pop(unit, replica)
        open_batch = self.in_flight.pop(unit, None)
        if open_batch is not None:
            rows, died, _ = open_batch
            self.crashed.setdefault(unit, []).append(rows)
            self.died_on_device.add(died)
            self.live.pop(died, None)
            self.crashes += 1
            self.progress_at = self.clock()  # bisection comes to an end
        elif holder != replica:
            self.live.pop(holder, None)
            if not self._died_on_device(holder):
                self.deaths[unit] += 1
        self.held[unit] = replica
        return UnitHistory(list(self.crashed.get(unit, [])), self.deaths[unit])

    def release_unit(self, unit: str) -> None:
        """The replica that holds `unit` is alive and has answered it."""
        self.held.pop(unit, None)

    def _died_on_device(self, replica: str) -> bool:
        return replica in self.died_on_device or any(who == replica for _, who, _ in self.in_flight.values())

    def attempt(self, unit: str, rows: Rows, replica: str, before: Sequence[tuple[str, Rows, int]] = ()) -> None:
        """`replica` is about to put `rows` on its device; `before`: answers that it has not reported yet."""
        self.record_answers(before)
        self.in_flight[unit] = (rows, replica, self.clock())

    def answered(self, unit: str, rows: Rows, count: int) -> None:
        """The micro-batch `rows` ended, with `count` answers."""
        now = self.clock()
        _, _, since = self.in_flight.pop(unit, (rows, "", now))
        settled = self.settled.setdefault(unit, set())
        if rows in settled:  # a dead replica had answered them already: neither progress nor a stall
            self.progress_at = min(now, self.progress_at + now - since)
            return
        settled.add(rows)
        self.rows_answered += count
        self.progress_at = now

    def record_answers(self, answers: Sequence[tuple[str, Rows, int]]) -> None:
        for one in answers:
            self.answered(*one)

    def flush(self) -> None:
        """Nothing to do: called in its own process, the supervisor has every answer already."""

    def unit_committed(self, unit: str) -> None:
        """Forget everything about `unit`."""
        self.unit_returned(unit)
        for key in (unit, *(task_key(unit, stage) for stage in TASKS)):
            self.crashed.pop(key, None)
            self.settled.pop(key, None)

    def unit_returned(self, unit: str) -> None:
        """`unit` reached the driver, so its holders are alive. The crashes of its micro-batches stay on record."""
        for key in (unit, *(task_key(unit, stage) for stage in TASKS)):
            self.in_flight.pop(key, None)
            self.held.pop(key, None)
            self.deaths.pop(key, None)
        for stage in TASKS:
            self.begun.pop((unit, stage), None)
        self.progress_at = self.clock()

    def health(self) -> Health:
        now = self.clock()
        return Health(
            replicas=sum(now - heard_at <= LIVE_S for heard_at in self.live.values()),
            loading=len(self.loading),
            rows_answered=self.rows_answered,
            crashes=self.crashes,
            since_progress_s=now - self.progress_at,
            working={unit: (rows, replica, now - since) for unit, (rows, replica, since) in self.in_flight.items()},
            admission=self.admission.report(),
            held=dict(self.held),
        )
