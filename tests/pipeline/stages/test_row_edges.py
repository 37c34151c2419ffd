"""What only some rows, columns and formats bring: each is one row's matter, or none at all, and never the job's."""

from __future__ import annotations

import os
import shutil
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.fakes import FakeEngine, all_rows, first_unit, make_job, part_bytes, write_prompts
from tests.inprocess import retry_here, run_here
from unipic.pipeline.errors import is_address, redact, redact_url
from unipic.pipeline.execution.warmup import prove
from unipic.pipeline.images.encode import SOFTWARE, facts_of
from unipic.pipeline.lineage import derive_seed
from unipic.pipeline.records import PICTURE
from unipic.pipeline.stages.parts import parquet_bytes
from unipic.pipeline.stages.prepare import prepare
from unipic.pipeline.stages.redaction import without_signatures

SECRET = "X-Amz-Signature=canary"
BROKEN = b"caf\xe9 grey"
MENDED = "caf\ufffd grey"


def texts(*cells: bytes | str | None) -> pa.Array:
    """A text column as a careless writer leaves it: Parquet does not look whether it is UTF-8."""
    return pa.array([one.encode() if isinstance(one, str) else one for one in cells], pa.binary()).view(pa.string())


def manifest(root: Path, **columns: Any) -> None:
    (root / "manifest").mkdir(parents=True)
    pq.write_table(pa.table(columns), root / "manifest" / "a.parquet")


def csv(root: Path, text: str) -> None:
    (root / "manifest").mkdir(parents=True)
    (root / "manifest" / "a.csv").write_text(text, encoding="utf-8")


def png(shade: int = 90) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(buffer, "PNG")
    return buffer.getvalue()


def rejections(job: Any) -> list[tuple[str, str]]:
    return [(row["rejection"]["kind"], row["rejection"]["message"]) for row in all_rows(job, "rejected")]


@pytest.mark.parametrize("bad", ["id", "prompt", "seed"])
def test_text_that_is_not_utf8_rejects_its_row_and_its_neighbours_are_delivered(tmp_path: Path, bad: str) -> None:
    columns: dict[str, Any] = {"id": texts("a", "b", "c"), "prompt": texts("p", "q", "r"), "seed": texts("1", "2", "3")}
    cells = columns[bad].cast(pa.binary()).to_pylist()
    columns[bad] = texts(cells[0], BROKEN, cells[2])
    manifest(tmp_path, **columns)
    job = make_job(tmp_path, input__columns={"id": "id", "prompt": "prompt", "seed": "seed"})
    run_here(job)
    assert [row["id"] for row in all_rows(job)] == ["a", "c"]
    (row,) = all_rows(job, "rejected")
    assert row["rejection"]["kind"] == "WrongType" and row["rejection"]["source_row"] == 1
    assert row["rejection"]["message"].startswith(f'The column "{bad}" holds text that is not UTF-8')
    assert row[bad] == MENDED


def test_a_pictures_path_that_is_not_utf8_rejects_its_row(tmp_path: Path) -> None:
    pictures = pa.StructArray.from_arrays([pa.array([None, png()]), texts(BROKEN, "x.png")], names=["bytes", "path"])
    manifest(tmp_path, image=pictures)
    job = make_job(tmp_path, "caption")
    run_here(job)
    assert [row["source"] for row in all_rows(job)] == ["x.png"]
    assert [kind for kind, _ in rejections(job)] == ["WrongType"]


def test_columns_that_are_only_kept_may_hold_broken_text_at_any_depth(tmp_path: Path) -> None:
    broken = texts(BROKEN, "b", None)
    nested = {
        "text": broken,
        "struct": pa.StructArray.from_arrays([broken], names=["x"]),
        "list": pa.ListArray.from_arrays([0, 1, 1, 3], broken),
        "map": pa.MapArray.from_arrays([0, 1, 2, 3], pa.array(["k", "l", "m"]), broken),
        "long": broken.cast(pa.binary()).cast(pa.large_binary()).view(pa.large_string()),
    }
    manifest(tmp_path, id=["1", "2", "3"], prompt=["p", "", "r"], **nested)
    job = make_job(tmp_path, input__keep=list(nested))
    run_here(job)
    first, last = all_rows(job)
    assert (first["text"], first["struct"], first["list"], first["long"]) == (MENDED, {"x": MENDED}, [MENDED], MENDED)
    assert first["map"] == [{"key": "k", "value": MENDED}] and last["list"] == ["b", None]
    assert [row["text"] for row in all_rows(job, "rejected")] == ["b"]


