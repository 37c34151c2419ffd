"""When a run begins no more units: it was asked to stop, a limit is reached, or work cannot go on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from unipic.pipeline.execution.deadline import deadline
from unipic.pipeline.execution.tally import Tally
from unipic.pipeline.job import Job
from unipic.pipeline.supervision.admission import LOAD_DEATH, LOAD_DEATHS
from unipic.pipeline.supervision.failures import Failure
from unipic.pipeline.supervision.health import Health


class StopPolicy:
    """Watches the reasons to stop. The first one counts: once there is one, it stays.

    Args:
        rows_total: output rows of the whole manifest, which a share of rejected rows refers to.
        stop_requested: whether the user asked to stop.
        resumes: earlier runs have committed units.
        now: the time, in this machine's time zone unless it names another.

    Attributes:
        reason: why the run is stopping, in words; "" while it is not.
        fatal: a failure that ends the run with an error.
        rejected_allowed: rows that may be rejected.
    """

    def __init__(
        self,
        job: Job,
        rows_total: int,
        *,
        stop_requested: Callable[[], bool],
        resumes: bool = False,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.limits = job.limits
        self.replicas_max = job.compute.replicas.max
        self.rows_total = rows_total
        self.rejected_allowed = job.limits.rejected_allowed(rows_total)
        self.stop_requested = stop_requested
        self.now = now
        self.deadline = deadline(job.limits, now(), resumes=resumes)
        self.reason = ""
        self.fatal: Failure | None = None
        self.storage_failure: Failure | None = None

    @property
    def stopping(self) -> bool:
        return bool(self.reason)

    def record(self, failure: Failure) -> None:
        """A failure that no further attempt follows. The first of its kind counts."""
        if failure.storage:
            self.storage_failure = self.storage_failure or failure
        else:
            self.fatal = self.fatal or failure

    def check(self, tally: Tally, health: Health | None) -> bool:
        """Whether there is a reason to begin nothing more.

        Args:
            health: None before the supervisor was asked.
        """
        self.reason = self.reason or self._reason(tally, health)
        return self.stopping

    def too_many(self, rejected: int) -> str:
        """Why a run with so many rejected rows stops."""
        rows = f"{rejected:,} row{'' if rejected == 1 else 's'}"
        return f"{rows} rejected, limits.max_rejected allows {self.rejected_allowed:,} of {self.rows_total:,}"

    def _reason(self, tally: Tally, health: Health | None) -> str:
        if self.stop_requested():
            return "asked to stop"
        if (failure := self.fatal or self.storage_failure) is not None:
            return failure.message
        if tally.rejected > self.rejected_allowed:
            return self.too_many(tally.rejected)
        if self.deadline is not None and self.now().astimezone() >= self.deadline.at:
            return f"the deadline {self.deadline.words} was reached"
        if health is not None:
            stalled_s = health.stalled_s(self.limits.batch_timeout_s)
            if stalled_s > self.limits.stall_s:
                return f"no progress for {stalled_s:.0f} s: {health.activity()}"
            if health.loading >= self.replicas_max + LOAD_DEATHS:
                self.record(Failure("EngineError", LOAD_DEATH, "replica"))
                return LOAD_DEATH
        return ""
