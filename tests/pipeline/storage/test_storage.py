"""Promises of the door to bytes, kept alike by local files, rclone and moto."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unipic.pipeline.errors import AccessDenied, ObjectMissing, OutputError, StorageError
from unipic.pipeline.storage.options import StorageOptions
from unipic.pipeline.storage.paths import join, relative, split_pattern
from unipic.pipeline.storage.remote import DISCARDED_AT_ONCE
from unipic.pipeline.storage.storage import Storage


@dataclass(frozen=True)
class Place:
    storage: Storage
    root: str
    conditional: bool


@pytest.fixture(params=["local", "rclone", "moto"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "local":
        yield Place(Storage(), str(tmp_path), True)
        return
    server = request.getfixturevalue(request.param)
    yield Place(_client(server.endpoint_url), server.bucket(), request.param == "moto")


@cache
def _client(endpoint_url: str) -> Storage:
    """One for all tests: making a client takes a second of work."""
    return Storage(StorageOptions(endpoint_url=endpoint_url, max_attempts=2, backoff_max_s=0.05))


def test_what_is_written_is_read_back(place: Place) -> None:
    uri = join(place.root, "a b/ü+=&.bin")
    place.storage.write(uri, b"\0one")
    place.storage.write(uri, b"two!")
    assert place.storage.read(uri) == b"two!"
    info = place.storage.info(uri)
    assert (info.uri, info.size_bytes) == (uri, 4)
    assert info.version
    place.storage.write(uri, b"")
    assert place.storage.read(uri, max_bytes=0) == b""


def test_a_missing_object_says_so(place: Place) -> None:
    uri = join(place.root, "nothing.bin")
    assert not place.storage.exists(uri)
    for call in (place.storage.read, place.storage.info, place.storage.open):
        with pytest.raises(ObjectMissing, match=r"nothing\.bin"):
            call(uri)
    place.storage.delete(uri)


def test_a_folder_is_no_object(place: Place) -> None:
    place.storage.write(join(place.root, "folder/x"), b"1")
    assert not place.storage.exists(join(place.root, "folder"))


def test_an_object_over_the_limit_is_refused_with_both_sizes(place: Place) -> None:
    uri = join(place.root, "big.bin")
    place.storage.write(uri, b"x" * 5000)
    with pytest.raises(StorageError, match=r"5,000 bytes, more than the 4,999"):
        place.storage.read(uri, max_bytes=4999)
    assert len(place.storage.read(uri, max_bytes=5000)) == 5000


def test_lists_are_sorted_and_filtered(place: Place) -> None:
    for name in ("b.parquet", "a/z.parquet", "a.parquet", "a/b/c.parquet", "a-x.json", "A.parquet"):
        place.storage.write(join(place.root, "data", name), name.encode())

    def names(**how: object) -> list[str]:
        found = place.storage.list(join(place.root, "data"), **how)  # type: ignore[arg-type]
        return [relative(info.uri, join(place.root, "data")) for info in found]

    assert names() == ["A.parquet", "a-x.json", "a.parquet", "b.parquet"]
    assert names(suffix=".parquet", recursive=True) == sorted(
        ["b.parquet", "a/z.parquet", "a.parquet", "a/b/c.parquet", "A.parquet"]
    )
    assert [info.size_bytes for info in place.storage.list(join(place.root, "data"), suffix=".json")] == [8]


def test_a_list_begins_behind_a_given_object(place: Place) -> None:
    names = ["a", "b-1", "b/1", "b/2", "b/c/3", "b0", "c"]
    for name in names:
        place.storage.write(join(place.root, "d", name), b"1")

    def behind(name: str, *, recursive: bool = True) -> list[str]:
        root = join(place.root, "d")
        found = place.storage.list(root, recursive=recursive, start_after=join(root, name))
        return [relative(info.uri, root) for info in found]

    assert [behind(name) for name in names] == [names[at + 1 :] for at in range(len(names))]
    assert behind("b/1x") == ["b/2", "b/c/3", "b0", "c"], "the place need not hold an object"
    assert behind("b/1", recursive=False) == ["b0", "c"]


def test_a_list_may_be_of_the_names_alone_that_begin_alike(place: Place) -> None:
    names = ["a", "b-1", "b-2/1", "b-2/c/3", "b-3", "b0", "c/b-4"]
    for name in names:
        place.storage.write(join(place.root, "d", name), b"1")

    def beginning(prefix: str, **how: object) -> list[str]:
        found = place.storage.list(join(place.root, "d"), prefix=prefix, **how)  # type: ignore[arg-type]
        return [relative(info.uri, join(place.root, "d")) for info in found]

    assert beginning("b-") == ["b-1", "b-3"]
    assert beginning("b-", recursive=True) == ["b-1", "b-2/1", "b-2/c/3", "b-3"]
    assert beginning("b-", recursive=True, start_after=join(place.root, "d/b-2/1")) == ["b-2/c/3", "b-3"]
    assert beginning("x", recursive=True) == []


def test_many_objects_are_deleted_together_and_the_others_stay(place: Place) -> None:
    uris = [join(place.root, "many", f"{number:02d} ü+&") for number in range(25)]
    for uri in uris:
        place.storage.write(uri, b"1")
    gone = [*uris[:20], join(place.root, "many", "never was")]
    assert place.storage.delete_all(iter(gone)) == 21
    assert [info.uri for info in place.storage.list(join(place.root, "many"))] == uris[20:]
    assert place.storage.delete_all([]) == 0


def test_an_object_that_is_moved_lazily_is_at_its_place_at_once(place: Place) -> None:
    uris = [join(place.root, "lazy", str(number)) for number in range(DISCARDED_AT_ONCE)]
    for uri in uris:
        place.storage.write(uri, uri.encode())
        place.storage.move(uri, f"{uri}-moved", lazily=True)
        assert place.storage.read(f"{uri}-moved") == uri.encode()
    left = {info.uri for info in place.storage.list(join(place.root, "lazy"))}
    assert left == {f"{uri}-moved" for uri in uris}, "the last of them deletes all sources"


def test_a_missing_folder_is_empty(place: Place) -> None:
    assert list(place.storage.list(join(place.root, "none"), recursive=True)) == []


def test_a_list_gives_the_version_that_info_gives(place: Place) -> None:
    place.storage.write(join(place.root, "d/x.bin"), b"abc")
    (listed,) = place.storage.list(join(place.root, "d"))
    assert listed == place.storage.info(listed.uri)


def test_globs_keep_to_their_folders(place: Place) -> None:
    for name in ("x/1.csv", "x/2.csv", "x/10.csv", "x/y/3.csv", "x/1.txt", "z/1.csv"):
        place.storage.write(join(place.root, name), b"1")

    def names(pattern: str) -> list[str]:
        return [relative(info.uri, place.root) for info in place.storage.glob(join(place.root, pattern))]

    assert names("x/*.csv") == ["x/1.csv", "x/10.csv", "x/2.csv"]
    assert names("x/?.csv") == ["x/1.csv", "x/2.csv"]
    assert names("x/[!1].csv") == ["x/2.csv"]
    assert names("**/*.csv") == ["x/1.csv", "x/10.csv", "x/2.csv", "x/y/3.csv", "z/1.csv"]
    assert names("*/1.csv") == ["x/1.csv", "z/1.csv"]


def test_put_if_absent_has_one_winner(place: Place) -> None:
    uri = join(place.root, "receipt.json")
    assert place.storage.put_if_absent(uri, b"mine")
    assert place.storage.put_if_absent(uri, b"mine"), "an answer that was lost: our own bytes are ours"
    assert not place.storage.put_if_absent(uri, b"theirs")
    assert place.storage.read(uri) == b"mine"


def test_of_many_writers_at_once_one_wins(place: Place) -> None:
    if not place.conditional:
        pytest.skip("this store ignores conditions")
    uri = join(place.root, "race.json")
    ready = threading.Barrier(8)

    def put(writer: int) -> bool:
        ready.wait()
        return place.storage.put_if_absent(uri, f"writer {writer}".encode())

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(put, range(8)))
    assert won.count(True) == 1
    assert place.storage.read(uri) == f"writer {won.index(True)}".encode()


def test_replacing_takes_the_version_that_was_read(place: Place) -> None:
    uri = join(place.root, "claim.json")
    place.storage.write(uri, b"epoch 1")
    held, version = place.storage.read_versioned(uri)
    assert held == b"epoch 1"
    second = place.storage.replace(uri, b"epoch 2", version)
    assert second and second == place.storage.read_versioned(uri)[1]
    assert place.storage.replace(uri, b"late", version) is None, "another writer was first"
    assert place.storage.replace(uri, b"epoch 3", second)
    assert place.storage.read(uri) == b"epoch 3"
    place.storage.delete(uri)
    assert place.storage.replace(uri, b"epoch 4", version) is None
    assert not place.storage.exists(uri)


def test_of_many_replacers_at_once_one_wins(place: Place) -> None:
    if not place.conditional:
        pytest.skip("this store ignores conditions")
    uri = join(place.root, "claim.json")
    place.storage.write(uri, b"first")
    version = place.storage.read_versioned(uri)[1]
    ready = threading.Barrier(8)

    def swap(writer: int) -> str | None:
        ready.wait()
        return place.storage.replace(uri, f"writer {writer}".encode(), version)

    with ThreadPoolExecutor(8) as pool:
        won = [writer for writer, now in enumerate(pool.map(swap, range(8))) if now is not None]
    assert len(won) == 1
    assert place.storage.read(uri) == f"writer {won[0]}".encode()


def test_what_a_store_can_do_is_known_to_a_copy_in_another_process(place: Place) -> None:
    known = place.storage.conditional(place.root)
    place.storage.write(join(place.root, "receipt"), b"1")
    copy = pickle.loads(pickle.dumps(place.storage))
    assert copy.conditional(place.root) is known
    assert not copy.put_if_absent(join(place.root, "receipt"), b"2")
    assert copy.put_if_absent(join(place.root, "receipt"), b"1")
    assert copy.put_if_absent(join(place.root, "other"), b"2")


def test_conditional_puts_are_found_out_and_leave_nothing(place: Place) -> None:
    assert place.storage.conditional(join(place.root, "out")) is place.conditional
    place.storage.check_writable(join(place.root, "out"))
    assert list(place.storage.list(join(place.root, "out"), recursive=True)) == []


def test_an_open_file_serves_pyarrow(place: Place) -> None:
    uri = join(place.root, "t.parquet")
    table = pa.table({"n": list(range(100_000)), "s": [f"row {i}" * 5 for i in range(100_000)]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=10_000, compression="none")
    place.storage.write(uri, sink.getvalue().to_pybytes())
    with place.storage.open(uri) as file:
        parquet = pq.ParquetFile(file)
        assert parquet.metadata.num_rows == 100_000
        assert parquet.read_row_group(7).equals(table.slice(70_000, 10_000))
    with place.storage.open(uri) as file:
        assert file.seek(-4, 2) > 0
        assert file.read() == b"PAR1"
        assert file.read(1) == b""
        file.seek(0)
        assert file.read(4) == b"PAR1"
        assert file.tell() == 4


def test_a_pickled_storage_works_elsewhere(place: Place) -> None:
    place.storage.write(join(place.root, "p"), b"1")
    again = pickle.loads(pickle.dumps(place.storage))
    assert again.read(join(place.root, "p")) == b"1"


def test_deleting_removes(place: Place) -> None:
    uri = join(place.root, "gone")
    place.storage.write(uri, b"1")
    place.storage.delete(uri)
    assert not place.storage.exists(uri)


def test_a_local_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    storage = Storage()
    storage.write(f"{tmp_path}/a/part.parquet", b"1")
    storage.put_if_absent(f"{tmp_path}/a/part.parquet", b"2")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["part.parquet"]


def test_a_local_path_with_too_long_a_name_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="could not be used"):
        Storage().write(f"{tmp_path}/{'x' * 300}", b"1")


def test_a_file_uri_is_its_path(tmp_path: Path) -> None:
    Storage().write(f"file://{tmp_path}/x", b"1")
    assert (tmp_path / "x").read_bytes() == b"1"


def test_an_unknown_scheme_is_refused_without_its_secrets() -> None:
    with pytest.raises(StorageError, match="neither a local path nor s3") as caught:
        Storage().read("https://user:hunter2@example.org/x?token=hunter3")
    assert "hunter" not in str(caught.value)


def test_a_folder_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        Storage().check_writable(f"{tmp_path}/file/below")


def test_a_file_where_a_folder_has_to_be_is_named_with_what_to_do(tmp_path: Path) -> None:
    storage, file = Storage(), tmp_path / "good.yaml"
    file.write_bytes(b"")
    words = r"good\.yaml is a file, not a folder\. Choose a folder that is one"
    for folder in (file, file / "below", file / "far" / "below"):
        with pytest.raises(OutputError, match=words):
            storage.check_writable(str(folder))
        with pytest.raises(StorageError, match=words):
            storage.write(f"{folder}/x", b"1")
        with pytest.raises(StorageError, match=words):
            storage.put_if_absent(f"{folder}/x", b"1")
        assert list(storage.list(str(folder))) == [] and not storage.exists(f"{folder}/x")
        storage.delete(f"{folder}/x")
    assert file.read_bytes() == b""


def test_a_place_that_takes_no_folders_is_not_said_to_hold_nothing() -> None:
    with pytest.raises(OutputError, match=r"No file or folder can be made at /proc/nowrite.* Choose another folder"):
        Storage().check_writable("/proc/nowrite")


def test_a_missing_bucket_says_what_to_do(moto: object) -> None:
    storage = _client(moto.endpoint_url)  # type: ignore[attr-defined]
    with pytest.raises(OutputError, match=r"no bucket no-such-bucket-here.*Create it"):
        storage.check_writable("s3://no-such-bucket-here/out")
    with pytest.raises(ObjectMissing, match="no bucket"):
        list(storage.list("s3://no-such-bucket-here/x"))


def test_wrong_credentials_are_named_as_such(rclone: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
    storage = Storage(StorageOptions(endpoint_url=rclone.endpoint_url))  # type: ignore[attr-defined]
    with pytest.raises(AccessDenied, match="credentials") as caught:
        storage.read("s3://bucket/x")
    assert "canary" not in str(caught.value)


def test_paths_join_and_part() -> None:
    assert join("s3://b/", "/x/", "y") == "s3://b/x/y"
    assert join("/", "x") == "/x"
    assert join("a", "b") == "a/b"
    assert relative("s3://b/x/y", "s3://b/x/") == "y"
    with pytest.raises(StorageError, match="not below"):
        relative("/ab/c", "/a")
    assert split_pattern("/a/b*/c") == ("/a", "b*/c")
    assert split_pattern("s3://b/*.x") == ("s3://b", "*.x")
