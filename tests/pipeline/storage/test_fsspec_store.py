"""Manifests and images are read from stores that fsspec knows, under the same guards; nothing is written there.

The store is a folder that fsspec serves under the scheme: what a real one adds is its own package's matter.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import _registry

from tests.fakes import all_rows, make_job
from tests.inprocess import run_here
from tests.tables import grey_png
from unipic.pipeline.audit.verify import verify
from unipic.pipeline.errors import AccessDenied, JobError, ObjectMissing, StorageError, StorageUnavailable
from unipic.pipeline.images.decode import ImageLimits
from unipic.pipeline.images.fetch import fetch
from unipic.pipeline.job import Job
from unipic.pipeline.plan import plan
from unipic.pipeline.storage.errors import TooManyBytes
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage

BUCKET = "gs://bucket"


class FolderStore(fsspec.AbstractFileSystem):
    """`bucket/key` is a file below `root`; errors in `failures` are raised first, one a request."""

    protocol = ("gs", "hf")
    cachable = False
    root = Path()
    failures: ClassVar[list[Exception]] = []

    def _real(self, path: str) -> str:
        if self.failures:
            raise self.failures.pop(0)
        return str(self.root / self._strip_protocol(path))

    def _named(self, info: dict[str, Any]) -> dict[str, Any]:
        return {**info, "name": str(Path(info["name"]).relative_to(self.root))}

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        return self._named(LocalFileSystem().info(self._real(path)))

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        found = [self._named(one) for one in LocalFileSystem().ls(self._real(path), detail=True)]
        return found if detail else [one["name"] for one in found]

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        return LocalFileSystem().open(self._real(path), mode)


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Path]:
    """The folder that is gs://bucket."""
    FolderStore.root, FolderStore.failures = tmp_path / "store", []
    before = {scheme: _registry.get(scheme) for scheme in ("gs", "hf")}
    for scheme in before:
        fsspec.register_implementation(scheme, FolderStore, clobber=True)
    (FolderStore.root / "bucket").mkdir(parents=True)
    yield FolderStore.root / "bucket"
    for scheme, earlier in before.items():
        _registry.pop(scheme, None)
        if earlier is not None:
            fsspec.register_implementation(scheme, earlier, clobber=True)


def storage() -> Storage:
    return Storage(StorageOptions(backoff_max_s=0.01))


def write(bucket: Path, name: str, data: bytes) -> None:
    (bucket / name).parent.mkdir(parents=True, exist_ok=True)
    (bucket / name).write_bytes(data)


def test_objects_are_read_whole_in_ranges_listed_and_matched(bucket: Path) -> None:
    for name in ("a/2.txt", "a/1.txt", "a/b/3.txt", "top.txt"):
        write(bucket, name, name.encode())
    store: Storage = pickle.loads(pickle.dumps(storage()))
    assert store.read(f"{BUCKET}/a/1.txt") == b"a/1.txt"
    with store.open(f"{BUCKET}/a/b/3.txt") as file:
        file.seek(2)
        assert file.read(3) == b"b/3"
    assert [one.uri for one in store.list(f"{BUCKET}/a")] == [f"{BUCKET}/a/1.txt", f"{BUCKET}/a/2.txt"]
    assert [one.uri for one in store.list(BUCKET, recursive=True, suffix="3.txt")] == [f"{BUCKET}/a/b/3.txt"]
    assert [one.uri for one in store.glob(f"{BUCKET}/a/**/*.txt")] == [
        f"{BUCKET}/a/1.txt",
        f"{BUCKET}/a/2.txt",
        f"{BUCKET}/a/b/3.txt",
    ]
    assert store.exists(f"{BUCKET}/top.txt") and not store.exists(f"{BUCKET}/none") and not store.exists(f"{BUCKET}/a")
    with pytest.raises(TooManyBytes, match="has 7 bytes, more than the 6 allowed"):
        store.read(f"{BUCKET}/a/1.txt", max_bytes=6)


