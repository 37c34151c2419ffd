"""Seeded scenes, prompts and edits for training and for evaluation, seen and held out told apart."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from unipic.model.tiny.world.edits import KINDS, Edit, apply_edit
from unipic.model.tiny.world.grammar import OPPOSITE, TASKS, Noun, Phrase, caption_phrase
from unipic.model.tiny.world.scene import BACKGROUNDS, COLOURS, RADII, SHAPES, Scene, thing_at
from unipic.model.tiny.world.split import held_out_in, relations_between

_COLOUR_NAMES, _SIZES, _GROUNDS = tuple(COLOURS), tuple(RADII), tuple(BACKGROUNDS)
# Places that stand in line, the first left of or above the second.
_IN_LINE = ((0, 1), (2, 3), (0, 2), (1, 3))
_DRAWS = 10_000
T = TypeVar("T")


@dataclass(frozen=True)
class PromptCase:
    """A prompt to draw; `scene` is one right answer; `held_out`: it asks for something training never shows."""

    phrase: Phrase
    scene: Scene
    held_out: bool


@dataclass(frozen=True)
class CaptionCase:
    scene: Scene
    held_out: bool


@dataclass(frozen=True)
class EditCase:
    source: Scene
    edit: Edit
    held_out: bool

    @property
    def target(self) -> Scene:
        return apply_edit(self.edit, self.source)


def crowded_scene(rng: random.Random, *, things: int) -> Scene:
    """A training scene of that many unrelated things, for the autoencoder; shows nothing held out."""
    while True:
        scene = _scene(rng, rng.sample(range(4), things), shapes=rng.choices(SHAPES, k=things))
        if not held_out_in(scene):
            return scene


def _scene(rng: random.Random, places: list[int], *, shapes: list[str]) -> Scene:
    things = [
        thing_at(place, shape=shape, colour=rng.choice(_COLOUR_NAMES), size=rng.choice(_SIZES))
        for place, shape in zip(sorted(places), shapes, strict=True)
    ]
    return Scene(things=tuple(things), background=rng.choice(_GROUNDS))


def task_scene(rng: random.Random, task: str) -> Scene:
    """A scene that a prompt of this task could ask for, held out or not."""
    if task in ("single", "colour"):
        return _scene(rng, [rng.randrange(4)], shapes=[rng.choice(SHAPES)])
    if task == "count":
        count = rng.choice((2, 3, 4))
        scene = _scene(rng, rng.sample(range(4), count), shapes=[rng.choice(SHAPES)] * count)
        first = scene.things[0]
        return replace(
            scene, things=tuple(replace(thing, colour=first.colour, size=first.size) for thing in scene.things)
        )
    places = list(rng.choice(_IN_LINE)) if task == "position" else rng.sample(range(4), 2)
    return _scene(rng, places, shapes=rng.sample(SHAPES, 2))


def phrase_for(rng: random.Random, scene: Scene, task: str) -> Phrase:
    """A prompt of this task that the scene is a right answer to."""
    things = list(scene.things)
    if task == "count":
        return Phrase((Noun(things[0].shape),), count=len(things))
    if task == "position":
        first, relation, second = relations_between(*things)[0]
        if rng.random() < 0.5:
            first, relation, second = second, OPPOSITE[relation], first
        return Phrase((Noun(first.shape), Noun(second.shape)), relation=relation)
    rng.shuffle(things)
    coloured = task in ("colour", "attribute")
    return Phrase(tuple(Noun(thing.shape, thing.colour if coloured else None) for thing in things))


def tasks_of(scene: Scene) -> tuple[str, ...]:
    """The tasks whose prompts a captionable scene can answer."""
    phrase = caption_phrase(scene)
    if phrase.count > 1:
        return ("count",)
    if len(phrase.nouns) == 1:
        return ("single", "colour")
    return ("two", "attribute") if phrase.relation is None else ("two", "attribute", "position")


def edit_case(rng: random.Random, kind: str) -> EditCase:
    """A source scene of one or two things and an edit of this kind of it, held out or not."""
    while True:
        two = kind == "remove" or (kind != "add" and rng.random() < 0.5)
        source = task_scene(rng, "two" if two else "single")
        target = rng.choice(source.things)
        absent = [shape for shape in SHAPES if all(thing.shape != shape for thing in source.things)]
        edit = Edit(
            kind=kind,
            target=target.shape,
            shape=rng.choice(absent) if kind in ("replace", "add") else None,
            colour=rng.choice([name for name in _COLOUR_NAMES if kind == "add" or name != target.colour])
            if kind in ("recolour", "add")
            else None,
            relation=rng.choice(tuple(OPPOSITE)) if kind == "add" else None,
        )
        try:
            held_out = bool(held_out_in(source) | held_out_in(apply_edit(edit, source)))
        except ValueError:  # no place on that side of the target: draw another
            continue
        return EditCase(source=source, edit=edit, held_out=held_out)


def training_scene(rng: random.Random, task: str) -> Scene:
    return _drawn(lambda: task_scene(rng, task), lambda scene: not held_out_in(scene))


def training_edit(rng: random.Random, kind: str) -> EditCase:
    return _drawn(lambda: edit_case(rng, kind), lambda case: not case.held_out)


def prompt_cases(*, per_task: int, seed: int) -> list[PromptCase]:
    """Evaluation prompts: `per_task` seen ones of each task and as many held-out ones, save that a single shape
    cannot be held out. Seen prompts may repeat, the phrases of some tasks being few."""
    rng, cases = random.Random(seed), []
    for task in TASKS:
        for held_out in (False, True):
            if not (held_out and task == "single"):
                cases += [_prompt_case(rng, task, held_out=held_out) for _ in range(per_task)]
    return cases


def _prompt_case(rng: random.Random, task: str, *, held_out: bool) -> PromptCase:
    def draw() -> PromptCase:
        scene = task_scene(rng, task)
        phrase = phrase_for(rng, scene, task)
        return PromptCase(phrase=phrase, scene=scene, held_out=asks_held_out(phrase))

    def fits(case: PromptCase) -> bool:
        return case.held_out if held_out else not held_out_in(case.scene)

    return _drawn(draw, fits)


def asks_held_out(phrase: Phrase) -> bool:
    """Whether every image that answers a phrase shows something held out."""
    return not any(held_out_in(scene) == frozenset() for scene in _answers(phrase))


def _answers(phrase: Phrase) -> list[Scene]:
    """Answers to a phrase: all arrangements, and all colours where the phrase leaves them free."""
    if phrase.count > 1:
        noun = phrase.nouns[0]
        return [
            Scene(
                tuple(
                    thing_at(place, shape=noun.shape, colour=noun.colour or colour, size="large")
                    for place in range(phrase.count)
                ),
                "white",
            )
            for colour in _COLOUR_NAMES
        ]
    if len(phrase.nouns) == 1:
        places: Sequence[tuple[int, ...]] = [(0,)]
    elif phrase.relation is None:
        places = [(a, b) for a in range(4) for b in range(4) if a != b]
    else:
        places = {"left of": [(0, 1)], "right of": [(1, 0)], "above": [(0, 2)], "below": [(2, 0)]}[phrase.relation]
    return [
        Scene(
            tuple(
                thing_at(place, shape=noun.shape, colour=noun.colour or _COLOUR_NAMES[(shift + i) % 8], size="large")
                for i, (place, noun) in enumerate(zip(arranged, phrase.nouns, strict=True))
            ),
            "white",
        )
        for arranged in places
        for shift in range(8)
    ]


def caption_cases(*, per_kind: int, seed: int) -> list[CaptionCase]:
    """Evaluation captions: `per_kind` seen and as many held-out scenes of one, of two in any place, of two in line,
    and of several equal things."""
    rng, cases = random.Random(seed), []
    for task in ("colour", "two", "position", "count"):
        for held_out in (False, True):
            for _ in range(per_kind):
                scene = _drawn(lambda: task_scene(rng, task), lambda s: bool(held_out_in(s)) == held_out)  # noqa: B023
                cases.append(CaptionCase(scene=scene, held_out=held_out))
    return cases


def edit_cases(*, per_kind: int, seed: int) -> list[EditCase]:
    """Evaluation edits: `per_kind` seen and as many held-out ones of each kind."""
    rng, cases = random.Random(seed), []
    for kind in KINDS:
        for held_out in (False, True):
            cases += [
                _drawn(lambda: edit_case(rng, kind), lambda case: case.held_out == held_out)  # noqa: B023
                for _ in range(per_kind)
            ]
    return cases


def _drawn(draw: Callable[[], T], fits: Callable[[T], bool]) -> T:
    for _ in range(_DRAWS):
        drawn = draw()
        if fits(drawn):
            return drawn
    raise RuntimeError(f"nothing that fits in {_DRAWS} draws")
