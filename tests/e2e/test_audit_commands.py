"""What a user does the morning after: verify, trace, replay, repair, prune, all from the output alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.command_line import FAST, unipic, write_job
from tests.fakes import write_prompts


@pytest.fixture
def job(checkpoint: Path, tmp_path: Path) -> str:
    """A finished job over two manifest files."""
    for name in ("a", "b"):
        write_prompts(tmp_path / "manifest" / f"{name}.parquet", [f"thing {n}" for n in range(6)])
    job = write_job(
        tmp_path,
        "generate",
        checkpoint=checkpoint,
        manifest=str(tmp_path / "manifest"),
        output=str(tmp_path / "out"),
        input={"columns": {"id": "id"}},
        params=FAST,
    )
    unipic("run", job)
    return job


def test_an_output_is_verified_traced_replayed_repaired_and_pruned_from_the_command_line(
    job: str, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    assert "sound; 12 data and 0 rejected of 12 rows" in unipic("verify", out, "--replay", "2")
    (step,) = json.loads(unipic("trace", out, "a-3", "--json"))
    assert step["source"]["prompt"] == "thing 3"
    assert "identical" in unipic("replay", out, step["lineage"]["lineage_id"][:12])

    part = next((tmp_path / "out" / "data").iterdir())
    whole = part.read_bytes()
    part.write_bytes(whole[:-1])
    assert "altered part: 1" in unipic("verify", out, "--repair", expect=1)
    assert "6 from earlier runs" in unipic("run", job)
    assert part.read_bytes() == whole

    (tmp_path / "manifest" / "b.parquet").unlink()
    assert "b.parquet: outputs of 6 rows removed" in unipic("prune", job)
    assert "sound; 6 data" in unipic("verify", out)
