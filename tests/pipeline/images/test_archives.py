"""Archives and pickles are refused by name or by first bytes: none is opened, unpacked or run."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes import all_rows, make_job, write_prompts
from tests.inprocess import run_here
from unipic.pipeline.errors import EmptyManifest, ManifestError
from unipic.pipeline.images.archives import archive_kind, archive_start
from unipic.pipeline.manifests.discovery import discover
from unipic.pipeline.storage.storage import Storage

PNG = b"\x89PNG\r\n\x1a\n"


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.touched,)


def tricks(folder: Path) -> bytes:
    """A tar with every member that leads elsewhere, and a pickle."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, link in [
            ("../escaped.png", tarfile.REGTYPE, ""),
            (f"{folder}/absolute.png", tarfile.REGTYPE, ""),
            ("link.png", tarfile.SYMTYPE, "/etc/passwd"),
            ("hard.png", tarfile.LNKTYPE, "../../etc/passwd"),
            ("device", tarfile.CHRTYPE, ""),
            ("weights.pt", tarfile.REGTYPE, ""),
        ]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            data = pickle.dumps(Trap(folder / "touched")) if name.endswith(".pt") else PNG
            member.size = len(data) if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def hostile(folder: Path, name: str) -> bytes:
    if "tar" in name or name.endswith(".tgz"):
        return tricks(folder)
    data = pickle.dumps(Trap(folder / "touched"))
    if not name.endswith(".zip"):
        return data
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("../data.pkl", data)
    return buffer.getvalue()


NAMES = ["shard-00.tar", "Shard.TAR.GZ", "shard.tgz", "rows.pkl", "rows.pickle", "rows.pt", "rows.pth", "rows.zip"]


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_that_is_an_archive_or_a_pickle_is_refused_by_name_and_never_opened(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(hostile(tmp_path, name))
    before = files(tmp_path)
    for manifest in (f"{tmp_path}/in/{name}", f"{tmp_path}/in", f"{tmp_path}/in/*"):
        job = make_job(tmp_path / "job", input__manifest=manifest)
        with pytest.raises(ManifestError, match=rf"{name} is an? .* which is never opened\. Unpack it") as caught:
            discover(job.input, Storage())
        assert not isinstance(caught.value, EmptyManifest), "--allow-empty must not let it pass"
    assert {name: data for name, data in files(tmp_path).items() if not name.startswith("job")} == before


@pytest.mark.parametrize("declared", ["parquet", "json", "jsonl", "csv"])
def test_a_pickle_declared_to_be_a_manifest_is_read_as_that_and_refused(declared: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.pkl"
    path.write_bytes(pickle.dumps(Trap(tmp_path / "touched")))
    job = make_job(tmp_path / "job", input__manifest=str(path), input__format=declared)
    with pytest.raises(ManifestError, match=r"rows\.pkl"):
        discover(job.input, Storage())
    assert not (tmp_path / "touched").exists()


def test_archives_and_pickles_as_pictures_are_those_rows_and_nothing_is_unpacked_or_run(tmp_path: Path) -> None:
    pictures = tmp_path / "manifest" / "pictures"
    pictures.mkdir(parents=True)
    named = [*NAMES, *(f"{name}.png" for name in NAMES)]
    for name in named:
        (pictures / name).write_bytes(hostile(tmp_path, name.removesuffix(".png")))
    paths = [f"pictures/{name}" for name in named]
    write_prompts(tmp_path / "manifest" / "a.parquet", ["p"] * len(paths), image=paths)
    before = files(pictures)
    job = make_job(tmp_path, "edit", input__columns={"prompt": "prompt", "image": "image"})
    run_here(job)
    assert all_rows(job) == []
    rejections = [row["rejection"] for row in all_rows(job, "rejected")]
    assert [one["kind"] for one in rejections] == ["ForbiddenSource"] * len(NAMES) + ["UnreadablePicture"] * len(NAMES)
    assert all(
        "archive" in one["message"] or "pickle" in one["message"] or "code" in one["message"] for one in rejections
    )
    assert files(pictures) == before and not (tmp_path / "touched").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"manifest", "checkpoint", "out"}


def test_a_file_that_is_no_manifest_by_its_name_is_not_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "prompts.doc").write_text("a red square")
    job = make_job(tmp_path / "job", input__manifest=str(tmp_path / "prompts.doc"))
    with pytest.raises(ManifestError, match=r"prompts\.doc is no manifest by its name.*input\.format") as caught:
        discover(job.input, Storage())
    assert not isinstance(caught.value, EmptyManifest)


def test_pictures_and_manifests_are_no_archives() -> None:
    assert not any(archive_kind(name) for name in ("a.png", "a.parquet", "a.tar/x.jpg", "tar", "guitar"))
    assert archive_start(PNG) == archive_start(b"") == ""
