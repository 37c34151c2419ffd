"""Held-out facts: shape-colour pairs, couples of shapes, relations and counts that no training image shows."""

from __future__ import annotations

from itertools import combinations

from unipic.model.tiny.world.scene import COLOURS, SHAPES, Scene, Thing

# Facts are tuples: ("pair", shape, colour), ("couple", shape, shape), ("relation", shape, relation, shape),
# ("count", shape, n). Relations are kept in the two directions "left of" and "above" alone.
Fact = tuple[str | int, ...]

_COLOUR_NAMES = tuple(COLOURS)
HELD_OUT: frozenset[Fact] = frozenset(
    # Every shape and every colour loses one partner, so each is still seen with seven others.
    [("pair", shape, _COLOUR_NAMES[(3 * i + 1) % 8]) for i, shape in enumerate(SHAPES)]
    + [("couple", *sorted((SHAPES[i], SHAPES[i + 1]))) for i in (0, 2, 4, 6)]
    + [("relation", shape, "left of", SHAPES[(i + 3) % 8]) for i, shape in enumerate(SHAPES)]
    + [("relation", shape, "above", SHAPES[(i + 5) % 8]) for i, shape in enumerate(SHAPES)]
    + [("count", SHAPES[i], 2 + i % 3) for i in range(6)]
)


def relations_between(a: Thing, b: Thing) -> tuple[tuple[Thing, str, Thing], ...]:
    """The relations "left of" and "above" that hold between two things; both for things placed diagonally."""
    held = []
    if abs(a.x - b.x) > 0.25:
        held.append((a, "left of", b) if a.x < b.x else (b, "left of", a))
    if abs(a.y - b.y) > 0.25:
        held.append((a, "above", b) if a.y < b.y else (b, "above", a))
    return tuple(held)


def facts(scene: Scene) -> frozenset[Fact]:
    """All that a scene shows of the kinds that may be held out."""
    found: set[Fact] = {("pair", thing.shape, thing.colour) for thing in scene.things}
    shapes = [thing.shape for thing in scene.things]
    found |= {("count", shape, shapes.count(shape)) for shape in set(shapes) if shapes.count(shape) > 1}
    for a, b in combinations(scene.things, 2):
        if a.shape != b.shape:
            found.add(("couple", *sorted((a.shape, b.shape))))
            found |= {("relation", p.shape, relation, q.shape) for p, relation, q in relations_between(a, b)}
    return frozenset(found)


def held_out_in(scene: Scene) -> frozenset[Fact]:
    """The held-out facts a scene shows; empty for a scene that training may use."""
    return facts(scene) & HELD_OUT
