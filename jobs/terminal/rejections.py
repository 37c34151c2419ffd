"""Rejected rows as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unipic.pipeline.audit.rejections import RejectedKind, Rejection

_KINDS_SHOWN = 8
_MESSAGE_CHARACTERS = 160


def kind_lines(kinds: Sequence[RejectedKind]) -> Iterator[str]:
    """`177 PromptRefused: the prompt is too long …; e.g. row 14 of prompts.csv, id dpg-0014`, one line per kind."""
    for kind in kinds[:_KINDS_SHOWN]:
        text = f"{kind.rows:,} {kind.kind or 'without a recorded reason'}"
        if kind.example is not None:
            text += f": {short(kind.example.message)}; e.g. {place(kind.example)}"
        yield text
    if len(kinds) > _KINDS_SHOWN:
        yield f"… and {sum(kind.rows for kind in kinds[_KINDS_SHOWN:]):,} of {len(kinds) - _KINDS_SHOWN} more kinds"


def place(row: Rejection) -> str:
    """`row 14 of prompts.csv, id dpg-0014`."""
    sample = f", sample {row.sample}" if row.sample else ""
    return f"row {row.row} of {row.file}{sample}" + (f", id {row.id}" if row.id is not None else "")


def short(message: str) -> str:
    """The first line of `message`, shortened, without a full stop."""
    line = message.split("\n", 1)[0].rstrip(". ")
    return line if len(line) <= _MESSAGE_CHARACTERS else f"{line[: _MESSAGE_CHARACTERS - 1]}…"
