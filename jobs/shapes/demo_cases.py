"""What the demo asks for, and what came of it: prompts of the shapes world, edits of the pictures, verdicts, a page."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unipic.jobs.shapes.questions import pixels_of, rows_of, write_manifest
from unipic.jobs.shapes.report import Card, Claim, Mark, Picture, Section, Table, page
from unipic.jobs.shapes.score_tables import tables
from unipic.jobs.terminal.words import count

if TYPE_CHECKING:
    from unipic.model.tiny.world.samplers import EditCase, PromptCase
    from unipic.model.tiny.world.score import Verdict

PROMPTS_PER_TASK = 16
EDITS = 24
_SEED = 5
_RANDOM = "The weights are random, so pictures and captions are noise; the way they took is the real one."

Rows = Mapping[str, Mapping[str, Any]]
"""Data rows of one job's output by their ids."""


@dataclass(frozen=True)
class Edited:
    """An edit to ask for; `case` is None where nobody can tell what its picture shows."""

    id: str
    picture: str
    instruction: str
    case: EditCase | None


def draw_prompts() -> dict[str, PromptCase]:
    """Prompts of each of GenEval's six tasks by their ids, half of them held out where a task can hold any out."""
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


def choose_edits(prompts: Mapping[str, PromptCase], pictures: Path) -> list[Edited]:
    """Edits of the pictures that came out as their prompts ask, and of others only where those are too few."""
    from unipic.model.tiny.world.edits import Edit, instruction_text
    from unipic.model.tiny.world.reading import draw_edit, edit_case_of, read_scene
    from unipic.model.tiny.world.score import judge

    rng, rows = random.Random(_SEED), rows_of(pictures)
    names = rng.sample(sorted(rows), len(rows))
    edits: list[Edited] = []
    for name in names:
        picture = pixels_of(rows[name]["image"]["bytes"])
        scene = read_scene(picture)
        if scene is None or len(edits) == EDITS or not judge(prompts[name], picture).right:
            continue
        if edit := draw_edit(rng, scene, first_kind=len(edits)):
            edits.append(_edited(len(edits), name, instruction_text(edit), edit_case_of(scene, edit)))
    taken = {edit.picture for edit in edits}
    for name in [name for name in names if name not in taken][: EDITS - len(edits)]:
        shape = prompts[name].phrase.nouns[0].shape
        edits.append(_edited(len(edits), name, instruction_text(Edit("recolour", shape, colour="blue")), None))
    return edits


def _edited(place: int, picture: str, instruction: str, case: EditCase | None) -> Edited:
    return Edited(f"edit-{place + 1:02d}", picture, instruction, case)


def write_edits(path: Path, edits: Sequence[Edited], pictures: Path) -> None:
    """A manifest of some pictures of another job: their `lineage` column says whose outputs they are."""
    rows = rows_of(pictures)
    write_manifest(
        path,
        [
            {
                "id": edit.id,
                "picture": edit.picture,
                "image": rows[edit.picture]["image"],
                "prompt": edit.instruction,
                "lineage": rows[edit.picture]["lineage"],
            }
            for edit in edits
        ],
    )


def tell(prompts: Mapping[str, PromptCase], edits: Sequence[Edited], folder: Path, *, trained: bool) -> list[str]:
    """Judges everything in `folder`, writes `report.html` there, and returns the scores in a few lines."""
    from unipic.model.tiny.world.score import scores

    pictures, captions, edited = (rows_of(folder / name) for name in ("pictures", "captions", "edits"))
    drawn = [_picture_card(name, case, pictures, captions) for name, case in prompts.items()]
    changed = [_edit_card(edit, pictures, edited) for edit in edits]
    verdicts = [verdict for _, found in (*drawn, *changed) for verdict in found]
    lines = {"seen": scores(verdicts, held_out=False), "held out": scores(verdicts, held_out=True)}
    told = _summary(verdicts) + ([] if trained else [_RANDOM])
    shown = tables(lines)
    (folder / "report.html").write_text(_page(told, shown, prompts, drawn, changed), encoding="utf-8")
    return told


_Judged = tuple[Card, list["Verdict"]]


