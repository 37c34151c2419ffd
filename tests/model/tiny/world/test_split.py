from __future__ import annotations

import random
from collections import Counter

import pytest

from unipic.model.tiny.world.edits import KINDS
from unipic.model.tiny.world.grammar import TASKS, prompt_text
from unipic.model.tiny.world.samplers import (
    caption_cases,
    crowded_scene,
    edit_cases,
    prompt_cases,
    training_edit,
    training_scene,
)
from unipic.model.tiny.world.scene import COLOURS, SHAPES, Scene, thing_at
from unipic.model.tiny.world.split import HELD_OUT, held_out_in


def test_every_shape_and_every_colour_loses_exactly_one_partner() -> None:
    pairs = [fact for fact in HELD_OUT if fact[0] == "pair"]
    assert Counter(fact[1] for fact in pairs) == Counter(SHAPES)
    assert Counter(fact[2] for fact in pairs) == Counter(tuple(COLOURS))


def test_training_shows_nothing_held_out() -> None:
    rng = random.Random(5)
    scenes = [training_scene(rng, task) for task in TASKS for _ in range(200)]
    scenes += [crowded_scene(rng, things=things) for things in (1, 2, 3, 4) for _ in range(50)]
    for kind in KINDS:
        for case in (training_edit(rng, kind) for _ in range(200)):
            scenes += [case.source, case.target]
    assert not any(held_out_in(scene) for scene in scenes)


def test_a_held_out_relation_is_found_in_either_order_and_at_a_diagonal() -> None:
    def scene(a: int, b: int) -> Scene:
        return Scene(
            (
                thing_at(a, shape="circle", colour="red", size="small"),
                thing_at(b, shape="star", colour="blue", size="small"),
            ),
            "white",
        )

    fact = ("relation", "circle", "left of", "star")
    assert fact in held_out_in(scene(0, 1)) and fact in held_out_in(scene(2, 1))
    assert fact not in held_out_in(scene(1, 0))


def test_evaluation_sets_are_large_seeded_and_labelled() -> None:
    prompts, captions, edits = (
        prompt_cases(per_task=110, seed=1),
        caption_cases(per_kind=80, seed=1),
        edit_cases(per_kind=80, seed=1),
    )
    assert len(prompts) >= 1200 and len(captions) >= 600 and len(edits) >= 600
    assert prompts == prompt_cases(per_task=110, seed=1)
    assert prompts != prompt_cases(per_task=110, seed=2)
    seen = Counter((case.phrase.task, case.held_out) for case in prompts)
    assert seen == {(t, h): 110 for t in TASKS for h in (False, True) if not (h and t == "single")}
    assert all(case.held_out == bool(held_out_in(case.scene)) for case in captions)
    assert all(case.held_out == bool(held_out_in(case.source) | held_out_in(case.target)) for case in edits)


@pytest.mark.parametrize("held_out", [False, True])
def test_a_prompt_is_held_out_where_no_training_scene_could_answer_it(held_out: bool) -> None:
    for case in prompt_cases(per_task=20, seed=4):
        if case.held_out == held_out:
            assert bool(held_out_in(case.scene)) == held_out, prompt_text(case.phrase)
