"""An engine's answers to the shapes world's questions, without the pipeline: for tests and training samples.

`unipic evaluate shapes` runs the same questions through the whole pipeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from unipic.model.engine import CaptionItem, CaptionSettings, EditItem, Engine, GenerateItem, SamplingSettings
from unipic.model.prompts import DEFAULT_QUESTION
from unipic.model.tiny.world.questions import IMAGE_SIZE, MAX_CAPTION_TOKENS, Question, question, questions
from unipic.model.tiny.world.samplers import CaptionCase, PromptCase
from unipic.model.tiny.world.score import Answer

SETTINGS = SamplingSettings(image_size=IMAGE_SIZE, num_iterations=16, guidance=3.0, diffusion_steps=50)
CAPTIONS = CaptionSettings(image_size=IMAGE_SIZE, max_new_tokens=MAX_CAPTION_TOKENS)
_BATCH = 64


def ask(engine: Engine, asked: Sequence[Question], *, settings: SamplingSettings = SETTINGS) -> list[Answer]:
    """Answers to questions of any tasks, in their order; each row is seeded by its place."""
    answers: dict[int, Answer] = {}
    for task in ("generate", "caption", "edit"):
        places = [place for place, one in enumerate(asked) if one.task == task]
        for first in range(0, len(places), _BATCH):
            batch = places[first : first + _BATCH]
            answers.update(zip(batch, _answers(engine, task, [(n, asked[n]) for n in batch], settings), strict=True))
    return [answers[place] for place in range(len(asked))]


def _answers(
    engine: Engine, task: str, batch: Sequence[tuple[int, Question]], settings: SamplingSettings
) -> Iterable[Answer]:
    if task == "generate":
        return engine.generate([GenerateItem(one.text, seed=place) for place, one in batch], settings)
    if task == "edit":
        return engine.edit([EditItem(one.text, _picture(one), seed=place) for place, one in batch], settings)
    return engine.caption([CaptionItem(one.text or DEFAULT_QUESTION, _picture(one)) for _, one in batch], CAPTIONS)


def _picture(asked: Question) -> np.ndarray:
    assert asked.picture is not None, f"{asked.id} has no picture"
    return asked.picture


def sample_sheet(folder: Path, *, columns: int = 11) -> tuple[np.ndarray, str]:
    """Generated images over sources and their edits, (192, 64 · columns, 3), and their prompts and captions."""
    asked = questions(prompts=columns, captions=1, edits=columns, seed=7)
    prompts = [one for one in asked if one.task == "generate"][:columns]
    edits = [one for one in asked if one.task == "edit"][:columns]
    scenes = [CaptionCase(one.case.scene, held_out=False) for one in prompts if isinstance(one.case, PromptCase)]
    described = [question("caption", case) for case in scenes]
    answers = ask(Engine.load(folder), [*prompts, *edits, *described])
    pictures = [np.asarray(answer) for answer in answers[: 2 * columns]]
    rows = [pictures[:columns], [_picture(one) for one in edits], pictures[columns:]]
    words = {"drawn": [one.text for one in prompts], "edited": [one.text for one in edits]}
    words["told"] = [str(answer) for answer in answers[2 * columns :]]
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)
    return sheet, "\n".join(f"{what}: {'; '.join(texts)}" for what, texts in words.items())
