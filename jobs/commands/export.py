"""`unipic export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unipic.jobs.terminal.options import Anonymous, EndpointUrl, OutputUri, Region, storage_of
from unipic.jobs.terminal.words import count


def export_captions(
    output: OutputUri,
    to: Annotated[Path, typer.Option(metavar="FILE", help="Where to: a name that ends in .csv or .jsonl.")],
    force: Annotated[bool, typer.Option("--force", help="Replace the file where it is there.")] = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Write captions as CSV or JSON lines.

    One row a caption, in the manifest's order: id, source, question, caption, lineage_id, and what the job keeps.
    In CSV, text that a spreadsheet would run as a formula stands behind an apostrophe; JSON lines are verbatim.

    \b
    Example:
      unipic export demo-output/captions --to captions.csv
    """
    from unipic.pipeline.audit.export import export

    storage = storage_of(endpoint_url=endpoint_url, region=region, anonymous=anonymous)
    found = export(output, to, storage, force=force)
    typer.echo(f"{count(found.rows, 'caption')} written to {to}")
    if found.rejected or found.undone:
        typer.echo(f"  without one: {count(found.rejected, 'row')} rejected, {count(found.undone, 'row')} not done yet")
    if found.left_out:
        typer.echo(f"  left out: {', '.join(found.left_out)} (neither text nor number)")
