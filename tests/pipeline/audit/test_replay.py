"""Replay and trace where something is gone, damaged or elsewhere, and two runs at once: told in words."""

from __future__ import annotations

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
)
from tests.fakes import BrokenEngine, FakeEngine, all_rows, make_job, receipts, write_prompts
from tests.inprocess import retry_here, run_here
from unipic.pipeline.audit.replay import PATIENCE_S, Replayed, Replayer, replay, replay_sample
from unipic.pipeline.audit.trace import find
from unipic.pipeline.context import RunContext
from unipic.pipeline.errors import CheckpointError, EngineError, JobError, ManifestError, OutputError
from unipic.pipeline.job import Job
from unipic.pipeline.sealed import sealed, unsealed
from unipic.pipeline.storage.storage import Storage


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
    with pytest.raises(EngineError, match=r"the driver is gone\. .* device cpu, (auto|0) GPUs and 1 CPUs a replica"):
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
    with pytest.raises(CheckpointError, match="is not a converted checkpoint"):
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
    assert (receipt.facts.micro_batch, receipt.facts.micro_batch_of_retry) == (4, {"1": 1})
    again = replay(retried.output.uri, "a-2", Storage(), make_engine=Seen)
    assert again.identical and again.exact
    assert Seen.batches_seen == [[f"prompt {n}" for n in range(4)]]
    again = replay(retried.output.uri, "a-5", Storage(), make_engine=Seen)
    assert again.identical and again.exact and len(Seen.batches_seen[0]) == 1


def test_a_repair_uses_the_first_runs_micro_batch_whatever_a_retry_had(retried: Job) -> None:
    record = Path(retried.output.uri, "_unipic", "run.json")
    value = unsealed(record.read_text())
    value["job"]["compute"]["batch_size"] = "auto"
    record.write_text(sealed(value))
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
        path.write_text(sealed({**unsealed(path.read_text()), "resized": True}))
    assert list(replay_sample(job.output.uri, 5, Storage(), make_engine=OtherWords)) == []


def test_what_is_promised_depends_on_whether_the_micro_batch_can_be_had_again() -> None:
    def replayed(difference: int | None, *, exact: bool) -> bool:
        return Replayed("", False, "", "", b"", b"", difference, difference, exact).as_promised

    assert [replayed(1, exact=True), replayed(None, exact=True), replayed(2, exact=False)] == [False] * 3
    assert [replayed(1, exact=False), replayed(None, exact=False)] == [True] * 2


def test_a_part_that_is_damaged_since_it_was_found_is_told_in_words(job: Job) -> None:
    found = find(job.output.uri, "a-0", Storage())
    Path(found.part).write_bytes(b"PAR1 rubbish")
    replayer = Replayer(job.output.uri, Storage(), make_engine=FakeEngine)
    with pytest.raises(OutputError, match=r"cannot be read: .*`unipic verify` names what is damaged"):
        replayer.replay(found)


def test_duplicate_and_null_ids_are_rows_of_their_own_and_replay_asks_which(tmp_path: Path) -> None:
    (tmp_path / "manifest").mkdir()
    ids = pa.array(["twin", "twin", None, None])
    pq.write_table(pa.table({"id": ids, "prompt": ["a", "b", "c", "c"]}), tmp_path / "manifest" / "a.parquet")
    job = make_job(tmp_path)
    run_here(job)
    rows = all_rows(job)
    assert len(rows) == 4 and rows[2]["lineage"]["seed"] != rows[3]["lineage"]["seed"]
    with pytest.raises(JobError, match=r"2 rows of .* are called 'twin'"):
        replay(job.output.uri, "twin", Storage(), make_engine=FakeEngine)


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


def test_a_replay_that_differs_shows_both_pictures_and_by_how_much(finished: Job) -> None:
    again = replay(finished.output.uri, "a-3", Storage(finished.storage), make_engine=DriftedEngine)
    assert not again.identical
    assert (again.max_difference, again.differing_px) == (1, 1)
    assert again.before != again.after


def test_a_random_sample_of_rows_is_replayed_and_a_drifted_engine_is_named(finished: Job) -> None:
    storage = Storage(finished.storage)
    assert list(replay_sample(finished.output.uri, 5, storage, make_engine=FakeEngine)) == []
    problems = list(replay_sample(finished.output.uri, 5, storage, make_engine=DriftedEngine))
    assert len(problems) == 5 and "comes out otherwise, by up to 1 of 255" in problems[0].message
