from __future__ import annotations

import random

import pytest

from unipic.model.tiny.world.edits import KINDS, Edit, apply_edit, instruction_text, parse_instruction
from unipic.model.tiny.world.grammar import (
    TASKS,
    Noun,
    Phrase,
    caption_phrase,
    caption_text,
    holds,
    parse_phrase,
    parse_prompt,
    prompt_text,
)
from unipic.model.tiny.world.samplers import edit_case, phrase_for, task_scene
from unipic.model.tiny.world.scene import Scene, thing_at


def _scene(*things: tuple[int, str, str]) -> Scene:
    return Scene(
        tuple(thing_at(place, shape=shape, colour=colour, size="small") for place, colour, shape in things), "white"
    )


def _holds(phrase: Phrase, scene: Scene) -> str | None:
    nouns = tuple(Noun(thing.shape, thing.colour) for thing in scene.things)
    return holds(phrase, nouns, tuple((thing.x, thing.y) for thing in scene.things))


@pytest.mark.parametrize("task", TASKS)
def test_prompts_are_read_back_and_hold_of_their_own_scene(task: str) -> None:
    rng = random.Random(1)
    for _ in range(200):
        scene = task_scene(rng, task)
        phrase = phrase_for(rng, scene, task)
        assert phrase.task == task
        assert parse_prompt(prompt_text(phrase)) == phrase
        assert _holds(phrase, scene) is None


@pytest.mark.parametrize("task", TASKS)
def test_the_canonical_caption_is_read_back_and_holds(task: str) -> None:
    rng = random.Random(2)
    for _ in range(200):
        scene = task_scene(rng, task)
        assert parse_phrase(caption_text(scene)) == caption_phrase(scene)
        assert _holds(caption_phrase(scene), scene) is None


def test_captions_name_the_relation_of_things_in_line_and_numbers_of_equal_things() -> None:
    assert caption_text(_scene((0, "red", "heart"), (1, "orange", "star"))) == "a red heart left of an orange star"
    assert caption_text(_scene((1, "red", "heart"), (3, "blue", "star"))) == "a red heart above a blue star"
    assert caption_text(_scene((1, "red", "heart"), (2, "blue", "star"))) == "a red heart and a blue star"
    assert caption_text(_scene((0, "red", "cross"), (1, "red", "cross"), (3, "red", "cross"))) == "three red crosses"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a heart", "2 things, not 1"),
        ("a heart and a ring", "red heart, blue star is not a heart and a ring"),
        ("a blue heart and a red star", "is not a blue heart and a red star"),
        ("a heart right of a star", "the heart is not right of the star"),
        ("two hearts", "red heart, blue star is not two hearts"),
    ],
)
def test_a_phrase_that_does_not_hold_says_why(text: str, reason: str) -> None:
    phrase = parse_phrase(text)
    assert phrase is not None
    assert reason in (_holds(phrase, _scene((0, "red", "heart"), (1, "blue", "star"))) or "")


@pytest.mark.parametrize("text", ["", "a photo of", "a photo of a orange heart", "a photo of two heart", "a red heart"])
def test_texts_outside_the_grammar_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a prompt of this grammar"):
        parse_prompt(text)


@pytest.mark.parametrize("kind", KINDS)
def test_instructions_are_read_back(kind: str) -> None:
    rng = random.Random(3)
    for _ in range(100):
        edit = edit_case(rng, kind).edit
        assert parse_instruction(instruction_text(edit)) == edit


def test_edits_change_what_they_name_and_nothing_else() -> None:
    source = _scene((0, "red", "heart"), (1, "blue", "star"))
    cases = {
        "make the heart green": _scene((0, "green", "heart"), (1, "blue", "star")),
        "replace the star with a ring": _scene((0, "red", "heart"), (1, "blue", "ring")),
        "remove the heart": _scene((1, "blue", "star")),
        "add an orange ring below the star": _scene((0, "red", "heart"), (1, "blue", "star"), (3, "orange", "ring")),
    }
    for text, expected in cases.items():
        assert apply_edit(parse_instruction(text), source) == expected


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (Edit("remove", "ring"), "0 things are a ring"),
        (Edit("add", "heart", shape="ring", colour="red", relation="left of"), "there is no place left of the heart"),
        (
            Edit("add", "heart", shape="ring", colour="red", relation="right of"),
            "the place right of the heart is taken",
        ),
    ],
)
def test_an_edit_without_a_right_answer_is_refused(edit: Edit, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        apply_edit(edit, _scene((0, "red", "heart"), (1, "blue", "star")))
