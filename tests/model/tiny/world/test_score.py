from __future__ import annotations

import math
import random

import numpy as np
import pytest

from unipic.model.tiny.world.edits import parse_instruction
from unipic.model.tiny.world.grammar import caption_text, parse_prompt
from unipic.model.tiny.world.samplers import caption_cases, edit_cases, prompt_cases
from unipic.model.tiny.world.scene import Scene, render, thing_at
from unipic.model.tiny.world.score import Share, Verdict, judge, judge_caption, judge_edit, judge_picture, scores


def _scene(*things: tuple[int, str, str]) -> Scene:
    return Scene(
        tuple(thing_at(place, shape=shape, colour=colour, size="large") for place, colour, shape in things), "silver"
    )


def test_right_pictures_captions_and_edits_all_score_right() -> None:
    prompts = [judge_picture(c.phrase, render(c.scene), held_out=c.held_out) for c in prompt_cases(per_task=15, seed=1)]
    captions = [
        judge_caption(c.scene, caption_text(c.scene), held_out=c.held_out) for c in caption_cases(per_kind=15, seed=1)
    ]
    edits = [
        judge_edit(c.source, c.edit, render(c.target), held_out=c.held_out) for c in edit_cases(per_kind=15, seed=1)
    ]
    assert [verdict.reason for verdict in (*prompts, *captions, *edits) if not verdict.right] == []


def test_shuffled_pairs_score_near_chance() -> None:
    cases = prompt_cases(per_task=60, seed=2)
    pictures = [render(case.scene) for case in cases]
    random.Random(0).shuffle(pictures)
    verdicts = [judge_picture(c.phrase, p, held_out=c.held_out) for c, p in zip(cases, pictures, strict=True)]
    assert scores(verdicts).overall < 0.06
    captions = caption_cases(per_kind=60, seed=2)
    texts = [caption_text(case.scene) for case in captions]
    random.Random(0).shuffle(texts)
    told = [judge_caption(c.scene, text, held_out=False) for c, text in zip(captions, texts, strict=True)]
    assert scores(told).captions.value < 0.06


def test_returning_the_source_unchanged_is_no_edit() -> None:
    cases = edit_cases(per_kind=20, seed=3)
    assert not any(judge_edit(c.source, c.edit, render(c.source), held_out=False).right for c in cases)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (_scene((0, "green", "heart"), (3, "blue", "star")), "the blue star is not at its place"),
        (_scene((0, "red", "heart"), (1, "blue", "star")), "a red heart instead of a green heart"),
        (_scene((0, "green", "heart")), "1 things, not 2"),
        (_scene((0, "green", "heart"), (1, "pink", "star")), "a pink star instead of a blue star"),
    ],
)
def test_a_wrong_edit_says_why(result: Scene, reason: str) -> None:
    source = _scene((0, "red", "heart"), (1, "blue", "star"))
    verdict = judge_edit(source, parse_instruction("make the heart green"), render(result), held_out=False)
    assert verdict.reason == reason


def test_an_edit_must_leave_the_background_and_the_sizes_alone() -> None:
    source = _scene((0, "red", "heart"), (1, "blue", "star"))
    edit = parse_instruction("remove the heart")
    darker = Scene(source.things[1:], "dark")
    assert "background" in judge_edit(source, edit, render(darker), held_out=False).reason
    smaller = Scene((thing_at(1, shape="star", colour="blue", size="small"),), "silver")
    assert "size" in judge_edit(source, edit, render(smaller), held_out=False).reason


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("a red heart and a blue star", "omits the relation"),
        ("a heart left of a star", "omits a colour"),
        ("a red heart right of a blue star", "is not right of"),
        ("lovely shapes", "not a caption of this grammar"),
    ],
)
def test_a_wrong_caption_says_why(caption: str, reason: str) -> None:
    scene = _scene((0, "red", "heart"), (1, "blue", "star"))
    assert reason in judge_caption(scene, caption, held_out=False).reason
    assert judge_caption(scene, "A blue star right of a red heart.".lower(), held_out=False).right


def test_a_grey_nothing_is_wrong_with_a_reason() -> None:
    grey = np.full((64, 64, 3), 110, dtype=np.uint8)
    assert judge_picture(parse_prompt("a photo of a ring"), grey, held_out=False).reason


def test_overall_is_the_mean_of_the_tasks_and_seen_and_held_out_stay_apart() -> None:
    verdicts = [Verdict("single", False, "")] * 3 + [Verdict("single", False, "no")] + [Verdict("two", False, "")]
    verdicts += [Verdict("two", True, "no"), Verdict("caption", True, ""), Verdict("add", True, "")]
    seen, held_out, both = (scores(verdicts, held_out=which) for which in (False, True, None))
    assert seen.generation["single"] == Share(3, 4)
    assert (seen.overall, held_out.overall, both.overall) == (0.875, 0.0, (0.75 + 0.5) / 2)
    assert (seen.captions, held_out.captions) == (Share(0, 0), Share(1, 1))
    assert held_out.edits_in_all == Share(1, 1) and math.isnan(seen.edits_in_all.value)


def test_no_answer_is_a_wrong_answer() -> None:
    cases = [
        prompt_cases(per_task=1, seed=0)[0],
        caption_cases(per_kind=1, seed=0)[0],
        edit_cases(per_kind=1, seed=0)[0],
    ]
    verdicts = [judge(case, None) for case in cases]
    assert [verdict.group for verdict in verdicts] == ["single", "caption", "recolour"]
    assert {verdict.reason for verdict in verdicts} == {"there is no answer"}
