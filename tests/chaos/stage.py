"""The world of a model check: a manifest that changes, a store, and the processes that are at work on one output."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.chaos.actors import GO, Actor
from tests.chaos.cast import Driver, Purpose, Worker, as_actors, attempt, drive
from tests.chaos.faults import Died
from tests.chaos.promises import Broken, Promises, check_published, rows_of
from tests.chaos.stepped_storage import Bucket, SteppedStorage
from tests.fakes import make_job, write_prompts
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.errors import UniPicError
from unipic.pipeline.job import Job
from unipic.pipeline.output.layout import parse_part, parse_receipt
from unipic.pipeline.output.ledger import Ledger

DRIVERS, WORKERS = 2, 3
ENOUGH_REQUESTS = 100_000
QUIET_RUNS = 4
TALLY: Counter[str] = Counter()
"""What all model checks of this process did."""


class Stage:
    """One output and all that happens to it.

    Args:
        kind: "s3" or "disk", and whether it honours conditional puts: "weak s3", "weak disk".
    """

    def __init__(self, kind: str, *, rows_per_unit: int) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="model", dir=_fast()))
        self.conditional, self.bucket = not kind.startswith("weak"), Bucket() if kind.endswith("s3") else None
        self.output = "s3://bucket/out" if self.bucket is not None else str(self.root / "out")
        self.versions: dict[tuple[str, str], str] = {}
        self.hidden: set[str] = set()
        self.rows: dict[str, int] = {}
        self.stamp = 0
        self.trace: list[str] = []
        """Every request so far, oldest first: printed with a promise that broke."""
        changes = {"output__uri": self.output, "compute__rows_per_unit": rows_per_unit, "compute__batch_size": 1}
        jobs = [make_job(self.root, params__guidance=guidance, **changes) for guidance in (2.0, 5.0)]
        self.jobs = [job.model_copy(update={"name": name}) for job, name in zip(jobs, ("one", "other"), strict=True)]
        self.drivers: list[Driver] = []
        self.workers: list[Worker] = []
        self.promises = Promises(
            lambda name, version: self.versions.get((name, version), "?"), conditional=self.conditional
        )
        self._changes = -1
        self._read: dict[str, tuple[tuple[int, int], bytes]] = {}
        self._here = threading.local()
        self._stack = ExitStack()
        self._stack.enter_context(as_actors(lambda *_: self._here.storage))

    # The manifest.

    def write(self, name: str, rows: int) -> None:
        """A manifest file appears, or changes under its name; every other row of it has an empty prompt."""
        self.stamp += 1
        text = f"{name} {self.stamp} row"
        path = self.root / "manifest" / f"{name}.parquet"
        temporary = write_prompts(
            self.root / "new" / f"{name}.parquet", ["" if n == 2 else f"{text} {n}" for n in range(rows)]
        )
        os.utime(temporary, ns=(self.stamp * 10**9,) * 2)
        path.parent.mkdir(exist_ok=True)
        temporary.rename(path)
        self.hidden.discard(name)
        self.rows[name] = rows
        self.versions[path.name, str(self.stamp * 10**9)] = text

    def hide(self, name: str) -> None:
        """A manifest file goes; it may come back as it was."""
        path = self.root / "manifest" / f"{name}.parquet"
        there = self.root / f"{name}.hidden"
        if name in self.hidden:
            there.rename(path)
            self.hidden.discard(name)
        elif len(self.rows) - len(self.hidden) > 1:
            path.rename(there)
            self.hidden.add(name)

    # The processes.

    def storage(self, gate: object = None) -> SteppedStorage:
        asked = gate or (lambda _: GO)
        return SteppedStorage(self.output, asked, bucket=self.bucket, conditional=self.conditional)  # type: ignore[arg-type]

    def start(self, purpose: Purpose, *, other: bool = False) -> Driver:
        """Start a run, a prune or a repair."""
        job = self.owner() if purpose.repair else self.jobs[other]
        driver = Driver(purpose, job)

        def body(actor: Actor) -> None:
            storage = self._here.storage = self.storage(actor.pause)
            drive(driver, storage, self.promises, actor)

        driver.actor = Actor(f"driver {len(self.drivers)}", body)
        self.drivers.append(driver)
        return driver

    def assign(self, driver: Driver, rejects: frozenset[int]) -> Worker:
        """Have a new worker attempt the next unit of `driver`."""
        worker = Worker(driver.queue.pop(0), driver)

        def body(actor: Actor) -> None:
            storage = self._here.storage = self.storage(actor.pause)
            attempt(worker, storage, self.promises, rejects)

        worker.actor = Actor(f"worker {len(self.workers)} at {worker.unit.id}{worker.unit.revision.tag}", body)
        driver.held.append(worker)
        self.workers.append(worker)
        TALLY["attempts"] += 1
        return worker

    @property
    def alive(self) -> list[Actor]:
        """Processes that have something to send."""
        return [actor for actor in self.actors if actor.alive and not self._waits(actor)]

    @property
    def actors(self) -> list[Actor]:
        return [one.actor for one in (*self.drivers, *self.workers) if one.actor is not None]

    def _waits(self, actor: Actor) -> bool:
        driver = next((one for one in self.drivers if one.actor is actor), None)
        return actor.waits and driver is not None and not driver.results and bool(driver.queue or driver.held)

    def live_drivers(self) -> list[Driver]:
        return [one for one in self.drivers if one.actor is not None and one.actor.alive]

    def live_workers(self) -> list[Worker]:
        return [one for one in self.workers if one.actor is not None and one.actor.alive]

    def advance(self, actor: Actor, order: str = GO) -> None:
        """One request of `actor`, and a look at what can be seen then."""
        if order != GO:
            TALLY[order] += 1
        TALLY["requests"] += 1
        self.trace.append(f"{actor.name}: {actor.at.replace(self.output, '')}{'' if order == GO else f' ({order})'}")
        try:
            if not actor.advance(order):
                self.trace.append(f"{actor.name} ended: {actor.error!r}")
                self._ended(actor)
            self.check()
        except Broken as broken:
            raise self._broken(str(broken)) from broken

    def _broken(self, what: str) -> Broken:
        broken = Broken(what)
        broken.add_note("\n".join(self.trace))
        return broken

    def kill(self, actor: Actor) -> None:
        TALLY["deaths"] += 1
        self.trace.append(f"{actor.name} dies")
        actor.kill()
        for driver in self.live_drivers():
            for worker in [one for one in driver.held if one.actor is actor]:
                driver.give_up(worker)

    def _ended(self, actor: Actor) -> None:
        if actor.error is not None and not isinstance(actor.error, (UniPicError, Died)):
            raise Broken(f"{actor} ended with {actor.error!r}") from actor.error
        driver = next((one for one in self.drivers if one.actor is actor), None)
        if driver is None:
            return
        if driver.result is not None and driver.result.outcome == "done" and driver.final is not None:
            TALLY["runs that ended well"] += 1
            check_published(self.files(), driver.final)

    def damage(self, which: int, *, gone: bool) -> None:
        """A published part or a receipt loses a byte, or is gone."""
        there = [path for path in sorted(self.files()) if parse_part(path) or parse_receipt(path)]
        if not there:
            return
        path = there[which % len(there)]
        named = parse_part(path) or parse_receipt(path)
        assert named is not None
        TALLY["damages"] += 1
        self.trace.append(f"{path} {'is gone' if gone else 'loses a byte'}")
        self.promises.damaged.add(named.unit)
        uri, data = f"{self.output}/{path}", self.files()[path][:-1]
        storage = self.storage()
        storage.delete(uri) if gone else storage.write(uri, data)

    # What can be seen.

    def owner(self) -> Job:
        """The job whose output it is."""
        identity = Ledger(self.output, self.storage()).identity()
        return self.jobs[identity is not None and identity.name == "other"]

    def check(self) -> None:
        """Raises Broken where a promise does not hold now."""
        if self.bucket is not None:
            if self.bucket.changes == self._changes:
                return
            self._changes = self.bucket.changes
        self.promises.check(self.files())

    def files(self) -> dict[str, bytes]:
        """Path → content of everything in the output's folder."""
        if self.bucket is not None:
            prefix = f"{self.output}/"
            return {
                uri.removeprefix(prefix): data for uri, data in self.bucket.objects.items() if uri.startswith(prefix)
            }
        return dict(self._local_files())

    def _local_files(self) -> Iterator[tuple[str, bytes]]:
        for folder, _, names in os.walk(self.output):
            for name in names:
                path = os.path.join(folder, name)
                facts = os.stat(path)
                known = facts.st_mtime_ns, facts.st_ino
                if name.startswith(".unipic-"):
                    continue
                if path not in self._read or self._read[path][0] != known:
                    self._read[path] = known, Path(path).read_bytes()
                yield os.path.relpath(path, self.output), self._read[path][1]

    # The end.

    def finish(self) -> None:
        """Everyone sleeps; a quiet run makes the output whole; all wake then, and change nothing of it."""
        sleepers = self.actors
        for name in sorted(self.hidden):
            self.hide(name)
        self._quietly()
        whole = self._visible()
        for actor in sleepers:
            for _ in range(ENOUGH_REQUESTS):
                if not actor.alive or self._waits(actor):
                    break
                self.advance(actor)
        if self._visible() != whole:
            raise self._broken(f"what woke late changed {sorted(self._visible().keys() ^ whole.keys())}")
        self._quietly()
        staged = [path for path in self.files() if path.startswith("_unipic/staging")]
        if staged or self._visible() != whole:
            raise self._broken(f"another run changed a whole output: {staged}")

    def _visible(self) -> dict[str, object]:
        """What readers see: files, or the rows in them where a process that wakes may merge or retry some."""
        seen = {path: data for path, data in self.files().items() if path.startswith(("data", "rejected"))}
        if not any(driver.purpose.compact or driver.purpose.retry for driver in self.drivers):
            return dict(seen)
        return {str(row): prompt for row, prompt in rows_of(seen)}

    def run_quietly(self, purpose: Purpose) -> None:
        """One process from its start to its end, with nothing beside it."""
        self._to_its_end(self.start(purpose))

    def _quietly(self) -> None:
        job = self.owner()
        repairs = [Purpose(repair=True)] if self.promises.damaged else []
        for purpose in (*repairs, Purpose(redo=True), Purpose()):
            driver = self.start(purpose, other=job.name == "other")
            self._to_its_end(driver)
            error = driver.actor.error if driver.actor is not None else None
            done = driver.result is not None and driver.result.outcome == "done"
            if error is not None or not (done or purpose.repair):
                raise self._broken(f"a quiet {purpose} ended with {driver.result} {error!r}")
        self.promises.damaged.clear()
        self.promises.check(self.files())
        report = verify(self.output, self.storage())
        if report.verdict != "sound":
            raise self._broken(f"after a quiet run: {report.problems}")
        expected = sum(self.rows.values())
        if report.data + report.rejected != expected:
            raise self._broken(f"{report.data} + {report.rejected} of {expected} rows")

    def _to_its_end(self, driver: Driver) -> None:
        assert driver.actor is not None
        while driver.actor.alive:
            self.advance(driver.actor)
            while driver.queue:
                worker = self.assign(driver, frozenset())
                while worker.actor is not None and worker.actor.alive:
                    self.advance(worker.actor)

    def close(self) -> None:
        for actor in self.actors:
            if actor.alive:
                actor.kill()
        self._stack.close()
        shutil.rmtree(self.root, ignore_errors=True)


def _fast() -> str | None:
    """Where files cost least."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
