"""A clock that moves only when a test says so."""

from __future__ import annotations

from datetime import datetime, timedelta


class FakeClock:
    """Calling it gives seconds; `now` gives the local time that belongs to them."""

    def __init__(self, seconds: float = 1000.0, midnight: datetime = datetime(2026, 1, 31)) -> None:
        self.seconds = seconds
        self.midnight = midnight - timedelta(seconds=seconds)

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return self.midnight + timedelta(seconds=self.seconds)

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
