"""A probe runs a part of a job here and keeps nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeEngine, make_job, write_prompts
from unipic.pipeline import probe as probing
from unipic.pipeline.plan import plan
from unipic.pipeline.storage.storage import Storage


class Counting(FakeEngine):
    """Remembers how many rows it answered."""

    rows = 0

    def answer(self, rows: Sequence[dict[str, Any]]) -> list[bytes | str]:
        type(self).rows += len(rows)
        return super().answer(rows)


@pytest.mark.parametrize(("longest_s", "measured", "answered"), [(120.0, 8, 9), (0.0, 1, 1)])
def test_a_unit_that_would_take_too_long_is_judged_by_its_first_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longest_s: float, measured: int, answered: int
) -> None:
    monkeypatch.setattr(probing, "LONGEST_UNIT_S", longest_s)
    monkeypatch.setattr(Counting, "rows", 0)
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a"] * 20)
    steps: list[str] = []
    planned = plan(make_job(tmp_path), Storage(), probe=True, make_engine=Counting, on_step=steps.append)
    assert planned.probe is not None and planned.probe.rows == measured and Counting.rows == answered
    assert planned.probe.total_s == pytest.approx(20 / measured * planned.probe.unit_s)
    assert steps[1:3] == ["loading the model", "running one row"]
    assert not (tmp_path / "out" / "data").exists()
