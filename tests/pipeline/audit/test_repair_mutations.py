"""Every change that an audit finds is undone by a repair, byte for byte, or refused with the reason.

A unit whose rejected rows were retried is made again as a whole, in a new epoch: the same rows, in one part.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pytest

from tests.fakes import all_rows, part_bytes
from tests.inprocess import run_here
from tests.pipeline.audit.test_mutations import MUTATIONS, ROWS_PER_UNIT, finished
from unipic.pipeline.audit.repair import clear, not_restored
from unipic.pipeline.audit.repair_plan import plan_repair
from unipic.pipeline.audit.report import ProblemKind, Report
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.errors import ManifestError
from unipic.pipeline.job import Job
from unipic.pipeline.output.layout import EPOCHS
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.seal import seal
from unipic.pipeline.output.withdrawal import owner_of
from unipic.pipeline.records import UnitId
from unipic.pipeline.storage.storage import Storage


def repaired(job: Job) -> tuple[dict[str, str], Collection[UnitId], Report]:
    """What `repair` does, without Ray: units that are left, with the reasons, those redone, and an audit afterwards."""
    report = verify(job.output.uri, Storage())
    plan = plan_repair(job.output.uri, Storage(), report)
    clear(job.output.uri, Storage(), report, plan)
    if plan.job is not None:
        run_here(plan.job, only=plan.files, again=plan.restored)
    left = {**plan.left, **not_restored(job.output.uri, Storage(), plan)}
    return left, plan.redone, verify(job.output.uri, Storage())


def check_repaired(job: Job, rounds: int, seed: int, scratch: Path) -> Counter[str]:
    """Mutate a copy of the output `rounds` times and repair it; returns how often that undid it, or was refused."""
    output, whole = Path(job.output.uri), scratch / "whole"
    seal(Ledger(job.output.uri, Storage()))
    shutil.copytree(output, whole)
    parts, rows = part_bytes(job), rows_of(job)
    chance = random.Random(seed)
    files = sorted(path.relative_to(output) for path in output.rglob("*") if path.is_file())
    ended: Counter[str] = Counter()
    for number in range(rounds):
        mutate = MUTATIONS[number % len(MUTATIONS)]
        name, other = chance.sample(files, 2)
        mutate(output / name, output / other, chance)
        what = f"{mutate.__name__} of {name} with {other}"
        left, redone, report = repaired(job)
        if ProblemKind.MISSING_UNIT in report.counts:  # a receipt is gone without a trace: its unit is left to do
            with contextlib.suppress(ManifestError):  # an epoch is gone, and the one before it has another manifest
                run_here(job)
            report = verify(job.output.uri, Storage())
        if report.counts.keys() <= {ProblemKind.BROKEN_SEAL}:  # of a unit that was made again, in another second
            assert rows_of(job) == rows, what
            assert without(part_bytes(job), redone) == without(parts, redone), what
            ended["undone"] += 1
        else:
            lost_epoch = any(one.where.startswith(EPOCHS) for one in report.problems)  # its units come back with it
            for problem in report.problems:
                if lost_epoch and problem.kind is ProblemKind.MISSING_UNIT:
                    continue
                told = problem.unit in left or any(word in problem.message for word in REMEDIES)
                assert told, f"{what}: {problem}"
            ended["refused"] += 1
        shutil.rmtree(output)
        shutil.copytree(whole, output)
    return ended


def rows_of(job: Job) -> dict[tuple[str, int, int], bytes | str]:
    """Every output row: the digest of its output, or why it was rejected."""
    data = [(row["lineage"], row.get("sample", 0), row["lineage"]["output_sha256"]) for row in all_rows(job)]
    faults = [row["rejection"] for row in all_rows(job, "rejected")]
    rejected = [(fault, fault["sample"], fault["kind"]) for fault in faults]
    return {(one["source_file"], one["source_row"], sample): end for one, sample, end in [*data, *rejected]}


def without(files: dict[str, bytes], units: Collection[UnitId]) -> dict[str, bytes]:
    """`files` that are of no unit in `units`."""
    owners = {path: owner_of(path.removeprefix("/"), ROWS_PER_UNIT) for path in files}
    return {path: data for path, data in files.items() if (owner := owners[path]) is None or owner[0] not in units}


REMEDIES = ("estore", "unipic seal", "move it away")
"""Records that nothing can be made again from are to be restored; a seal is for its owner to make again."""


@pytest.mark.parametrize("kind", ["inside", "beside", "captions"])
def test_a_sample_of_changes_is_undone_by_repair_or_refused_with_the_reason(tmp_path: Path, kind: str) -> None:
    ended = check_repaired(finished(tmp_path, kind), 24, 3, tmp_path)
    assert ended["undone"] > 12


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["inside", "beside", "captions"])
def test_four_hundred_changes_are_undone_by_repair_or_refused_with_the_reason(tmp_path: Path, kind: str) -> None:
    ended = check_repaired(finished(tmp_path, kind), 400, 11, tmp_path)
    assert ended["undone"] > 200 and ended["refused"] > 10
