"""The shapes world's cases as rows of a manifest: an id, a text and, where one is needed, an image. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from unipic.model.tiny.world.edits import KINDS, instruction_text
from unipic.model.tiny.world.grammar import TASKS, prompt_text
from unipic.model.tiny.world.samplers import CaptionCase, PromptCase, caption_cases, edit_cases, prompt_cases
from unipic.model.tiny.world.scene import render
from unipic.model.tiny.world.score import Case, group_of

IMAGE_SIZE = 64
MAX_CAPTION_TOKENS = 24
"""The longest caption of the grammar has eleven tokens."""
# Every task, kind of scene and kind of edit, seen and held out; a single shape is never held out.
_PROMPT_GROUPS, _CAPTION_GROUPS, _EDIT_GROUPS = 2 * len(TASKS) - 1, 8, 2 * len(KINDS)


@dataclass(frozen=True)
class Question:
    """One case as a question for a model.

    Attributes:
        id: unique within its task; names its group, whether it is held out, and its number there.
        text: prompt or instruction; "" for a caption, which uses the default question.
        image: (64, 64, 3) uint8 to caption or to edit, None to generate.
    """

    id: str
    task: Literal["generate", "caption", "edit"]
    text: str
    picture: np.ndarray | None
    case: Case


def questions(*, prompts: int, captions: int, edits: int, seed: int) -> list[Question]:
    """At least this many questions per task, rounded up until all groups have equal numbers."""
    cases: list[Case] = [
        *prompt_cases(per_task=-(-prompts // _PROMPT_GROUPS), seed=seed),
        *caption_cases(per_kind=-(-captions // _CAPTION_GROUPS), seed=seed),
        *edit_cases(per_kind=-(-edits // _EDIT_GROUPS), seed=seed),
    ]
    counts: dict[str, int] = {}
    asked = []
    for case in cases:
        group = f"{group_of(case)}-{'held-out' if case.held_out else 'seen'}"
        counts[group] = counts.get(group, 0) + 1
        asked.append(question(f"{group}-{counts[group]:03d}", case))
    return asked


def question(name: str, case: Case) -> Question:
    """A case under the id `name`."""
    if isinstance(case, PromptCase):
        return Question(name, "generate", prompt_text(case.phrase), None, case)
    if isinstance(case, CaptionCase):
        return Question(name, "caption", "", render(case.scene), case)
    return Question(name, "edit", instruction_text(case.edit), render(case.source), case)
