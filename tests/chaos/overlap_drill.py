"""A schedule of overlapping processes, and what is held of the output that they leave."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from typing import Any

from tests.chaos.cast import ModelEngine, Purpose
from tests.chaos.drill import Verdict
from tests.chaos.overlap import KINDS, TICK_S, TICKS, Place
from tests.fakes import all_rows
from tests.inprocess import run_here
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.job import Job
from unipic.pipeline.output.ledger import Ledger


def overlap_drill(seed: int, root: Path, uri: str, storage: dict[str, Any]) -> Verdict:
    """One schedule.

    Args:
        uri: of an empty folder for the output; `storage`: how to reach it.
    """
    verdict = Verdict(seed)
    place = Place(seed, root, uri, storage, verdict.faults)
    try:
        for _ in range(TICKS):
            place.strike(place.dice.choice(KINDS))
            place.serve(place.dice.random() * 2 * TICK_S)
        _judge(place, verdict)
    finally:
        place.close()
    verdict.lives = sum(one.driver is None for one in place.processes)
    return verdict


def _judge(place: Place, verdict: Verdict) -> None:
    """Make the output whole in peace while others sleep; wake them; see that nothing changed and nothing is amiss."""
    for one in [one for one in place.processes if one.alive and not one.frozen]:
        one.send(signal.SIGSTOP)
        one.frozen = True
    sleepers = [one for one in place.processes if one.alive]
    for name in sorted(place.hidden):
        place.hide(name)
    place.calm = True
    job = _owner(place)
    for purpose in (Purpose(redo=True), Purpose(retry=True)):
        quiet = place.start(purpose, job)
        if not place.to_their_end([quiet]) or quiet.seen is None:
            verdict.broken.append(f"a quiet {purpose} ended with: {quiet.said or 'nothing'}")
            return
    whole = _contents(job)
    for one in sleepers:
        place.wake(one)
    if not place.to_their_end(sleepers):
        verdict.broken.append(f"never ended after they woke: {[one.handle.pid for one in sleepers if one.alive]}")
    now = _contents(job)
    changed = [at for at in sorted(whole.keys() | now.keys()) if whole.get(at) != now.get(at)]
    verdict.broken += [f"woken processes changed {at}" for at in changed]
    _compare(place, job, verdict)
    last = place.start(Purpose(), job)
    if not place.to_their_end([last]) or last.seen is None:
        verdict.broken.append(f"the last run ended with: {last.said or 'nothing'}")
    report = verify(job.output.uri, place.storage)
    verdict.broken += [f"audit: {one.kind} {one.where} {one.message}" for one in report.problems]


def _owner(place: Place) -> Job:
    """The job whose output it became."""
    identity = Ledger(place.jobs[0].output.uri, place.storage).identity()
    return place.jobs[identity is not None and identity.name == "other"]


def _compare(place: Place, job: Job, verdict: Verdict) -> None:
    """Hold rows against the manifest and an undisturbed run, and runs that ended well against what is there."""
    elsewhere = make_calm(place, job)
    expected, found = _contents(elsewhere), _contents(job)
    verdict.rows = sum(len(rows) for rows in expected.values())
    verdict.rows_lost = len(expected.keys() - found.keys())
    verdict.rows_doubled = sum(len(rows) - 1 for rows in found.values())
    verdict.parts_that_differ = sum(found[at] != rows for at, rows in expected.items() if at in found)
    verdict.broken += [f"a row from nowhere: {at}" for at in sorted(found.keys() - expected.keys())]
    ledger = Ledger(job.output.uri, place.storage)
    snapshot = ledger.snapshot(ledger.recorded())
    for process in place.processes:
        for unit, revision in (process.seen or {}).items():
            now = snapshot.revision(unit)
            since = snapshot.run.since(unit)
            if revision.since == since and snapshot.is_planned(unit) and (now is None or now.number < revision.number):
                verdict.green_with_work_missing += 1


def make_calm(place: Place, job: Job) -> Job:
    """The same job, done undisturbed in a folder on this disk."""
    calm = job.model_copy(update={"output": job.output.model_copy(update={"uri": str(place.root / "calm")})})
    run_here(calm, make_engine=partial(ModelEngine, rejects=frozenset()))
    return calm


def _contents(job: Job) -> dict[tuple[str, int], list[str]]:
    """Manifest file and row → what each of its outcomes says."""
    found: dict[tuple[str, int], list[str]] = {}
    for folder, column in (("data", "lineage"), ("rejected", "rejection")):
        for row in all_rows(job, folder):
            origin = row[column]
            says = str([row["prompt"], origin.get("output_sha256"), origin.get("kind")])
            found.setdefault((origin["source_file"].rpartition("/")[2], origin["source_row"]), []).append(says)
    return found
