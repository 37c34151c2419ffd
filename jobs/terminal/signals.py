"""Ctrl-C and SIGTERM: the first stops a run gently, the second at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unipic.pipeline.execution.progress import OnProgress, Progress

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
TOGETHER_S = 0.5
"""Signals this close are one request: a scheduler signals every process of a job, and a parent forwards its own."""


class Signals:
    """Sets `stop` on the first SIGINT or SIGTERM, and raises KeyboardInterrupt on the second.

    Ray installs its own handlers when it starts, so these are installed again on every progress report. The earlier
    handlers return when the block ends.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(
        self, stop: threading.Event, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.stop = stop
        self.say = say
        self.clock = clock
        self.earlier: dict[int, Any] = {}
        self.stopped_at = float("-inf")

    def __enter__(self) -> Signals:
        self.earlier = {number: signal.getsignal(number) for number in _SIGNALS}
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.earlier.items():
            signal.signal(number, handler)

    def install(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._handle)

    def before(self, show: OnProgress) -> OnProgress:
        """`show`, after the handlers are installed again."""

        def on_progress(progress: Progress) -> None:
            self.install()
            show(progress)

        return on_progress

    def _handle(self, number: int, frame: FrameType | None) -> None:
        now = self.clock()
        if self.stop.is_set():
            if now - self.stopped_at < TOGETHER_S:
                return
            raise KeyboardInterrupt
        self.stopped_at = now
        self.stop.set()
        self.say("stopping: waiting for the units in flight; press Ctrl-C again to exit at once")
