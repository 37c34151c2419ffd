"""`unipic bench compact`: what merging the parts of an output costs and gains."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from unipic.jobs.terminal.formatting import as_json
from unipic.jobs.terminal.options import AsJson


def compact(
    rows: Annotated[int, typer.Option(min=1_000, help="Captions in the output.")] = 1_000_000,
    json: AsJson = False,
) -> None:
    """Measure compaction.

    Writes an output of captions to a temporary folder, opens it, compacts it and opens it again.

    \b
    Example:
      unipic bench compact --rows 100000
    """
    from unipic.pipeline.bench.compact import bench_compact

    found = bench_compact(rows)
    if json:
        typer.echo(as_json(found))
        return
    pace = f"{found.rows:,} captions in {found.units:,} units, compacted in {found.seconds:.1f} s"
    table = Table("", "before", "after", title=pace, title_justify="left")
    table.add_row("data files", *(f"{count:,}" for count in found.files))
    table.add_row("bytes a row", *(f"{count:.0f}" for count in found.row_bytes))
    table.add_row("seconds to open", *(f"{seconds:.2f}" for seconds in found.open_s))
    Console(highlight=False).print(table)
