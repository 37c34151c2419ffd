"""Edits with one known right answer: recolour, replace, remove, and add beside."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from unipic.model.tiny.world.scene import COLOURS, SHAPES, Scene, Thing, place_of, thing_at

KINDS = ("recolour", "replace", "remove", "add")
_SHAPE, _COLOUR = "|".join(SHAPES), "|".join(COLOURS)
_PATTERNS = {
    "recolour": re.compile(rf"make the (?P<target>{_SHAPE}) (?P<colour>{_COLOUR})"),
    "replace": re.compile(rf"replace the (?P<target>{_SHAPE}) with a (?P<shape>{_SHAPE})"),
    "remove": re.compile(rf"remove the (?P<target>{_SHAPE})"),
    "add": re.compile(
        rf"add an? (?P<colour>{_COLOUR}) (?P<shape>{_SHAPE})"
        rf" (?P<relation>left of|right of|above|below) the (?P<target>{_SHAPE})"
    ),
}
_STEPS = {"left of": (1, -1), "right of": (0, 1), "above": (2, -2), "below": (0, 2)}


@dataclass(frozen=True)
class Edit:
    """One edit of the only thing of shape `target`; the other fields are those that its kind needs."""

    kind: str
    target: str
    shape: str | None = None
    colour: str | None = None
    relation: str | None = None


def instruction_text(edit: Edit) -> str:
    if edit.kind == "recolour":
        return f"make the {edit.target} {edit.colour}"
    if edit.kind == "replace":
        return f"replace the {edit.target} with a {edit.shape}"
    if edit.kind == "remove":
        return f"remove the {edit.target}"
    article = "an" if edit.colour == "orange" else "a"
    return f"add {article} {edit.colour} {edit.shape} {edit.relation} the {edit.target}"


def parse_instruction(text: str) -> Edit:
    """The edit of an instruction. Raises ValueError for a text that is no instruction of this grammar."""
    for kind, pattern in _PATTERNS.items():
        if match := pattern.fullmatch(text):
            edit = Edit(kind=kind, **match.groupdict())
            if instruction_text(edit) == text:
                return edit
    raise ValueError(f"not an instruction of this grammar: {text!r}")


def apply_edit(edit: Edit, scene: Scene) -> Scene:
    """The scene after the edit: a thing that is recoloured or replaced keeps its place and size, a new one takes the
    size of the one it is put beside. Raises ValueError where the edit has no single right answer."""
    targets = [thing for thing in scene.things if thing.shape == edit.target]
    if len(targets) != 1:
        raise ValueError(f"{len(targets)} things are a {edit.target}, an edit needs exactly one")
    target = targets[0]
    others = tuple(thing for thing in scene.things if thing is not target)
    if edit.kind == "remove":
        return replace(scene, things=others)
    if edit.kind == "recolour":
        changed: tuple[Thing, ...] = (replace(target, colour=edit.colour or target.colour),)
    elif edit.kind == "replace":
        changed = (replace(target, shape=edit.shape or target.shape),)
    else:
        changed = (target, _beside(edit, scene))
    return replace(scene, things=tuple(sorted((*others, *changed), key=place_of)))


def _beside(edit: Edit, scene: Scene) -> Thing:
    target = next(thing for thing in scene.things if thing.shape == edit.target)
    if edit.relation is None or edit.shape is None or edit.colour is None:
        raise ValueError("an added thing needs a shape, a colour and a relation")
    needed, step = _STEPS[edit.relation]
    place = place_of(target)
    axis = 1 if abs(step) == 1 else 2
    if (place & axis) != (needed & axis):
        raise ValueError(f"there is no place {edit.relation} the {edit.target}")
    if any(place_of(thing) == place + step for thing in scene.things):
        raise ValueError(f"the place {edit.relation} the {edit.target} is taken")
    return thing_at(place + step, shape=edit.shape, colour=edit.colour, size=target.size)
