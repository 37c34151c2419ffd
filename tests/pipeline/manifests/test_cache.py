"""Promises about what a process keeps of the manifests it reads."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unipic.pipeline.errors import ManifestError
from unipic.pipeline.job import Input
from unipic.pipeline.manifests.cache import Readers, Tables, cache_of
from unipic.pipeline.manifests.discovery import discover
from unipic.pipeline.manifests.manifest import units
from unipic.pipeline.manifests.reading import read_unit
from unipic.pipeline.records import ManifestFile, Unit
from unipic.pipeline.storage.storage import FileInfo, Storage

LONG_S = 30.0


def table(rows: int) -> pa.Table:
    return pa.table({"n": pa.array(range(rows), pa.int64())})


def test_a_table_is_made_once_however_many_threads_ask_for_it() -> None:
    made: list[int] = []
    tables = Tables(most=4, most_bytes=10**6)
    meet = threading.Barrier(8)

    def ask(_: int) -> pa.Table:
        meet.wait(LONG_S)
        return tables.get("a", lambda: made.append(1) or table(3))

    with ThreadPoolExecutor(8) as pool:
        assert {one.num_rows for one in pool.map(ask, range(8))} == {3}
    assert made == [1]


def test_no_table_waits_for_another_that_is_being_read() -> None:
    tables = Tables(most=4, most_bytes=10**6)
    begun, release = threading.Event(), threading.Event()

    def slow() -> pa.Table:
        begun.set()
        assert release.wait(LONG_S)
        return table(1)

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(tables.get, "slow", slow)
        assert begun.wait(LONG_S)
        assert tables.get("quick", lambda: table(2)).num_rows == 2
        release.set()
        assert waiting.result(LONG_S).num_rows == 1


def test_what_failed_is_not_kept() -> None:
    tables = Tables(most=4, most_bytes=10**6)
    with pytest.raises(ZeroDivisionError, match="division"):
        tables.get("a", lambda: 1 // 0)  # type: ignore[arg-type,return-value]
    assert tables.get("a", lambda: table(2)).num_rows == 2


def test_tables_are_dropped_beyond_their_number_and_their_bytes_and_the_newest_stays() -> None:
    made: list[str] = []

    def get(tables: Tables, name: str, rows: int = 1) -> None:
        tables.get(name, lambda: made.append(name) or table(rows))

    for tables, rows in ((Tables(most=2, most_bytes=10**6), 1), (Tables(most=9, most_bytes=1700), 100)):
        made.clear()
        for name in ("a", "b", "a", "c", "a", "b"):
            get(tables, name, rows)
        assert made == ["a", "b", "c", "b"], "the one that was used longest ago goes"
    get(tables, "huge", 10**5)
    get(tables, "huge", 10**5)
    assert made.count("huge") == 1


class Reader:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def test_two_threads_never_share_a_reader_and_idle_ones_are_bounded() -> None:
    readers = Readers[Reader](most=2)
    with readers.borrow("a", Reader) as first, readers.borrow("a", Reader) as second:
        assert first is not second
    with readers.borrow("a", Reader) as again:
        assert again is first, "the one that was given back last"
    with readers.borrow("b", Reader) as other:
        pass
    assert (second.closed, first.closed, other.closed) == (True, False, False)
    with pytest.raises(ZeroDivisionError, match="division"), readers.borrow("b", Reader):
        1 // 0  # noqa: B018
    assert other.closed, "a reader that failed is not used again"


def test_units_of_one_file_are_read_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(table(1000), path, row_group_size=100)
    slow = threading.Barrier(2)

    class Slow(Storage):
        """Two readers must be inside a read of the file at once."""

        def open(self, uri: str, *, info: FileInfo | None = None) -> BinaryIO:
            slow.wait(LONG_S)
            return super().open(uri, info=info)

    manifest = discover(Input(manifest=str(path)), Storage())
    storage = Slow()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda unit: read_unit(unit, ["n"], storage), list(units(manifest, 500)))
    assert pa.concat_tables([first, second]).equals(table(1000))


def test_what_one_storage_read_is_unknown_to_another() -> None:
    one, other = Storage(), Storage()
    assert cache_of(one) is cache_of(one)
    assert cache_of(one) is not cache_of(other)


def test_a_file_without_a_planned_version_is_read_anew_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "listing.parquet"
    file = ManifestFile(str(path), "listing", rows=2, source_bytes=0, version="")
    storage = Storage()
    for time_s, n in ((1, [1, 2]), (2, [3, 4])):
        pq.write_table(pa.table({"n": n}), path)
        os.utime(path, (time_s, time_s))
        assert read_unit(Unit(file, 0, 2), ["n"], storage).column("n").to_pylist() == n


@pytest.mark.parametrize("name", ["m.parquet", "m.jsonl"])
def test_a_file_that_changes_after_it_was_read_is_refused_and_not_served_from_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    storage = Storage()
    if name == "m.parquet":
        pq.write_table(table(2), path)
    else:
        path.write_text('{"n": 1}\n{"n": 2}\n')
    first, second = units(discover(Input(manifest=str(path)), storage), 1)
    assert read_unit(first, ["n"], storage).num_rows == 1
    os.utime(path, (1, 1))
    with pytest.raises(ManifestError, match="changed since the run was planned"):
        read_unit(second, ["n"], storage)
