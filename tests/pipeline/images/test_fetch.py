"""Where images may come from, and what is said of those that may not."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fakes import all_rows, make_job, write_prompts
from tests.inprocess import run_here
from tests.pipeline.images.samples import LIMITS, refused
from tests.tables import grey_png, rejections
from unipic.pipeline.errors import AccessDenied, RowError, StorageUnavailable
from unipic.pipeline.images.decode import ImageLimits
from unipic.pipeline.images.fetch import fetch
from unipic.pipeline.storage.errors import from_request
from unipic.pipeline.storage.storage import Storage


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
        (tmp_path / name / "x.png").write_bytes(grey_png())
        if run is not None:
            (tmp_path / name / "_unipic").mkdir()
            (tmp_path / name / "_unipic" / "run.json").write_text(run)
        pq.write_table(pa.table({"image": [str(tmp_path / name / "x.png")]}), tmp_path / name / "data" / "a.parquet")
        job = make_job(tmp_path / f"{name}-next", "caption", input__manifest=str(tmp_path / name / "data"))
        run_here(job)
        assert [kind for kind, _ in rejections(job)] == ["ForbiddenSource"]


def _stored(output: Path) -> list[dict[str, Any]]:
    parts = sorted((output / "data").iterdir())
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def get(value: object, root: str, *, limits: ImageLimits = LIMITS, allow_outside_root: bool = False) -> Any:
    return fetch(value, root=root, storage=Storage(), limits=limits, allow_outside_root=allow_outside_root)


def fault(value: object, root: str, **how: Any) -> RowError:
    with pytest.raises(RowError, match=r".+") as caught:
        get(value, root, **how)
    return caught.value


def test_pictures_come_from_paths_bytes_and_structs(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a b.png").write_bytes(b"data")
    for value in ("sub/a b.png", f"{tmp_path}/sub/a b.png", {"bytes": None, "path": "sub/../sub/a b.png"}):
        assert get(value, str(tmp_path)).data == b"data"
    assert get("sub/a b.png", str(tmp_path)).source == "sub/a b.png"
    assert get(b"raw", "").source == ""
    both = get({"bytes": b"raw", "path": "x.png"}, "")
    assert (both.data, both.source) == (b"raw", "x.png")
    assert both.sha256 == hashlib.sha256(b"raw").hexdigest()


@pytest.mark.parametrize("value", [None, "", {"bytes": None, "path": None}, {}])
def test_a_row_without_a_picture_is_rejected(value: object) -> None:
    assert fault(value, "/tmp").kind == "MissingPicture"


@pytest.mark.parametrize("value", [3, 1.5, ["x"], {"path": 3, "bytes": None}, {"bytes": "text"}])
def test_a_cell_of_another_type_is_rejected(value: object) -> None:
    assert fault(value, "/tmp").kind == "WrongType"


def test_a_path_to_nothing_a_folder_or_a_pipe_is_a_missing_picture(tmp_path: Path) -> None:

    os.mkfifo(tmp_path / "pipe")
    for value in ("none.png", ".", "pipe", "none/none.png"):
        assert fault(value, str(tmp_path)).kind == "MissingPicture"


@pytest.mark.parametrize(
    "value",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://example.org/x.png",
        "http://[::ffff:169.254.169.254]/",
        "http://[::1]/",
        "http://2130706433/",
        "HTTP://0x7f.1/",
        "http:/one-slash",
        "file:///etc/passwd",
        "file:x.png",
        "ftp://example.org/x.png",
        "data:image/png;base64,AAAA",
        "gopher://example.org/x",
        "s3://user:canary@bucket/x.png",
        "s3://bucket/a/../../other/x.png",
        "/etc/passwd",
        "../secret.png",
        "a/../../secret.png",
        "//etc/passwd",
        "a\0b.png",
    ],
)
def test_forbidden_sources_are_rejected_without_a_connection(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*args: object) -> None:
        raise AssertionError("a connection was made")

    monkeypatch.setattr("socket.socket.connect", no_network)
    error = fault(value, str(tmp_path))
    assert error.kind == "ForbiddenSource"
    assert "canary" not in str(error)


def test_a_symlink_out_of_the_root_is_forbidden_unless_the_job_allows_it(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside.png").write_bytes(b"x")
    (tmp_path / "root/link.png").symlink_to(tmp_path / "outside.png")
    root = str(tmp_path / "root")
    for value in ("link.png", "../outside.png", f"{tmp_path}/outside.png"):
        assert fault(value, root).kind == "ForbiddenSource"
        assert get(value, root, allow_outside_root=True).data == b"x"
    (tmp_path / "root-too.png").write_bytes(b"x")
    assert fault("../root-too.png", root).kind == "ForbiddenSource"


def test_a_relative_path_on_s3_starts_from_its_root_and_stays_there() -> None:
    class Reads:
        def read(self, uri: str, *, max_bytes: int) -> bytes:
            return uri.encode()

    def got(value: str) -> bytes:
        return fetch(
            value,
            root="s3://b/root",
            storage=Reads(),
            limits=LIMITS,
            allow_outside_root=False,  # type: ignore[arg-type]
        ).data

    assert got("a/./x.png") == b"s3://b/root/a/x.png"
    assert got("s3://other/x.png") == b"s3://other/x.png"
    for value in ("../x.png", "a/../../x.png", "/etc/passwd"):
        with pytest.raises(RowError, match="leads outside s3://b/root"):
            got(value)


def test_a_signed_address_leaves_no_secret(tmp_path: Path) -> None:
    signed = "https://bucket.example.org/x.png?X-Amz-Signature=canary"
    assert "canary" not in str(fault(signed, str(tmp_path)))
    assert get({"bytes": b"x", "path": signed}, "").source == "https://bucket.example.org/x.png"


def test_a_picture_of_too_many_bytes_is_rejected_without_reading_it(tmp_path: Path) -> None:
    (tmp_path / "big.png").write_bytes(b"x" * 101)
    limits = ImageLimits(max_px=100, max_bytes=100)
    for value in ("big.png", b"x" * 101):
        error = fault(value, str(tmp_path), limits=limits)
        assert error.kind == "PictureTooLarge"
        assert "101 bytes" in error.message
    assert refused(b"x" * 101, limits).kind == "PictureTooLarge"


def test_faults_of_the_store_are_not_the_rows() -> None:
    from botocore.exceptions import ClientError

    def store(code: str, status: int) -> Any:
        answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}

        class Fails:
            def read(self, uri: str, *, max_bytes: int) -> bytes:
                error = from_request(ClientError(answer, "GetObject"), uri)
                assert error is not None
                raise error

        return Fails()

    def ask(code: str, status: int) -> None:
        fetch("s3://b/x", root="", storage=store(code, status), limits=LIMITS, allow_outside_root=False)

    with pytest.raises(StorageUnavailable, match="SlowDown"):
        ask("SlowDown", 503)
    with pytest.raises(AccessDenied, match="ExpiredToken"):
        ask("ExpiredToken", 400)
    for code, status, kind in (("NoSuchKey", 404, "MissingPicture"), ("AccessDenied", 403, "AccessDenied")):
        with pytest.raises(RowError, match="s3://b/x") as caught:
            ask(code, status)
        assert caught.value.kind == kind
