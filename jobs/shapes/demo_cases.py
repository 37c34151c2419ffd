"""Inputs and results of the demo: prompts of the shapes world, edits of its images, verdicts and a report."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipic.jobs.shapes.questions import pixels_of, rows_of, write_manifest
from unipic.jobs.shapes.report import Card, Claim, Image, Mark, Section, Table, page
from unipic.jobs.shapes.score_tables import tables
from unipic.jobs.terminal.formatting import count

if TYPE_CHECKING:
    from unipic.model.tiny.world.samplers import EditCase, PromptCase
    from unipic.model.tiny.world.score import Verdict

PROMPTS_PER_TASK = 16
EDITS = 24
_SEED = 5
_RANDOM = "The weights are random, so images and captions are noise; the pipeline is the real one."

Rows = Mapping[str, Mapping[str, Any]]
"""Data rows of an output by id."""


@dataclass(frozen=True)
class Edited:
    """An edit; `case` is None if no scene can be read from its image."""

    id: str
    source: str
    instruction: str
    case: EditCase | None


def draw_prompts() -> dict[str, PromptCase]:
    """Prompts of GenEval's six tasks by id; half of them are held out if the task holds any out."""
    from unipic.model.tiny.world.grammar import TASKS
    from unipic.model.tiny.world.samplers import prompt_cases

    prompts: dict[str, PromptCase] = {}
    cases = prompt_cases(per_task=PROMPTS_PER_TASK, seed=_SEED)
    for task in TASKS:
        held_out = [case for case in cases if case.phrase.task == task and case.held_out][: PROMPTS_PER_TASK // 2]
        seen = [case for case in cases if case.phrase.task == task and not case.held_out]
        chosen = [*seen[: PROMPTS_PER_TASK - len(held_out)], *held_out]
        prompts |= {f"{task}-{number:02d}": case for number, case in enumerate(chosen, start=1)}
    return prompts


def write_prompts(path: Path, prompts: Mapping[str, PromptCase]) -> None:
    from unipic.model.tiny.world.grammar import prompt_text

    rows = [{"key": key, "prompt": prompt_text(case.phrase)} for key, case in prompts.items()]
    write_manifest(path, rows)


def choose_edits(prompts: Mapping[str, PromptCase], images: Path) -> list[Edited]:
    """Edits of images that match their prompts, and of others if those are too few."""
    from unipic.model.tiny.world.edits import Edit, instruction_text
    from unipic.model.tiny.world.reading import draw_edit, edit_case_of, read_scene
    from unipic.model.tiny.world.score import judge

    rng, rows = random.Random(_SEED), rows_of(images)
    names = rng.sample(sorted(rows), len(rows))
    edits: list[Edited] = []
    for name in names:
        pixels = pixels_of(rows[name]["image"]["bytes"])
        scene = read_scene(pixels)
        if scene is None or len(edits) == EDITS or not judge(prompts[name], pixels).right:
            continue
        if edit := draw_edit(rng, scene, first_kind=len(edits)):
            edits.append(_edited(len(edits), name, instruction_text(edit), edit_case_of(scene, edit)))
    taken = {edit.source for edit in edits}
    for name in [name for name in names if name not in taken][: EDITS - len(edits)]:
        shape = prompts[name].phrase.nouns[0].shape
        edits.append(_edited(len(edits), name, instruction_text(Edit("recolour", shape, colour="blue")), None))
    return edits


def _edited(place: int, source: str, instruction: str, case: EditCase | None) -> Edited:
    return Edited(f"edit-{place + 1:02d}", source, instruction, case)


def write_edits(path: Path, edits: Sequence[Edited], images: Path) -> None:
    """Writes a manifest of images of another job; their `lineage` column names the rows they come from."""
    rows = rows_of(images)
    write_manifest(
        path,
        [
            {
                "id": edit.id,
                "picture": edit.source,
                "image": rows[edit.source]["image"],
                "prompt": edit.instruction,
                "lineage": rows[edit.source]["lineage"],
            }
            for edit in edits
        ],
    )


def judge_all(prompts: Mapping[str, PromptCase], edits: Sequence[Edited], folder: Path, *, trained: bool) -> list[str]:
    """Judges all outputs in `folder`, writes `report.html` there, and returns the scores as a few lines."""
    from unipic.model.tiny.world.score import scores

    images, captions, edited = (rows_of(folder / name) for name in ("pictures", "captions", "edits"))
    drawn = [_image_card(name, case, images, captions) for name, case in prompts.items()]
    changed = [_edit_card(edit, images, edited) for edit in edits]
    verdicts = [verdict for _, judged in (*drawn, *changed) for verdict in judged]
    lines = {"seen": scores(verdicts, held_out=False), "held out": scores(verdicts, held_out=True)}
    summary = _summary(verdicts) + ([] if trained else [_RANDOM])
    (folder / "report.html").write_text(_page(summary, tables(lines), prompts, drawn, changed), encoding="utf-8")
    return summary


_Judged = tuple[Card, list["Verdict"]]


def _image_card(name: str, case: PromptCase, images: Rows, captions: Rows) -> _Judged:
    """The image of a prompt and its caption, with verdicts; the caption is judged by what the image shows."""
    from unipic.model.tiny.world.grammar import prompt_text
    from unipic.model.tiny.world.reading import caption_case_of, read_scene
    from unipic.model.tiny.world.score import judge

    row, described = images.get(name), captions.get(name)
    pixels = pixels_of(row["image"]["bytes"]) if row else None
    verdicts = [judge(case, pixels)]
    claims = [Claim("prompt", prompt_text(case.phrase), *_mark(verdicts[0]))]
    scene = None if pixels is None else read_scene(pixels)
    if described and scene and (expected := caption_case_of(scene)):
        verdicts.append(judge(expected, described["caption"]))
        claims.append(Claim("caption", described["caption"], *_mark(verdicts[1])))
    elif described:
        claims.append(Claim("caption", described["caption"], "open", "the detector reads no scene from the image"))
    shown = (Image(row["image"]["bytes"]),) if row else ()
    return Card(name, shown, tuple(claims), _notes({"image": row, "caption": described})), verdicts


def _edit_card(edit: Edited, images: Rows, edited: Rows) -> _Judged:
    from unipic.model.tiny.world.score import judge

    before, after = images[edit.source], edited.get(edit.id)
    shown = [Image(before["image"]["bytes"], "before")]
    if after:
        shown.append(Image(after["image"]["bytes"], "after"))
    verdicts = []
    if edit.case is None:
        claim = Claim("edit", edit.instruction, "open", "the detector reads no scene from the source image")
    else:
        verdicts.append(judge(edit.case, pixels_of(after["image"]["bytes"]) if after else None))
        claim = Claim("edit", edit.instruction, *_mark(verdicts[0]))
    notes = _notes({"edit": after, f"of {edit.source}": before})
    return Card(edit.id, tuple(shown), (claim,), notes), verdicts


def _mark(verdict: Verdict) -> tuple[Mark, str]:
    return ("right" if verdict.right else "wrong"), verdict.reason


def _notes(rows: Mapping[str, Mapping[str, Any] | None]) -> tuple[str, ...]:
    return tuple(f"{name} {row['lineage']['lineage_id'].hex()[:16]}" for name, row in rows.items() if row)


def _summary(verdicts: Sequence[Verdict]) -> list[str]:
    """The scores as three lines."""
    from unipic.model.tiny.world.edits import KINDS
    from unipic.model.tiny.world.grammar import TASKS
    from unipic.model.tiny.world.score import CAPTION

    lines = []
    for noun, groups in (("image", TASKS), ("caption", (CAPTION,)), ("edit", KINDS)):
        ours = [verdict for verdict in verdicts if verdict.group in groups]
        parts = []
        for held_out, name in ((False, "seen"), (True, "held out")):
            part = [verdict.right for verdict in ours if verdict.held_out == held_out]
            parts.append(f"{name} {sum(part)} of {len(part)}")
        right = sum(verdict.right for verdict in ours)
        lines.append(f"{count(len(ours), noun)} judged, {right} right ({', '.join(parts)})")
    return lines


def _page(
    summary: Sequence[str],
    score_tables: Sequence[Table],
    prompts: Mapping[str, PromptCase],
    drawn: Sequence[_Judged],
    changed: Sequence[_Judged],
) -> str:
    sections = []
    for task in dict.fromkeys(case.phrase.task for case in prompts.values()):
        cards = tuple(card for card, _ in drawn if prompts[card.name].phrase.task == task)
        sections.append(Section(f"Images: {task}", "", cards))
    sections.append(Section("Edits", "Each starts from an image above.", tuple(card for card, _ in changed)))
    lead = [
        "Images from prompts, captions of those images and edits of some of them, by three jobs of UniPic Batch. "
        "A detector that is independent of the model judges them by shapes, colours and positions. "
        "Training never shows the combinations that are held out.",
        *summary,
        "The grey codes begin lineage ids: `unipic trace demo-output/edits ID` leads back to the prompt.",
    ]
    return page(title="UniPic Batch: the demo", lead=lead, tables=score_tables, sections=sections)
