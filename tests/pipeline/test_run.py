"""Whole runs on real Ray with a stand-in engine: resume, stop, faults, and the same bytes whatever happened."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fakes import (
    BlockingEngine,
    BrokenEngine,
    FakeEngine,
    all_rows,
    make_job,
    part_bytes,
    receipts,
    write_prompts,
)
from unipic.pipeline.audit.prune import prune
from unipic.pipeline.audit.status import status
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.code_version import code_version
from unipic.pipeline.errors import EngineError, ManifestError, OutputError
from unipic.pipeline.lineage import recompute_id
from unipic.pipeline.output.heartbeat import presence
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.run import Progress, run
from unipic.pipeline.storage.storage import Storage

PROMPTS = [f"prompt {n}" for n in range(20)]


@pytest.fixture(scope="module", autouse=True)
def one_ray(ray_session: None) -> Iterator[None]:
    """Every run here shares one local Ray: starting it is most of a small run's time."""
    yield


def test_a_run_accounts_for_every_row_and_its_lineage_recomputes(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", [*PROMPTS, "", None])
    job = make_job(tmp_path)
    result = run(job, make_engine=FakeEngine)
    assert (result.outcome, result.rows, result.ok, result.rejected) == ("done", 22, 20, 2)
    rows = all_rows(job)
    assert [row["prompt"] for row in rows] == PROMPTS
    assert all(recompute_id(row["lineage"]) == row["lineage"]["lineage_id"] for row in rows)
    assert {row["lineage"]["code_version"] for row in rows} == {code_version()}, "workers state the driver's version"
    assert [row["rejection"]["kind"] for row in all_rows(job, "rejected")] == ["EmptyPrompt"] * 2
    assert status(job.output.uri, Storage(job.storage)).finished


def test_the_rejected_rows_are_a_manifest_again(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["", "fine"], extra=[1, 2])
    job = make_job(tmp_path)
    run(job, make_engine=FakeEngine)
    (row,) = all_rows(job, "rejected")
    assert (row["id"], row["prompt"], row["extra"], row["rejection"]["source_row"]) == ("a-0", "", 1, 0)


def test_a_second_run_does_nothing_again_and_a_new_file_is_new_units_only(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", PROMPTS)
    job = make_job(tmp_path)
    run(job, make_engine=FakeEngine)
    before = part_bytes(job)
    write_prompts(tmp_path / "manifest" / "b.parquet", ["new one", "new two"])
    result = run(job, make_engine=FakeEngine)
    assert (result.earlier, result.ok) == (20, 22)
    after = part_bytes(job)
    assert {name: after[name] for name in before} == before and len(after) == len(before) + 1


def test_a_run_merges_its_parts_where_the_job_says_so(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", PROMPTS)
    job = make_job(tmp_path, output__part_mb=16)
    said: list[str] = []
    result = run(job, make_engine=FakeEngine, on_progress=lambda now: said.extend(now.notes))
    (name,) = part_bytes(job)
    assert name.startswith("/data/pack-") and "3 data files are now 1" in said
    assert [row["prompt"] for row in all_rows(job)] == PROMPTS
    assert (result.outcome, status(job.output.uri, Storage(job.storage)).finished) == ("done", True)


def test_a_run_stopped_in_its_middle_resumes_to_the_same_bytes(tmp_path: Path) -> None:
    write_prompts(tmp_path / "whole" / "manifest" / "a.parquet", [f"p {n}" for n in range(64)])
    write_prompts(tmp_path / "twice" / "manifest" / "a.parquet", [f"p {n}" for n in range(64)])
    whole, twice = make_job(tmp_path / "whole"), make_job(tmp_path / "twice")
    run(whole, make_engine=FakeEngine)
    stop = threading.Event()

    def stop_early(progress: Progress) -> None:
        if progress.units_done:
            stop.set()

    first = run(twice, make_engine=FakeEngine, stop=stop, on_progress=stop_early)
    second = run(twice, make_engine=FakeEngine)
    assert first.outcome in ("stopped", "done") and second.outcome == "done"
    ours, theirs = part_bytes(whole), part_bytes(twice)
    assert ours == theirs


def test_a_replica_killed_in_mid_unit_is_replaced_and_the_parts_are_the_same_bytes(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", [*PROMPTS[:9], f"once {tmp_path}/mark", *PROMPTS[10:]])
    disturbed, calm = make_job(tmp_path), make_job(tmp_path, output__uri=str(tmp_path / "calm"))
    result = run(disturbed, make_engine=FakeEngine)
    assert (result.outcome, result.ok) == ("done", 20)
    assert (tmp_path / "mark").exists()
    assert max(r.facts.attempts for r in receipts(disturbed)) == 2
    run(calm, make_engine=FakeEngine)
    assert part_bytes(disturbed) == part_bytes(calm)


def test_a_row_that_kills_every_replica_is_rejected_and_the_rest_of_its_unit_delivered(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "die", "c"])
    job = make_job(tmp_path, compute__batch_size=3)
    result = run(job, make_engine=FakeEngine)
    assert (result.outcome, result.ok, result.rejected) == ("done", 2, 1)
    (row,) = all_rows(job, "rejected")
    assert row["rejection"]["kind"] == "ReplicaCrashed" and row["prompt"] == "die"


def test_a_model_that_cannot_load_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", PROMPTS)
    with pytest.raises(EngineError, match="could not load its model: OSError: the driver is gone"):
        run(make_job(tmp_path), make_engine=BrokenEngine)


def test_a_job_that_goes_wrong_stops_early_and_says_so(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", [""] * 20)
    result = run(make_job(tmp_path, limits__max_rejected="10%"), make_engine=FakeEngine)
    assert result.outcome == "rejected" and "limits.max_rejected allows 2 of 20" in result.message


def test_another_job_at_the_same_output_is_refused_with_the_fields_that_differ(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    run(make_job(tmp_path), make_engine=FakeEngine)
    with pytest.raises(OutputError, match=r"params\.guidance: 3\.0 there, 4\.0 now"):
        run(make_job(tmp_path, params__guidance=4.0), make_engine=FakeEngine)


def test_a_manifest_file_that_changed_under_its_name_is_refused_by_name(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    run(make_job(tmp_path), make_engine=FakeEngine)
    write_prompts(tmp_path / "manifest" / "a.parquet", ["b", "c"])
    with pytest.raises(ManifestError, match=r"a\.parquet changed"):
        run(make_job(tmp_path), make_engine=FakeEngine)


def test_the_fused_layout_writes_the_same_bytes_as_the_staged_one(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", PROMPTS)
    staged = make_job(tmp_path)
    fused = make_job(tmp_path, output__uri=str(tmp_path / "fused"), compute__layout="fused")
    run(staged, make_engine=FakeEngine)
    run(fused, make_engine=FakeEngine)
    assert part_bytes(staged) == part_bytes(fused)


def test_samples_and_kept_columns_reach_the_rows(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"], tag=["x", "y"])
    job = make_job(tmp_path, params__samples_per_row=2, input__keep=["tag"])
    run(job, make_engine=FakeEngine)
    rows = all_rows(job)
    assert [(row["prompt"], row["sample"], row["tag"]) for row in rows] == [
        ("a", 0, "x"),
        ("a", 1, "x"),
        ("b", 0, "y"),
        ("b", 1, "y"),
    ]
    assert len({row["lineage"]["seed"] for row in rows}) == 4


@pytest.mark.parametrize("images", ["inline", "files"])
def test_datasets_opens_images_inside_the_parquet_and_files_beside_it(tmp_path: Path, images: str) -> None:
    import datasets

    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"])
    job = make_job(tmp_path, output__images=images)
    run(job, make_engine=FakeEngine)
    moved = Path(job.output.uri).rename(tmp_path / "moved")
    loaded = datasets.load_dataset(str(moved), split="train", cache_dir=str(tmp_path / "cache"))
    if images == "files":
        loaded = loaded.map(lambda row: {"image": {"path": str(moved / row["image"]["path"])}})
        loaded = loaded.cast_column("image", datasets.Image())
        assert len(list((moved / "images").iterdir())) == 2
        assert pq.read_table(moved / "data").column("image").combine_chunks().field("bytes").null_count == 2
    assert isinstance(loaded.features["image"], datasets.Image)
    assert loaded[0]["image"].size == (16, 16)
    assert pa.types.is_struct(pq.read_schema(next((moved / "data").iterdir())).field("lineage").type)


def test_rejected_rows_are_tried_again_and_folded_in(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", f"flaky {tmp_path}/mended", "c", "", "e"])
    job = make_job(tmp_path)
    first = run(job, make_engine=FakeEngine)
    assert (first.ok, first.rejected) == (3, 2)
    before = part_bytes(job)
    (tmp_path / "mended").touch()
    second = run(job, make_engine=FakeEngine, retry_rejected=True)
    assert (second.outcome, second.ok, second.rejected) == ("done", 4, 1)
    after = part_bytes(job)
    (data,) = [name for name in before if name.startswith("/data")]
    assert after[data] == before[data] and len(after) == 3
    assert [row["rejection"]["source_row"] for row in all_rows(job, "rejected")] == [3]
    assert sorted(row["lineage"]["source_row"] for row in all_rows(job)) == [0, 1, 2, 4]
    assert verify(job.output.uri, Storage(job.storage)).ok
    third = run(job, make_engine=FakeEngine, retry_rejected=True)
    assert (third.ok, third.rejected) == (4, 1)
    assert verify(job.output.uri, Storage(job.storage)).ok


def test_a_changed_manifest_file_is_done_again_when_told_so_and_the_others_are_not(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", PROMPTS)
    write_prompts(tmp_path / "manifest" / "b.parquet", ["b"])
    job = make_job(tmp_path)
    run(job, make_engine=FakeEngine)
    write_prompts(tmp_path / "manifest" / "a.parquet", ["new"])
    result = run(job, make_engine=FakeEngine, redo_changed=True)
    assert (result.outcome, result.earlier, result.ok) == ("done", 1, 2)
    assert sorted(row["prompt"] for row in all_rows(job)) == ["b", "new"]
    assert verify(job.output.uri, Storage(job.storage)).ok


def test_rows_of_a_removed_file_stay_until_they_are_pruned(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_prompts(tmp_path / "manifest" / f"{name}.parquet", [name])
    job = make_job(tmp_path)
    run(job, make_engine=FakeEngine)
    (tmp_path / "manifest" / "b.parquet").unlink()
    notes: list[str] = []
    run(job, make_engine=FakeEngine, on_progress=lambda progress: notes.extend(progress.notes))
    assert notes[0].startswith("gone from the manifest: b.parquet;")
    assert sorted(row["prompt"] for row in all_rows(job)) == ["a", "b"]
    assert [one.name for one in prune(job, Storage(job.storage), remove=True)] == ["b.parquet"]
    assert [row["prompt"] for row in all_rows(job)] == ["a"]
    assert verify(job.output.uri, Storage(job.storage)).ok


def test_a_replica_that_hangs_writes_its_stacks_and_its_row_is_found(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "hang"])
    job = make_job(tmp_path, compute__batch_size=1, limits__batch_timeout_s=1.0)
    result = run(job, make_engine=FakeEngine)
    assert (result.ok, result.rejected) == (1, 1)
    (report,) = (tmp_path / "out" / "_unipic" / "reports").iterdir()
    assert "no answer for rows 1 to 1" in report.read_text() and "in _one_row" in report.read_text()


def test_a_run_without_any_progress_stops_and_can_be_resumed(tmp_path: Path) -> None:
    class HangsAnswered(FakeEngine):
        """Answers all rows, and never comes back with them: no time limit of a micro-batch holds for that."""

        def facts(self) -> dict[str, Any]:
            threading.Event().wait()
            raise AssertionError

    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    job = make_job(tmp_path, limits__stall_s=3.0, limits__grace_s=0.0)
    result = run(job, make_engine=HangsAnswered)
    assert result.outcome == "stopped" and "no progress for" in result.message


def test_a_second_run_at_once_is_named(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    job = make_job(tmp_path)
    notes: list[str] = []
    with presence(Ledger(job.output.uri, Storage(job.storage)), warn=notes.append):
        run(job, make_engine=FakeEngine, on_progress=lambda progress: notes.extend(progress.notes))
    assert "another run of this job is at work here" in notes[0]
    assert list((tmp_path / "out" / "_unipic" / "running").iterdir()) == []


def test_a_deadline_stops_the_run_and_the_next_one_finishes_it(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", PROMPTS)
    result = run(make_job(tmp_path, limits__max_hours=1e-6), make_engine=FakeEngine)
    assert result.outcome == "stopped" and "the deadline" in result.message
    assert run(make_job(tmp_path), make_engine=FakeEngine).outcome == "done"


def test_a_store_that_refuses_writes_in_mid_run_stops_it_resumable(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", PROMPTS)
    job = make_job(tmp_path)
    result = run(job, make_engine=BlockingEngine)
    assert result.outcome == "stopped" and str(tmp_path / "out" / "data") in result.message
    (tmp_path / "out" / "data").unlink()
    assert run(job, make_engine=FakeEngine).outcome == "done"


def test_a_job_that_asks_for_a_seal_ends_sealed_and_a_run_that_adds_nothing_leaves_the_seal(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", PROMPTS)
    job = make_job(tmp_path, output__seal=True)
    notes: list[str] = []

    def once() -> bytes:
        run(job, make_engine=FakeEngine, on_progress=lambda progress: notes.extend(progress.notes))
        return (tmp_path / "out" / "_unipic" / "seal.json").read_bytes()

    assert once() == once()
    report = verify(job.output.uri, Storage())
    assert report.ok and report.seal == "intact" and f"the output is sealed: {report.digest}" in notes
