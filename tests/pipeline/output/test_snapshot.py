from __future__ import annotations

from dataclasses import replace

from unipic.pipeline.output.layout import Named, receipt_path
from unipic.pipeline.output.run_record import Epoch, Identity, Run
from unipic.pipeline.output.snapshot import Snapshot
from unipic.pipeline.records import ManifestFile, Revision, Unit, UnitId

A = ManifestFile("m/a.parquet", "a.parquet", 20, 1, "1")
B = ManifestFile("m/b.parquet", "b.parquet", 5, 1, "1")


def record(**since: int) -> Run:
    identity = Identity("n", "generate", {"params": {}}, "f", 8, {}, "0")
    return Run(identity, Epoch(max(since.values(), default=1), "claim", "f", (A, B), "0", since=since))


def unit(file: ManifestFile, first_row: int) -> UnitId:
    return UnitId.of(file.key, first_row)


def test_units_without_a_receipt_are_left_in_the_manifests_order() -> None:
    snapshot = Snapshot(record(), [receipt_path(unit(A, 8))])
    planned = [Unit(B, 0, 5), Unit(A, 0, 8), Unit(A, 8, 8), Unit(A, 16, 4)]
    assert [one.id for one in snapshot.left(planned)] == [unit(B, 0), unit(A, 0), unit(A, 16)]
    assert (len(snapshot), snapshot.planned) == (1, 4)


def test_the_latest_retry_counts_whatever_the_order_of_the_listing() -> None:
    paths = [receipt_path(unit(A, 0), Revision(1, number)) for number in (2, 0, 1)]
    assert Snapshot(record(), paths).revision(unit(A, 0)) == Revision(1, 2)
    assert Snapshot(record(), reversed(paths)).revision(unit(A, 0)) == Revision(1, 2)


def test_a_receipt_of_an_epoch_that_is_over_does_not_count_however_late_it_was_written() -> None:
    run = record(**{A.key: 3})
    snapshot = Snapshot(run, [receipt_path(unit(A, 0), Revision(1, 5)), receipt_path(unit(B, 0))])
    assert unit(A, 0) not in snapshot and unit(B, 0) in snapshot
    assert [one.revision for one in snapshot.left([Unit(A, 0, 8)])] == [Revision(3)]


def test_a_redo_of_one_unit_leaves_its_neighbours_done() -> None:
    run = record(**{unit(A, 8): 2})
    snapshot = Snapshot(run, [receipt_path(unit(A, first)) for first in (0, 8, 16)])
    assert list(snapshot.units(done=False)) == sorted([unit(A, 8), unit(B, 0)])


def test_receipts_of_no_planned_unit_are_passed_over() -> None:
    stranger = replace(A, name="c.parquet")
    paths = [receipt_path(unit(stranger, 0)), receipt_path(unit(A, 3)), receipt_path(unit(A, 24)), "_unipic/receipts/x"]
    assert len(Snapshot(record(), paths)) == 0


def test_a_part_of_a_commit_before_a_retry_is_held_and_one_of_a_later_commit_is_not() -> None:
    snapshot = Snapshot(record(), [receipt_path(unit(A, 0), Revision(1, 1))])
    assert snapshot.holds(Named(unit(A, 0), Revision(1, 0)))
    assert not snapshot.holds(Named(unit(A, 0), Revision(1, 2)))
    assert not snapshot.holds(Named(unit(A, 0), Revision(2, 0)))
