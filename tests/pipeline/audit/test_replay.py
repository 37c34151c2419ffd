"""Replay and trace where something is gone, damaged or elsewhere, and two runs at once: told in words."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.damage import (
    checkpoint_goes,
    data_parts,
    pictures,
    plan_of,
    prompts,
    two_files,
)
from tests.fakes import BrokenEngine, FakeEngine, all_rows, make_job, receipts, write_prompts
from tests.inprocess import retry_here, run_here
from unipic.pipeline.audit.replay import PATIENCE_S, Replayed, Replayer, replay, replay_sample
from unipic.pipeline.audit.trace import find, trace
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import CheckpointError, EngineError, JobError, ManifestError, OutputError
from unipic.pipeline.job import Job
from unipic.pipeline.stages import commit as finish
from unipic.pipeline.storage.storage import Storage


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return two_files(tmp_path)


class Seen(FakeEngine):
    """Remembers its job and the micro-batches it was given."""

    context: RunContext
    batches_seen: list[list[str]]

    def __init__(self, context: RunContext) -> None:
        super().__init__(context)
        type(self).context = context
        type(self).batches_seen = []

    def answer(self, rows: Any) -> list[bytes | str]:
        self.batches_seen.append([row["prompt"] for row in rows])
        return super().answer(rows)


def test_a_row_is_replayed_on_the_hardware_its_job_asked_for(tmp_path: Path) -> None:
    prompts(tmp_path)
    job = make_job(tmp_path, model__device="auto", compute__gpus_per_replica=1, compute__cpus_per_replica=4)
    run_here(job)
    assert replay(job.output.uri, "a-3", Storage(), make_engine=Seen).identical
    compute = Seen.context.job.compute
    assert (compute.gpus_per_replica, compute.cpus_per_replica, compute.batch_size) == (1, 4, 4)


class OnCpu(FakeEngine):
    def facts(self) -> dict[str, Any]:
        return {"device": "cpu"}


def test_a_row_that_a_resumed_run_made_on_another_device_is_replayed_there(tmp_path: Path) -> None:
    prompts(tmp_path)
    job = make_job(tmp_path, model__device="auto", compute__gpus_per_replica=1)
    run_here(job, make_engine=OnCpu)
    replay(job.output.uri, "a-3", Storage(), make_engine=Seen)
    assert Seen.context.job.model.device == "cpu"


def test_a_model_that_cannot_load_is_told_with_the_hardware_it_needs(job: Job) -> None:
    with pytest.raises(EngineError, match=r"the driver is gone\. .* device cpu, 0 GPUs and 1 CPUs a replica"):
        replay(job.output.uri, "a-3", Storage(), make_engine=BrokenEngine)
    (problem,) = replay_sample(job.output.uri, 5, Storage(), make_engine=BrokenEngine)
    assert problem.kind == "cannot be replayed" and "the driver is gone" in problem.message


def test_a_sample_goes_on_past_a_row_that_cannot_be_made_and_stops_where_none_can(tmp_path: Path) -> None:
    job = pictures(tmp_path)
    for picture in (tmp_path / "pics").iterdir():
        picture.unlink()
    problems = list(replay_sample(job.output.uri, 3, Storage(), make_engine=FakeEngine))
    assert [one.kind for one in problems] == ["cannot be replayed"] * 3
    checkpoint_goes(tmp_path, job)
    assert len(list(replay_sample(job.output.uri, 3, Storage(), make_engine=FakeEngine))) == 1
    with pytest.raises(CheckpointError, match="is not a checkpoint of ours"):
        replay(job.output.uri, row_of_picture(job, "3.png"), Storage(), make_engine=FakeEngine)


def test_a_row_replays_while_another_manifest_file_is_gone(job: Job, tmp_path: Path) -> None:
    (tmp_path / "manifest" / "a.parquet").unlink()
    assert replay(job.output.uri, "b-3", Storage(), make_engine=FakeEngine).identical


def row_of_picture(job: Job, name: str) -> str:
    row = next(row for row in all_rows(job) if row["source"].endswith(name))
    return str(row["lineage"]["lineage_id"])


def test_a_row_whose_picture_is_gone_says_so_and_its_neighbour_is_not_promised_the_same_bytes(tmp_path: Path) -> None:
    job = pictures(tmp_path)
    (tmp_path / "pics" / "3.png").unlink()
    with pytest.raises(ManifestError, match=r"row 3 of .* cannot be made again: MissingPicture"):
        replay(job.output.uri, row_of_picture(job, "3.png"), Storage(), make_engine=FakeEngine)
    again = replay(job.output.uri, row_of_picture(job, "2.png"), Storage(), make_engine=FakeEngine)
    assert again.identical and not again.exact
    assert replay(job.output.uri, row_of_picture(job, "5.png"), Storage(), make_engine=FakeEngine).exact


def test_a_picture_that_came_back_does_not_shift_the_micro_batches_of_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "pics").mkdir()
    for n in range(8):
        Image.new("RGB", (20, 20), (n * 20, 0, 0)).save(tmp_path / "pics" / f"{n}.png")
    image = [f"pics/{n}.png" for n in range(8)]
    question = [f"question {n}" for n in range(8)]
    pq.write_table(pa.table({"image": image, "q": question}), tmp_path / "rows.parquet")
    columns = {"image": "image", "prompt": "q"}
    job = make_job(tmp_path, "caption", input={"manifest": str(tmp_path / "rows.parquet"), "columns": columns})
    (tmp_path / "pics" / "0.png").rename(tmp_path / "0.png")
    run_here(job)
    (tmp_path / "0.png").rename(tmp_path / "pics" / "0.png")
    again = replay(job.output.uri, row_of_picture(job, "5.png"), Storage(), make_engine=Seen)
    assert again.identical and again.exact
    assert Seen.batches_seen == [["question 5", "question 6", "question 7"]]


@pytest.fixture
def retried(tmp_path: Path) -> Job:
    """Five rows in micro-batches of 4, of which the last failed at first, and went well in micro-batches of 1."""
    mended = tmp_path / "mended"
    write_prompts(tmp_path / "manifest" / "a.parquet", ["", *(f"prompt {n}" for n in range(4)), f"flaky {mended}"])
    run_here(make_job(tmp_path))
    mended.touch()
    job = make_job(tmp_path, compute__batch_size=1)
    retry_here(job)
    return job


def test_a_retry_leaves_the_first_runs_micro_batch_on_record_and_its_own_beside_it(retried: Job) -> None:
    (receipt,) = receipts(retried)
    assert (receipt.facts["micro_batch"], receipt.facts[finish.RETRY_MICRO_BATCH]) == (4, {"1": 1})
    again = replay(retried.output.uri, "a-2", Storage(), make_engine=Seen)
    assert again.identical and again.exact
    assert Seen.batches_seen == [[f"prompt {n}" for n in range(4)]]
    again = replay(retried.output.uri, "a-5", Storage(), make_engine=Seen)
    assert again.identical and again.exact and len(Seen.batches_seen[0]) == 1


def test_a_repair_uses_the_first_runs_micro_batch_whatever_a_retry_had(retried: Job) -> None:
    record = Path(retried.output.uri, "_unipic", "run.json")
    value = json.loads(record.read_text())
    value["job"]["compute"]["batch_size"] = "auto"
    record.write_text(json.dumps(value))
    data_parts(retried)[0].unlink()
    _, plan = plan_of(retried)
    assert plan.job is not None and plan.job.compute.batch_size == 4


def test_one_replica_replays_units_of_different_micro_batches(job: Job, tmp_path: Path) -> None:
    prompts(tmp_path, "c", rows=8)
    run_here(make_job(tmp_path, compute__batch_size=8))
    again = Replayer(job.output.uri, Storage(), make_engine=Seen)
    for row in ("a-3", "c-3"):
        assert again.replay(find(job.output.uri, row, Storage())).exact
    assert [len(batch) for batch in Seen.batches_seen] == [4, 8]


def test_no_watchdog_ends_a_replay_that_somebody_waits_for(job: Job) -> None:
    replay(job.output.uri, "a-3", Storage(), make_engine=Seen)
    assert Seen.context.job.limits.batch_timeout_s == PATIENCE_S


class OtherWords(FakeEngine):
    def answer(self, rows: Any) -> list[bytes | str]:
        return [f"{one!s}, otherwise" for one in super().answer(rows)]


def test_a_caption_of_a_shrunk_micro_batch_may_read_otherwise_and_of_another_it_may_not(tmp_path: Path) -> None:
    job = pictures(tmp_path)
    assert len(list(replay_sample(job.output.uri, 5, Storage(), make_engine=OtherWords))) == 5
    for path in Path(job.output.uri, "_unipic", "receipts").iterdir():
        path.write_text(json.dumps({**json.loads(path.read_text()), "resized": True}))
    assert list(replay_sample(job.output.uri, 5, Storage(), make_engine=OtherWords)) == []


def test_what_is_promised_depends_on_whether_the_micro_batch_can_be_had_again() -> None:
    def replayed(difference: int | None, *, exact: bool) -> bool:
        return Replayed("", False, "", "", b"", b"", difference, difference, exact).as_promised

    assert [replayed(1, exact=True), replayed(None, exact=True), replayed(2, exact=False)] == [False] * 3
    assert [replayed(1, exact=False), replayed(None, exact=False)] == [True] * 2


def test_a_row_of_a_file_is_not_taken_for_one_of_a_file_whose_name_ends_alike(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["x", ""])
    write_prompts(tmp_path / "manifest" / "ba.parquet", ["z", "of the other file"])
    job = make_job(tmp_path)
    run_here(job)
    with pytest.raises(JobError, match=r"'a.parquet:1' was rejected .* row 1 of .*/manifest/a.parquet: EmptyPrompt"):
        find(job.output.uri, "a.parquet:1", Storage())
    for name in ("quet:1", ":1", "/:1", ":0"):
        with pytest.raises(JobError, match=rf"no row of .* is called '{name}'"):
            find(job.output.uri, name, Storage())
    for name in ("a.parquet:0", "manifest/a.parquet:0", f"{tmp_path}/manifest/a.parquet:0"):
        assert find(job.output.uri, name, Storage()).row["lineage"]["prompt"] == "x"


@pytest.mark.parametrize("kind", [pa.string(), pa.int16(), pa.dictionary(pa.int8(), pa.string())])
def test_a_rejected_row_is_told_with_its_reason_by_its_id_or_its_place(tmp_path: Path, kind: pa.DataType) -> None:
    mark = tmp_path / "mark"
    folder = tmp_path / "manifest"
    folder.mkdir()
    prompts = ["well", "", f"flaky {mark}"]
    key = pa.array([7, 8, 9]) if kind == pa.int16() else pa.array(["7", "8", "9"])
    pq.write_table(pa.table({"key": key.cast(kind), "prompt": prompts}), folder / "a.parquet")
    job = make_job(tmp_path, input__columns={"id": "key"}, params__samples_per_row=2)
    run_here(job)
    found = r"row 1 of .*/a.parquet, sample {}: EmptyPrompt: the prompt is empty"
    for name, told in (("8#1", "1"), ("a.parquet:1#0", "0"), ("8", r"0 \(and 1 more called so\)")):
        with pytest.raises(JobError, match=rf"'{name}' was rejected and has no output: {found.format(told)}"):
            trace(job.output.uri, name, Storage())
    with pytest.raises(JobError, match=r"'9#0' was rejected .*ReplicaFailed: .* `unipic run JOB --retry-rejected`"):
        trace(job.output.uri, "9#0", Storage())
    mark.touch()
    retry_here(job)
    assert trace(job.output.uri, "9#0", Storage())[0].lineage["source_row"] == 2
    with pytest.raises(JobError, match=r"no row of .* is called '8#2'"):
        trace(job.output.uri, "8#2", Storage())


def test_a_folder_that_is_no_output_is_called_that_whatever_row_is_asked_for(job: Job, tmp_path: Path) -> None:
    for folder in (tmp_path / "manifest", tmp_path / "nowhere"):
        with pytest.raises(OutputError, match=rf"{folder} holds no output of ours"):
            trace(str(folder), "a-0", Storage())


def test_an_id_with_a_number_sign_is_found_and_a_sample_that_is_no_number_is_no_fault_of_ours(tmp_path: Path) -> None:
    folder = tmp_path / "manifest"
    folder.mkdir()
    pq.write_table(pa.table({"id": ["img#1", "img"], "prompt": ["x", "y"]}), folder / "a.parquet")
    job = make_job(tmp_path, params__samples_per_row=2)
    run_here(job)
    with pytest.raises(JobError, match=r"2 rows of .* are called 'img#1'"):
        find(job.output.uri, "img#1", Storage())
    assert find(job.output.uri, "img#1#1", Storage()).row["lineage"]["prompt"] == "x"
    assert find(job.output.uri, "img#0", Storage()).row["lineage"]["prompt"] == "y"
    for name in ("img#x", f"img#{'9' * 5_000}", f"a.parquet:{'9' * 5_000}"):
        with pytest.raises(JobError, match="no row of"):
            find(job.output.uri, name, Storage())


def test_a_row_is_found_beside_damaged_and_strange_parts_and_where_it_is_not_they_are_counted(job: Job) -> None:
    _, *others = data_parts(job)
    stranger = Path(job.output.uri, "data", "other.parquet")
    pq.write_table(pa.table({"x": [1]}), stranger)
    others[-1].write_bytes(b"PAR1 rubbish")
    assert trace(job.output.uri, "a-0", Storage())[0].source["prompt"] == "a 0"
    with pytest.raises(JobError, match="2 files were passed over, which `unipic verify` explains"):
        trace(job.output.uri, "nope", Storage())


def test_a_part_that_is_damaged_since_it_was_found_is_told_in_words(job: Job) -> None:
    found = find(job.output.uri, "a-0", Storage())
    Path(found.part).write_bytes(b"PAR1 rubbish")
    replayer = Replayer(job.output.uri, Storage(), make_engine=FakeEngine)
    with pytest.raises(OutputError, match=r"cannot be read: .*`unipic verify` says what is damaged"):
        replayer.replay(found)


@pytest.mark.parametrize("kind", ["damaged", "gone", "shorter"])
def test_trace_says_why_a_source_row_can_no_longer_be_read(job: Job, tmp_path: Path, kind: str) -> None:
    manifest = tmp_path / "manifest" / "a.parquet"
    if kind == "damaged":
        manifest.write_bytes(b"PAR1 rubbish")
    elif kind == "gone":
        manifest.unlink()
    else:
        write_prompts(manifest, ["one"])
    (step,) = trace(job.output.uri, "a-5", Storage())
    assert step.source == {} and str(manifest) in step.unread
    said = {"damaged": "cannot be read", "gone": "there is nothing at", "shorter": "has no row 5 any more"}[kind]
    assert said in step.unread.lower()


def test_a_lineage_that_is_not_ours_ends_a_trace(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "0.png")
    table = pa.table({"image": [str(tmp_path / "0.png")], "lineage": [{"lineage_id": 7}]})
    pq.write_table(table, tmp_path / "rows.parquet")
    job = make_job(tmp_path, "caption", input__manifest=str(tmp_path / "rows.parquet"))
    run_here(job)
    row = all_rows(job)[0]["lineage"]["lineage_id"]
    assert len(trace(job.output.uri, row, Storage())) == 1


def test_a_leftover_that_another_run_has_meanwhile_committed_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours is all well and clears the rejected part away; the other run, whose row failed, wrote it and was first."""
    mark = tmp_path / "mark"
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"flaky {mark}", "b"])
    job = make_job(tmp_path)
    mark.touch()

    def at(name: str) -> None:
        if name == "finish.after_data":
            monkeypatch.setattr(finish, "crash_point", lambda name: None)
            mark.unlink()
            run_here(job)

    monkeypatch.setattr(finish, "crash_point", at)
    real = finish.finish
    monkeypatch.setattr("tests.inprocess.finish", lambda unit, *rest: real(replace(unit, again=True), *rest))
    run_here(job)
    assert verify(job.output.uri, Storage()).ok


def test_two_retries_at_once_whose_rows_answer_otherwise_leave_one_answer_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = [tmp_path / "one", tmp_path / "other"]
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"flaky {mark}" for mark in marks])
    job = make_job(tmp_path)
    run_here(job)
    marks[0].touch()
    committed = threading.Event()

    def at(name: str) -> None:
        if name == "finish.before_rejected" and not committed.is_set():
            committed.set()
            marks[0].unlink()
            marks[1].touch()
            retry_here(job)

    monkeypatch.setattr(finish, "crash_point", at)
    retry_here(job)
    assert committed.is_set()
    assert verify(job.output.uri, Storage()).ok
    assert (len(all_rows(job)), len(all_rows(job, "rejected"))) == (1, 1)
