from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unipic.pipeline.output import layout
from unipic.pipeline.output.layout import Named
from unipic.pipeline.records import ManifestFile, Revision, Unit, UnitId

UNITS = st.builds(UnitId.of, st.text("0123456789abcdef", min_size=16, max_size=16), st.integers(0, 10**12))
REVISIONS = st.builds(Revision, st.integers(1, 10**6), st.integers(0, 9_999))


@given(UNITS, REVISIONS)
def test_every_name_leads_back_to_the_commit_it_was_made_for(unit: UnitId, revision: Revision) -> None:
    named = Named(unit, revision)
    assert layout.parse_receipt(layout.receipt_path(unit, revision)) == named
    for folder in (layout.DATA, layout.REJECTED):
        path = layout.part_path(folder, unit, revision)
        assert layout.parse_part(path) == named
        staged = layout.parse_staged(layout.staged_path(layout.attempt_name(unit, revision, "0123456789ab"), path))
        assert staged is not None and (staged.unit, staged.revision, staged.path) == (unit, revision, path)
    assert UnitId.parse(unit) == unit


@given(UNITS, REVISIONS, st.integers(0, 10**6), st.integers(0, 1023), st.sampled_from(["png", "jpg", "webp"]))
def test_an_image_name_leads_back_to_its_row_and_sample(
    unit: UnitId, revision: Revision, row: int, sample: int, suffix: str
) -> None:
    file = ManifestFile("m/a.parquet", "a.parquet", 10, 1, "1")
    found = layout.parse_image(layout.image_path(Unit(file, 0, 10, revision=revision), row, sample, suffix))
    assert found is not None
    assert (found.file_key, found.row, found.sample, found.revision) == (file.key, row, sample, revision)


@given(UNITS, UNITS, REVISIONS, REVISIONS)
def test_names_sort_as_units_do(one: UnitId, other: UnitId, first: Revision, second: Revision) -> None:
    if len(one) == len(other) and one < other:
        assert layout.part_path("data", one, first) < layout.part_path("data", other, second)
        assert layout.receipt_path(one, first) < layout.receipt_path(other, second)


@pytest.mark.parametrize(
    "path",
    [
        "data/part-0123456789abcdef-0000000000.e1.parquet",
        "data/part-0123456789abcdef-0000000000.r0.parquet",
        "data/part-0123456789abcdef-0000000000.r01.parquet",
        "data/part-0123456789abcdef-00000000.parquet",
        "data/part-0123456789ABCDEF-0000000000.parquet",
        "data/x/part-0123456789abcdef-0000000000.parquet",
        "images/part-0123456789abcdef-0000000000.parquet",
        "data/part-0123456789abcdef-0000000000.parquet.tmp",
    ],
)
def test_a_name_that_only_resembles_one_of_ours_is_foreign(path: str) -> None:
    assert layout.parse_part(path) is None


def test_the_first_commit_of_a_unit_has_the_plainest_name() -> None:
    unit = UnitId.of("0123456789abcdef", 64)
    assert layout.part_path("data", unit) == "data/part-0123456789abcdef-0000000064.parquet"
    assert layout.part_path("data", unit, Revision(3, 2)) == "data/part-0123456789abcdef-0000000064.e3.r2.parquet"


def test_a_row_belongs_to_the_unit_that_its_number_falls_into() -> None:
    assert layout.unit_of("0123456789abcdef", 130, 64) == UnitId.of("0123456789abcdef", 128)


def test_epochs_are_numbered_in_the_order_of_their_names() -> None:
    assert layout.epoch_number(layout.epoch_path(12)) == 12
    assert layout.epoch_number("_unipic/epochs/12.json") is None
    assert layout.epoch_path(9) < layout.epoch_path(10)
