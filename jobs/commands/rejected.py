"""`unipic rejected`."""

from __future__ import annotations

import csv
import sys
from dataclasses import asdict, fields
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from unipic.jobs.terminal.formatting import as_json
from unipic.jobs.terminal.lines import say
from unipic.jobs.terminal.options import Anonymous, AsJson, EndpointUrl, OutputUri, Region, storage_from_options
from unipic.jobs.terminal.rejections import place

if TYPE_CHECKING:
    from unipic.pipeline.audit.rejections import Rejection


def list_rejected(
    output: OutputUri,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="Only rows of this kind.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="At most this many rows.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    json: AsJson = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """List rejected rows with their reasons.

    `unipic run JOB --retry-rejected` attempts them again.

    \b
    Examples:
      unipic rejected demo-output/pictures
      unipic rejected demo-output/pictures --kind PromptRefused --csv > long.csv
    """
    from unipic.pipeline.audit.export import harmless
    from unipic.pipeline.audit.rejections import Rejection, rejections

    storage = storage_from_options(endpoint_url=endpoint_url, region=region, anonymous=anonymous)
    rows = islice(rejections(output, storage, kind=kind), limit)
    if json:
        typer.echo(as_json(list(rows)))
        return
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow([field.name for field in fields(Rejection)])
        writer.writerows([harmless(cell) for cell in asdict(row).values()] for row in rows)
        return
    empty = True
    for row in rows:
        say(_line(row))
        empty = False
    if empty:
        typer.echo("no rejected rows" + (f" of kind {kind}" if kind else ""), err=True)


def _line(row: Rejection) -> str:
    return f"{place(row)}: {row.kind}: {' '.join(row.message.split())}"
