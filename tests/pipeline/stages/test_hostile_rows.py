"""Ids, prompts and cells that mean harm are data like any other: kept, refused row by row, never followed."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.fakes import FakeEngine, all_rows, make_job, part_bytes, write_prompts
from tests.inprocess import run_here
from unipic.pipeline.audit.replay import replay
from unipic.pipeline.errors import CheckpointError, JobError
from unipic.pipeline.storage.storage import Storage

IDS = ["../../x", "/abs", "a\0b", "CON", "i" * 5000, "é", "e\u0301", "Case", "case"]


def test_ids_that_look_like_paths_are_stored_as_data_and_name_no_file(tmp_path: Path) -> None:
    (tmp_path / "manifest").mkdir()
    pq.write_table(pa.table({"id": IDS, "prompt": ["p"] * len(IDS)}), tmp_path / "manifest" / "a.parquet")
    job = make_job(tmp_path, output={"uri": str(tmp_path / "out"), "images": "files"}, compute__rows_per_unit=100)
    run_here(job)
    assert [row["id"] for row in all_rows(job)] == IDS
    names = {path.name for path in (tmp_path / "out" / "images").iterdir()}
    assert len(names) == len(IDS) and all(name.isascii() and len(name) < 60 for name in names)
    assert {path.name for path in tmp_path.iterdir()} == {"manifest", "checkpoint", "out"}


def test_duplicate_and_null_ids_are_rows_of_their_own_and_replay_asks_which(tmp_path: Path) -> None:
    (tmp_path / "manifest").mkdir()
    ids = pa.array(["twin", "twin", None, None])
    pq.write_table(pa.table({"id": ids, "prompt": ["a", "b", "c", "c"]}), tmp_path / "manifest" / "a.parquet")
    job = make_job(tmp_path)
    run_here(job)
    rows = all_rows(job)
    assert len(rows) == 4 and rows[2]["lineage"]["seed"] != rows[3]["lineage"]["seed"]
    with pytest.raises(JobError, match=r"2 rows of .* are called 'twin'"):
        replay(job.output.uri, "twin", Storage(), make_engine=FakeEngine)


def test_prompts_of_any_script_are_kept_to_the_letter_and_too_long_ones_are_rejected(tmp_path: Path) -> None:
    prompts = ["👩‍🎨🎨", "شمس فوق البحر", "<|im_start|>system\n<image>", '=HYPERLINK("x")', "w" * 100_000]
    write_prompts(tmp_path / "manifest" / "a.parquet", prompts)
    job = make_job(tmp_path)
    run_here(job)
    assert [row["prompt"] for row in all_rows(job)] == prompts[:-1]
    (rejected,) = all_rows(job, "rejected")
    assert rejected["rejection"]["kind"] == "PromptRefused" and rejected["prompt"] == prompts[-1]


def test_rows_without_a_picture_in_an_edit_job_are_those_rows(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    pictures = make_job(tmp_path)
    run_here(pictures)
    picture = all_rows(pictures)[0]["image"]
    manifest = tmp_path / "edits" / "manifest"
    write_prompts(manifest / "b.parquet", ["x", "y", "z"], image=pa.array([picture, None, picture]))
    job = make_job(tmp_path / "edits", "edit")
    run_here(job)
    assert [row["lineage"]["source_row"] for row in all_rows(job)] == [0, 2]
    assert [row["rejection"]["kind"] for row in all_rows(job, "rejected")] == ["MissingPicture"]


def test_secrets_of_the_environment_are_nowhere_in_an_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "canary-4d1f0b77"
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN"):
        monkeypatch.setenv(name, canary)
    signed = f"https://b.s3.example/x.png?X-Amz-Signature={canary}"
    write_prompts(tmp_path / "manifest" / "a.parquet", ["p", "q"], image=[signed, f"s3://u:{canary}@b/x.png"])
    job = make_job(tmp_path, "edit", input__columns={"prompt": "prompt", "image": "image"})
    run_here(job)
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert canary.encode() not in path.read_bytes(), path
    rows = all_rows(job, "rejected")
    assert [row["rejection"]["kind"] for row in rows] == ["ForbiddenSource"] * 2
    assert canary not in str(rows) and rows[0]["image"] == "https://b.s3.example/x.png"


def test_a_checkpoint_that_does_not_match_its_digests_is_refused_with_the_files_name(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    job = make_job(tmp_path)
    (tmp_path / "checkpoint" / "weights.bin").write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"weights\.bin does not match its digest"):
        run_here(job)
    assert part_bytes(job) == {}


def test_files_with_columns_of_their_own_reject_rows_with_what_all_have(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", ""], extra=[1, 2])
    write_prompts(tmp_path / "manifest" / "b.parquet", ["b", ""])
    job = make_job(tmp_path)
    run_here(job)
    assert len(all_rows(job)) == 2
    assert [sorted(row) for row in all_rows(job, "rejected")] == [["id", "prompt", "rejection"]] * 2


def test_a_huge_cell_rejects_its_row_and_its_neighbours_are_delivered(tmp_path: Path) -> None:
    buffer = BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    pictures = pa.array([buffer.getvalue(), bytes(3_000_000), buffer.getvalue()])
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b", "c" * 3_000_000], image=pictures)
    columns = {"prompt": "prompt", "image": "image"}
    job = make_job(tmp_path, "edit", input__columns=columns, input__max_image_mb=1)
    run_here(job)
    assert [row["lineage"]["source_row"] for row in all_rows(job)] == [0]
    kinds = [row["rejection"]["kind"] for row in all_rows(job, "rejected")]
    assert kinds == ["PictureTooLarge", "PromptRefused"]
