"""An event loop in a thread of its own: callers in any thread wait for what runs there, and can stop waiting."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import TimeoutError as WaitTimeout
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from unipic.pipeline.storage.waiting import Waiting

CLOSING_S = 2.0
T = TypeVar("T")


class EventLoop:
    """Runs coroutines for other threads until it is collected or the process ends.

    Attributes:
        resources: what is closed then, in the loop's own thread.
    """

    def __init__(self) -> None:
        loop, self.resources = asyncio.new_event_loop(), AsyncExitStack()
        thread = threading.Thread(target=loop.run_forever, name="unipic-storage", daemon=True)
        thread.start()
        self._loop = loop
        weakref.finalize(self, _close, loop, thread, self.resources, os.getpid())

    def run(self, make: Callable[[], Coroutine[Any, Any, T]], waiting: Waiting) -> T:
        """The coroutine's result. Whoever interrupts the wait (Ctrl-C) cancels the coroutine, too."""
        future = asyncio.run_coroutine_threadsafe(make(), self._loop)
        try:
            while True:
                try:
                    return future.result(waiting.until_notice_s())
                except WaitTimeout:
                    if future.done():  # the coroutine's own TimeoutError
                        raise
                    waiting.notice()
        finally:
            future.cancel()


def _close(loop: asyncio.AbstractEventLoop, thread: threading.Thread, resources: AsyncExitStack, pid: int) -> None:
    if pid != os.getpid():  # a forked child has no such thread, and the connections are its parent's
        return

    async def close() -> None:
        try:
            await asyncio.wait_for(resources.aclose(), CLOSING_S)
        finally:
            loop.stop()

    loop.call_soon_threadsafe(lambda: loop.create_task(close()))
    if threading.current_thread() is not thread:
        thread.join(2 * CLOSING_S)
