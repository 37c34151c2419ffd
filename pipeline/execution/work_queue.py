"""The units that are left, in the order in which they are attempted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from unipic.pipeline.records import Unit, UnitId
from unipic.pipeline.supervision.failures import Failure

WAVE_UNITS = 2_000  # Ray Data keeps about 6 KB a block of one execution in the driver; a wave reloads the model
UNIT_ATTEMPTS = 3  # of a unit whose failure may be temporary; each attempt is a wave later


@dataclass(frozen=True)
class Wave:
    """Units that go through one Ray Data graph together.

    Attributes:
        careful: they have killed workers. A replica works on one of them at a time, so that its death tells of which,
            and the rows that kill tasks are looked for.
    """

    units: Sequence[Unit]
    careful: bool = False


class WorkQueue:
    """Gives out units in waves, and takes back those that failed for a reason that may be temporary.

    Args:
        planned: what is left, in the manifest's order; read lazily.
        later: units to attempt after all of them: those with rejected rows to attempt again.
        wave_units: the most units in a wave.
    """

    def __init__(self, planned: Iterable[Unit], later: Sequence[Unit] = (), *, wave_units: int = WAVE_UNITS) -> None:
        self.planned = iter(planned)
        self.later = list(later)
        self.deadly: list[Unit] = []
        self.careful: set[UnitId] = set()
        self.failures: Counter[str] = Counter()
        self.wave_units = wave_units

    def waves(self) -> Iterator[Wave]:
        """All waves. Units that are deferred while a wave runs are in a later one."""
        while units := list(islice(self.planned, self.wave_units)):
            yield Wave(units)
        while self.later or self.deadly:
            if self.later:
                units, self.later = self.later[: self.wave_units], self.later[self.wave_units :]
                yield Wave(units)
            else:
                units, self.deadly = self.deadly, []
                self.careful |= {unit.id for unit in units}
                yield Wave(units, careful=True)

    def defer(self, unit: Unit, failure: Failure) -> bool:
        """Whether `unit`, which came back with `failure`, is attempted again: carefully, once, if workers died."""
        self.failures[unit.id] += 1
        if not failure.retryable or self.failures[unit.id] >= UNIT_ATTEMPTS:
            return False
        if failure.deadly and unit.id in self.careful:
            return False
        (self.deadly if failure.deadly else self.later).append(unit)
        return True
