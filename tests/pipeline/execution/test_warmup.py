"""The warm-up answers one row before the first unit, whatever that row is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.fakes import FakeEngine, first_unit, make_job, write_prompts
from tests.tables import BROKEN, texts, write_table
from unipic.pipeline.execution.warmup import warm_up


@pytest.mark.parametrize("column", ["prompt", "note"])
def test_the_warm_up_goes_on_with_another_row_where_the_first_cannot_be_read(tmp_path: Path, column: str) -> None:
    columns: dict[str, Any] = {
        "id": ["1"],
        "prompt": ["p"],
        "note": ["n"],
        "when": pa.array([2**55], pa.timestamp("ms")),
    }
    write_table(tmp_path, **{**columns, column: texts(BROKEN)})
    unit, context = first_unit(make_job(tmp_path, input__keep=["note", "when"]))
    said = warm_up(FakeEngine(context), unit, context)
    assert ("the first row failed (WrongType" if column == "prompt" else "one row answered") in said


def test_the_warm_up_survives_whatever_preparing_a_row_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> pa.Table:
        raise KeyError("nobody foresaw this")

    write_prompts(tmp_path / "manifest" / "a.parquet", ["p"])
    unit, context = first_unit(make_job(tmp_path))
    monkeypatch.setattr("unipic.pipeline.execution.warmup.prepare", explode)
    assert "nobody foresaw this" in warm_up(FakeEngine(context), unit, context)
