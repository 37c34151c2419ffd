"""`unipic trace`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from unipic.jobs.terminal.formatting import as_json
from unipic.jobs.terminal.options import (
    Anonymous,
    AsJson,
    EndpointUrl,
    OutputUri,
    Region,
    RowName,
    storage_from_options,
)

if TYPE_CHECKING:
    from unipic.pipeline.audit.trace import Step


def trace_row(
    output: OutputUri,
    row: RowName,
    json: AsJson = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Trace a row back to its first manifest.

    Shows each job on the way with its prompt, its source file and row, and the content of that row.

    \b
    Example:
      unipic trace demo-output/edits edit-01
    """
    from unipic.pipeline.audit.trace import trace

    steps = trace(output, row, storage_from_options(endpoint_url=endpoint_url, region=region, anonymous=anonymous))
    if json:
        typer.echo(as_json(steps))
        return
    for depth, step in enumerate(steps):
        for line in _lines(step):
            typer.echo("   " * depth + line)


def _lines(step: Step) -> list[str]:
    lineage = step.lineage
    lines = [
        f"{step.job} ({step.task}) {lineage['lineage_id'][:16]}",
        f"  prompt  {lineage['prompt_sent']}",
        f"  from    {step.source_uri or lineage['source_file']}, row {lineage['source_row']}",
    ]
    if step.source:
        lines.append("  source  " + ", ".join(f"{name}: {value}" for name, value in step.source.items()))
    if step.unread:
        lines.append(f"  source  cannot be read: {step.unread}")
    return lines
