"""`unipic trace` and `unipic status` take the output, the endpoint and the region from a job file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.fakes import all_rows
from tests.servers import S3Server
from unipic.pipeline.job import Job
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage

Command = Callable[..., tuple[int, str, str]]


def written(path: Path, job: Job) -> Path:
    path.write_text(yaml.safe_dump(job.model_dump(mode="json", exclude_unset=True)))
    return path


def test_a_job_file_stands_for_the_output(job: Job, command: Command, tmp_path: Path) -> None:
    file = written(tmp_path / "job.yaml", job)
    row = all_rows(job)[0]["lineage"]["lineage_id"]
    by_job = command("trace", row, "--job", file)
    assert by_job == command("trace", job.output.uri, row) and by_job[0] == 0 and row[:16] in by_job[1]
    code, said, _ = command("status", "--job", file, "--json")
    assert (code, json.loads(said)["rows"]) == (0, 20)


def test_endpoint_and_region_come_from_the_job_file(moto: S3Server, job: Job, command: Command, tmp_path: Path) -> None:
    place = f"{moto.bucket()}/out"
    storage = Storage(StorageOptions(endpoint_url=moto.endpoint_url))
    for info in Storage().list(job.output.uri, recursive=True):
        storage.write(f"{place}{info.uri.removeprefix(job.output.uri)}", Storage().read(info.uri))
    moved = job.model_copy(
        update={
            "output": job.output.model_copy(update={"uri": place}),
            "storage": StorageOptions(endpoint_url=moto.endpoint_url, region="eu-west-1"),
        }
    )
    file = written(tmp_path / "job.yaml", moved)
    code, said, _ = command("status", "--job", file)
    assert code == 0 and "20 of 20 done" in said
    code, said, _ = command("status", "s3://elsewhere/none", "--job", file)
    assert code == 1


@pytest.mark.parametrize("words", [("status",), ("trace", "row"), ("trace", "a", "b", "c")])
def test_what_is_missing_is_named(words: tuple[str, ...], command: Command) -> None:
    code, _, said = command(*words)
    assert code == 1 and ("give OUTPUT, or --job FILE" in said or "expected OUTPUT and ROW, got 3 words" in said)
