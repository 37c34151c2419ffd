"""Real processes on one output over a real store: frozen and woken, killed, redone, pruned, and two jobs at once.

Drivers and workers are processes of their own, without Ray; the processes that a schedule freezes wake after a quiet
run has made the output whole, at the latest, and may change nothing of it.
"""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import psutil

from tests.chaos.cast import Driver, Purpose, Sayings, Worker, attempt, drive
from tests.chaos.processes import strike
from tests.fakes import make_job, write_prompts
from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import UniPicError
from unipic.pipeline.job import Job
from unipic.pipeline.records import Receipt, Revision, Unit, UnitId
from unipic.pipeline.storage.storage import Storage

WORKERS = 2  # of each driver
TICKS, TICK_S = 14, 0.15
LOST_AFTER_S = 0.6  # a worker that is silent for so long is given up, and may be frozen
ENDS_S = 300.0  # a busy machine takes long; nothing but a hang takes longer
DRIVERS = 2
OTHER_JOB = 0.15  # share of starts that are of another job on the same folder
KINDS = ("freeze", "freeze", "wake", "kill", "start", "start", "start", "change", "hide", "nothing", "nothing")
FAULTS = ("freeze", "wake", "kill")
PURPOSES = (
    Purpose(),
    Purpose(),
    Purpose(redo=True),
    Purpose(redo=True),
    Purpose(retry=True),
    Purpose(retry=True, redo=True),
    Purpose(prune=True),
)


class Link:
    """A driver's end of the line to who starts its workers. Stands where `cast` has an actor."""

    def __init__(self, line: Connection, driver: Driver) -> None:
        self.line, self.driver = line, driver

    def pause(self, _: str, *, waits: bool = False) -> str:
        """Have the queued units made, and wait for one result."""
        for unit in self.driver.queue:
            self.driver.held.append(Worker(unit, self.driver))
            self.line.send(("unit", unit.to_json(), self.driver.context))
        self.driver.queue.clear()
        unit_json, result = self.line.recv()
        unit = Unit.from_json(unit_json)
        worker = next(one for one in self.driver.held if one.unit == unit)
        self.driver.settle(worker, result)
        return ""


def driver_process(line: Connection, job: Job, purpose: Purpose) -> None:
    driver = Driver(purpose, job)
    link: Any = Link(line, driver)
    try:
        drive(driver, Storage(job.storage), Sayings(), link)
    except UniPicError as error:
        line.send((str(error), None))
        return
    if driver.final is None or driver.result is None or driver.result.outcome != "done":
        line.send((f"ended with {driver.result}", None))
        return
    known = driver.final
    line.send(("done", {unit: revision for unit in known.units() if (revision := known.revision(unit))}))


def worker_process(line: Connection, unit_json: str, context: RunContext, rejects: frozenset[int]) -> None:
    unit = Unit.from_json(unit_json)
    driver = Driver(Purpose(), context.job, context=context)
    result: Receipt | UniPicError
    try:
        result = attempt(Worker(unit, driver), Storage(context.job.storage), Sayings(), rejects)
    except UniPicError as error:
        result = error
    line.send(result)


@dataclass
class Process:
    """A driver, or a worker of `driver`.

    Attributes:
        waiting: units that a driver wants to have made.
        settled: the driver has heard of this worker's end, or believes in it.
        seen: the commits that a driver counted when it ended well.
    """

    handle: Any
    line: Connection
    began: float
    driver: Process | None = None
    work: tuple[str, RunContext] | None = None
    frozen: bool = False
    settled: bool = False
    waiting: list[tuple[str, RunContext]] = field(default_factory=list)
    seen: dict[UnitId, Revision] | None = None
    said: str = ""

    @property
    def alive(self) -> bool:
        return bool(self.handle.is_alive())

    def send(self, number: int) -> None:
        """Send a signal, unless it is gone."""
        with suppress(psutil.NoSuchProcess):
            strike(psutil.Process(self.handle.pid), number)


