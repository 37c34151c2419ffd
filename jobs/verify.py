"""`unipic verify`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import progress as bars
from rich.console import Console

from jobs.exits import FAULT
from jobs.options import Anonymous, AsJson, EndpointUrl, OutputUri, Region, storage_of
from jobs.words import as_json, count

_SHOWN = 50


def verify_output(
    output: OutputUri,
    repair: Annotated[
        bool, typer.Option("--repair", help="Forget damaged units: the next `unipic run` of the job does just them.")
    ] = False,
    replay: Annotated[
        int, typer.Option(metavar="N", min=0, help="Also make N random rows again and compare; loads the model.")
    ] = 0,
    json: AsJson = False,
    endpoint_url: EndpointUrl = None,
    region: Region = None,
    anonymous: Anonymous = False,
) -> None:
    """Audit a whole output.

    Every unit, part, row, picture and lineage is held against its receipt. Exits with 1 on any problem.

    \b
    Examples:
      unipic verify demo-output/pictures
      unipic verify demo-output/pictures --replay 20
      unipic verify demo-output/pictures --repair; unipic run configs/demo-generate.yaml
    """
    from pipeline.replay import replay_sample
    from pipeline.verify import repair as forget
    from pipeline.verify import verify

    storage = storage_of(endpoint_url=endpoint_url, region=region, anonymous=anonymous)
    console = Console(stderr=True, highlight=False)
    with bars.Progress(console=console, transient=True, disable=not console.is_terminal) as live:
        bar = live.add_task("auditing units", total=None)
        report = verify(output, storage, on_unit=lambda done, planned: live.update(bar, completed=done, total=planned))
    for problem in replay_sample(output, replay, storage):
        report.add(problem)
    if json:
        typer.echo(as_json(report))
    else:
        rows = f"{report.data:,} data and {report.rejected:,} rejected of {count(report.rows, 'row')}"
        typer.echo(f"{output}: {'sound' if report.ok else 'NOT sound'}; {rows} in {count(report.units, 'unit')}")
        for kind, number in report.counts.most_common():
            typer.echo(f"  {kind}: {number:,}")
        for problem in report.problems[:_SHOWN]:
            typer.echo(f"    {problem.where}: {problem.message}")
    if repair and report.damaged_units:
        forgotten = count(forget(output, storage, report), "damaged unit")
        typer.echo(f"{forgotten} forgotten; run the job again to have them done", err=True)
    if not report.ok:
        raise typer.Exit(FAULT)
