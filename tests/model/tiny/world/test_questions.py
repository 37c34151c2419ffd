from __future__ import annotations

import random

import numpy as np
import pytest

from unipic.model.tiny.world.edits import KINDS, apply_edit
from unipic.model.tiny.world.questions import questions
from unipic.model.tiny.world.reading import caption_case_of, draw_edit, edit_case_of, possible_edits, read_scene
from unipic.model.tiny.world.samplers import prompt_cases
from unipic.model.tiny.world.scene import Scene, render, thing_at


def _scene(*things: tuple[int, str, str]) -> Scene:
    return Scene(
        tuple(thing_at(place, shape=shape, colour=colour, size="large") for place, colour, shape in things), "silver"
    )


def test_questions_are_at_least_as_many_as_asked_for_and_equally_many_in_each_group() -> None:
    asked = questions(prompts=1200, captions=600, edits=600, seed=1)
    by_task = {task: [one for one in asked if one.task == task] for task in ("generate", "caption", "edit")}
    assert [len(ours) for ours in by_task.values()] == [1210, 600, 600]
    for ours in by_task.values():
        assert len({one.id for one in ours}) == len(ours)
    assert sum(one.id.startswith("position-held-out-") for one in asked) == 110
    assert all((one.picture is None) == (one.task == "generate") for one in asked)


def test_the_same_seed_asks_the_same_questions() -> None:
    first, again = (questions(prompts=30, captions=10, edits=10, seed=4) for _ in range(2))
    assert [(one.id, one.text, one.case) for one in first] == [(one.id, one.text, one.case) for one in again]
    assert [one.text for one in first] != [one.text for one in questions(prompts=30, captions=10, edits=10, seed=5)]


def test_a_rendered_scene_is_read_back_whole() -> None:
    scenes = [case.scene for case in prompt_cases(per_task=10, seed=2)]
    assert [read_scene(render(scene)) for scene in scenes] == scenes


def test_noise_and_an_empty_ground_are_no_scene() -> None:
    assert read_scene(np.full((64, 64, 3), 255, dtype=np.uint8)) is None
    assert read_scene(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)) is None


@pytest.mark.parametrize("kind", KINDS)
def test_every_edit_that_is_offered_has_one_right_answer(kind: str) -> None:
    scene = _scene((0, "red", "heart"), (1, "blue", "star")) if kind == "remove" else _scene((2, "red", "heart"))
    edits = possible_edits(scene, kind)
    assert edits and all(apply_edit(edit, scene) != scene for edit in edits)


def test_edits_go_round_the_kinds_that_a_scene_allows() -> None:
    rng, scene = random.Random(0), _scene((2, "red", "heart"))
    kinds = [edit.kind for first in range(4) if (edit := draw_edit(rng, scene, first_kind=first))]
    assert kinds == ["recolour", "replace", "add", "add"]
    assert draw_edit(rng, _scene((0, "red", "heart"), (1, "red", "heart")), first_kind=0) is None


def test_what_is_held_out_is_known_of_scenes_that_were_read() -> None:
    circle = _scene((0, "red", "circle"))
    edits = [edit_case_of(circle, edit) for edit in possible_edits(circle, "recolour")]
    assert [case.edit.colour for case in edits if case.held_out] == ["orange"]
    assert caption_case_of(circle) is not None
    assert caption_case_of(_scene((0, "red", "heart"), (1, "blue", "star"), (2, "pink", "ring"))) is None
