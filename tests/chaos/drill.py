"""A drill without Ray: the job of a schedule, disturbed until it is done, held against the same job undisturbed."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.chaos.faults import deadly_crash_points
from tests.chaos.lives import Turns, World, live
from tests.chaos.schedules import MENDED, Schedule, job_of, places, schedule
from tests.fakes import all_rows, part_bytes, receipts
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.errors import OutputError
from unipic.pipeline.job import Job
from unipic.pipeline.storage.storage import Storage

ALLOWED_EARLY = ("missing unit", "unpublished part", "left-over file", "superseded file")
RESTLESS_LIVES = 12  # after so many deaths the world calms down, so that every drill ends


@dataclass
class Verdict:
    """What a drill came to. `ok` is whether every promise held."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    lives: int = 0
    rows: int = 0
    rows_lost: int = 0
    rows_doubled: int = 0
    parts_that_differ: int = 0
    units_redone: int = 0
    rows_redone: int = 0
    green_with_work_missing: int = 0
    broken: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        wrong = self.rows_lost, self.rows_doubled, self.parts_that_differ, self.green_with_work_missing
        return not (any(wrong) or self.broken)


def drill(seed: int, root: Path) -> Verdict:
    """Run the drill that `seed` stands for under the empty folder `root`."""
    plan = schedule(seed)
    job = job_of(plan, root)
    calm = World(job, conditional=True, crash_rate=0.0, storage_rate=0.0)
    undisturbed = _whole(calm, plan, root, Verdict(seed))
    shutil.rmtree(job.output.uri)
    (root / MENDED).unlink(missing_ok=True)
    world = World(job, plan.conditional, crash_rate=plan.crash_rate, storage_rate=plan.storage_rate)
    verdict = Verdict(seed, faults=world.tally, rows=plan.rows)
    with deadly_crash_points():
        disturbed = _whole(world, plan, root, verdict)
    judge(verdict, job, expected=places(plan, job), undisturbed=undisturbed, disturbed=disturbed)
    _judge_work(verdict, world, plan)
    return verdict


def _whole(world: World, plan: Schedule, root: Path, verdict: Verdict) -> dict[str, Any]:
    """Live until done, and once more for the rejected rows where the plan says so; what stands there then."""
    _restart_until_done(world, plan, verdict, retry=False)
    if not plan.retry:
        return part_bytes(world.job)
    (root / MENDED).touch()
    _restart_until_done(world, plan, verdict, retry=True)
    return row_contents(world.job)


def _restart_until_done(world: World, plan: Schedule, verdict: Verdict, *, retry: bool) -> None:
    for number in range(RESTLESS_LIVES + 1):
        if number == RESTLESS_LIVES:
            world.crash_rate = world.storage_rate = 0.0
        name = f"{plan.seed}/{'retry' if retry else 'first'}/{number}"
        verdict.lives += 1
        two = plan.company and not retry
        if _two_at_once(world, name) if two else live(world, name, retry=retry):
            return
        verdict.broken += _visible_too_early(world.job, retry=retry)
    verdict.broken.append("a life without faults did not end in peace")


def _two_at_once(world: World, name: str) -> bool:
    """Two runs of the job, taking turns; done when either is."""
    turns = Turns(name)
    done: list[bool] = []

    def one(which: str) -> None:
        done.append(live(world, f"{name}/{which}", handover=turns.hand_over))

    turns.run([partial(one, "a"), partial(one, "b")])
    return any(done)


def _visible_too_early(job: Job, *, retry: bool) -> Iterator[str]:
    """After a death: what stands there is whole units, and work that is missing; nothing else."""
    try:
        report = verify(job.output.uri, Storage())
    except OutputError:  # it died before it had begun
        return
    for problem in report.problems:
        if problem.kind not in ALLOWED_EARLY:
            yield f"after a death: {problem.kind} {problem.where} {problem.message}"


def judge(
    verdict: Verdict,
    job: Job,
    *,
    expected: set[tuple[str, int, int]],
    undisturbed: dict[str, Any],
    disturbed: dict[str, Any],
    storage: Storage | None = None,
) -> None:
    """Hold the output against its manifest (by rows found, not by receipts), its audit, and the undisturbed output."""
    seen = Counter(place for place, _ in _rows(job))
    verdict.rows_lost = len(expected - seen.keys())
    verdict.rows_doubled = sum(times - 1 for times in seen.values())
    verdict.broken += [f"a row from nowhere: {place}" for place in sorted(seen.keys() - expected)]
    names = undisturbed.keys() | disturbed.keys()
    differ = sorted(name for name in names if undisturbed.get(name) != disturbed.get(name))
    verdict.parts_that_differ = len(differ)
    verdict.broken += [f"differs: {name}" for name in differ]
    report = verify(job.output.uri, storage or Storage())
    verdict.broken += [f"audit: {one.kind} {one.where} {one.message}" for one in report.problems]


def _rows(job: Job) -> Iterator[tuple[tuple[str, int, int], tuple[str, dict[str, Any]]]]:
    for folder, column in (("data", "lineage"), ("rejected", "rejection")):
        for row in all_rows(job, folder):
            origin = row[column]
            sample = origin["sample_index"] if column == "lineage" else origin["sample"]
            place = (origin["source_file"], origin["source_row"], sample)
            yield place, (folder, row)


def row_contents(job: Job) -> dict[str, Any]:
    """Every row by its place: what must agree where the names of parts tell how often rows were tried again."""
    return {str(place): content for place, content in _rows(job)}


def _judge_work(verdict: Verdict, world: World, plan: Schedule) -> None:
    """Only what was in hand at a death or a failure is done again; a second run at once repeats what it began with."""
    rows = {receipt.unit: receipt.rows for receipt in receipts(world.job)}
    passes = {unit: 1 for unit in rows}
    verdict.units_redone = sum(world.begun[unit] - passes[unit] for unit in rows)
    verdict.rows_redone = sum((world.begun[unit] - 1) * plan.samples * count for unit, count in rows.items())
    if not plan.company and not plan.retry and verdict.units_redone > world.interrupted:
        verdict.broken.append(f"{verdict.units_redone} units redone for {world.interrupted} in hand at a fault")
