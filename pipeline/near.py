"""Guesses which known name a misspelt one means."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_OPPOSITES = (
    ({"min"}, {"max"}),
    ({"allow"}, {"deny", "disallow", "forbid", "block", "refuse"}),
    ({"first", "before"}, {"last", "after"}),
    ({"input", "source"}, {"output", "target"}),
)
_NEGATIONS = {"no", "not", "non", "without", "negative", "neg"}


def near(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The closest of `known`, None if none is close or the closest means the opposite."""
    candidates = difflib.get_close_matches(name, list(known), n=3, cutoff=cutoff)
    return next((candidate for candidate in candidates if not _opposite(name, candidate)), None)


def _opposite(name: str, candidate: str) -> bool:
    ours, theirs = (set(text.lower().replace("-", "_").split("_")) for text in (name, candidate))
    if (ours & _NEGATIONS) != (theirs & _NEGATIONS):
        return True
    only_ours, only_theirs = ours - theirs, theirs - ours
    return any(
        (only_ours & one and only_theirs & other) or (only_ours & other and only_theirs & one)
        for one, other in _OPPOSITES
    )
