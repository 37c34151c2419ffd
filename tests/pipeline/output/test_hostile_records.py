"""Records whose digests are right and whose content is not: a sentence, and other files stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fakes import make_job, part_bytes, receipts, write_prompts
from tests.inprocess import retry_here, run_here
from unipic.pipeline.audit.status import status
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.errors import OutputError
from unipic.pipeline.job import Job
from unipic.pipeline.output.compaction import compact
from unipic.pipeline.output.layout import RUN, epoch_path, receipt_path, staged_path
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.sealed import sealed, unsealed
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["", *(f"a {n}" for n in range(9))])
    job = make_job(tmp_path)
    run_here(job)
    return job


def change(job: Job, path: str, *where: str | int, to: Any) -> None:
    """Write another value into a record, and its digest anew."""
    file = Path(job.output.uri, path)
    record = inner = unsealed(file.read_text())
    for name in where[:-1]:
        inner = inner[name]
    inner[where[-1]] = to  # type: ignore[index]
    file.write_text(sealed(record))


@pytest.mark.parametrize(
    "path", ["../other/data/part-x.parquet", "/etc/hostname", "", "data/../run.json", "_unipic/run.json"]
)
def test_a_receipt_that_names_files_of_others_is_damaged_and_nothing_of_them_goes(job: Job, path: str) -> None:
    other = Path(job.output.uri).parent / "other" / "data" / "part-x.parquet"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"not ours")
    rejected = next(one for one in receipts(job) if one.rejected)
    change(job, receipt_path(rejected.unit), "parts", 1, "path", to=path)
    with pytest.raises(OutputError, match=r"receipt .* is damaged: it names .*, which is no part of its unit"):
        retry_here(job)
    assert other.read_bytes() == b"not ours"
    assert verify(job.output.uri, STORAGE).verdict == "damaged"


def test_a_receipt_of_an_attempt_with_a_path_for_a_name_is_damaged(job: Job) -> None:
    change(job, receipt_path(receipts(job)[0].unit), "attempt", to="../../../elsewhere")
    with pytest.raises(OutputError, match=r"its attempt cannot be called '\.\./"):
        retry_here(job)


@pytest.mark.parametrize("path", ["../../elsewhere.parquet", "data/part-x.parquet"])
def test_an_epoch_whose_pack_has_another_path_is_damaged(job: Job, path: str) -> None:
    compact(Ledger(job.output.uri, STORAGE))
    change(job, epoch_path(2), "packs", 0, "part", "path", to=path)
    with pytest.raises(
        OutputError, match=r"000002\.json is damaged: the path of pack '[0-9a-f]+' is not that of its id"
    ):
        run_here(job)


@pytest.mark.parametrize(
    ("path", "where", "value"),
    [
        (RUN, ("job", "limits"), 0),
        (RUN, ("job", "limits", "max_rejected"), "many"),
        (RUN, ("rows_per_unit",), 0),
        (epoch_path(1), ("files", 0, "name"), "\ud800"),
        (epoch_path(1), ("files", 0, "rows"), 2**70),
        (epoch_path(1), ("files", 0, "rows"), -1),
    ],
)
def test_a_record_with_values_that_cannot_be_is_told_by_name(job: Job, path: str, where: Any, value: Any) -> None:
    change(job, path, *where, to=value)
    with pytest.raises(OutputError, match=Path(path).name):
        status(job.output.uri, STORAGE)


@pytest.mark.parametrize("name", [".nfs0123", "notes.txt", "data/.nfs0123", "data/part-x.parquet", "_unipic/run.json"])
def test_a_foreign_file_among_staged_ones_is_never_published(job: Job, name: str) -> None:
    before = part_bytes(job)
    claimed = Path(job.output.uri, RUN).read_bytes()
    file = Path(job.output.uri, staged_path(receipts(job)[0].attempt, name))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"foreign")
    run_here(job)
    assert part_bytes(job) == before and not file.exists()
    assert Path(job.output.uri, RUN).read_bytes() == claimed
    assert verify(job.output.uri, STORAGE).verdict == "sound"
