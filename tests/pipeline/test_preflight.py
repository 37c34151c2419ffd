"""What is refused before any work begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import make_job, part_bytes, write_prompts
from tests.inprocess import run_here
from unipic.pipeline.errors import CheckpointError


def test_a_checkpoint_that_does_not_match_its_digests_is_refused_with_the_files_name(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    job = make_job(tmp_path)
    (tmp_path / "checkpoint" / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"weights\.safetensors does not match its digest"):
        run_here(job)
    assert part_bytes(job) == {}
