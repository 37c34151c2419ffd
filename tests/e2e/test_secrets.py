"""Secrets of the environment and of the manifest's addresses: nowhere in outputs, events, or words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.command_line import unipic, write_job
from tests.fakes import write_prompts
from unipic.jobs.cli import main

CANARY = "canary-77c1"


def secret_job(folder: Path, checkpoint: Path) -> str:
    """An edit job with signed addresses in every kind of cell, one row good and one rejected."""
    Image.new("RGB", (8, 8), "red").save(folder / "x.png")
    signed = f"https://b.s3.example/x.png?X-Amz-Signature={CANARY}#{CANARY}"
    write_prompts(
        folder / "manifest" / "a.parquet",
        ["p", "q"],
        image=["x.png", signed],
        url=[signed, signed],
        nested=[{"bytes": b"x", "path": signed}, {"bytes": None, "path": signed}],
        many=[[signed], [signed]],
    )
    return write_job(
        folder,
        "edit",
        checkpoint=checkpoint,
        manifest=str(folder / "manifest"),
        output=str(folder / "out"),
        input={
            "columns": {"id": "url", "prompt": "prompt", "image": "image"},
            "keep": ["nested", "many"],
            "image_root": str(folder),
        },
        params={"image_size": 64, "num_iterations": 2, "diffusion_steps": 2},
        limits={"max_rejected": 1},
    )


def test_what_plan_shows_of_rows_holds_no_signatures(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = secret_job(tmp_path, checkpoint)
    for words in ([], ["--json"]):
        with pytest.raises(SystemExit, match="0"):
            main(["plan", job, *words])
        said = capsys.readouterr()
        assert "https://b.s3.example/x.png" in said.out
        assert CANARY not in said.out + said.err


@pytest.mark.slow
def test_secrets_of_the_environment_and_of_the_manifest_are_nowhere_after_a_whole_run(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "HTTP_PROXY", "DATABASE_PASSWORD"):
        monkeypatch.setenv(name, CANARY)
    job = secret_job(tmp_path, checkpoint)
    said = unipic("run", job, "--verbose")
    output = str(tmp_path / "out")
    said += unipic("status", output, "--json") + unipic("trace", output, "a.parquet:0") + unipic("verify", output)
    assert CANARY not in said
    files = [Path(folder, name) for folder, _, names in os.walk(output) for name in names]
    for kind in ("run.json", "events", "receipts", "data", "rejected"):
        assert any(kind in str(path.relative_to(output)) for path in files), kind
    for path in files:
        assert CANARY.encode() not in path.read_bytes(), path
