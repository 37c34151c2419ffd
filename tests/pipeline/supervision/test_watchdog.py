"""A process that ends over a slow micro-batch says why, and where its stacks are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes import first_unit, make_job, write_prompts
from unipic.pipeline.supervision import watchdog


@pytest.mark.parametrize(("output", "stacks"), [("folder", "_unipic/reports"), ("file", "is a file, not a folder")])
def test_a_process_that_ends_over_a_slow_micro_batch_says_so(
    output: str, stacks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prompts(tmp_path / "manifest" / "a.parquet", ["a", "b"])
    unit, context = first_unit(make_job(tmp_path, limits__batch_timeout_s=2.5))
    if output == "file":
        (tmp_path / "out").touch()
    exits: list[int] = []
    monkeypatch.setattr(watchdog.os, "_exit", exits.append)
    watchdog.end_process(unit, (0, 2), context)
    said = capsys.readouterr().err
    assert exits == [1]
    assert f"error: no answer for rows 0 to 1 of unit {unit.id} within 2.5 s: this process ends" in said
    assert "limits.batch_timeout_s" in said and stacks in said
