"""A checkpoint in a store is fetched once a machine, checked each time it is used, and trusted in nothing it says."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from tests.servers import S3Server
from unipic.model.checkpoint import digest_of_files, digests
from unipic.model.tiny.shipped import shipped_checkpoint
from unipic.pipeline.errors import CheckpointError, StorageFull
from unipic.pipeline.stages.checkpoint_cache import describe, local_copy, verify
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.storage import Storage


@pytest.fixture(scope="module")
def storage(rclone: S3Server) -> Storage:
    return Storage(StorageOptions(endpoint_url=rclone.endpoint_url, max_attempts=2, backoff_max_s=0.05))


@pytest.fixture
def stored(rclone: S3Server, storage: Storage) -> str:
    """The URI of a copy of the checkpoint that ships with the package."""
    uri, folder = f"{rclone.bucket()}/tiny", shipped_checkpoint()
    assert folder is not None
    for path in folder.rglob("*"):
        if path.is_file():
            storage.write(f"{uri}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return uri


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNIPIC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "checkpoints"


def rewrite(storage: Storage, uri: str, **changes: Any) -> dict[str, Any]:
    body = {**json.loads(storage.read(f"{uri}/digests.json")), **changes}
    body["checkpoint"] = changes.get("checkpoint", digest_of_files(body["files"]))
    storage.write(f"{uri}/digests.json", json.dumps(body).encode())
    return body


def everything(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_stored_checkpoint_is_fetched_whole_under_the_digest_of_its_files(
    stored: str, storage: Storage, cache: Path
) -> None:
    info = describe(stored, storage)
    verify(info, storage)
    folder = local_copy(stored, info.digest, storage)
    assert folder == cache / digest_of_files(info.files)
    original = shipped_checkpoint()
    assert original is not None
    assert {**everything(folder), "README.md": b""} == {**everything(original), "README.md": b""}
    assert sorted(path.name for path in cache.iterdir()) == [info.digest, f"{info.digest}.lock"]


def test_a_copy_is_not_fetched_again(
    stored: str, storage: Storage, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = describe(stored, storage).digest
    folder = local_copy(stored, digest, storage)
    monkeypatch.setattr(storage, "open", None)
    assert local_copy(stored, digest, storage) == folder


@pytest.mark.parametrize("damage", ["a byte", "cut short", "a file gone", "a file more", "no list", "another list"])
def test_a_damaged_copy_is_noticed_and_fetched_again(stored: str, storage: Storage, cache: Path, damage: str) -> None:
    digest = describe(stored, storage).digest
    folder = local_copy(stored, digest, storage)
    before, weights = everything(folder), folder / "weights.safetensors"
    body = bytearray(weights.read_bytes())
    if damage == "a byte":
        body[len(body) // 2] ^= 1
        weights.write_bytes(body)
    elif damage == "cut short":
        weights.write_bytes(body[:-1])
    elif damage == "a file gone":
        (folder / "config.json").unlink()
    elif damage == "a file more":
        (folder / "tokenizer" / "tokenization_evil.py").write_text("raise SystemExit")
    elif damage == "no list":
        (folder / "digests.json").unlink()
    else:
        (folder / "digests.json").write_text("{}")
    assert everything(local_copy(stored, digest, storage)) == before


@pytest.mark.parametrize("name", ["{outside}/pwned", "../pwned", "../../pwned", "tokenizer/../../../pwned"])
def test_a_list_that_names_a_file_elsewhere_writes_none(
    stored: str, storage: Storage, cache: Path, tmp_path: Path, name: str
) -> None:
    name = name.format(outside=tmp_path)
    files = {**describe(stored, storage).files, name: "0" * 64}
    body = rewrite(storage, stored, files=files, sizes=None)
    for call in (lambda: describe(stored, storage), lambda: local_copy(stored, body["checkpoint"], storage)):
        with pytest.raises(CheckpointError, match="which is no file of a checkpoint"):
            call()
    assert not list(tmp_path.rglob("*pwned*")) and not cache.exists()


@pytest.mark.parametrize("digest", ["../../pwned", "/tmp/pwned", "0" * 64, 7, None])
def test_a_digest_that_is_not_that_of_the_files_is_never_a_folder(
    stored: str, storage: Storage, cache: Path, digest: Any
) -> None:
    rewrite(storage, stored, checkpoint=digest)
    with pytest.raises(CheckpointError, match="not that of the files it lists"):
        local_copy(stored, str(digest), storage)
    assert not cache.exists()


def test_a_file_that_does_not_match_leaves_nothing_in_the_cache(stored: str, storage: Storage, cache: Path) -> None:
    digest = describe(stored, storage).digest
    body = bytearray(storage.read(f"{stored}/vae.safetensors"))
    body[-1] ^= 1
    storage.write(f"{stored}/vae.safetensors", bytes(body))
    with pytest.raises(CheckpointError, match=r"vae\.safetensors does not match its digest"):
        local_copy(stored, digest, storage)
    assert [path.name for path in cache.iterdir()] == [f"{digest}.lock"]
    storage.write(f"{stored}/vae.safetensors", bytes(body) + b"more")
    with pytest.raises(CheckpointError, match=r"vae\.safetensors does not match its digest .* it has 2,092,882 bytes"):
        describe(stored, storage)


def test_sizes_are_bounded_before_anything_is_fetched(stored: str, storage: Storage) -> None:
    storage.write(f"{stored}/config.json", b" " * (2**20 + 1))
    rewrite(storage, stored, sizes=None)
    with pytest.raises(CheckpointError, match=r"config\.json cannot have 1048577 bytes, at most 1,048,576"):
        describe(stored, storage)
    storage.write(f"{stored}/digests.json", b" " * (2**16 + 1))
    with pytest.raises(CheckpointError, match=r"65,537 bytes, more than the 65,536 allowed"):
        describe(stored, storage)


def test_a_checkpoint_from_before_sizes_were_recorded_is_still_used(stored: str, storage: Storage, cache: Path) -> None:
    digest = describe(stored, storage).digest
    rewrite(storage, stored, sizes=None)
    assert digests(local_copy(stored, digest, storage)).checkpoint == digest


def test_a_disk_without_room_is_named_before_anything_is_fetched(
    stored: str, storage: Storage, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(StorageFull, match=r"6,893,464 bytes, and .* has room for 0\..*UNIPIC_CACHE"):
        local_copy(stored, describe(stored, storage).digest, storage)
