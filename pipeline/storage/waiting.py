"""How long an operation on a store may take: attempts with growing waits, notices for who watches, a last moment.

The logger `unipic.storage` gets each retry (INFO) and each operation that takes long (WARNING).
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable
from typing import TypeVar

from unipic.pipeline.errors import StorageUnavailable
from unipic.pipeline.storage.options import StorageOptions

BACKOFF_FIRST_S = 0.2
NOTICE_AFTER_S = 5.0
MIN_BYTES_PER_S = 2**16
"""A transfer slower than this is given up: 64 uploads at once over 100 Mbit/s are still three times as fast."""

T = TypeVar("T")
log = logging.getLogger("unipic.storage")
logging.getLogger("unipic").addHandler(logging.NullHandler())  # a library prints nothing unless its user asks


class Waiting:
    """One operation's time: how long it took so far, how much is left.

    Args:
        what: the operation as notices name it, such as "http://127.0.0.1:9000: GET s3://bucket/key".
        patience_s: the longest time for the whole operation, attempts and waits together; infinite for no limit.
        upload_bytes: what it sends, which extends its time.
    """

    def __init__(self, what: str, patience_s: float = math.inf, *, upload_bytes: int = 0) -> None:
        self.what = what
        self._began_s = time.monotonic()
        self._patience_s = patience_s + upload_bytes / MIN_BYTES_PER_S
        self._noticed = False

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self._began_s

    @property
    def left_s(self) -> float:
        return max(0.0, self._patience_s - self.spent_s)

    def until_notice_s(self) -> float | None:
        """Seconds until a notice is due; None where it was given."""
        return None if self._noticed else max(0.0, NOTICE_AFTER_S - self.spent_s)

    def notice(self) -> None:
        """Say once what is waited for, as soon as it has taken NOTICE_AFTER_S."""
        if not self._noticed and self.spent_s >= NOTICE_AFTER_S:
            self._noticed = True
            log.warning("Waiting for %s (%.0f s so far)", self.what, self.spent_s)

    def pause(self, wait_s: float) -> None:
        """Sleep, with the notice at its moment."""
        until = self.until_notice_s()
        if until is not None and until < wait_s:
            time.sleep(until)
            self.notice()
            wait_s -= until
        time.sleep(wait_s)


def attempts(call: Callable[[], T], waiting: Waiting, options: StorageOptions) -> T:
    """`call` until it works, with growing waits of random length after failures that may pass.

    Raises:
        StorageUnavailable: every attempt failed, or the time for the operation is over.
    """
    for attempt in range(1, options.max_attempts + 1):
        try:
            return call()
        except StorageUnavailable as error:
            wait_s = min(options.backoff_max_s, BACKOFF_FIRST_S * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
            if attempt == options.max_attempts or waiting.left_s <= wait_s:
                times = f"{attempt} time{'s' if attempt > 1 else ''}"
                raise StorageUnavailable(
                    f"{error.message.rstrip('.')} (tried {times} in {waiting.spent_s:.0f} s)",
                    remedy="Check that the store is up; the same command resumes once it is back.",
                ) from error
            log.info(
                "%s: attempt %d of %d failed, the next in %.1f s: %s",
                waiting.what,
                attempt,
                options.max_attempts,
                wait_s,
                error.message,
            )
            waiting.pause(wait_s)
    raise AssertionError("max_attempts is at least 1")
