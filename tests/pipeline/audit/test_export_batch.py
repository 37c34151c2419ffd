"""An output as OpenAI batch results: each request is answered once, in one file or the other, under its own id."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import all_rows, make_job, receipts, write_prompts
from tests.inprocess import run_here
from tests.pipeline.manifests.test_openai_batch import CAPTION, EDIT, GENERATE, asked, batch, data_url, job_of, png
from unipic.jobs.cli import main
from unipic.pipeline.audit.export_batch import ExportedBatch, export_batch
from unipic.pipeline.audit.trace import trace
from unipic.pipeline.errors import JobError
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("images", ["inline", "files"])
def test_requests_for_images_come_back_as_results_and_errors_in_their_order(tmp_path: Path, images: str) -> None:
    bodies = [{"prompt": f"fox {at}"} for at in range(10)]
    bodies[3] |= {"size": "1024x1024"}
    batch(tmp_path / "manifest" / "b.jsonl", GENERATE, *bodies)
    job = job_of(tmp_path, "generate", params__samples_per_row=2, compute__rows_per_unit=4, output__images=images)
    run_here(job)
    to = tmp_path / "results.jsonl"
    errors = tmp_path / "results.errors.jsonl"
    assert export_batch(job.output.uri, to, STORAGE) == ExportedBatch(9, 0, 1, str(errors), 0)
    assert [one["custom_id"] for one in lines(to)] == [f"r-{at}" for at in range(10) if at != 3]
    digests = {row["lineage"]["output_sha256"] for row in all_rows(job)}
    finished = {int(one.facts.finished) for one in receipts(job)}
    for line in lines(to):
        assert set(line) == {"id", "custom_id", "response", "error"} and line["error"] is None
        assert line["response"]["status_code"] == 200
        body = line["response"]["body"]
        assert body["created"] in finished and body["output_format"] == "png"
        found = [hashlib.sha256(base64.b64decode(one["b64_json"])).hexdigest() for one in body["data"]]
        assert len(found) == 2 and set(found) <= digests
    (error,) = lines(errors)
    assert error["custom_id"] == "r-3" and error["response"]["status_code"] == 400 and error["error"] is None
    said = error["response"]["body"]["error"]
    assert (said["type"], said["code"]) == ("invalid_request_error", "UnsupportedRequest")
    assert "images of 1024x1024, and this job makes 16x16" in said["message"]
    request = lines(to)[0]["response"]["request_id"]
    assert trace(job.output.uri, request, STORAGE)[0].lineage["prompt_sent"] == "fox 0", (
        "trace finds a result's request"
    )


def test_captions_come_back_as_chat_completions(tmp_path: Path) -> None:
    batch(tmp_path / "manifest" / "b.jsonl", CAPTION, asked("What?", data_url(png())), asked("Who?", "data:,"))
    job = job_of(tmp_path, "caption")
    run_here(job)
    export_batch(job.output.uri, tmp_path / "x.jsonl", STORAGE)
    (answer,) = lines(tmp_path / "x.jsonl")
    body = answer["response"]["body"]
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"] == {
        "role": "assistant",
        "content": all_rows(job)[0]["caption"],
        "refusal": None,
    }
    (error,) = lines(tmp_path / "x.errors.jsonl")
    assert error["custom_id"] == "r-1" and "without base64" in error["response"]["body"]["error"]["message"]


def test_edited_images_can_be_the_next_batchs_input(tmp_path: Path) -> None:
    batch(tmp_path / "manifest" / "b.jsonl", EDIT, {"prompt": "blue", "images": [{"image_url": data_url(png())}]})
    first = job_of(tmp_path, "edit")
    run_here(first)
    export_batch(first.output.uri, tmp_path / "x.jsonl", STORAGE)
    (answer,) = lines(tmp_path / "x.jsonl")
    image = f"data:image/png;base64,{answer['response']['body']['data'][0]['b64_json']}"
    batch(tmp_path / "second" / "manifest" / "c.jsonl", EDIT, {"prompt": "red", "image": image})
    second = job_of(tmp_path / "second", "edit")
    run_here(second)
    (before,), (after,) = all_rows(first), all_rows(second)
    assert after["lineage"]["input_sha256"] == before["lineage"]["output_sha256"]
    assert after["lineage"]["parent_lineage_id"] == before["lineage"]["lineage_id"]


def test_any_output_is_exported_and_rows_without_an_id_are_named_by_file_and_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "", "c"])
    job = make_job(tmp_path, input__columns={"prompt": "prompt"})
    run_here(job)
    to = tmp_path / "x.jsonl"
    with pytest.raises(SystemExit, match="0"):
        main(["export", job.output.uri, "--format", "openai-batch", "--to", str(to)])
    said = capsys.readouterr().out
    assert "wrote 2 results to" in said and "wrote 1 error to" in said and "x.errors.jsonl" in said
    assert [one["custom_id"] for one in lines(to)] == ["a.parquet:0", "a.parquet:2"]
    with pytest.raises(JobError, match=r"x\.jsonl exists already"):
        export_batch(job.output.uri, to, STORAGE)
