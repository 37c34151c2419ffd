"""`unipic rejected`: which rows were rejected, and why."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import make_job, write_prompts
from tests.inprocess import run_here
from unipic.pipeline.audit.rejections import summarise
from unipic.pipeline.storage.storage import Storage

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def output(tmp_path: Path) -> str:
    """Three rejected rows of two kinds in two units."""
    prompts = ["", "=fine", *["fine"] * 6, "x" * 10_001, ""]
    write_prompts(tmp_path / "manifest" / "a.parquet", prompts)
    job = make_job(tmp_path)
    run_here(job)
    return job.output.uri


def test_every_rejected_row_is_listed_with_its_reason(output: str, command: Command) -> None:
    code, out, _ = command("rejected", output)
    assert code == 0 and sorted(out.splitlines()) == [
        "row 0 of a.parquet, id a-0: EmptyPrompt: the prompt is empty",
        "row 8 of a.parquet, id a-8: PromptRefused: the prompt has 10001 characters, the limit is 10000",
        "row 9 of a.parquet, id a-9: EmptyPrompt: the prompt is empty",
    ]


def test_one_kind_can_be_chosen_and_the_number_of_rows_limited(output: str, command: Command) -> None:
    assert command("rejected", output, "--kind", "PromptRefused")[1].startswith("row 8 ")
    assert len(command("rejected", output, "--limit", 2)[1].splitlines()) == 2
    code, out, err = command("rejected", output, "--kind", "Nonsense")
    assert (code, out, err) == (0, "", "no rejected rows of kind Nonsense")


def test_csv_and_json_hold_every_field(output: str, command: Command) -> None:
    table = list(csv.DictReader(io.StringIO(command("rejected", output, "--csv")[1])))
    rows = json.loads(command("rejected", output, "--json")[1])
    assert {row["id"] for row in table} == {"a-0", "a-8", "a-9"} == {row["id"] for row in rows}
    assert rows[0].keys() == table[0].keys() >= {"file", "row", "sample", "id", "kind", "message", "stage", "attempts"}


def test_a_summary_reads_one_example_per_kind_and_survives_a_damaged_part(output: str) -> None:
    kinds = summarise(output, Storage())
    assert [(kind.kind, kind.rows) for kind in kinds] == [("EmptyPrompt", 2), ("PromptRefused", 1)]
    assert all(kind.example is not None for kind in kinds)
    for path in (Path(output) / "rejected").iterdir():
        path.write_bytes(b"damaged")
    assert [(kind.rows, kind.example) for kind in summarise(output, Storage())] == [(2, None), (1, None)]
