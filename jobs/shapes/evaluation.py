"""One evaluation on the shapes world: run the questions, gather scores, write what can be read afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from unipic.jobs.shapes.questions import TASKS, Answered, Settings, judged, png, run_questions, shuffled
from unipic.jobs.shapes.report import Card, Claim, Picture, Section, page
from unipic.jobs.shapes.score_tables import as_data, tables
from unipic.jobs.terminal.exits import REJECTED, STOPPED
from unipic.jobs.terminal.progress import Display
from unipic.jobs.terminal.signals import Signals
from unipic.jobs.terminal.words import count, rate

if TYPE_CHECKING:
    from unipic.model.tiny.world.score import Scores
    from unipic.pipeline.run import Result

Sizes = tuple[int, int, int]
"""At least so many prompts, captions and edits."""
UNTRAINED_SIZES: Sizes = (66, 64, 64)
SHOWN_PER_GROUP = 24
_WHAT = {"generate": "prompts", "caption": "captions", "edit": "edits"}
_ASKED = {"generate": "prompt", "caption": "should say", "edit": "edit"}


class NotDone(Exception):
    """A job ended early; `code` is what the command should exit with."""

    def __init__(self, result: Result) -> None:
        super().__init__(f"{result.ok:,} of {count(result.rows, 'row')} of {result.output} are done, {result.message}")
        self.code = STOPPED if result.outcome == "stopped" else REJECTED


@dataclass(frozen=True)
class Pace:
    """How fast one job was: rows/s of the whole job, None where earlier runs did some of it, and of one replica."""

    task: str
    rows: int
    job_rows_per_s: float | None
    replica_rows_per_s: float


@dataclass(frozen=True)
class Evaluation:
    """`lines`: what a row of the tables is called, and its scores."""

    settings: Settings
    seed: int
    answered: tuple[Answered, ...]
    lines: dict[str, Scores]
    paces: tuple[Pace, ...]


def evaluate(
    sizes: Sizes, *, output: Path, settings: Settings, seed: int, untrained: bool, display: Display, signals: Signals
) -> Evaluation:
    """Do what is left of an evaluation in `output`.

    Raises:
        NotDone: a job was stopped, or more of its rows were rejected than is allowed.
        UniPicError: as `unipic.pipeline.run.run` does.
    """
    from unipic.model.tiny.world.score import scores

    answered, paces = _answers(sizes, output=output, settings=settings, seed=seed, display=display, signals=signals)
    verdicts = [one.verdict for one in answered]
    lines = {"seen": scores(verdicts, held_out=False), "held out": scores(verdicts, held_out=True)}
    lines["shuffled pairing"] = scores(shuffled(answered, seed=seed))
    if untrained:
        twin = output / "untrained" / "checkpoint"
        if not (twin / "digests.json").exists():
            from unipic.model.tiny.training.untrained import untrained_twin

            shutil.rmtree(twin, ignore_errors=True)
            untrained_twin(settings.checkpoint, twin)
        display.say("the same without training:")
        fewer = tuple(map(min, sizes, UNTRAINED_SIZES))
        theirs, _ = _answers(
            (fewer[0], fewer[1], fewer[2]),
            output=twin.parent,
            settings=replace(settings, checkpoint=twin),
            seed=seed,
            display=display,
            signals=signals,
        )
        lines["untrained"] = scores(one.verdict for one in theirs)
    return Evaluation(settings, seed, tuple(answered), lines, tuple(paces))


def _answers(
    sizes: Sizes, *, output: Path, settings: Settings, seed: int, display: Display, signals: Signals
) -> tuple[list[Answered], list[Pace]]:
    from unipic.model.tiny.world.questions import questions

    asked = questions(prompts=sizes[0], captions=sizes[1], edits=sizes[2], seed=seed)
    results = run_questions(asked, folder=output, settings=settings, display=display, signals=signals)
    for result in results:
        if result.outcome != "done":
            raise NotDone(result)
    return judged(asked, output), [_pace(task, result) for task, result in zip(TASKS, results, strict=True)]


def _pace(task: str, result: Result) -> Pace:
    from unipic.pipeline.output.ledger import Ledger
    from unipic.pipeline.storage.storage import Storage

    device_s = sum(receipt.facts["device_s"] for receipt in Ledger(result.output, Storage()).receipts())
    whole = None if result.earlier or not result.seconds else result.rows / result.seconds
    return Pace(task, result.rows, whole, result.rows / max(device_s, 1e-9))


def lead(evaluation: Evaluation) -> list[str]:
    """What was judged, how, and how fast it was, one sentence or two each."""
    settings = evaluation.settings
    image = settings.image
    totals = ", ".join(f"{pace.rows:,} {_WHAT[pace.task]}" for pace in evaluation.paces)
    texts = [
        f"{settings.checkpoint} judged on {totals}; seed {evaluation.seed}.",
        f"{image['num_iterations']} iterations, {image['diffusion_steps']} diffusion steps, guidance "
        f"{image['guidance']:g} ({image['guidance_schedule']}), temperature {image['temperature']:g}, "
        f"{settings.dtype} on {settings.device}, batches of {settings.compute['batch_size']}, "
        f"{count(settings.replicas, 'replica')}.",
    ]
    for pace in evaluation.paces:
        what = "captions" if pace.task == "caption" else "pictures"
        whole = "" if pace.job_rows_per_s is None else f", {rate(pace.job_rows_per_s, what)} in the whole job"
        texts.append(f"{pace.task}: {rate(pace.replica_rows_per_s, what)} in one replica{whole}")
    return texts


def write(evaluation: Evaluation, output: Path) -> None:
    """Write scores.json, verdicts.jsonl and report.html to the output folder."""
    settings = evaluation.settings
    body = {
        "checkpoint": str(settings.checkpoint),
        "seed": evaluation.seed,
        "settings": {
            **settings.image,
            "dtype": settings.dtype,
            "device": settings.device,
            **settings.compute,
            "replicas": settings.replicas,
        },
        "scores": {name: as_data(one) for name, one in evaluation.lines.items()},
        "pace": [asdict(pace) for pace in evaluation.paces],
    }
    (output / "scores.json").write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    lines = (json.dumps(_as_data(one), ensure_ascii=False) + "\n" for one in evaluation.answered)
    (output / "verdicts.jsonl").write_text("".join(lines), encoding="utf-8")
    html = page(
        title="How well it draws, describes and edits shapes",
        lead=lead(evaluation),
        tables=tables(evaluation.lines),
        sections=list(_sections(evaluation.answered)),
    )
    (output / "report.html").write_text(html, encoding="utf-8")


def _as_data(one: Answered) -> dict[str, object]:
    return {
        "id": one.question.id,
        "task": one.question.task,
        **asdict(one.verdict),
        "asked": asked_text(one),
        "answer": one.answer if isinstance(one.answer, str) else None,
        "lineage_id": one.lineage_id,
    }


def asked_text(one: Answered) -> str:
    """What was asked for, in words; of a caption, what it should say."""
    from unipic.model.tiny.world.grammar import caption_text
    from unipic.model.tiny.world.samplers import CaptionCase

    case = one.question.case
    return caption_text(case.scene) if isinstance(case, CaptionCase) else one.question.text


def _sections(answered: Iterable[Answered]) -> Iterator[Section]:
    """One section a group, seen and held out apart, with its first cases: nothing is picked."""
    groups: dict[str, list[Answered]] = {}
    for one in answered:
        name = f"{one.verdict.group}, {'held out' if one.verdict.held_out else 'seen'}"
        groups.setdefault(name, []).append(one)
    for name, ours in groups.items():
        right = sum(one.verdict.right for one in ours)
        shown = ours[:SHOWN_PER_GROUP]
        text = f"{right} of {len(ours)} right; here are the first {len(shown)}. verdicts.jsonl has all of them."
        yield Section(name.capitalize(), text, tuple(card_of(one) for one in shown))


def card_of(one: Answered) -> Card:
    pictures: list[Picture] = []
    if one.question.picture is not None:
        pictures.append(Picture(png(one.question.picture), "before" if one.question.task == "edit" else ""))
    told = "" if one.answer is None else "this picture"
    if isinstance(one.answer, str):
        told = one.answer
    elif one.answer is not None:
        pictures.append(Picture(png(one.answer), "after" if one.question.task == "edit" else ""))
    verdict = Claim("answer", told, "right" if one.verdict.right else "wrong", one.verdict.reason)
    notes = (f"lineage {one.lineage_id[:16]}",) if one.lineage_id else ()
    claims = (Claim(_ASKED[one.question.task], asked_text(one)), verdict)
    return Card(one.question.id, tuple(pictures), claims, notes)
