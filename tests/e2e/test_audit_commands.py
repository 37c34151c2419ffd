"""What a user does the morning after: verify, trace, replay, repair, prune, all from the output alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.command_line import FAST, unipic, write_job
from tests.fakes import write_prompts

pytestmark = pytest.mark.slow


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


def test_an_output_is_verified_traced_replayed_and_pruned_from_the_command_line(job: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert "sound; 12 data and 0 rejected of 12 rows" in unipic("verify", out, "--replay", "2")
    (step,) = json.loads(unipic("trace", out, "a-3", "--json"))
    assert step["source"]["prompt"] == "thing 3"
    assert "identical" in unipic("replay", out, step["lineage"]["lineage_id"][:12])

    (tmp_path / "manifest" / "b.parquet").unlink()
    assert "b.parquet: outputs of 6 rows removed" in unipic("prune", job, "--yes")
    assert "sound; 6 data" in unipic("verify", out)


def _flip_a_byte(part: Path) -> None:
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)


def test_repair_does_damaged_units_again_and_leaves_those_that_it_cannot(
    job: str, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    one, other = sorted((out / "data").iterdir())
    whole = {path: path.read_bytes() for path in (one, other)}
    untouched = other.stat().st_mtime_ns
    _flip_a_byte(one)
    (out / "data" / "part-copy.parquet").write_bytes(whole[one])
    said = unipic("verify", str(out), "--repair")
    assert "altered part: 1" in said and "running 1 damaged unit again" in said
    assert "unexpected file: 1" in said and "moved 1 file to" in said
    assert "out: sound; 12 data and 0 rejected of 12 rows" in said
    assert {path: path.read_bytes() for path in (out / "data").iterdir()} == whole
    assert other.stat().st_mtime_ns == untouched

    _flip_a_byte(one)
    damaged = one.read_bytes()
    aside = checkpoint.rename(tmp_path / "elsewhere")
    said = unipic("verify", str(out), "--repair", expect=1)
    assert (
        f"1 damaged unit unchanged: run.json's job cannot make them again: {checkpoint} is not a converted checkpoint"
        in said
    )
    assert {path: path.read_bytes() for path in (one, other)} == {**whole, one: damaged}
    aside.rename(checkpoint)
    assert "out: sound; 12 data and 0 rejected of 12 rows" in unipic("verify", str(out), "--repair")
    assert {path: path.read_bytes() for path in (out / "data").iterdir()} == whole
