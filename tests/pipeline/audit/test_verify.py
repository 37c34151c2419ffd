"""Verify, trace and replay work from storage alone and find what was done to an output behind its back."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.fakes import FakeEngine, all_rows, make_job, part_bytes, write_prompts
from tests.inprocess import retry_here, run_here
from unipic.jobs.terminal.formatting import as_json
from unipic.pipeline.audit.repair import Redo, clear, redo
from unipic.pipeline.audit.replay import replay, replay_sample
from unipic.pipeline.audit.trace import UNKNOWN_JOB, trace
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.bench.verify import write_captions
from unipic.pipeline.errors import JobError, OutputError
from unipic.pipeline.job import Job
from unipic.pipeline.lineage import sha256
from unipic.pipeline.storage.storage import Storage


@pytest.fixture
def job(tmp_path: Path) -> Job:
    write_prompts(tmp_path / "manifest" / "a.parquet", [*(f"prompt {n}" for n in range(18)), "", None])
    job = make_job(tmp_path)
    run_here(job)
    return job


@pytest.fixture
def flaky(tmp_path: Path) -> Job:
    """Two rows, of which one fails until there is a file `mended`."""
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", f"flaky {tmp_path}/mended"])
    return make_job(tmp_path)


def parts(job: Job, folder: str = "data") -> list[Path]:
    return sorted((Path(job.output.uri) / folder).iterdir())


def test_an_untouched_output_passes_with_every_row_counted(job: Job) -> None:
    report = verify(job.output.uri, Storage(job.storage))
    assert report.ok, report.problems
    assert (report.rows, report.data, report.rejected, report.units) == (20, 18, 2, 3)


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
    value = json.loads(receipt.read_text())
    value["parts"][0] |= {"sha256": sha256(sink.getvalue()), "bytes": len(sink.getvalue())}
    receipt.write_text(json.dumps(value))


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
    job: Job, damage: Callable[[Job], object], kind: str
) -> None:
    whole = part_bytes(job)
    damage(job)
    storage = Storage(job.storage)
    report = verify(job.output.uri, storage)
    assert kind in report.counts
    clear(job.output.uri, storage, report, redo(job.output.uri, storage, report))
    run_here(job)
    assert part_bytes(job) == whole
    assert verify(job.output.uri, storage).ok


def test_a_repair_does_just_the_damaged_units_again_by_the_job_that_run_json_holds(job: Job) -> None:
    whole = part_bytes(job)
    kept = {path: path.stat().st_mtime_ns for path in [_receipts(job)[1], parts(job)[1]]}
    _alter_a_byte(parts(job)[0])
    _receipts(job)[2].unlink()
    (Path(job.output.uri) / "data" / "notes.txt").write_text("?")
    write_prompts(Path(job.input.manifest) / "new.parquet", ["new work is not a repair's"])
    storage = Storage(job.storage)
    report = verify(job.output.uri, storage)
    plan = redo(job.output.uri, storage, report)
    repaired = clear(job.output.uri, storage, report, plan)
    assert (repaired.forgotten, repaired.set_aside) == (2, 1)
    assert plan.job is not None and run_here(plan.job, only=plan.files) == 2
    assert part_bytes(job) == whole
    assert verify(job.output.uri, storage).ok
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_repair_runs_without_limits_that_would_end_it_and_with_the_micro_batch_there_was(job: Job) -> None:
    parts(job)[0].unlink()
    storage = Storage(job.storage)
    record = Path(job.output.uri) / "_unipic" / "run.json"
    value = json.loads(record.read_text())
    value["job"]["compute"]["batch_size"] = "auto"
    value["job"]["limits"] |= {"max_rejected": 0, "max_hours": 1e-6}
    record.write_text(json.dumps(value))
    plan = redo(job.output.uri, storage, verify(job.output.uri, storage))
    again = plan.job
    assert again is not None
    assert (again.compute.batch_size, again.limits.max_rejected, again.limits.max_hours) == (4, "100%", None)
    assert plan.files == {"a.parquet"}


def test_a_moved_output_is_repaired_where_it_is_unless_its_rows_name_their_pictures(tmp_path: Path) -> None:
    for images in ("inline", "files"):
        root = tmp_path / images
        write_prompts(root / "manifest" / "a.parquet", ["a", "b"])
        job = make_job(root, output__images=images)
        run_here(job)
        moved = str(Path(job.output.uri).rename(root / "moved"))
        assert verify(moved, Storage()).ok
        next((root / "moved" / "data").iterdir()).unlink()
        plan = redo(moved, Storage(), verify(moved, Storage()))
        if images == "inline":
            assert plan.job is not None and plan.job.output.uri == moved
        else:
            assert plan.job is None and all("the output was moved from" in why for why in plan.left.values())


def test_a_unit_whose_rejected_rows_were_tried_again_is_repaired_whole(flaky: Job, tmp_path: Path) -> None:
    run_here(flaky)
    (tmp_path / "mended").touch()
    retry_here(flaky)
    assert [path.name.endswith(".retry1.parquet") for path in parts(flaky)] == [False, True]
    _alter_a_byte(parts(flaky)[1])
    storage = Storage()
    report = verify(flaky.output.uri, storage)
    clear(flaky.output.uri, storage, report, redo(flaky.output.uri, storage, report))
    run_here(flaky)
    assert verify(flaky.output.uri, storage).ok
    assert [row["prompt"] for row in all_rows(flaky)] == ["a", f"flaky {tmp_path}/mended"]


def test_a_file_of_somebody_else_is_named_and_set_aside_unharmed(job: Job) -> None:
    stranger = Path(job.output.uri) / "data" / "part-x.parquet"
    stranger.write_bytes(b"?")
    neighbour = Path(job.output.uri) / "captions" / "data" / "part-y.parquet"
    neighbour.parent.mkdir(parents=True)
    neighbour.write_bytes(b"another output")
    storage = Storage(job.storage)
    report = verify(job.output.uri, storage)
    assert [(one.kind, one.where) for one in report.problems] == [
        ("unexpected file", "captions/data/part-y.parquet"),
        ("unexpected file", "data/part-x.parquet"),
    ]
    assert clear(job.output.uri, storage, report, Redo()).set_aside == 1
    assert (Path(job.output.uri) / "_unipic" / "set-aside" / "data" / "part-x.parquet").read_bytes() == b"?"
    assert neighbour.exists() and not stranger.exists()
    assert [one.where for one in verify(job.output.uri, storage).problems] == ["captions/data/part-y.parquet"]


def test_a_report_with_problems_is_json(job: Job) -> None:
    parts(job)[0].unlink()
    said = json.loads(as_json(verify(job.output.uri, Storage(job.storage))))
    assert said["counts"] == {"missing part": 1}


def test_an_audit_holds_no_rows_of_units_it_is_done_with(tmp_path: Path) -> None:
    """A thousand captions' lineage weighs a megabyte and more."""
    peaks = []
    for rows in (2_048, 8_192):
        output = str(tmp_path / str(rows))
        write_captions(output, rows)
        tracemalloc.start()
        try:
            assert verify(output, Storage()).ok
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] - peaks[0] < 1 << 20


