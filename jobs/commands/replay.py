"""`unipic replay`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unipic.jobs.terminal.exits import FAULT
from unipic.jobs.terminal.options import Anonymous, EndpointUrl, OutputUri, Region, RowName, storage_of


def replay_row(
    output: OutputUri,
    row: RowName,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            readable=True,
            help="Compare with this file instead of what the output holds.",
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, writable=True, help="Write the row made again to this file."),
    ] = None,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Make a row again, and compare.

    On hardware like the job's the two are equal. Where micro-batches had to shrink they may differ by 1 of 255, and a
    caption in its words. Exits with 1 where they differ more than that.

    \b
    Example:
      unipic replay demo-output/pictures 00003 --save again.png
    """
    from unipic.pipeline.audit.replay import replay
    from unipic.pipeline.errors import JobError

    if save is not None and not save.absolute().parent.is_dir():  # said before the model loads
        raise JobError(f"{save} cannot be written: there is no folder {save.absolute().parent}")
    other = against.read_bytes() if against is not None else None
    storage = storage_of(endpoint_url=endpoint_url, region=region, anonymous=anonymous)
    found = replay(output, row, storage, against=other)
    if save is not None:
        try:
            save.write_bytes(found.after)
        except OSError as error:
            raise JobError(f"{save} cannot be written: {error.strerror}") from error
        typer.echo(f"written to {save}")
    if found.identical:
        typer.echo(f"identical: {found.lineage_id[:16]} gives SHA-256 {found.made[:16]} again")
        return
    typer.echo(f"NOT identical: stored {found.expected[:16]}, made again {found.made[:16]}")
    if found.max_difference is not None:
        typer.echo(f"  {found.differing_px:,} pixels differ, by {found.max_difference} of 255 at most")
    if not found.as_promised:
        raise typer.Exit(FAULT)
    cut = "its micro-batch cannot be cut as it was"
    if found.max_difference is None:
        typer.echo(f"  no more is promised: {cut}, and rounding may then turn a caption's words")
    else:
        typer.echo(f"  within 1/255, which is what was promised: {cut}")