def test_failures_are_told_apart_and_those_that_pass_are_attempted_again(bucket: Path) -> None:
    write(bucket, "x", b"data")
    FolderStore.failures = [ConnectionError("reset"), TimeoutError("slow")]
    assert storage().read(f"{BUCKET}/x") == b"data"
    FolderStore.failures = [ConnectionError("reset")] * 50
    with pytest.raises(
        StorageUnavailable, match=r"gs://bucket/x cannot be read: ConnectionError: reset \(tried 3 times"
    ):
        storage().read(f"{BUCKET}/x")
    FolderStore.failures = [PermissionError("no")]
    with pytest.raises(AccessDenied, match="Access to gs://bucket/x is denied"):
        storage().read(f"{BUCKET}/x")
    FolderStore.failures = []
    with pytest.raises(ObjectMissing, match="nothing at gs://bucket/none"):
        storage().read(f"{BUCKET}/none")


def test_nothing_is_written_there_and_no_job_may_ask_for_it(bucket: Path) -> None:
    for attempt in (storage().write, storage().put_if_absent):
        with pytest.raises(StorageError, match=r"cannot be written: gs:// is only read from.*s3://"):
            attempt(f"{BUCKET}/x", b"data")
    with pytest.raises(ValueError, match=r"must be a local path or an s3:// address, got one that begins with gs://"):
        make_job(bucket, output__uri=f"{BUCKET}/out")


def test_a_missing_package_is_named_with_the_extra_that_brings_it() -> None:
    with pytest.raises(StorageError, match=r"az:// needs a package.*pip install 'unipic-batch\[azure\]'"):
        Storage().read("az://container/x")


def rows_of(job: Job) -> list[str]:
    run_here(job)
    assert verify(job.output.uri, Storage()).problems == []
    return sorted(row["id"] for row in all_rows(job))


@pytest.mark.parametrize("scheme", ["gs", "hf"])
def test_a_manifest_and_its_images_in_such_a_store_are_captioned(bucket: Path, tmp_path: Path, scheme: str) -> None:
    write(bucket, "in/images/1.png", grey_png(1))
    write(bucket, "elsewhere/2.png", grey_png(2))
    place = f"{scheme}://bucket"
    images = ["images/1.png", f"{place}/elsewhere/2.png", "images/none.png", "../elsewhere/2.png", "az://c/x.png"]
    pq.write_table(pa.table({"id": list("abcde"), "image": images}), bucket / "in" / "a.parquet")
    columns = {"id": "id", "image": "image"}
    job = make_job(tmp_path, "caption", input__manifest=f"{place}/in", input__columns=columns, input__format="parquet")
    assert plan(job, Storage()).rows == 5
    assert rows_of(job) == ["a", "b"]
    rejected = {row["id"]: row["rejection"]["kind"] for row in all_rows(job, "rejected")}
    assert rejected == {"c": "MissingPicture", "d": "ForbiddenSource", "e": "ForbiddenSource"}


def test_a_folder_of_images_in_such_a_store_is_a_manifest(bucket: Path, tmp_path: Path) -> None:
    for at in range(3):
        write(bucket, f"photos/{at}.png", grey_png(at))
    job = make_job(tmp_path, "caption", input__manifest=f"{BUCKET}/photos", input__columns={"id": "id"})
    assert rows_of(job) == ["0.png", "1.png", "2.png"]


def test_a_manifest_that_changed_since_it_was_planned_is_refused(bucket: Path, tmp_path: Path) -> None:
    write(bucket, "in/a.jsonl", b'{"prompt": "a"}\n')
    job = make_job(tmp_path, input__manifest=f"{BUCKET}/in", input__columns={"prompt": "prompt"})
    run_here(job)
    write(bucket, "in/a.jsonl", b'{"prompt": "another"}\n')
    with pytest.raises(JobError, match=r"a\.jsonl changed since"):
        run_here(job)


def test_rows_of_a_local_manifest_cannot_name_such_a_store(bucket: Path, tmp_path: Path) -> None:
    write(bucket, "x.png", grey_png())
    limits = ImageLimits(max_px=10**6, max_bytes=10**6)
    with pytest.raises(
        Exception, match="is a gs: address; pictures come from paths, s3:// and the manifest's own store"
    ):
        fetch(f"{BUCKET}/x.png", root=str(tmp_path), storage=storage(), limits=limits, allow_outside_root=True)
