"""Promises about manifests in JSON, JSONL and CSV."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.fakes import all_rows, make_job
from tests.inprocess import run_here
from unipic.pipeline.errors import ManifestError
from unipic.pipeline.job import Input
from unipic.pipeline.manifests import text as text_manifests
from unipic.pipeline.manifests.discovery import discover
from unipic.pipeline.manifests.manifest import Manifest, units
from unipic.pipeline.manifests.reading import read_unit
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()


def found(path: Path, **how: Any) -> Manifest:
    return discover(Input(manifest=str(path), **how), STORAGE)


def rows_of(path: Path, *columns: str, **how: Any) -> list[dict[str, Any]]:
    manifest = found(path, **how)
    wanted = columns or manifest.schema.names
    return [row for unit in units(manifest, 2) for row in read_unit(unit, wanted, STORAGE).to_pylist()]


def test_a_json_list_of_objects_or_of_texts_is_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"prompt": "a cat", "seed": 3}, {"prompt": None}, {"x": 1.5}]))
    assert rows_of(tmp_path / "a.json", "prompt", "seed", "x") == [
        {"prompt": "a cat", "seed": 3, "x": None},
        {"prompt": None, "seed": None, "x": None},
        {"prompt": None, "seed": None, "x": 1.5},
    ]
    (tmp_path / "b.json").write_text('\ufeff["a cat", "a dog"]')
    assert rows_of(tmp_path / "b.json") == [{"prompt": "a cat"}, {"prompt": "a dog"}]


def test_jsonl_keeps_odd_line_separators_inside_prompts(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes('{"prompt": "a\u2028b\x85"}\r\n\n"plain"\n{"prompt": "2020-01-01"}'.encode())
    assert rows_of(tmp_path / "m.jsonl") == [{"prompt": "a\u2028b\x85"}, {"prompt": "plain"}, {"prompt": "2020-01-01"}]


def test_a_column_of_mixed_types_is_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ['{"v": 1}', '{"v": "one"}', '{"v": {"a": true}}', '{"v": null}', '{"v": 2}', '{"w": 1}', '{"w": 0.5}']
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    expected = ["1", "one", '{"a": true}', None, "2", None, None]
    assert [row["v"] for row in rows_of(tmp_path / "m.jsonl")] == expected
    monkeypatch.setattr(text_manifests, "CHUNK_ROWS", 1)
    (tmp_path / "n.jsonl").write_text("\n".join(lines))
    assert [row["v"] for row in rows_of(tmp_path / "n.jsonl")] == expected
    assert found(tmp_path / "n.jsonl").schema.field("w").type == pa.float64()


def test_csv_columns_are_text_as_written(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(
        '\ufeffid,prompt,seed\n007,"a ""red"" cat,\nsitting",18446744073709551615\n,=HYPERLINK(1),\n'.encode()
    )
    assert rows_of(tmp_path / "m.csv") == [
        {"id": "007", "prompt": 'a "red" cat,\nsitting', "seed": "18446744073709551615"},
        {"id": "", "prompt": "=HYPERLINK(1)", "seed": ""},
    ]


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("m.json", "{", "is not JSON"),
        ("m.json", '{"prompt": "x"}', "holds a JSON object; a manifest is a list"),
        ("m.json", '["a", 3]', "item 1 is a JSON number"),
        ("m.json", "[" * 100_000, "is not JSON"),
        ("m.json", f"[{'9' * 5000}]", "m.json is not JSON that can be read: a number in it has too many digits"),
        ("m.json", "[1\n2]", "line 2, column 1 is not JSON: a comma is missing there"),
        ("m.jsonl", '{"prompt": "x"}\n{"prompt"', "line 2, column 10 is not JSON: a colon is missing there"),
        ("m.jsonl", "null", "line 1 is a JSON null"),
        ("m.jsonl", '{"prompt": "\\ud800"}', "half a surrogate pair"),
        ("m.csv", "", "is empty"),
        ("m.csv", "a,a\n1,2\n", "several columns called a"),
        ("m.csv", "a,b\n1,2\n\n1,2,3\n", "line 4 has 3 cells, but the first line names 2 columns. A text with a comma"),
        ("m.csv", 'a,b\n"1,2\n', "line 2 has 1 cell, .* a double quote that is never closed"),
        ("m.csv", "key;text\n1;a, b\n", "line 2 has 2 cells, but the first line names 1 column.*separated by commas"),
    ],
)
def test_a_faulty_text_manifest_is_refused_with_its_place(tmp_path: Path, name: str, text: str, fault: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ManifestError, match=fault) as caught:
        found(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["m.json", "m.jsonl", "m.csv"])
@pytest.mark.parametrize("before", ["", "p" * 100_000])
def test_a_text_manifest_that_is_not_utf8_is_refused_with_its_byte_and_line(
    tmp_path: Path, name: str, before: str
) -> None:
    (tmp_path / name).write_bytes(b'"prompt"\n"' + before.encode() + b'caf\xe9"\n')
    with pytest.raises(ManifestError, match=rf"{name} is not UTF-8 text: byte {14 + len(before):,}, in line 2, is not"):
        found(tmp_path / name)


def test_a_text_manifest_too_large_to_read_whole_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_manifests, "MAX_BYTES", 10)
    (tmp_path / "m.csv").write_text("prompt\n" + "x" * 10)
    with pytest.raises(ManifestError, match=r"m\.csv is too large.*Convert it to Parquet"):
        found(tmp_path / "m.csv")


def test_a_format_can_be_given_where_the_name_does_not_say(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text('{"prompt": "x"}')
    assert rows_of(tmp_path / "rows.txt", format="jsonl") == [{"prompt": "x"}]


def test_a_text_manifest_is_read_once_by_its_units(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("prompt\n" + "x\n" * 100)
    reads: list[str] = []

    class Counting(Storage):
        def read(self, uri: str, *, max_bytes: int | None = None) -> bytes:
            reads.append(uri)
            return super().read(uri, max_bytes=max_bytes)

    storage = Counting()
    manifest = discover(Input(manifest=str(tmp_path)), storage)
    assert sum(read_unit(unit, ["prompt"], storage).num_rows for unit in units(manifest, 3)) == 100
    assert len(reads) == 1


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
