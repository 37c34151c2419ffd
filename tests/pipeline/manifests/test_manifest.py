"""Promises about manifests: what is found, what is refused by name, and that a unit's rows are exactly its rows."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unipic.pipeline.bench.plan import bench_plan
from unipic.pipeline.errors import EmptyManifest, ManifestError, together
from unipic.pipeline.job import AnyJob, Input, Job
from unipic.pipeline.manifests import parquet_rows
from unipic.pipeline.manifests.columns import bindings, column_faults
from unipic.pipeline.manifests.discovery import discover
from unipic.pipeline.manifests.manifest import Manifest, units
from unipic.pipeline.manifests.reading import head, read_unit
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()


def found(manifest: Path | str, **how: Any) -> Manifest:
    return discover(Input(manifest=str(manifest), **how), STORAGE)


def check_columns(manifest: Manifest, job: Job) -> None:
    if faults := column_faults(manifest, job):
        raise together(faults, ManifestError)


def rows_of(manifest: Manifest, columns: list[str], *, rows_per_unit: int = 7) -> list[dict[str, Any]]:
    return [row for unit in units(manifest, rows_per_unit) for row in read_unit(unit, columns, STORAGE).to_pylist()]


def write(path: Path, rows: int = 10, *, first: int = 0, **how: Any) -> pa.Table:
    numbers = range(first, first + rows)
    table = pa.table({"id": [f"r{n}" for n in numbers], "prompt": [f"p{n}" for n in numbers], "n": list(numbers)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **how)
    return table


def job(task: str = "generate", params: dict[str, Any] | None = None, **source: Any) -> Job:
    from pydantic import TypeAdapter

    return TypeAdapter(AnyJob).validate_python(
        {
            "name": "j",
            "task": task,
            "input": {"manifest": "m", **source},
            "model": {"checkpoint": "c"},
            "params": params or {},
            "output": {"uri": "o"},
        }
    )


# --- what is found ---------------------------------------------------------------------------------------------


def test_a_file_a_glob_and_a_nested_folder_are_manifests(tmp_path: Path) -> None:
    write(tmp_path / "m/b.parquet", 3, first=20)
    write(tmp_path / "m/a/x.parquet", 5)
    write(tmp_path / "m/_unipic/hidden.parquet", 5)
    folder = found(tmp_path / "m")
    assert [(file.name, file.rows) for file in folder.files] == [("a/x.parquet", 5), ("b.parquet", 3)]
    assert folder.rows == 8
    assert [file.name for file in found(f"{tmp_path}/m/**/x.parquet").files] == ["a/x.parquet"]
    one = found(tmp_path / "m/b.parquet").files[0]
    assert (one.name, one.root, one.format) == ("b.parquet", f"{tmp_path}/m", "parquet")
    assert found(tmp_path / "m", image_root="s3://pictures/x").files[0].root == "s3://pictures/x"


def test_a_manifest_given_by_a_relative_path_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "m.parquet")
    monkeypatch.chdir(tmp_path)
    manifest = found("m.parquet")
    monkeypatch.chdir("/")
    assert len(rows_of(manifest, ["id"])) == 10


def test_progress_counts_files(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path / f"{number}.parquet", 1)
    seen: list[tuple[int, int]] = []
    discover(Input(manifest=str(tmp_path)), STORAGE, on_progress=lambda done, of: seen.append((done, of)))
    assert seen == [(number, 5) for number in range(1, 6)]


@pytest.mark.parametrize("server", ["rclone", "moto"])
def test_a_manifest_on_s3_is_planned_and_read(server: str, request: pytest.FixtureRequest) -> None:
    s3 = request.getfixturevalue(server)
    storage, root = Storage(StorageOptions(endpoint_url=s3.endpoint_url)), s3.bucket()
    table = pa.table({"prompt": [f"p{number}" for number in range(1000)]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=90)
    for name in ("m/a/1.parquet", "m/2.parquet"):
        storage.write(f"{root}/{name}", sink.getvalue().to_pybytes())
    for where in (f"{root}/m", f"{root}/m/", f"{root}/m/**/*.parquet"):
        manifest = discover(Input(manifest=where), storage)
        assert [file.name for file in manifest.files] == ["2.parquet", "a/1.parquet"]
    rows = pa.concat_tables([read_unit(unit, ["prompt"], storage) for unit in units(manifest, 300)])
    assert rows.equals(pa.concat_tables([table, table]))
    with pytest.raises(ManifestError, match="no manifest at s3"):
        discover(Input(manifest=f"{root}/none"), storage)


# --- what is refused, by name ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["none.parquet", "none", "none/*.parquet"])
def test_a_missing_manifest_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ManifestError, match=r"(no manifest at|No file matches) .*none"):
        found(tmp_path / name)


def test_an_empty_manifest_is_refused_as_empty(tmp_path: Path) -> None:
    write(tmp_path / "m/x.parquet", 0)
    (tmp_path / "m/y.csv").write_text("prompt\n")
    with pytest.raises(EmptyManifest, match="is empty: 2 files without rows"):
        found(tmp_path / "m")
    (tmp_path / "folder").mkdir()
    with pytest.raises(EmptyManifest, match=r"folder .* is empty"):
        found(tmp_path / "folder")
    (tmp_path / "folder/notes.txt").write_text("x")
    with pytest.raises(EmptyManifest, match="neither a manifest nor images"):
        found(tmp_path / "folder")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda good: b"", "it is empty"),
        (lambda good: good[:-9], "its end is missing"),
        (lambda good: b"key,text and no Parquet at all", "it does not begin and end like one"),
        (lambda good: good[:-60] + b"x" * 52 + good[-8:], "its footer is damaged"),
        (lambda good: b"PAR1" + b"x" * (len(good) // 4) + good[len(good) // 4 + 4 :], "its rows cannot be decoded"),
    ],
)
def test_what_is_wrong_with_a_parquet_file_is_told_in_words_of_our_own(
    tmp_path: Path, change: Callable[[bytes], bytes], why: str
) -> None:
    write(tmp_path / "bad.parquet", 1000)
    (tmp_path / "bad.parquet").write_bytes(change((tmp_path / "bad.parquet").read_bytes()))
    with pytest.raises(ManifestError, match=rf"bad\.parquet is not a readable Parquet file: {why}\. Write it again"):
        rows_of(found(tmp_path), ["id", "prompt", "n"])


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "footer"])
def test_a_bad_parquet_footer_is_refused_with_its_file(tmp_path: Path, damage: str) -> None:
    write(tmp_path / "good.parquet")
    write(tmp_path / "bad.parquet")
    whole = (tmp_path / "bad.parquet").read_bytes()
    broken = {
        "cut": whole[:-10],
        "text": b"no parquet",
        "empty": b"",
        "footer": whole[:-40] + b"\xff" * 32 + whole[-8:],
    }
    (tmp_path / "bad.parquet").write_bytes(broken[damage])
    with pytest.raises(ManifestError, match=r"bad\.parquet is not a readable Parquet file"):
        found(tmp_path)


def test_rays_pickled_objects_are_refused_with_file_and_column(tmp_path: Path) -> None:
    field = pa.field("obj", pa.large_binary(), metadata={"ARROW:extension:name": "ray.data.arrow_pickled_object"})
    table = pa.table([["a"], [b"pickle"]], schema=pa.schema([("prompt", pa.string()), field]))
    pq.write_table(table, tmp_path / "evil.parquet")
    with pytest.raises(ManifestError, match=r"evil\.parquet has columns of Ray's own extension types \(obj\)"):
        found(tmp_path)
    inner = pa.struct([pa.field("obj", pa.large_binary(), metadata=field.metadata)])
    nested = pa.table({"prompt": ["a"], "outer": pa.array([{"obj": b"x"}], inner)})
    pq.write_table(nested, tmp_path / "evil.parquet")
    with pytest.raises(ManifestError, match="inside others"):
        found(tmp_path)


def test_files_of_differing_schema_are_refused_only_in_the_columns_needed(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", 3)
    pq.write_table(pa.table({"id": ["x"], "prompt": ["y"], "n": ["text"]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"id": ["x"], "prompt": pa.array(["y"], pa.large_string())}), tmp_path / "c.parquet")
    manifest = found(tmp_path)
    check_columns(manifest, job())
    with pytest.raises(ManifestError, match=r'Column "n" is string in b\.parquet, but int64'):
        check_columns(manifest, job(keep=["n"]))
    (tmp_path / "b.parquet").unlink()
    with pytest.raises(ManifestError, match=r'c\.parquet has no column "n"'):
        check_columns(found(tmp_path), job(keep=["n"]))


def test_a_missing_column_lists_what_is_there_and_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r'no column "promt".*it has: id, prompt, n.*Did you mean "prompt"'):
        check_columns(found(tmp_path), job(columns={"prompt": "promt"}))
    with pytest.raises(ManifestError, match=r'no column "image", which the job needs as image'):
        check_columns(found(tmp_path), job("caption"))


def test_a_file_that_changed_since_planning_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "m.parquet")
    (unit,) = units(found(tmp_path), 64)
    write(tmp_path / "m.parquet", 9)
    os.utime(tmp_path / "m.parquet", ns=(1, 1))
    with pytest.raises(ManifestError, match="changed since the run was planned"):
        read_unit(unit, ["prompt"], STORAGE)


# --- what the task reads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "params", "columns", "expected"),
    [
        ("generate", {}, {}, {"prompt": "prompt"}),
        ("generate", {}, {"prompt": "p", "id": "k", "seed": "s"}, {"prompt": "p", "id": "k", "seed": "s"}),
        ("edit", {}, {}, {"image": "image", "prompt": "prompt"}),
        ("edit", {"instruction": "brighten"}, {"image": "url"}, {"image": "url"}),
        ("edit", {"instruction": "brighten"}, {"prompt": "p"}, {"image": "image", "prompt": "p"}),
        ("caption", {}, {}, {"image": "image"}),
        ("caption", {}, {"prompt": "q"}, {"image": "image", "prompt": "q"}),
    ],
)
def test_each_task_reads_its_columns(
    task: str, params: dict[str, Any], columns: dict[str, str], expected: dict[str, str]
) -> None:
    assert bindings(job(task, params, columns=columns)) == expected


# --- reading units ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("group_rows", [1, 64, 100, 5000])
def test_units_give_exactly_their_rows_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_rows: int, streamed: bool
) -> None:
    if streamed:
        monkeypatch.setattr(parquet_rows, "WHOLE_GROUP_BYTES", 0)
        monkeypatch.setattr(parquet_rows, "BATCH_BYTES", 1000)
    table = write(tmp_path / "m.parquet", 1000, row_group_size=group_rows)
    manifest = found(tmp_path)
    work = list(units(manifest, 64))
    assert [unit.rows for unit in work] == [64] * 15 + [40]
    for order in (work, random.Random(0).sample(work, len(work)), work[::-1]):
        for unit in order:
            rows = read_unit(unit, ["n", "prompt"], STORAGE)
            assert rows.equals(table.select(["n", "prompt"]).slice(unit.first_row, unit.rows))


def test_a_streamed_group_is_decoded_once_by_units_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "WHOLE_GROUP_BYTES", 0)
    made: list[int] = []

    class Counting(parquet_rows.Cursor):
        def __init__(self, *args: Any) -> None:
            made.append(1)
            super().__init__(*args)

    monkeypatch.setattr(parquet_rows, "Cursor", Counting)
    write(tmp_path / "m.parquet", 5000, row_group_size=5000)
    assert len(rows_of(found(tmp_path), ["n"], rows_per_unit=64)) == 5000
    assert len(made) == 1


def test_a_group_of_huge_cells_is_never_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "WHOLE_GROUP_BYTES", 2**20)
    monkeypatch.setattr(parquet_rows, "BATCH_BYTES", 2**20)
    monkeypatch.setattr(parquet_rows, "STREAM_BUFFER_BYTES", 2**16)
    cells = [os.urandom(2**19) for _ in range(100)]
    plain: dict[str, Any] = {"use_dictionary": False, "compression": "none", "write_batch_size": 1}
    pq.write_table(pa.table({"image": cells}), tmp_path / "m.parquet", row_group_size=100, **plain)
    del cells
    manifest = found(tmp_path)
    before = pa.total_allocated_bytes()
    most = 0
    for unit in units(manifest, 4):
        assert read_unit(unit, ["image"], STORAGE).num_rows == 4
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 20 * 2**20, "the group has 50 MB"


def test_dictionaries_large_text_and_views_are_read_as_plain_text(tmp_path: Path) -> None:
    text = pa.array(["a", "b", None])
    for name, kind in {"a": pa.string(), "b": pa.large_string(), "c": pa.dictionary(pa.int32(), pa.string())}.items():
        pq.write_table(pa.table({"prompt": text.cast(kind)}), tmp_path / f"{name}.parquet")
    manifest = found(tmp_path)
    assert manifest.schema.field("prompt").type == pa.string()
    assert manifest.others == ()
    tables = [read_unit(unit, ["prompt"], STORAGE) for unit in units(manifest, 2)]
    assert {table.schema.field("prompt").type for table in tables} == {pa.string()}


def test_pictures_as_structs_are_read_whole(tmp_path: Path) -> None:
    picture = {"bytes": b"\x89PNG", "path": "x.png"}
    pq.write_table(pa.table({"n": [1], "image": [picture]}), tmp_path / "m.parquet")
    assert rows_of(found(tmp_path), ["image"]) == [{"image": picture}]


def test_the_head_is_short_enough_to_show(tmp_path: Path) -> None:
    rows = {"prompt": ["x" * 5000, "y"], "image": [{"bytes": b"1" * 4096, "path": "p"}, None]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    assert head(found(tmp_path), 1, STORAGE)[0]["image"] == {"bytes": "<4,096 bytes>", "path": "p"}
    write(tmp_path / "b.parquet", 3)
    shown = head(found(tmp_path), 4, STORAGE)
    assert [list(row) for row in shown] == [["prompt"]] * 4, "columns that all files have"
    assert str(shown[0]["prompt"]).endswith("… (5,000 characters)")


def test_ten_thousand_units_cost_nothing_until_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "m.parquet", 10)
    (file,) = found(tmp_path).files
    endless = Manifest((type(file)(**{**file.__dict__, "rows": 10**12}),), pa.schema([]))
    assert next(iter(units(endless, 64))).rows == 64


def test_planning_reads_no_rows_and_holds_none() -> None:
    measured = bench_plan(rows=500_000)
    assert (measured.rows, measured.files) == (500_000, 2)
    assert measured.units == 2 * -(-250_000 // 64)
    assert measured.memory_growth_bytes < 30 * 2**20
