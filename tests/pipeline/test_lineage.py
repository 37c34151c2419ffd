"""Lineage: seeds any reader holds, names that clash with no column, small rows, no address of the machine."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fakes import all_rows, make_job, write_prompts
from tests.inprocess import run_here
from tests.tables import grey_png, rejections, write_table
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.code_version import code_version
from unipic.pipeline.lineage import LINEAGE, derive_seed, from_row, parent_id, recompute_id, to_row
from unipic.pipeline.output.part_file import parquet_bytes
from unipic.pipeline.stages.parts import data_schema, kept_names
from unipic.pipeline.storage.storage import Storage

LARGEST_SEED = 2**63 - 1
STATED: dict[str, Any] = {
    "lineage_id": "ab" * 16,
    "source_file": "a/b.parquet",
    "source_row": 3,
    "input_sha256": "cd" * 32,
    "parent_lineage_id": None,
    "task": "caption",
    "prompt_sent": "What is this?",
    "params": "{}",
    "seed": None,
    "sample_index": 0,
    "checkpoint": "ef" * 32,
    "code_version": "0.1.0+gabc",
    "output_version": 2,
    "output_sha256": "01" * 32,
}


def test_derived_seeds_are_63_bit_integers_that_use_the_whole_range() -> None:
    seeds = [derive_seed(0, f"id:{row}", 0) for row in range(2000)]
    assert len(set(seeds)) == 2000 and min(seeds) >= 0 and 2**62 < max(seeds) <= LARGEST_SEED


def test_a_seed_column_takes_63_bits_and_rejects_rows_with_more(tmp_path: Path) -> None:
    seeds = pa.array([LARGEST_SEED, LARGEST_SEED + 1, 2**64 - 1, 0], pa.uint64())
    write_table(tmp_path, id=["a", "b", "c", "d"], prompt=["p"] * 4, seed=seeds)
    job = make_job(tmp_path, input__columns={"id": "id", "prompt": "prompt", "seed": "seed"})
    run_here(job)
    assert [row["lineage"]["seed"] for row in all_rows(job)] == [LARGEST_SEED, 0]
    assert rejections(job) == [
        ("WrongType", f"the seed is {seed}, not a whole number from 0 to 2^63 - 1") for seed in (2**63, 2**64 - 1)
    ]


def test_a_lineage_goes_to_a_row_and_back() -> None:
    array = pa.array([to_row(STATED)], LINEAGE)
    assert from_row(array[0].as_py()) == STATED


@pytest.mark.parametrize("task", ["generate", "edit", "caption"])
def test_no_field_of_lineage_is_called_like_a_column(tmp_path: Path, task: str) -> None:
    job = make_job(tmp_path, task, input__keep=["seed", "task", "sample_index", "mine"])
    columns = [*data_schema(job).names, *kept_names(job).values()]
    assert not set(columns) & set(LINEAGE.names)
    assert kept_names(job)["mine"] == "mine" and kept_names(job)["seed"] == "source_seed"


@pytest.mark.parametrize(
    ("stated", "taken"),
    [
        (bytes(range(16)), bytes(range(16)).hex()),
        ("ab" * 16, "ab" * 16),
        ("ab" * 32, "ab" * 16),
        ("AB" * 16, None),
        ("ab" * 15, None),
        (b"short", None),
        ("../../etc/passwd", None),
        (7, None),
        (None, None),
    ],
)
def test_a_parent_is_a_lineage_id_or_none(stated: object, taken: str | None) -> None:
    assert parent_id(stated) == taken


def test_a_row_states_the_code_that_wrote_it_and_its_id_recomputes(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["x"])
    job = make_job(tmp_path)
    run_here(job)
    (row,) = all_rows(job)
    assert row["lineage"]["code_version"] == code_version()
    assert row["lineage"]["lineage_id"] == recompute_id(row["lineage"]) and len(row["lineage"]["lineage_id"]) == 32


@pytest.mark.parametrize("images", ["inline", "files"])
def test_no_address_of_the_machine_is_in_data_or_rejected_rows(tmp_path: Path, images: str) -> None:
    write_table(tmp_path, id=["a", "b", "c", "d"], prompt=["p"] * 4, image=["0.png", "gone.png", "../up.png", "t.zip"])
    (tmp_path / "manifest" / "0.png").write_bytes(grey_png())
    job = make_job(tmp_path, "edit", input__columns={"id": "id"}, output__images=images)
    run_here(job)
    rows, rejected = all_rows(job), all_rows(job, "rejected")
    assert (len(rows), len(rejected)) == (1, 3)
    assert str(tmp_path) not in repr([rows, rejected])
    assert rows[0]["lineage"]["source_file"] == rejected[0]["rejection"]["source_file"] == "a.parquet"
    assert rows[0]["image"]["path"].startswith("images/" if images == "files" else rows[0]["image"]["path"][:16])
    assert verify(job.output.uri, Storage()).ok


@pytest.mark.parametrize("chained", [False, True])
def test_a_caption_takes_at_most_120_bytes_beside_its_text(chained: bool) -> None:
    rows = 20_000

    def digests(what: str) -> list[bytes]:
        return [hashlib.sha256(f"{what} {row}".encode()).digest() for row in range(rows)]

    stated = to_row({**STATED, "code_version": code_version()})
    own = zip(digests("id"), digests("input"), digests("parent"), digests("output"), strict=True)
    lineages = [
        {
            **stated,
            "source_row": row,
            "lineage_id": one[:16],
            "input_sha256": picture,
            "parent_lineage_id": parent[:16] if chained else None,
            "output_sha256": output,
        }
        for row, (one, picture, parent, output) in enumerate(own)
    ]
    names = [one.hex()[:12] for one in digests("name")]
    table = pa.table(
        {
            "id": names,
            "source": [f"photos/{name}.jpg" for name in names],
            "question": ["What is this?"] * rows,
            "caption": [f"a picture of {name}" for name in names],
            "lineage": pa.array(lineages, LINEAGE),
        }
    )
    data = parquet_bytes(table)
    group = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0)
    sizes = {group.column(at).path_in_schema: group.column(at).total_compressed_size for at in range(group.num_columns)}
    text = sizes["caption"] + sizes["question"] + sizes["lineage.prompt_sent"]
    assert (len(data) - text) / rows <= 120
    assert sum(sizes[f"lineage.{name}"] for name in ("task", "params", "checkpoint", "code_version")) / rows < 0.1
