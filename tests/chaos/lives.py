"""The life of one process of a job, without Ray: the real stages, the real commit, in one thread.

Two lives at once take turns: only the thread that holds the turn runs, and hands it on at its next write or list.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from tests.chaos.faults import Died, Fates, FaultyStorage, Handover, fated
from tests.fakes import FakeEngine
from unipic.pipeline.errors import StorageUnavailable, UniPicError
from unipic.pipeline.job import Job
from unipic.pipeline.manifests.manifest import units
from unipic.pipeline.output.claims import claim
from unipic.pipeline.output.recovery import recover
from unipic.pipeline.preflight import preflight
from unipic.pipeline.stages.commit import commit
from unipic.pipeline.stages.infer import Replica
from unipic.pipeline.stages.prepare import prepare
from unipic.pipeline.supervision.supervisor import Supervisor

UNIT_TRIES = 3


@dataclass
class World:
    """What the lives of one drill share.

    Attributes:
        tally: faults by kind.
        begun: unit id → how often its work was begun.
        interrupted: how often work in hand was lost: deaths and failures.
    """

    job: Job
    conditional: bool
    crash_rate: float
    storage_rate: float
    tally: Counter[str] = field(default_factory=Counter)
    begun: Counter[str] = field(default_factory=Counter)
    interrupted: int = 0

    def fates(self, name: str) -> Fates:
        root = os.path.dirname(self.job.output.uri)
        return Fates(name, self.tally, crash_rate=self.crash_rate, storage_rate=self.storage_rate, root=root)


def life(world: World, fates: Fates, *, retry: bool = False, handover: Handover = lambda: None) -> Iterator[str]:
    """One process from its start to its end; yields after each unit it has committed.

    Raises:
        Died: the process is gone.
        UniPicError: it gave up, in words.
    """
    storage = FaultyStorage(fates, conditional=world.conditional, handover=handover)
    context, manifest, ledger = preflight(world.job, storage)
    context.__dict__["storage"] = storage
    run, manifest = claim(ledger, world.job, manifest, context.checkpoint_digest)
    context = replace(context, epoch=run.epoch.number)
    context.__dict__["storage"] = storage
    snapshot = ledger.snapshot(run)
    recover(ledger, snapshot)
    left = list(snapshot.left(units(manifest, run.rows_per_unit)))
    if retry:
        by_name = {file.name: file for file in manifest.files}
        receipts = [one for one in ledger.receipts(snapshot) if one.rejected]
        left += [ledger.retry(one, by_name[one.file]) for one in receipts]
    supervisor = Supervisor()
    replica = Replica(context, supervisor, FakeEngine)
    tries: Counter[str] = Counter()
    while left:
        unit = left.pop(0)
        world.begun[unit.id] += 1
        try:
            history = supervisor.start_unit(unit.id, replica.name)
            assert history is not None
            commit(unit, replica.answer(unit, prepare(unit, context), history.crashed), context)
        except StorageUnavailable:
            world.interrupted += 1
            tries[unit.id] += 1
            if tries[unit.id] == UNIT_TRIES:
                raise
            left.append(unit)
        except Died:
            world.interrupted += 1
            if unit.id not in supervisor.in_flight:
                raise
            # It died on the device: the replica alone is gone, and another takes its place.
            fates.crash_rate = 0.0  # a row that meets two deaths alone is taken for their cause, and rightly
            replica = Replica(context, supervisor, FakeEngine)
            left.insert(0, unit)
        else:
            supervisor.unit_committed(unit.id)
            yield unit.id
    recover(ledger, ledger.snapshot(run))


def live(world: World, name: str, *, retry: bool = False, handover: Handover = lambda: None) -> bool:
    """Whether this life came to its end in peace."""
    fates = world.fates(name)
    with fated(fates):
        try:
            for _ in life(world, fates, retry=retry, handover=handover):
                pass
        except (Died, UniPicError) as end:
            if isinstance(end, UniPicError) and not passing(end):
                raise
            return False
        return True


def passing(error: BaseException) -> bool:
    """Whether an error says of itself, or of its cause, that another start may go better."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UniPicError) and cause.retryable:
            return True
        cause = cause.__cause__
    return False


class Turns:
    """Lets several threads take turns, in an order that a seed decides."""

    def __init__(self, seed: object) -> None:
        self.dice = random.Random(str(seed))
        self.there: list[int] = []
        self.holder: int | None = None
        self.changed = threading.Condition()

    def hand_over(self) -> None:
        """Called by the holder; returns when it is its turn again. Threads that take no turns pass."""
        with self.changed:
            me = threading.get_ident()
            if me not in self.there:
                return
            self.holder = self.dice.choice(self.there)
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.holder == me)

    def run(self, bodies: list[Callable[[], None]]) -> None:
        """Run `bodies` in threads, one at a time, until all have ended; the first error is raised."""
        errors: list[BaseException] = []
        gate = threading.Barrier(len(bodies) + 1)

        def whole(number: int, body: Callable[[], None]) -> None:
            me = threading.get_ident()
            for turn in range(len(bodies)):  # enter in order, so that the seed's choice means the same each time
                if turn == number:
                    self.there.append(me)
                gate.wait()
            gate.wait()
            with self.changed:
                self.changed.wait_for(lambda: self.holder == me)
            try:
                body()
            except BaseException as error:  # handed to the caller's thread
                errors.append(error)
            with self.changed:
                self.there.remove(me)
                self.holder = self.dice.choice(self.there) if self.there else None
                self.changed.notify_all()

        threads = [threading.Thread(target=whole, args=pair, daemon=True) for pair in enumerate(bodies)]
        for thread in threads:
            thread.start()
        for _ in bodies:
            gate.wait()
        self.holder = self.there[0]
        gate.wait()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
