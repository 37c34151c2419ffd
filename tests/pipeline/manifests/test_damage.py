"""Promises about damaged Parquet manifests: damage costs the rows that cannot be read, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fakes import all_rows, make_job, part_bytes
from tests.inprocess import retry_here, run_here
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.errors import ManifestError
from unipic.pipeline.job import Input, Job
from unipic.pipeline.manifests import parquet_rows
from unipic.pipeline.manifests.discovery import discover
from unipic.pipeline.manifests.reading import read_rows, read_unit
from unipic.pipeline.plan import plan
from unipic.pipeline.records import Unit
from unipic.pipeline.storage.storage import Storage

ROWS, GROUP_ROWS, PAGE_ROWS = 240, 80, 20


def write(path: Path, rows: int = ROWS, **how: Any) -> Path:
    """Prompts in row groups of 80 and pages of 20 rows, none like another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "id": [f"{path.stem}-{at}" for at in range(rows)],
            "prompt": [f"{path.stem} prompt {at} " + "x" * (at % 7) for at in range(rows)],
            "extra": [f"extra {at}" for at in range(rows)],
        }
    )
    pages = {"use_dictionary": False, "write_batch_size": PAGE_ROWS, "data_page_size": 1}
    pq.write_table(table, path, row_group_size=GROUP_ROWS, **{**pages, **how})
    return path


def damage(path: Path, column: str, group: int, *, share: float = 0.5, flip: int | None = None) -> None:
    """Overwrite bytes in the middle (`share`) of one column's pages in one row group; or flip one bit there."""
    facts = pq.read_metadata(path)
    chunk = facts.row_group(group).column(facts.schema.names.index(column))
    at = chunk.data_page_offset + int(chunk.total_compressed_size * share)
    data = bytearray(path.read_bytes())
    if flip is not None:
        data[at] ^= flip
    else:
        data[at : at + 16] = bytes(16)
    path.write_bytes(data)


def refused(job: Job) -> list[tuple[int, str]]:
    rejections = [row["rejection"] for row in all_rows(job, "rejected")]
    assert {one["kind"] for one in rejections} == {"UnreadableRow"}
    return sorted((one["source_row"], one["message"]) for one in rejections)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("group", [0, 1, 2])
def test_a_damaged_page_costs_the_rows_behind_it_in_its_row_group_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int, streamed: bool
) -> None:
    if streamed:
        monkeypatch.setattr(parquet_rows, "WHOLE_GROUP_BYTES", 0)
    damage(write(tmp_path / "manifest" / "a.parquet"), "prompt", group)
    write(tmp_path / "manifest" / "b.parquet")
    job = make_job(tmp_path)
    run_here(job)
    lost = refused(job)
    rows = [row for row, _ in lost]
    end = (group + 1) * GROUP_ROWS
    assert rows == list(range(rows[0], end)), "up to the end of the row group"
    assert end - GROUP_ROWS < rows[0] < end - GROUP_ROWS // 4, "the pages before the damaged one are read"
    assert lost[0][1].startswith(
        f'Rows {rows[0]} to {end - 1} of a.parquet cannot be read: column "prompt" cannot be decoded there.'
    )
    assert len(all_rows(job)) == 2 * ROWS - len(lost)
    assert verify(job.output.uri, Storage()).ok
    rejected = all_rows(job, "rejected")
    assert {row["prompt"] for row in rejected} == {None}
    assert [row["id"] for row in rejected] == [f"a-{row}" for row in rows], "what else there is of the rows is kept"


def test_rejected_rows_of_a_damaged_file_are_the_same_bytes_however_the_run_was_cut(tmp_path: Path) -> None:
    damage(write(tmp_path / "manifest" / "a.parquet"), "prompt", 1)
    whole, cut = make_job(tmp_path), make_job(tmp_path, output__uri=str(tmp_path / "cut"))
    run_here(whole)
    run_here(cut)
    for receipt in sorted((tmp_path / "cut" / "_unipic" / "receipts").iterdir())[::3]:
        receipt.unlink()
    run_here(cut)
    assert part_bytes(cut) == part_bytes(whole)
    retry_here(cut)
    assert sorted(part_bytes(cut).values()) == sorted(part_bytes(whole).values())


def test_damage_in_a_column_that_the_job_does_not_read_costs_nothing(tmp_path: Path) -> None:
    damage(write(tmp_path / "manifest" / "a.parquet"), "extra", 1)
    job = make_job(tmp_path)
    run_here(job)
    assert (len(all_rows(job)), all_rows(job, "rejected")) == (ROWS, [])


def test_a_flipped_bit_in_plain_pages_is_seen_where_the_writer_gave_checksums(tmp_path: Path) -> None:
    path = write(
        tmp_path / "manifest" / "a.parquet", compression="none", write_page_checksum=True, column_encoding="PLAIN"
    )
    damage(path, "prompt", 2, flip=1)
    job = make_job(tmp_path)
    run_here(job)
    assert len(refused(job)) > 0


def test_a_file_whose_footer_is_damaged_after_it_was_planned_is_rejected_unit_by_unit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    storage = Storage()
    (file,) = discover(Input(manifest=str(path)), storage).files
    path.write_bytes(path.read_bytes()[:-100] + bytes(100))
    (now,) = storage.list(str(tmp_path))
    unit = Unit(type(file)(**{**file.__dict__, "version": now.version}), first_row=16, rows=8)
    table, lost = read_rows(unit, ["id", "prompt"], storage)
    assert table.to_pylist() == [{"id": None, "prompt": None}] * 8
    assert [(one.first_row, one.rows) for one in lost] == [(16, 8)]
    with pytest.raises(ManifestError, match=r"a\.parquet is not a readable Parquet file"):
        read_unit(unit, ["id"], storage)


def test_a_plan_of_a_damaged_file_says_what_it_could_not_count_and_refuses_only_what_cannot_be_read_at_all(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "manifest" / "a.parquet")
    damage(path, "id", 0)
    (note,) = plan(make_job(tmp_path), Storage()).notes
    assert note.startswith("ids were not counted: ") and "a.parquet" in note
    for group in range(3):
        for share in (0.01, 0.3, 0.6, 0.9):
            damage(path, "prompt", group, share=share)
    with pytest.raises(ManifestError, match=r"a\.parquet is not a readable Parquet file: its rows cannot be decoded"):
        plan(make_job(tmp_path), Storage())
