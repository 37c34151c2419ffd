"""Packs: fewer and larger files, and everything else as it was."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.fakes import FakeEngine, all_rows, make_job, write_prompts
from tests.inprocess import retry_here, run_here
from unipic.pipeline.audit.export import export
from unipic.pipeline.audit.prune import prune
from unipic.pipeline.audit.repair import clear
from unipic.pipeline.audit.repair_plan import plan_repair
from unipic.pipeline.audit.replay import replay, replay_sample
from unipic.pipeline.audit.status import status
from unipic.pipeline.audit.trace import trace
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.bench.compact import bench_compact
from unipic.pipeline.crashpoints import POINTS
from unipic.pipeline.errors import JobError, OutputError
from unipic.pipeline.job import Job
from unipic.pipeline.output import compaction, pack_files
from unipic.pipeline.output.claims import claim
from unipic.pipeline.output.compaction import Compacted, Compaction
from unipic.pipeline.output.compaction import compact as compact_ledger
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.output.recovery import recover
from unipic.pipeline.preflight import preflight
from unipic.pipeline.run import what_is_left
from unipic.pipeline.stages import commit as committing
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()
COMMIT_POINTS = [point for point in POINTS if point.startswith("commit.") and not point.endswith("image")]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """Three manifest files of 11 rows, four rows a unit; one row of each is rejected, and one fails until `mended`."""
    for name in "abc":
        prompts = [f"{name} {n}" for n in range(9)]
        write_prompts(tmp_path / "manifest" / f"{name}.parquet", [*prompts, "", f"flaky {tmp_path}/mended"])
    return make_job(tmp_path, compute__rows_per_unit=4)


def compact(output_uri: str, storage: Storage, **options: Any) -> Compacted:
    return compact_ledger(Ledger(output_uri, storage), **options)


def data_files(job: Job) -> list[str]:
    return sorted(one.name for one in Path(job.output.uri, "data").iterdir())


def receipts(job: Job) -> list[str]:
    return sorted(one.name for one in Path(job.output.uri, "_unipic/receipts").glob("*.json"))


def rows(job: Job) -> list[dict[str, object]]:
    return sorted(all_rows(job), key=lambda one: (one["lineage"]["source_file"], one["lineage"]["source_row"]))


def check(job: Job, *, data: int, rejected: int) -> None:
    report = verify(job.output.uri, STORAGE)
    assert report.verdict == "sound", report.problems
    assert (len(all_rows(job)), len(all_rows(job, "rejected"))) == (data, rejected)
    assert (report.data, report.rejected) == (data, rejected)


def test_a_compacted_output_has_the_same_rows_in_one_file_and_no_receipts_beside_it(job: Job) -> None:
    run_here(job)
    before = rows(job)

    done = compact(job.output.uri, STORAGE)

    assert (done.units, done.packs, done.files_before, done.files_after) == (9, 1, 9, 1)
    assert len(data_files(job)) == 1
    assert receipts(job) == []
    assert rows(job) == before
    check(job, data=27, rejected=6)


def test_a_compaction_that_is_repeated_changes_nothing(job: Job) -> None:
    run_here(job)
    compact(job.output.uri, STORAGE)
    files = {path: path.read_bytes() for path in Path(job.output.uri).rglob("*") if path.is_file()}

    assert compact(job.output.uri, STORAGE).packs == 0

    assert {path: path.read_bytes() for path in Path(job.output.uri).rglob("*") if path.is_file()} == files


def test_a_run_after_a_compaction_finds_nothing_to_do(job: Job) -> None:
    run_here(job)
    compact(job.output.uri, STORAGE)
    assert run_here(job) == 0
    check(job, data=27, rejected=6)


def test_a_run_after_a_compaction_of_an_unfinished_output_makes_what_is_left(job: Job) -> None:
    run_here(job, only={"a.parquet", "c.parquet"})
    compact(job.output.uri, STORAGE)
    assert run_here(job) == 3
    check(job, data=27, rejected=6)


def test_rejected_rows_of_a_compacted_output_are_retried_and_the_next_compaction_takes_them_in(
    job: Job, tmp_path: Path
) -> None:
    run_here(job)
    compact(job.output.uri, STORAGE)
    (tmp_path / "mended").touch()

    retry_here(job)

    check(job, data=30, rejected=3)
    assert len(data_files(job)) == 4
    before = rows(job)
    assert compact(job.output.uri, STORAGE).files_after == 1
    assert rows(job) == before
    check(job, data=30, rejected=3)
    retry_here(job)
    check(job, data=30, rejected=3)


def test_a_retry_before_the_compaction_goes_into_the_pack(job: Job, tmp_path: Path) -> None:
    run_here(job)
    (tmp_path / "mended").touch()
    retry_here(job)
    compact(job.output.uri, STORAGE)
    assert len(data_files(job)) == 1
    check(job, data=30, rejected=3)


def test_new_units_join_a_small_pack_and_leave_a_large_one_alone(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    run_here(job, only={"a.parquet"})
    compact(job.output.uri, STORAGE)
    (first,) = data_files(job)
    run_here(job, only={"a.parquet", "b.parquet"})
    compact(job.output.uri, STORAGE)
    (second,) = data_files(job)
    assert first != second
    run_here(job)
    Compaction(Ledger(job.output.uri, STORAGE), part_bytes=100, on_units=lambda done, total: None).compact()
    assert second in data_files(job)
    check(job, data=27, rejected=6)


def test_a_changed_manifest_file_is_redone_and_the_other_files_of_its_pack_stay(job: Job, tmp_path: Path) -> None:
    run_here(job)
    compact(job.output.uri, STORAGE)
    others = [one for one in rows(job) if not one["lineage"]["source_file"].endswith("b.parquet")]
    write_prompts(tmp_path / "manifest" / "b.parquet", ["new", "and newer"])

    assert run_here(job, redo_changed=True) == 1

    check(job, data=20, rejected=4)
    assert [one for one in rows(job) if not one["lineage"]["source_file"].endswith("b.parquet")] == others


def test_a_pruned_manifest_file_leaves_its_pack(job: Job, tmp_path: Path) -> None:
    run_here(job)
    compact(job.output.uri, STORAGE)
    (tmp_path / "manifest" / "b.parquet").unlink()

    prune(job, STORAGE, remove=True)

    check(job, data=18, rejected=4)
    assert len(data_files(job)) == 1


def test_images_beside_the_parquet_stay_where_they_are(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"p {n}" for n in range(9)])
    job = make_job(tmp_path, compute__rows_per_unit=4, output__images="files")
    run_here(job)
    compact(job.output.uri, STORAGE)
    check(job, data=9, rejected=0)


def test_trace_replay_and_status_find_rows_of_a_pack(job: Job) -> None:
    run_here(job)
    before = status(job.output.uri, STORAGE)
    compact(job.output.uri, STORAGE)
    row = rows(job)[13]["lineage"]
    name = f"{row['source_file']}:{row['source_row']}"

    (step,) = trace(job.output.uri, name, STORAGE)

    assert step.lineage == row
    assert replay(job.output.uri, name, STORAGE, make_engine=FakeEngine).identical
    assert list(replay_sample(job.output.uri, 5, STORAGE, make_engine=FakeEngine)) == []
    after = status(job.output.uri, STORAGE)
    assert (after.ok, after.rejected, after.rejected_kinds) == (before.ok, before.rejected, before.rejected_kinds)


def test_a_trace_goes_on_through_an_output_that_was_compacted_after_the_next_job(job: Job, tmp_path: Path) -> None:
    run_here(job)
    manifest = {"manifest": f"{job.output.uri}/data", "columns": {"id": "id", "image": "image"}}
    captions = make_job(tmp_path, "caption", input=manifest, output__uri=str(tmp_path / "captions"))
    run_here(captions)
    before = trace(captions.output.uri, "b-4", STORAGE)
    compact(job.output.uri, STORAGE)
    after = trace(captions.output.uri, "b-4", STORAGE)
    assert [one.lineage for one in after] == [one.lineage for one in before]
    assert [one.source for one in after] == [one.source for one in before] and len(after) == 2


def test_captions_of_a_pack_are_exported_as_before(job: Job, tmp_path: Path) -> None:
    run_here(job)
    manifest = {"manifest": f"{job.output.uri}/data", "columns": {"id": "id", "image": "image"}}
    captions = make_job(
        tmp_path, "caption", input=manifest, output__uri=str(tmp_path / "captions"), compute__rows_per_unit=2
    )
    run_here(captions)
    export(captions.output.uri, tmp_path / "before.jsonl", STORAGE)
    compact(captions.output.uri, STORAGE)
    export(captions.output.uri, tmp_path / "after.jsonl", STORAGE)
    assert (tmp_path / "after.jsonl").read_text() == (tmp_path / "before.jsonl").read_text()


def test_row_groups_are_small_enough_to_page_through_and_have_a_page_index(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(job)
    monkeypatch.setattr(pack_files, "GROUP_ROWS", 10)
    compact(job.output.uri, STORAGE)
    (name,) = data_files(job)
    with pq.ParquetFile(Path(job.output.uri, "data", name)) as file:
        assert [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)] == [13, 13, 1]
        assert file.metadata.row_group(0).column(0).has_offset_index
        assert json.loads(file.schema_arrow.metadata[b"huggingface"])
    check(job, data=27, rejected=6)


def test_a_damaged_part_is_not_given_a_new_digest(job: Job) -> None:
    run_here(job)
    part = Path(job.output.uri, "data", data_files(job)[3])
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)

    with pytest.raises(OutputError, match="does not match its receipt"):
        compact(job.output.uri, STORAGE)

    assert len(data_files(job)) == 9


@pytest.mark.parametrize("harm", ["flipped", "gone", "record"])
def test_a_damaged_pack_is_found_and_repaired_to_the_same_rows(job: Job, harm: str) -> None:
    run_here(job)
    before = rows(job)
    compact(job.output.uri, STORAGE)
    (pack,) = Path(job.output.uri, "data").iterdir()
    (record,) = Path(job.output.uri, "_unipic/packs").iterdir()
    damaged = record if harm == "record" else pack
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data) if harm != "gone" else damaged.unlink()

    report = verify(job.output.uri, STORAGE)

    assert report.verdict == "damaged"
    assert len(report.damaged_units) == 9
    plan = plan_repair(job.output.uri, STORAGE, report)
    assert (len(plan.redone), plan.left) == (9, {})
    clear(job.output.uri, STORAGE, report, plan)
    assert run_here(job) == 9
    check(job, data=27, rejected=6)
    assert [one["lineage"] for one in rows(job)] == [one["lineage"] for one in before]


def test_rows_of_a_damaged_pack_that_cannot_be_made_again_stay(job: Job, tmp_path: Path) -> None:
    run_here(job)
    compact(job.output.uri, STORAGE)
    (pack,) = Path(job.output.uri, "data").iterdir()
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    (tmp_path / "manifest" / "b.parquet").unlink()
    report = verify(job.output.uri, STORAGE)
    plan = plan_repair(job.output.uri, STORAGE, report)
    assert len(plan.left) == 3

    with pytest.raises(OutputError, match="does not match its digest in the epoch"):
        clear(job.output.uri, STORAGE, report, plan)

    assert pack.read_bytes() == data


@pytest.mark.parametrize("dies", [False, True], ids=["and goes on", "and dies"])
@pytest.mark.parametrize("valid_first", [False, True])
@pytest.mark.parametrize("point", COMMIT_POINTS)
def test_a_worker_that_sleeps_through_a_compaction_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, valid_first: bool, dies: bool
) -> None:
    mark = tmp_path / "mark"
    if valid_first:
        mark.touch()
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"flaky {mark}", "", "c", "d"])
    job = make_job(tmp_path, compute__rows_per_unit=2)
    settled: list[list[dict[str, object]]] = []

    def meanwhile(name: str) -> None:
        if name != point:
            return
        monkeypatch.setattr(committing, "crash_point", lambda _: None)
        mark.unlink() if valid_first else mark.touch()
        run_here(job)
        compact(job.output.uri, STORAGE)
        settled.append(rows(job))
        if dies:
            raise Died

    monkeypatch.setattr(committing, "crash_point", meanwhile)
    with contextlib.suppress(Died):
        run_here(job)
    assert settled == [rows(job)]
    run_here(job)
    assert settled == [rows(job)]
    check(job, data=len(settled[0]), rejected=4 - len(settled[0]))


@pytest.mark.parametrize("point", COMMIT_POINTS)
def test_a_retry_that_sleeps_through_a_compaction_adds_its_rows_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    mark = tmp_path / "mark"
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"flaky {mark}", "b", "c", "d"])
    job = make_job(tmp_path, compute__rows_per_unit=2)
    run_here(job)
    mark.touch()

    def meanwhile(name: str) -> None:
        if name == point:
            monkeypatch.setattr(committing, "crash_point", lambda _: None)
            compact(job.output.uri, STORAGE)

    monkeypatch.setattr(committing, "crash_point", meanwhile)
    retry_here(job)
    check(job, data=4, rejected=0)
    compact(job.output.uri, STORAGE)
    check(job, data=4, rejected=0)


def test_a_redo_between_two_commits_of_a_compaction_refuses_the_second(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(job)
    monkeypatch.setattr(compaction, "PACKS_AT_ONCE", 1)

    class Interrupted(Storage):
        """Another process redoes a file as soon as the first epoch of the compaction is there."""

        def put_if_absent(self, uri: str, data: bytes) -> bool:
            put = super().put_if_absent(uri, data)
            if uri.endswith("epochs/000002.json"):
                write_prompts(tmp_path / "manifest" / "c.parquet", ["new", "newer"])
                context, manifest, other = preflight(job, STORAGE)
                claim(other, job, manifest, context.checkpoint_digest, redo_changed=True)
            return put

    two_parts = 2 * max(one.stat().st_size for one in Path(job.output.uri, "data").iterdir())
    with pytest.raises(OutputError, match="was changed by another process while it was compacted"):
        Compaction(Ledger(job.output.uri, Interrupted()), part_bytes=two_parts, on_units=lambda *_: None).compact()

    run_here(job)
    check(job, data=20, rejected=4)


def test_a_part_that_comes_back_beside_its_pack_goes_with_the_next_run(job: Job) -> None:
    run_here(job)
    part = next(Path(job.output.uri, "data").iterdir())
    copied = part.read_bytes()
    compact(job.output.uri, STORAGE)
    part.write_bytes(copied)
    assert verify(job.output.uri, STORAGE).counts == {"superseded file": 1}

    run_here(job)

    assert not part.exists()
    check(job, data=27, rejected=6)


def test_a_worker_that_has_seen_an_epoch_before_deletes_no_pack_of_a_later_one(job: Job) -> None:
    run_here(job)
    ledger = Ledger(job.output.uri, STORAGE)
    before = ledger.recorded()
    compact(job.output.uri, STORAGE)
    recover(ledger, ledger.snapshot(before))
    check(job, data=27, rejected=6)


@pytest.mark.parametrize("alike", [True, False])
def test_of_two_compactions_at_once_one_counts(job: Job, alike: bool) -> None:
    run_here(job)
    two_parts = 2 * max(one.stat().st_size for one in Path(job.output.uri, "data").iterdir())
    part_bytes = 2**28 if alike else two_parts
    ledger = Ledger(job.output.uri, STORAGE)
    others = [Compaction(ledger, part_bytes=part_bytes, on_units=lambda done, total: None)]

    def meanwhile(done: int, total: int) -> None:
        while others:
            others.pop().compact()

    refused = pytest.raises(OutputError, match="was changed by another process while it was compacted")
    with contextlib.nullcontext() if alike else refused:
        compact(job.output.uri, STORAGE, on_units=meanwhile)
    run_here(job)
    check(job, data=27, rejected=6)


def test_a_pack_is_refused_while_a_run_is_at_work(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    run_here(job)
    folder = Path(job.output.uri, "_unipic/running")
    folder.mkdir()
    (folder / f"{'0' * 32}.json").write_text(
        json.dumps({"host": "h", "pid": 1, "started": time.time(), "seen": time.time()})
    )
    with pytest.raises(JobError, match="a run is active"):
        compact(job.output.uri, STORAGE)


class Died(BaseException):
    """The process is gone."""


def test_a_compaction_that_dies_at_any_write_is_finished_by_the_next_command(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_here(job)
    before = rows(job)
    counting = Dying(-1)
    compact(copy(job, tmp_path / "counted").output.uri, counting)
    writes = counting.writes
    assert writes > 20
    for death in range(writes):
        here = copy(job, tmp_path / f"dies-{death}")
        dying = Dying(death)
        with pytest.raises(Died):
            compact(here.output.uri, dying)
        seen = [(one["lineage"]["source_file"], one["lineage"]["source_row"]) for one in all_rows(here)]
        assert len(seen) == len(set(seen)), f"a row is doubled after write {death}"
        if death % 2:
            compact(here.output.uri, STORAGE)
        else:
            run_here(here)
        assert rows(here) == before
        check(here, data=27, rejected=6)


def copy(job: Job, to: Path) -> Job:
    shutil.copytree(job.output.uri, to)
    return job.model_copy(update={"output": job.output.model_copy(update={"uri": str(to)})})


class Dying(Storage):
    """Storage of a process that dies at its n-th write."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at
        self.writes = 0

    def count(self) -> None:
        if self.writes == self.at:
            raise Died
        self.writes += 1

    def write(self, uri: str, data: bytes) -> None:
        self.count()
        super().write(uri, data)

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        self.count()
        return super().put_if_absent(uri, data)

    def delete(self, uri: str) -> None:
        self.count()
        super().delete(uri)

    def move(self, source: str, target: str, **how: bool) -> None:
        self.count()
        super().move(source, target, **how)


