"""The output folder opens as it is in the programs that people use, each with all its rows, images and lineage."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.fakes import FakeEngine, all_rows, make_job, write_prompts
from unipic.pipeline.job import Job
from unipic.pipeline.run import run

PROMPTS = ["a", "b", "", *(f"prompt {n}" for n in range(9))]
GIVEN = [prompt for prompt in PROMPTS if prompt]


@pytest.fixture(scope="module")
def finished(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Eleven images in two parts and one rejected row."""
    root = tmp_path_factory.mktemp("output")
    write_prompts(root / "manifest" / "a.parquet", PROMPTS)
    job = make_job(root)
    run(job, make_engine=FakeEngine)
    return job


@pytest.fixture
def expected(finished: Job) -> list[dict[str, Any]]:
    return all_rows(finished)


def shape(data: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(data)).size


def test_datasets_loads_the_folder_with_images_decoded_and_the_rejected_rows_as_a_config(
    finished: Job, tmp_path: Path, expected: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loaded = datasets.load_dataset(finished.output.uri, split="train", cache_dir=str(tmp_path))
    assert loaded["prompt"][:] == GIVEN and isinstance(loaded.features["image"], datasets.Image)
    assert loaded[3]["image"].size == (16, 16)
    assert [row["lineage_id"].hex() for row in loaded["lineage"]] == [row["lineage"]["lineage_id"] for row in expected]
    rejected = datasets.load_dataset(finished.output.uri, "rejected", split="train", cache_dir=str(tmp_path))
    assert [row["kind"] for row in rejected["rejection"]] == ["EmptyPrompt"]


def test_duckdb_queries_it(finished: Job, expected: list[dict[str, Any]]) -> None:
    import duckdb

    found = duckdb.sql(
        "SELECT prompt, image.bytes, lower(hex(lineage.lineage_id)), lineage.seed "
        f"FROM '{finished.output.uri}/data/*.parquet' ORDER BY lineage.source_row"
    ).fetchall()
    assert [row[0] for row in found] == GIVEN and shape(found[0][1]) == (16, 16)
    assert [row[2:] for row in found] == [(row["lineage"]["lineage_id"], row["lineage"]["seed"]) for row in expected]


def test_polars_reads_it_and_unnests_lineage_beside_the_columns(finished: Job, expected: list[dict[str, Any]]) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.read_parquet(f"{finished.output.uri}/data/*.parquet").unnest("lineage")
    assert frame["prompt"].to_list() == frame["prompt_sent"].to_list() == GIVEN
    assert frame["seed"].dtype == polars.Int64
    assert frame["lineage_id"].bin.encode("hex").to_list() == [row["lineage"]["lineage_id"] for row in expected]


def test_pandas_reads_it(finished: Job, expected: list[dict[str, Any]]) -> None:
    import pandas

    frame = pandas.read_parquet(f"{finished.output.uri}/data")
    assert list(frame["prompt"]) == GIVEN and shape(frame["image"][0]["bytes"]) == (16, 16)
    assert [row["lineage_id"].hex() for row in frame["lineage"]] == [row["lineage"]["lineage_id"] for row in expected]


def test_a_pyarrow_dataset_reads_it_and_filters_on_lineage(finished: Job, expected: list[dict[str, Any]]) -> None:
    import pyarrow.dataset as ds

    dataset = ds.dataset(f"{finished.output.uri}/data")
    assert dataset.count_rows() == len(expected)
    wanted = bytes.fromhex(expected[4]["lineage"]["lineage_id"])
    one = dataset.to_table(filter=ds.field("lineage", "lineage_id") == wanted)
    assert one["prompt"].to_pylist() == [GIVEN[4]]


def test_ray_data_reads_it(ray_session: None, finished: Job) -> None:
    import ray.data

    rows = ray.data.read_parquet(f"{finished.output.uri}/data").take_all()
    assert sorted(row["prompt"] for row in rows) == sorted(GIVEN)
    assert all(len(row["lineage"]["output_sha256"]) == 32 for row in rows)


def test_daft_reads_it(finished: Job) -> None:
    daft = pytest.importorskip("daft")
    found = daft.read_parquet(f"{finished.output.uri}/data/*.parquet").select("prompt").to_pydict()
    assert sorted(found["prompt"]) == sorted(GIVEN)
