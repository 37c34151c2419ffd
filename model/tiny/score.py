"""Verdicts on pictures, captions and edits, and the table of their shares, seen and held out apart.

Stricter than GenEval in one point: a picture with anything that was not asked for is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from model.tiny.detector import UNKNOWN, Found, Sight, detect
from model.tiny.edits import Edit, apply_edit
from model.tiny.grammar import TASKS, Noun, Phrase, caption_phrase, caption_text, holds, parse_phrase
from model.tiny.scene import RADII, Scene, Thing

# How far, in shares of the side, a thing may lie from where it should, and its half extent from what it should be.
_PLACE_TOLERANCE = 0.08
_RADIUS_TOLERANCE = 0.03


@dataclass(frozen=True)
class Verdict:
    """`reason` is empty for a right answer."""

    group: str
    held_out: bool
    reason: str

    @property
    def right(self) -> bool:
        return not self.reason


def judge_picture(phrase: Phrase, picture: np.ndarray, *, held_out: bool) -> Verdict:
    """Whether a picture (S, S, 3) uint8 shows exactly what a prompt's phrase asks for."""
    sight = detect(picture)
    reason = _background_fault(sight)
    if reason is None:
        nouns = tuple(Noun(thing.shape, thing.colour) for thing in sight.things)
        reason = holds(phrase, nouns, tuple((thing.x, thing.y) for thing in sight.things))
    return Verdict(phrase.task, held_out, reason or "")


def judge_caption(scene: Scene, caption: str, *, held_out: bool) -> Verdict:
    """Whether a caption names all things of a scene, their colours, and their relation where they stand in line."""
    return Verdict("caption", held_out, _caption_fault(scene, caption.strip().removesuffix(".")) or "")


def _caption_fault(scene: Scene, caption: str) -> str | None:
    phrase = parse_phrase(caption)
    if phrase is None:
        return f"{caption!r} is no caption of this grammar"
    if any(noun.colour is None for noun in phrase.nouns):
        return f"{caption!r} leaves a colour out"
    if caption_phrase(scene).relation is not None and phrase.relation is None:
        return f"{caption!r} does not say where they stand: {caption_text(scene)!r}"
    nouns = tuple(Noun(thing.shape, thing.colour) for thing in scene.things)
    return holds(phrase, nouns, tuple((thing.x, thing.y) for thing in scene.things))


def judge_edit(source: Scene, edit: Edit, picture: np.ndarray, *, held_out: bool) -> Verdict:
    """Whether a picture is the source with the change that was asked for and everything else as it was."""
    target, sight = apply_edit(edit, source), detect(picture)
    reason = None
    if sight.background != target.background:
        reason = f"the background is {sight.background}, not {target.background}"
    elif len(sight.things) != len(target.things):
        reason = f"{len(sight.things)} things, not {len(target.things)}"
    else:
        faults = (_thing_fault(thing, sight, untouched=thing in source.things) for thing in target.things)
        reason = next((fault for fault in faults if fault), None)
    return Verdict(edit.kind, held_out, reason or "")


def _background_fault(sight: Sight) -> str | None:
    return "the background is none of the world's" if sight.background == UNKNOWN else None


def _thing_fault(thing: Thing, sight: Sight, *, untouched: bool) -> str | None:
    near = [found for found in sight.things if _stands_at(found, thing)]
    if len(near) != 1:
        return f"the {thing.colour} {thing.shape} is not at its place"
    found = near[0]
    if (found.shape, found.colour) != (thing.shape, thing.colour):
        return f"a {found.colour} {found.shape} instead of a {thing.colour} {thing.shape}"
    if untouched and abs(found.radius - RADII[thing.size]) > _RADIUS_TOLERANCE:
        return f"the {thing.shape} was not to change its size"
    return None


def _stands_at(found: Found, thing: Thing) -> bool:
    return abs(found.x - thing.x) <= _PLACE_TOLERANCE and abs(found.y - thing.y) <= _PLACE_TOLERANCE


@dataclass(frozen=True)
class Share:
    """Right answers among all of one group; NaN where there were none."""

    right: int
    total: int

    @property
    def value(self) -> float:
        return self.right / self.total if self.total else float("nan")


def share(verdicts: Iterable[Verdict], *, group: str, held_out: bool) -> Share:
    chosen = [verdict for verdict in verdicts if verdict.group == group and verdict.held_out == held_out]
    return Share(sum(verdict.right for verdict in chosen), len(chosen))


def overall(verdicts: Iterable[Verdict], *, groups: tuple[str, ...] = TASKS, held_out: bool) -> float:
    """The mean of the groups' shares, as GenEval takes it; groups without cases do not count."""
    kept = list(verdicts)
    values = [share(kept, group=group, held_out=held_out) for group in groups]
    counted = [one.value for one in values if one.total]
    return sum(counted) / len(counted) if counted else float("nan")


def table(verdicts: Iterable[Verdict], *, groups: tuple[str, ...] = TASKS) -> str:
    """A Markdown table: one row a group, then Overall; columns seen and held out."""
    kept = list(verdicts)
    lines = ["| | seen | held out |", "|---|---|---|"]
    for group in groups:
        cells = [_cell(share(kept, group=group, held_out=held_out)) for held_out in (False, True)]
        lines.append(f"| {group} | {cells[0]} | {cells[1]} |")
    if len(groups) > 1:
        seen, held = (overall(kept, groups=groups, held_out=held_out) for held_out in (False, True))
        lines.append(f"| **Overall** | **{seen:.3f}** | **{held:.3f}** |")
    return "\n".join(lines)


def _cell(one: Share) -> str:
    return f"{one.value:.3f} ({one.right}/{one.total})" if one.total else "–"
