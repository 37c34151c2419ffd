"""What must outlive a replica: is the run stopping, which rows were in flight when a replica died, how far are we.

One small Ray actor a run, or a plain object where there is no Ray. Replicas tell it before each micro-batch what they
are about to try; when the same unit is started again with a micro-batch still open, that micro-batch killed a replica.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.failure import Failure
from pipeline.gate import Gate, Report, Word

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
        idle_s: seconds since anything moved.
        working: unit id → (rows, replica, seconds) of the micro-batches now running.
        trial: how the first replica does, whom the others wait for.
    """

    replicas: int
    loading: int
    rows_answered: int
    crashes: int
    idle_s: float
    working: dict[str, tuple[Rows, str, float]]
    trial: Report


class Door(Protocol):
    """What stages call; `RemoteDoor` and `LocalDoor` are the two ways through it."""

    def stopping(self) -> bool: ...
    def may_load(self, actor: str) -> Word: ...
    def trial_loaded(self, seconds: float) -> None: ...
    def trial_passed(self, said: str) -> None: ...
    def trial_failed(self, failure: Failure) -> None: ...
    def loading(self, replica: str) -> None: ...
    def loaded(self, replica: str) -> None: ...
    def start(self, unit: str) -> list[Rows] | None: ...
    def attempt(self, unit: str, rows: Rows, replica: str) -> None: ...
    def answered(self, unit: str, rows: Rows, count: int) -> None: ...
    def unit_over(self) -> None: ...


@dataclass
class Supervisor:
    """The state itself. Single-threaded: Ray runs an actor's calls one after another."""

    stop_asked: bool = False
    crashed: dict[str, list[Rows]] = field(default_factory=dict)
    in_flight: dict[str, tuple[Rows, str, float]] = field(default_factory=dict)
    loading_since: dict[str, float] = field(default_factory=dict)
    live: set[str] = field(default_factory=set)
    rows_answered: int = 0
    crashes: int = 0
    moved_at: float = field(default_factory=time.monotonic)
    gate: Gate = field(default_factory=Gate)

    def stop(self) -> None:
        self.stop_asked = True

    def stopping(self) -> bool:
        return self.stop_asked

    def may_load(self, actor: str) -> Word:
        """What the replica in `actor` may do; see `Gate.ask`."""
        word: Word = "leave" if self.stop_asked else self.gate.ask(actor)
        if word == "first":
            self.moved_at = time.monotonic()
        if self.gate.failure is not None:
            self.stop_asked = True
        return word

    def trial_loaded(self, seconds: float) -> None:
        self.gate.loaded(seconds)
        self.moved_at = time.monotonic()

    def trial_passed(self, said: str) -> None:
        self.gate.passed(said)
        self.moved_at = time.monotonic()

    def trial_failed(self, failure: Failure) -> None:
        """The job cannot run: no unit is to be started any more."""
        self.gate.failed(failure)
        self.stop_asked = True

    def loading(self, replica: str) -> None:
        self.loading_since[replica] = time.monotonic()

    def loaded(self, replica: str) -> None:
        self.loading_since.pop(replica, None)
        self.live.add(replica)
        self.moved_at = time.monotonic()

    def start(self, unit: str) -> list[Rows] | None:
        """A replica would take `unit` up.

        Returns:
            The micro-batches of this unit in whose middle replicas died, oldest first, with repeats; None if the run
            is stopping and the unit must wait for the next one.
        """
        if self.stop_asked:
            return None
        open_batch = self.in_flight.pop(unit, None)
        if open_batch is not None:
            rows, replica, _ = open_batch
            self.crashed.setdefault(unit, []).append(rows)
            self.live.discard(replica)
            self.crashes += 1
        return list(self.crashed.get(unit, []))

    def attempt(self, unit: str, rows: Rows, replica: str, before: Sequence[tuple[str, Rows, int]] = ()) -> None:
        """`replica` is about to put `rows` on its device; `before`: what it has `answered` and not told yet."""
        for one in before:
            self.answered(*one)
        self.in_flight[unit] = (rows, replica, time.monotonic())

    def answered(self, unit: str, rows: Rows, count: int) -> None:
        self.in_flight.pop(unit, None)
        self.rows_answered += count
        self.moved_at = time.monotonic()

    def unit_over(self) -> None:
        """Nothing: this door has told all there is."""

    def all_answered(self, told: Sequence[tuple[str, Rows, int]]) -> None:
        for one in told:
            self.answered(*one)

    def forget(self, unit: str) -> None:
        """`unit` is committed: nothing about it is needed any more."""
        self.in_flight.pop(unit, None)
        self.crashed.pop(unit, None)
        self.moved_at = time.monotonic()

    def vitals(self) -> Vitals:
        now = time.monotonic()
        return Vitals(
            replicas=len(self.live),
            loading=len(self.loading_since),
            rows_answered=self.rows_answered,
            crashes=self.crashes,
            idle_s=now - self.moved_at,
            working={unit: (rows, replica, now - since) for unit, (rows, replica, since) in self.in_flight.items()},
            trial=self.gate.report(),
        )


class RemoteDoor:
    """Calls a supervisor that is a Ray actor and waits for its word: a replica that dies next has been heard.

    One call a micro-batch: what was answered is told with the next attempt, of whichever unit, or when a unit is over.
    """

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.untold: list[tuple[str, Rows, int]] = []
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteDoor, (self.actor,)

    def stopping(self) -> bool:
        return bool(self._ask("stopping"))

    def may_load(self, actor: str) -> Word:
        word: Word = self._ask("may_load", actor)
        return word

    def trial_loaded(self, seconds: float) -> None:
        self._ask("trial_loaded", seconds)

    def trial_passed(self, said: str) -> None:
        self._ask("trial_passed", said)

    def trial_failed(self, failure: Failure) -> None:
        self._ask("trial_failed", failure)

    def loading(self, replica: str) -> None:
        self._ask("loading", replica)

    def loaded(self, replica: str) -> None:
        self._ask("loaded", replica)

    def start(self, unit: str) -> list[Rows] | None:
        crashed: list[Rows] | None = self._ask("start", unit)
        return crashed

    def attempt(self, unit: str, rows: Rows, replica: str) -> None:
        with self.lock:
            before, self.untold = self.untold, []
            self._ask("attempt", unit, rows, replica, before)

    def answered(self, unit: str, rows: Rows, count: int) -> None:
        with self.lock:
            self.untold.append((unit, rows, count))

    def unit_over(self) -> None:
        with self.lock:
            if self.untold:
                self.actor.all_answered.remote(self.untold)  # losing this one costs a count, no row
                self.untold = []

    def _ask(self, verb: str, *args: object) -> Any:
        import ray

        return ray.get(getattr(self.actor, verb).remote(*args))


LocalDoor = Supervisor
"""Where stages and supervisor share a process, the state is its own door."""