def test_a_rejected_row_may_hold_broken_text_in_a_column_nobody_named(tmp_path: Path) -> None:
    manifest(tmp_path, id=["1", "2"], prompt=["p", ""], note=texts("fine", BROKEN))
    job = make_job(tmp_path)
    run_here(job)
    assert len(all_rows(job)) == 1
    assert [row["note"] for row in all_rows(job, "rejected")] == [MENDED]


def test_values_that_python_cannot_hold_are_the_rows_where_read_and_nobodys_where_kept(tmp_path: Path) -> None:
    moments = pa.array([2**55, 1], pa.timestamp("ms"))
    manifest(tmp_path / "read", id=["1", "2"], prompt=moments)
    job = make_job(tmp_path / "read")
    run_here(job)
    (part,) = (tmp_path / "read" / "out" / "rejected").iterdir()
    rejected = pq.read_table(part, columns=["rejection"]).column("rejection").to_pylist()
    assert [one["kind"] for one in rejected] == ["WrongType"] * 2 and "timestamp[ms]" in rejected[0]["message"]
    manifest(tmp_path / "kept", id=["1", "2"], prompt=["p", "q"], when=moments)
    job = make_job(tmp_path / "kept", input__keep=["when"])
    run_here(job)
    (part,) = (tmp_path / "kept" / "out" / "data").iterdir()
    assert pq.read_table(part).column("when").cast(pa.int64()).to_pylist() == [2**55, 1]


@pytest.mark.parametrize("column", ["prompt", "note"])
def test_the_trial_goes_on_with_another_row_where_the_first_cannot_be_read(tmp_path: Path, column: str) -> None:
    columns: dict[str, Any] = {
        "id": ["1"],
        "prompt": ["p"],
        "note": ["n"],
        "when": pa.array([2**55], pa.timestamp("ms")),
    }
    manifest(tmp_path, **{**columns, column: texts(BROKEN)})
    unit, context = first_unit(make_job(tmp_path, input__keep=["note", "when"]))
    said = prove(FakeEngine(context), unit, context)
    assert ("the first row is at fault (WrongType" if column == "prompt" else "one row answered") in said


def test_the_trial_survives_whatever_preparing_a_row_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> pa.Table:
        raise KeyError("nobody foresaw this")

    write_prompts(tmp_path / "manifest" / "a.parquet", ["p"])
    unit, context = first_unit(make_job(tmp_path))
    monkeypatch.setattr("unipic.pipeline.execution.warmup.prepare", explode)
    assert "nobody foresaw this" in prove(FakeEngine(context), unit, context)


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (f" https://h.example/x.png?{SECRET}", " https://h.example/x.png"),
        (f"\ufeff\u200b https://h.example/x.png?{SECRET}", "\ufeff\u200b https://h.example/x.png"),
        (f"//h.example/x.png?{SECRET}", "//h.example/x.png"),
        (f"//user:canary@h.example/x.png?{SECRET}", "//h.example/x.png"),
        (f"s3://b/k.png?{SECRET}", "s3://b/k.png"),
        (f"s3://b/two words.png?{SECRET}", "s3://b/two words.png"),
        (f"https://h.example/two words.png?a=1&{SECRET}", "https://h.example/two words.png"),
        (f"HTTPS:/h.example/x.png?{SECRET}", "HTTPS:/h.example/x.png"),
        (f"h.example/x.png?{SECRET}", "h.example/x.png"),
        (f'{{"path": "https://h.example/x.png?a=1&{SECRET}"}}', '{"path": "https://h.example/x.png"}'),
        ("s3://b/#1.png", "s3://b/#1.png"),
        ("why? because a=b", "why? because a=b"),
        ("// what is this? nobody knows", "// what is this? nobody knows"),
        ("pictures/what?.png", "pictures/what?.png"),
    ],
)
def test_no_cell_keeps_a_signature_and_text_that_is_no_address_stays(cell: str, shown: str) -> None:
    assert redact_url(cell) == shown
    assert without_signatures(pa.chunked_array([[cell, None]])).to_pylist() == [shown, None]
    assert redact_url(shown) == shown


