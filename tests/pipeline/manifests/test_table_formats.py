"""Folders that are more than their files are read rightly, or refused with the remedy: never stale files as rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from tests.fakes import all_rows, make_job, write_prompts
from tests.inprocess import run_here
from tests.servers import S3Server
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.errors import ManifestError
from unipic.pipeline.job import Input
from unipic.pipeline.manifests.discovery import discover
from unipic.pipeline.manifests.ids import IdCount, count_ids
from unipic.pipeline.plan import plan
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()
TABLES = {
    "a Delta table": ["part-0.parquet", "_delta_log/00000000000000000000.json"],
    "an Iceberg table": ["data/part-0.parquet", "metadata/00000-ab.metadata.json", "metadata/snap-1.avro"],
    "a Hudi table": ["part-0.parquet", ".hoodie/hoodie.properties"],
    "a data set that datasets.save_to_disk wrote": ["data-00000-of-00001.arrow", "dataset_info.json", "state.json"],
}


def table(folder: Path, kind: str) -> Path:
    for name in TABLES[kind]:
        path = folder / name
        if name.endswith(".parquet"):
            write_prompts(path, ["p"])
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
    return folder


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_whose_files_do_not_say_what_its_rows_are_is_refused_with_the_remedy(tmp_path: Path, kind: str) -> None:
    table(tmp_path / "warehouse" / "t", kind)
    for manifest in ("warehouse/t", "warehouse/t/", "warehouse"):
        job = make_job(tmp_path, input__manifest=f"{tmp_path}/{manifest}")
        with pytest.raises(ManifestError, match=rf"warehouse.* is {kind}: .*[Ww]rite (its rows|them) to Parquet first"):
            plan(job, STORAGE)


@pytest.mark.parametrize(
    ("kind", "inside"),
    [
        ("a Delta table", "t/*.parquet"),
        ("a Delta table", "t/**/*.parquet"),
        ("an Iceberg table", "t/data"),
        ("an Iceberg table", "t/data/*.parquet"),
        ("a Hudi table", "t/*.parquet"),
    ],
)
def test_files_inside_such_a_table_are_refused_too_unless_one_is_named(tmp_path: Path, kind: str, inside: str) -> None:
    table(tmp_path / "t", kind)
    with pytest.raises(ManifestError, match=rf"/t is {kind}"):
        discover(Input(manifest=f"{tmp_path}/{inside}"), STORAGE)
    (one,) = (tmp_path / "t").rglob("*.parquet")
    assert discover(Input(manifest=str(one)), STORAGE).rows == 1


def test_a_partition_of_a_delta_table_is_refused(tmp_path: Path) -> None:
    table(tmp_path / "t", "a Delta table")
    write_prompts(tmp_path / "t" / "day=1" / "part.parquet", ["p"])
    with pytest.raises(ManifestError, match="/t is a Delta table"):
        discover(Input(manifest=f"{tmp_path}/t/day=1"), STORAGE)


@pytest.mark.parametrize("server", ["rclone", "moto"])
def test_on_s3_a_delta_table_is_refused(server: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    s3: S3Server = request.getfixturevalue(server)
    storage, root = Storage(StorageOptions(endpoint_url=s3.endpoint_url)), s3.bucket()
    rows = write_prompts(tmp_path / "a.parquet", ["p"]).read_bytes()
    for name, data in (("t/a.parquet", rows), ("t/_delta_log/0.json", b"{}"), ("plain/a.parquet", rows)):
        storage.write(f"{root}/{name}", data)
    for manifest in ("t", "t/*.parquet"):
        with pytest.raises(ManifestError, match="/t is a Delta table"):
            discover(Input(manifest=f"{root}/{manifest}"), storage)
    assert discover(Input(manifest=f"{root}/plain"), storage).rows == 1


def test_columns_that_stand_in_folder_names_are_columns_of_the_rows(tmp_path: Path) -> None:
    rows = pa.table(
        {
            "prompt": [f"p{at}" for at in range(6)],
            "day": ["2026-01-01", "2026-01-02"] * 3,
            "kind": ["a/b", "ü", None] * 2,
        }
    )
    pyarrow.dataset.write_dataset(
        rows,
        tmp_path / "manifest",
        format="parquet",
        partitioning=["day", "kind"],
        partitioning_flavor="hive",
    )
    job = make_job(tmp_path, input__columns={"prompt": "prompt", "id": "day"}, input__keep=["kind"])
    run_here(job)
    made = {(row["prompt"], row["id"], row["kind"]) for row in all_rows(job)}
    assert made == {(row["prompt"], row["day"], row["kind"]) for row in rows.to_pylist()}
    assert verify(job.output.uri, STORAGE).ok
    assert count_ids(discover(job.input, STORAGE), "day", STORAGE) == IdCount(6, repeated=4, null=0, complete=True)


def test_a_column_of_the_file_itself_comes_before_one_in_its_path(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "id=7" / "a.parquet", ["p", ""])
    (tmp_path / "manifest" / "id=8").mkdir()
    (tmp_path / "manifest" / "id=8" / "b.csv").write_text("prompt\nq\n")
    job = make_job(tmp_path)
    run_here(job)
    assert [row["id"] for row in all_rows(job)] == ["a-0", "8"]


def test_rejected_rows_keep_the_columns_of_their_folders(tmp_path: Path) -> None:
    (tmp_path / "manifest" / "day=2026-01-01").mkdir(parents=True)
    pq.write_table(pa.table({"prompt": ["", "p"]}), tmp_path / "manifest" / "day=2026-01-01" / "a.parquet")
    job = make_job(tmp_path, input__columns={"prompt": "prompt"})
    run_here(job)
    (row,) = all_rows(job, "rejected")
    assert (row["prompt"], row["day"]) == ("", "2026-01-01")
