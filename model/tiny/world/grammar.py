"""Scenes ↔ prompts, captions and edits, in one small grammar.

Prompts come in GenEval's six tasks and start with "a photo of"; captions are the same phrases with every colour named,
without that start. Sizes and backgrounds are never named: a prompt leaves them free.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from unipic.model.tiny.world.scene import COLOURS, SHAPES, Scene, Thing
from unipic.model.tiny.world.split import relations_between

TASKS = ("single", "two", "count", "colour", "position", "attribute")
NUMBERS = {2: "two", 3: "three", 4: "four"}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
_PREFIX = "a photo of "
_COLOUR = "|".join(COLOURS)
_NOUN = rf"(?:a|an) (?:({_COLOUR}) )?({'|'.join(SHAPES)})"
_ONE = re.compile(_NOUN)
_PAIR = re.compile(rf"{_NOUN} (and|left of|right of|above|below) {_NOUN}")
PLURALS = {shape: shape + ("es" if shape.endswith("s") else "s") for shape in SHAPES}
_MANY = re.compile(rf"({'|'.join(NUMBERS.values())}) (?:({_COLOUR}) )?({'|'.join(PLURALS.values())})")


@dataclass(frozen=True)
class Noun:
    """A shape and, where named, its colour."""

    shape: str
    colour: str | None = None


@dataclass(frozen=True)
class Phrase:
    """One noun, `count` times; or two nouns, `relation` telling where the first is, seen from the second."""

    nouns: tuple[Noun, ...]
    count: int = 1
    relation: str | None = None

    @property
    def task(self) -> str:
        """Which of TASKS a prompt of this phrase belongs to."""
        coloured = self.nouns[0].colour is not None
        if self.count > 1:
            return "count"
        if len(self.nouns) == 1:
            return "colour" if coloured else "single"
        if self.relation is not None:
            return "position"
        return "attribute" if coloured else "two"


def _name(noun: Noun) -> str:
    words = f"{noun.colour} {noun.shape}" if noun.colour else noun.shape
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def phrase_text(phrase: Phrase) -> str:
    """A phrase in words: "two red stars", "a heart left of a ring"."""
    if phrase.count > 1:
        noun = phrase.nouns[0]
        words = [NUMBERS[phrase.count], noun.colour, PLURALS[noun.shape]]
        return " ".join(word for word in words if word)
    return f" {phrase.relation or 'and'} ".join(_name(noun) for noun in phrase.nouns)


def parse_phrase(text: str) -> Phrase | None:
    """The phrase of a text; None if the grammar has no such text."""
    if match := _ONE.fullmatch(text):
        phrase = Phrase((Noun(match[2], match[1]),))
    elif match := _PAIR.fullmatch(text):
        relation = None if match[3] == "and" else match[3]
        phrase = Phrase((Noun(match[2], match[1]), Noun(match[5], match[4])), relation=relation)
    elif match := _MANY.fullmatch(text):
        shape = next(name for name, plural in PLURALS.items() if plural == match[3])
        count = next(number for number, word in NUMBERS.items() if word == match[1])
        phrase = Phrase((Noun(shape, match[2]),), count=count)
    else:
        return None
    return phrase if phrase_text(phrase) == text else None


def prompt_text(phrase: Phrase) -> str:
    return _PREFIX + phrase_text(phrase)


def parse_prompt(text: str) -> Phrase:
    """The phrase of a prompt. Raises ValueError for a text that is no prompt of this grammar."""
    phrase = parse_phrase(text.removeprefix(_PREFIX)) if text.startswith(_PREFIX) else None
    if phrase is None:
        raise ValueError(f"not a prompt of this grammar: {text!r}")
    return phrase


def _noun(thing: Thing) -> Noun:
    return Noun(thing.shape, thing.colour)


def caption_phrase(scene: Scene) -> Phrase:
    """The phrase of the canonical caption. Raises ValueError for a scene without a caption in the grammar."""
    things = sorted(scene.things, key=lambda thing: (thing.y, thing.x))
    if things and len({(thing.shape, thing.colour) for thing in things}) == 1:
        return Phrase((_noun(things[0]),), count=len(things))
    if len(things) != 2:
        raise ValueError(f"no caption for {len(things)} different things")
    relations = relations_between(*things)
    if len(relations) == 1:
        first, relation, second = relations[0]
        return Phrase((_noun(first), _noun(second)), relation=relation)
    return Phrase((_noun(things[0]), _noun(things[1])))


def caption_text(scene: Scene) -> str:
    """The canonical caption: things in reading order, the relation named where they stand in line."""
    return phrase_text(caption_phrase(scene))


def holds(phrase: Phrase, things: tuple[Noun, ...], places: tuple[tuple[float, float], ...]) -> str | None:
    """None if exactly the phrase's content is there, else the reason.

    `things` and `places` (x, y as shares of the side) tell what is there, one entry a thing.
    """
    wanted = list(phrase.nouns) * phrase.count
    if len(things) != len(wanted):
        return f"{len(things)} things, not {len(wanted)}"
    options = [tuple(range(len(wanted)))]
    if len(phrase.nouns) == 2:
        options.append((1, 0))
    fitting = [
        order for order in options if all(_fits(want, things[place]) for want, place in zip(wanted, order, strict=True))
    ]
    if not fitting:
        seen = ", ".join(f"{thing.colour} {thing.shape}" for thing in things)
        return f"{seen} is not {phrase_text(phrase)}"
    if phrase.relation is None or any(_related(places[a], phrase.relation, places[b]) for a, b in fitting):
        return None
    return f"the {phrase.nouns[0].shape} is not {phrase.relation} the {phrase.nouns[1].shape}"


def _fits(want: Noun, thing: Noun) -> bool:
    return want.shape == thing.shape and want.colour in (None, thing.colour)


def _related(a: tuple[float, float], relation: str, b: tuple[float, float]) -> bool:
    """Whether a is clearly in that direction of b, by an eighth of the side; a diagonal has two relations."""
    dx, dy = a[0] - b[0], a[1] - b[1]
    return {"left of": -dx, "right of": dx, "above": -dy, "below": dy}[relation] > 0.125