def test_the_benchmark_shows_one_file_of_small_rows_that_opens_as_fast_as_one() -> None:
    found = bench_compact(2_000)
    assert found.files == (16, 1) and found.row_bytes[1] < min(120, found.row_bytes[0])


def test_a_resume_and_a_status_of_a_merged_output_read_no_record_and_few_receipts(job: Job) -> None:
    run_here(job, only={"a.parquet", "b.parquet"})
    compact(job.output.uri, STORAGE)
    run_here(job, only={"a.parquet", "b.parquet", "c.parquet"})
    before = status(job.output.uri, STORAGE)
    record, *others = Path(job.output.uri, "_unipic/packs").iterdir()
    assert others == []
    moved = record.rename(record.with_suffix(".away"))

    now = status(job.output.uri, STORAGE)
    context, manifest, ledger = preflight(job, STORAGE)
    work = what_is_left(context, manifest, ledger, ledger.snapshot(ledger.recorded()))

    assert (now.ok, now.rejected, now.rejected_kinds) == (before.ok, before.rejected, before.rejected_kinds)
    assert (work.tally.ok, work.tally.rejected, work.tally.units_left) == (now.ok, now.rejected, 0)
    moved.rename(record)
    retried = what_is_left(context, manifest, ledger, ledger.snapshot(ledger.recorded()), retry_rejected=True)
    assert sum(len(wave.units) for wave in retried.queue.waves()) == 3
