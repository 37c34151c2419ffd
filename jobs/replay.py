"""`unipic replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.exits import FAULT
from jobs.options import Anonymous, EndpointUrl, OutputUri, Region, RowName, storage_of


def replay_row(
    output: OutputUri,
    row: RowName,
    against: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Compare with this file instead of what the output holds.")
    ] = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the row made again to this file.")] = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Make a row again, and compare.

    Exits with 1 where the two differ more than promised.

    \b
    Example:
      unipic replay demo-output/pictures 00003 --save again.png
    """
    from pipeline.replay import replay

    other = against.read_bytes() if against is not None else None
    storage = storage_of(endpoint_url=endpoint_url, region=region, anonymous=anonymous)
    found = replay(output, row, storage, against=other)
    if save is not None:
        save.write_bytes(found.after)
        typer.echo(f"written to {save}")
    if found.identical:
        typer.echo(f"identical: {found.lineage_id[:16]} gives SHA-256 {found.made[:16]} again")
        return
    typer.echo(f"NOT identical: stored {found.expected[:16]}, made again {found.made[:16]}")
    if found.max_difference is not None:
        typer.echo(f"  {found.differing_px:,} pixels differ, by {found.max_difference} of 255 at most")
        if not found.exact and found.max_difference <= 1:
            typer.echo("  within 1/255, which is what was promised: its unit ran with a smaller micro-batch")
            return
    raise typer.Exit(FAULT)
