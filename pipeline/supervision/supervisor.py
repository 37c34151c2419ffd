"""What must outlive a worker: is the run stopping, what was in hand when a worker died, how far are we.

One small Ray actor a run, or a plain object where there is no Ray. Replicas tell it before each micro-batch what they
are about to try; when the same unit is started again with a micro-batch still open, that micro-batch killed a replica.
Whoever takes a unit up tells it too: when the unit is started again with no micro-batch open, its holder died of
something else, while it was unpacked or packed; a task that begins it again has died of it as well.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from unipic.pipeline.supervision.admission import Gate, Word
from unipic.pipeline.supervision.failures import Failure
from unipic.pipeline.supervision.health import Rows, Vitals


@dataclass(frozen=True)
class Start:
    """What a replica must know of a unit that it takes up.

    Attributes:
        crashed: the micro-batches of this unit in whose middle replicas died, oldest first, with repeats.
        lost: how often a replica died that held this unit, with nothing on its device to explain it.
    """

    crashed: list[Rows]
    lost: int = 0


class Door(Protocol):
    """What stages call; `RemoteDoor` and `LocalDoor` are the two ways through it."""

    def may_load(self, actor: str) -> Word: ...
    def trial_loaded(self, seconds: float) -> None: ...
    def trial_passed(self, said: str) -> None: ...
    def trial_failed(self, failure: Failure) -> None: ...
    def loading(self, replica: str) -> None: ...
    def loaded(self, replica: str) -> None: ...
    def begin(self, unit: str, stage: str) -> int | None: ...
    def start(self, unit: str, replica: str, *, alone: bool = False) -> Start | None: ...
    def attempt(self, unit: str, rows: Rows, replica: str) -> None: ...
    def answered(self, unit: str, rows: Rows, count: int) -> None: ...
    def unit_over(self) -> None: ...


@dataclass
class Supervisor:
    """The state itself. Single-threaded: Ray runs an actor's calls one after another."""

    stop_asked: bool = False
    crashed: dict[str, list[Rows]] = field(default_factory=dict)
    in_flight: dict[str, tuple[Rows, str, float]] = field(default_factory=dict)
    begun: Counter[tuple[str, str]] = field(default_factory=Counter)
    held: dict[str, str] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    died_on_device: set[str] = field(default_factory=set)
    settled: dict[str, set[Rows]] = field(default_factory=dict)
    loading_since: dict[str, float] = field(default_factory=dict)
    live: set[str] = field(default_factory=set)
    rows_answered: int = 0
    crashes: int = 0
    moved_at: float = field(default_factory=time.monotonic)
    gate: Gate = field(default_factory=Gate)

    def stop(self) -> None:
        self.stop_asked = True

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
        """No progress: a replica that dies and is started again would be for ever at it."""
        self.loading_since.pop(replica, None)
        self.live.add(replica)

    def begin(self, unit: str, stage: str) -> int | None:
        """A task of `stage` ("prepare" or "finish") would work on `unit`.

        Returns:
            How often a task died of it there; None if the run is stopping and the unit has not been begun.
        """
        if stage == "prepare" and self.stop_asked:
            return None
        self.begun[unit, stage] += 1
        return self.begun[unit, stage] - 1

    def start(self, unit: str, replica: str, *, alone: bool = False) -> Start | None:
        """`replica` would take `unit` up.

        Args:
            alone: it has no other unit in hand. One that was lost before is not taken up otherwise: whoever dies of it
                then takes no other with it, and it is known which one it was.

        Returns:
            None if the run is stopping and the unit must wait for the next one.
        """
        if self.stop_asked:
            return None
        holder = self.held.pop(unit, replica)
        open_batch = self.in_flight.pop(unit, None)
        if open_batch is not None:
            rows, died, _ = open_batch
            self.crashed.setdefault(unit, []).append(rows)
            self.died_on_device.add(died)
            self.live.discard(died)
            self.crashes += 1
            self.moved_at = time.monotonic()  # bisection comes to an end
        elif holder != replica:
            self.live.discard(holder)
            if not self._died_on_device(holder):
                self.lost[unit] += 1
        if alone or not self.lost[unit]:
            self.held[unit] = replica
        return Start(list(self.crashed.get(unit, [])), self.lost[unit])

    def _died_on_device(self, replica: str) -> bool:
        return replica in self.died_on_device or any(who == replica for _, who, _ in self.in_flight.values())

    def attempt(self, unit: str, rows: Rows, replica: str, before: Sequence[tuple[str, Rows, int]] = ()) -> None:
        """`replica` is about to put `rows` on its device; `before`: what it has `answered` and not told yet."""
        for one in before:
            self.answered(*one)
        self.in_flight[unit] = (rows, replica, time.monotonic())

    def answered(self, unit: str, rows: Rows, count: int) -> None:
        now = time.monotonic()
        _, _, since = self.in_flight.pop(unit, (rows, "", now))
        settled = self.settled.setdefault(unit, set())
        if rows in settled:  # for a replica that died: that is no progress, and no stall either
            self.moved_at = min(now, self.moved_at + now - since)
            return
        settled.add(rows)
        self.rows_answered += count
        self.moved_at = now

    def unit_over(self) -> None:
        """Nothing: this door has told all there is."""

    def all_answered(self, told: Sequence[tuple[str, Rows, int]]) -> None:
        for one in told:
            self.answered(*one)

    def forget(self, unit: str) -> None:
        """`unit` is committed: nothing about it is needed any more."""
        self.came_back(unit)
        self.crashed.pop(unit, None)
        self.settled.pop(unit, None)

    def came_back(self, unit: str) -> None:
        """`unit` reached the driver: nobody who held it died. What its micro-batches did stays known."""
        self.in_flight.pop(unit, None)
        self.held.pop(unit, None)
        self.lost.pop(unit, None)
        for stage in ("prepare", "finish"):
            self.begun.pop((unit, stage), None)
        self.moved_at = time.monotonic()

    def vitals(self) -> Vitals:
        now = time.monotonic()
        return Vitals(
            replicas=len(self.live),
            loading=len(self.loading_since),
            rows_answered=self.rows_answered,
            crashes=self.crashes,
            still_s=now - self.moved_at,
            working={unit: (rows, replica, now - since) for unit, (rows, replica, since) in self.in_flight.items()},
            trial=self.gate.report(),
            held=dict(self.held),
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

    def begin(self, unit: str, stage: str) -> int | None:
        lost: int | None = self._ask("begin", unit, stage)
        return lost

    def start(self, unit: str, replica: str, *, alone: bool = False) -> Start | None:
        start: Start | None = self._ask("start", unit, replica, alone=alone)
        return start

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

    def _ask(self, verb: str, *args: object, **named: object) -> Any:
        import ray

        return ray.get(getattr(self.actor, verb).remote(*args, **named))


LocalDoor = Supervisor
"""Where stages and supervisor share a process, the state is its own door."""