def test_signatures_inside_lists_of_dictionaries_are_found(tmp_path: Path) -> None:
    kind = pa.list_(pa.dictionary(pa.int32(), pa.string()))
    column = pa.chunked_array([pa.array([[f"https://h/x?{SECRET}"]], kind)])
    assert without_signatures(column).to_pylist() == [["https://h/x"]] and without_signatures(column).type == kind


@pytest.mark.parametrize("cell", ["?" * 300_000, "//" + " ?" * 100_000, "https://h " + "a." * 100_000, "?&" * 150_000])
def test_redacting_a_hostile_cell_takes_time_in_proportion_to_its_length(cell: str) -> None:
    redact_url(cell)
    redact(cell)
    assert is_address(cell) is not cell.startswith("?")


@pytest.mark.parametrize("outside", [False, True])
def test_no_signature_of_a_picture_cell_reaches_the_output(tmp_path: Path, outside: bool) -> None:
    cells = [" https://h.example/x.png", "//h.example/x.png", f"file://{tmp_path}/x.png", "https:/h/x.png", "h/x.png"]
    csv(tmp_path, "id,image\n" + "".join(f'{at},"{cell}?{SECRET}"\n' for at, cell in enumerate(cells)))
    columns = {"id": "id", "image": "image"}
    job = make_job(tmp_path, "caption", input__columns=columns, input__allow_outside_root=outside)
    run_here(job)
    kinds = [kind for kind, _ in rejections(job)]
    missing_or_outside = "MissingPicture" if outside else "ForbiddenSource"
    assert kinds == ["ForbiddenSource", missing_or_outside, "ForbiddenSource", "ForbiddenSource", "MissingPicture"]
    for name, data in part_bytes(job).items():
        assert b"canary" not in data, name
    assert "canary" not in str(all_rows(job, "rejected"))


def test_what_an_engine_says_of_a_row_is_rejected_without_its_secrets(tmp_path: Path) -> None:
    class Telling(FakeEngine):
        def answer(self, rows: Any) -> list[bytes | str]:
            raise ValueError(f"GET https://h.example/w.bin?{SECRET} failed")

    write_prompts(tmp_path / "manifest" / "a.parquet", ["p"])
    job = make_job(tmp_path)
    run_here(job, make_engine=Telling)
    assert rejections(job) == [("ReplicaFailed", "ValueError: GET https://h.example/w.bin failed")]


def test_kept_columns_never_share_a_name(tmp_path: Path) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["p"], source_id=["s"], source_source_id=["t"])
    job = make_job(tmp_path, input__keep=["source_id", "id", "source_source_id"])
    run_here(job)
    (row,) = all_rows(job)
    kept = (row["source_id"], row["source_source_source_id"], row["source_source_id"])
    assert kept == ("s", "a-0", "t") and row["id"] == "a-0"


def test_a_part_with_kept_columns_of_any_kind_is_loaded_by_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    day = date(2020, 1, 2)
    table = pa.table(
        {
            "image": pa.array([{"bytes": png(), "path": "x.png"}], PICTURE),
            "date": pa.array([day], pa.date32()),
            "moment": pa.array([day], pa.date64()),
            "half": pa.array([np.float16(1.5)], pa.float16()),
            "map": pa.array([[("a", [("b", 1)])]], pa.map_(pa.string(), pa.map_(pa.string(), pa.int64()))),
            "pair": pa.array([[1, 2]], pa.list_(pa.int64(), 2)),
            "deep": pa.array([[{"on": day}]]),
            "words": pa.array([["w"]], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
            "price": pa.array([None], pa.decimal32(5, 2)),
            "nothing": pa.array([{"a": 1, "e": {}}]),
        }
    )
    (tmp_path / "part.parquet").write_bytes(parquet_bytes(table))
    loaded = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "part.parquet"), split="train", cache_dir=str(tmp_path / "cache")
    )
    row = loaded[0]
    assert isinstance(row["image"], Image.Image)
    assert row["map"] == [{"key": "a", "value": [{"key": "b", "value": 1}]}]
    assert (row["half"], row["pair"], row["deep"], row["words"]) == (1.5, [1, 2], [{"on": day}], ["w"])
    assert row["date"] == day and row["nothing"] == '{"a": 1, "e": {}}'


