"""What the processes of a model check do: the real claim, recovery, commit, prune and repair, each in an actor."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.chaos.actors import Actor
from tests.fakes import FakeEngine, fake_checkpoint
from unipic.pipeline.audit.repair import clear
from unipic.pipeline.audit.repair_plan import plan_repair
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import UniPicError
from unipic.pipeline.execution.progress import Result
from unipic.pipeline.execution.reporter import Reporter
from unipic.pipeline.execution.stop_policy import StopPolicy
from unipic.pipeline.job import Job
from unipic.pipeline.output.changes import removed
from unipic.pipeline.output.claims import claim, take_back
from unipic.pipeline.output.compaction import Compaction
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.recovery import recover
from unipic.pipeline.output.run_record import Run
from unipic.pipeline.output.snapshot import Snapshot
from unipic.pipeline.records import Receipt, Unit
from unipic.pipeline.run import Work, finish, what_is_left
from unipic.pipeline.stages.checkpoint_cache import describe
from unipic.pipeline.stages.commit import commit
from unipic.pipeline.stages.infer import Replica
from unipic.pipeline.stages.prepare import prepare
from unipic.pipeline.storage.storage import Storage
from unipic.pipeline.supervision.supervisor import Supervisor

UNIT_TRIES = 4
PACK_BYTES = 12_000  # of two or three units, so that there are several packs


@dataclass(frozen=True)
class Purpose:
    """What a driver was started for."""

    redo: bool = False
    retry: bool = False
    prune: bool = False
    repair: bool = False
    compact: bool = False


@dataclass
class Driver:
    """A driver and what its workers need to know of it.

    Attributes:
        queue: units that no worker has.
        held: workers that the driver believes to be at work.
        results: what workers returned, and the driver has not looked at.
        run: as claimed; None before that.
        result: how it ended; None where it did not, or with an error.
        final: revisions that it saw committed when it ended.
    """

    purpose: Purpose
    job: Job
    actor: Actor | None = None
    queue: list[Unit] = field(default_factory=list)
    held: list[Worker] = field(default_factory=list)
    results: list[tuple[Unit, Receipt | UniPicError]] = field(default_factory=list)
    tries: dict[str, int] = field(default_factory=dict)
    context: RunContext | None = None
    run: Run | None = None
    result: Result | None = None
    final: Snapshot | None = None

    def settle(self, worker: Worker, result: Receipt | UniPicError) -> None:
        """A worker came to its end; it counts unless the driver gave it up before."""
        if worker in self.held:
            self.held.remove(worker)
            self.results.append((worker.unit, result))

    def give_up(self, worker: Worker) -> None:
        """The driver hears that a worker is gone, which may not be so, and has its unit made by another."""
        if worker in self.held:
            self.held.remove(worker)
            self.queue.append(worker.unit)


@dataclass(eq=False)
class Worker:
    """One attempt at one unit."""

    unit: Unit
    driver: Driver
    actor: Actor | None = None


class Sayings:
    """Told what processes have done, by those that did it."""

    def withdrew(self, run: Run) -> None: ...

    def committed(self, unit: Unit, receipt: Receipt) -> None: ...

    def recovered(self, known: Snapshot) -> None: ...


def drive(driver: Driver, storage: Storage, told: Sayings, actor: Actor) -> None:
    """A driver from its start to its end."""
    ledger = Ledger(driver.job.output.uri, storage)
    if driver.purpose.prune:
        _prune(driver, ledger, told)
    elif driver.purpose.repair:
        report = verify(driver.job.output.uri, storage)
        plan = plan_repair(driver.job.output.uri, storage, report)
        clear(driver.job.output.uri, storage, report, plan)
        if plan.job is not None:
            _run(replace_job(driver, plan.job), ledger, told, actor, only=plan.files, again=plan.restored)
    elif driver.purpose.compact:
        Compaction(ledger, part_bytes=PACK_BYTES, on_units=lambda done, total: None).compact()
    else:
        _run(driver, ledger, told, actor)


def replace_job(driver: Driver, job: Job) -> Driver:
    driver.job = job
    return driver


def _prune(driver: Driver, ledger: Ledger, told: Sayings) -> None:
    """`audit.prune` without its look at who else is at work: a process that sleeps shows no sign of life."""
    ledger.check_owner(driver.job, checkpoint_digest())
    manifest = ledger.discover(driver.job)
    gone = removed(ledger.recorded().files, manifest.files)
    if gone and len(gone) < len(ledger.recorded().files):
        take_back(ledger, driver.job, gone)
        told.withdrew(ledger.recorded())


def _run(
    driver: Driver,
    ledger: Ledger,
    told: Sayings,
    actor: Actor,
    *,
    only: frozenset[str] | None = None,
    again: Iterable[str] = (),
) -> None:
    """`run.run` with actors in place of Ray."""
    job, purpose = driver.job, driver.purpose
    manifest = ledger.discover(job)
    if only is not None:
        manifest = replace(manifest, files=tuple(one for one in manifest.files if one.name in only))
    run, manifest = claim(ledger, job, manifest, checkpoint_digest(), redo_changed=purpose.redo)
    told.withdrew(run)
    context = RunContext(job, checkpoint_digest(), manifest.columns, run.epoch.number)
    driver.run, driver.context = run, context
    known = ledger.snapshot(run)
    recover(ledger, known)
    told.recovered(known)
    work = what_is_left(context, manifest, ledger, known, retry_rejected=purpose.retry, again=list(again))
    _work(driver, work, actor)
    policy = StopPolicy(job, work.tally.rows_total, stop_requested=lambda: False)
    result = finish(work, policy, Reporter(lambda _: None, work.tally, policy))
    told.recovered(known)
    driver.result, driver.final = result, known


def _work(driver: Driver, work: Work, actor: Actor) -> None:
    """Have workers make every unit, and fail with what no other attempt helps."""
    for wave in work.queue.waves():
        driver.queue += wave.units
        while driver.queue or driver.held or driver.results:
            while driver.results:
                unit, result = driver.results.pop(0)
                if isinstance(result, Receipt):
                    work.tally.add(result)
                    continue
                driver.tries[unit.id] = driver.tries.get(unit.id, 0) + 1
                if not result.retryable or driver.tries[unit.id] == UNIT_TRIES:
                    raise result
                driver.queue.append(unit)
            if driver.queue or driver.held:
                actor.pause("waits for workers", waits=True)


def attempt(worker: Worker, storage: Storage, told: Sayings, rejects: frozenset[int]) -> Receipt:
    """One attempt at a unit; the receipt that counts then.

    Args:
        rejects: rows of the manifest file that this attempt cannot do, though another may.
    """
    context = worker.driver.context
    assert context is not None
    context = replace(context)
    context.__dict__["storage"] = storage
    replica = Replica(context, Supervisor(), partial(ModelEngine, rejects=rejects))
    try:
        answered = replica.answer(worker.unit, prepare(worker.unit, context))
        receipt = commit(worker.unit, answered, context)
    except UniPicError as error:
        worker.driver.settle(worker, error)
        raise
    told.committed(worker.unit, receipt)
    worker.driver.settle(worker, receipt)
    return receipt


class ModelEngine(FakeEngine):
    """Cannot do some rows of its manifest file: those whose prompt says "… row <number>"."""

    def __init__(self, context: RunContext, *, rejects: frozenset[int]) -> None:
        super().__init__(context)
        self.rejects = rejects

    def answer(self, rows: Sequence[dict[str, Any]]) -> list[bytes | str]:
        if any(int(row["prompt"].rpartition(" ")[2]) in self.rejects for row in rows):
            raise ValueError("this attempt cannot do the row")
        return super().answer(rows)


@cache
def checkpoint_digest() -> str:
    """Of the checkpoint that every job of `make_job` has."""
    with tempfile.TemporaryDirectory() as folder:
        return describe(str(fake_checkpoint(Path(folder))), Storage()).digest


class OneByOne(Executor):
    """In place of a pool of threads: what an actor does at once, it does in order."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any], **_: Any) -> Iterator[Any]:
        return iter([fn(*args) for args in zip(*iterables, strict=False)])


@contextmanager
def as_actors(storage_of_caller: Callable[..., Storage]) -> Iterator[None]:
    """Nothing in the commit's code is left to chance or to the clock while the body runs."""
    numbers = count(1)

    def token(size: int) -> str:
        return f"{next(numbers):0{2 * size}x}"

    with ExitStack() as stack:
        stack.enter_context(patch("secrets.token_hex", token))
        stack.enter_context(patch("unipic.pipeline.audit.repair_plan.Storage", storage_of_caller))
        stack.enter_context(patch("unipic.pipeline.output.claims.SETTLE_S", 0.0))
        for module in [one for name, one in sys.modules.items() if name.startswith("unipic.")]:
            if hasattr(module, "ThreadPoolExecutor"):
                stack.enter_context(patch.object(module, "ThreadPoolExecutor", OneByOne))
        yield
