"""`unipic status`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from unipic.jobs.terminal.options import Anonymous, AsJson, EndpointUrl, OutputUri, Region, storage_of
from unipic.jobs.terminal.words import as_json, duration, rate

if TYPE_CHECKING:
    from unipic.pipeline.audit.status import Status


def show_status(
    output: OutputUri,
    json: AsJson = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Tell how a job stands.

    Read from its output folder alone, from any machine that has access: rows done, why rows were rejected,
    and which runs are at work on it.

    \b
    Examples:
      unipic status demo-output/pictures
      unipic status s3://datasets/pictures --endpoint-url http://127.0.0.1:9000
    """
    from unipic.pipeline.audit.status import status

    now = status(output, storage_of(endpoint_url=endpoint_url, region=region, anonymous=anonymous))
    if json:
        typer.echo(as_json(now))
        return
    done = now.ok + now.rejected
    share = f" ({100 * done / now.rows:.0f} %)" if now.rows else ""
    how = "finished" if now.finished else "at work" if now.at_work else "not finished, and no run is at work on it"
    typer.echo(f"{now.name} ({now.task}): {how}")
    typer.echo(f"  rows      {done:,} of {now.rows:,} done{share}, {now.rejected:,} rejected")
    if now.rejected:
        typer.echo(f"  rejected  {now.rejected:,}: {_kinds(now)}")
    typer.echo(f"  units     {now.units_done:,} of {now.units:,}")
    if now.last is not None:
        typer.echo(f"  last      {duration(time.time() - now.last)} ago")
    for run in now.at_work:
        typer.echo(f"  at work   {run}")
    if now.rows_per_s and not now.finished:
        left = f", {duration(now.eta_s)} left at that rate" if now.eta_s is not None else ""
        typer.echo(f"  rate      {rate(now.rows_per_s, 'rows')} over the last units{left}")


def _kinds(now: Status) -> str:
    """`4 EmptyPrompt, 3 ForbiddenSource`."""
    told = [f"{number:,} {kind}" for kind, number in now.rejected_kinds.items()]
    if untold := now.rejected - sum(now.rejected_kinds.values()):
        told.append(f"{untold:,} of a kind that their receipts do not say")
    return ", ".join(told)
