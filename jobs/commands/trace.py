"""`unipic trace`."""

from __future__ import annotations

import typer

from unipic.jobs.terminal.options import Anonymous, AsJson, EndpointUrl, OutputUri, Region, RowName, storage_of
from unipic.jobs.terminal.words import as_json


def trace_row(
    output: OutputUri,
    row: RowName,
    json: AsJson = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Walk a row back to its first manifest.

    Job by job: each with its prompt, its source file and row, and what that row says.

    \b
    Example:
      unipic trace demo-output/edits 00003
    """
    from unipic.pipeline.audit.trace import trace

    steps = trace(output, row, storage_of(endpoint_url=endpoint_url, region=region, anonymous=anonymous))
    if json:
        typer.echo(as_json(steps))
        return
    for number, step in enumerate(steps):
        lineage = step.lineage
        typer.echo(f"{'   ' * number}{step.job} ({step.task}) {lineage['lineage_id'][:16]}")
        typer.echo(f"{'   ' * number}  prompt  {lineage['prompt']}")
        typer.echo(f"{'   ' * number}  from    {lineage['source_file']}, row {lineage['source_row']}")
        said = ", ".join(f"{name}: {value}" for name, value in step.source.items())
        if said:
            typer.echo(f"{'   ' * number}  which   {said}")
        if step.unread:
            typer.echo(f"{'   ' * number}  which   says nothing any more: {step.unread}")
