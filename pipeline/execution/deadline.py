"""When a run's time is up: `limits.until` and `limits.max_hours`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from unipic.pipeline.job import Limits

LATE = timedelta(hours=3)
"""A scheduler retries a run that its deadline stopped: one that resumes so soon after `limits.until` is over, too."""


@dataclass(frozen=True)
class Deadline:
    """A moment, and what to call it."""

    at: datetime
    words: str


def deadline(limits: Limits, now: datetime, *, resumes: bool) -> Deadline | None:
    """The earlier of `limits.until` and `limits.max_hours` from now.

    Args:
        now: with a time zone, or in this machine's.
        resumes: earlier runs have committed units, so that this may be a retry of one that the deadline stopped.
    """
    ends = []
    if limits.max_hours is not None:
        at = (now + timedelta(hours=limits.max_hours)).astimezone()
        ends.append(Deadline(at, f"{at:%H:%M}"))
    if limits.until is not None:
        ends.append(_until(limits.until, now.astimezone(UTC), resumes=resumes))
    return min(ends, key=lambda one: one.at, default=None)


def _until(until: str, now: datetime, *, resumes: bool) -> Deadline:
    clock, _, name = until.partition(" ")
    hour, minute = map(int, clock.split(":"))
    zone = ZoneInfo(name) if name else None
    shown = now.astimezone(zone).replace(tzinfo=None)  # what the clock on the wall shows
    wall = shown.replace(hour=hour, minute=minute, second=0, microsecond=0)

    def at(wall: datetime) -> datetime:
        return (wall.replace(tzinfo=zone) if zone else wall.astimezone()).astimezone(UTC)

    if at(wall) > now:
        return Deadline(at(wall), until)
    passed = at(wall)
    if resumes and now - passed < LATE:
        late = f"{until} (a run that resumes less than {LATE.seconds // 3600} hours after limits.until begins nothing)"
        return Deadline(passed, late)
    return Deadline(at(wall + timedelta(days=1)), until)
