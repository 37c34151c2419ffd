"""Processes that a test moves on request by request: each runs in a thread that waits before every request it sends.

At most one of them runs at a time, so what happens is decided by the test alone, and happens again for the same order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.chaos.faults import Died

GO = "go on"


class Actor:
    """One process.

    Args:
        body: what it does; it calls `pause` before each of its requests.

    Attributes:
        at: the request that it waits to send.
        waits: it has nothing to send until another process has done its work.
        error: what ended it, if not its own end.
    """

    def __init__(self, name: str, body: Callable[[Actor], None]) -> None:
        self.name = name
        self.at = "start"
        self.waits = False
        self.error: BaseException | None = None
        self._order = GO
        self._killed = False
        self._turn, self._returned = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(body,), name=name, daemon=True)
        self._thread.start()
        self.alive = True

    def __repr__(self) -> str:
        return f"<{self.name} at {self.at}{'' if self.alive else ', ended'}>"

    def _run(self, body: Callable[[Actor], None]) -> None:
        self._turn.acquire()
        try:
            if not self._killed:
                body(self)
        except BaseException as error:  # read by who moves it
            self.error = error
        self.alive = False
        self._returned.release()

    def advance(self, order: str = GO) -> bool:
        """Let it send the request that it waits to send, and run up to the next; False where it has ended.

        Args:
            order: what is to become of the request.
        """
        if self.alive:
            self._order = order
            self._turn.release()
            self._returned.acquire()
        return self.alive

    def pause(self, what: str, *, waits: bool = False) -> str:
        """Called by the process itself before a request; returns what is to become of it."""
        if self._killed:  # the dead clean nothing up
            raise Died
        if self._thread is not threading.current_thread():
            raise AssertionError(f"{self.name} sends {what} from a second thread: nothing decides when")
        self.at, self.waits = what, waits
        self._returned.release()
        self._turn.acquire()
        self.waits = False
        if self._killed:
            raise Died
        return self._order

    def kill(self) -> None:
        """End it before the request that it waits to send."""
        self._killed = True
        self.advance()
        self._thread.join()
