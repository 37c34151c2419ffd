"""`unipic replay`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unipic.jobs.terminal.exit_codes import FAULT
from unipic.jobs.terminal.formatting import as_json
from unipic.jobs.terminal.lines import say
from unipic.jobs.terminal.options import (
    Anonymous,
    AsJson,
    EndpointUrl,
    OutputUri,
    Region,
    RowName,
    storage_from_options,
)
from unipic.jobs.terminal.steps import Steps

if TYPE_CHECKING:
    from unipic.pipeline.audit.replay import Replayed

Against = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        exists=True,
        dir_okay=False,
        readable=True,
        help="Compare with this file instead of the stored row.",
    ),
]
Save = Annotated[
    Path | None, typer.Option(metavar="FILE", dir_okay=False, writable=True, help="Write the result to this file.")
]


def replay_row(
    output: OutputUri,
    row: RowName,
    against: Against = None,
    save: Save = None,
    json: AsJson = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Generate a row again and compare.

    On the same kind of hardware the results are identical. If a micro-batch had to shrink, pixels may differ by 1 of
    255, and a caption in its words. Exits with code 1 on a larger difference.

    \b
    Example:
      unipic replay demo-output/pictures single-01 --save again.png
    """
    from unipic.pipeline.audit.replay import replay
    from unipic.pipeline.errors import JobError

    if save is not None and not save.absolute().parent.is_dir():  # fails before the model loads
        raise JobError(f"cannot write {save}: the folder {save.absolute().parent} does not exist")
    reference = against.read_bytes() if against is not None else None
    storage = storage_from_options(endpoint_url=endpoint_url, region=region, anonymous=anonymous)
    with Steps() as steps:
        steps("generating the row again")
        replayed = replay(output, row, storage, against=reference)
    if save is not None:
        try:
            save.write_bytes(replayed.after)
        except OSError as error:
            raise JobError(f"cannot write {save}: {error.strerror}") from error
        if not json:
            say(f"wrote {save}")
    if json:
        values = {name: value for name, value in vars(replayed).items() if not isinstance(value, bytes)}
        typer.echo(as_json(values | {"as_promised": replayed.as_promised}))
    else:
        for line in _lines(replayed):
            say(line)
    if not replayed.identical and not replayed.as_promised:
        raise typer.Exit(FAULT)


def _lines(replayed: Replayed) -> list[str]:
    if replayed.identical:
        return [f"identical: {replayed.lineage_id[:16]} has SHA-256 {replayed.made[:16]} again"]
    lines = [f"NOT identical: stored {replayed.expected[:16]}, replayed {replayed.made[:16]}"]
    if replayed.max_difference is not None:
        lines.append(f"  {replayed.differing_px:,} pixels differ, by at most {replayed.max_difference} of 255")
    if replayed.as_promised:
        expected = "rounding may change words" if replayed.max_difference is None else "1 of 255 is within tolerance"
        lines.append(f"  The original micro-batch cannot be reproduced, so {expected}.")
    return lines
