"""`unipic export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unipic.jobs.terminal.formatting import as_json, count
from unipic.jobs.terminal.options import Anonymous, AsJson, EndpointUrl, OutputUri, Region, storage_from_options


def export_captions(
    output: OutputUri,
    to: Annotated[Path, typer.Option(metavar="FILE", help="File to write; its name ends in .csv or .jsonl.")],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    json: AsJson = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Write captions as CSV or JSON lines.

    Writes one row per caption in manifest order: id, source, question, caption, lineage_id, and the columns the job
    keeps. In CSV, an apostrophe protects text that a spreadsheet would run as a formula; JSON lines are verbatim.

    \b
    Example:
      unipic export demo-output/captions --to captions.csv
    """
    from unipic.pipeline.audit.export import export

    storage = storage_from_options(endpoint_url=endpoint_url, region=region, anonymous=anonymous)
    exported = export(output, to, storage, force=force)
    if json:
        typer.echo(as_json(exported))
        return
    typer.echo(f"wrote {count(exported.rows, 'caption')} to {to}")
    if exported.rejected or exported.undone:
        missing = f"{count(exported.rejected, 'row')} rejected, {count(exported.undone, 'row')} not done yet"
        typer.echo(f"  without a caption: {missing}")
    if exported.left_out:
        typer.echo(f"  columns left out: {', '.join(exported.left_out)} (neither text nor numbers)")