class Place:
    """One output and the processes at work on it."""

    def __init__(self, seed: int, root: Path, uri: str, storage: dict[str, Any], tally: Counter[str]) -> None:
        self.dice, self.root, self.tally = random.Random(f"overlap {seed}"), root, tally
        self.spawn = multiprocessing.get_context("forkserver")
        self.spawn.set_forkserver_preload(
            ["tests.chaos.overlap_drill", "tests.chaos.real"]
        )  # all of a process's imports
        self.processes: list[Process] = []
        self.rows: dict[str, int] = {}
        self.hidden: set[str] = set()
        self.stamp = 0
        self.calm = False
        rows_per_unit = self.dice.randint(2, 4)
        for name in ("a", "b"):
            self.write(name)
        self.jobs = [
            make_job(
                root,
                output__uri=uri,
                compute__rows_per_unit=rows_per_unit,
                compute__batch_size=1,
                params__guidance=guidance,
                storage=storage,
            ).model_copy(update={"name": name})
            for name, guidance in (("one", 2.0), ("other", 5.0))
        ]
        self.storage = Storage(self.jobs[0].storage)

    def write(self, name: str) -> None:
        self.stamp += 1
        rows = self.dice.randint(4, 10)
        said = ["" if n == 2 else f"{name} {self.stamp} row {n}" for n in range(rows)]
        made = write_prompts(self.root / "new" / f"{name}.parquet", said)
        self._file(name).parent.mkdir(exist_ok=True)
        made.rename(self._file(name))
        self.rows[name] = rows
        self.hidden.discard(name)

    def hide(self, name: str) -> None:
        there = self.root / f"{name}.hidden"
        if name in self.hidden:
            there.rename(self._file(name))
            self.hidden.discard(name)
        elif not self.hidden:
            self._file(name).rename(there)
            self.hidden.add(name)

    def _file(self, name: str) -> Path:
        return self.root / "manifest" / f"{name}.parquet"

    def start(self, purpose: Purpose, job: Job) -> Process:
        """Start a driver."""
        return self._start(driver_process, (job, purpose))

    def _start(self, body: Callable[..., None], arguments: tuple[Any, ...], **facts: Any) -> Process:
        ours, theirs = self.spawn.Pipe()
        handle = self.spawn.Process(target=body, args=(theirs, *arguments), daemon=True)
        handle.start()
        theirs.close()
        process = Process(handle, ours, time.monotonic(), **facts)
        self.processes.append(process)
        return process

    def drivers(self) -> list[Process]:
        return [one for one in self.processes if one.driver is None and one.alive]

    def serve(self, for_s: float) -> None:
        """Pass on what processes say, and start workers, for so long."""
        until = time.monotonic() + for_s
        while (left := until - time.monotonic()) > 0:
            self._start_workers()
            lines = {one.line: one for one in self.processes if not one.line.closed}
            if not lines:
                time.sleep(min(left, 0.02))
                continue
            for line in wait([*lines], timeout=min(left, 0.05)):
                process = lines[line]  # type: ignore[index]
                try:
                    self._heard(process, process.line.recv())
                except (EOFError, OSError):
                    process.line.close()
                    self._lost(process)
            self._give_up_the_silent()

    def _heard(self, process: Process, said: Any) -> None:
        if process.driver is not None:
            if not process.settled and not process.driver.line.closed:
                process.settled = True
                with suppress(OSError):
                    process.driver.line.send((process.work[0] if process.work else "", said))
        elif said[0] == "unit":
            process.waiting.append((said[1], said[2]))
        else:
            process.said, process.seen = said

    def _lost(self, process: Process) -> None:
        """A worker is gone, or seems so: its driver has the unit made by another."""
        if process.driver is not None and process.work is not None and not process.settled:
            process.settled = True
            process.driver.waiting.append(process.work)

    def _give_up_the_silent(self) -> None:
        """A driver gives a worker up that it has not heard of for long. It may wake, and go on."""
        for one in self.processes:
            if one.frozen and time.monotonic() - one.began > LOST_AFTER_S:
                self._lost(one)

    def _start_workers(self) -> None:
        for driver in self.drivers():
            mine = [one for one in self.processes if one.driver is driver and one.alive and not one.settled]
            while driver.waiting and len(mine) < WORKERS:
                mine.append(self._start_worker(driver, driver.waiting.pop(0)))

    def _start_worker(self, driver: Process, work: tuple[str, RunContext]) -> Process:
        rejects = frozenset() if self.calm else frozenset(n for n in range(10) if self.dice.random() < 0.1)
        return self._start(worker_process, (*work, rejects), driver=driver, work=work)

    # What befalls them.

    def strike(self, kind: str) -> None:
        """One fault, or one thing that a user does."""
        alive = [one for one in self.processes if one.alive]
        target = self.dice.choice(alive) if alive else None
        if kind == "start" and len(self.drivers()) < DRIVERS:
            self.start(self.dice.choice(PURPOSES), self.jobs[self.dice.random() < OTHER_JOB])
        elif kind == "change":
            self.write(self.dice.choice(sorted(self.rows)))
        elif kind == "hide":
            self.hide(self.dice.choice(sorted(self.rows)))
        elif target is None or kind in ("start", "nothing"):
            return
        elif kind == "kill":
            target.send(signal.SIGKILL)
        elif kind == "freeze" and not target.frozen:
            target.frozen = True
            target.send(signal.SIGSTOP)
        elif kind == "wake" and target.frozen:
            self.wake(target)
        else:
            return
        what = ("a driver" if target.driver is None else "a worker") if kind in FAULTS and target else "the user"
        self.tally[f"{what}: {kind}"] += 1

    def wake(self, process: Process) -> None:
        process.frozen = False
        process.send(signal.SIGCONT)

    def to_their_end(self, processes: list[Process]) -> bool:
        """Whether all of these ended in time."""
        until = time.monotonic() + ENDS_S
        while any(one.alive or not one.line.closed for one in processes) and time.monotonic() < until:
            self.serve(0.05)
        return not any(one.alive for one in processes)

    def close(self) -> None:
        for one in self.processes:
            if one.alive:
                one.handle.kill()
            one.handle.join()
