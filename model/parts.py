"""Which part of a replica works: lets a counter or a stopwatch see each part's calls from outside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any

from unipic.model.head_sampler import HeadSampler
from unipic.model.replay import HeadReplays, HeadStep
from unipic.model.unipic import UniPic

PARTS = (
    "prompt",
    "MAR encoder",
    "LLM extend",
    "MAR decoder",
    "head prepare",
    "head step",
    "VAE encode",
    "VAE decode",
    "caption token",
    "rest",
)
"""In the order of a image's way; `rest` is what happens between the others."""

Enter = Callable[[str], AbstractContextManager[None]]


@contextmanager
def watched(model: UniPic, enter: Enter) -> Iterator[None]:
    """While this is open, each call of a part of `model` runs inside `enter(part)`; parts may nest."""
    places: list[tuple[Any, str, str]] = [
        (model.llm, "read_prompts", "prompt"),
        (model.llm, "extend", "LLM extend"),
        (model.llm, "step", "caption token"),
        (model.llm, "logits", "caption token"),
        (model.mar, "encode", "MAR encoder"),
        (model.mar, "decode", "MAR decoder"),
        (model.vae, "encode", "VAE encode"),
        (model.vae, "decode", "VAE decode"),
        (HeadSampler, "sample", "head prepare"),
        (HeadReplays, "sample", "head prepare"),
        (HeadStep, "run", "head step"),
        (HeadSampler, "step", "head step"),
    ]
    own = [(owner, name, vars(owner).get(name)) for owner, name, _ in places]
    for owner, name, part in places:
        setattr(owner, name, _inside(enter, part, getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, was in own:
            if was is None:  # an object's own attribute, which hid its class's method
                delattr(owner, name)
            else:
                setattr(owner, name, was)


def _inside(enter: Enter, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def inside(*values: Any, **named: Any) -> Any:
        with enter(part):
            return call(*values, **named)

    return inside
