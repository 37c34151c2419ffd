"""One evaluation on the shapes world: runs the questions, computes scores and writes the reports."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipic.jobs.shapes.questions import TASKS, Answered, Settings, judged, png, run_questions, shuffled
from unipic.jobs.shapes.report import Card, Claim, Image, Section, page
from unipic.jobs.shapes.score_tables import as_data, tables
from unipic.jobs.terminal.exit_codes import REJECTED, STOPPED
from unipic.jobs.terminal.formatting import count, rate
from unipic.jobs.terminal.progress import Display
from unipic.jobs.terminal.signals import Signals

if TYPE_CHECKING:
    from unipic.model.tiny.world.score import Scores
    from unipic.pipeline.run import Result

Sizes = tuple[int, int, int]
"""Least numbers of prompts, captions and edits."""
UNTRAINED_SIZES: Sizes = (66, 64, 64)
SHOWN_PER_GROUP = 24
_NOUNS = {"generate": "prompts", "caption": "captions", "edit": "edits"}
_LABELS = {"generate": "prompt", "caption": "should say", "edit": "edit"}


class Incomplete(Exception):
    """A job ended early; `code` is the exit code of the command."""

    def __init__(self, result: Result) -> None:
        super().__init__(f"{result.output} has {result.ok:,} of {count(result.rows, 'row')}: {result.message}")
        self.code = STOPPED if result.outcome == "stopped" else REJECTED


@dataclass(frozen=True)
class Pace:
    """Speed of one job: rows/s of the whole job (None if earlier runs did part of it) and of one replica."""

    task: str
    rows: int
    job_rows_per_s: float | None
    replica_rows_per_s: float


@dataclass(frozen=True)
class Evaluation:
    """`scores`: by the name of the table row."""

    settings: Settings
    seed: int
    answered: tuple[Answered, ...]
    scores: dict[str, Scores]
    paces: tuple[Pace, ...]


def evaluate(
    sizes: Sizes, *, output: Path, settings: Settings, seed: int, untrained: bool, display: Display, signals: Signals
) -> Evaluation:
    """Runs or resumes an evaluation in `output`.

    Raises:
        Incomplete: a job stopped early, or rejected more rows than allowed.
        UniPicError: as `unipic.pipeline.run.run` does.
    """
    from unipic.model.tiny.world.score import scores

    answered, paces = _answers(sizes, output=output, settings=settings, seed=seed, display=display, signals=signals)
    verdicts = [each.verdict for each in answered]
    lines = {"seen": scores(verdicts, held_out=False), "held out": scores(verdicts, held_out=True)}
    lines["shuffled pairing"] = scores(shuffled(answered, seed=seed))
    if untrained:
        twin = output / "untrained" / "checkpoint"
        if not (twin / "digests.json").exists():
            from unipic.model.tiny.training.untrained import untrained_twin

            shutil.rmtree(twin, ignore_errors=True)
            untrained_twin(settings.checkpoint, twin)
        display.print("untrained twin:")
        fewer = tuple(map(min, sizes, UNTRAINED_SIZES))
        theirs, _ = _answers(
            (fewer[0], fewer[1], fewer[2]),
            output=twin.parent,
            settings=replace(settings, checkpoint=twin),
            seed=seed,
            display=display,
            signals=signals,
        )
        lines["untrained"] = scores(each.verdict for each in theirs)
    return Evaluation(settings, seed, tuple(answered), lines, tuple(paces))


def _answers(
    sizes: Sizes, *, output: Path, settings: Settings, seed: int, display: Display, signals: Signals
) -> tuple[list[Answered], list[Pace]]:
    from unipic.model.tiny.world.questions import questions

    asked = questions(prompts=sizes[0], captions=sizes[1], edits=sizes[2], seed=seed)
    results = run_questions(asked, folder=output, settings=settings, display=display, signals=signals)
    for result in results:
        if result.outcome != "done":
            raise Incomplete(result)
    return judged(asked, output), [_pace(task, result) for task, result in zip(TASKS, results, strict=True)]


def _pace(task: str, result: Result) -> Pace:
    from unipic.pipeline.output.ledger import Ledger
    from unipic.pipeline.storage.storage import Storage

    device_s = sum(receipt.facts.device_s for receipt in Ledger(result.output, Storage()).receipts())
    whole = None if result.earlier or not result.seconds else result.rows / result.seconds
    return Pace(task, result.rows, whole, result.rows / max(device_s, 1e-9))


def summary(evaluation: Evaluation) -> list[str]:
    """Sentences on the questions, the settings and the speed."""
    settings = evaluation.settings
    image = settings.image
    totals = ", ".join(f"{pace.rows:,} {_NOUNS[pace.task]}" for pace in evaluation.paces)
    texts = [
        f"{settings.checkpoint} evaluated on {totals}; seed {evaluation.seed}.",
        f"{image['num_iterations']} iterations, {image['diffusion_steps']} diffusion steps, guidance "
        f"{image['guidance']:g} ({image['guidance_schedule']}), temperature {image['temperature']:g}, "
        f"{settings.dtype} on {settings.device}, batches of {settings.compute['batch_size']}, "
        f"{count(settings.replicas, 'replica')}.",
    ]
    for pace in evaluation.paces:
        nouns = "captions" if pace.task == "caption" else "images"
        whole = "" if pace.job_rows_per_s is None else f", {rate(pace.job_rows_per_s, nouns)} in the whole job"
        texts.append(f"{pace.task}: {rate(pace.replica_rows_per_s, nouns)} in one replica{whole}")
    return texts


def as_facts(evaluation: Evaluation) -> dict[str, Any]:
    """What scores.json holds."""
    settings = evaluation.settings
    return {
        "checkpoint": str(settings.checkpoint),
        "seed": evaluation.seed,
        "settings": {
            **settings.image,
            "dtype": settings.dtype,
            "device": settings.device,
            **settings.compute,
            "replicas": settings.replicas,
        },
        "scores": {name: as_data(scores) for name, scores in evaluation.scores.items()},
        "pace": [asdict(pace) for pace in evaluation.paces],
    }


def write(evaluation: Evaluation, output: Path) -> None:
    """Writes scores.json, verdicts.jsonl and report.html to the output folder."""
    (output / "scores.json").write_text(json.dumps(as_facts(evaluation), indent=1) + "\n", encoding="utf-8")
    lines = (json.dumps(_as_data(each), ensure_ascii=False) + "\n" for each in evaluation.answered)
    (output / "verdicts.jsonl").write_text("".join(lines), encoding="utf-8")
    html = page(
        title="Shapes world: images, captions and edits",
        lead=summary(evaluation),
        tables=tables(evaluation.scores),
        sections=list(_sections(evaluation.answered)),
    )
    (output / "report.html").write_text(html, encoding="utf-8")


def _as_data(answered: Answered) -> dict[str, object]:
    return {
        "id": answered.question.id,
        "task": answered.question.task,
        **asdict(answered.verdict),
        "asked": asked_text(answered),
        "answer": answered.answer if isinstance(answered.answer, str) else None,
        "lineage_id": answered.lineage_id,
    }


def asked_text(answered: Answered) -> str:
    """The prompt or instruction; for a caption, the expected text."""
    from unipic.model.tiny.world.grammar import caption_text
    from unipic.model.tiny.world.samplers import CaptionCase

    case = answered.question.case
    return caption_text(case.scene) if isinstance(case, CaptionCase) else answered.question.text


def _sections(answered: Iterable[Answered]) -> Iterator[Section]:
    """One section per group, seen and held out separately, with its first cases in order."""
    groups: dict[str, list[Answered]] = {}
    for each in answered:
        name = f"{each.verdict.group}, {'held out' if each.verdict.held_out else 'seen'}"
        groups.setdefault(name, []).append(each)
    for name, group in groups.items():
        right = sum(each.verdict.right for each in group)
        shown = group[:SHOWN_PER_GROUP]
        text = f"{right} of {len(group)} right; the first {len(shown)} follow. verdicts.jsonl has all of them."
        yield Section(name.capitalize(), text, tuple(card_of(each) for each in shown))


def card_of(answered: Answered) -> Card:
    images: list[Image] = []
    if answered.question.picture is not None:
        images.append(Image(png(answered.question.picture), "before" if answered.question.task == "edit" else ""))
    text = "" if answered.answer is None else "this image"
    if isinstance(answered.answer, str):
        text = answered.answer
    elif answered.answer is not None:
        images.append(Image(png(answered.answer), "after" if answered.question.task == "edit" else ""))
    verdict = Claim("answer", text, "right" if answered.verdict.right else "wrong", answered.verdict.reason)
    notes = (f"lineage {answered.lineage_id[:16]}",) if answered.lineage_id else ()
    claims = (Claim(_LABELS[answered.question.task], asked_text(answered)), verdict)
    return Card(answered.question.id, tuple(images), claims, notes)
