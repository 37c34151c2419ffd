"""Who may load a model now: the run's first replica proves itself on a row, the others ask here until it has."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from unipic.pipeline.supervision.failures import Failure

LOAD_DEATHS = 3  # of the first replica while it loads; fewer may be the machine's doing
PATIENCE_S = 900.0  # the first one's node may be lost and not come back: then the others load without its word
LOAD_DEATH = "replicas die while they load the model, without an error that could be caught"

Word = Literal["first", "load", "wait", "leave"]


@dataclass(frozen=True)
class Report:
    """How the trial stands, for whoever watches the run.

    Attributes:
        open: all replicas may load.
        doing: what the first replica is at, in words, while the gate is closed.
        said: what came of the trial, in words.
        failure: why the job cannot run.
        answering_s: seconds that the first replica has been at its first row; None where it is not.
    """

    open: bool = False
    doing: str = ""
    said: str = ""
    failure: Failure | None = None
    answering_s: float | None = None


@dataclass
class Gate:
    """Who may load; one a run, inside its supervisor."""

    first: str = ""
    step: Literal["load", "answer", "over"] = "load"
    deaths: int = 0
    loaded_in_s: float = 0.0
    said: str = ""
    failure: Failure | None = None
    since: float = field(default_factory=time.monotonic)

    def ask(self, actor: str) -> Word:
        """What the replica in `actor` may do now. An actor that asks again has died and was started again."""
        now = time.monotonic()
        if self.failure is not None:
            return "leave"
        if self.step == "over":
            return "load"
        if not self.first:
            self.first, self.since = actor, now
            return "first"
        if actor != self.first:
            return "wait" if now - self.since < PATIENCE_S else "load"
        if self.step == "answer":  # its row's doing, perhaps: bisection will tell when the row's unit comes
            self._end("the first replica died of its first row; going on")
            return "load"
        self.deaths += 1
        if self.deaths == LOAD_DEATHS:
            self.failure = Failure("EngineError", LOAD_DEATH, "preflight")
            return "leave"
        return "first"

    def loaded(self, seconds: float) -> None:
        self.step, self.loaded_in_s, self.since = "answer", seconds, time.monotonic()

    def passed(self, said: str) -> None:
        self._end(f"one replica loaded in {self.loaded_in_s:.1f} s, {said}")

    def failed(self, failure: Failure) -> None:
        self.failure = failure

    def report(self) -> Report:
        doing = ""
        took_s = time.monotonic() - self.since
        if self.first and self.step != "over":
            what = "load its model" if self.step == "load" else "answer its first row"
            doing = f"the first replica has tried to {what} for {took_s:.0f} s"
        answering_s = took_s if self.step == "answer" else None
        return Report(self.step == "over", doing, self.said, self.failure, answering_s)

    def _end(self, said: str) -> None:
        self.step, self.said = "over", said
