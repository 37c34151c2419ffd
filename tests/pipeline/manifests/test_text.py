"""Promises about manifests in JSON, JSONL and CSV."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from tests.fakes import all_rows, make_job
from tests.inprocess import run_here
from unipic.pipeline.errors import ManifestError
from unipic.pipeline.job import Input
from unipic.pipeline.manifests import json_rows
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
    monkeypatch.setattr(json_rows, "CHUNK_ROWS", 1)
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
        ("m.csv", 'a,b\n1,"2\n3,4\n', "ends inside double quotes that open in its last row, number 1"),
        ("m.csv", 'a\n"2""\n3\n', "ends inside double quotes that open in its last row, number 1"),
        ("m.csv", "key;text\n1;a, b\n", "line 2 has 2 cells, but the first line names 1 column.*separated by commas"),
    ],
)
def test_a_faulty_text_manifest_is_refused_with_its_place(tmp_path: Path, name: str, text: str, fault: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ManifestError, match=fault) as caught:
        found(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize("cell", ["\n", '"', "", "x", '"\n', "\n\n", '",'])
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_a_quoted_cell_at_the_end_of_a_csv_file_is_read_as_written(tmp_path: Path, cell: str, end: str) -> None:
    escaped = cell.replace('"', '""')
    (tmp_path / "m.csv").write_text(f'a,b\n1,"{escaped}"{end}', newline="")
    assert rows_of(tmp_path / "m.csv", "a", "b") == [{"a": "1", "b": cell}]


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
    monkeypatch.setattr(json_rows, "CHUNK_ROWS", 1)
    first, second = {"n": 2**60 + 1, "m": {"score": 1}, "k": {"a": 1}}, {"n": 0.5, "m": {"score": "?"}, "k": {"b": "x"}}
    write_lines(tmp_path / "a.jsonl", first, second, {})
    assert rows_in(tmp_path / "a.jsonl") == [
        {"n": "1152921504606846977", "m": '{"score": 1}', "k": {"a": 1, "b": None}},
        {"n": "0.5", "m": '{"score": "?"}', "k": {"a": None, "b": "x"}},
        {"n": None, "m": None, "k": None},
    ]


LINES = "a red square\n\n  \r\na \u2028 blue circle\r\n=cmd()\n"


def packed(path: Path, data: bytes) -> Path:
    """`data` there, compressed as the name says."""
    if path.suffix == ".gz":
        data = gzip.compress(data[:10]) + gzip.compress(data[10:])  # two members, as parallel compressors write
    if path.suffix == ".zst":
        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.txt", LINES),
        ("m.jsonl", '"a red square"\n{"prompt": "a \u2028 blue circle"}\n"=cmd()"'),
        ("m.json", '["a red square", "a \u2028 blue circle", "=cmd()"]'),
        ("m.csv", "prompt,x\na red square,1\na \u2028 blue circle,2\n=cmd(),3\n"),
        ("m.tsv", 'prompt\tx\na red square\t1\n"a \u2028 blue circle"\t"a\tb"\n=cmd()\t3\n'),
    ],
)
def test_every_kind_of_text_is_a_manifest_compressed_or_not(
    tmp_path: Path, name: str, text: str, compression: str
) -> None:
    path = packed(tmp_path / f"{name}{compression}", text.encode())
    expected = ["a red square", "a \u2028 blue circle", "=cmd()"]
    for address in (path, tmp_path / f"*{name[1:]}{compression}"):
        assert [row["prompt"] for row in rows_of(address)] == expected
    if not name.endswith(".txt"):
        assert [row["prompt"] for row in rows_of(tmp_path)] == expected
    path.rename(tmp_path / "rows")  # its first bytes say how it is compressed
    assert [row["prompt"] for row in rows_of(tmp_path / "rows", format=name[2:])] == expected


def test_texts_beside_the_images_of_a_folder_are_no_manifest(tmp_path: Path) -> None:
    for at in range(2):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{at}.png")
        (tmp_path / f"{at}.txt").write_text("its caption")
    manifest = found(tmp_path)
    assert manifest.rows == 2 and manifest.listing is not None
    assert manifest.left_out == ("left out as no images by name: 2 files (2 .txt): 0.txt, 1.txt",)


@pytest.mark.parametrize("compression", ["gz", "zst"])
@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_damaged_compressed_manifest_is_refused_by_name(tmp_path: Path, compression: str, damage: str) -> None:
    path = packed(tmp_path / f"m.jsonl.{compression}", b'"a"\n' * 1000)
    data = path.read_bytes()
    path.write_bytes(data[:-3] if damage == "cut" else data[:8] + b"\xff" * (len(data) - 8))
    with pytest.raises(ManifestError, match=rf"m\.jsonl\.{compression} cannot be decompressed: it is damaged or ends"):
        found(path)


@pytest.mark.parametrize("compression", ["gz", "zst"])
def test_a_compression_bomb_is_refused_at_the_limit_on_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    monkeypatch.setattr(text_manifests, "MAX_BYTES", 10_000)
    path = packed(tmp_path / f"m.txt.{compression}", b"x" * 10_001)
    assert path.stat().st_size < 200
    with pytest.raises(ManifestError, match=rf"m\.txt\.{compression} is too large to be read whole"):
        found(path)


def test_a_job_over_compressed_lines_is_done_and_resumed(tmp_path: Path) -> None:
    (tmp_path / "manifest").mkdir()
    packed(tmp_path / "manifest" / "m.txt.gz", "".join(f"prompt {at}\n" for at in range(20)).encode())
    job = make_job(
        tmp_path, input__manifest=f"{tmp_path}/manifest/*.txt.gz", input__columns={}, compute__rows_per_unit=8
    )
    assert [run_here(job), run_here(job)] == [3, 0]
    assert [row["prompt"] for row in all_rows(job)] == [f"prompt {at}" for at in range(20)]
