"""What an epoch took back is looked for where it can be, and not for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import all_rows, make_job, part_bytes, write_prompts
from tests.inprocess import run_here
from unipic.pipeline.audit.prune import prune
from unipic.pipeline.audit.repair import clear
from unipic.pipeline.audit.repair_plan import RepairPlan
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.job import Job
from unipic.pipeline.output.layout import DATA, IMAGES, RECEIPTS, REJECTED, RUN, WITHDRAWN
from unipic.pipeline.storage.paths import relative
from unipic.pipeline.storage.storage import FileInfo, Storage


class Watched(Storage):
    """Local files; it notes which objects of an output were listed and read."""

    def __init__(self, output: str) -> None:
        super().__init__()
        self.output = output
        self.listed: list[str] = []
        self.reads: list[str] = []

    def list(self, folder_uri: str, **how: Any) -> Iterator[FileInfo]:
        for found in super().list(folder_uri, **how):
            if found.uri.startswith(self.output):
                self.listed.append(relative(found.uri, self.output))
            yield found

    def read(self, uri: str, *, max_bytes: int | None = None) -> bytes:
        if uri.startswith(self.output):
            self.reads.append(relative(uri, self.output))
        return super().read(uri, max_bytes=max_bytes)

    def published(self) -> set[str]:
        return {path for path in self.listed if path.startswith((f"{DATA}/", f"{IMAGES}/", f"{REJECTED}/"))}


@pytest.fixture(params=["inline", "files"])
def job(tmp_path: Path, request: pytest.FixtureRequest) -> Job:
    """Three manifest files of two units each, with rejected rows."""
    for name in "abc":
        write_prompts(tmp_path / "manifest" / f"{name}.parquet", [f"{name} {n}" for n in range(7)] + ["", "x", ""])
    made = make_job(tmp_path, output__images=request.param)
    run_here(made)
    return made


def redo(job: Job, storage: Storage | None = None) -> None:
    write_prompts(Path(job.input.manifest) / "b.parquet", ["new", "", *(f"new {n}" for n in range(10))])
    run_here(job, redo_changed=True, storage=storage)


def of_file(job: Job, file: str) -> set[str]:
    rows = [row["lineage"] for row in all_rows(job)] + [row["rejection"] for row in all_rows(job, "rejected")]
    assert any(row["source_file"].endswith(file) for row in rows)
    return {path.removeprefix("/") for path in part_bytes(job) if key_of(job, file) in path}


def key_of(job: Job, file: str) -> str:
    from unipic.pipeline.records import ManifestFile

    return ManifestFile("", file, 0, 0, "").key


def test_a_redo_looks_only_for_files_of_what_it_redoes(job: Job) -> None:
    before = of_file(job, "b.parquet")
    storage = Watched(job.output.uri)
    redo(job, storage)
    assert before and before <= storage.published()
    assert all(key_of(job, "b.parquet") in path for path in storage.published())
    assert not before & of_file(job, "b.parquet")


def test_a_prune_looks_only_for_files_of_what_it_drops(job: Job) -> None:
    before = of_file(job, "b.parquet")
    (Path(job.input.manifest) / "b.parquet").unlink()
    storage = Watched(job.output.uri)
    prune(job, storage, remove=True)
    assert storage.published() == before
    assert verify(job.output.uri, Storage()).ok


def test_runs_look_again_until_one_finds_nothing_left_and_then_no_more(job: Job) -> None:
    redo(job)
    folder = Path(job.output.uri, WITHDRAWN)
    assert not folder.exists()
    run_here(job)
    assert [path.name for path in folder.iterdir()] == ["000002.json"]
    storage = Watched(job.output.uri)
    run_here(job, storage=storage)
    assert storage.published() == set()
    assert verify(job.output.uri, Storage()).ok


def test_a_later_redo_is_withdrawn_although_an_earlier_one_is_on_record(job: Job) -> None:
    redo(job)
    run_here(job)
    (Path(job.input.manifest) / "c.parquet").unlink()
    prune(job, Storage(), remove=True)
    run_here(job)
    assert sorted(path.name for path in Path(job.output.uri, WITHDRAWN).iterdir()) == ["000002.json", "000003.json"]
    assert verify(job.output.uri, Storage()).ok


def test_a_file_that_a_store_published_late_is_found_by_the_next_run(job: Job) -> None:
    before = {path: data for path, data in part_bytes(job).items() if key_of(job, "b.parquet") in path}
    redo(job)
    restore(job, before)
    assert verify(job.output.uri, Storage()).counts.keys() == {"superseded file"}
    run_here(job)
    assert verify(job.output.uri, Storage()).ok
    run_here(job)
    assert Path(job.output.uri, WITHDRAWN, "000002.json").exists()


def test_a_file_that_was_published_later_still_is_repaired(job: Job) -> None:
    before = {path: data for path, data in part_bytes(job).items() if "/rejected/" not in path}
    redo(job)
    run_here(job)
    restore(job, {path: data for path, data in before.items() if key_of(job, "b.parquet") in path})
    report = verify(job.output.uri, Storage())
    assert report.counts.keys() == {"superseded file"}
    clear(job.output.uri, Storage(), report, RepairPlan())
    assert verify(job.output.uri, Storage()).ok


def test_a_receipt_of_an_epoch_that_is_over_is_deleted_by_any_later_run(job: Job) -> None:
    folder = Path(job.output.uri, RECEIPTS)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    redo(job)
    run_here(job)
    for path, data in before.items():
        path.write_bytes(data)
    assert verify(job.output.uri, Storage()).counts == {"left-over file": 2}
    run_here(job)
    assert verify(job.output.uri, Storage()).ok


@pytest.mark.parametrize("command", [run_here, lambda job, storage: prune(job, storage)])
def test_whose_output_it_is_is_read_once_in_a_command(job: Job, command: Callable[..., object]) -> None:
    storage = Watched(job.output.uri)
    command(job, storage=storage)
    assert storage.reads.count(RUN) == 1
    assert sum(path.startswith("_unipic/epochs/") for path in storage.reads) == 1


def restore(job: Job, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        Path(f"{job.output.uri}{path}").write_bytes(data)
