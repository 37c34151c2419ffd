"""Parquet files that no run can read as meant are refused."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fakes import all_rows, make_job
from tests.inprocess import run_here
from unipic.pipeline.errors import ManifestError
from unipic.pipeline.plan import plan
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()


def test_a_parquet_file_with_two_columns_of_one_name_is_refused_with_both_names(tmp_path: Path) -> None:
    (tmp_path / "manifest").mkdir()
    table = pa.table([["a"], ["p"], [1], [2]], names=["id", "prompt", "x", "x"])
    pq.write_table(table, tmp_path / "manifest" / "a.parquet")
    with pytest.raises(ManifestError, match=r"a\.parquet has several columns called x\."):
        plan(make_job(tmp_path), STORAGE)


def test_nested_columns_whose_fields_are_always_null_are_shown_and_kept(tmp_path: Path) -> None:
    (tmp_path / "manifest").mkdir()
    boxes = [[{"x": n, "label": None}] for n in range(5)]
    table = pa.table({"id": list("abcde"), "prompt": ["p"] * 5, "boxes": boxes})
    pq.write_table(table, tmp_path / "manifest" / "a.parquet")
    job = make_job(tmp_path, input__keep=["boxes"], compute__rows_per_unit=2)
    assert plan(job, STORAGE).head[1]["boxes"] == boxes[1]
    run_here(job)
    assert [row["boxes"] for row in all_rows(job)] == boxes
