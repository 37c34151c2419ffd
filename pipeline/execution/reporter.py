"""Tells the caller of a run how far it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from unipic.pipeline.execution.progress import OnProgress, Progress, Stage
from unipic.pipeline.execution.stop_policy import StopPolicy
from unipic.pipeline.execution.tally import Tally
from unipic.pipeline.supervision.health import Health

REPORT_WAIT_EVERY_S = 1.0

log = logging.getLogger("unipic.run")


class Reporter:
    """Collects what a report needs, and calls `on_progress` with it.

    Args:
        clock: seconds, monotonic.

    Attributes:
        notes: messages that the user should read, oldest first.
        health: as the supervisor last reported it; None before that.
        warmed_up: the warm-up is over, so that all replicas may load.
    """

    def __init__(
        self, on_progress: OnProgress, tally: Tally, policy: StopPolicy, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.on_progress = on_progress
        self.tally = tally
        self.policy = policy
        self.clock = clock
        self.notes: list[str] = []
        self.health: Health | None = None
        self.warmed_up = False
        self.started = self.working_since = self.up_since = clock()
        self.waited_at = float("-inf")

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return self.clock() - self.started

    def note(self, message: str) -> None:
        """A message that the user should read, with the next report and all later ones."""
        log.info(message)
        self.notes.append(message)

    def update(self, health: Health) -> None:
        """Take what the supervisor reports."""
        if self.health is None:
            self.up_since = self.clock()
        self.health = health
        if health.admission.open and not self.warmed_up:
            self.warmed_up = True
            self.note(health.admission.message)
        if not self.warmed_up or not (health.replicas or health.crashes):
            self.working_since = self.clock()  # the pool is still loading

    def report(self, stage: Stage | None = None) -> None:
        """Call `on_progress`. `stage`: by default what the run is doing now."""
        if stage is None:
            stage = "stopping" if self.policy.stopping else "running" if self.warmed_up else "starting"
        activity = ""
        if stage == "starting" and self.health is not None:
            starting = f"Ray is up; starting the first replica, {self.clock() - self.up_since:.0f} s"
            activity = self.health.admission.activity or starting
        self.on_progress(replace(self.progress(stage), activity=activity))

    def waiting(self, activity: str) -> None:
        """The run has not begun because of `activity`; call it as often as you like."""
        now = self.clock()
        if now - self.waited_at >= REPORT_WAIT_EVERY_S:
            self.waited_at = now
            self.on_progress(replace(self.progress("starting"), activity=activity))

    def progress(self, stage: Stage) -> Progress:
        working_s = self.clock() - self.working_since
        notes = tuple(self.notes)
        return self.tally.progress(stage, self.health, working_s=working_s, message=self.policy.reason, notes=notes)
