"""Reads a scene from an image, and the edits with one right answer in it."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from unipic.model.tiny.world.detector import UNKNOWN, Found, detect
from unipic.model.tiny.world.edits import KINDS, Edit, apply_edit
from unipic.model.tiny.world.grammar import OPPOSITE, caption_phrase
from unipic.model.tiny.world.samplers import CaptionCase, EditCase
from unipic.model.tiny.world.scene import COLOURS, PLACES, RADII, SHAPES, Scene, Thing, thing_at
from unipic.model.tiny.world.split import held_out_in

# How far, in shares of the side, a thing may lie from one of the four places.
_PLACE_TOLERANCE = 0.06


def read_scene(picture: np.ndarray) -> Scene | None:
    """The scene in an image (S, S, 3) uint8; None if it is not a scene of this world."""
    sight = detect(picture)
    things = [_thing(found) for found in sight.things]
    known = [thing for thing in things if thing is not None]
    distinct = len({(thing.x, thing.y) for thing in known}) == len(things)
    if sight.background == UNKNOWN or not things or not distinct:
        return None
    return Scene(tuple(known), sight.background)


def _thing(found: Found) -> Thing | None:
    if UNKNOWN in (found.shape, found.colour):
        return None
    for place, (x, y) in enumerate(PLACES):
        if max(abs(found.x - x), abs(found.y - y)) <= _PLACE_TOLERANCE:
            size = min(RADII, key=lambda name: abs(RADII[name] - found.radius))
            return thing_at(place, shape=found.shape, colour=found.colour, size=size)
    return None


def possible_edits(scene: Scene, kind: str) -> list[Edit]:
    """All edits of a kind with one right answer in this scene; none that would leave an empty image."""
    return [edit for edit in _edits(scene, kind) if _applies(edit, scene)]


def draw_edit(rng: random.Random, scene: Scene, *, first_kind: int) -> Edit | None:
    """An edit of the first kind, counted from `first_kind` on, that the scene allows; None if it allows none."""
    for step in range(len(KINDS)):
        if edits := possible_edits(scene, KINDS[(first_kind + step) % len(KINDS)]):
            return rng.choice(edits)
    return None


def _edits(scene: Scene, kind: str) -> Iterator[Edit]:
    present = {thing.shape for thing in scene.things}
    absent = [shape for shape in SHAPES if shape not in present]
    for thing in scene.things:
        if kind == "recolour":
            yield from (Edit(kind, thing.shape, colour=name) for name in COLOURS if name != thing.colour)
        elif kind == "replace":
            yield from (Edit(kind, thing.shape, shape=shape) for shape in absent)
        elif kind == "remove" and len(scene.things) > 1:
            yield Edit(kind, thing.shape)
        elif kind == "add" and len(scene.things) == 1:
            for relation in OPPOSITE:
                yield from (Edit(kind, thing.shape, shape, name, relation) for shape in absent for name in COLOURS)


def _applies(edit: Edit, scene: Scene) -> bool:
    try:
        apply_edit(edit, scene)
    except ValueError:
        return False
    return True


def edit_case_of(source: Scene, edit: Edit) -> EditCase:
    """The edit as a case; held out if the scene before or after shows something held out."""
    return EditCase(source, edit, bool(held_out_in(source) | held_out_in(apply_edit(edit, source))))


def caption_case_of(scene: Scene) -> CaptionCase | None:
    """The scene as a case; None if the grammar has no caption for it."""
    try:
        caption_phrase(scene)
    except ValueError:
        return None
    return CaptionCase(scene, bool(held_out_in(scene)))
