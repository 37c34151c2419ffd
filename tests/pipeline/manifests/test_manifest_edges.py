"""Promises about the odd ends of manifests: pictures that change, outputs inside the manifest's folder, odd names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.fakes import all_rows, make_job, part_bytes, receipts, write_prompts
from tests.inprocess import retry_here, run_here
from unipic.jobs.commands.plan import _lines
from unipic.jobs.spec.load import load_job
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.errors import ManifestError, OutputError, SpecError
from unipic.pipeline.job import Input, Job
from unipic.pipeline.manifests import text as text_manifests
from unipic.pipeline.manifests.discovery import discover
from unipic.pipeline.manifests.manifest import units
from unipic.pipeline.manifests.reading import read_unit
from unipic.pipeline.output.ledger import Ledger
from unipic.pipeline.plan import plan
from unipic.pipeline.preflight import preflight
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()


def pictures(folder: Path, *names: str, colour: int = 0) -> None:
    for at, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (at * 20, colour, 0)).save(path)


def picture_job(root: Path, count: int = 10, **changes: Any) -> Job:
    """Captions of a folder of pictures `pics`, four to a unit."""
    pictures(root / "pics", *(f"{at}.png" for at in range(count)))
    changes |= {"input__manifest": str(root / "pics"), "input__columns": {"id": "id"}, "compute__rows_per_unit": 4}
    return make_job(root, "caption", **changes)


def open_again(job: Job, *, redo_changed: bool) -> None:
    context, manifest, ledger = preflight(job, STORAGE)
    ledger.open(job, manifest, context.checkpoint_digest, redo_changed=redo_changed)


# --- folders of pictures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_job_over_a_folder_of_pictures_is_resumed_to_the_same_bytes(tmp_path: Path, scheme: str) -> None:
    job = picture_job(tmp_path, output__uri=f"{scheme}{tmp_path}/out")
    whole = job.model_copy(update={"output": job.output.model_copy(update={"uri": f"{scheme}{tmp_path}/whole"})})
    run_here(job)
    run_here(whole)
    first = sorted(receipts(job), key=lambda one: one.unit)[0]
    STORAGE.delete(f"{job.output.uri}/_unipic/receipts/{first.unit}.json")
    assert run_here(job) == 1
    assert run_here(job) == 0
    assert {row["lineage"]["source_file"].removeprefix(job.output.uri) for row in all_rows(job)} == {
        row["lineage"]["source_file"].removeprefix(whole.output.uri) for row in all_rows(whole)
    }
    assert {row["lineage"]["source_file"][: len(job.output.uri)] for row in all_rows(job)} == {job.output.uri}
    assert verify(job.output.uri, STORAGE).ok


def test_pictures_that_come_later_are_new_rows_and_the_old_ones_stay_as_they_are(tmp_path: Path) -> None:
    job = picture_job(tmp_path)
    run_here(job)
    before = part_bytes(job)
    for name in ("0a.png", "z.png"):
        pictures(tmp_path / "pics", name)
        assert run_here(job) == 1
        assert run_here(job) == 0
    after = part_bytes(job)
    assert {name: after[name] for name in before} == before
    assert len(all_rows(job)) == 12
    assert verify(job.output.uri, STORAGE).ok
    assert {one.version for one in Ledger(job.output.uri, STORAGE).recorded().files} == {""}


def test_rejected_pictures_are_tried_again_and_damaged_units_done_again(tmp_path: Path) -> None:
    job = picture_job(tmp_path)
    run_here(job)
    (tmp_path / "pics" / "bad.png").write_bytes(b"no picture")
    run_here(job)
    retry_here(job)
    assert [row["id"] for row in all_rows(job, "rejected")] == ["bad.png"]
    before = part_bytes(job)
    damaged = next(name for name in before if name.startswith("/data"))
    Path(job.output.uri + damaged).write_bytes(b"damaged")
    for unit in verify(job.output.uri, STORAGE).damaged_units:
        STORAGE.delete(f"{job.output.uri}/_unipic/receipts/{unit}.json")
    assert run_here(job) == 1
    assert part_bytes(job) == before
    assert verify(job.output.uri, STORAGE).ok


def test_a_picture_replaced_under_its_name_is_refused_by_name_and_done_again_when_told_so(tmp_path: Path) -> None:
    job = picture_job(tmp_path)
    run_here(job)
    before = part_bytes(job)
    old = {row["id"]: row["caption"] for row in all_rows(job)}
    (tmp_path / "pics" / "0.png").unlink()  # a picture that is gone is none that was replaced
    pictures(tmp_path / "pics", "5.png", colour=200)
    with pytest.raises(ManifestError, match=r"^5\.png changed since this output was begun"):
        run_here(job)
    assert part_bytes(job) == before
    open_again(job, redo_changed=True)
    assert run_here(job) == 1, "only the unit of that picture"
    new = {row["id"]: row["caption"] for row in all_rows(job)}
    assert {name for name in old if old[name] != new[name]} == {"5.png"}
    assert verify(job.output.uri, STORAGE).ok
    assert run_here(job) == 0


def test_a_rejected_picture_that_was_mended_under_its_name_is_tried_again_without_more_ado(tmp_path: Path) -> None:
    job = picture_job(tmp_path, count=3)
    (tmp_path / "pics" / "bad.png").write_bytes(b"no picture")
    run_here(job)
    assert [row["id"] for row in all_rows(job, "rejected")] == ["bad.png"]
    before = all_rows(job)
    pictures(tmp_path / "pics", "bad.png")
    assert run_here(job) == 0
    retry_here(job)
    assert [row for row in all_rows(job) if row["id"] != "bad.png"] == before
    assert (len(all_rows(job)), all_rows(job, "rejected")) == (4, [])
    assert verify(job.output.uri, STORAGE).ok
    pictures(tmp_path / "pics", "bad.png", colour=9)
    with pytest.raises(ManifestError, match=r"^bad\.png changed"):
        run_here(job)


@pytest.mark.parametrize("server", ["rclone", "moto"])
def test_a_folder_of_pictures_on_s3_is_resumed_and_a_replaced_picture_seen(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    s3 = request.getfixturevalue(server)
    storage, root = Storage(StorageOptions(endpoint_url=s3.endpoint_url)), s3.bucket()
    pictures(tmp_path, "a.png", "b.png")
    for name in ("a.png", "b.png"):
        storage.write(f"{root}/pics/{name}", (tmp_path / name).read_bytes())
    job = make_job(
        tmp_path,
        "caption",
        input__manifest=f"{root}/pics",
        output__uri=f"{root}/pics/out",
        storage__endpoint_url=s3.endpoint_url,
    )
    assert [run_here(job), run_here(job)] == [1, 0]
    storage.write(f"{root}/pics/a.png", (tmp_path / "b.png").read_bytes())
    with pytest.raises(ManifestError, match=r"^a\.png changed"):
        run_here(job)


# --- where manifests are looked for ----------------------------------------------------------------------------


@pytest.mark.parametrize("manifest", ["w", "w/", "w/**/*.parquet", "link"])
def test_an_output_inside_the_manifests_folder_is_none_of_its_rows(tmp_path: Path, manifest: str) -> None:
    write_prompts(tmp_path / "w" / "a.parquet", ["x", "y"])
    (tmp_path / "link").symlink_to(tmp_path / "w")
    job = make_job(tmp_path, input__manifest=f"{tmp_path}/{manifest}", output__uri=f"{tmp_path}/w/out")
    assert [run_here(job), run_here(job), len(all_rows(job))] == [1, 0, 2]
    assert plan(job, STORAGE).rows == 2
    other = make_job(tmp_path, input__manifest=f"{tmp_path}/w/out/data", output__uri=f"{tmp_path}/w/out2")
    assert run_here(other) == 1, "another job's data folder is a manifest"


def test_a_manifest_that_is_nothing_but_the_jobs_own_output_is_refused(tmp_path: Path) -> None:
    write_prompts(tmp_path / "out" / "data" / "a.parquet", ["x"])
    for manifest in ("out/data", "out/data/a.parquet", "out/*/*.parquet"):
        job = make_job(tmp_path, input__manifest=f"{tmp_path}/{manifest}")
        with pytest.raises(ManifestError, match=r"No file matches .* but those in .*out, which is this job's own"):
            run_here(job)


@pytest.mark.parametrize("manifest", ["out", "out/*.parquet", "out/**/*.parquet", "out/prompts.parquet"])
def test_a_manifest_may_lie_in_the_output_folder(tmp_path: Path, manifest: str) -> None:
    write_prompts(tmp_path / "out" / "prompts.parquet", ["x", ""])
    job = make_job(tmp_path, input__manifest=f"{tmp_path}/{manifest}")
    assert [run_here(job), run_here(job), len(all_rows(job))] == [1, 0, 1]


def test_an_output_beside_the_manifest_whose_name_begins_alike_is_no_part_of_it(tmp_path: Path) -> None:
    write_prompts(tmp_path / "out-of-town" / "a.parquet", ["x"])
    assert run_here(make_job(tmp_path, input__manifest=f"{tmp_path}/out-of-town")) == 1


@pytest.mark.parametrize("server", ["rclone", "moto"])
def test_on_s3_too_outputs_are_left_out_and_odd_names_are_literal(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    s3 = request.getfixturevalue(server)
    storage, root = Storage(StorageOptions(endpoint_url=s3.endpoint_url)), s3.bucket()
    path = write_prompts(tmp_path / "a.parquet", ["x", "y"])
    for name in ("w [1]/a.parquet", "w [1]/out/data/part.parquet"):
        storage.write(f"{root}/{name}", path.read_bytes())
    for manifest in ("w [1]", "w [1]/**/*.parquet", "w [1]/a.parquet"):
        found = discover(Input(manifest=f"{root}/{manifest}"), storage, outside=f"{root}/w [1]/out/")
        assert [file.name for file in found.files] == ["a.parquet"]
    with pytest.raises(ManifestError, match="which is this job's own output"):
        discover(Input(manifest=f"{root}/w [1]/out"), storage, outside=f"{root}/w [1]/out")


def test_a_folder_or_file_with_brackets_in_its_name_is_a_manifest(tmp_path: Path) -> None:
    write_prompts(tmp_path / "man [v2]" / "a[1].parquet", ["x"])
    write_prompts(tmp_path / "man [v2]" / "more?" / "b.parquet", ["y"])
    names = {
        "man [v2]": ["a[1].parquet", "more?/b.parquet"],
        "man [v2]/": ["a[1].parquet", "more?/b.parquet"],
        "man [v2]/a[1].parquet": ["a[1].parquet"],
        "man [v2]/*.parquet": ["a[1].parquet"],
        "man [v2]/more?/[ab].parquet": ["b.parquet"],
        "man*/*/b.parquet": ["man [v2]/more?/b.parquet"],
    }
    for manifest, expected in names.items():
        found = discover(Input(manifest=f"{tmp_path}/{manifest}"), STORAGE)
        assert [file.name for file in found.files] == expected, manifest
    with pytest.raises(ManifestError, match="No file matches"):
        discover(Input(manifest=f"{tmp_path}/man [v3]"), STORAGE)


# --- what is in the files --------------------------------------------------------------------------------------


def write_lines(path: Path, *rows: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows_in(path: Path) -> list[dict[str, Any]]:
    manifest = discover(Input(manifest=str(path)), STORAGE)
    return [row for unit in units(manifest, 2) for row in read_unit(unit, manifest.schema.names, STORAGE).to_pylist()]


@pytest.mark.parametrize("empty", [{}, [{}], {"a": {}}, {"a": [{}, {}]}])
def test_an_empty_json_object_becomes_text_that_can_be_written(tmp_path: Path, empty: object) -> None:
    write_lines(tmp_path / "manifest" / "a.jsonl", *({"prompt": prompt, "meta": empty} for prompt in ("a", "")))
    job = make_job(tmp_path, input__columns={"prompt": "prompt"}, input__keep=["meta"])
    assert run_here(job) == 1
    assert [row["meta"] for row in all_rows(job) + all_rows(job, "rejected")] == [json.dumps(empty)] * 2


def test_columns_whose_chunks_do_not_go_together_become_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_manifests, "CHUNK_ROWS", 1)
    first, second = {"n": 2**60 + 1, "m": {"score": 1}, "k": {"a": 1}}, {"n": 0.5, "m": {"score": "?"}, "k": {"b": "x"}}
    write_lines(tmp_path / "a.jsonl", first, second, {})
    assert rows_in(tmp_path / "a.jsonl") == [
        {"n": "1152921504606846977", "m": '{"score": 1}', "k": {"a": 1, "b": None}},
        {"n": "0.5", "m": '{"score": "?"}', "k": {"a": None, "b": "x"}},
        {"n": None, "m": None, "k": None},
    ]


def test_a_parquet_file_with_two_columns_of_one_name_is_refused_with_both_names(tmp_path: Path) -> None:
    (tmp_path / "manifest").mkdir()
    table = pa.table([["a"], ["p"], [1], [2]], names=["id", "prompt", "x", "x"])
    pq.write_table(table, tmp_path / "manifest" / "a.parquet")
    with pytest.raises(ManifestError, match=r"a\.parquet has several columns called x\."):
        plan(make_job(tmp_path), STORAGE)


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


# --- what a job says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "rows", "allowed"), [("29%", 100, 29), ("0.7%", 1000, 7), ("1%", 99, 0), ("100%", 3, 3), (7, 3, 7)]
)
def test_a_share_of_rows_that_may_fail_is_exact(tmp_path: Path, share: str | int, rows: int, allowed: int) -> None:
    assert make_job(tmp_path, limits__max_rejected=share).limits.rejected_allowed(rows) == allowed


def test_a_column_is_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        "name: n\ntask: generate\ninput: {manifest: m, keep: [b, a, b]}\nmodel: {checkpoint: c}\noutput: {uri: o}\n"
    )
    with pytest.raises(SpecError, match=r"job\.yaml:3 input\.keep: must name each column once; twice there: b$"):
        load_job(path)


def test_units_are_of_as_many_pictures_whatever_the_samples_of_a_row(tmp_path: Path) -> None:
    sizes = {}
    for samples in (1, 4, 16, 100):
        job = make_job(tmp_path, params__samples_per_row=samples, compute__rows_per_unit=None)
        sizes[samples] = job.rows_per_unit
    assert sizes == {1: 64, 4: 16, 16: 4, 100: 1}
    assert make_job(tmp_path, params__samples_per_row=16, compute__rows_per_unit=64).rows_per_unit == 64
    assert make_job(tmp_path, "caption", compute__rows_per_unit=None).rows_per_unit == 128


# --- the output's folder ---------------------------------------------------------------------------------------


def test_a_plan_leaves_no_folder_behind_that_was_not_there(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["x"])
    job = make_job(tmp_path, output__uri=str(tmp_path / "new" / "out"))
    assert plan(job, STORAGE).notes == []
    assert not (tmp_path / "new").exists()
    (tmp_path / "new").mkdir()
    plan(job, STORAGE)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_that_another_process_fills_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = STORAGE.read

    def read_late(uri: str) -> bytes:
        (tmp_path / "new" / "theirs").touch()
        return read(uri)

    monkeypatch.setattr(STORAGE, "read", read_late)
    STORAGE.check_writable(str(tmp_path / "new" / "out"))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["theirs"]


def test_a_write_into_a_folder_that_is_just_taken_back_makes_it_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    makedirs = os.makedirs
    calls = []

    def make_and_lose(path: str, *, exist_ok: bool) -> None:
        makedirs(path, exist_ok=exist_ok)
        calls.append(path)
        if len(calls) == 1:
            os.rmdir(path)

    monkeypatch.setattr(os, "makedirs", make_and_lose)
    STORAGE.write(f"{tmp_path}/out/x", b"1")
    assert (STORAGE.read(f"{tmp_path}/out/x"), len(calls)) == (b"1", 2)


@pytest.mark.parametrize("text", ['"a text"', "[]", "3", "null", "{}", '{"fingerprint": "x"}', "rubbish"])
def test_a_damaged_run_json_is_told_as_such(tmp_path: Path, text: str) -> None:
    STORAGE.write(f"{tmp_path}/out/_unipic/run.json", text.encode())
    with pytest.raises(OutputError, match=r"run\.json is damaged"):
        Ledger(f"{tmp_path}/out", STORAGE).run()
