"""Score a checkpoint of the shapes world: `python -m model.tiny.evaluate CHECKPOINT`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from model.engine import CaptionItem, CaptionSettings, EditItem, Engine, GenerateItem, SamplingSettings
from model.prompts import DEFAULT_QUESTION
from model.tiny.edits import KINDS, instruction_text
from model.tiny.grammar import prompt_text
from model.tiny.samplers import (
    CaptionCase,
    EditCase,
    PromptCase,
    caption_cases,
    edit_cases,
    prompt_cases,
)
from model.tiny.scene import render
from model.tiny.score import Verdict, judge_caption, judge_edit, judge_picture, table

T = TypeVar("T")
SETTINGS = SamplingSettings(image_size=64, num_iterations=16, guidance=3.0, diffusion_steps=50)
CAPTIONS = CaptionSettings(image_size=64, max_new_tokens=16)
_BATCH = 64


def draw(engine: Engine, cases: Sequence[PromptCase], settings: SamplingSettings = SETTINGS) -> list[np.ndarray]:
    """One picture (64, 64, 3) uint8 for each prompt, seeded by its number."""
    pictures: list[np.ndarray] = []
    for batch in _batches(cases):
        items = [GenerateItem(prompt_text(case.phrase), seed=len(pictures) + i) for i, case in enumerate(batch)]
        pictures.extend(engine.generate(items, settings))
    return pictures


def edit(engine: Engine, cases: Sequence[EditCase], settings: SamplingSettings = SETTINGS) -> list[np.ndarray]:
    pictures: list[np.ndarray] = []
    for batch in _batches(cases):
        items = [
            EditItem(instruction_text(case.edit), render(case.source), seed=len(pictures) + i)
            for i, case in enumerate(batch)
        ]
        pictures.extend(engine.edit(items, settings))
    return pictures


def describe(engine: Engine, cases: Sequence[CaptionCase]) -> list[str]:
    return [
        caption
        for batch in _batches(cases)
        for caption in engine.caption([CaptionItem(DEFAULT_QUESTION, render(case.scene)) for case in batch], CAPTIONS)
    ]


def _batches(cases: Sequence[T]) -> Iterator[Sequence[T]]:
    for first in range(0, len(cases), _BATCH):
        yield cases[first : first + _BATCH]


def judge_all(engine: Engine, *, per_task: int, per_kind: int, seed: int) -> list[Verdict]:
    """Verdicts of all three tasks over freshly drawn evaluation sets."""
    prompts, scenes = prompt_cases(per_task=per_task, seed=seed), caption_cases(per_kind=per_kind, seed=seed)
    edits = edit_cases(per_kind=per_kind, seed=seed)
    drawn = zip(prompts, draw(engine, prompts), strict=True)
    verdicts = [judge_picture(case.phrase, picture, held_out=case.held_out) for case, picture in drawn]
    told = zip(scenes, describe(engine, scenes), strict=True)
    verdicts += [judge_caption(case.scene, caption, held_out=case.held_out) for case, caption in told]
    edited = zip(edits, edit(engine, edits), strict=True)
    return verdicts + [judge_edit(c.source, c.edit, picture, held_out=c.held_out) for c, picture in edited]


def report(verdicts: Sequence[Verdict]) -> str:
    """The three tables: generation by task, captions, edits by kind."""
    tables = {"Generation": table(verdicts), "Captions": table(verdicts, groups=("caption",))}
    tables["Edits"] = table(verdicts, groups=KINDS)
    return "\n\n".join(f"{title}\n\n{text}" for title, text in tables.items())


def sample_sheet(folder: Path, *, columns: int = 12) -> tuple[np.ndarray, str]:
    """Generated pictures over sources and their edits, (192, 64 · columns, 3), and what was asked and told."""
    engine = Engine.load(folder)
    prompts, edits = (
        prompt_cases(per_task=columns // 11 + 1, seed=7)[:columns],
        edit_cases(per_kind=2, seed=7)[:columns],
    )
    captions = [CaptionCase(scene=case.scene, held_out=case.held_out) for case in prompts]
    pictures = [draw(engine, prompts), [render(case.source) for case in edits], edit(engine, edits)]
    rows = [np.concatenate(row[: min(map(len, pictures))], axis=1) for row in pictures]
    asked = "; ".join(prompt_text(case.phrase) for case in prompts)
    changed = "; ".join(instruction_text(case.edit) for case in edits)
    told = "; ".join(describe(engine, captions))
    return np.concatenate(rows, axis=0), f"drawn: {asked}\nedited: {changed}\ntold: {told}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--per-task", type=int, default=110, help="prompts of each task, seen and held out each")
    parser.add_argument("--per-kind", type=int, default=80, help="captions and edits of each kind, likewise")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    engine = Engine.load(given.checkpoint)
    print(report(judge_all(engine, per_task=given.per_task, per_kind=given.per_kind, seed=given.seed)))


if __name__ == "__main__":
    main()
