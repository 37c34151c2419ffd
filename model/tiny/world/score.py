"""Verdicts on images, captions and edits, and their scores, for seen and held-out cases.

Stricter than GenEval in one point: an image with additional things is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from unipic.model.tiny.world.detector import UNKNOWN, Found, Sight, detect
from unipic.model.tiny.world.edits import KINDS, Edit, apply_edit
from unipic.model.tiny.world.grammar import TASKS, Noun, Phrase, caption_phrase, caption_text, holds, parse_phrase
from unipic.model.tiny.world.samplers import CaptionCase, EditCase, PromptCase
from unipic.model.tiny.world.scene import RADII, Scene, Thing

Case = PromptCase | CaptionCase | EditCase
Answer = np.ndarray | str
CAPTION = "caption"
"""The group of all captions."""

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


def group_of(case: Case) -> str:
    """The column a case counts in: a task of GenEval's, CAPTION, or a kind of edit."""
    if isinstance(case, PromptCase):
        return case.phrase.task
    return case.edit.kind if isinstance(case, EditCase) else CAPTION


def judge(case: Case, answer: Answer | None) -> Verdict:
    """The verdict on an answer: an image (S, S, 3) uint8 or a caption; None is wrong."""
    if answer is None:
        return Verdict(group_of(case), case.held_out, "there is no answer")
    if isinstance(case, CaptionCase):
        assert isinstance(answer, str)
        return judge_caption(case.scene, answer, held_out=case.held_out)
    assert isinstance(answer, np.ndarray)
    if isinstance(case, PromptCase):
        return judge_picture(case.phrase, answer, held_out=case.held_out)
    return judge_edit(case.source, case.edit, answer, held_out=case.held_out)


def judge_picture(phrase: Phrase, picture: np.ndarray, *, held_out: bool) -> Verdict:
    """Whether an image (S, S, 3) uint8 shows exactly what a prompt asks for."""
    sight = detect(picture)
    reason = _background_fault(sight)
    if reason is None:
        nouns = tuple(Noun(thing.shape, thing.colour) for thing in sight.things)
        reason = holds(phrase, nouns, tuple((thing.x, thing.y) for thing in sight.things))
    return Verdict(phrase.task, held_out, reason or "")


def judge_caption(scene: Scene, caption: str, *, held_out: bool) -> Verdict:
    """Whether a caption names all things of a scene, their colours, and their relation where they stand in line."""
    return Verdict(CAPTION, held_out, _caption_fault(scene, caption.strip().removesuffix(".")) or "")


def _caption_fault(scene: Scene, caption: str) -> str | None:
    phrase = parse_phrase(caption)
    if phrase is None:
        return f"{caption!r} is not a caption of this grammar"
    if any(noun.colour is None for noun in phrase.nouns):
        return f"{caption!r} omits a colour"
    if caption_phrase(scene).relation is not None and phrase.relation is None:
        return f"{caption!r} omits the relation: {caption_text(scene)!r}"
    nouns = tuple(Noun(thing.shape, thing.colour) for thing in scene.things)
    return holds(phrase, nouns, tuple((thing.x, thing.y) for thing in scene.things))


def judge_edit(source: Scene, edit: Edit, picture: np.ndarray, *, held_out: bool) -> Verdict:
    """Whether an image is the source with the requested change and no other."""
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
        return f"the {thing.shape} changed its size"
    return None


def _stands_at(found: Found, thing: Thing) -> bool:
    return abs(found.x - thing.x) <= _PLACE_TOLERANCE and abs(found.y - thing.y) <= _PLACE_TOLERANCE


@dataclass(frozen=True)
class Share:
    """Share of right answers in a group; NaN for an empty group."""

    right: int
    total: int

    @property
    def value(self) -> float:
        return self.right / self.total if self.total else float("nan")


@dataclass(frozen=True)
class Scores:
    """One row of the tables: `generation` by task of GenEval's, `captions`, `edits` by kind."""

    generation: dict[str, Share]
    captions: Share
    edits: dict[str, Share]

    @property
    def overall(self) -> float:
        """The mean over tasks with cases, as in GenEval; NaN without cases."""
        return _mean(self.generation.values())

    @property
    def edits_in_all(self) -> Share:
        return Share(sum(one.right for one in self.edits.values()), sum(one.total for one in self.edits.values()))


def scores(verdicts: Iterable[Verdict], *, held_out: bool | None = None) -> Scores:
    """Shares of right answers among the seen cases or the held-out ones, None for all of them."""
    kept = [verdict for verdict in verdicts if held_out is None or verdict.held_out == held_out]

    def of(group: str) -> Share:
        chosen = [verdict.right for verdict in kept if verdict.group == group]
        return Share(sum(chosen), len(chosen))

    return Scores({task: of(task) for task in TASKS}, of(CAPTION), {kind: of(kind) for kind in KINDS})


def _mean(shares: Iterable[Share]) -> float:
    counted = [one.value for one in shares if one.total]
    return sum(counted) / len(counted) if counted else float("nan")
