"""Files of an OpenAI batch are manifests: their requests are rows, and what cannot be done says why."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from tests.fakes import all_rows, make_job
from tests.inprocess import run_here
from unipic.jobs.spec.draft import Wishes, draft
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.errors import JobError, ManifestError
from unipic.pipeline.job import Input, Job
from unipic.pipeline.manifests.discovery import discover
from unipic.pipeline.plan import plan
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()
GENERATE, EDIT, CAPTION = "/v1/images/generations", "/v1/images/edits", "/v1/chat/completions"


def png(shade: int = 0) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(data, "PNG")
    return data.getvalue()


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def asked(question: str | None, image: Any, **body: Any) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": image}}]
    parts += [{"type": "text", "text": question}] if question else []
    return {"model": "unipic", "messages": [{"role": "user", "content": parts}], **body}


def batch(path: Path, url: str, *bodies: Any, **line: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        {"custom_id": f"r-{at}", "method": "POST", "url": url, "body": body, **line} for at, body in enumerate(bodies)
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def job_of(root: Path, task: str, **changes: Any) -> Job:
    how: dict[str, Any] = {"input__format": "openai-batch", "input__columns": {}}
    return make_job(root, task, **{**how, **changes})


def messages(job: Job) -> dict[str, str]:
    return {row["custom_id"]: row["rejection"]["message"] for row in all_rows(job, "rejected")}


def test_requests_for_images_are_rows_and_those_of_another_size_or_number_are_rejected_with_the_setting(
    tmp_path: Path,
) -> None:
    bodies = [
        {"prompt": "a fox", "model": "unipic", "size": "16x16", "n": 2, "quality": "high"},
        {"prompt": "a cat", "size": "auto", "seed": 7, "response_format": "b64_json", "output_format": "png"},
        {"prompt": "large", "size": "1024x1024"},
        {"prompt": "many", "n": 9},
        {"prompt": "webp", "output_format": "webp"},
        {"prompt": "hosted", "response_format": "url"},
        {"prompt": ["no", "text"]},
        {"prompt": "   "},
        {"prompt": "half \ud800"},
        ["no", "object"],
    ]
    batch(tmp_path / "manifest" / "b.jsonl", GENERATE, *bodies)
    job = job_of(tmp_path, "generate", params__samples_per_row=2)
    planned = plan(job, STORAGE)
    assert planned.rows == len(bodies)
    assert planned.notes == [
        "fields of requests that change nothing here, and how many requests have them: model (1), quality (1)"
    ]
    run_here(job)
    rows = all_rows(job)
    assert [(row["id"], row["sample"], row["prompt"]) for row in rows] == [
        ("r-0", 0, "a fox"),
        ("r-0", 1, "a fox"),
        ("r-1", 0, "a cat"),
        ("r-1", 1, "a cat"),
    ]
    assert rows[2]["lineage"]["seed"] == 7
    wrong = messages(job)
    assert wrong["r-2"] == (
        "The request cannot be done: it asks for images of 1024x1024, and this job makes 16x16. Run such requests as a "
        "job with another params.image_size."
    )
    assert "it asks for 9 images, and this job makes 2" in wrong["r-3"] and "params.samples_per_row" in wrong["r-3"]
    assert "it asks for webp, and this job writes png" in wrong["r-4"]
    assert "not as its response_format" in wrong["r-5"] and "its prompt is no text" in wrong["r-6"]
    assert wrong["r-7"].startswith("the prompt is empty")
    assert "its prompt is no text" in wrong["r-8"] and "its body is no JSON object" in wrong["r-9"]
    assert verify(job.output.uri, STORAGE).problems == []


def test_edits_take_one_image_of_a_data_url_or_a_path_within_the_guards(tmp_path: Path) -> None:
    (tmp_path / "manifest").mkdir()
    (tmp_path / "manifest" / "photo.png").write_bytes(png(9))
    inline, prompt = data_url(png()), "make it blue"
    bodies = [
        {"prompt": prompt, "images": [{"image_url": inline}]},
        {"prompt": prompt, "image": inline},
        {"prompt": prompt, "image": ["photo.png"]},
        {"prompt": prompt, "images": [{"image_url": inline}, {"image_url": inline}]},
        {"prompt": prompt, "images": [{"file_id": "file-1"}]},
        {"prompt": prompt, "image": inline, "mask": inline},
        {"prompt": prompt, "image": "data:image/png;base64,####"},
        {"prompt": prompt, "image": "data:image/png,raw"},
        {"prompt": prompt, "image": "../secret.png"},
        {"prompt": prompt, "image": "https://example.org/a.png"},
        {"prompt": prompt, "image": data_url(b"<html>")},
        {"prompt": prompt},
        {"image": inline},
    ]
    batch(tmp_path / "manifest" / "b.jsonl", EDIT, *bodies)
    job = job_of(tmp_path, "edit")
    run_here(job)
    assert [(row["id"], row["source"]) for row in all_rows(job)] == [("r-0", ""), ("r-1", ""), ("r-2", "photo.png")]
    wrong = messages(job)
    expected = {
        "r-3": "it has 2 images",
        "r-4": "an uploaded file's id",
        "r-5": "it has a mask",
        "r-6": "base64 is damaged",
        "r-7": "without base64",
        "r-8": "leads outside",
        "r-9": "input.allow_http",
        "r-10": "an HTML page",
        "r-11": "it has 0 images",
        "r-12": "the prompt is null",
    }
    assert {name: part for name, part in expected.items() if part not in wrong[name]} == {}


def test_a_chat_with_one_image_is_captioned_with_its_question(tmp_path: Path) -> None:
    inline = data_url(png())
    bodies = [
        asked("What is it?", inline),
        asked(None, inline),
        asked("long", inline, max_tokens=300, n=1),
        asked("short", inline, max_completion_tokens=10),
        asked("two", inline, n=2),
        asked("stream", inline, stream=True),
        {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "what?"}]},
        {"messages": [{"role": "user", "content": "no image"}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
    ]
    batch(tmp_path / "manifest" / "b.jsonl", CAPTION, *bodies)
    job = job_of(tmp_path, "caption")
    run_here(job)
    assert [(row["id"], row["question"]) for row in all_rows(job)] == [
        ("r-0", "What is it?"),
        ("r-1", "Describe the image in detail."),
        ("r-2", "long"),
    ]
    wrong = messages(job)
    expected = {
        "r-3": "params.max_new_tokens",
        "r-4": "a job gives one",
        "r-5": "a stream",
        "r-6": "it has 2 messages",
        "r-7": "it has 0 images",
        "r-8": "'input_audio', not text or image_url",
    }
    assert {name: part for name, part in expected.items() if part not in wrong[name]} == {}


def test_a_line_without_custom_id_or_with_another_method_is_a_rejected_row(tmp_path: Path) -> None:
    lines = [
        {"custom_id": "", "method": "POST", "url": GENERATE, "body": {"prompt": "a"}},
        {"method": "POST", "url": GENERATE, "body": {"prompt": "a"}},
        {"custom_id": "x", "method": "GET", "url": GENERATE, "body": {"prompt": "a"}},
    ]
    (tmp_path / "manifest").mkdir()
    (tmp_path / "manifest" / "b.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    job = job_of(tmp_path, "generate")
    run_here(job)
    found = sorted(row["rejection"]["message"] for row in all_rows(job, "rejected"))
    assert ["no custom_id" in one for one in found] == [True, True, False] and "not POST" in found[2]


def test_files_of_several_endpoints_or_of_another_task_are_refused_before_anything_runs(tmp_path: Path) -> None:
    mixed = batch(tmp_path / "mixed" / "b.jsonl", GENERATE, {"prompt": "a"})
    other = batch(tmp_path / "other.jsonl", EDIT, {"prompt": "a"})
    mixed.write_text(mixed.read_text() + other.read_text())
    with pytest.raises(ManifestError, match=r"b\.jsonl is for several endpoints: line 1 .*generations, line 2 .*edits"):
        discover(Input(manifest=str(mixed), format="openai-batch"), STORAGE)
    two = tmp_path / "two"
    batch(two / "a.jsonl", GENERATE, {"prompt": "a"})
    batch(two / "b.jsonl", EDIT, {"prompt": "a"})
    with pytest.raises(ManifestError, match=r"several endpoints: a\.jsonl for .*, b\.jsonl for .*edits"):
        discover(Input(manifest=str(two), format="openai-batch"), STORAGE)
    embeddings = batch(tmp_path / "e.jsonl", "/v1/embeddings", {})
    with pytest.raises(ManifestError, match="line 1 is for '/v1/embeddings'; UniPic answers /v1/images/generations"):
        discover(Input(manifest=str(embeddings), format="openai-batch"), STORAGE)
    batch(tmp_path / "manifest" / "b.jsonl", EDIT, {"prompt": "a"})
    with pytest.raises(
        JobError, match=r"requests are for /v1/images/edits, and this job's task is generate\. Set task"
    ):
        plan(job_of(tmp_path, "generate"), STORAGE)
    with pytest.raises(JobError, match=r"columns of an OpenAI batch file.*Set input\.format: openai-batch"):
        plan(make_job(tmp_path, "generate"), STORAGE)


def test_init_writes_a_job_that_fits_the_requests(tmp_path: Path) -> None:
    path = batch(tmp_path / "b.jsonl", GENERATE, {"prompt": "a", "size": "128x128", "n": 3, "output_format": "webp"})
    values = yaml.safe_load(draft(Wishes(manifest=str(path))))
    assert values["task"] == "generate" and values["input"] == {"manifest": str(path), "format": "openai-batch"}
    params = values["params"]
    assert (params["image_size"], params["samples_per_row"], params["image_format"]) == (128, 3, "webp")
    path = batch(tmp_path / "c.jsonl", CAPTION, asked("what?", "https://example.org/a.png", max_tokens=20))
    values = yaml.safe_load(draft(Wishes(manifest=str(path))))
    assert values["task"] == "caption" and values["input"]["allow_http"] is True
    assert values["params"]["max_new_tokens"] == 20
