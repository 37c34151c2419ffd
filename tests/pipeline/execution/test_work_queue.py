"""The order in which units are attempted, and which are attempted again."""

from __future__ import annotations

from dataclasses import replace

from unipic.pipeline.execution.work_queue import UNIT_ATTEMPTS, WorkQueue
from unipic.pipeline.records import ManifestFile, Revision, Unit
from unipic.pipeline.supervision.failures import Failure

FILE = ManifestFile("m/a.parquet", "a.parquet", 1000, 1, "")
TEMPORARY = Failure("StorageUnavailable", "503", "commit", retryable=True, storage=True)
DEADLY = Failure("WorkersDied", "3 processes died", "replica", retryable=True, deadly=True)
FATAL = Failure("EngineError", "broken", "replica")


def units(count: int, first: int = 0) -> list[Unit]:
    return [Unit(FILE, first_row=8 * at, rows=8) for at in range(first, first + count)]


def test_units_come_in_the_manifests_order_and_are_read_a_wave_at_a_time() -> None:
    read = []

    def planned():  # type: ignore[no-untyped-def]
        for unit in units(5):
            read.append(unit)
            yield unit

    waves = WorkQueue(planned(), wave_units=2).waves()
    assert list(next(waves).units) == units(2) and len(read) == 2
    assert [len(wave.units) for wave in waves] == [2, 1]
    assert read == units(5)


def test_rejected_rows_are_attempted_again_after_everything_else() -> None:
    again = [replace(unit, only=((unit.first_row, 0),), revision=Revision(1, 1)) for unit in units(3, first=10)]
    waves = list(WorkQueue(units(3), again, wave_units=2).waves())
    assert [list(wave.units) for wave in waves] == [units(2), units(1, first=2), again[:2], again[2:]]


def test_a_unit_whose_failure_may_be_temporary_is_attempted_a_few_times_each_a_wave_later() -> None:
    queue = WorkQueue(units(2))
    seen = []
    for wave in queue.waves():
        seen.append([unit.first_row for unit in wave.units])
        last = queue.defer(wave.units[-1], TEMPORARY)
    assert seen == [[0, 8]] + [[8]] * (UNIT_ATTEMPTS - 1) and not last


def test_a_unit_that_kills_workers_is_attempted_carefully_once_after_all_others() -> None:
    queue = WorkQueue(units(3))
    waves = queue.waves()
    assert not next(waves).careful
    assert queue.defer(units(1)[0], DEADLY) and queue.defer(units(1, first=2)[0], TEMPORARY)
    ordinary, careful = waves
    assert [unit.first_row for unit in ordinary.units] == [16]
    assert ([unit.first_row for unit in careful.units], careful.careful) == ([0], True)
    assert not queue.defer(careful.units[0], DEADLY)


def test_a_failure_that_no_attempt_mends_is_not_deferred() -> None:
    queue = WorkQueue(units(1))
    waves = queue.waves()
    assert not queue.defer(next(waves).units[0], FATAL)
    assert list(waves) == []
