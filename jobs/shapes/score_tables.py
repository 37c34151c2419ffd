"""Scores of the shapes world as tables: the seed paper's columns, one row a kind of case."""

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
    """Generation by GenEval's tasks, captions, edits by kind. `lines`: what each row is called, and its scores."""
    first = next(iter(lines.values()))
    drawn, edited = tuple(first.generation), tuple(first.edits)
    return [
        Table(
            "Pictures from prompts: share that is right",
            ("", *(task.capitalize() for task in drawn), "Overall"),
            tuple(
                (name, *(_share(one.generation[task]) for task in drawn), _number(one.overall))
                for name, one in lines.items()
            ),
        ),
        Table(
            "Captions: share that is exactly right",
            ("", "Captions"),
            tuple((name, _share(one.captions)) for name, one in lines.items()),
        ),
        Table(
            "Edits: share with the change that was asked for and everything else as it was",
            ("", "All", *(kind.capitalize() for kind in edited)),
            tuple(
                (name, _share(one.edits_in_all), *(_share(one.edits[kind]) for kind in edited))
                for name, one in lines.items()
            ),
        ),
    ]


def show(shown: Sequence[Table]) -> None:
    """Print: ruled tables on a terminal, Markdown elsewhere."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH  # nothing is cut for a window that is not there
    for table in shown:
        rich = RichTable(box=box.SIMPLE_HEAD if console.is_terminal else box.MARKDOWN)
        for at, name in enumerate(table.header):
            rich.add_column(name, justify="right" if at else "left", no_wrap=True)
        for row in table.rows:
            rich.add_row(*row)
        console.print(f"\n[bold]{table.title}[/]")
        console.print(rich)


def as_data(scores: Scores) -> dict[str, Any]:
    """Scores as JSON can say them; null where there were no cases."""

    def share(one: Share) -> dict[str, Any]:
        return {"right": one.right, "total": one.total, "share": _or_null(one.value)}

    return {
        "generation": {task: share(one) for task, one in scores.generation.items()},
        "overall": _or_null(scores.overall),
        "captions": share(scores.captions),
        "edits": {kind: share(one) for kind, one in scores.edits.items()},
        "edits_in_all": share(scores.edits_in_all),
    }


def _or_null(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def _share(one: Share) -> str:
    return _number(one.value)


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