def _picture_card(name: str, case: PromptCase, pictures: Rows, captions: Rows) -> _Judged:
    """One prompt's picture and its caption, with verdicts on both; a caption is judged by what the picture shows."""
    from unipic.model.tiny.world.grammar import prompt_text
    from unipic.model.tiny.world.reading import caption_case_of, read_scene
    from unipic.model.tiny.world.score import judge

    row, told = pictures.get(name), captions.get(name)
    pixels = pixels_of(row["image"]["bytes"]) if row else None
    verdicts = [judge(case, pixels)]
    claims = [Claim("prompt", prompt_text(case.phrase), *_mark(verdicts[0]))]
    scene = None if pixels is None else read_scene(pixels)
    if told and scene and (described := caption_case_of(scene)):
        verdicts.append(judge(described, told["caption"]))
        claims.append(Claim("caption", told["caption"], *_mark(verdicts[1])))
    elif told:
        claims.append(
            Claim("caption", told["caption"], "open", "no scene that has a caption can be read from the picture")
        )
    shown = (Picture(row["image"]["bytes"]),) if row else ()
    return Card(name, shown, tuple(claims), _notes({"picture": row, "caption": told})), verdicts


def _edit_card(edit: Edited, pictures: Rows, edited: Rows) -> _Judged:
    from unipic.model.tiny.world.score import judge

    before, after = pictures[edit.picture], edited.get(edit.id)
    shown = [Picture(before["image"]["bytes"], "before")]
    if after:
        shown.append(Picture(after["image"]["bytes"], "after"))
    verdicts = []
    if edit.case is None:
        claim = Claim("edit", edit.instruction, "open", "no scene can be read from the picture before it")
    else:
        verdicts.append(judge(edit.case, pixels_of(after["image"]["bytes"]) if after else None))
        claim = Claim("edit", edit.instruction, *_mark(verdicts[0]))
    notes = _notes({"edit": after, f"of {edit.picture}": before})
    return Card(edit.id, tuple(shown), (claim,), notes), verdicts


def _mark(verdict: Verdict) -> tuple[Mark, str]:
    return ("right" if verdict.right else "wrong"), verdict.reason


def _notes(rows: Mapping[str, Mapping[str, Any] | None]) -> tuple[str, ...]:
    return tuple(f"{what} {row['lineage']['lineage_id'][:16]}" for what, row in rows.items() if row)


def _summary(verdicts: Sequence[Verdict]) -> list[str]:
    """The scores in three lines."""
    from unipic.model.tiny.world.edits import KINDS
    from unipic.model.tiny.world.grammar import TASKS
    from unipic.model.tiny.world.score import CAPTION

    lines = []
    for what, groups in (("picture", TASKS), ("caption", (CAPTION,)), ("edit", KINDS)):
        ours = [one for one in verdicts if one.group in groups]
        parts = []
        for held_out, name in ((False, "seen"), (True, "held out")):
            part = [one.right for one in ours if one.held_out == held_out]
            parts.append(f"{name} {sum(part)} of {len(part)}")
        right = sum(one.right for one in ours)
        lines.append(f"{count(len(ours), what)} judged, {right} right ({', '.join(parts)})")
    return lines


def _page(
    told: Sequence[str],
    shown: Sequence[Table],
    prompts: Mapping[str, PromptCase],
    drawn: Sequence[_Judged],
    changed: Sequence[_Judged],
) -> str:
    sections = []
    for task in dict.fromkeys(case.phrase.task for case in prompts.values()):
        cards = tuple(card for card, _ in drawn if prompts[card.name].phrase.task == task)
        sections.append(Section(f"Pictures: {task}", "", cards))
    sections.append(Section("Edits", "Each starts from a picture above.", tuple(card for card, _ in changed)))
    lead = [
        "Pictures from prompts, captions of those pictures and edits of some of them, by three jobs of UniPic Batch. "
        "A detector that shares nothing with the model judges them: it looks for the shapes, their colours and places. "
        "Held out means that training never showed such a combination.",
        *told,
        "The grey codes begin lineage ids: unipic trace demo-output/edits ID walks one back to its prompt.",
    ]
    return page(title="UniPic Batch: the demo", lead=lead, tables=shown, sections=sections)