@pytest.mark.parametrize("empty", [{}, [{}], {"inner": {}}, [{"inner": [{}]}]])
def test_objects_without_fields_are_written_as_text(empty: Any) -> None:
    table = pa.table({"meta": pa.array([empty, None])})
    written = pq.read_table(pa.BufferReader(parquet_bytes(table)))
    assert written.column("meta").to_pylist()[0].startswith(("{", "[")) and written.column("meta")[1].as_py() is None


def test_empty_cells_of_csv_are_no_id_no_seed_and_no_question(tmp_path: Path) -> None:
    csv(tmp_path / "seeds", "id,prompt,seed\na,x,7\n,y,\n,z, \n")
    job = make_job(tmp_path / "seeds", input__columns={"id": "id", "prompt": "prompt", "seed": "seed"})
    run_here(job)
    rows = all_rows(job)
    assert [row["id"] for row in rows] == ["a", None, None] and rejections(job) == []
    seeds = [row["lineage"]["seed"] for row in rows]
    assert seeds[0] == 7 and len(set(seeds)) == 3
    csv(tmp_path / "ask", "image,question\nx.png,What colour?\nx.png,\n")
    (tmp_path / "ask" / "manifest" / "x.png").write_bytes(png())
    manifest_csv = str(tmp_path / "ask" / "manifest" / "a.csv")
    columns = {"image": "image", "prompt": "question"}
    job = make_job(tmp_path / "ask", "caption", input={"manifest": manifest_csv, "columns": columns})
    run_here(job)
    asked = [row["question"] for row in all_rows(job)]
    assert asked[0] == "What colour?" and len(asked) == 2 and asked[1] == job.params.question


def test_an_empty_prompt_of_csv_and_an_empty_id_of_parquet_are_what_they_were(tmp_path: Path) -> None:
    csv(tmp_path / "csv", "id,prompt\na,\n")
    job = make_job(tmp_path / "csv")
    run_here(job)
    assert rejections(job) == [("EmptyPrompt", "the prompt is empty")]
    manifest(tmp_path / "parquet", id=[""], prompt=["p"])
    job = make_job(tmp_path / "parquet")
    run_here(job)
    (row,) = all_rows(job)
    assert row["id"] == "" and row["lineage"]["seed"] == derive_seed(job.params.seed, "id:", 0)


@pytest.mark.parametrize("seed", ["9" * 5000, "x" * 5000])
def test_a_seed_of_thousands_of_characters_rejects_its_row_in_a_short_sentence(tmp_path: Path, seed: str) -> None:
    manifest(tmp_path, id=["a", "b"], prompt=["p", "q"], seed=[seed, "5"])
    job = make_job(tmp_path, input__columns={"id": "id", "prompt": "prompt", "seed": "seed"})
    run_here(job)
    assert [row["lineage"]["seed"] for row in all_rows(job)] == [5]
    ((kind, message),) = rejections(job)
    assert kind == "WrongType" and len(message) < 300


@pytest.mark.parametrize(
    "lineage",
    [
        pa.array([{"lineage_id": 7}]),
        pa.array([{"other": "x"}]),
        pa.array(["text"]),
        pa.array([None], pa.struct([("lineage_id", pa.string())])),
        pa.StructArray.from_arrays([texts("a"), texts("b")], names=["lineage_id", "lineage_id"]),
    ],
)
def test_a_foreign_lineage_column_names_no_parent(tmp_path: Path, lineage: pa.Array) -> None:
    manifest(tmp_path, image=[png()], lineage=lineage)
    job = make_job(tmp_path, "caption")
    run_here(job)
    assert [row["lineage"]["parent_lineage_id"] for row in all_rows(job)] == [None]


def test_a_picture_with_forged_facts_is_captioned_like_any_other(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0131] = SOFTWARE
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + b'{"lineage_id": "\\ud800"}'
    buffer = BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", exif=exif)
    assert facts_of(buffer.getvalue()) == {"lineage_id": "?"}
    manifest(tmp_path, image=[buffer.getvalue()])
    job = make_job(tmp_path, "caption")
    run_here(job)
    assert len(all_rows(job)) == 1


