"""Which replica may load its model: the run's first one answers a warm-up row before any other loads."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from unipic.pipeline.supervision.failures import Failure

LOAD_DEATHS = 3  # of the first replica while it loads; fewer may be the machine's doing
PATIENCE_S = 900.0  # the first replica's node may be lost for good: after this the others load without its result
LOAD_DEATH = "replicas die while they load the model, without an error that could be caught"

Permission = Literal["warm up", "load", "wait", "leave"]
"""`warm up`: load and answer the warm-up row. `load`: load. `wait`: ask again. `leave`: the run is ending."""


@dataclass(frozen=True)
class AdmissionReport:
    """State of the warm-up.

    Attributes:
        open: all replicas may load.
        activity: what the first replica is doing, in words, while the others wait for it.
        message: how the warm-up ended, in words.
        failure: why the job cannot run.
        answering_s: seconds that the first replica has been working on its first row; None at any other time.
    """

    open: bool = False
    activity: str = ""
    message: str = ""
    failure: Failure | None = None
    answering_s: float | None = None


@dataclass
class Admission:
    """Decides who may load; one a run, inside its supervisor.

    Attributes:
        first: the Ray actor that warms up.
        step: what that actor is doing.
        deaths: how often it died while it loaded.
        clock: seconds, monotonic.
    """

    first: str = ""
    step: Literal["load", "answer", "over"] = "load"
    deaths: int = 0
    loaded_in_s: float = 0.0
    message: str = ""
    failure: Failure | None = None
    clock: Callable[[], float] = time.monotonic
    since: float = field(init=False)

    def __post_init__(self) -> None:
        self.since = self.clock()

    def request(self, actor: str) -> Permission:
        """What the replica in `actor` may do now. An actor that asks again has died and was restarted."""
        now = self.clock()
        if self.failure is not None:
            return "leave"
        if self.step == "over":
            return "load"
        if not self.first:
            self.first, self.since = actor, now
            return "warm up"
        if actor != self.first:
            return "wait" if now - self.since < PATIENCE_S else "load"
        if self.step == "answer":  # perhaps the row's fault: bisection finds out when the row's unit comes
            self._end("the first replica died of its first row; going on")
            return "load"
        self.deaths += 1
        if self.deaths == LOAD_DEATHS:
            self.failure = Failure("EngineError", LOAD_DEATH, "preflight")
            return "leave"
        return "warm up"

    def loaded(self, seconds: float) -> None:
        self.step, self.loaded_in_s, self.since = "answer", seconds, self.clock()

    def passed(self, message: str) -> None:
        self._end(f"one replica loaded in {self.loaded_in_s:.1f} s, {message}")

    def failed(self, failure: Failure) -> None:
        self.failure = failure

    def report(self) -> AdmissionReport:
        activity = ""
        took_s = self.clock() - self.since
        if self.first and self.step != "over":
            what = "loading its model" if self.step == "load" else "answering its first row"
            activity = f"the first replica has been {what} for {took_s:.0f} s"
        answering_s = took_s if self.step == "answer" else None
        return AdmissionReport(self.step == "over", activity, self.message, self.failure, answering_s)

    def _end(self, message: str) -> None:
        self.step, self.message = "over", message
