"""Repeated and missing ids are counted before a run; where only the first rows are looked at, it says so."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fakes import make_job
from unipic.jobs.commands.plan import _lines
from unipic.pipeline.errors import ManifestError
from unipic.pipeline.manifests.discovery import discover
from unipic.pipeline.manifests.ids import IdCount, count_ids
from unipic.pipeline.plan import plan
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()


def counted(root: Path, most_rows: int | None = None) -> IdCount:
    job = make_job(root)
    return count_ids(discover(job.input, STORAGE), "id", STORAGE, most_rows=most_rows)


def write(root: Path, name: str, ids: list[object]) -> None:
    (root / "manifest").mkdir(exist_ok=True)
    pq.write_table(pa.table({"id": ids, "prompt": ["p"] * len(ids)}), root / "manifest" / name, row_group_size=3)


def test_repeated_and_null_ids_are_counted_over_all_files(tmp_path: Path) -> None:
    write(tmp_path, "a.parquet", ["x", "y", "x", None, "x", "é"])
    write(tmp_path, "b.parquet", ["y", None, "e\u0301", "X"])
    assert counted(tmp_path) == IdCount(rows=10, repeated=3, null=2, complete=True)


def test_ids_that_are_numbers_are_counted_as_they_will_be_named(tmp_path: Path) -> None:
    write(tmp_path, "a.parquet", [1, 2, 1, -1, -2, None])
    assert counted(tmp_path) == IdCount(rows=6, repeated=1, null=1, complete=True)


def test_a_text_manifest_and_a_folder_of_pictures_are_counted_too(tmp_path: Path) -> None:
    (tmp_path / "manifest").mkdir()
    rows = [{"id": one, "prompt": "p"} for one in ("a", "a", None)]
    (tmp_path / "manifest" / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert counted(tmp_path) == IdCount(rows=3, repeated=1, null=1, complete=True)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("a.png", "b.png"):
        (pictures / name).write_bytes(b"x")
    found = discover(make_job(tmp_path, "caption", input__manifest=str(pictures)).input, STORAGE)
    assert count_ids(found, "id", STORAGE) == IdCount(rows=2, repeated=0, null=0, complete=True)


def test_a_cap_looks_at_the_first_rows_only(tmp_path: Path) -> None:
    write(tmp_path, "a.parquet", ["x", "x", "y", "y", "y"])
    write(tmp_path, "b.parquet", ["x", "x"])
    assert counted(tmp_path, most_rows=4) == IdCount(rows=4, repeated=2, null=0, complete=False)
    assert counted(tmp_path, most_rows=6) == IdCount(rows=6, repeated=4, null=0, complete=False)


def test_a_broken_id_column_is_named_with_its_file(tmp_path: Path) -> None:
    write(tmp_path, "a.parquet", [f"id-{number}" for number in range(1000)])
    path = tmp_path / "manifest" / "a.parquet"
    manifest = discover(make_job(tmp_path).input, STORAGE)
    data = bytearray(path.read_bytes())
    data[4:400] = bytes(396)
    path.write_bytes(data)
    with pytest.raises(ManifestError, match=r'a\.parquet: its column "id" cannot be read'):
        count_ids(manifest, "id", STORAGE)


def test_plan_tells_how_many_ids_repeat_or_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.parquet", ["x", "x", None, "y", "y"])
    said = "\n".join(_lines(plan(make_job(tmp_path), STORAGE)))
    assert "2 rows with a repeated id: such rows share a seed" in said
    assert "1 row without an id: file and row identify them" in said
    monkeypatch.setattr("unipic.pipeline.plan.LOOKED_AT_ROWS", 2)
    said = "\n".join(_lines(plan(make_job(tmp_path), STORAGE)))
    assert "at least 1 row with a repeated id (first 2 rows; --ids checks all)" in said
    assert plan(make_job(tmp_path), STORAGE, all_ids=True).ids == IdCount(rows=5, repeated=2, null=1, complete=True)
    monkeypatch.setattr("unipic.pipeline.plan.LOOKED_AT_ROWS", 1)
    said = "\n".join(_lines(plan(make_job(tmp_path), STORAGE)))
    assert "no repeated or missing ids (first 1 rows; --ids checks all)" in said


def test_a_plan_without_an_id_column_reads_no_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.parquet", ["x", "x"])
    monkeypatch.setattr("unipic.pipeline.plan.count_ids", lambda *_, **__: pytest.fail("ids were read"))
    assert plan(make_job(tmp_path, input__columns={"prompt": "prompt"}), STORAGE).ids is None
