"""A run is green only where storage shows every row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes import make_job
from unipic.pipeline.errors import EngineError
from unipic.pipeline.execution.conclusion import conclude, raise_fatal
from unipic.pipeline.execution.stop_policy import StopPolicy
from unipic.pipeline.execution.tally import Tally
from unipic.pipeline.output.reconciliation import Reconciliation
from unipic.pipeline.supervision.failures import Failure

WHOLE = Reconciliation(units=3, missing=0, behind=0, ok=19, rejected=1, rejected_by_now=1, rows_behind=0)
TALLY = Tally(rows_total=20, units_total=3)


def policy(root: Path, reason: str = "", max_rejected: object = "100%") -> StopPolicy:
    made = StopPolicy(make_job(root, limits__max_rejected=max_rejected), 20, stop_requested=lambda: False)
    made.reason = reason
    return made


def test_a_run_is_done_when_storage_shows_every_row(tmp_path: Path) -> None:
    result = conclude(TALLY, policy(tmp_path), WHOLE, seconds=2.0, output="out")
    assert (result.outcome, result.ok, result.rejected, result.message) == ("done", 19, 1, "")


def test_a_run_that_was_stopped_when_another_had_done_its_work_is_done(tmp_path: Path) -> None:
    assert conclude(TALLY, policy(tmp_path, "asked to stop"), WHOLE, seconds=2.0, output="out").outcome == "done"


def test_too_many_rejected_rows_are_said_with_both_numbers(tmp_path: Path) -> None:
    result = conclude(TALLY, policy(tmp_path, max_rejected=0), WHOLE, seconds=2.0, output="out")
    assert (result.outcome, result.message) == ("rejected", "1 row rejected, limits.max_rejected allows 0 of 20")


def test_rows_that_were_rejected_while_a_run_stopped_are_counted_in_its_reason(tmp_path: Path) -> None:
    stopping = policy(tmp_path, "6 rows rejected, limits.max_rejected allows 4 of 20", max_rejected=4)
    seen = replace(WHOLE, ok=8, rejected=12, rejected_by_now=12)
    result = conclude(TALLY, stopping, seen, seconds=2.0, output="out")
    assert result.message == "12 rows rejected, limits.max_rejected allows 4 of 20"


def test_rows_that_are_still_to_be_attempted_again_are_not_too_many(tmp_path: Path) -> None:
    waiting = replace(WHOLE, behind=1, rejected_by_now=0, rows_behind=8)
    result = conclude(TALLY, policy(tmp_path, "asked to stop", 0), waiting, seconds=2.0, output="out")
    assert (result.outcome, result.earlier) == ("stopped", 8)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (
            replace(WHOLE, missing=3, ok=0, rejected=0),
            "3 of 3 units have no receipt, 20 rows have no outcome",
        ),
        (replace(WHOLE, behind=1), "1 of 3 units still have rejected rows to retry"),
        (replace(WHOLE, ok=18), "the receipts' counts are wrong, 1 rows have no outcome"),
    ],
)
def test_work_that_is_missing_without_a_reason_to_stop_is_an_error(
    tmp_path: Path, seen: Reconciliation, words: str
) -> None:
    with pytest.raises(EngineError, match=f"Ray stopped without an error before all units were done: {words}"):
        conclude(TALLY, policy(tmp_path), seen, seconds=2.0, output="out")
    assert conclude(TALLY, policy(tmp_path, "asked to stop"), seen, seconds=2.0, output="out").outcome == "stopped"


def test_a_failure_that_ended_the_run_keeps_its_traceback_and_says_what_to_do() -> None:
    with pytest.raises(EngineError, match="preflight: no such file") as caught:
        raise_fatal(Failure("EngineError", "no such file", "preflight", details="a traceback"))
    assert caught.value.remedy == "No unit was started." and caught.value.__notes__ == ["a traceback"]
    with pytest.raises(EngineError, match="run the same command again to resume"):
        raise_fatal(Failure("EngineError", "broken", "replica"))
