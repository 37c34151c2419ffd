"""Drives units to receipts until all are done or something says stop. Iterates, counts, and never waits unwatched."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Literal

from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import EngineError, UniPicError
from unipic.pipeline.execution.graph import Outcome, outcomes
from unipic.pipeline.execution.progress import OnProgress, Progress, Result, Stage
from unipic.pipeline.job import Job
from unipic.pipeline.manifests.manifest import Manifest, units
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.reconciliation import account
from unipic.pipeline.records import Receipt, Unit
from unipic.pipeline.stages.engine import MakeEngine
from unipic.pipeline.supervision.admission import LOAD_DEATH, LOAD_DEATHS
from unipic.pipeline.supervision.failures import Failure, essence
from unipic.pipeline.supervision.health import Vitals, ask_vitals

WAVE_UNITS = 2_000  # Ray Data keeps about 6 KB a block of one execution in the driver; a wave reloads the model
UNIT_TRIES = 3  # of a unit whose failure may pass; each try is a wave later
TICK_S = 0.2
PROGRESS_EVERY_S = 0.5


@dataclass
class Driver:
    """Iterates outcomes on a thread of its own, so that this one sees signals, deadlines and stalls at once."""

    context: RunContext
    manifest: Manifest
    ledger: Ledger
    rows_per_unit: int
    on_progress: OnProgress
    stop: threading.Event
    ok: int = 0
    rejected: int = 0
    earlier: int = 0
    units_total: int = 0
    units_done: int = 0
    tries: dict[str, int] = field(default_factory=dict)
    again: list[Unit] = field(default_factory=list)
    retries: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    fatal: Failure | None = None
    blocked: str = ""
    why: str = ""
    vitals: Vitals | None = None
    tried: bool = False

    def __post_init__(self) -> None:
        self.job = self.context.job
        self.started = time.monotonic()
        self.working_since = self.started
        self.rows_total = self.manifest.rows * self.job.samples_per_row
        self.allowed = self.job.limits.rejected_allowed(self.rows_total)
        self.deadline = _deadline(self.job)
        self.done = self.ledger.done()
        planned = 0
        known = []
        for unit in units(self.manifest, self.rows_per_unit):
            planned += 1
            if unit.id in self.done:
                known.append(unit.id)
        self.units_total, self.units_done = planned, len(known)
        for receipt in self.ledger.receipts(known):
            self.ok += receipt.ok
            self.rejected += receipt.rejected
        self.earlier = self.ok + self.rejected

    def take_back(self, retries: Sequence[tuple[Receipt, Unit]]) -> None:
        """Count units with rejected rows as not done, and try those rows once more."""
        for receipt, unit in retries:
            self.units_done -= 1
            self.ok -= receipt.ok
            self.rejected -= receipt.rejected
            self.again.append(unit)
            self.retries[unit.id] = unit.retry
        self.earlier = self.ok + self.rejected

    def note(self, message: str) -> None:
        """Something the user should read, now and in the result."""
        self.notes.append(message)

    @property
    def units_left(self) -> int:
        return self.units_total - self.units_done

    def waves(self) -> Iterator[list[Unit]]:
        """What is left, in the manifest's order, then what failed in passing and may be tried again."""
        begun = self.ledger.begun
        planned = units(self.manifest, self.rows_per_unit)
        left = (replace(unit, again=unit.id in begun) for unit in planned if unit.id not in self.done)
        while wave := list(islice(left, WAVE_UNITS)):
            yield wave
        while self.again:
            wave, self.again = self.again, []
            yield wave

    def drive(self, supervisor: Any, make_engine: MakeEngine) -> None:
        for wave in self.waves():
            if self.asked_to_stop():
                return
            self._wave(wave, supervisor, make_engine)

    @property
    def stopping(self) -> bool:
        return bool(self.why)

    def asked_to_stop(self) -> bool:
        """Whether there is a reason to begin nothing more; from then on the run is stopping."""
        self.why = self.why or self._reason_to_stop()
        return self.stopping

    def _wave(self, wave: Sequence[Unit], supervisor: Any, make_engine: MakeEngine) -> None:
        arrived: queue.Queue[Outcome | BaseException | None] = queue.Queue()
        arguments = (wave, self.context, supervisor, make_engine, arrived)
        threading.Thread(target=_iterate, args=arguments, daemon=True).start()
        give_up_at = float("inf")
        shown_at = 0.0
        # Leaving while units are in flight drops them: they have no receipt, so nothing of them is visible.
        while time.monotonic() < give_up_at:
            try:
                item = arrived.get(timeout=TICK_S)
            except queue.Empty:
                pass
            else:
                if item is None:
                    self._look(supervisor)
                    if self.fatal is not None:  # every unit came back untouched before the loop saw why
                        self.why = self.why or self.fatal.message
                    return
                if isinstance(item, BaseException):
                    raise _as_ours(item)
                self._take(item, supervisor)
            now = time.monotonic()
            if now - shown_at >= PROGRESS_EVERY_S:
                shown_at = now
                self._look(supervisor)
                self.on_progress(
                    self.progress("stopping" if self.stopping else "running" if self.tried else "starting")
                )
            if not self.stopping and self.asked_to_stop():
                supervisor.stop.remote()
                # Before the first replica has proved itself, no unit is in flight.
                give_up_at = now + (self.job.limits.grace_s if self.tried else 0.0)

    def _look(self, supervisor: Any) -> None:
        """Ask the supervisor how the run is."""
        self.vitals = ask_vitals(supervisor)
        trial = self.vitals.trial
        self.fatal = self.fatal or trial.failure
        if trial.open and not self.tried:
            self.tried = True
            self.note(trial.said)
        if not self.tried or not (self.vitals.replicas or self.vitals.crashes):
            self.working_since = time.monotonic()  # the pool is still loading

    def _take(self, outcome: Outcome, supervisor: Any) -> None:
        unit = outcome.unit
        if outcome.receipt is not None:
            self._count(outcome.receipt)
            supervisor.forget.remote(unit.id)
        elif outcome.failure is not None:
            supervisor.came_back.remote(unit.id)
            tries = self.tries[unit.id] = self.tries.get(unit.id, 0) + 1
            if outcome.failure.retryable and tries < UNIT_TRIES:
                self.again.append(replace(unit, again=True))
                self.note(f"put off until all else is done: {outcome.failure.message}")
            elif outcome.failure.storage:
                self.blocked = self.blocked or outcome.failure.message
            else:
                self.fatal = self.fatal or outcome.failure

    def _count(self, receipt: Receipt) -> None:
        self.units_done += 1
        self.ok += receipt.ok
        self.rejected += receipt.rejected

    def _reason_to_stop(self) -> str:
        if self.stop.is_set():
            return "asked to stop"
        if self.fatal is not None or self.blocked:
            return self.fatal.message if self.fatal is not None else self.blocked
        if self.rejected > self.allowed:
            return f"{self.rejected} rows rejected, limits.max_rejected allows {self.allowed} of {self.rows_total}"
        if self.deadline is not None and datetime.now() >= self.deadline:
            return f"the deadline {self.deadline:%H:%M} was reached"
        if self.vitals is not None and self._idle_s() > self.job.limits.stall_s:
            return f"no progress for {self._idle_s():.0f} s: {self.vitals.who_waits()}"
        if self.vitals is not None and self.vitals.loading >= self.job.compute.replicas.max + LOAD_DEATHS:
            self.fatal = Failure("EngineError", LOAD_DEATH, "replica")
            return LOAD_DEATH
        return ""

    def _idle_s(self) -> float:
        return self.vitals.idle_s(self.job.limits.batch_timeout_s) if self.vitals is not None else 0.0

    def progress(self, stage: Stage) -> Progress:
        new = self.ok + self.rejected - self.earlier
        left = self.rows_total - self.ok - self.rejected
        answered = self.vitals.rows_answered if self.vitals else 0
        on_the_way = min(max(0, answered - new), left)
        seconds = time.monotonic() - self.working_since
        rate = (new + on_the_way) / seconds if new + on_the_way else 0.0
        return Progress(
            stage=stage,
            rows_total=self.rows_total,
            rows_ok=self.ok,
            rows_rejected=self.rejected,
            rows_earlier=self.earlier,
            rows_on_the_way=on_the_way,
            units_total=self.units_total,
            units_done=self.units_done,
            replicas=self.vitals.replicas if self.vitals else 0,
            rows_per_s=rate,
            eta_s=(left - on_the_way) / rate if rate else None,
            message=self.why,
            notes=tuple(self.notes),
        )

    def result(self) -> Result:
        """Hold what the run believes against what storage shows.

        Raises:
            EngineError: a failure that ended the run, or rows that nobody can account for.
        """
        if self.fatal is not None:
            failure = self.fatal
            remedy = "What is committed stays; the same command resumes."
            if failure.stage == "preflight":
                remedy = "No unit was tried in this run."
            error = EngineError(f"{failure.stage}: {failure.message}", remedy=remedy)
            error.add_note(failure.details)
            raise error
        found = account(self.manifest, self.rows_per_unit, self.ledger, retries=self.retries)
        missing = self.rows_total - found.ok - found.rejected
        complete = found.complete and missing == 0
        if not complete and not self.stopping:
            lost = f", {missing} rows are not accounted for" if missing else ""
            raise EngineError(
                f"the work ended with no word of why, and is not done: {found.lack() or 'receipts count wrong'}{lost}",
                remedy="What is committed stays; run the same command again.",
            )
        over = found.rejected_by_now > self.allowed
        outcome: Literal["done", "rejected", "stopped"] = "rejected" if over else "done" if complete else "stopped"
        return Result(
            outcome=outcome,
            rows=self.rows_total,
            ok=found.ok,
            rejected=found.rejected,
            earlier=self.earlier + found.rows_behind,
            seconds=time.monotonic() - self.started,
            message=self.why or (f"{found.rejected} rows rejected, {self.allowed} allowed" if over else ""),
            output=self.job.output.uri,
        )


def _iterate(
    wave: Sequence[Unit], context: RunContext, supervisor: Any, make_engine: MakeEngine, arrived: queue.Queue[Any]
) -> None:
    try:
        for outcome in outcomes(wave, context, supervisor, make_engine):
            arrived.put(outcome)
        arrived.put(None)
    except BaseException as error:  # handed to the driving thread, which raises it
        arrived.put(error)


def _as_ours(error: BaseException) -> BaseException:
    if isinstance(error, UniPicError) or not isinstance(error, Exception):
        return error
    ours = EngineError(
        f"Ray ended the run: {essence(error)}",
        remedy="What is committed stays; the same command resumes, and with --verbose shows Ray's own messages.",
    )
    ours.__cause__ = error
    return ours


def _deadline(job: Job) -> datetime | None:
    """The earlier of `limits.until` (next time the clock shows it) and `limits.max_hours` from now."""
    now = datetime.now()
    ends = []
    if job.limits.max_hours is not None:
        ends.append(now + timedelta(hours=job.limits.max_hours))
    if job.limits.until is not None:
        hour, minute = map(int, job.limits.until.split(":"))
        at = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
        ends.append(at if at > now else at + timedelta(days=1))
    return min(ends, default=None)
