"""Drives units to receipts until all are done or there is a reason to stop."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from unipic.pipeline.errors import EngineError, UniPicError
from unipic.pipeline.execution.blocks import Outcome
from unipic.pipeline.execution.reporter import Reporter
from unipic.pipeline.execution.stop_policy import StopPolicy
from unipic.pipeline.execution.tally import Tally
from unipic.pipeline.execution.work_queue import Wave, WorkQueue
from unipic.pipeline.records import Unit
from unipic.pipeline.supervision.failures import essence
from unipic.pipeline.supervision.health import Health

TICK_S = 0.2
REPORT_EVERY_S = 0.5

log = logging.getLogger("unipic.run")


class Executor(Protocol):
    """Runs units and knows the run's supervisor; `RayExecutor`, or a stand-in in tests."""

    def outcomes(self, units: Sequence[Unit], *, careful: bool) -> Iterator[Outcome]: ...
    def health(self) -> Health: ...
    def check(self, wait_s: float = 0.0) -> None: ...
    def stop(self) -> None: ...
    def unit_committed(self, unit: str) -> None: ...
    def unit_returned(self, unit: str) -> None: ...


@dataclass
class Driver:
    """Iterates outcomes on a thread of its own, so that this one notices signals, deadlines and stalls at once.

    Attributes:
        grace_s: how long units in flight may take once the run is stopping.
        clock: seconds, monotonic.
    """

    executor: Executor
    queue: WorkQueue
    tally: Tally
    policy: StopPolicy
    reporter: Reporter
    grace_s: float
    clock: Callable[[], float] = time.monotonic

    def drive(self) -> None:
        """Work until nothing is left or the policy says stop.

        Raises:
            EngineError: Ray failed; RayLost where it is gone.
        """
        for wave in self.queue.waves():
            if self.policy.check(self.tally, self.reporter.health):
                return
            self._run(wave)

    def _run(self, wave: Wave) -> None:
        log.info("%d units begin%s", len(wave.units), ", carefully" if wave.careful else "")
        arrived: queue.Queue[Outcome | BaseException | None] = queue.Queue()
        threading.Thread(target=_iterate, args=(self.executor, wave, arrived), daemon=True).start()
        give_up_at = float("inf")
        reported_at = float("-inf")
        # Leaving while units are in flight drops them: they have no receipt, so nothing of them is visible.
        while self.clock() < give_up_at:
            try:
                item = arrived.get(timeout=TICK_S)
            except queue.Empty:
                pass
            else:
                if item is None:
                    self._wave_ended()
                    return
                if isinstance(item, BaseException):
                    raise _as_ours(item)
                self._take(item)
            self.executor.check()
            now = self.clock()
            if now - reported_at >= REPORT_EVERY_S:
                reported_at = now
                self._update()
                self.reporter.report()
            if not self.policy.stopping and self.policy.check(self.tally, self.reporter.health):
                log.info("stopping: %s", self.policy.reason)
                self.executor.stop()
                # Before the first replica is warm, no unit is in flight.
                give_up_at = now + (self.grace_s if self.reporter.warmed_up else 0.0)

    def _wave_ended(self) -> None:
        self._update()
        if self.policy.fatal is not None:  # every unit came back untouched before this loop learned why
            self.policy.check(self.tally, self.reporter.health)

    def _update(self) -> None:
        health = self.executor.health()
        self.reporter.update(health)
        if health.admission.failure is not None:
            self.policy.record(health.admission.failure)

    def _take(self, outcome: Outcome) -> None:
        unit = outcome.unit
        if outcome.receipt is not None:
            self.tally.add(outcome.receipt)
            self.executor.unit_committed(unit.id)
            log.debug("unit %s is done", unit.id)
        elif outcome.failure is not None:
            self.executor.unit_returned(unit.id)
            if self.queue.defer(unit, outcome.failure):
                self.reporter.note(f"deferred until the other units are done: {outcome.failure.message}")
            else:
                self.policy.record(outcome.failure)


def _iterate(executor: Executor, wave: Wave, arrived: queue.Queue[Outcome | BaseException | None]) -> None:
    try:
        for outcome in executor.outcomes(wave.units, careful=wave.careful):
            arrived.put(outcome)
        arrived.put(None)
    except BaseException as error:  # handed to the driving thread, which raises it
        arrived.put(error)


def _as_ours(error: BaseException) -> BaseException:
    if isinstance(error, UniPicError) or not isinstance(error, Exception):
        return error
    ours = EngineError(
        f"Ray ended the run: {essence(error)}",
        remedy="Committed units are safe; run the same command again to resume. --verbose shows Ray's own messages.",
    )
    ours.__cause__ = error
    return ours
