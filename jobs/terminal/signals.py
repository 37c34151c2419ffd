"""Ctrl-C and SIGTERM: what is in flight may finish first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unipic.pipeline.execution.progress import OnProgress, Progress

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Turns the first SIGINT or SIGTERM into a request to stop, and the second into leaving at once.

    Ray sets handlers of its own when it starts, so that they are installed again whenever the run reports; on leaving
    the block the handlers from before are back.
    """

    def __init__(self, stop: threading.Event, say: Callable[[str], None]) -> None:
        self.stop = stop
        self.say = say
        self.earlier: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        self.earlier = {number: signal.getsignal(number) for number in _SIGNALS}
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.earlier.items():
            signal.signal(number, handler)

    def install(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._asked)

    def before(self, show: OnProgress) -> OnProgress:
        """`show`, behind handlers that are in their place."""

        def on_progress(progress: Progress) -> None:
            self.install()
            show(progress)

        return on_progress

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.stop.is_set():
            raise KeyboardInterrupt
        self.stop.set()
        self.say("stopping: units in flight may finish; once more (Ctrl-C) leaves at once")