def test_verify_of_a_folder_that_is_not_ours_says_so(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no output of ours"):
        verify(str(tmp_path), Storage())


@pytest.fixture
def chain(job: Job, tmp_path: Path) -> tuple[Job, Job, Job]:
    """Pictures, edits of them, captions of the edits."""
    columns = {"id": "id", "image": "image"}
    edit = make_job(
        tmp_path,
        "edit",
        input={"manifest": f"{job.output.uri}/data", "columns": columns},
        params={"image_size": 16, "instruction": "make it night"},
        output__uri=str(tmp_path / "edits"),
    )
    run_here(edit)
    caption = make_job(
        tmp_path,
        "caption",
        input={"manifest": f"{edit.output.uri}/data", "columns": columns},
        output__uri=str(tmp_path / "captions"),
    )
    run_here(caption)
    return job, edit, caption


def test_trace_walks_a_caption_back_through_its_edit_to_the_prompt(chain: tuple[Job, Job, Job]) -> None:
    caption = chain[-1]
    row = next(row for row in all_rows(caption) if row["id"] == "a-7")
    steps = trace(caption.output.uri, row["lineage"]["lineage_id"][:12], Storage(caption.storage))
    assert [step.task for step in steps] == ["caption", "edit", "generate"]
    assert steps[-1].source["prompt"] == "prompt 7"
    assert [step.lineage["parent_lineage_id"] for step in steps[:2]] == [s.lineage["lineage_id"] for s in steps[1:]]


def test_trace_goes_on_through_a_manifest_that_brings_pictures_and_lineage_along(job: Job, tmp_path: Path) -> None:
    pictures = pq.read_table(f"{job.output.uri}/data", columns=["id", "image", "lineage"]).slice(0, 4)
    pq.write_table(pictures, tmp_path / "chosen.parquet")
    caption = make_job(
        tmp_path,
        "caption",
        input={"manifest": str(tmp_path / "chosen.parquet"), "columns": {"id": "id", "image": "image"}},
        output__uri=str(tmp_path / "captions-of-chosen"),
    )
    run_here(caption)
    chosen = pictures["id"][2].as_py()
    steps = trace(caption.output.uri, chosen, Storage(caption.storage))
    assert [(step.task, step.output) for step in steps] == [("caption", caption.output.uri), ("generate", "")]
    assert steps[1].job == UNKNOWN_JOB
    assert steps[1].source["prompt"] == f"prompt {chosen.removeprefix('a-')}"


def test_every_row_of_a_chain_replays_to_the_same_bytes(chain: tuple[Job, Job, Job]) -> None:
    for job in chain:
        for row in all_rows(job)[::5]:
            again = replay(job.output.uri, row["id"], Storage(job.storage), make_engine=FakeEngine)
            assert again.identical and again.exact and again.max_difference in (0, None)


def test_a_row_that_was_tried_again_replays_too_and_is_promised_to_1_of_255(flaky: Job, tmp_path: Path) -> None:
    run_here(flaky)
    (tmp_path / "mended").touch()
    retry_here(flaky)
    again = replay(flaky.output.uri, "a-1", Storage(), make_engine=FakeEngine)
    assert again.identical and not again.exact


class DriftedEngine(FakeEngine):
    def answer(self, rows):  # type: ignore[no-untyped-def]
        return [bytes([one[0] ^ 1]) + one[1:] for one in super().answer(rows)]


def test_a_replay_that_differs_shows_both_pictures_and_by_how_much(job: Job) -> None:
    again = replay(job.output.uri, "a-3", Storage(job.storage), make_engine=DriftedEngine)
    assert not again.identical
    assert (again.max_difference, again.differing_px) == (1, 1)
    assert again.before != again.after


def test_an_ambiguous_row_asks_which_and_an_unknown_one_says_how_rows_are_named(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"])
    job = make_job(tmp_path, params__samples_per_row=2)
    run_here(job)
    storage = Storage(job.storage)
    with pytest.raises(JobError, match=r"2 rows of .* are called 'a-0'.* Say which by lineage id"):
        trace(job.output.uri, "a-0", storage)
    assert trace(job.output.uri, "a-0#1", storage)[0].lineage["sample"] == 1
    assert trace(job.output.uri, "a.parquet:1#0", storage)[0].lineage["source_row"] == 1
    with pytest.raises(JobError, match=r"no row of .* is called 'zz'"):
        trace(job.output.uri, "zz", storage)


def test_a_random_sample_of_rows_is_replayed_and_a_drifted_engine_is_named(job: Job) -> None:
    storage = Storage(job.storage)
    assert list(replay_sample(job.output.uri, 5, storage, make_engine=FakeEngine)) == []
    problems = list(replay_sample(job.output.uri, 5, storage, make_engine=DriftedEngine))
    assert len(problems) == 5 and "comes out otherwise, by up to 1 of 255" in problems[0].message
