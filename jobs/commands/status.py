"""`unipic status`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from unipic.jobs.terminal.formatting import as_json, duration, rate
from unipic.jobs.terminal.lines import say
from unipic.jobs.terminal.options import Anonymous, AsJson, EndpointUrl, OfJob, OptionalOutput, Region, output_of
from unipic.jobs.terminal.rejections import kind_lines

if TYPE_CHECKING:
    from unipic.pipeline.audit.status import Status


def show_status(
    output: OptionalOutput = None,
    job: OfJob = None,
    json: AsJson = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Show the progress of a job.

    Reads only the output folder, from any machine with access: rows done, reasons for rejected rows, and active runs.

    \b
    Examples:
      unipic status demo-output/pictures
      unipic status --job configs/generate.yaml
      unipic status s3://datasets/pictures --endpoint-url http://127.0.0.1:9000
    """
    from unipic.pipeline.audit.status import status
    from unipic.pipeline.storage.remote import PATIENCE_S

    where, storage = output_of(
        output, job, endpoint_url=endpoint_url, region=region, anonymous=anonymous, patience_s=PATIENCE_S
    )
    current = status(where, storage)
    if json:
        typer.echo(as_json(current))
        return
    for line in _lines(current):
        say(line)


def _lines(current: Status) -> list[str]:
    done = current.ok + current.rejected
    share = f" ({100 * done / current.rows:.0f} %)" if current.rows else ""
    lines = [
        f"{current.name} ({current.task}): {_state(current)}",
        f"  rows      {done:,} of {current.rows:,} done{share}, {current.rejected:,} rejected",
    ]
    if current.rejected:
        lines += [f"  rejected  {text}" for text in kind_lines(current.rejections)]
    lines.append(f"  units     {current.units_done:,} of {current.units:,}")
    if current.last is not None:
        lines.append(f"  last      {duration(time.time() - current.last)} ago")
    lines += [f"  run       {run}" for run in current.at_work]
    if current.seal:
        lines.append(f"  seal      {current.seal}")
    if current.rows_per_s and not current.finished:
        left = f", {duration(current.eta_s)} left at that rate" if current.eta_s is not None else ""
        lines.append(f"  rate      {rate(current.rows_per_s, 'rows')} over the last units{left}")
    return lines


def _state(current: Status) -> str:
    if current.finished:
        return "finished"
    if current.at_work:
        return "running"
    if current.rejected > current.rejected_allowed:
        rest = "" if current.complete else ", not finished"
        return f"too many rejected rows (limits.max_rejected allows {current.rejected_allowed:,}){rest}, no active run"
    return "not finished, no active run"
