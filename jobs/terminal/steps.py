"""Shows which step of a long command is running, and for how long."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.status import Status

from unipic.jobs.terminal.formatting import duration
from unipic.jobs.terminal.progress import QuietPipe

PLAIN_EVERY_S = 10.0


class Steps:
    """A spinner on a terminal; elsewhere a line per step, and one more every ten seconds. Use it in a `with` block."""

    def __init__(self, console: Console | None = None, every_s: float = PLAIN_EVERY_S) -> None:
        self.console = console or QuietPipe(stderr=True, highlight=False)
        self.every_s = every_s
        self.step = ""
        self.since = time.monotonic()
        self.ended = threading.Event()
        self.live: Status | None = None

    def __call__(self, step: str) -> None:
        self.step, self.since = step, time.monotonic()
        if self.live is not None:
            self.live.update(step)
        else:
            self._print(step)

    def __enter__(self) -> Steps:
        if self.console.is_terminal:
            self.live = self.console.status("")
            self.live.start()
        else:
            threading.Thread(target=self._repeat, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        if self.live is not None:
            self.live.stop()

    def _repeat(self) -> None:
        while not self.ended.wait(self.every_s):
            self._print(f"{self.step}, {duration(time.monotonic() - self.since)}")

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)