def test_ids_that_differ_only_in_what_is_not_shown_have_pictures_of_their_own(tmp_path: Path) -> None:
    manifest(tmp_path, id=["https://h/view?n=1", "https://h/view?n=2", "plain"], prompt=["p"] * 3)
    job = make_job(tmp_path)
    run_here(job)
    rows = all_rows(job)
    assert [row["id"] for row in rows] == ["https://h/view", "https://h/view", "plain"]
    assert len({row["lineage"]["seed"] for row in rows}) == 3
    assert rows[2]["lineage"]["seed"] == derive_seed(job.params.seed, "id:plain", 0)


def test_an_id_that_holds_an_address_inside_shows_no_signature(tmp_path: Path) -> None:
    manifest(tmp_path, id=[{"url": f"https://h/x?{SECRET}"}], prompt=["p"])
    job = make_job(tmp_path)
    run_here(job)
    assert "canary" not in str(all_rows(job))


def test_rejected_rows_of_a_unit_are_looked_up_and_not_searched_for(tmp_path: Path) -> None:
    """Each comparison of a place with the unit's list is counted: there are as many as samples, not their square."""

    class Place(tuple):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Place.compared += 1
            return tuple.__eq__(self, other)

        __hash__ = tuple.__hash__

    rows, samples = 50, 8
    write_prompts(tmp_path / "manifest" / "a.parquet", [""] * rows)
    job = make_job(tmp_path, params__samples_per_row=samples, compute__rows_per_unit=rows)
    unit, context = first_unit(job)
    places = tuple(Place((row, sample)) for row in range(rows) for sample in range(samples))
    object.__setattr__(unit, "only", places)
    assert prepare(unit, context).num_rows == rows * samples
    assert Place.compared <= 4 * rows * samples
    run_here(job)
    retry_here(job)
    assert len(all_rows(job, "rejected")) == rows * samples


@pytest.mark.parametrize("how", ["in place", "moved", "relative"])
def test_pictures_in_files_are_a_manifest_for_the_next_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_prompts(tmp_path / "manifest" / "a.parquet", ["p", "q"])
    output = {"uri": "out" if how == "relative" else str(tmp_path / "out"), "images": "files"}
    run_here(make_job(tmp_path, output=output))
    if how == "relative":
        (tmp_path / "elsewhere").mkdir()
        os.chdir(tmp_path / "elsewhere")
    there = tmp_path / "out"
    if how == "moved":
        there = Path(shutil.move(there, tmp_path / "moved"))
    job = make_job(tmp_path / "next", "caption", input__manifest=str(there / "data"))
    run_here(job)
    assert rejections(job) == []
    rows = all_rows(job)
    assert len(rows) == 2 and all(row["lineage"]["parent_lineage_id"] for row in rows)
    assert [row["source"] for row in rows] == [row["image"]["path"] for row in _stored(there)]


def test_only_beside_an_output_of_ours_may_pictures_lie_above_their_manifest(tmp_path: Path) -> None:
    for name, run in (("stranger", None), ("damaged", "{")):
        (tmp_path / name / "data").mkdir(parents=True)
        (tmp_path / name / "x.png").write_bytes(png())
        if run is not None:
            (tmp_path / name / "_unipic").mkdir()
            (tmp_path / name / "_unipic" / "run.json").write_text(run)
        pq.write_table(pa.table({"image": [str(tmp_path / name / "x.png")]}), tmp_path / name / "data" / "a.parquet")
        job = make_job(tmp_path / name / "next", "caption", input__manifest=str(tmp_path / name / "data"))
        run_here(job)
        assert [kind for kind, _ in rejections(job)] == ["ForbiddenSource"]


def _stored(output: Path) -> list[dict[str, Any]]:
    parts = sorted((output / "data").iterdir())
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def test_a_rejected_row_says_what_to_do_about_it(tmp_path: Path) -> None:
    manifest(tmp_path, image=["http://example.com/x.png", "/etc/passwd"])
    job = make_job(tmp_path, "caption")
    run_here(job)
    (_, of_http), (_, of_place) = rejections(job)
    assert of_http.endswith("Or set input.allow_http.") and "input.allow_outside_root" in of_place
