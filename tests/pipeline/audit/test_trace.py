"""Which row is meant, and what it was made from."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.damage import (
    data_parts,
)
from tests.fakes import all_rows, make_job, write_prompts
from tests.inprocess import retry_here, run_here
from unipic.pipeline.audit.trace import UNKNOWN_JOB, find, trace
from unipic.pipeline.errors import JobError, OutputError
from unipic.pipeline.job import Job
from unipic.pipeline.storage.storage import Storage


def test_a_row_of_a_file_is_not_taken_for_one_of_a_file_whose_name_ends_alike(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["x", ""])
    write_prompts(tmp_path / "manifest" / "ba.parquet", ["z", "of the other file"])
    job = make_job(tmp_path)
    run_here(job)
    with pytest.raises(JobError, match=r"'a.parquet:1' was rejected .* row 1 of a.parquet: EmptyPrompt"):
        find(job.output.uri, "a.parquet:1", Storage())
    for name in ("quet:1", ":1", "/:1", ":0"):
        with pytest.raises(JobError, match=rf"no row of .* is called '{name}'"):
            find(job.output.uri, name, Storage())
    for name in ("a.parquet:0", "manifest/a.parquet:0", f"{tmp_path}/manifest/a.parquet:0"):
        assert find(job.output.uri, name, Storage()).row["lineage"]["prompt_sent"] == "x"


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
    found = r"row 1 of a.parquet, sample {}: EmptyPrompt: the prompt is empty"
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
    assert find(job.output.uri, "img#1#1", Storage()).row["lineage"]["prompt_sent"] == "x"
    assert find(job.output.uri, "img#0", Storage()).row["lineage"]["prompt_sent"] == "y"
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


def test_trace_walks_a_caption_back_through_its_edit_to_the_prompt(chain: tuple[Job, Job, Job]) -> None:
    caption = chain[-1]
    row = next(row for row in all_rows(caption) if row["id"] == "a-7")
    steps = trace(caption.output.uri, row["lineage"]["lineage_id"][:12], Storage(caption.storage))
    assert [step.task for step in steps] == ["caption", "edit", "generate"]
    assert steps[-1].source["prompt"] == "prompt 7"
    assert [step.lineage["parent_lineage_id"] for step in steps[:2]] == [s.lineage["lineage_id"] for s in steps[1:]]


def test_trace_goes_on_through_a_manifest_that_brings_pictures_and_lineage_along(finished: Job, tmp_path: Path) -> None:
    pictures = pq.read_table(f"{finished.output.uri}/data", columns=["id", "image", "lineage"]).slice(0, 4)
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
    outputs = [("caption", caption.output.uri), ("generate", finished.output.uri)]
    assert [(step.task, step.output) for step in steps] == outputs
    assert steps[1].source["prompt"] == f"prompt {chosen.removeprefix('a-')}"

    (tmp_path / "far" / "away").mkdir(parents=True)
    Path(finished.output.uri).rename(tmp_path / "far" / "away" / "out")
    last = trace(caption.output.uri, chosen, Storage(caption.storage))[-1]
    assert (last.job, last.output, last.source) == (UNKNOWN_JOB, "", {})
    assert last.lineage["prompt_sent"] == f"prompt {chosen.removeprefix('a-')}"
    assert last.unread == "the output that it was copied from is not beside those of this trace"


def test_an_ambiguous_row_asks_which_and_an_unknown_one_says_how_rows_are_named(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"])
    job = make_job(tmp_path, params__samples_per_row=2)
    run_here(job)
    storage = Storage(job.storage)
    with pytest.raises(JobError, match=r"2 rows of .* are called 'a-0'.* Say which by lineage id"):
        trace(job.output.uri, "a-0", storage)
    assert trace(job.output.uri, "a-0#1", storage)[0].lineage["sample_index"] == 1
    assert trace(job.output.uri, "a.parquet:1#0", storage)[0].lineage["source_row"] == 1
    with pytest.raises(JobError, match=r"no row of .* is called 'zz'"):
        trace(job.output.uri, "zz", storage)
