"""`unipic evaluate shapes`, small: three jobs through the whole pipeline, judged, told in three files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.command_line import unipic
from unipic.jobs.shapes.questions import rows_of

FAST = ("--num-iterations", "4", "--diffusion-steps", "10", "--replicas", "1", "--no-untrained")


@pytest.mark.slow
def test_a_small_evaluation_runs_three_jobs_and_accounts_for_every_case(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "evaluation"
    command = ("evaluate", "shapes", "--checkpoint", str(checkpoint), "--sample", "8", "--output", str(output), *FAST)
    said = unipic(*command)
    for words in ("Overall", "shuffled pairing", "evaluated on 11 prompts, 8 captions, 8 edits", "in one replica"):
        assert words in said
    told = json.loads((output / "scores.json").read_text())
    seen, held_out = told["scores"]["seen"], told["scores"]["held out"]
    assert [half["captions"]["total"] for half in (seen, held_out)] == [4, 4]
    assert held_out["generation"]["single"] == {"right": 0, "total": 0, "share": None}
    assert told["settings"]["diffusion_steps"] == 10
    verdicts = [json.loads(line) for line in (output / "verdicts.jsonl").read_text().splitlines()]
    rows = {task: rows_of(output / task) for task in ("generate", "caption", "edit")}
    assert len(verdicts) == 27
    for one in verdicts:
        assert one["lineage_id"] == rows[one["task"]][one["id"]]["lineage"]["lineage_id"].hex()
        assert one["held_out"] == rows[one["task"]][one["id"]]["held_out"]
    assert (output / "report.html").read_text().count("<article>") == 27
    resumed, _ = json.JSONDecoder().raw_decode(unipic(*command, "--json"))  # progress follows, on standard error
    assert resumed["scores"] == told["scores"]


def test_without_a_checkpoint_it_says_what_is_missing(tmp_path: Path) -> None:
    said = unipic("evaluate", "shapes", "--checkpoint", str(tmp_path), "--output", str(tmp_path / "out"), expect=1)
    assert "is not a converted checkpoint" in said
