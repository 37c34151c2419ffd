"""Scores of the shapes world as tables: the seed paper's columns, one row for each kind of case."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from unipic.jobs.shapes.report import Table

if TYPE_CHECKING:
    from unipic.model.tiny.world.score import Scores, Share


_PLAIN_WIDTH = 160


def tables(lines: Mapping[str, Scores]) -> list[Table]:
    """Generation by GenEval's tasks, captions, edits by kind. `lines`: the scores of each row, by its name."""
    first = next(iter(lines.values()))
    drawn, edited = tuple(first.generation), tuple(first.edits)
    return [
        Table(
            "Images from prompts: share that is right",
            ("", *(task.capitalize() for task in drawn), "Overall"),
            tuple(
                (name, *(_share(scores.generation[task]) for task in drawn), _number(scores.overall))
                for name, scores in lines.items()
            ),
        ),
        Table(
            "Captions: share that is exactly right",
            ("", "Captions"),
            tuple((name, _share(scores.captions)) for name, scores in lines.items()),
        ),
        Table(
            "Edits: share with the requested change and no other",
            ("", "All", *(kind.capitalize() for kind in edited)),
            tuple(
                (name, _share(scores.edits_in_all), *(_share(scores.edits[kind]) for kind in edited))
                for name, scores in lines.items()
            ),
        ),
    ]


def show(result: Sequence[Table]) -> None:
    """Prints tables: ruled on a terminal, Markdown elsewhere."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH  # no window, so nothing to cut to
    for table in result:
        rich = RichTable(box=box.SIMPLE_HEAD if console.is_terminal else box.MARKDOWN)
        for column, name in enumerate(table.header):
            rich.add_column(name, justify="right" if column else "left", no_wrap=True)
        for row in table.rows:
            rich.add_row(*row)
        console.print(f"\n[bold]{table.title}[/]")
        console.print(rich)


def as_data(scores: Scores) -> dict[str, Any]:
    """Scores as JSON values; null without cases."""

    def share(value: Share) -> dict[str, Any]:
        return {"right": value.right, "total": value.total, "share": _or_null(value.value)}

    return {
        "generation": {task: share(value) for task, value in scores.generation.items()},
        "overall": _or_null(scores.overall),
        "captions": share(scores.captions),
        "edits": {kind: share(value) for kind, value in scores.edits.items()},
        "edits_in_all": share(scores.edits_in_all),
    }


def _or_null(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def _share(share: Share) -> str:
    return _number(share.value)


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
