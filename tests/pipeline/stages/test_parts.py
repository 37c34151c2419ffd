"""What a part holds: ids as data, kept columns of any kind, files that other programs load."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.fakes import all_rows, make_job, write_prompts
from tests.inprocess import run_here
from tests.tables import BROKEN, REPLACED, grey_png, texts, write_table
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.output.part_file import parquet_bytes
from unipic.pipeline.plan import plan
from unipic.pipeline.records import PICTURE
from unipic.pipeline.stages.parts import kept_names
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()


def test_columns_that_are_only_kept_may_hold_broken_text_at_any_depth(tmp_path: Path) -> None:
    broken = texts(BROKEN, "b", None)
    nested = {
        "text": broken,
        "struct": pa.StructArray.from_arrays([broken], names=["x"]),
        "list": pa.ListArray.from_arrays([0, 1, 1, 3], broken),
        "map": pa.MapArray.from_arrays([0, 1, 2, 3], pa.array(["k", "l", "m"]), broken),
        "long": broken.cast(pa.binary()).cast(pa.large_binary()).view(pa.large_string()),
    }
    write_table(tmp_path, id=["1", "2", "3"], prompt=["p", "", "r"], **nested)
    job = make_job(tmp_path, input__keep=list(nested))
    run_here(job)
    first, last = all_rows(job)
    assert (first["text"], first["struct"], first["list"], first["long"]) == (
        REPLACED,
        {"x": REPLACED},
        [REPLACED],
        REPLACED,
    )
    assert first["map"] == [{"key": "k", "value": REPLACED}] and last["list"] == ["b", None]
    assert [row["text"] for row in all_rows(job, "rejected")] == ["b"]


def test_a_rejected_row_may_hold_broken_text_in_a_column_nobody_named(tmp_path: Path) -> None:
    write_table(tmp_path, id=["1", "2"], prompt=["p", ""], note=texts("fine", BROKEN))
    job = make_job(tmp_path)
    run_here(job)
    assert len(all_rows(job)) == 1
    assert [row["note"] for row in all_rows(job, "rejected")] == [REPLACED]


def test_kept_columns_never_share_a_name(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["p"], source_id=["s"], source_source_id=["t"])
    job = make_job(tmp_path, input__keep=["source_id", "id", "source_source_id"])
    run_here(job)
    (row,) = all_rows(job)
    kept = (row["source_id"], row["source_source_source_id"], row["source_source_id"])
    assert kept == ("s", "a-0", "t") and row["id"] == "a-0"


@pytest.mark.parametrize("task", ["generate", "caption"])
def test_kept_columns_called_like_ours_are_kept_under_a_name_that_is_said_and_verify_copes(
    tmp_path: Path, task: str
) -> None:
    ours = ["rejection", "id", "sample", "prompt", "lineage", "image", "caption", "source", "task", "output_sha256"]
    (tmp_path / "manifest").mkdir()
    image = {"bytes": grey_png(), "path": None}
    cells = {name: [f"my {name}"] * 2 for name in ours} | {"id": ["a", "b"], "image": [image] * 2}
    pq.write_table(pa.table(cells | {"prompt": ["p", ""]}), tmp_path / "manifest" / "a.parquet")
    columns = {"id": "id", "prompt": "prompt"} | ({"image": "image"} if task == "caption" else {})
    job = make_job(tmp_path, task, input__columns=columns, input__keep=ours)
    said = "\n".join(plan(job, STORAGE).notes)
    run_here(job)
    assert verify(job.output.uri, STORAGE).ok
    (row,) = all_rows(job)
    for name, free in kept_names(job).items():
        assert row[free] == ("p" if name == "prompt" else cells[name][0])
        assert (f'the column "{name}" is kept as "{free}"' in said) == (name != free)
    assert kept_names(job)["rejection"] == "source_rejection"
    (bad,) = all_rows(job, "rejected")
    assert (bad["source_rejection"], bad["rejection"]["kind"]) == ("my rejection", "EmptyPrompt")


def test_the_rejection_of_an_earlier_run_gives_way_to_the_one_of_this(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", [""])
    first = make_job(tmp_path)
    run_here(first)
    again = make_job(tmp_path, input__manifest=f"{first.output.uri}/rejected", output__uri=str(tmp_path / "again"))
    run_here(again)
    (row,) = all_rows(again, "rejected")
    assert sorted(row) == ["id", "prompt", "rejection"]


def test_a_part_with_kept_columns_of_any_kind_is_loaded_by_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    day = date(2020, 1, 2)
    table = pa.table(
        {
            "image": pa.array([{"bytes": grey_png(), "path": "x.png"}], PICTURE),
            "date": pa.array([day], pa.date32()),
            "moment": pa.array([day], pa.date64()),
            "half": pa.array([np.float16(1.5)], pa.float16()),
            "map": pa.array([[("a", [("b", 1)])]], pa.map_(pa.string(), pa.map_(pa.string(), pa.int64()))),
            "pair": pa.array([[1, 2]], pa.list_(pa.int64(), 2)),
            "deep": pa.array([[{"on": day}]]),
            "words": pa.array([["w"]], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
            "price": pa.array([None], pa.decimal32(5, 2)),
            "nothing": pa.array([{"a": 1, "e": {}}]),
        }
    )
    (tmp_path / "part.parquet").write_bytes(parquet_bytes(table))
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "part.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    row = loaded[0]
    assert isinstance(row["image"], Image.Image)
    assert row["map"] == [{"key": "a", "value": [{"key": "b", "value": 1}]}]
    assert (row["half"], row["pair"], row["deep"], row["words"]) == (1.5, [1, 2], [{"on": day}], ["w"])
    assert row["date"] == day and row["nothing"] == '{"a": 1, "e": {}}'


@pytest.mark.parametrize("empty", [{}, [{}], {"inner": {}}, [{"inner": [{}]}]])
def test_objects_without_fields_are_written_as_text(empty: Any) -> None:
    table = pa.table({"meta": pa.array([empty, None])})
    written = pq.read_table(pa.BufferReader(parquet_bytes(table)))
    assert written.column("meta").to_pylist()[0].startswith(("{", "[")) and written.column("meta")[1].as_py() is None


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


def test_files_with_columns_of_their_own_reject_rows_with_what_all_have(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", ""], extra=[1, 2])
    write_prompts(tmp_path / "manifest" / "b.parquet", ["b", ""])
    job = make_job(tmp_path)
    run_here(job)
    assert len(all_rows(job)) == 2
    assert [sorted(row) for row in all_rows(job, "rejected")] == [["id", "prompt", "rejection"]] * 2
