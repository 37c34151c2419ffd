"""Promises about `plan`: it refuses what `run` refuses, all faults at once; and what counts as a changed manifest."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.fakes import FakeEngine, make_job, part_bytes, write_prompts
from tests.inprocess import run_here
from unipic.jobs.commands.plan import _lines
from unipic.pipeline.audit.repair_plan import plan_repair
from unipic.pipeline.audit.replay import replay
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.errors import EmptyManifest, JobError, ManifestError, OutputError
from unipic.pipeline.job import Job
from unipic.pipeline.output import changes
from unipic.pipeline.output.claims import claim
from unipic.pipeline.plan import plan
from unipic.pipeline.preflight import preflight
from unipic.pipeline.sealed import unsealed
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()


def done_job(root: Path, prompts: int = 3) -> tuple[Job, Path]:
    """A job that was run, and its manifest file."""
    file = write_prompts(root / "manifest" / "a.parquet", [f"p{at}" for at in range(prompts)])
    job = make_job(root)
    run_here(job)
    return job, file


def both_refuse(job: Job, kind: type[Exception], words: str) -> None:
    for command in (lambda: plan(job, STORAGE), lambda: run_here(job)):
        with pytest.raises(kind, match=words):
            command()


def later(path: Path) -> None:
    """Give a file another time, and nothing else."""
    facts = path.stat()
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1_000_000_007))


def record(job: Job) -> dict[str, Any]:
    """The current epoch, as stored."""
    latest = max(Path(job.output.uri, "_unipic", "epochs").iterdir())
    return unsealed(latest.read_text())


# --- what run refuses ------------------------------------------------------------------------------------------


def test_a_changed_manifest_file_is_refused_by_plan_and_run_alike(tmp_path: Path) -> None:
    job, file = done_job(tmp_path)
    write_prompts(file, ["p0", "p1", "p2", "p3"])
    words = r"^a\.parquet changed since this output was begun: it had 3 rows in .* now it has 4 .*--changed redo"
    both_refuse(job, ManifestError, words)


def test_a_replaced_picture_is_refused_by_plan_and_run_alike(tmp_path: Path) -> None:
    (tmp_path / "pics").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "pics" / "one.png")
    job = make_job(tmp_path, "caption", input__manifest=str(tmp_path / "pics"))
    run_here(job)
    Image.new("RGB", (30, 20), (9, 9, 9)).save(tmp_path / "pics" / "one.png")
    both_refuse(job, ManifestError, r"^one\.png changed since this output was begun\. Give the new content")


@pytest.mark.parametrize("below", ["", "/below"])
def test_an_output_that_is_a_file_or_below_one_is_refused_by_plan_and_run_alike(tmp_path: Path, below: str) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["p"])
    (tmp_path / "good.yaml").touch()
    job = make_job(tmp_path, output__uri=f"{tmp_path}/good.yaml{below}")
    both_refuse(job, OutputError, r"good\.yaml is a file, not a folder\. Choose a folder that is one")


def test_a_place_that_cannot_be_written_is_refused_by_plan_and_run_alike(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["p"])
    both_refuse(make_job(tmp_path, output__uri="/proc/nowrite"), OutputError, "^/proc/nowrite cannot be written: ")


def test_rows_that_cannot_be_decoded_in_a_file_of_another_schema_are_refused_by_plan_and_run_alike(
    tmp_path: Path,
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["p"] * 3)
    file = write_prompts(tmp_path / "manifest" / "b.parquet", ["q"] * 100, more=[1] * 100)
    data = file.read_bytes()
    file.write_bytes(b"PAR1" + b"x" * 300 + data[304:])
    both_refuse(make_job(tmp_path), ManifestError, r"b\.parquet is not a readable Parquet file: its rows cannot be")


def test_a_manifest_file_that_is_gone_is_noted(tmp_path: Path) -> None:
    job, _ = done_job(tmp_path)
    write_prompts(tmp_path / "manifest" / "b.parquet", ["q"])
    run_here(job)
    assert plan(job, STORAGE).notes == []
    (tmp_path / "manifest" / "a.parquet").unlink()
    assert plan(job, STORAGE).notes == [
        "gone from the manifest: a.parquet; what was made of them stays until `unipic prune`"
    ]


def test_a_plan_tells_every_fault_at_once_each_with_its_remedy(tmp_path: Path) -> None:
    pq.write_table(pa.table({"key": ["a"], "text": [1.5]}), tmp_path / "m.parquet")
    (tmp_path / "file").touch()
    job = make_job(
        tmp_path,
        input__manifest=str(tmp_path / "m.parquet"),
        input__columns={"id": "keys", "prompt": "text"},
        input__keep=["nowhere"],
        model__checkpoint=str(tmp_path / "no-checkpoint"),
        output__uri=str(tmp_path / "file"),
    )
    with pytest.raises(JobError, match=r"^5 faults\n") as caught:
        plan(job, STORAGE)
    checkpoint, missing, kept, kind, output = str(caught.value).splitlines()[1:]
    assert "no-checkpoint is not a converted checkpoint" in checkpoint and "unipic convert" in checkpoint
    assert '"keys", which the job needs as id; it has: key, text. Did you mean "key"? Map it under' in missing
    assert '"nowhere", which the job needs to keep' in kept
    assert 'Column "text" is double in m.parquet; the job reads it as prompt, which must be text' in kind
    assert "is a file, not a folder. Choose" in output


def test_one_fault_is_raised_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "manifest").mkdir()
    with pytest.raises(EmptyManifest, match=r"^The folder .* is empty"):
        plan(make_job(tmp_path), STORAGE)


# --- columns ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "column", "cells"),
    [
        ("generate", "prompt", [1.5, 2.5]),
        ("generate", "prompt", [1, 2]),
        ("generate", "prompt", [True, False]),
        ("generate", "prompt", [b"a", b"b"]),
        ("generate", "prompt", [["a"], ["b"]]),
        ("generate", "prompt", [{"a": "b"}, None]),
        ("caption", "image", [1, 2]),
        ("caption", "image", [["a.png"], []]),
    ],
)
def test_a_column_of_which_every_row_would_be_rejected_is_refused(
    tmp_path: Path, task: str, column: str, cells: list[Any]
) -> None:
    pq.write_table(pa.table({column: cells}), tmp_path / "m.parquet")
    job = make_job(tmp_path, task, input__manifest=str(tmp_path / "m.parquet"), input__columns={column: column})
    both_refuse(job, ManifestError, rf'^Column "{column}" is .* in m\.parquet; the job reads .* Map another column')


def test_a_number_column_in_a_further_file_is_refused_with_that_file(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", [None])
    pq.write_table(pa.table({"id": ["x"], "prompt": pa.nulls(1)}), tmp_path / "manifest" / "a.parquet")
    pq.write_table(pa.table({"id": ["x"], "prompt": [1]}), tmp_path / "manifest" / "b.parquet")
    both_refuse(make_job(tmp_path), ManifestError, r'Column "prompt" is int64 in b\.parquet; the job reads it as')


@pytest.mark.parametrize(
    "prompts",
    [
        pa.array(["a", None]).dictionary_encode(),
        pa.array(["a", None], pa.large_string()),
        pa.array(["a", None], pa.string_view()),
        pa.nulls(2),
    ],
)
def test_text_of_any_kind_ids_of_any_kind_and_seeds_as_numbers_or_text_are_taken(
    tmp_path: Path, prompts: pa.Array
) -> None:
    columns = {"id": "id", "prompt": "prompt", "seed": "seed"}
    for name, ids, seeds in (("a", [1, 2], [1, 2]), ("b", [[1], [2]], ["1", "2"])):
        pq.write_table(pa.table({"id": ids, "prompt": prompts, "seed": seeds}), tmp_path / f"{name}.parquet")
        job = make_job(tmp_path, input__manifest=str(tmp_path / f"{name}.parquet"), input__columns=columns)
        assert plan(job, STORAGE).rows == 2


@pytest.mark.parametrize(
    ("name", "text"),
    [("m.csv", "id,prompt\n1,2\n"), ("m.json", '[{"id": 1, "prompt": 1}, {"id": "x", "prompt": "b"}]')],
)
def test_csv_and_columns_of_mixed_json_are_text(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert plan(make_job(tmp_path, input__manifest=str(tmp_path / name)), STORAGE).units == 1


def test_a_column_of_nothing_but_missing_texts_as_pandas_writes_it_leaves_the_jobs_own_question(tmp_path: Path) -> None:
    picture = {"bytes": b"no picture", "path": "x.png"}
    pq.write_table(pa.table({"image": [picture], "q": pa.array([None], pa.float64())}), tmp_path / "m.parquet")
    columns = {"image": "image", "prompt": "q"}
    job = make_job(tmp_path, "caption", input__manifest=str(tmp_path / "m.parquet"), input__columns=columns)
    assert plan(job, STORAGE).rows == 1


def test_a_csv_file_with_other_separators_is_told_that_it_is_commas(tmp_path: Path) -> None:
    for mark in ";\t|":
        (tmp_path / "m.csv").write_text(f"key{mark}text\n1{mark}a\n")
        job = make_job(tmp_path, input__manifest=str(tmp_path / "m.csv"))
        both_refuse(job, ManifestError, r'^The manifest has but one column, "key.text"\. .* are separated by commas\.$')


def test_a_single_csv_column_with_a_bar_in_its_name_may_be_mapped(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("text|long\na\n")
    columns = {"prompt": "text|long"}
    assert plan(make_job(tmp_path, input__manifest=str(tmp_path / "m.csv"), input__columns=columns), STORAGE).rows == 1


# --- what counts as changed ------------------------------------------------------------------------------------


def test_a_manifest_file_with_another_time_and_the_same_bytes_has_not_changed(tmp_path: Path) -> None:
    job, file = done_job(tmp_path)
    before = part_bytes(job)
    later(file)
    assert replay(job.output.uri, "a-1", STORAGE, make_engine=FakeEngine).identical
    assert plan(job, STORAGE).output_state == "done"
    assert run_here(job) == 0 and part_bytes(job) == before
    (one,) = record(job)["files"]
    assert one["version"] == str(file.stat().st_mtime_ns)


def test_a_damaged_unit_of_a_manifest_file_with_another_time_can_be_done_again(tmp_path: Path) -> None:
    job, file = done_job(tmp_path)
    later(file)
    (part,) = Path(job.output.uri, "data").iterdir()
    part.unlink()
    found = plan_repair(job.output.uri, STORAGE, verify(job.output.uri, STORAGE))
    assert found.left == {} and len(found.units) == 1


def test_other_bytes_of_the_same_size_are_a_change(tmp_path: Path) -> None:
    (tmp_path / "manifest").mkdir()
    file = tmp_path / "manifest" / "a.csv"
    file.write_text("id,prompt\n1,one\n")
    job = make_job(tmp_path)
    run_here(job)
    file.write_text("id,prompt\n1,two\n")
    later(file)
    both_refuse(job, ManifestError, r"^a\.csv changed .*: it has other bytes of the same size\. Give")
    with pytest.raises(ManifestError, match=r"changed since the run was planned: its modification time was 20.* UTC"):
        replay(job.output.uri, "1", Storage(), make_engine=FakeEngine)


def test_where_the_bytes_are_unknown_the_remedy_gives_the_time_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "LARGEST_DIGESTED", 10)
    job, file = done_job(tmp_path)
    assert record(job)["digests"] == {}
    later(file)
    with pytest.raises(
        ManifestError, match=r": its modification time was 20.* UTC, now it is 20.* the same: touch -d @"
    ) as caught:
        run_here(job)
    subprocess.run(str(caught.value).partition("are the same: ")[2], shell=True, check=True)
    assert run_here(job) == 0


def test_a_picture_with_another_time_is_told_how_to_get_it_back(tmp_path: Path) -> None:
    picture = tmp_path / "pics" / "it's one.png"
    picture.parent.mkdir()
    Image.new("RGB", (20, 20)).save(picture)
    job = make_job(tmp_path, "caption", input__manifest=str(picture.parent))
    run_here(job)
    later(picture)
    with pytest.raises(ManifestError, match=r"its modification time differs.* If the bytes are the same: ") as caught:
        run_here(job)
    subprocess.run(str(caught.value).partition("are the same: ")[2], shell=True, check=True)
    assert run_here(job) == 0


def test_digests_are_of_what_is_small_and_stop_at_their_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        file = write_prompts(tmp_path / "manifest" / f"{name}.parquet", ["p"])
    monkeypatch.setattr(changes, "DIGESTED_BYTES", 2 * file.stat().st_size)
    job = make_job(tmp_path)
    run_here(job)
    assert set(record(job)["digests"]) == {"a.parquet", "b.parquet"}


def test_a_file_done_again_since_it_changed_has_its_new_digest(tmp_path: Path) -> None:
    job, file = done_job(tmp_path)
    before = record(job)["digests"]
    write_prompts(file, ["p0", "p1"])
    context, manifest, ledger = preflight(job, STORAGE)
    claim(ledger, job, manifest, context.checkpoint_digest, redo_changed=True)
    assert run_here(job) == 1 and record(job)["digests"] != before
    later(file)
    assert run_here(job) == 0


def test_a_plan_shows_rows_whose_cells_python_cannot_hold(tmp_path: Path) -> None:
    bad = pa.array([b"good", b"caf\xe9", b"caf\xe9"], pa.binary())
    (tmp_path / "manifest").mkdir()
    table = pa.table(
        {
            "id": bad.view(pa.string()),
            "prompt": ["a", "b", "c"],
            "note": bad.view(pa.string()),
            "inside": pa.StructArray.from_arrays([bad.view(pa.string())], ["x"]),
            "day": pa.array([0, 2**30, 1], pa.date32()),
        }
    )
    pq.write_table(table, tmp_path / "manifest" / "a.parquet")
    found = plan(make_job(tmp_path), STORAGE)
    first, second, _ = found.head
    assert (first["note"], first["inside"]) == ("good", {"x": "good"})
    assert (second["prompt"], second["note"], second["day"]) == ("b", "<unreadable string>", "<unreadable date32[day]>")
    assert second["inside"] == "<unreadable struct<x: string>>"
    assert found.ids is not None and found.ids.repeated == 1
    assert found.rows == 3 and "caf" not in "".join(_lines(found))


def test_a_plan_leaves_no_folder_behind_that_was_not_there(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["x"])
    job = make_job(tmp_path, output__uri=str(tmp_path / "new" / "out"))
    assert plan(job, STORAGE).notes == []
    assert not (tmp_path / "new").exists()
    (tmp_path / "new").mkdir()
    plan(job, STORAGE)
    assert list((tmp_path / "new").iterdir()) == []
