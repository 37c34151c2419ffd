"""Several threads side by side, or one alone: a unit that somebody died of is taken up with no other beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class SideBySide:
    """Lets in any number who share, or one who is alone. Who asks to be alone is not overtaken by those who share."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.inside = 0
        self.closed = False

    @contextmanager
    def enter(self, *, alone: bool = False) -> Iterator[None]:
        with self.changed:
            self.changed.wait_for(lambda: not self.closed)
            if alone:
                self.closed = True
                self.changed.wait_for(lambda: not self.inside)
            self.inside += 1
        try:
            yield
        finally:
            with self.changed:
                self.inside -= 1
                if alone:
                    self.closed = False
                self.changed.notify_all()
