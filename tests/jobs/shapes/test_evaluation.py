"""An evaluation's own bookkeeping, with answers that are known to be right: no model, no Ray."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unipic.jobs.cli import main
from unipic.jobs.shapes.evaluation import Evaluation, Pace, summary, write
from unipic.jobs.shapes.questions import Settings, judged, png, rows_of, shuffled, write_manifest
from unipic.jobs.shapes.score_tables import show, tables
from unipic.jobs.spec.load import JOBS
from unipic.model.tiny.world.grammar import caption_text
from unipic.model.tiny.world.questions import Question, questions
from unipic.model.tiny.world.samplers import CaptionCase
from unipic.model.tiny.world.scene import render
from unipic.model.tiny.world.score import scores
from unipic.pipeline.errors import JobError

IMAGE = {
    "num_iterations": 16,
    "diffusion_steps": 50,
    "guidance": 3.0,
    "guidance_schedule": "constant",
    "temperature": 1.0,
    "seed": 1,
}
SETTINGS = Settings(Path("weights"), "float32", "cpu", IMAGE, {"batch_size": 32, "rows_per_unit": 32}, 2)


@pytest.fixture(scope="module")
def asked() -> list[Question]:
    return questions(prompts=22, captions=16, edits=16, seed=3)


@pytest.fixture(scope="module")
def folder(asked: Sequence[Question], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three outputs that hold the right answers, save one row that is not there."""
    root = tmp_path_factory.mktemp("outputs")
    for task in ("generate", "caption", "edit"):
        rows = [_row(one) for one in asked if one.task == task and one.id != "count-seen-001"]
        (root / task / "data").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), root / task / "data" / "part-0.parquet")
    return root


def _row(question: Question) -> dict[str, object]:
    lineage = {"lineage_id": (hash(question.id) & 0xFFFF).to_bytes(16, "big")}
    if isinstance(question.case, CaptionCase):
        return {"id": question.id, "caption": caption_text(question.case.scene), "lineage": lineage}
    scene = question.case.scene if question.task == "generate" else question.case.target  # type: ignore[union-attr]
    return {"id": question.id, "image": {"bytes": png(render(scene)), "path": ""}, "lineage": lineage}


def test_right_answers_are_judged_right_and_a_missing_row_wrong(asked: list[Question], folder: Path) -> None:
    answered = judged(asked, folder)
    assert [(one.question.id, one.verdict.reason) for one in answered if not one.verdict.right] == [
        ("count-seen-001", "there is no answer")
    ]
    assert scores([one.verdict for one in answered], held_out=True).overall == 1.0


def test_answers_that_meet_other_questions_are_mostly_wrong(asked: list[Question], folder: Path) -> None:
    chance = scores(shuffled(judged(asked, folder), seed=1))
    assert chance.overall < 0.2 and chance.captions.value < 0.2 and chance.edits_in_all.value < 0.2


def test_scores_verdicts_and_page_are_written_and_agree(
    asked: list[Question], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answered = judged(asked, folder)
    lines = {"seen": scores([one.verdict for one in answered], held_out=False)}
    evaluation = Evaluation(
        SETTINGS, 1, tuple(answered), lines, (Pace("generate", 22, None, 17.3), Pace("edit", 16, 1.5, 9.0))
    )
    write(evaluation, tmp_path)
    told = json.loads((tmp_path / "scores.json").read_text())
    assert told["scores"]["seen"]["generation"]["count"] == {"right": 1, "total": 2, "share": 0.5}
    verdicts = [json.loads(line) for line in (tmp_path / "verdicts.jsonl").read_text().splitlines()]
    assert [one["id"] for one in verdicts] == [one.id for one in asked]
    assert "✗ wrong: there is no answer" in (tmp_path / "report.html").read_text()
    show(tables(lines))
    printed = capsys.readouterr().out
    assert "| Single | Two | Count | Colour | Position | Attribute | Overall |".replace(" ", "") in printed.replace(
        " ", ""
    )
    assert "evaluated on 22 prompts, 16 edits; seed 1." in summary(evaluation)[0]
    assert summary(evaluation)[3] == "edit: 9.0 images/s in one replica, 1.5 images/s in the whole job"
    assert "16 iterations, 50 diffusion steps, guidance 3 (constant)" in summary(evaluation)[1]


@pytest.mark.parametrize("task", ["generate", "caption", "edit"])
def test_the_jobs_are_valid_and_no_replica_is_without_work(task: str, tmp_path: Path) -> None:
    job = JOBS[task].model_validate(SETTINGS.job(task, tmp_path, rows=20))
    assert job.compute.replicas.max == 1
    assert JOBS[task].model_validate(SETTINGS.job(task, tmp_path, rows=2000)).compute.replicas.max == 2


def test_a_manifest_that_says_the_same_is_not_touched_and_another_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write_manifest(path, [{"id": "a", "prompt": "x"}])
    before = path.stat().st_mtime_ns
    write_manifest(path, [{"id": "a", "prompt": "x"}])
    assert path.stat().st_mtime_ns == before
    with pytest.raises(JobError, match=r"m\.parquet exists with other rows"):
        write_manifest(path, [{"id": "a", "prompt": "y"}])
    assert rows_of(tmp_path / "nothing") == {}


def test_an_evaluations_option_that_no_job_takes_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--num-iterations", "5000", "--batch-size", "9999", "--output", str(tmp_path / "evaluation")]
    with pytest.raises(SystemExit, match="1"):
        main(["evaluate", "shapes", *options])
    said = capsys.readouterr().err
    assert "--num-iterations: must be at most 4096, got 5000" in said
    assert "--batch-size: must be at most 4096, got 9999" in said
    assert "pydantic" not in said and "fault of UniPic" not in said
    assert not (tmp_path / "evaluation").exists()
