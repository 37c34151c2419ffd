"""No signature and no secret reaches an output, and text that is no address stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.fakes import FakeEngine, all_rows, make_job, part_bytes, write_prompts
from tests.inprocess import run_here
from tests.tables import rejections, write_csv
from unipic.pipeline.errors import is_address, redact, redact_url
from unipic.pipeline.stages.redaction import bytes_without_secrets, without_signatures

SECRET = "X-Amz-Signature=canary"


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


HOSTILE = ["?" * 300_000, "//" + " ?" * 100_000, "https://h " + "a." * 100_000, "?&" * 150_000]
HOSTILE += [mark * 60_000 for mark in ("a://", "https://", "a://b?", "&sig=", "?token_", "://")]


@pytest.mark.parametrize("cell", HOSTILE, ids=lambda cell: cell[:8])
def test_redacting_a_hostile_cell_takes_time_in_proportion_to_its_length(cell: str) -> None:
    redact_url(cell)
    redact(cell)
    bytes_without_secrets(cell.encode() + b"\xff")
    assert is_address(cell) is not cell.startswith(("?", "&", ":"))


@pytest.mark.parametrize("outside", [False, True])
def test_no_signature_of_a_picture_cell_reaches_the_output(tmp_path: Path, outside: bool) -> None:
    cells = [" https://h.example/x.png", "//h.example/x.png", f"file://{tmp_path}/x.png", "https:/h/x.png", "h/x.png"]
    write_csv(tmp_path, "id,image\n" + "".join(f'{at},"{cell}?{SECRET}"\n' for at, cell in enumerate(cells)))
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


def test_secrets_of_the_environment_are_nowhere_in_an_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "canary-4d1f0b77"
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN"):
        monkeypatch.setenv(name, canary)
    signed = f"https://b.s3.example/x.png?X-Amz-Signature={canary}"
    write_prompts(tmp_path / "manifest" / "a.parquet", ["p", "q"], image=[signed, f"s3://u:{canary}@b/x.png"])
    job = make_job(tmp_path, "edit", input__columns={"prompt": "prompt", "image": "image"})
    run_here(job)
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            assert canary.encode() not in path.read_bytes(), path
    rows = all_rows(job, "rejected")
    assert [row["rejection"]["kind"] for row in rows] == ["ForbiddenSource"] * 2
    assert canary not in str(rows) and rows[0]["image"] == "https://b.s3.example/x.png"


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("see https://user:canary@h.example/x.png for more", "see https://h.example/x.png for more"),
        ("postgres://me:canary@db/x, then s3://k:canary@b/y", "postgres://db/x, then s3://b/y"),
        (f"two: https://h/x?{SECRET} and https://h/y?a=1&{SECRET}", "two: https://h/x and https://h/y"),
        ("see h/x?sv=2024&sig=canary now", "see h/x now"),
        ("see h/x?access_token=canary now", "see h/x now"),
        ("mail me at me@h.example, or ask: what? a=b", "mail me at me@h.example, or ask: what? a=b"),
    ],
)
def test_no_longer_text_and_no_bytes_that_are_text_keep_a_secret(cell: str, shown: str) -> None:
    assert redact_url(cell) == shown
    kinds = (pa.string(), pa.large_string())
    assert [without_signatures(pa.chunked_array([pa.array([cell], kind)]))[0].as_py() for kind in kinds] == [shown] * 2


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.struct([("bytes", pa.binary())])], ids=str)
def test_secrets_in_bytes_are_removed_and_images_keep_their_length(kind: pa.DataType) -> None:
    noise = bytes(range(128, 256)) * 40
    plain = b"https://user:canary@h/x.png and s3://b/k?X-Amz-Credential=a&X-Amz-Signature=canary-0"
    inside = noise + b"\0https://user:canary@h/x.png\0" + noise + b"?a=1&X-Amz-Signature=canary-0\0" + noise
    cells = [plain, inside, noise, b"http://ns.adobe.com/xap/1.0/", None]
    wrapped = [{"bytes": cell} for cell in cells] if pa.types.is_struct(kind) else cells
    found = without_signatures(pa.chunked_array([pa.array(wrapped, kind)])).to_pylist()
    got = [cell["bytes"] for cell in found] if pa.types.is_struct(kind) else found
    assert got[0] == b"https://h/x.png and s3://b/k"
    assert got[1] == inside.replace(b"user:canary", b"x" * 11).replace(b"canary-0", b"x" * 8)
    assert got[2:] == cells[2:]


def test_images_in_a_kept_column_are_neither_copied_nor_changed() -> None:
    images = pa.chunked_array([pa.array([np.random.default_rng(7).bytes(10**6) + b"://" for _ in range(8)])])
    kept = without_signatures(images)
    assert kept.equals(images)
    assert kept.chunk(0).buffers()[2].address == images.chunk(0).buffers()[2].address
