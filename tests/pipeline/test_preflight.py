"""What is refused before any work begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import make_job, part_bytes, write_prompts
from tests.inprocess import run_here
from unipic.pipeline.errors import CheckpointError, UniPicError
from unipic.pipeline.preflight import examine
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage


def test_a_checkpoint_that_does_not_match_its_digests_is_refused_with_the_files_name(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    job = make_job(tmp_path)
    (tmp_path / "checkpoint" / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"weights\.safetensors does not match its digest"):
        run_here(job)
    assert part_bytes(job) == {}


def test_missing_credentials_are_one_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    places = {"input__manifest": "s3://a/m.parquet", "model__checkpoint": "s3://b/c", "output__uri": "s3://c/out"}
    storage = Storage(StorageOptions(endpoint_url="http://127.0.0.1:9", region="us-east-1"))
    with pytest.raises(UniPicError, match=r"^No complete credentials were found for s3://b/c") as caught:
        examine(make_job(tmp_path, **places), storage, may_have_changed=False)
    assert "faults" not in str(caught.value) and "AWS_ACCESS_KEY_ID" in caught.value.remedy
