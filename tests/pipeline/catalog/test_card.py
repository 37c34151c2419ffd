"""The data-set card of an output: up to date, the same for the same output, and the user's where the user wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.damage import prompts, two_files
from tests.fakes import make_job, write_prompts
from tests.inprocess import run_here
from unipic.pipeline.audit.prune import prune
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.catalog.card import END, FOREIGN, LICENCE, Counts, counted, write_card
from unipic.pipeline.job import Job
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.stages.parts import data_schema
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()


def written(job: Job, counts: Counts | None = None) -> str:
    """Write the card of a finished output; its text."""
    ledger = Ledger(job.output.uri, STORAGE)
    run = ledger.recorded()
    assert write_card(ledger, job, run, counts or counted(ledger, run)) == ""
    return Path(job.output.uri, "README.md").read_text()


def metadata(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text.split("---\n")[1]))


def test_a_card_says_what_the_rows_are_and_how_they_were_made(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["x", "", "y"], note=["n"] * 3)
    job = make_job(tmp_path, input__keep=["note"])
    run_here(job)
    text = written(job)
    assert "Images from prompts" in text and "2 rows in `data`, 1 in `rejected`" in text
    assert [one["config_name"] for one in metadata(text)["configs"]] == ["data", "rejected"]
    for column in [*data_schema(job).names, "note", "lineage_id", "prompt_sent"]:
        assert f"| `{column}` |" in text
    for fact in ("SHA-256 `", '"num_iterations": 32', "3 rows in 1 file |"):
        assert fact in text
    assert str(tmp_path) not in text
    assert verify(job.output.uri, STORAGE).ok


def test_an_unfinished_output_says_what_is_left_and_names_no_config_without_files(tmp_path: Path) -> None:
    job = two_files(tmp_path)
    text = written(job, Counts(rows=20, ok=8, rejected=0))
    assert "12 are not processed yet" in text
    assert [one["config_name"] for one in metadata(text)["configs"]] == ["data"]


def test_what_the_user_wrote_in_a_card_stays(tmp_path: Path) -> None:
    job = two_files(tmp_path)
    first = written(job)
    card = Path(job.output.uri, "README.md")
    assert "\n# license: add the licence" in first
    mine = first.replace(LICENCE, "license: cc-by-4.0  # ours")
    card.write_text(mine.replace("---\n<!--", "---\nAbove.\n<!--") + "Below.\n")
    prompts(tmp_path, "c")
    run_here(job)
    second = written(job)
    assert "30 rows in `data`" in second and "30 rows in `data`" not in first
    assert metadata(second)["license"] == "cc-by-4.0" and "license: cc-by-4.0  # ours" in second
    assert "Above.\n" in second and second.endswith("Below.\n")


def test_an_equal_card_is_not_written_again(tmp_path: Path) -> None:
    job = two_files(tmp_path)
    first = written(job)
    before = Path(job.output.uri, "README.md").stat().st_mtime_ns
    assert written(job) == first and Path(job.output.uri, "README.md").stat().st_mtime_ns == before


@pytest.mark.parametrize("text", ["# mine", "---\nlicense: [\n---\n", "---\nx: 1\n---\nno marks\n", "\udcff", END])
def test_a_readme_of_the_users_own_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    job = two_files(tmp_path)
    ledger = Ledger(job.output.uri, STORAGE)
    run = ledger.recorded()
    card = Path(job.output.uri, "README.md")
    card.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert write_card(ledger, job, run, counted(ledger, run)) == FOREIGN
    assert card.read_bytes() == text.encode("utf-8", "surrogateescape")


def test_a_card_that_cannot_be_written_is_a_note(tmp_path: Path) -> None:
    job = two_files(tmp_path)
    Path(job.output.uri, "README.md").mkdir()
    ledger = Ledger(job.output.uri, STORAGE)
    run = ledger.recorded()
    assert "is not up to date" in write_card(ledger, job, run, counted(ledger, run))


def test_a_prune_brings_the_card_up_to_date(tmp_path: Path) -> None:
    job = two_files(tmp_path)
    assert "20 rows in `data`" in written(job)
    (tmp_path / "manifest" / "b.parquet").unlink()
    prune(job, STORAGE, remove=True)
    assert "10 rows in `data`" in Path(job.output.uri, "README.md").read_text()
