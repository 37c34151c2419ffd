"""Verify, trace and replay work from storage alone and find what was done to an output behind its back."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from tests.damage import (
    data_parts,
    miscount,
    pictures,
    plan_of,
    prompts,
)
from tests.fakes import FakeEngine, all_rows, make_job, write_prompts
from tests.inprocess import run_here
from unipic.jobs.terminal.formatting import as_json
from unipic.pipeline.audit.export import export
from unipic.pipeline.audit.replay import replay, replay_sample
from unipic.pipeline.audit.status import status
from unipic.pipeline.audit.trace import trace
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.bench.verify import write_captions
from unipic.pipeline.errors import OutputError
from unipic.pipeline.job import Job
from unipic.pipeline.storage.storage import Storage


def parts(job: Job, folder: str = "data") -> list[Path]:
    return sorted((Path(job.output.uri) / folder).iterdir())


def test_an_untouched_output_passes_with_every_row_counted(finished: Job) -> None:
    report = verify(finished.output.uri, Storage(finished.storage))
    assert report.ok, report.problems
    assert (report.rows, report.data, report.rejected, report.units) == (20, 18, 2, 3)


def test_a_report_with_problems_is_json(finished: Job) -> None:
    parts(finished)[0].unlink()
    said = json.loads(as_json(verify(finished.output.uri, Storage(finished.storage))))
    assert said["counts"] == {"missing part": 1}


def test_an_audit_holds_no_rows_of_units_it_is_done_with(tmp_path: Path) -> None:
    """A thousand captions' lineage weighs a megabyte and more."""
    peaks = []
    for rows in (2_048, 8_192):
        output = str(tmp_path / str(rows))
        write_captions(output, rows)
        tracemalloc.start()
        try:
            assert verify(output, Storage()).ok
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] - peaks[0] < 1 << 20


def test_verify_of_a_folder_that_is_not_ours_says_so(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no output of ours"):
        verify(str(tmp_path), Storage())


def test_an_output_whose_pictures_stand_beside_it_verifies_from_any_folder_and_wherever_it_was_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts(tmp_path)
    monkeypatch.chdir(tmp_path)
    run_here(make_job(tmp_path, output__uri="out", output__images="files"))
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert verify(str(tmp_path / "out"), Storage()).ok
    (tmp_path / "out").rename(tmp_path / "moved")
    assert verify("../moved", Storage()).ok
    assert replay("../moved", "a-3", Storage(), make_engine=FakeEngine).identical
    next((tmp_path / "moved" / "images").iterdir()).unlink()
    assert verify("../moved", Storage()).counts == {"missing part": 1}


def test_an_output_given_as_a_file_address_is_the_same_output(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/out"
    job = pictures(tmp_path).model_copy(update={"output": make_job(tmp_path, output__uri=uri).output})
    row = all_rows(make_job(tmp_path))[0]["lineage"]["lineage_id"]
    assert verify(uri, Storage()).ok
    assert status(uri, Storage()).finished
    assert trace(uri, row, Storage())[0].task == "caption"
    assert replay(uri, row, Storage(), make_engine=FakeEngine).identical
    assert list(replay_sample(uri, 3, Storage(), make_engine=FakeEngine)) == []
    assert export(uri, tmp_path / "captions.csv", Storage()).rows == 10
    data_parts(make_job(tmp_path))[0].unlink()
    _, plan = plan_of(job)
    assert plan.job is not None and plan.job.output.uri == str(tmp_path / "out")


def test_a_report_names_damaged_units_in_a_sorted_list(job: Job) -> None:
    units = sorted([miscount(job, "b.parquet"), miscount(job, "a.parquet")])
    assert verify(job.output.uri, Storage()).as_dict()["damaged_units"] == units


def test_an_epoch_that_is_gone_is_named_and_what_is_of_it_stays(job: Job, tmp_path: Path) -> None:
    run_here(job)
    write_prompts(tmp_path / "manifest" / "b.parquet", ["new", "newer"])
    run_here(job, redo_changed=True)
    meta = Path(job.output.uri, "_unipic")
    (meta / "epochs" / "000002.json").unlink()
    report = verify(job.output.uri, Storage())
    assert report.verdict == "damaged" and not report.foreign
    gone = [one for one in report.problems if one.where == "_unipic/epochs/000002.json"]
    assert gone and all("is gone" in one.message and "restore it from a backup" in one.message for one in gone)
    (meta / "epochs" / "000001.json").unlink()
    (problem,) = verify(job.output.uri, Storage()).problems
    assert "_unipic/epochs/000001.json is gone" in problem.message and "Restore it from a backup" in problem.message
