"""The output that a row was copied from is found beside what is known, on a disk and on S3."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import all_rows, make_job, write_prompts
from tests.inprocess import run_here
from tests.servers import S3Server
from unipic.pipeline.output.neighbours import MOST_FOLDERS, find_beside
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage


@pytest.mark.parametrize("near", ["manifests", "captions/"])
def test_an_output_is_found_among_other_folders_on_s3(tmp_path: Path, moto: S3Server, near: str) -> None:
    storage = Storage(StorageOptions(endpoint_url=moto.endpoint_url))
    bucket = moto.bucket()
    write_prompts(tmp_path / "manifest" / "a.parquet", [f"p {n}" for n in range(20)])
    settings = {"storage__endpoint_url": moto.endpoint_url}
    job = make_job(tmp_path, output__uri=f"{bucket}/pictures", **settings)
    run_here(job)
    for name in ("a.txt", "manifests/x.parquet", "captions/data/part.parquet", "captions/_unipic/run.json", "zz/y"):
        storage.write(f"{bucket}/{name}", b"rubbish")
    wanted = all_rows(job)[11]["lineage"]
    found = find_beside([f"{bucket}/{near}"], wanted, storage)
    assert found is not None and (found.output, found.at) == (job.output.uri, 11 - 8)
    assert find_beside([f"{bucket}/{near}"], {**wanted, "lineage_id": "0" * 32}, storage) is None


def test_a_search_ends_when_it_is_asked_to_and_after_so_many_folders(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["x"])
    job = make_job(tmp_path)
    run_here(job)
    (row,) = all_rows(job)
    near = [str(tmp_path / "manifest")]
    assert find_beside(near, row["lineage"], Storage()) is not None
    assert find_beside(near, row["lineage"], Storage(), give_up=lambda: True) is None
    for number in range(MOST_FOLDERS):
        (tmp_path / f"a{number:03d}").mkdir()
    assert find_beside(near, row["lineage"], Storage()) is None
