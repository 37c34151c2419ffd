"""Repairing from Python: one call plans, clears and runs, and forgets nothing that cannot be made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.damage import damage_receipt, manifest_moves, miscount, tree, two_files
from tests.fakes import FakeEngine, part_bytes
from unipic.pipeline.audit.repair import Repaired, repair
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.job import Job
from unipic.pipeline.storage.storage import Storage


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return two_files(tmp_path)


def test_damaged_units_are_done_again_by_the_call_itself(job: Job, ray_session: None) -> None:
    whole = part_bytes(job)
    miscount(job, "a.parquet")
    cleared: list[Repaired] = []
    report = verify(job.output.uri, Storage())
    done = repair(job.output.uri, Storage(), report, on_cleared=cleared.append, make_engine=FakeEngine)
    assert [one.forgotten for one in cleared] == [1] and cleared[0].result is None
    assert done.result is not None and done.result.outcome == "done" and done.refused == ""
    assert part_bytes(job) == whole
    assert verify(job.output.uri, Storage()).ok


def test_a_unit_that_cannot_be_made_again_is_left_untouched(job: Job, tmp_path: Path) -> None:
    unit = damage_receipt(job)
    manifest_moves(tmp_path, job)
    before = tree(job)
    done = repair(job.output.uri, Storage(), verify(job.output.uri, Storage()), make_engine=FakeEngine)
    assert done.left.keys() == {unit} and done.forgotten == 0 and done.result is None
    assert tree(job) == before
