"""What a job means, as a value."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import make_job


@pytest.mark.parametrize(
    ("share", "rows", "allowed"), [("29%", 100, 29), ("0.7%", 1000, 7), ("1%", 99, 0), ("100%", 3, 3), (7, 3, 7)]
)
def test_a_share_of_rows_that_may_fail_is_exact(tmp_path: Path, share: str | int, rows: int, allowed: int) -> None:
    assert make_job(tmp_path, limits__max_rejected=share).limits.rejected_allowed(rows) == allowed


def test_units_are_of_as_many_pictures_whatever_the_samples_of_a_row(tmp_path: Path) -> None:
    sizes = {}
    for samples in (1, 4, 16, 100):
        job = make_job(tmp_path, params__samples_per_row=samples, compute__rows_per_unit=None)
        sizes[samples] = job.rows_per_unit
    assert sizes == {1: 64, 4: 16, 16: 4, 100: 1}
    assert make_job(tmp_path, params__samples_per_row=16, compute__rows_per_unit=64).rows_per_unit == 64
    assert make_job(tmp_path, "caption", compute__rows_per_unit=None).rows_per_unit == 128
