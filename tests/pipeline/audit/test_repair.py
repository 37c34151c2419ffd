"""Repairing from Python: one call plans, clears and runs, and forgets nothing that cannot be made again."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.damage import (
    checkpoint_changes,
    checkpoint_goes,
    damage_receipt,
    manifest_changes,
    manifest_moves,
    miscount,
    pictures,
    plan_of,
    prompts,
    tree,
)
from tests.fakes import FakeEngine, all_rows, make_job, part_bytes, receipts, write_prompts
from tests.inprocess import retry_here, run_here
from unipic.pipeline.audit.repair import Repaired, clear, repair
from unipic.pipeline.audit.repair_plan import RepairPlan, plan_repair
from unipic.pipeline.audit.report import LISTED
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.errors import JobError
from unipic.pipeline.job import Job
from unipic.pipeline.lineage import sha256
from unipic.pipeline.output.heartbeat import presence
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.sealed import sealed, unsealed
from unipic.pipeline.storage.storage import Storage


def test_damaged_units_are_done_again_by_the_call_itself(job: Job, ray_session: None) -> None:
    whole = part_bytes(job)
    miscount(job, "a.parquet")
    cleared: list[Repaired] = []
    report = verify(job.output.uri, Storage())
    done = repair(job.output.uri, Storage(), report, on_cleared=cleared.append, make_engine=FakeEngine)
    assert [one.units for one in cleared] == [1] and cleared[0].result is None
    assert done.result is not None and done.result.outcome == "done" and done.refused == ""
    assert part_bytes(job) == whole
    assert verify(job.output.uri, Storage()).ok


def test_a_unit_that_cannot_be_made_again_is_left_untouched(job: Job, tmp_path: Path) -> None:
    unit = damage_receipt(job)
    manifest_moves(tmp_path, job)
    before = tree(job)
    done = repair(job.output.uri, Storage(), verify(job.output.uri, Storage()), make_engine=FakeEngine)
    assert done.left.keys() == {unit} and done.units == 0 and done.result is None
    assert tree(job) == before


def test_no_call_repairs_beside_a_run_at_work(job: Job) -> None:
    damage_receipt(job)
    report = verify(job.output.uri, Storage())
    with presence(Ledger(job.output.uri, Storage()), warn=print):
        before = tree(job)
        with pytest.raises(JobError, match="another run is active in"):
            repair(job.output.uri, Storage(), report, make_engine=FakeEngine)
        assert tree(job) == before


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (manifest_moves, "There is no manifest at"),
        (manifest_changes, "manifest file a.parquet changed. Put back what was there"),
        (checkpoint_goes, "is not a converted checkpoint"),
        (checkpoint_changes, "does not match its digest"),
    ],
)
def test_rows_that_cannot_be_made_again_are_left_where_they_are_and_it_says_why(
    job: Job, tmp_path: Path, change: Callable[[Path, Job], None], why: str
) -> None:
    unit = damage_receipt(job)
    change(tmp_path, job)
    before = tree(job)
    report, plan = plan_of(job)
    assert report.counts == {"damaged receipt": 1}
    assert plan.job is None and plan.left.keys() == {unit} and why in plan.left[unit]
    assert clear(job.output.uri, Storage(), report, plan).units == 0
    assert tree(job) == before


def test_units_of_a_manifest_file_that_is_gone_are_left_and_the_others_done_again(job: Job, tmp_path: Path) -> None:
    whole = part_bytes(job)
    gone, there = miscount(job, "a.parquet"), miscount(job, "b.parquet")
    (tmp_path / "manifest" / "a.parquet").unlink()
    report, plan = plan_of(job)
    assert (plan.units, plan.files, plan.left.keys()) == ({there}, {"b.parquet"}, {gone})
    assert "the manifest file a.parquet is gone. Put it back, or drop its rows with `unipic prune`" in plan.left[gone]
    assert clear(job.output.uri, Storage(), report, plan).units == 1
    assert plan.job is not None and run_here(plan.job, only=plan.files, again=plan.restored) == 1
    assert part_bytes(job) == whole
    assert verify(job.output.uri, Storage()).damaged_units == {gone}


def test_a_unit_of_which_an_input_picture_is_gone_keeps_the_row_that_was_made_of_it(tmp_path: Path) -> None:
    job = pictures(tmp_path)
    whole = part_bytes(job)
    units = sorted(one.unit for one in receipts(job))
    for receipt in Path(job.output.uri, "_unipic", "receipts").iterdir():
        receipt.write_text("{")
    (tmp_path / "pics" / "3.png").unlink()
    report, plan = plan_of(job)
    assert plan.units == {units[1]} and "row 3 of" in plan.left[units[0]] and "MissingPicture" in plan.left[units[0]]
    clear(job.output.uri, Storage(), report, plan)
    assert plan.job is not None
    assert [path in part_bytes(job) for path in sorted(whole)] == [True, False]


def test_a_job_for_a_gpu_is_not_repaired_on_a_machine_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts(tmp_path)
    job = make_job(tmp_path, model__device="auto", compute__gpus_per_replica=1)
    run_here(job)
    unit = miscount(job, "a.parquet")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    _, plan = plan_of(job)
    assert plan.job is None and "has no CUDA device that torch can use" in plan.left[unit]


def test_every_stranger_is_set_aside_however_many_problems_there_are(job: Job) -> None:
    for n in range(LISTED + 5):
        Path(job.output.uri, "data", f"{n}.txt").touch()
    report = verify(job.output.uri, Storage())
    assert len(report.problems) == LISTED
    assert clear(job.output.uri, Storage(), report, RepairPlan()).set_aside == LISTED + 5
    assert verify(job.output.uri, Storage()).ok


def parts(job: Job, folder: str = "data") -> list[Path]:
    return sorted((Path(job.output.uri) / folder).iterdir())


def _receipts(job: Job) -> list[Path]:
    return sorted((Path(job.output.uri) / "_unipic" / "receipts").iterdir())


def _alter_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


def _swap_two_pictures(job: Job) -> None:
    """A tampered part whose receipt was made to agree: only lineage can tell."""
    part, receipt = parts(job)[0], _receipts(job)[0]
    rows = pq.read_table(part)
    images = rows.column("image").to_pylist()
    images[0], images[1] = images[1], images[0]
    swapped = rows.set_column(rows.schema.get_field_index("image"), "image", [images])
    sink = io.BytesIO()
    pq.write_table(swapped.cast(rows.schema), sink)
    part.write_bytes(sink.getvalue())
    value = unsealed(receipt.read_text())
    value["parts"][0] |= {"sha256": sha256(sink.getvalue()), "bytes": len(sink.getvalue())}
    receipt.write_text(sealed(value))


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (lambda job: parts(job)[0].unlink(), "missing part"),
        (lambda job: _alter_a_byte(parts(job)[1]), "altered part"),
        (lambda job: parts(job, "rejected")[0].unlink(), "missing part"),
        (lambda job: _receipts(job)[2].unlink(), "missing unit"),
        (lambda job: _receipts(job)[0].write_text("{"), "damaged receipt"),
        (_swap_two_pictures, "wrong lineage"),
    ],
)
def test_damage_is_found_and_named_and_repair_mends_what_can_be_done_again(
    finished: Job, damage: Callable[[Job], object], kind: str
) -> None:
    whole = part_bytes(finished)
    damage(finished)
    storage = Storage(finished.storage)
    report = verify(finished.output.uri, storage)
    assert kind in report.counts
    plan = plan_repair(finished.output.uri, storage, report)
    clear(finished.output.uri, storage, report, plan)
    run_here(finished, again=plan.restored)
    assert part_bytes(finished) == whole
    assert verify(finished.output.uri, storage).ok


def test_a_repair_does_just_the_damaged_units_again_by_the_job_that_run_json_holds(finished: Job) -> None:
    whole = part_bytes(finished)
    kept = {path: path.stat().st_mtime_ns for path in [_receipts(finished)[1], parts(finished)[1]]}
    _alter_a_byte(parts(finished)[0])
    _receipts(finished)[2].write_text("{")
    (Path(finished.output.uri) / "data" / "notes.txt").write_text("?")
    write_prompts(Path(finished.input.manifest) / "new.parquet", ["new work is not a repair's"])
    storage = Storage(finished.storage)
    report = verify(finished.output.uri, storage)
    plan = plan_repair(finished.output.uri, storage, report)
    repaired = clear(finished.output.uri, storage, report, plan)
    assert (repaired.units, repaired.set_aside) == (2, 1)
    assert plan.job is not None and run_here(plan.job, only=plan.files, again=plan.restored) == 2
    assert part_bytes(finished) == whole
    assert verify(finished.output.uri, storage).ok
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_repair_runs_without_limits_that_would_end_it_and_with_the_micro_batch_there_was(finished: Job) -> None:
    parts(finished)[0].unlink()
    storage = Storage(finished.storage)
    record = Path(finished.output.uri) / "_unipic" / "run.json"
    value = unsealed(record.read_text())
    value["job"]["compute"]["batch_size"] = "auto"
    value["job"]["limits"] |= {"max_rejected": 0, "max_hours": 1e-6}
    record.write_text(sealed(value))
    plan = plan_repair(finished.output.uri, storage, verify(finished.output.uri, storage))
    again = plan.job
    assert again is not None
    assert (again.compute.batch_size, again.limits.max_rejected, again.limits.max_hours) == (4, "100%", None)
    assert plan.files == {"a.parquet"}


@pytest.mark.parametrize("images", ["inline", "files"])
def test_a_moved_output_is_repaired_where_it_is(tmp_path: Path, images: str) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"])
    job = make_job(tmp_path, output__images=images)
    run_here(job)
    moved = str(Path(job.output.uri).rename(tmp_path / "moved"))
    assert verify(moved, Storage()).ok
    next((tmp_path / "moved" / images.replace("inline", "data").replace("files", "images")).iterdir()).unlink()
    report = verify(moved, Storage())
    plan = plan_repair(moved, Storage(), report)
    assert plan.job is not None and plan.job.output.uri == moved
    clear(moved, Storage(), report, plan)
    run_here(plan.job, only=plan.files, again=plan.restored)
    assert verify(moved, Storage()).ok


def test_a_unit_whose_rejected_rows_were_tried_again_is_repaired_whole(flaky: Job, tmp_path: Path) -> None:
    run_here(flaky)
    (tmp_path / "mended").touch()
    retry_here(flaky)
    assert [path.name.endswith(".r1.parquet") for path in parts(flaky)] == [False, True]
    _alter_a_byte(parts(flaky)[1])
    storage = Storage()
    report = verify(flaky.output.uri, storage)
    plan = plan_repair(flaky.output.uri, storage, report)
    clear(flaky.output.uri, storage, report, plan)
    assert len(plan.redone) == 1
    run_here(flaky)
    assert verify(flaky.output.uri, storage).ok
    assert [row["prompt"] for row in all_rows(flaky)] == ["a", f"flaky {tmp_path}/mended"]


def test_a_file_of_somebody_else_is_named_and_set_aside_unharmed(finished: Job) -> None:
    stranger = Path(finished.output.uri) / "data" / "part-x.parquet"
    stranger.write_bytes(b"?")
    neighbour = Path(finished.output.uri) / "captions" / "data" / "part-y.parquet"
    neighbour.parent.mkdir(parents=True)
    neighbour.write_bytes(b"another output")
    storage = Storage(finished.storage)
    report = verify(finished.output.uri, storage)
    assert [(one.kind, one.where) for one in report.problems] == [
        ("unexpected file", "data/part-x.parquet"),
        ("unexpected file", "captions/data/part-y.parquet"),
    ]
    assert clear(finished.output.uri, storage, report, RepairPlan()).set_aside == 1
    assert (Path(finished.output.uri) / "_unipic" / "set-aside" / "data" / "part-x.parquet").read_bytes() == b"?"
    assert neighbour.exists() and not stranger.exists()
    assert [one.where for one in verify(finished.output.uri, storage).problems] == ["captions/data/part-y.parquet"]
