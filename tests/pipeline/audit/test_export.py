"""Captions leave as CSV that no spreadsheet runs, or as JSON lines to the letter; whole or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from tests.fakes import FakeEngine, all_rows, make_job, write_prompts
from tests.inprocess import run_here
from unipic.jobs.cli import main
from unipic.pipeline.audit.export import COLUMNS, export
from unipic.pipeline.errors import JobError, OutputError
from unipic.pipeline.job import Job
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()
HOSTILE = [
    '=HYPERLINK("http://evil.example","x")',
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1",
]
PLAIN = ["a red, round\nthing", 'says "hi"', " =1", "été 👩‍🎨", "1=1"]


class Parrot(FakeEngine):
    """Says what the question says."""

    def answer(self, rows: Sequence[dict[str, Any]]) -> list[bytes | str]:
        return [row["prompt"] for row in rows]


def captioned(root: Path, captions: Sequence[str], **columns: Sequence[Any]) -> Job:
    (root / "manifest").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(root / "manifest" / "x.png")
    write_prompts(root / "manifest" / "b.parquet", captions, image=["x.png"] * len(captions), **columns)
    job = make_job(
        root,
        "caption",
        input__columns={"id": "id", "image": "image", "prompt": "prompt"},
        input__keep=list(columns),
        compute__rows_per_unit=3,
        input__format="parquet",
    )
    run_here(job, make_engine=Parrot)
    return job


def test_captions_that_look_like_formulas_are_verbatim_in_parquet_and_jsonl_and_harmless_in_csv(
    tmp_path: Path,
) -> None:
    captions = [*HOSTILE, *PLAIN]
    job = captioned(tmp_path, captions, note=captions, score=list(range(-3, len(captions) - 3)))
    assert [row["caption"] for row in all_rows(job)] == captions
    for name in ("out.jsonl", "out.csv"):
        assert export(job.output.uri, tmp_path / name, STORAGE).rows == len(captions)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").split("\n")[:-1]]
    assert [line["caption"] for line in lines] == [line["note"] for line in lines] == captions
    assert list(lines[0]) == [*COLUMNS, "note", "score"]
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    wanted = [f"'{caption}" for caption in HOSTILE] + PLAIN
    assert [row["caption"] for row in table] == [row["note"] for row in table] == [row["question"] for row in table]
    assert [row["caption"] for row in table] == wanted
    assert [row["id"] for row in table] == [f"b-{at}" for at in range(len(captions))]
    assert table[0]["score"] == "-3", "numbers stay numbers"
    assert [row["lineage_id"] for row in table] == [row["lineage"]["lineage_id"] for row in all_rows(job)]


def test_hostile_column_names_are_harmless_and_columns_of_bytes_are_left_out_by_name(tmp_path: Path) -> None:
    columns = {"=1+1": ["x"], "raw": pa.array([b"x"]), "list": pa.array([["x"]])}
    job = captioned(tmp_path, ["a"], **columns)
    assert export(job.output.uri, tmp_path / "out.csv", STORAGE).left_out == ("raw", "list")
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "id,source,question,caption,lineage_id,'=1+1"


def test_rows_come_in_the_manifests_order_and_what_is_missing_is_counted(tmp_path: Path) -> None:
    job = captioned(tmp_path, ["a", "", "b", "c", "d"])
    write_prompts(tmp_path / "manifest" / "a.parquet", ["z", "y"], image=["x.png", "x.png"])
    run_here(job, make_engine=Parrot)
    for receipt in (tmp_path / "out/_unipic/receipts").glob("*0000000003.json"):
        receipt.unlink()
    found = export(job.output.uri, tmp_path / "out.csv", STORAGE)
    assert (found.rows, found.rejected, found.undone) == (4, 1, 2)
    with (tmp_path / "out.csv").open(newline="") as stream:
        assert [row["caption"] for row in csv.DictReader(stream)] == ["z", "y", "a", "b"]


def test_a_file_that_is_there_stays_unless_forced(tmp_path: Path) -> None:
    job = captioned(tmp_path, ["a"])
    to = tmp_path / "out.csv"
    to.write_text("mine")
    with pytest.raises(JobError, match=r"out\.csv exists already.* --force replaces it"):
        export(job.output.uri, to, STORAGE)
    assert to.read_text() == "mine"
    export(job.output.uri, to, STORAGE, force=True)
    assert "caption" in to.read_text()


def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    job = captioned(tmp_path, ["a", "b", "c", "d"])
    last = sorted((tmp_path / "out/data").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:50])
    (tmp_path / "exports").mkdir()
    with pytest.raises(JobError, match=r"part-.*\.parquet cannot be read.*`unipic verify`"):
        export(job.output.uri, tmp_path / "exports" / "out.csv", STORAGE)
    with pytest.raises(JobError, match=r"cannot be written: No such file"):
        export(job.output.uri, tmp_path / "none" / "out.csv", STORAGE)
    assert list((tmp_path / "exports").iterdir()) == []


def test_other_outputs_and_other_formats_are_refused_in_words(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"])
    job = make_job(tmp_path)
    run_here(job)
    with pytest.raises(JobError, match="holds the output of generate"):
        export(job.output.uri, tmp_path / "x.csv", STORAGE)
    with pytest.raises(JobError, match=r"x\.xlsx must end in \.csv, \.jsonl"):
        export(job.output.uri, tmp_path / "x.xlsx", STORAGE)
    with pytest.raises(OutputError, match="holds no output of ours"):
        export(str(tmp_path / "nowhere"), tmp_path / "x.csv", STORAGE)
    assert not list(tmp_path.glob("*.csv"))


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = captioned(tmp_path, ["a", "", "b"], raw=pa.array([b"x", b"y", b"z"]))
    with pytest.raises(SystemExit, match="0"):
        main(["export", job.output.uri, "--to", str(tmp_path / "out.csv")])
    said = capsys.readouterr().out
    assert (
        "wrote 2 captions to" in said
        and "1 row rejected, 0 rows not done yet" in said
        and "columns left out: raw" in said
    )
