"""An output of another output version is refused by name, before anything is read from or written to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import all_rows, make_job, write_prompts
from tests.inprocess import retry_here, run_here
from unipic.pipeline.audit.export import export
from unipic.pipeline.audit.replay import replay
from unipic.pipeline.audit.status import status
from unipic.pipeline.audit.trace import trace
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.errors import OtherOutputVersion
from unipic.pipeline.job import Job
from unipic.pipeline.plan import plan
from unipic.pipeline.sealed import digest, sealed, unsealed
from unipic.pipeline.storage.storage import Storage


@pytest.fixture
def earlier(tmp_path: Path) -> Job:
    """A finished output whose records say output version 1."""
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"])
    job = make_job(tmp_path)
    run_here(job)
    record = Path(job.output.uri, "_unipic", "run.json")
    value = unsealed(record.read_text())
    value["fields"]["output version"] = 1
    value["fingerprint"] = digest(value["fields"])
    record.write_text(sealed(value))
    (epoch,) = Path(job.output.uri, "_unipic", "epochs").iterdir()
    epoch.write_text(sealed({**unsealed(epoch.read_text()), "fingerprint": value["fingerprint"]}))
    return job


LOOKS: dict[str, Callable[[Job, Path], object]] = {
    "run": lambda job, _: run_here(job),
    "retry": lambda job, _: retry_here(job),
    "plan": lambda job, _: plan(job, Storage()),
    "verify": lambda job, _: verify(job.output.uri, Storage()),
    "status": lambda job, _: status(job.output.uri, Storage()),
    "trace": lambda job, _: trace(job.output.uri, "a-0", Storage()),
    "replay": lambda job, _: replay(job.output.uri, "a-0", Storage()),
    "export": lambda job, folder: export(job.output.uri, folder / "x.csv", Storage()),
}


@pytest.mark.parametrize("look", LOOKS)
def test_every_command_names_the_output_version_that_it_does_not_read(earlier: Job, tmp_path: Path, look: str) -> None:
    said = r"was written in output version 1 \(by unipic .*\), this unipic reads and writes version 2"
    with pytest.raises(OtherOutputVersion, match=said):
        LOOKS[look](earlier, tmp_path)


def test_the_data_of_an_earlier_version_remain_a_manifest(earlier: Job, tmp_path: Path) -> None:
    columns = {"id": "id", "image": "image"}
    source = {"manifest": f"{earlier.output.uri}/data", "columns": columns}
    caption = make_job(tmp_path, "caption", input=source, output__uri=str(tmp_path / "captions"))
    run_here(caption)
    assert json.dumps([row["id"] for row in all_rows(caption)]) == '["a-0", "a-1"]'
