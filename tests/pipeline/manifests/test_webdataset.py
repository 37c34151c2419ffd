"""WebDataset shards are manifests for whoever says so: samples are rows, and nothing but images and text is read."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from tests.fakes import all_rows, make_job, part_bytes
from tests.inprocess import run_here
from tests.servers import S3Server
from unipic.jobs.spec.draft import Wishes, draft
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.errors import ManifestError
from unipic.pipeline.job import Input, Job
from unipic.pipeline.manifests import webdataset
from unipic.pipeline.manifests.discovery import discover
from unipic.pipeline.manifests.ids import IdCount, count_ids
from unipic.pipeline.manifests.manifest import units
from unipic.pipeline.manifests.reading import read_rows, read_unit
from unipic.pipeline.plan import plan
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage

STORAGE = Storage()
LINKS = {"link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "device": tarfile.CHRTYPE, "pipe": tarfile.FIFOTYPE}


def image(colour: int = 0, image_format: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (colour, 0, 0)).save(data, image_format)
    return data.getvalue()


def shard(path: Path, *members: tuple[str, bytes], how: str = "w", **links: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, how) as tar:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, kind in links.items():
            info = tarfile.TarInfo(f"{name}.png")
            info.type, info.linkname = LINKS[kind], "/etc/passwd"
            tar.addfile(info)
    return path


def samples(path: Path, count: int = 10, first: int = 0) -> Path:
    members = []
    for at in range(first, first + count):
        members += [(f"dir.v1/{at:04d}.jpg", image(at * 9, "JPEG")), (f"dir.v1/{at:04d}.txt", f"text {at}".encode())]
        members += [(f"dir.v1/{at:04d}.json", json.dumps({"n": at}).encode()), (f"dir.v1/{at:04d}.cls", b"7")]
    return shard(path, *members)


def job_of(root: Path, task: str = "edit", **changes: Any) -> Job:
    columns = {"id": "id", "image": "image", "prompt": "txt"}
    how = {"input__format": "webdataset", "input__columns": columns, "compute__rows_per_unit": 4}
    return make_job(root, task, **{**how, **changes})


def rows_of(path: Path) -> list[dict[str, Any]]:
    manifest = discover(Input(manifest=str(path), format="webdataset"), STORAGE)
    return [row for unit in units(manifest, 3) for row in read_unit(unit, manifest.columns, STORAGE).to_pylist()]


@pytest.mark.parametrize("task", ["edit", "caption"])
def test_samples_of_shards_are_edited_and_captioned_and_the_run_resumed_to_the_same_bytes(
    tmp_path: Path, task: str
) -> None:
    samples(tmp_path / "manifest" / "s-0.tar")
    samples(tmp_path / "manifest" / "s-1.tar", first=10)
    job = job_of(tmp_path, task, input__keep=["json"])
    whole = job_of(tmp_path, task, input__keep=["json"], output__uri=str(tmp_path / "whole"))
    assert plan(job, STORAGE).rows == 20
    assert run_here(job, only=["s-0.tar"]) == 3
    assert [run_here(job), run_here(job), run_here(whole)] == [3, 0, 6]
    assert part_bytes(job) == part_bytes(whole)
    rows = all_rows(job)
    assert sorted(row["id"] for row in rows) == [f"dir.v1/{at:04d}" for at in range(20)]
    assert {row["source"] for row in rows} == {f"dir.v1/{at:04d}.jpg" for at in range(20)}
    assert sorted(row["json"] for row in rows) == sorted(json.dumps({"n": at}) for at in range(20))
    assert all_rows(job, "rejected") == []
    assert verify(job.output.uri, STORAGE).ok
    assert count_ids(discover(job.input, STORAGE), "id", STORAGE) == IdCount(20, repeated=0, null=0, complete=True)


@pytest.mark.parametrize("server", ["rclone", "moto"])
def test_shards_on_s3_are_read(server: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    s3: S3Server = request.getfixturevalue(server)
    storage, root = Storage(StorageOptions(endpoint_url=s3.endpoint_url)), s3.bucket()
    storage.write(f"{root}/w/s.tar", samples(tmp_path / "s.tar").read_bytes())
    manifest = discover(Input(manifest=f"{root}/w", format="webdataset"), storage)
    rows = [row for unit in units(manifest, 4) for row in read_unit(unit, ["id", "txt"], storage).to_pylist()]
    assert rows == [{"id": f"dir.v1/{at:04d}", "txt": f"text {at}"} for at in range(10)]


def test_a_sample_takes_its_first_image_and_its_texts_and_its_key_ends_at_the_first_dot(tmp_path: Path) -> None:
    a, b = image(1), image(2)
    path = shard(
        tmp_path / "s.tar", ("x.txt", b"\xef\xbb\xbft"), ("x.seg.png", a), ("x.png", b), ("y.cls", b"1"), ("z", b"")
    )
    assert rows_of(path) == [
        {"id": "x", "image": {"bytes": a, "path": "x.seg.png"}, "txt": "t", "json": None},
        {"id": "y", "image": None, "txt": None, "json": None},
    ]


def test_links_devices_and_pickles_are_never_read_and_nothing_is_extracted(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "touched",)

    trap = pickle.dumps(Trap())
    members = [("../escaped.png", image()), (f"{tmp_path}/absolute.png", image()), ("w.pkl", trap), ("v.pt", trap)]
    shard(tmp_path / "manifest" / "s.tar", *members, a="link", b="hard", c="device", d="pipe")
    before = {path for path in tmp_path.rglob("*")}
    job = job_of(tmp_path, "caption", input__columns={"id": "id", "image": "image"}, output__uri=str(tmp_path / "out"))
    run_here(job)
    assert sorted(row["id"] for row in all_rows(job)) == ["../escaped", f"{tmp_path}/absolute"]
    assert {row["rejection"]["kind"] for row in all_rows(job, "rejected")} == {"MissingPicture"}
    assert len(all_rows(job, "rejected")) == 6, "each sample without an image is a rejected row"
    made = {path.relative_to(tmp_path).parts[0] for path in set(tmp_path.rglob("*")) - before}
    assert made <= {"out", "checkpoint"}


def test_members_that_are_too_large_or_no_text_cost_their_own_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webdataset, "TEXT_MAX_BYTES", 100)
    monkeypatch.setattr(webdataset, "IMAGE_MAX_BYTES", 10_000)
    good = [("a.png", image()), ("a.txt", b"p")]
    bad = [("b.png", image()), ("b.txt", b"x" * 101), ("c.png", b"x" * 10_001), ("d.png", image()), ("d.txt", b"\xff")]
    shard(tmp_path / "manifest" / "s.tar", *good, *bad, ("e.png", image()), ("e.txt", b"q"))
    job = job_of(tmp_path)
    run_here(job)
    assert [row["id"] for row in all_rows(job)] == ["a", "e"]
    rejected = {row["id"]: row["rejection"] for row in all_rows(job, "rejected")}
    assert {one["kind"] for one in rejected.values()} == {"UnreadableRow"}
    assert "its txt has 101 bytes" in rejected["b"]["message"] and "not UTF-8" in rejected["d"]["message"]
    assert "its image has 10,001 bytes" in rejected["c"]["message"]


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda data: data[:3000], "it ends inside|ends too early|unexpected end"),
        (lambda data: data[: 5 * 1536], "it has no end mark, so it may have been cut off between two members"),
        (lambda data: data[: 2 * 1536], "it has no end mark"),
        (lambda data: data[:1536] + b"\x01" * 512 + data[2048:], "its header at byte 1,536 is damaged"),
        (lambda data: data + data, "more follows its end at byte 7,680, as in tars that were joined by `cat`"),
        (lambda data: b"no tar" * 1000, "invalid header|truncated header"),
        (lambda data: b"", "empty file"),
    ],
)
def test_a_damaged_or_cut_shard_is_refused_by_name(tmp_path: Path, damage: Any, why: str) -> None:
    path = shard(tmp_path / "s.tar", *((f"{at}.png", b"x" * 700) for at in range(5)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ManifestError, match=rf"s\.tar is not a readable tar: .*({why})"):
        rows_of(path)


def test_headers_that_would_send_a_reader_in_circles_are_refused(tmp_path: Path) -> None:
    """Such as a negative size, which leads back to members already read, and thousands of nested headers."""
    path = shard(tmp_path / "s.tar", ("x.png", b"x"))
    back = tarfile.TarInfo("y.png")
    header = bytearray(back.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 8 + (-512 & 0xFFFFFFFF).to_bytes(4, "big")  # base 256, as GNU tar writes large sizes
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    path.write_bytes(path.read_bytes()[:1024] + bytes(header) + bytes(1024))
    with pytest.raises(ManifestError, match=r"not a readable tar: .*(negative size|invalid header|its header)"):
        rows_of(path)
    nested = tarfile.TarInfo("././@PaxHeader")
    nested.type, nested.size = tarfile.XHDTYPE, 0
    path.write_bytes(nested.tobuf(tarfile.GNU_FORMAT) * 5000)
    with pytest.raises(ManifestError, match="not a readable tar: its headers are nested too deeply"):
        rows_of(path)


def test_names_that_are_no_text_are_written_as_escapes(tmp_path: Path) -> None:
    path = shard(tmp_path / "s.tar", ("caf\udce9.png", image()))
    assert [(row["id"], row["image"]["path"]) for row in rows_of(path)] == [("caf\\xe9", "caf\\xe9.png")]


def test_a_unit_of_images_beyond_what_one_array_holds_is_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = samples(tmp_path / "s.tar")
    whole = rows_of(path)
    monkeypatch.setattr(webdataset, "CHUNK_BYTES", 100)
    monkeypatch.setattr(webdataset, "CHUNK_ROWS", 3)
    assert rows_of(path) == whole


def test_a_header_that_claims_a_gigabyte_of_name_is_refused_unread(tmp_path: Path) -> None:
    path = shard(tmp_path / "s.tar", ("x.png", b"x"), how="w")
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**30
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + path.read_bytes())
    with pytest.raises(ManifestError, match=r"s\.tar is not a readable tar: one of its headers claims 1,073,741"):
        rows_of(path)


def test_init_writes_a_job_for_a_shard(tmp_path: Path) -> None:
    path = samples(tmp_path / "shards" / "s.tar")
    for manifest in (path, path.parent):
        values = yaml.safe_load(draft(Wishes(manifest=str(manifest), task="edit")))
        assert (values["input"]["format"], values["input"]["manifest"]) == ("webdataset", str(manifest))
    assert values["input"] == {
        "manifest": str(path.parent),
        "format": "webdataset",
        "columns": {"id": "id", "image": "image", "prompt": "txt"},
    }


def test_a_compressed_shard_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = shard(tmp_path / "s.tar", ("x.png", image()), how="w:gz")
    with pytest.raises(ManifestError, match="without compression"):
        rows_of(path)


def test_a_tar_is_opened_only_where_the_job_says_that_it_is_a_shard(tmp_path: Path) -> None:
    path = samples(tmp_path / "s.tar")
    with pytest.raises(ManifestError, match=r"which is never opened.*input\.format: webdataset"):
        discover(Input(manifest=str(path)), STORAGE)


def test_a_shard_that_lost_bytes_since_it_was_planned_is_no_other_rows(tmp_path: Path) -> None:
    path = samples(tmp_path / "s.tar")
    manifest = discover(Input(manifest=str(path), format="webdataset"), STORAGE)
    (unit,) = units(manifest, 10)
    samples(path, count=5)
    with pytest.raises(ManifestError, match="changed since the run was planned"):
        read_rows(unit, ["id"], STORAGE)
